package main

import (
	"context"
	"fmt"
	"time"

	"github.com/httvps/httvps/bench/internal/load"
	"github.com/httvps/httvps/bench/internal/service"
	"github.com/httvps/httvps/bench/internal/stats"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// everybody are the contenders of most measurements.
var everybody = []string{ours, raw, direct}

const (
	warm   = 300 * time.Millisecond
	steady = 1500 * time.Millisecond
)

// streamMeasurements are about bytes: how many, how evenly, at what cost.
func streamMeasurements() []measurement {
	one := func(up bool) measurement {
		dir := "down"
		if up {
			dir = "up"
		}
		speed, cpu := "stream_1_"+dir, "cpu_per_gib_"+dir
		return measurement{
			figures: []figure{
				{name: speed, unit: "MiB/s", over: raw},
				{name: cpu, unit: "s", over: raw},
				{name: cpu + "_client", unit: "s", over: raw},
				{name: cpu + "_gateway", unit: "s", over: raw},
			},
			contenders: everybody,
			rounds:     5,
			run: func(ctx context.Context, e *environment, name string) (values, error) {
				r, v, err := e.bytesLoad(ctx, name, cpu, load.Spec{
					Kind: load.Streams, Up: up,
					Streams: 1, Warm: e.short(warm), Duration: e.short(steady),
				})
				if err != nil {
					return nil, err
				}
				v[speed] = r.Speed / mib
				return v, nil
			},
		}
	}
	many := func(n int) measurement {
		speed, jain, cpu := fmt.Sprintf("streams_%d_down", n), fmt.Sprintf("jain_%d", n), fmt.Sprintf("cpu_per_gib_%d", n)
		return measurement{
			// Both against the relay's 16: with 256 connections it is slower itself.
			figures: []figure{
				{name: speed, unit: "MiB/s", over: raw + "/streams_16_down"},
				{name: jain, unit: "of 1"},
				{name: cpu, unit: "s", over: raw + "/cpu_per_gib_16"},
				{name: cpu + "_client", unit: "s", over: raw + "/cpu_per_gib_16_client"},
				{name: cpu + "_gateway", unit: "s", over: raw + "/cpu_per_gib_16_gateway"},
			},
			contenders: everybody,
			rounds:     3,
			run: func(ctx context.Context, e *environment, name string) (values, error) {
				r, v, err := e.bytesLoad(ctx, name, cpu, load.Spec{
					Kind:    load.Streams,
					Streams: n, Warm: e.short(2 * warm), Duration: e.short(steady),
				})
				if err != nil {
					return nil, err
				}
				v[speed], v[jain] = r.Speed/mib, stats.Jain(r.PerStream)
				return v, nil
			},
		}
	}
	return []measurement{one(false), one(true), many(16), many(256), resumable(false), resumable(true), bareTLS()}
}

// resumable compares sessions that outlive their connections with those that end with
// them: the other end acknowledges what came, and what did not is kept.
func resumable(up bool) measurement {
	name := "resumable_down"
	if up {
		name = "resumable_up"
	}
	return measurement{
		figures:    []figure{{name: name, unit: "MiB/s", over: unresumable}, {name: name + "_cpu", unit: "s", over: unresumable}},
		contenders: []string{ours, unresumable},
		rounds:     9,
		run: func(ctx context.Context, e *environment, who string) (values, error) {
			cpu := name + "_cpu"
			r, v, err := e.bytesLoad(ctx, who, cpu, load.Spec{Kind: load.Streams, Up: up, Streams: 1, Warm: e.short(warm), Duration: e.short(steady)})
			if err != nil {
				return nil, err
			}
			return values{name: r.Speed / mib, cpu: v[cpu]}, nil
		},
	}
}

// bytesLoad makes a load of bytes and returns what came of it, and under the name
// cpu what a GiB of it cost both ends of the contender, and each of them.
func (e *environment) bytesLoad(ctx context.Context, name, cpu string, spec load.Spec) (load.Result, values, error) {
	c, err := e.contender(ctx, name)
	if err != nil {
		return load.Result{}, nil, err
	}
	client, server, err := c.cpu()
	if err != nil {
		return load.Result{}, nil, err
	}
	r, err := c.load(ctx, spec)
	if err != nil || c.client == 0 {
		return r, values{}, err
	}
	clientAfter, serverAfter, err := c.cpu()
	if err != nil {
		return load.Result{}, nil, err
	}
	moved := float64(r.Bytes) / gib
	v := values{cpu + "_client": (clientAfter - client).Seconds() / moved, cpu + "_gateway": (serverAfter - server).Seconds() / moved}
	v[cpu] = v[cpu+"_client"] + v[cpu+"_gateway"]
	return r, v, nil
}

// bareTLS is the baseline's own baseline.
func bareTLS() measurement {
	return measurement{
		figures:    []figure{{name: "bare_tls", unit: "MiB/s"}},
		contenders: []string{raw},
		rounds:     3,
		run: func(ctx context.Context, e *environment, _ string) (values, error) {
			spec := e.relaySpec()
			spec.Duration = e.short(steady)
			p, err := self(service.Here, "bare-tls")
			if err != nil {
				return nil, err
			}
			var answer line
			err = p.Send(spec)
			if err == nil {
				err = p.Receive(ctx, &answer)
			}
			if stopErr := p.Stop(); err == nil {
				err = stopErr
			}
			return values{"bare_tls": answer.Speed / mib}, err
		},
	}
}
