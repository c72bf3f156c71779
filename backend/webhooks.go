package backend

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/metrics"
	"github.com/httvps/httvps/backend/internal/webhooks"
)

// sending is the sender of a control plane, which is there after what it sends for.
type sending struct {
	sender atomic.Pointer[webhooks.Sender]
}

// wake says that there is something to send. What there was before the sender, it finds.
func (s *sending) wake() {
	if sender := s.sender.Load(); sender != nil {
		sender.Wake()
	}
}

func policyOf(cfg Config) webhooks.Policy {
	return webhooks.Policy{Allow: cfg.Webhooks.Allow, PlainHTTP: cfg.Webhooks.PlainHTTP}
}

// watch looks for what the clock has changed, and tells webhooks.
func watch(ctx context.Context, authority *control.Authority, log *slog.Logger) error {
	ticker := time.NewTicker(control.WatchInterval)
	defer ticker.Stop()
	for failed := false; ; {
		_, err := authority.WatchEnds(ctx)
		changes, gatewayErr := authority.WatchGateways(ctx)
		for _, change := range changes {
			if change.Down {
				log.WarnContext(ctx, "gateway down", "gateway_id", change.Gateway.ID)
				continue
			}
			log.InfoContext(ctx, "gateway up again", "gateway_id", change.Gateway.ID)
		}
		if err == nil {
			err = gatewayErr
		}
		if err != nil && ctx.Err() == nil && !failed { // once: readiness says the rest
			log.WarnContext(ctx, "ends of subscriptions and gateways not looked at", "error", err.Error())
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// measureWebhooks keeps the metrics of what there is to send up to date.
func measureWebhooks(ctx context.Context, authority *control.Authority, measured *metrics.Metrics) error {
	const interval = 15 * time.Second
	ticker := time.NewTicker(interval)
	defer ticker.Stop()
	for {
		if s, err := authority.WebhookSummary(ctx); err == nil { // else readiness says it
			age := time.Duration(0)
			if s.Oldest != nil {
				age = authority.Now().Sub(*s.Oldest)
			}
			measured.Webhooks(s.Webhooks, s.Disabled, s.Pending, s.Dead, age)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// backupNews tells metrics and webhooks how backups go.
type backupNews struct {
	*metrics.Metrics
	failed func(step string)
}

// Backup implements backup.Observer.
func (n backupNews) Backup(result string) {
	n.Metrics.Backup(result)
	switch result {
	case "not_made":
		n.failed("make")
	case "not_verified":
		n.failed("verify")
	}
}

// backupFailed has webhooks told, as far as that can be written.
func backupFailed(ctx context.Context, authority *control.Authority, log *slog.Logger) func(step string) {
	return func(step string) {
		if err := authority.ReportBackupFailed(ctx, step); err != nil && ctx.Err() == nil {
			log.WarnContext(ctx, "webhooks not told of a failed backup", "error", err.Error())
		}
	}
}
