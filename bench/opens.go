package main

import (
	"context"
	"fmt"

	"github.com/httvps/httvps/bench/internal/load"
)

// mostOpens bounds one load: each leaves an entry in the system's tables for a
// while, and a source port with it.
const mostOpens = 8_000

// openMeasurements are about what a new stream costs.
func openMeasurements() []measurement {
	var list []measurement
	for _, atOnce := range []int{1, 32} {
		name := fmt.Sprintf("opens_%d", atOnce)
		list = append(list, measurement{
			figures:    []figure{{name: name, unit: "per s", over: raw}},
			contenders: everybody,
			rounds:     3,
			run: func(ctx context.Context, e *environment, who string) (values, error) {
				c, err := e.contender(ctx, who)
				if err != nil {
					return nil, err
				}
				r, err := c.load(ctx, load.Spec{
					Kind:    load.Opens,
					Streams: atOnce, Duration: e.short(steady), Most: mostOpens,
				})
				return values{name: r.Rate}, err
			},
		})
	}
	return list
}
