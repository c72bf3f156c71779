package main

import (
	"context"
	"errors"
	"time"

	"github.com/httvps/httvps/bench/internal/load"
)

// stalledStreams are the neighbours of a live stream whose data nobody reads.
const stalledStreams = 80

// stalledMeasurements are about what one reader that stopped does to others.
func stalledMeasurements() []measurement {
	stalled := func(name string, up bool) measurement {
		return measurement{
			figures:    []figure{{name: name, unit: "of alone"}},
			contenders: []string{ours, raw},
			rounds:     5,
			run: func(ctx context.Context, e *environment, who string) (v values, err error) {
				c, err := e.contender(ctx, who)
				if err != nil {
					return nil, err
				}
				live := load.Spec{
					Kind: load.Streams, Up: up,
					Streams: 1, Warm: e.short(warm), Duration: e.short(time.Second),
				}
				alone, err := c.load(ctx, live)
				if err != nil {
					return nil, err
				}
				others, err := c.begin(ctx, load.Spec{
					Kind: load.Stalled, Up: up,
					Streams: stalledStreams, Warm: e.short(warm),
				})
				if err != nil {
					return nil, err
				}
				defer func() {
					_, endErr := others.end(ctx)
					err = errors.Join(err, endErr)
				}()
				if err := c.quiet(ctx); err != nil { // they are as full as they get
					return nil, err
				}
				beside, err := c.load(ctx, live)
				if err != nil {
					return nil, err
				}
				return values{name: beside.Speed / alone.Speed}, nil
			},
		}
	}
	return []measurement{stalled("stalled_80_down", false), stalled("stalled_80_up", true)}
}

// quiet waits until both ends of the contender do next to nothing.
func (c contender) quiet(ctx context.Context) error {
	const (
		look = 300 * time.Millisecond
		most = 60 // looks
	)
	client, server, err := c.cpu()
	for range most {
		if err != nil {
			return err
		}
		before := client + server
		if !sleep(ctx, look) {
			return context.Cause(ctx)
		}
		client, server, err = c.cpu()
		if client+server-before < look/20 {
			return err
		}
	}
	return errors.New("the streams that nobody reads go on moving")
}
