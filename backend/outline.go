package backend

import (
	"context"
	"log/slog"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/metrics"
)

// measureOutline keeps the metrics of the Outline servers up to date: their health
// changes by itself when nobody probes them any more.
func measureOutline(ctx context.Context, authority *control.Authority, measured *metrics.Metrics, log *slog.Logger) error {
	ticker := time.NewTicker(control.OutlineProbeInterval)
	defer ticker.Stop()
	for failed := false; ; {
		summary, err := authority.OutlineSummary(ctx)
		switch {
		case err == nil:
			for _, state := range control.OutlineStates() {
				measured.OutlineServers(string(state), summary.Servers[state])
			}
			measured.OutlinePlaces(summary.Sessions, summary.Capacity)
		case ctx.Err() == nil && !failed: // once: readiness says the rest
			log.WarnContext(ctx, "outline servers not measured", "error", err.Error())
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
