// Package acmetest runs an authority that speaks ACME, Let's Encrypt's own Pebble,
// for the tests of those who have certificates made. It looks at hosts as a public
// authority does, but at ports of this machine.
package acmetest

import (
	"encoding/pem"
	"io"
	"log" //nolint:depguard // Pebble's
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"
)

// Authority is a running authority.
type Authority struct {
	Directory string // its URL
	CAFile    string // what its own server is known by
	RootFile  string // the root of the certificates that it makes

	mu     sync.Mutex // guards the following fields
	down   bool
	orders int
}

// Ports are where it looks for proofs, in place of 80 and 443.
type Ports struct{ HTTP, TLS int }

// Profile is what the authority has, and Fleeting one that it has besides when it is
// asked to: whose certificates end at once. Who asks for none gets any.
const (
	Profile  = "default"
	Fleeting = "fleeting"
)

// Start runs an authority until the test ends. To it every name is this machine.
func Start(t *testing.T, ports Ports, besides ...string) *Authority {
	t.Helper()
	profiles := map[string]ca.Profile{Profile: {Description: "for tests", ValidityPeriod: uint64((90 * 24 * time.Hour).Seconds())}}
	for _, name := range besides {
		profiles[name] = ca.Profile{Description: "for renewals", ValidityPeriod: 4}
	}
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	t.Setenv("PEBBLE_WFE_NONCEREJECT", "0")
	t.Setenv("PEBBLE_AUTHZREUSE", "0") // each certificate is proved for
	quiet := log.New(io.Discard, "", 0)
	records := db.NewMemoryStore()
	authority := ca.New(quiet, records, "", "ecdsa", 0, 1, profiles)
	looks := va.New(quiet, ports.HTTP, ports.TLS, false, resolver(t), records)
	front := wfe.New(quiet, records, looks, authority, []string{"acme.test"}, false, false, 1, 1)
	a := &Authority{}
	handler := front.Handler()
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if a.count(r) {
			http.Error(w, "away", http.StatusServiceUnavailable)
			return
		}
		handler.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	dir := t.TempDir()
	a.Directory = server.URL + wfe.DirectoryPath
	a.CAFile, a.RootFile = filepath.Join(dir, "acme-ca.pem"), filepath.Join(dir, "root.pem")
	write(t, a.CAFile, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}))
	write(t, a.RootFile, authority.GetRootCert(0).PEM())
	return a
}

// count notes a request for an order, and reports whether the authority is away.
func (a *Authority) count(r *http.Request) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if r.URL.Path == "/order-plz" {
		a.orders++
	}
	return a.down
}

// Orders is how many certificates it was asked for.
func (a *Authority) Orders() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.orders
}

// Away has the authority answer with errors, or no longer.
func (a *Authority) Away(away bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.down = away
}

func write(t *testing.T, name string, text []byte) {
	t.Helper()
	if err := os.WriteFile(name, text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// resolver is a name server, over TCP, that has the address of this machine for every
// name.
func resolver(t *testing.T) (address string) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &dns.Server{Listener: l, Handler: dns.HandlerFunc(func(w dns.ResponseWriter, question *dns.Msg) {
		answer := new(dns.Msg).SetReply(question)
		if asked := question.Question[0]; asked.Qtype == dns.TypeA {
			answer.Answer = append(answer.Answer, &dns.A{
				Hdr: dns.RR_Header{Name: asked.Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 1}, A: net.IPv4(127, 0, 0, 1),
			})
		}
		_ = w.WriteMsg(answer) // who asked is gone
	})}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.ActivateAndServe() // ends with the listener
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-served
	})
	return l.Addr().String()
}
