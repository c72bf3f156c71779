package main

import (
	"context"
	"errors"
	"math"
	"sync"
	"time"

	"github.com/httvps/httvps/bench/internal/load"
	"github.com/httvps/httvps/bench/internal/service"
	"github.com/httvps/httvps/bench/internal/stats"
)

const (
	// allowed is the speed that is kept to, in bits per second: far below what the machine can do.
	allowed = 100_000_000
	// keeping is for how long it is looked at, once the burst of the beginning is over.
	keeping, keepingWarm = 10 * time.Second, time.Second
)

// speedMeasurements are about speeds that somebody has set.
func speedMeasurements() []measurement {
	return []measurement{speedLimit(false), speedLimit(true), sharedUplink(false), sharedUplink(true)}
}

// speedLimit has a device with a limit move all it can.
func speedLimit(up bool) measurement {
	name := "speed_limit_down"
	if up {
		name = "speed_limit_up"
	}
	return measurement{
		figures:    []figure{{name: name, unit: "Mbit/s"}, {name: name + "_off", unit: "%"}},
		contenders: []string{ours},
		rounds:     3,
		own:        true,
		run: func(ctx context.Context, e *environment, _ string) (v values, err error) {
			c, err := e.startHTTVPS(ctx, service.Options{Speed: allowed})
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, c.stop()) }()
			r, err := e.here(ours, c).load(ctx, load.Spec{
				Kind: load.Streams, Up: up, Streams: 4, Warm: keepingWarm, Duration: e.short(keeping),
			})
			if err != nil {
				return nil, err
			}
			bits := 8 * r.Speed
			return values{name: bits / 1e6, name + "_off": 100 * math.Abs(bits-allowed) / allowed}, nil
		},
	}
}

// sharedUplink has two devices, of which one has eight times as many streams, move all
// they can through a gateway whose uplink is slower than that.
func sharedUplink(up bool) measurement {
	name := "uplink_down"
	if up {
		name = "uplink_up"
	}
	return measurement{
		figures:    []figure{{name: name, unit: "Mbit/s"}, {name: name + "_jain", unit: "of 1"}},
		contenders: []string{ours},
		rounds:     3,
		own:        true,
		run: func(ctx context.Context, e *environment, _ string) (v values, err error) {
			s, err := e.startService(ctx, service.Options{Limits: "{uplink_up: 100000000, uplink_down: 100000000}"})
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, s.Stop()) }()
			var (
				devices [2]contender
				results [2]load.Result
				errs    [2]error
				running sync.WaitGroup
			)
			for i := range devices {
				d, err := s.Connect(ctx, service.Here)
				if err != nil {
					return nil, err
				}
				defer func() { _ = d.Stop() }()
				devices[i] = e.here(ours, contender{socks: d.Socks, client: d.PID(), server: s.GatewayPID()})
			}
			for i, c := range devices {
				running.Go(func() {
					results[i], errs[i] = c.load(ctx, load.Spec{
						Kind: load.Streams, Up: up, Streams: 1 + 7*i, Warm: keepingWarm, Duration: e.short(keeping),
					})
				})
			}
			running.Wait()
			if err := errors.Join(errs[:]...); err != nil {
				return nil, err
			}
			one, two := results[0].Speed, results[1].Speed
			return values{name: 8 * (one + two) / 1e6, name + "_jain": stats.Jain([]float64{one, two})}, nil
		},
	}
}
