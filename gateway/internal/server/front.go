package server

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/gateway/internal/masquerade"
	"github.com/httvps/httvps/internal/anonym"
	"github.com/httvps/httvps/internal/gate"
	"github.com/httvps/httvps/sdk/go/carrier"
)

// front is everything that the public listener answers: the tunnel and the relay to the
// control plane, to a device's request that asks for them in every point, and to all
// others the site.
type front struct {
	paths        map[string][]string // of the tunnel, by the hosts that they are good for
	knocks       *knocks
	relay        relay
	tunnel, site http.Handler
}

// relay passes on what devices ask the control plane.
type relay interface {
	http.Handler
	Takes(r *http.Request) bool
}

// newFront serves the tunnel at urls.
func newFront(urls []*url.URL, known *knocks, tunnel http.Handler, passing relay, site http.Handler) *front {
	f := &front{paths: make(map[string][]string), knocks: known, tunnel: tunnel, relay: passing, site: site}
	for _, u := range urls {
		host := config.CanonicalHost(u.Host)
		f.paths[host] = append(f.paths[host], u.Path)
	}
	return f
}

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f.knocks.valid(r, time.Now()) && r.URL.RawQuery == "" {
		paths, ours := f.paths[config.CanonicalHost(r.Host)]
		switch {
		case !ours:
		case slices.Contains(paths, r.URL.Path) && carrier.IsUpgrade(r):
			gate.Vouch(r.Context()) // many devices may come from one address
			f.tunnel.ServeHTTP(w, r)
			return
		case f.relay.Takes(r):
			f.relay.ServeHTTP(w, r)
			return
		}
	}
	f.site.ServeHTTP(w, r)
}

// newPublic serves front over TLS as the site would be served without it. ctx is
// what its requests' contexts end with.
func newPublic(ctx context.Context, handler http.Handler, certify func(*tls.Config), log *slog.Logger) *http.Server {
	server := masquerade.Server(handler)
	certify(server.TLSConfig)
	// Strangers cause these at will.
	server.ErrorLog = slog.NewLogLogger(anonym.Handler(log.Handler()), slog.LevelDebug)
	server.BaseContext = func(net.Listener) context.Context { return ctx }
	server.ConnContext = func(ctx context.Context, conn net.Conn) context.Context {
		return gate.ConnContext(masquerade.ConnContext(ctx, conn), conn)
	}
	return server
}
