package carrier_test

import (
	"crypto/sha1"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
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

// What answers the upgrade in any other way than a gateway is none: part 2 of the
// protocol document.
func TestOnlyAGatewaysAnswerIsTaken(t *testing.T) {
	const good = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"
	for name, tc := range map[string]struct {
		answer string
		taken  bool
	}{
		"as a gateway":              {good + "Sec-WebSocket-Protocol: httvps.v1\r\n", true},
		"without the sub-protocol":  {good, false},
		"with another sub-protocol": {good + "Sec-WebSocket-Protocol: httvps.v2\r\n", false},
		"with an extension":         {good + "Sec-WebSocket-Protocol: httvps.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n", false},
		"with a wrong accept":       {strings.Replace(good, "%s", "x%s", 1) + "Sec-WebSocket-Protocol: httvps.v1\r\n", false},
		"with 200":                  {strings.Replace(good, "101 Switching Protocols", "200 OK", 1) + "Sec-WebSocket-Protocol: httvps.v1\r\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			url, trust := site(t, func(w http.ResponseWriter, r *http.Request) {
				if got := r.Header.Values("Sec-Websocket-Extensions"); len(got) > 0 {
					t.Errorf("the client offers %q", got)
				}
				conn, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = conn.Close() }()
				sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
				_, _ = fmt.Fprintf(conn, tc.answer+"\r\n", base64.StdEncoding.EncodeToString(sum[:]))
				_, _ = io.Copy(io.Discard, conn)
			})
			conn, err := carrier.Dial(t.Context(), url, carrier.DialOptions{TLS: trust})
			if (err == nil) != tc.taken {
				t.Errorf("Dial = %v", err)
			}
			if err == nil {
				_ = conn.Close()
			}
		})
	}
}

func TestTheClientSpeaksNoTLSBefore13(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.NotFoundHandler())
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.TLS = &tls.Config{MaxVersion: tls.VersionTLS12}
	srv.StartTLS()
	defer srv.Close()
	trust := trusting(srv)
	trust.MinVersion = tls.VersionTLS12
	_, err := carrier.Dial(t.Context(), "wss://"+srv.Listener.Addr().String()+"/", carrier.DialOptions{TLS: trust})
	if _, answered := errors.AsType[*carrier.UpgradeError](err); err == nil || answered {
		t.Errorf("Dial = %v, want no connection", err)
	}
}
