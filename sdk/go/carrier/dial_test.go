package carrier_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/carrier"
)

// site serves handle over TLS and returns its URL as a gateway's, and a
// configuration that trusts it.
func site(t *testing.T, handle http.HandlerFunc) (url string, trust *tls.Config) {
	t.Helper()
	srv := httptest.NewTLSServer(handle)
	t.Cleanup(srv.Close)
	return "wss://" + srv.Listener.Addr().String() + "/tunnel", trusting(srv)
}

// trusting is a client's configuration that trusts the server.
func trusting(srv *httptest.Server) *tls.Config {
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
}

func TestTheCookieIsInTheUpgrade(t *testing.T) {
	for name, cookie := range map[string]string{"one": "sid=AQHB", "none": ""} {
		t.Run(name, func(t *testing.T) {
			got := make(chan []string, 1)
			url, trust := site(t, func(w http.ResponseWriter, r *http.Request) {
				got <- r.Header["Cookie"]
				http.NotFound(w, r)
			})
			_, err := carrier.Dial(t.Context(), url, carrier.DialOptions{TLS: trust, Cookie: cookie})
			if _, ok := errors.AsType[*carrier.UpgradeError](err); !ok {
				t.Fatalf("Dial = %v", err)
			}
			if lines := <-got; (cookie == "") != (len(lines) == 0) || len(lines) > 0 && (len(lines) != 1 || lines[0] != cookie) {
				t.Errorf("the request has the cookies %q, want %q", lines, cookie)
			}
		})
	}
}

func TestACookieCannotBreakTheRequest(t *testing.T) {
	url, trust := site(t, func(http.ResponseWriter, *http.Request) { t.Error("there is a request") })
	if _, err := carrier.Dial(t.Context(), url, carrier.DialOptions{TLS: trust, Cookie: "a=b\r\nX: y"}); err == nil {
		t.Error("Dial took a line break")
	}
}

func TestARefusalTellsTheOtherEndsClock(t *testing.T) {
	day := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		answer http.HandlerFunc
		status int
		date   time.Time
	}{
		"a page": {
			answer: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", day.Format(http.TimeFormat))
				_, _ = io.WriteString(w, "<html>")
			},
			status: http.StatusOK, date: day,
		},
		"an error without a Date": {
			answer: func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Date"] = nil
				w.WriteHeader(http.StatusNotFound)
			},
			status: http.StatusNotFound,
		},
		"a Date that is none": {
			answer: func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Date", "yesterday")
				w.WriteHeader(http.StatusNotFound)
			},
			status: http.StatusNotFound,
		},
		"a head that never ends": {
			answer: func(w http.ResponseWriter, _ *http.Request) {
				w.Header()["Date"] = nil
				w.Header().Set("X", string(make([]byte, 64<<10)))
				w.WriteHeader(http.StatusNotFound)
			},
			status: http.StatusNotFound,
		},
		"a body that goes on": { // nobody waits for its end
			answer: func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", day.Format(http.TimeFormat))
				w.WriteHeader(http.StatusOK)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			},
			status: http.StatusOK, date: day,
		},
	} {
		t.Run(name, func(t *testing.T) {
			url, trust := site(t, tc.answer)
			_, err := carrier.Dial(t.Context(), url, carrier.DialOptions{TLS: trust})
			refused, ok := errors.AsType[*carrier.UpgradeError](err)
			if !ok {
				t.Fatalf("Dial = %v", err)
			}
			if refused.Status != tc.status || !refused.Date.Equal(tc.date) {
				t.Errorf("status %d at %v, want %d at %v", refused.Status, refused.Date, tc.status, tc.date)
			}
		})
	}
}
