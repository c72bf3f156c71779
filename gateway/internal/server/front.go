package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/httvps/httvps/internal/gate"
	"github.com/httvps/httvps/sdk/go/carrier"
)

// front is everything that the public listener answers: the tunnel, to a
// request that asks for it in every point, and to all others one and the same
// page that does not exist.
type front struct {
	host, path string
	tunnel     http.Handler
}

func newFront(u *url.URL, tunnel http.Handler) *front {
	return &front{host: canonicalHost(u.Host), path: u.Path, tunnel: tunnel}
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == f.path && r.URL.RawQuery == "" && canonicalHost(r.Host) == f.host && carrier.IsUpgrade(r) {
		f.tunnel.ServeHTTP(w, r)
		return
	}
	notFound(w, r)
}

// notFound is the one page, and the end of the connection: over HTTP/2 too, and
// whatever the request was.
func notFound(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Connection", "close")
	http.NotFound(w, r)
}

// canonicalHost is a Host header in lower case, without the port that https
// has anyway.
func canonicalHost(host string) string {
	return strings.TrimSuffix(strings.ToLower(host), ":443")
}

// newPublic serves front over TLS. ctx is what its requests' contexts end with.
func newPublic(ctx context.Context, handler http.Handler, certificate func(*tls.ClientHelloInfo) (*tls.Certificate, error), log *slog.Logger) *http.Server {
	return &http.Server{
		Handler: handler,
		TLSConfig: &tls.Config{
			MinVersion:     tls.VersionTLS13,
			NextProtos:     []string{"h2", "http/1.1"}, // as any site offers
			GetCertificate: certificate,
		},
		// The shortest of these bounds the TLS handshake too. They end with the
		// upgrade; the tunnel has its own.
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      10 * time.Second,
		IdleTimeout:       30 * time.Second,
		MaxHeaderBytes:    16 << 10,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 32},
		// OPTIONS * would be answered differently from everything else.
		DisableGeneralOptionsHandler: true,
		// Strangers cause these at will.
		ErrorLog:    slog.NewLogLogger(log.Handler(), slog.LevelDebug),
		BaseContext: func(net.Listener) context.Context { return ctx },
		ConnContext: gate.ConnContext,
	}
}
