package backend

import (
	"context"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/events"
	"github.com/httvps/httvps/backend/internal/metrics"
)

// openBus connects to the wake-up bus; nil: none is configured.
func openBus(ctx context.Context, cfg Config, service string, told events.Signal, measured *metrics.Metrics) (*events.NATS, error) {
	if cfg.NATS.URL == "" {
		return nil, nil //nolint:nilnil // nothing to connect to is no error
	}
	return events.ConnectNATS(ctx, events.NATSOptions{
		URL: cfg.NATS.URL.Reveal(), Service: service, Told: told.Send, State: measured.BusConnected, Logger: cfg.Log,
	})
}

func newHub(
	cfg Config, authority *control.Authority, bus *events.NATS, appended, told events.Signal, measured *metrics.Metrics,
) *events.Hub {
	opts := events.Options{Log: authority, Observer: measured, Logger: cfg.Log, Appended: appended, Told: told}
	if bus != nil {
		opts.Bus = bus
	}
	return events.NewHub(opts)
}

// stateOf says how the wake-up bus is, for whoever asks about the service's health.
func stateOf(bus *events.NATS) string {
	switch {
	case bus == nil:
		return "none"
	case bus.Connected():
		return "connected"
	default:
		return "away"
	}
}
