package httvps_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/tlspin"
)

const (
	code = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	pin  = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"
)

// What follows the # is tested alike in internal/link, which reads the other links.
func TestInvitationsAreParsedAndDamageIsNamed(t *testing.T) {
	for link, want := range map[string]httvps.Invitation{
		"https://vpn.test:8443/k3j/join#code=" + code:                                {API: "https://vpn.test:8443/k3j", Code: code},
		"https://vpn.test/k3j/join#code=" + code + ",pin=" + pin:                     {API: "https://vpn.test/k3j", Code: code, Pin: pin},
		" https://vpn.test/join#pin=" + pin + ",code=" + strings.ToLower(code):       {API: "https://vpn.test", Code: code, Pin: pin},
		"https://[2001:db8::1]:8443/a/b/join#new=1,code=" + code + "\n":              {API: "https://[2001:db8::1]:8443/a/b", Code: code},
		"https://vpn.test/k3j/join#code=" + code + ",later=%20,odd,even=x=y,Code=no": {API: "https://vpn.test/k3j", Code: code},
		"https://vpn.test/k3j/join#code=" + code + ",":                               {API: "https://vpn.test/k3j", Code: code},
		"https://vpn.test/k3j%2Fx/join#code=" + code:                                 {API: "https://vpn.test/k3j%2Fx", Code: code},
	} {
		got, err := httvps.ParseInvitation(link)
		if err != nil || got.API != want.API || got.Code != want.Code || got.Pin != want.Pin {
			t.Errorf("%q: %q %q %q, %v", link, got.API, got.Code, got.Pin, err)
		}
	}
	for name, tc := range map[string]struct{ link, want string }{
		"nothing":                       {"", "empty"},
		"no URL":                        {"https://vpn test/%zz", "not a URL"},
		"no link at all":                {"hello", "https://"},
		"plain http":                    {"http://vpn.test/k3j/join#code=" + code, "https://"},
		"another scheme":                {"ss://vpn.test/k3j/join#code=" + code, "https://"},
		"no host":                       {"https:///k3j/join#code=" + code, "damaged"},
		"no fragment":                   {"https://vpn.test/k3j/join", "after #"},
		"a gateway's link":              {"https://vpn.test/k3j/gateway-join#code=" + code, "invitation for a device"},
		"a bootstrap link":              {"https://vpn.test/k3j/bootstrap#code=" + code, "invitation for a device"},
		"the code in the query":         {"https://vpn.test/k3j/join?code=" + code + "#x", "query"},
		"a user":                        {"https://u:p@vpn.test/k3j/join#code=" + code, "user"},
		"no code":                       {"https://vpn.test/k3j/join#pin=" + pin, "code is missing"},
		"a code cut short":              {"https://vpn.test/k3j/join#code=" + code[:20], "20 characters, want 26"},
		"a code too long":               {"https://vpn.test/k3j/join#code=" + code + "A", "27 characters, want 26"},
		"a code with a zero":            {"https://vpn.test/k3j/join#code=0" + code[1:], "A–Z and 2–7"},
		"a code with an escape":         {"https://vpn.test/k3j/join#code=%41" + code[3:], "A–Z and 2–7"},
		"an empty code":                 {"https://vpn.test/k3j/join#code=,pin=" + pin, "code is missing"},
		"a letter that looks like an S": {"https://vpn.test/k3j/join#code=" + code[:24] + "ſ", "A–Z and 2–7"},
		"another separator":             {"https://vpn.test/k3j/join#code=" + code + "&pin=" + pin, "characters, want 26"},
		"two codes":                     {"https://vpn.test/k3j/join#code=" + code + ",code=" + code, "twice"},
		"two pins":                      {"https://vpn.test/k3j/join#code=" + code + ",pin=" + pin + ",pin=" + pin, "twice"},
		"two of an unknown name":        {"https://vpn.test/k3j/join#code=" + code + ",x=1,x=2", "twice"},
		"a pin cut short":               {"https://vpn.test/k3j/join#code=" + code + ",pin=" + pin[:40], "pin"},
		"an empty pin":                  {"https://vpn.test/k3j/join#code=" + code + ",pin=", "pin"},
		"a pin without a value":         {"https://vpn.test/k3j/join#code=" + code + ",pin", "pin"},
		"a pin that another spells":     {"https://vpn.test/k3j/join#code=" + code + ",pin=" + pin[:42] + "9", "pin"},
		"an endless link":               {"https://vpn.test/" + strings.Repeat("a", 3000) + "/join#code=" + code, "at most"},
	} {
		_, err := httvps.ParseInvitation(tc.link)
		if !errors.Is(err, httvps.ErrInvitation) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
			continue
		}
		for _, secret := range []string{code, code[:20], pin, "k3j"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s: the error repeats the link: %v", name, err)
			}
		}
	}
}

func FuzzParseInvitation(f *testing.F) {
	f.Add("https://vpn.test:8443/k3j/join#code=" + code + ",pin=" + pin)
	f.Add("https://vpn.test/join#code=" + code)
	f.Fuzz(func(t *testing.T, link string) {
		inv, err := httvps.ParseInvitation(link)
		if err != nil {
			return
		}
		again, err := httvps.ParseInvitation(inv.API + "/join#code=" + inv.Code + map[bool]string{true: ",pin=" + inv.Pin}[inv.Pin != ""])
		if err != nil || again.Fingerprint() != inv.Fingerprint() || again.Pin != inv.Pin {
			t.Errorf("%q: parsed parts do not parse again: %v", link, err)
		}
	})
}

func TestAnInvitationIsPrintedWithoutItsCode(t *testing.T) {
	inv := httvps.Invitation{API: "https://vpn.test/k3j", Code: code}
	for _, text := range []string{
		fmt.Sprint(inv), fmt.Sprintf("%+v", inv), fmt.Sprintf("%#v", inv), fmt.Sprintf("%v", []any{&inv}), slog.AnyValue(inv).Resolve().String(), inv.Fingerprint(),
	} {
		if strings.Contains(text, code) || strings.Contains(text, "k3j") {
			t.Errorf("%s", text)
		}
	}
}

func parse(t *testing.T, link string) httvps.Invitation {
	t.Helper()
	inv, err := httvps.ParseInvitation(link)
	if err != nil {
		t.Fatal(err)
	}
	return inv
}

func TestEnrollingSavesWhoTheDeviceIs(t *testing.T) {
	s := start(t, httvpstest.Options{})
	store := httvps.NewMemoryStore()
	inv := parse(t, s.Invitation())
	got, err := httvps.Enroll(t.Context(), inv, httvps.EnrollOptions{Store: store, Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	saved, err := store.Profile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	want := httvps.Profile{
		DeviceID: got.DeviceID, DeviceName: "laptop", UserName: "ann",
		ServiceID: "0190163d-8694-739b-aea5-966c26f8ad92", ServiceName: "test service",
		API: []string{s.API}, Pin: s.Pin, Knock: got.Knock, Invitation: inv.Fingerprint(),
	}
	if diff := cmp.Diff(want, saved); diff != "" {
		t.Error(diff)
	}
	text, err := json.Marshal(saved)
	if err != nil || strings.Contains(string(text), inv.Code) {
		t.Errorf("%s, %v", text, err)
	}
}

func TestEnrollingAgainAfterALostAnswerGivesTheSameDevice(t *testing.T) {
	var lose atomic.Bool
	s := start(t, httvpstest.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/api/v1/devices/enroll" && lose.Load() {
				next.ServeHTTP(httptest.NewRecorder(), r)
				panic(http.ErrAbortHandler)
			}
			next.ServeHTTP(w, r)
		})
	}})
	store := httvps.NewMemoryStore()
	inv := parse(t, s.Invitation())
	lose.Store(true)
	_, err := httvps.Enroll(t.Context(), inv, httvps.EnrollOptions{Store: store})
	if _, ok := errors.AsType[*httvps.UnreachableError](err); !ok {
		t.Fatalf("a lost answer: %v", err)
	}
	if _, err := store.Profile(t.Context()); !errors.Is(err, httvps.ErrNotEnrolled) {
		t.Errorf("a profile was saved: %v", err)
	}
	lose.Store(false)
	first, err := httvps.Enroll(t.Context(), inv, httvps.EnrollOptions{Store: store})
	if err != nil {
		t.Fatal(err)
	}
	second, err := httvps.Enroll(t.Context(), inv, httvps.EnrollOptions{Store: store})
	if err != nil || second.DeviceID != first.DeviceID {
		t.Errorf("the second time: %v, %v", second.DeviceID, err)
	}

	_, err = httvps.Enroll(t.Context(), inv, httvps.EnrollOptions{Store: httvps.NewMemoryStore()})
	if refused, ok := errors.AsType[*httvps.RefusedError](err); !ok || refused.Code != "invalid_invitation" {
		t.Errorf("another device with the same link: %v", err)
	}
	if _, open := errors.AsType[*httvps.UnreachableError](err); open {
		t.Error("a refusal is told as if the service had not answered")
	}
}

// fullStore cannot save.
type fullStore struct{ *httvps.MemoryStore }

func (fullStore) SaveProfile(context.Context, httvps.Profile) error { return errors.New("disk full") }

func TestAProfileThatCannotBeSavedIsToldAndCanBeRepeated(t *testing.T) {
	s := start(t, httvpstest.Options{})
	store := httvps.NewMemoryStore()
	inv := parse(t, s.Invitation())
	if _, err := httvps.Enroll(t.Context(), inv, httvps.EnrollOptions{Store: fullStore{store}}); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("error %v", err)
	}
	if _, err := httvps.Enroll(t.Context(), inv, httvps.EnrollOptions{Store: store}); err != nil {
		t.Errorf("again: %v", err)
	}
}

// oddService answers everything with handler, on TLS that min and max allow.
func oddService(t *testing.T, handler http.HandlerFunc, change func(*tls.Config)) httvps.Invitation {
	t.Helper()
	s := httptest.NewUnstartedServer(handler)
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if change != nil {
		change(s.TLS)
	}
	s.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	s.StartTLS()
	t.Cleanup(s.Close)
	return httvps.Invitation{API: s.URL + "/s3cretpath", Code: code, Pin: tlspin.Of(s.Certificate()).String()}
}

func TestWhateverAnswersInsteadOfTheServiceIsNotTheService(t *testing.T) {
	var elsewhere atomic.Int32
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { elsewhere.Add(1) }))
	defer other.Close()
	t.Setenv("HTTPS_PROXY", other.URL)
	t.Setenv("https_proxy", other.URL)

	jsonType := func(w http.ResponseWriter) { w.Header().Set("Content-Type", "application/json") }
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		tls     func(*tls.Config)
		want    string
		away    bool // it is no sign of somebody else
	}{
		"a bare 404":        {handler: http.NotFound, want: "HTTP 404 without a reason"},
		"a web page":        {handler: func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) }, want: "without JSON"},
		"a redirect":        {handler: http.RedirectHandler(other.URL, http.StatusTemporaryRedirect).ServeHTTP, want: "HTTP 307"},
		"an endless answer": {handler: func(w http.ResponseWriter, _ *http.Request) { jsonType(w); _, _ = w.Write(make([]byte, 2<<20)) }, want: "over 1048576 bytes"},
		"broken JSON":       {handler: func(w http.ResponseWriter, _ *http.Request) { jsonType(w); _, _ = w.Write([]byte(`{"nonce":`)) }, want: "not the JSON"},
		"no nonce":          {handler: func(w http.ResponseWriter, _ *http.Request) { jsonType(w); _, _ = w.Write([]byte(`{}`)) }, want: "no valid nonce"},
		"a huge nonce": {handler: func(w http.ResponseWriter, _ *http.Request) {
			jsonType(w)
			_, _ = w.Write([]byte(`{"nonce":"` + strings.Repeat("A", 4000) + `"}`))
		}, want: "no valid nonce"},
		"a reason of its own":           {handler: func(w http.ResponseWriter, _ *http.Request) { httvpstest.Problem(w, 403, "Call +1 900 for help!", 0) }, want: "HTTP 403 without a reason"},
		"a connection cut off":          {handler: func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, want: "EOF", away: true},
		"an old version of TLS":         {handler: http.NotFound, tls: func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 }, want: "protocol version", away: true},
		"a proxy whose service is away": {handler: func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusBadGateway) }, want: "HTTP 502 without a reason: the service is not working", away: true},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := httvps.Enroll(t.Context(), oddService(t, tc.handler, tc.tls), httvps.EnrollOptions{Store: httvps.NewMemoryStore()})
			if _, ok := errors.AsType[*httvps.UnreachableError](err); !ok || !strings.Contains(err.Error(), tc.want) {
				t.Fatalf("%v, want an UnreachableError with %q", err, tc.want)
			}
			stranger, is := errors.AsType[*httvps.StrangerError](err)
			if is == tc.away || is && stranger.Untrusted || strings.Contains(err.Error(), "could not be reached") != tc.away {
				t.Errorf("%v: a StrangerError: %v", err, is)
			}
			if strings.Contains(err.Error(), "s3cretpath") || strings.Contains(err.Error(), code) || strings.Contains(err.Error(), "900") {
				t.Errorf("the error says too much: %v", err)
			}
		})
	}
	if elsewhere.Load() != 0 {
		t.Error("a redirect or a proxy of the environment was followed")
	}
}

func TestAServiceWithAnotherKeyIsNotTrusted(t *testing.T) {
	asked := false
	inv := oddService(t, func(http.ResponseWriter, *http.Request) { asked = true }, nil)
	for name, pin := range map[string]string{"another pin": pin, "no pin": ""} {
		inv.Pin = pin
		_, err := httvps.Enroll(t.Context(), inv, httvps.EnrollOptions{Store: httvps.NewMemoryStore()})
		if _, ok := errors.AsType[*httvps.UnreachableError](err); !ok || asked {
			t.Errorf("%s: %v", name, err)
		}
		if stranger, ok := errors.AsType[*httvps.StrangerError](err); !ok || !stranger.Untrusted || strings.Contains(err.Error(), "could not be reached") {
			t.Errorf("%s: %v is told as if nobody were there", name, err)
		}
	}
}

func TestWhatSpeaksNoTLSIsNotTheService(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	inv := httvps.Invitation{API: strings.Replace(s.URL, "http:", "https:", 1), Code: code, Pin: pin}
	_, err := httvps.Enroll(t.Context(), inv, httvps.EnrollOptions{Store: httvps.NewMemoryStore()})
	if stranger, ok := errors.AsType[*httvps.StrangerError](err); !ok || stranger.Untrusted {
		t.Errorf("%v, want a StrangerError", err)
	}
}

func TestAServiceThatAsksToWaitWasReached(t *testing.T) {
	inv := oddService(t, func(w http.ResponseWriter, _ *http.Request) {
		httvpstest.Problem(w, http.StatusTooManyRequests, "rate_limited", time.Minute)
	}, nil)
	_, err := httvps.Enroll(t.Context(), inv, httvps.EnrollOptions{Store: httvps.NewMemoryStore()})
	if refused, ok := errors.AsType[*httvps.RefusedError](err); !ok || refused.Code != "rate_limited" || refused.RetryAfter != time.Minute {
		t.Fatalf("%v, want a RefusedError", err)
	}
	if _, open := errors.AsType[*httvps.UnreachableError](err); !open {
		t.Error("it is told as final")
	}
	if strings.Contains(err.Error(), "reached") || !strings.HasSuffix(err.Error(), "refused by the service: rate_limited") {
		t.Errorf("%v", err)
	}
}

func TestEnrollingEndsWithItsContext(t *testing.T) {
	held := make(chan struct{})
	inv := oddService(t, func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // or the server does not see the client leave
		close(held)
		<-r.Context().Done()
	}, nil)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { <-held; cancel() }()
	if _, err := httvps.Enroll(ctx, inv, httvps.EnrollOptions{Store: httvps.NewMemoryStore()}); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
}

func TestAtTheLimitTheDevicesThatCanBeReplacedAreNamed(t *testing.T) {
	var replaced string
	inv := oddService(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/challenge") {
			w.Header().Set("Content-Type", "application/json")
			_, _ = io.WriteString(w, `{"nonce":"AAAA"}`)
			return
		}
		var request struct {
			Replace string `json:"replace"`
		}
		_ = json.NewDecoder(r.Body).Decode(&request)
		replaced = request.Replace
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		_, _ = io.WriteString(w, `{"code":"device_limit","devices":[`+
			`{"id":"d1","name":"old phone","platform":"android","last_seen_at":null},{"id":"d2","name":"laptop","last_seen_at":"2026-03-01T12:00:00Z"}]}`)
	}, nil)
	_, err := httvps.Enroll(t.Context(), inv, httvps.EnrollOptions{Store: httvps.NewMemoryStore(), Replace: "d0"})
	refused, ok := errors.AsType[*httvps.RefusedError](err)
	if !ok || len(refused.Devices) != 2 || replaced != "d0" {
		t.Fatalf("%v with %+v, asked to replace %q", err, refused, replaced)
	}
	first, second := refused.Devices[0], refused.Devices[1]
	if first.ID != "d1" || first.Name != "old phone" || !first.LastSeen.IsZero() || second.LastSeen.IsZero() {
		t.Errorf("devices are %+v", refused.Devices)
	}
}

func TestARefusedEnrolmentSaysWhatHelps(t *testing.T) {
	for _, code := range []string{"invalid_invitation", "device_limit", "invalid_request", "conflict"} {
		inv := oddService(t, func(w http.ResponseWriter, _ *http.Request) {
			httvpstest.Problem(w, http.StatusForbidden, code, 0)
		}, nil)
		_, err := httvps.Enroll(t.Context(), inv, httvps.EnrollOptions{Store: httvps.NewMemoryStore()})
		refused, ok := errors.AsType[*httvps.RefusedError](err)
		if !ok || refused.Code != code {
			t.Errorf("%s: %v", code, err)
		}
		if strings.Contains(httvps.Explain(code), "does not know") {
			t.Errorf("%s has no explanation", code)
		}
	}
}
