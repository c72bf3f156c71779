package backend

import (
	"context"

	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/internal/gate"
)

// reloader has a running control plane take over other configurations.
type reloader struct {
	inForce     Config
	certificate *certificate
	gates       []*gate.Gate
}

// run does so until ctx ends.
func (r *reloader) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case next := <-r.inForce.Reload:
			r.reload(ctx, next)
		}
	}
}

// reload takes over all that can be, or after a mistake nothing.
func (r *reloader) reload(ctx context.Context, next Config) {
	log := r.inForce.Log
	next.TLS, next.SetLevel = r.inForce.TLS, r.inForce.SetLevel
	commit := func() {}
	err := next.Validate()
	after := r.inForce.Reloaded(next)
	if err == nil && r.certificate.files != nil {
		commit, err = r.certificate.files.Prepare(ctx, after.Certificate.CertFile, after.Certificate.KeyFile)
	}
	if err != nil {
		log.ErrorContext(ctx, "configuration not reloaded", "error", err.Error())
		return
	}
	changed, restart := configfile.Changed(r.inForce, after), configfile.Changed(after, next)
	commit()
	for _, g := range r.gates {
		g.Limit(after.Limits.Unauthenticated, after.Limits.UnauthenticatedPerPrefix)
	}
	if level, err := after.Level(); err == nil && after.SetLevel != nil {
		after.SetLevel(level)
	}
	r.inForce = after
	log.InfoContext(ctx, "configuration reloaded", "changed", changed, "needs_restart", restart)
}
