package main

import (
	"context"
	"errors"
	"time"

	"github.com/httvps/httvps/bench/internal/load"
	"github.com/httvps/httvps/bench/internal/stats"
)

const (
	echoSize     = 32
	echoInterval = 3 * time.Millisecond
	milli        = 1e3
)

// echoMeasurements are about how long something small takes, alone and beside
// a download that takes all it can get.
func echoMeasurements() []measurement {
	echo := func(prefix string, beside bool) measurement {
		return measurement{
			figures: []figure{
				{name: prefix + "_p50", unit: "ms", over: raw},
				{name: prefix + "_p95", unit: "ms", over: raw},
				{name: prefix + "_p99", unit: "ms", over: raw},
			},
			contenders: everybody,
			rounds:     3,
			run: func(ctx context.Context, e *environment, name string) (v values, err error) {
				c, err := e.contender(ctx, name)
				if err != nil {
					return nil, err
				}
				if beside {
					bulk, err := c.begin(ctx, load.Spec{Kind: load.Streams, Streams: 1, Warm: e.short(warm)})
					if err != nil {
						return nil, err
					}
					defer func() {
						_, endErr := bulk.end(ctx)
						err = errors.Join(err, endErr)
					}()
				}
				r, err := c.load(ctx, e.echoSpec(3*time.Second))
				return percentiles(prefix, r), err
			},
		}
	}
	return []measurement{echo("echo_idle", false), echo("echo_loaded", true)}
}

// echoSpec is a load of small echoes that is measured for d.
func (e *environment) echoSpec(d time.Duration) load.Spec {
	return load.Spec{
		Kind: load.Echoes,
		Size: echoSize, Interval: echoInterval, Streams: 1, Warm: e.short(warm), Duration: e.short(d),
	}
}

func percentiles(prefix string, r load.Result) values {
	return values{
		prefix + "_p50": milli * stats.Percentile(r.Echoes, 50),
		prefix + "_p95": milli * stats.Percentile(r.Echoes, 95),
		prefix + "_p99": milli * stats.Percentile(r.Echoes, 99),
	}
}
