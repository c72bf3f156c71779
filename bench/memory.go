package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/httvps/httvps/bench/internal/load"
	"github.com/httvps/httvps/bench/internal/process"
	"github.com/httvps/httvps/bench/internal/service"
)

const (
	kib = 1 << 10

	idleStreams  = 1000
	idleSessions = 500
)

// many are the limits of a gateway on which a thousand streams share a session.
const many = "{max_streams: 1024, open_burst: 65536, open_rate: 65536, session_budget: 67108864, unauthenticated_per_prefix: 2000}"

// memoryMeasurements are about what something costs that does nothing.
func memoryMeasurements() []measurement {
	return []measurement{deviceMeasurement(), idleStreamsMeasurement(), idleSessionsMeasurement()}
}

// deviceMeasurement weighs httvps connect: with nothing to do, and while so many streams
// move as much as they can.
func deviceMeasurement() measurement {
	const streams = 50
	return measurement{
		figures:    []figure{{name: "connect_idle", unit: "MiB"}, {name: "connect_busy_50", unit: "MiB"}},
		contenders: []string{ours},
		rounds:     3,
		own:        true,
		run: func(ctx context.Context, e *environment, name string) (v values, err error) {
			c, err := e.startHTTVPS(ctx, service.Options{Limits: unlimited})
			if err != nil {
				return nil, err
			}
			c = e.here(name, c)
			defer func() { err = errors.Join(err, c.stop()) }()
			idle, err := settled(ctx, c.client)
			if err != nil {
				return nil, err
			}
			busy, err := c.begin(ctx, load.Spec{Kind: load.Streams, Streams: streams, Warm: e.short(steady)})
			if err != nil {
				return nil, err
			}
			most := idle
			for range 20 {
				now, readErr := process.Resident(c.client)
				if readErr != nil || !sleep(ctx, e.short(steady)/10) {
					err = errors.Join(readErr, context.Cause(ctx))
					break
				}
				most = max(most, now)
			}
			_, endErr := busy.end(ctx)
			return values{"connect_idle": float64(idle) / mib, "connect_busy_50": float64(most) / mib}, errors.Join(err, endErr)
		},
	}
}

// idleStreamsMeasurement weighs streams that have moved a few bytes. Each round
// has processes of its own: one that has once been large stays so for a while.
func idleStreamsMeasurement() measurement {
	return measurement{
		figures: []figure{
			{name: "idle_stream_client", unit: "KiB", over: raw},
			{name: "idle_stream_gateway", unit: "KiB", over: raw},
		},
		contenders: []string{ours, raw},
		rounds:     3,
		own:        true,
		run: func(ctx context.Context, e *environment, name string) (v values, err error) {
			var c contender
			if name == ours {
				c, err = e.startHTTVPS(ctx, service.Options{Limits: many, MaxStreams: 1024})
			} else {
				c, err = e.startRelay(ctx)
			}
			if err != nil {
				return nil, err
			}
			c = e.here(name, c)
			defer func() { err = errors.Join(err, c.stop()) }()
			// One first, so that what is made for the first one does not count.
			spec := load.Spec{Kind: load.Idle, Streams: 1}
			first, err := c.begin(ctx, spec)
			if err != nil {
				return nil, err
			}
			defer func() {
				_, endErr := first.end(ctx)
				err = errors.Join(err, endErr)
			}()
			client, server, err := residents(ctx, c)
			if err != nil {
				return nil, err
			}
			spec.Streams = idleStreams
			idle, err := c.begin(ctx, spec)
			if err != nil {
				return nil, err
			}
			defer func() {
				_, endErr := idle.end(ctx)
				err = errors.Join(err, endErr)
			}()
			clientAfter, serverAfter, err := residents(ctx, c)
			return values{
				"idle_stream_client":  float64(clientAfter-client) / idleStreams / kib,
				"idle_stream_gateway": float64(serverAfter-server) / idleStreams / kib,
			}, err
		},
	}
}

// residents returns the resident memory of both ends once it has settled.
func residents(ctx context.Context, c contender) (client, server int64, err error) {
	if client, err = settled(ctx, c.client); err != nil {
		return 0, 0, err
	}
	server, err = settled(ctx, c.server)
	return client, server, err
}

// settled waits until the resident memory of a process no longer changes by
// more than a hundredth in a second, for at most five.
func settled(ctx context.Context, pid int) (int64, error) {
	last, err := process.Resident(pid)
	for range 5 {
		if err != nil || !sleep(ctx, time.Second) {
			break
		}
		now, readErr := process.Resident(pid)
		if readErr != nil {
			return 0, readErr
		}
		if change := now - last; -last/100 <= change && change <= last/100 {
			return now, nil
		}
		last = now
	}
	return last, errors.Join(err, context.Cause(ctx))
}

func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// idleSessionsMeasurement weighs sessions of devices that do nothing.
func idleSessionsMeasurement() measurement {
	const rss, used = "idle_session", "idle_session_in_use"
	return measurement{
		figures:    []figure{{name: rss, unit: "KiB"}, {name: used, unit: "KiB"}},
		contenders: []string{ours},
		rounds:     3,
		own:        true,
		run: func(ctx context.Context, e *environment, _ string) (v values, err error) {
			sessions := idleSessions
			if e.options.quick {
				sessions /= 10
			}
			s, err := e.startService(ctx, service.Options{Limits: many})
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, s.Stop()) }()
			// A few first, so that what is made for the first ones does not count.
			few, err := e.hold(ctx, s, sessions/10)
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, few.Stop()) }()
			before, err := weigh(ctx, s)
			if err != nil {
				return nil, err
			}
			more, err := e.hold(ctx, s, sessions)
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, more.Stop()) }()
			after, err := weigh(ctx, s)
			if err != nil {
				return nil, err
			}
			return values{
				rss:  (after.resident - before.resident) / float64(sessions) / kib,
				used: (after.inUse - before.inUse) / float64(sessions) / kib,
			}, nil
		},
	}
}

// weight is what a gateway holds, in bytes.
type weight struct {
	resident float64
	inUse    float64 // objects and stacks: without what the garbage collector leaves free
}

// weigh weighs a gateway when it has settled and its heap has been collected.
func weigh(ctx context.Context, s *service.Service) (weight, error) {
	if err := s.Collect(ctx); err != nil {
		return weight{}, err
	}
	resident, err := settled(ctx, s.GatewayPID())
	if err != nil {
		return weight{}, err
	}
	m, err := s.Metrics(ctx)
	return weight{float64(resident), inUse(m)}, err
}

// inUse is what a program's metrics say about objects and stacks, in bytes.
func inUse(m map[string]float64) float64 {
	return m["go_memstats_heap_inuse_bytes"] + m["go_memstats_stack_inuse_bytes"]
}

// hold connects so many devices, in a process of their own, which keeps them
// connected until it is stopped.
func (e *environment) hold(ctx context.Context, s *service.Service, n int) (*process.Process, error) {
	links := make([]string, n)
	for i := range links {
		var err error
		if links[i], err = s.Invite(ctx); err != nil {
			return nil, err
		}
	}
	p, err := s.Self("devices")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	var answer line
	if err := errors.Join(p.Send(devicesSpec{Links: links, Sessions: 1, AtOnce: enrolling}), p.Receive(ctx, &answer)); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	if !answer.Ready {
		return nil, errors.Join(fmt.Errorf("%d devices did not connect", n), p.Stop())
	}
	return p, nil
}
