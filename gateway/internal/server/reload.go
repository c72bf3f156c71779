package server

import (
	"context"
	"net/http"
	"sync"
	"sync/atomic"

	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/gateway/internal/masquerade"
	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/internal/gate"
)

// site is what strangers meet. A reload puts another one in its place.
type site struct {
	current atomic.Pointer[masquerade.Site]
	closing sync.WaitGroup // sites that were replaced
}

// ServeHTTP implements [http.Handler].
func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	for {
		now := s.current.Load()
		if now.TryServe(w, r) {
			return
		}
		if s.current.Load() == now {
			panic(http.ErrAbortHandler) // the gateway has stopped, or is about to
		}
	}
}

// replace serves next from now on. What the site before is answering it still
// answers.
func (s *site) replace(next *masquerade.Site) {
	if before := s.current.Swap(next); before != nil {
		s.closing.Go(func() { _ = before.Close() }) // there is nothing left to serve from it
	}
}

// Close waits for requests that are being answered.
func (s *site) Close() error {
	err := s.current.Load().Close()
	s.closing.Wait()
	return err
}

// follow takes over the configurations of cfg.Reload until ctx ends.
func (g *gateway) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case next := <-g.cfg.Reload:
			g.reload(ctx, next)
		}
	}
}

// reload takes over all of next that can be, or after a mistake nothing.
func (g *gateway) reload(ctx context.Context, next config.Config) {
	before := *g.inForce.Load()
	next.Listener, next.GetCertificate, next.SetLevel = before.Listener, before.GetCertificate, before.SetLevel
	after := before.Reloaded(next)
	changed, restart := configfile.Changed(before, after), configfile.Changed(after, next)
	commit, err := g.prepare(ctx, before, after, next)
	if err != nil {
		g.cfg.Log.ErrorContext(ctx, "configuration not reloaded", "error", err.Error())
		return
	}
	commit()
	g.inForce.Store(&after)
	g.cfg.Log.InfoContext(ctx, "configuration reloaded", "changed", changed, "needs_restart", restart)
}

// prepare does what can fail, and returns the rest.
func (g *gateway) prepare(ctx context.Context, before, after, next config.Config) (commit func(), err error) {
	if err := next.Validate(); err != nil {
		return nil, err
	}
	certify := func() {}
	if g.certificate.files != nil { // also what the same files hold now
		if certify, err = g.certificate.files.Prepare(ctx, after.TLS.CertFile, after.TLS.KeyFile); err != nil {
			return nil, err
		}
	}
	var other *masquerade.Site
	if before.Masquerade != after.Masquerade {
		if other, err = g.newSite(after.Masquerade); err != nil {
			return nil, err
		}
	}
	return func() {
		certify()
		if other != nil {
			g.site.replace(other)
		}
		g.knocks.set(after.Knock)
		g.registry.Limit(after.Limits.Sessions)
		g.tunnels.limits.Store(&after.Limits)
		g.tunnels.padding.Store(after.Padding.Policy())
		for _, guarded := range []*gate.Gate{g.gate, g.plain} {
			if guarded != nil {
				guarded.Limit(after.Limits.Unauthenticated, after.Limits.UnauthenticatedPerPrefix)
			}
		}
		if after.SetLevel != nil {
			after.SetLevel(after.LogLevel)
		}
	}, nil
}
