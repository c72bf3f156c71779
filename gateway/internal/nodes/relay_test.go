package nodes

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// relayTo is a relay to a control plane that a handler plays.
func relayTo(t *testing.T, handler http.HandlerFunc) *Relay {
	t.Helper()
	server := httptest.NewServer(handler)
	t.Cleanup(server.Close)
	return newRelay("/k3jd84hf", &api{base: server.URL + "/k3jd84hf", http: server.Client(), bear: func() (string, error) { return "the gateway's own", nil }})
}

func TestOnlyWhatADeviceNeedsIsPassedOn(t *testing.T) {
	r := relayTo(t, nil)
	for request, want := range map[string]bool{
		"POST /k3jd84hf/api/v1/auth/challenge":       true,
		"POST /k3jd84hf/api/v1/auth/token":           true,
		"GET /k3jd84hf/api/v1/gateways":              true,
		"GET /k3jd84hf/api/v1/me":                    true,
		"GET /k3jd84hf/api/v1/auth/token":            false,
		"POST /k3jd84hf/api/v1/devices/enroll":       false, // whoever tries codes is counted
		"POST /k3jd84hf/api/v1/auth/validate-device": false,
		"POST /k3jd84hf/api/v1/gateway/join":         false,
		"GET /k3jd84hf/api/v1/admin/users":           false,
		"GET /k3jd84hf/api/v1/me/":                   false,
		"GET /k3jd84hf/../k3jd84hf/api/v1/me":        false,
		"GET /k3jd84hf/api/v1/%6de":                  false,
		"GET /api/v1/me":                             false,
		"GET /other/api/v1/me":                       false,
		"GET /k3jd84hf":                              false,
		"GET /":                                      false,
	} {
		method, path, _ := strings.Cut(request, " ")
		req := httptest.NewRequestWithContext(t.Context(), method, "https://gw.example"+path, nil)
		if got := r.Takes(req); got != want {
			t.Errorf("%s: %v", request, got)
		}
	}
	r.prefix = ""
	if r.Takes(httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://gw.example/api/v1/me", nil)) {
		t.Error("without a secret path, strangers would be told that this is a gateway")
	}
}

func TestQuestionsAndAnswersArePassedOnAndNothingBeside(t *testing.T) {
	var asked http.Header
	r := relayTo(t, func(w http.ResponseWriter, r *http.Request) {
		asked = r.Header.Clone()
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "application/problem+json")
		w.Header().Set("Retry-After", "7")
		w.Header().Set("Set-Cookie", "a=b")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, r.Method+" "+r.URL.Path+" "+string(body))
	})
	req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://gw.example/k3jd84hf/api/v1/auth/token", strings.NewReader(`{"nonce":"x"}`))
	for name, value := range map[string]string{
		"Authorization": "Bearer the device's", "Content-Type": "application/json", "Accept": "application/json",
		"Cookie": "sid=knock", "X-Forwarded-For": "192.0.2.1", "User-Agent": "a device",
	} {
		req.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	r.ServeHTTP(w, req)
	if got := w.Body.String(); w.Code != http.StatusForbidden || got != `POST /k3jd84hf/api/v1/auth/token {"nonce":"x"}` {
		t.Errorf("%d %q", w.Code, got)
	}
	if diff := cmp.Diff(http.Header{
		"Content-Type": {"application/problem+json"}, "Retry-After": {"7"}, "Content-Length": {"46"}, "Cache-Control": {"no-store"},
	}, w.Header()); diff != "" {
		t.Error(diff)
	}
	delete(asked, "Accept-Encoding") // package net/http's own
	delete(asked, "User-Agent")
	if diff := cmp.Diff(http.Header{
		"Authorization": {"Bearer the device's"}, "Content-Type": {"application/json"}, "Accept": {"application/json"}, "Content-Length": {"13"},
	}, asked); diff != "" {
		t.Error(diff)
	}
}

func TestALongQuestionIsNotPassedOn(t *testing.T) {
	r := relayTo(t, func(http.ResponseWriter, *http.Request) { t.Error("it was") })
	w := httptest.NewRecorder()
	r.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodPost, "https://gw.example/k3jd84hf/api/v1/auth/token",
		strings.NewReader(strings.Repeat("x", maxQuestion+1))))
	if w.Code != http.StatusRequestEntityTooLarge {
		t.Errorf("HTTP %d", w.Code)
	}
}

func TestAControlPlaneThatIsAwayOrTellsTooMuchIsABadGateway(t *testing.T) {
	long := relayTo(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, maxAnswer+1)) })
	away := newRelay("/k3jd84hf", &api{base: "http://127.0.0.1:1/k3jd84hf", http: &http.Client{}})
	for name, r := range map[string]*Relay{"long": long, "away": away} {
		w := httptest.NewRecorder()
		r.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://gw.example/k3jd84hf/api/v1/me", nil))
		if w.Code != http.StatusBadGateway || w.Body.Len() > 0 {
			t.Errorf("%s: HTTP %d and %d bytes", name, w.Code, w.Body.Len())
		}
	}
}

// silent is a control plane that answers nobody.
type silent struct{}

func (silent) RoundTrip(r *http.Request) (*http.Response, error) {
	<-r.Context().Done()
	return nil, context.Cause(r.Context())
}

func TestWhatIsPassedOnAtOnceIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRelay("/k3jd84hf", &api{base: "https://service.example/k3jd84hf", http: &http.Client{Transport: silent{}}})
		codes := make(chan int, 2*maxRelayed)
		var wg sync.WaitGroup
		start := time.Now()
		for range 2 * maxRelayed {
			wg.Go(func() {
				w := httptest.NewRecorder()
				r.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://gw.example/k3jd84hf/api/v1/me", nil))
				codes <- w.Code
			})
		}
		wg.Wait()
		close(codes)
		got := map[int]int{}
		for code := range codes {
			got[code]++
		}
		if want := map[int]int{http.StatusServiceUnavailable: maxRelayed, http.StatusBadGateway: maxRelayed}; !cmp.Equal(got, want) || time.Since(start) != callTimeout {
			t.Errorf("%v after %v, want %v", got, time.Since(start), want)
		}
	})
}
