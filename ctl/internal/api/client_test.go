package api_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/httvps/httvps/ctl/internal/api"
	"github.com/httvps/httvps/sdk/go/tlspin"
)

const secret = "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LXNlY3I"

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve starts a TLS service and a client that trusts it by its pin.
func serve(t *testing.T, handler http.HandlerFunc, timeout time.Duration) *api.Client {
	t.Helper()
	server := quietServer(t, handler)
	server.StartTLS()
	return clientOf(t, server, api.Trust{Pin: pinOf(server)}, timeout)
}

func quietServer(t *testing.T, handler http.HandlerFunc) *httptest.Server {
	t.Helper()
	server := httptest.NewUnstartedServer(handler)
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	t.Cleanup(server.Close)
	return server
}

func pinOf(server *httptest.Server) *tlspin.Pin {
	pin := tlspin.Of(server.Certificate())
	return &pin
}

func clientOf(t *testing.T, server *httptest.Server, trust api.Trust, timeout time.Duration) *api.Client {
	t.Helper()
	endpoint, err := api.ParseEndpoint(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	token, err := api.ParseToken("hvt1." + secret)
	if err != nil {
		t.Fatal(err)
	}
	client, err := api.New(api.Options{Endpoint: endpoint, Trust: trust, Token: token, Timeout: timeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

func answer(status int, contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.WriteHeader(status)
		_, _ = io.WriteString(w, body)
	}
}

func TestEveryRefusalIsOneSentenceThatSaysWhatToDo(t *testing.T) {
	const problem = "application/problem+json"
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		want    string
	}{
		"bad token": {
			answer(401, problem, `{"code":"invalid_token"}`),
			"the service does not accept this token (wrong, expired or withdrawn): log in again with httvpsctl login",
		},
		"not allowed": {
			answer(403, problem, `{"code":"forbidden","detail":"owners only"}`),
			"you may not do this: owners only. Ask an owner, or log in with another token (httvpsctl whoami shows this one)",
		},
		"not allowed, without a reason": {
			answer(403, problem, `{}`),
			"the service refuses: this token may not do that",
		},
		"not there": {
			answer(404, problem, `{"code":"not_found"}`),
			`there is no user "u1"`,
		},
		"conflict": {
			answer(409, problem, `{"code":"conflict","detail":"the name is taken"}`),
			"conflict: the name is taken (conflict)",
		},
		"conflict, without a reason": {
			answer(409, problem, `{}`),
			`conflict: user "u1" exists already or is in use`,
		},
		"invalid fields, all of them": {
			answer(422, problem, `{"code":"invalid_request","errors":[{"location":"body.name","message":"too long"},{"location":"body","message":"too much"},{"location":"note","message":"too odd"}]}`),
			"the service does not accept the request: name: too long; too much; note: too odd",
		},
		"invalid, without fields": {
			answer(422, problem, `{"title":"Unprocessable"}`),
			"the service does not accept the request (status 422): Unprocessable",
		},
		"too often": {
			func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Retry-After", "7")
				answer(429, problem, `{}`)(w, r)
			},
			"too many requests: try again in 7 s",
		},
		"broken": {
			answer(500, problem, `{"detail":"oh"}`),
			"the service has a fault of its own (status 500, oh): its log says more",
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := serve(t, tc.handler, 0)
			_, err := client.Users().Get(t.Context(), "u1")
			if err == nil || err.Error() != tc.want {
				t.Errorf("error is\n%v, want\n%s", err, tc.want)
			}
		})
	}
}

func TestAnswersThatNoAdminAPIGives(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"a bare 404":             answer(404, "text/plain", ""),
		"a page":                 answer(200, "text/html", "<html>"),
		"JSON by its label only": answer(200, "application/json", "<html>"),
		"a problem that is none": answer(403, "application/problem+json", "<html>"),
		"a redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://192.0.2.1/secret/", http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := serve(t, handler, 0).Whoami(t.Context())
			if _, ok := errors.AsType[*api.NotTheAPIError](err); !ok {
				t.Errorf("error is %v, want a *NotTheAPIError", err)
			}
		})
	}
}

func TestUnexpectedJSONIsAnError(t *testing.T) {
	for name, body := range map[string]string{"nothing": "", "a list": "[]", "another type": `{"id":1}`} {
		t.Run(name, func(t *testing.T) {
			_, err := serve(t, answer(200, "application/json", body), 0).Whoami(t.Context())
			if err == nil || !strings.Contains(err.Error(), "does not understand") {
				t.Errorf("error is %v", err)
			}
		})
	}
}

func TestRedirectsAreNotFollowed(t *testing.T) {
	var reached atomic.Bool
	elsewhere := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { reached.Store(true) }))
	t.Cleanup(elsewhere.Close)
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, elsewhere.URL+"/?q=1", http.StatusTemporaryRedirect)
	}, 0)
	_, err := client.Users().Create(t.Context(), struct{}{}, "key")
	if err == nil || !strings.Contains(err.Error(), "redirects to "+elsewhere.URL+", which is not followed") {
		t.Errorf("error is %v", err)
	}
	if reached.Load() {
		t.Error("the redirect was followed")
	}
}

func TestAnswersAreBounded(t *testing.T) {
	endless := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	}
	_, err := serve(t, endless, 0).Whoami(t.Context())
	if err == nil || !strings.Contains(err.Error(), "longer than 8 MiB") {
		t.Errorf("error is %v", err)
	}

	long := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Long", strings.Repeat("x", 128<<10))
		answer(200, "application/json", "{}")(w, r)
	}
	if _, err := serve(t, long, 0).Whoami(t.Context()); err == nil {
		t.Error("a header of 128 KiB was accepted")
	}
}

func TestRequestCarriesTheTokenWithoutItsPinAndTheKey(t *testing.T) {
	var got http.Header
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		got = r.Header.Clone()
		answer(201, "application/json", `{"id":"u1"}`)(w, r)
	}, 0)
	if _, err := client.Users().Create(t.Context(), struct{}{}, "key"); err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"Authorization": "Bearer hvt1." + secret, "Idempotency-Key": "key", "Content-Type": "application/json"}
	for name, value := range want {
		if got.Get(name) != value {
			t.Errorf("%s is %q, want %q", name, got.Get(name), value)
		}
	}
}

func TestIdsCannotLeaveTheirPath(t *testing.T) {
	var path string
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		path = r.URL.EscapedPath()
		answer(200, "application/json", `{}`)(w, r)
	}, 0)
	if _, err := client.Users().Get(t.Context(), "../plans?x=1#y/z"); err != nil {
		t.Fatal(err)
	}
	if want := "/api/v1/admin/users/..%2Fplans%3Fx=1%23y%2Fz"; path != want {
		t.Errorf("path is %s, want %s", path, want)
	}
}

func TestSilenceEndsAtTheTimeout(t *testing.T) {
	client := serve(t, func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 50*time.Millisecond)
	_, err := client.Users().Get(t.Context(), "u1")
	var lost *api.UnreachableError
	if !errors.As(err, &lost) || lost.MaybeDone || !strings.Contains(err.Error(), "in time (--timeout is 50ms)") {
		t.Errorf("error is %v", err)
	}
}

func TestLostAnswerToAChangeSaysThatItMayHaveHappened(t *testing.T) {
	client := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_ = conn.Close()
		}
	}, 0)
	_, err := client.Users().Create(t.Context(), struct{}{}, "key")
	var lost *api.UnreachableError
	if !errors.As(err, &lost) || !lost.MaybeDone || lost.Key != "key" {
		t.Errorf("error is %v (%#v), want an *UnreachableError that may be done with key", err, lost)
	}
}

func TestNobodyThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	_ = listener.Close()
	server := &httptest.Server{URL: "https://" + address}
	_, err = clientOf(t, server, api.Trust{}, 0).Users().Create(t.Context(), struct{}{}, "key")
	var lost *api.UnreachableError
	if !errors.As(err, &lost) || lost.MaybeDone || !strings.HasPrefix(err.Error(), "nothing listens at "+address) {
		t.Errorf("error is %v", err)
	}
}

func TestPlainTextServiceIsRecognised(t *testing.T) {
	server := quietServer(t, answer(200, "application/json", "{}"))
	server.Start()
	server.URL = strings.Replace(server.URL, "http:", "https:", 1)
	_, err := clientOf(t, server, api.Trust{}, 0).Whoami(t.Context())
	if err == nil || !strings.Contains(err.Error(), "does not speak TLS: check the port") {
		t.Errorf("error is %v", err)
	}
}

func TestCancelIsTold(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	asked := make(chan struct{}) // no answer before the question has been given up
	client := serve(t, func(http.ResponseWriter, *http.Request) {
		cancel(errors.New("the reason is a signal"))
		<-asked
	}, 0)
	defer close(asked)
	if _, err := client.Whoami(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("error is %v, want context.Canceled", err)
	}
}

// certificate makes a self-signed certificate and its PEM file.
func certificate(t *testing.T, host string, ends time.Time) (tls.Certificate, string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: ends.Add(-time.Hour), NotAfter: ends,
		IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.ParseIP(host)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600); err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, file
}

func TestServiceIsNotAskedUnlessItsCertificateIsGood(t *testing.T) {
	now := time.Now()
	for name, tc := range map[string]struct {
		host    string
		ends    time.Time
		pinned  bool // by pin instead of by file
		foreign bool // another certificate is expected
		old     bool // TLS 1.2 only
		want    string
	}{
		"good, by file":         {host: "127.0.0.1", ends: now.Add(time.Minute)},
		"good, by pin":          {host: "127.0.0.1", ends: now.Add(time.Minute), pinned: true},
		"other host, by file":   {host: "127.0.0.2", ends: now.Add(time.Minute), want: "is for another name"},
		"other host, by pin":    {host: "127.0.0.2", ends: now.Add(time.Minute), pinned: true, want: "is for another name"},
		"expired, by file":      {host: "127.0.0.1", ends: now.Add(-time.Minute), want: "has expired or is not valid yet"},
		"expired, by pin":       {host: "127.0.0.1", ends: now.Add(-time.Minute), pinned: true, want: "has expired or is not valid yet"},
		"another one, by file":  {host: "127.0.0.1", ends: now.Add(time.Minute), foreign: true, want: "authority that this machine does not know"},
		"another one, by pin":   {host: "127.0.0.1", ends: now.Add(time.Minute), pinned: true, foreign: true, want: "does not have the pinned key"},
		"too old a TLS version": {host: "127.0.0.1", ends: now.Add(time.Minute), old: true, want: "protocol version"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Bool
			server := quietServer(t, func(w http.ResponseWriter, r *http.Request) {
				asked.Store(true)
				answer(200, "application/json", "{}")(w, r)
			})
			cert, file := certificate(t, tc.host, tc.ends)
			server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12}
			if tc.old {
				server.TLS.MaxVersion = tls.VersionTLS12
			}
			server.StartTLS()
			trust := api.Trust{CAFile: file}
			expected := server.Certificate()
			if tc.foreign {
				_, trust.CAFile = certificate(t, tc.host, tc.ends)
				expected = &x509.Certificate{}
			}
			if tc.pinned {
				pin := tlspin.Of(expected)
				trust = api.Trust{Pin: &pin}
			}
			_, err := clientOf(t, server, trust, 0).Whoami(t.Context())
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error is %v, want %q in it", err, tc.want)
			}
			if asked.Load() {
				t.Error("the service got a request all the same")
			}
		})
	}
}

func TestPageOfAListKeepsTheServicesJSON(t *testing.T) {
	client := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if want := "cursor=c1&limit=2&name=alice"; r.URL.RawQuery != want {
			t.Errorf("query is %s, want %s", r.URL.RawQuery, want)
		}
		answer(200, "application/json", `{"items":[{"id":"u1","name":"alice","new":true}],"next":"c2"}`)(w, r)
	}, 0)
	got, err := client.Users().List(t.Context(), map[string][]string{"name": {"alice"}}, 2, "c1")
	want := api.Page[api.User]{
		Items: []api.Object[api.User]{{
			Value: api.User{ID: "u1", Name: "alice"},
			JSON:  json.RawMessage(`{"id":"u1","name":"alice","new":true}`),
		}},
		Next: "c2",
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("List: %v\n%s", err, diff)
	}
}

func TestErrorsNeverHoldTheToken(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"refusal":  answer(401, "application/problem+json", `{}`),
		"nonsense": answer(200, "text/plain", "x"),
		"redirect": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "https://192.0.2.1/", http.StatusFound)
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := serve(t, handler, 0)
			_, err := client.Whoami(t.Context())
			if text := fmt.Sprintf("%v %+v %#v", err, err, err); err == nil || strings.Contains(text, secret) {
				t.Errorf("error is %s", text)
			}
		})
	}
}
