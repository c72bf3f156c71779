package webhooks_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/webhooks"
)

func outgoing(to string) control.Outgoing {
	return control.Outgoing{
		Delivery: control.Delivery{EventID: "msg_p5jXN8AQM9LWM0D4loKWxJek", Payload: `{"test": 2432232314}`}, URL: to, Keys: [][]byte{{1}, {2}},
	}
}

// The example is of the document of Standard Webhooks.
func TestTheSignatureIsThatOfTheStandard(t *testing.T) {
	out := outgoing("http://receiver.example/")
	out.Keys = [][]byte{keyOf(t, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")}
	synctest.Test(t, func(t *testing.T) {
		got := make(http.Header)
		client := webhooks.NewClient(serve(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { got = r.Header.Clone() })), nil)
		defer client.Close()
		if sent := client.Send(t.Context(), out, time.Unix(1614265330, 0)); sent != (control.Sent{Status: 200}) {
			t.Errorf("sent: %+v", sent)
		}
		if got.Get("webhook-signature") != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" || got.Get("webhook-timestamp") != "1614265330" {
			t.Errorf("the headers are %v", got)
		}
		out.Keys = append(out.Keys, []byte{1})
		client.Send(t.Context(), out, time.Unix(1614265330, 0))
		if parts := strings.Split(got.Get("webhook-signature"), " "); len(parts) != 2 || parts[0] != "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=" {
			t.Errorf("with two keys: %v", parts)
		}
	})
}

func TestWhatReceiversAnswerIsToldApart(t *testing.T) {
	var asked atomic.Int64
	answers := map[string]struct {
		serve func(w http.ResponseWriter, r *http.Request)
		want  control.Sent
	}{
		"taken":   {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }, control.Sent{Status: 202}},
		"refused": {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }, control.Sent{Status: 418, Failure: control.DeliveryStatus}},
		"a redirect": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "/taken")
			w.WriteHeader(http.StatusTemporaryRedirect)
		}, control.Sent{Status: 307, Failure: control.DeliveryRedirect}},
		"later, in seconds": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "90")
			w.WriteHeader(http.StatusTooManyRequests)
		}, control.Sent{Status: 429, Failure: control.DeliveryStatus, RetryAfter: 90 * time.Second}},
		"later, at a time": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
			w.WriteHeader(http.StatusServiceUnavailable)
		}, control.Sent{Status: 503, Failure: control.DeliveryStatus, RetryAfter: time.Hour}},
		"later, in other words": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "soon")
			w.WriteHeader(http.StatusServiceUnavailable)
		}, control.Sent{Status: 503, Failure: control.DeliveryStatus}},
		"an endless body": {func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 32<<10)); err != nil {
					return
				}
			}
		}, control.Sent{Status: 200}},
		"endless headers": {func(w http.ResponseWriter, _ *http.Request) {
			for n := range 1000 {
				w.Header().Set(fmt.Sprint("X-", n), strings.Repeat("x", 1000))
			}
		}, control.Sent{Failure: control.DeliveryOther}},
		"hangs up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, control.Sent{Failure: control.DeliveryOther}},
		"says nothing": {func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			<-r.Context().Done()
		}, control.Sent{Failure: control.DeliveryTimeout}},
	}
	for name, tc := range answers {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				asked.Store(0)
				client := webhooks.NewClient(serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					asked.Add(1)
					tc.serve(w, r)
				})), nil)
				defer client.Close()
				began := time.Now()
				if got := client.Send(t.Context(), outgoing("http://receiver.example/"), time.Now()); got != tc.want {
					t.Errorf("sent: %+v, want %+v", got, tc.want)
				}
				if took := time.Since(began); took > 15*time.Second {
					t.Errorf("it took %v", took)
				}
				if n := asked.Load(); n != 1 {
					t.Errorf("asked %d times", n)
				}
			})
		})
	}
}

func TestWhyNothingCouldBeSentIsToldApart(t *testing.T) {
	secure := httptest.NewTLSServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("it was asked") }))
	defer secure.Close()
	secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelInfo)
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	local := webhooks.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}
	for name, tc := range map[string]struct {
		dial webhooks.Dial
		url  string
		want control.DeliveryFailure
	}{
		"a certificate of nobody":  {local.Guarded(), secure.URL, control.DeliveryTLS},
		"nobody listens":           {local.Guarded(), closed.URL, control.DeliveryConnect},
		"no TLS":                   {local.Guarded(), strings.Replace(plain(t).URL, "http:", "https:", 1), control.DeliveryTLS},
		"an address of no public":  {webhooks.Policy{}.Guarded(), secure.URL, control.DeliveryAddress},
		"a name for such":          {webhooks.Policy{}.Guarded(), strings.Replace(secure.URL, "127.0.0.1", "localhost", 1), control.DeliveryAddress},
		"cloud metadata":           {webhooks.Policy{}.Guarded(), "http://169.254.169.254/latest", control.DeliveryAddress},
		"an address in other coat": {local.Guarded(), "http://[::ffff:10.0.0.1]/", control.DeliveryAddress},
		"a name without an address": {func(context.Context, string, string) (net.Conn, error) {
			return nil, &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "planted.example", IsNotFound: true}}
		}, "https://planted.example/", control.DeliveryResolve},
		"no URL": {local.Guarded(), "https://%zz/", control.DeliveryOther},
	} {
		client := webhooks.NewClient(tc.dial, nil)
		if got := client.Send(t.Context(), outgoing(tc.url), time.Now()); got != (control.Sent{Failure: tc.want}) {
			t.Errorf("%s: %+v, want %s", name, got, tc.want)
		}
		client.Close()
	}
	// With the authority that it is from, it is taken.
	roots := x509.NewCertPool()
	roots.AddCert(secure.Certificate())
	taken := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	defer taken.Close()
	client := webhooks.NewClient(local.Guarded(), roots)
	defer client.Close()
	if got := client.Send(t.Context(), outgoing(taken.URL), time.Now()); got != (control.Sent{Status: 204}) {
		t.Errorf("a certificate that is known: %+v", got)
	}
}

func plain(t *testing.T) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(s.Close)
	return s
}

func TestOnlyPublicAddressesAndThoseThatAreAllowedAreSentTo(t *testing.T) {
	allowed := webhooks.Policy{Allow: []netip.Prefix{netip.MustParsePrefix("10.1.0.0/16"), netip.MustParsePrefix("::1/128")}}
	for text, want := range map[string]struct{ byDefault, allowed bool }{
		"93.184.216.34": {true, true}, "2606:2800:220:1::1": {true, true},
		"127.0.0.1": {}, "0.0.0.0": {}, "10.0.0.1": {}, "10.1.2.3": {false, true}, "::ffff:10.1.2.3": {false, true}, "192.168.1.1": {}, "172.16.0.1": {},
		"169.254.169.254": {}, "100.64.0.1": {}, "::1": {false, true}, "fd00:ec2::254": {}, "fe80::1": {}, "64:ff9b::7f00:1": {}, "::": {}, "224.0.0.1": {},
	} {
		addr := netip.MustParseAddr(text)
		if got := (webhooks.Policy{}).Check(addr) == nil; got != want.byDefault {
			t.Errorf("%s: %v by default", text, got)
		}
		if got := allowed.Check(addr) == nil; got != want.allowed {
			t.Errorf("%s: %v with exceptions", text, got)
		}
	}
	for text, want := range map[string]bool{
		"https://example.com/": true, "http://example.com/": false, "https://10.0.0.1/": false, "https://[::1]:8443/": true, "https://10.1.0.1/": true,
	} {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		if err := allowed.CheckURL(u); (err == nil) != want || err != nil && strings.Contains(err.Error(), u.Host) {
			t.Errorf("%s: %v", text, err)
		}
	}
	open := webhooks.Policy{PlainHTTP: true}
	if err := open.CheckURL(&url.URL{Scheme: "http", Host: "127.0.0.1"}); !errors.Is(err, webhooks.ErrAddress) {
		t.Errorf("plain HTTP to loopback: %v", err)
	}
	if err := open.CheckURL(&url.URL{Scheme: "http", Host: "example.com"}); err != nil {
		t.Errorf("plain HTTP that is allowed: %v", err)
	}
}
