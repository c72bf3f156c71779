package wslayers_test

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
)

// end is one end of a connection that carries messages of one size. One
// goroutine may send while another receives.
type end interface {
	// space is where the payload of the next message goes.
	space() []byte
	// send sends what was put there, at the latest with flush. It may scramble it.
	send() error
	flush() error
	// receive hands over the payload of each message, until each returns an error
	// or the connection ends.
	receive(each func(payload []byte) error) error
	// close closes the connection; what is under way returns.
	close()
}

// layer is a way to carry messages over TLS.
type layer struct {
	name string
	// below goes between TCP and TLS at the server; nil: nothing does.
	below  func(net.Listener) net.Listener
	accept func(w http.ResponseWriter, r *http.Request, size int) (end, error)
	dial   func(tb testing.TB, address string, trust *tls.Config, size int) (end, error)

	batches bool // sends what was sent up to flush in one TCP write
}

// tunnel is what carriers are found at, and the same for all.
const tunnel = "/tunnel"

// connect returns both ends of a connection, which tb closes. The server listens
// through watch, when there is one.
func connect(tb testing.TB, l layer, size int, watch func(net.Listener) net.Listener) (server, client end) {
	tb.Helper()
	type answer struct {
		end end
		err error
	}
	accepted := make(chan answer, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if offer := r.Header.Get("Sec-WebSocket-Extensions"); offer != "" {
			accepted <- answer{err: fmt.Errorf("the client offers %q: a compressed message is no comparison", offer)}
			return
		}
		e, err := l.accept(w, r, size)
		accepted <- answer{e, err}
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	if watch != nil {
		srv.Listener = watch(srv.Listener)
	}
	if l.below != nil {
		srv.Listener = l.below(srv.Listener)
	}
	srv.StartTLS()
	tb.Cleanup(srv.Close)

	roots := x509.NewCertPool()
	roots.AddCert(srv.Certificate())
	trust := &tls.Config{RootCAs: roots, ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}
	client, err := l.dial(tb, srv.Listener.Addr().String(), trust, size)
	if client != nil {
		tb.Cleanup(client.close)
	}
	got := <-accepted
	if got.end != nil {
		tb.Cleanup(got.end.close)
	}
	if err != nil || got.err != nil {
		tb.Fatalf("%s: client: %v, server: %v", l.name, err, got.err)
	}
	return got.end, client
}

// outgoing is the space of those who do not care where it is.
type outgoing []byte

func (o outgoing) space() []byte { return o }

// unbatched is for those who send at once.
type unbatched struct{}

func (unbatched) flush() error { return nil }
