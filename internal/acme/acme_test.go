package acme_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/internal/acme"
	"github.com/httvps/httvps/test/acmetest"
)

// lockedBuffer collects logs.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// host is a machine with the two listeners of a website, and an authority that
// looks at them.
type host struct {
	t             *testing.T
	authority     *acmetest.Authority
	secure, plain string // their addresses
	dir           string
	log           *lockedBuffer
}

func newHost(t *testing.T, profiles ...string) *host {
	t.Helper()
	h := &host{t: t, dir: filepath.Join(t.TempDir(), "acme"), log: &lockedBuffer{}}
	secure, plain := listen(t, "127.0.0.1:0"), listen(t, "127.0.0.1:0")
	h.secure, h.plain = secure.Addr().String(), plain.Addr().String()
	h.authority = acmetest.Start(t, acmetest.Ports{HTTP: plain.Addr().(*net.TCPAddr).Port, TLS: secure.Addr().(*net.TCPAddr).Port}, profiles...)
	_, _ = secure.Close(), plain.Close() // serve listens there
	return h
}

func listen(t *testing.T, address string) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// settings are those for the authority.
func (h *host) settings(challenges ...string) acme.Settings {
	return acme.Settings{Enabled: true, Email: "op@site.test", Directory: h.authority.Directory, CAFile: h.authority.CAFile, Challenges: challenges}
}

// serve serves with certificates for names until stop is called.
func (h *host) serve(settings acme.Settings, names ...string) (source *acme.Source, stop func()) {
	h.t.Helper()
	if problems := settings.Problems("acme", acme.Reach{Host: names[0], Port80: true}); problems != nil {
		h.t.Fatal(problems)
	}
	source, err := acme.Open(acme.Config{
		Settings: settings, Hosts: names, Dir: h.dir,
		TLSListen: h.secure, HTTPListen: h.plain,
		Log: slog.New(slog.NewJSONHandler(h.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	})
	if err != nil {
		h.t.Fatal(err)
	}
	site := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) })
	quiet := slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	secure := &http.Server{Handler: site, TLSConfig: &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}, ErrorLog: quiet}
	source.Apply(secure.TLSConfig)
	plain := &http.Server{Handler: source.Answer(site), ErrorLog: quiet}
	ctx, cancel := context.WithCancel(h.t.Context())
	var running sync.WaitGroup
	overTLS, overTCP := listen(h.t, h.secure), listen(h.t, h.plain)
	running.Go(func() { _ = secure.ServeTLS(overTLS, "", "") })
	running.Go(func() { _ = plain.Serve(overTCP) })
	running.Go(func() { source.Run(ctx) })
	stop = sync.OnceFunc(func() {
		cancel()
		_, _ = secure.Close(), plain.Close()
		running.Wait()
		source.Close()
	})
	h.t.Cleanup(stop)
	return source, stop
}

func (h *host) wait(source *acme.Source) {
	h.t.Helper()
	select {
	case <-source.Ready():
	case <-time.After(time.Minute):
		h.t.Fatalf("no certificate for %q; the log:\n%s", source.Missing(), h.log)
	}
}

// visit connects as a browser does and returns the certificate that it is shown.
func (h *host) visit(name string, protocols ...string) (*x509.Certificate, error) {
	h.t.Helper()
	root, err := os.ReadFile(h.authority.RootFile)
	if err != nil {
		h.t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(root)
	conn, err := tls.Dial("tcp", h.secure, &tls.Config{RootCAs: roots, ServerName: name, NextProtos: protocols, MinVersion: tls.VersionTLS13})
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0], nil
}

func (h *host) get(path string) (status int, text string) {
	h.t.Helper()
	w := httptest.NewRecorder()
	req, err := http.NewRequestWithContext(h.t.Context(), http.MethodGet, "http://"+h.plain+path, nil)
	if err != nil {
		h.t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(w, resp.Body)
	return resp.StatusCode, w.Body.String()
}

// A real authority looks at the listeners and makes a certificate that browsers
// accept, for a name and for an address, by either proof. To others nothing of it
// shows, and what is kept is used again.
func TestAnAuthorityMakesTheCertificate(t *testing.T) {
	for name, tc := range map[string]struct{ host, challenge string }{
		"a name, by TLS":            {"vpn.site.test", acme.TLSALPN01},
		"a name, by plain HTTP":     {"vpn.site.test", acme.HTTP01},
		"an address, by TLS":        {"127.0.0.1", acme.TLSALPN01},
		"an address, by plain HTTP": {"127.0.0.1", acme.HTTP01},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t)
			source, stop := h.serve(h.settings(tc.challenge), tc.host)
			h.wait(source)
			if missing := source.Missing(); len(missing) > 0 {
				t.Errorf("ready, and %q are missing", missing)
			}
			first, err := h.visit(tc.host, "http/1.1")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := h.visit(tc.host, "acme-tls/1"); err == nil || !strings.Contains(err.Error(), "no application protocol") {
				t.Errorf("who asks for acme-tls/1 sees %v", err)
			}
			if status, text := h.get("/.well-known/acme-challenge/abc"); status != http.StatusNotFound || text != "404 page not found\n" {
				t.Errorf("who asks for a proof sees %d %q", status, text)
			}
			if info, err := os.Stat(h.dir); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("the directory: %v, %v", info.Mode(), err)
			}
			stored, err := h.settings().Stored(h.dir, tc.host)
			if err != nil || !stored.Equal(first) {
				t.Errorf("Stored = %v", err)
			}
			stop()

			h.authority.Away(true)
			source, _ = h.serve(h.settings(tc.challenge), tc.host)
			h.wait(source)
			if second, err := h.visit(tc.host, "http/1.1"); err != nil || !second.Equal(first) || h.authority.Orders() != 1 {
				t.Errorf("after a restart: %v, %d orders", err, h.authority.Orders())
			}
			if strings.Contains(h.log.String(), "remote") || strings.Contains(h.log.String(), "PRIVATE") {
				t.Errorf("the log has what it must not have:\n%s", h.log)
			}
		})
	}
}

// Whoever connects to an address names no host: he is shown the certificate of the address
// that he has reached, and that of the first host where there is none.
func TestAnAddressIsShownItsOwnCertificate(t *testing.T) {
	h := newHost(t)
	source, _ := h.serve(h.settings(acme.HTTP01), "vpn.site.test", "127.0.0.1")
	h.wait(source)
	for _, host := range []string{"vpn.site.test", "127.0.0.1"} {
		if _, err := h.visit(host); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
	if shown, err := source.GetCertificate(&tls.ClientHelloInfo{}); err != nil || shown.Leaf.VerifyHostname("vpn.site.test") != nil {
		t.Errorf("without a name and an address: %v", err)
	}
}

// A host that has no certificate yet is shown what one is shown that is nobody's: strangers
// cannot tell that it is ours.
func TestAHostWithoutACertificateIsShownTheFirst(t *testing.T) {
	h := newHost(t)
	source, stop := h.serve(h.settings(acme.HTTP01), "vpn.site.test")
	h.wait(source)
	stop()
	h.authority.Away(true)
	source, _ = h.serve(h.settings(acme.HTTP01), "vpn.site.test", "front.site.test")
	for end := time.Now().Add(time.Minute); len(source.Missing()) > 1; {
		if time.Now().After(end) {
			t.Fatalf("the kept certificate is not served:\n%s", h.log)
		}
		<-time.After(10 * time.Millisecond)
	}
	for _, host := range []string{"front.site.test", "nobodys.test"} {
		shown, err := source.GetCertificate(&tls.ClientHelloInfo{ServerName: host})
		if err != nil || shown.Leaf.VerifyHostname("vpn.site.test") != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestACertificateThatEndsIsRenewedAtTheStart(t *testing.T) {
	h := newHost(t, acmetest.Fleeting)
	fleeting, lasting := h.settings(acme.TLSALPN01), h.settings(acme.TLSALPN01)
	fleeting.Profile, lasting.Profile = acmetest.Fleeting, acmetest.Profile
	source, stop := h.serve(fleeting, "vpn.site.test")
	h.wait(source)
	first, err := h.settings().Stored(h.dir, "vpn.site.test")
	if err != nil {
		t.Fatal(err)
	}
	stop()
	<-time.After(time.Until(first.NotAfter) + time.Second)

	_, stop = h.serve(lasting, "vpn.site.test")
	defer stop()
	for end := time.Now().Add(time.Minute); ; {
		got, err := h.visit("vpn.site.test", "http/1.1")
		if err == nil && !got.Equal(first) {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("not renewed: %v\n%s", err, h.log)
		}
		<-time.After(50 * time.Millisecond)
	}
	if !strings.Contains(h.log.String(), `"msg":"certificate obtained","host":"vpn.site.test","renewal":true`) {
		t.Errorf("the log says nothing of it:\n%s", h.log)
	}
}

// An authority that is away keeps nothing from starting or from stopping.
func TestWithoutAnAuthorityThereIsNoCertificate(t *testing.T) {
	h := newHost(t)
	h.authority.Away(true)
	source, stop := h.serve(h.settings(acme.HTTP01), "vpn.site.test", "api.site.test")
	for end := time.Now().Add(time.Minute); strings.Count(h.log.String(), `"msg":"certificate not obtained"`) < 2; {
		if time.Now().After(end) {
			t.Fatalf("the log says nothing of it:\n%s", h.log)
		}
		<-time.After(50 * time.Millisecond)
	}
	if _, err := source.GetCertificate(&tls.ClientHelloInfo{ServerName: "vpn.site.test"}); !errors.Is(err, acme.ErrNone) {
		t.Errorf("GetCertificate = %v", err)
	}
	if _, err := h.settings().Stored(h.dir, "vpn.site.test"); !errors.Is(err, acme.ErrNone) {
		t.Errorf("Stored = %v", err)
	}
	if missing := source.Missing(); len(missing) != 2 {
		t.Errorf("missing: %q", missing)
	}
	stop()
}
