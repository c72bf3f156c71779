package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/httvps/httvps/bench/internal/process"
	"github.com/httvps/httvps/bench/internal/service"
)

const (
	// crowdSize are the idle sessions of a gateway that is as full as it gets.
	crowdSize = 10_000
	// rush are the sessions that begin at once.
	rush = 1000
	// crowded is how many sessions each device has that is idle: enrolling takes longer
	// than what is to be measured. In a rush each device has one.
	crowded = 100
	// family is how many devices a user has.
	family = service.MostPerPlan / crowded

	crowdTimeout = 10 * time.Minute
)

// roomy are the limits of a gateway for a crowd, all of which comes from one address.
const roomy = "{sessions: 20000, unauthenticated: 20000, unauthenticated_per_prefix: 20000}"

// crowdMeasurements are about many devices.
func crowdMeasurements() []measurement { return []measurement{idleCrowd(), rushes()} }

// idleCrowd weighs a gateway with as many sessions as it has by default.
func idleCrowd() measurement {
	return measurement{
		figures:    []figure{{name: "idle_10000", unit: "GB"}, {name: "idle_10000_in_use", unit: "GB"}},
		contenders: []string{ours},
		rounds:     3,
		own:        true,
		run: func(ctx context.Context, e *environment, _ string) (v values, err error) {
			sessions := crowdSize
			if e.options.quick {
				sessions /= 20
			}
			s, err := e.startService(ctx, service.Options{Limits: roomy})
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, s.Stop()) }()
			crowd, _, err := e.crowd(ctx, s, devicesSpec{Sessions: crowded, AtOnce: 16}, sessions)
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, crowd.Stop()) }()
			w, err := weigh(ctx, s)
			return values{"idle_10000": w.resident / 1e9, "idle_10000_in_use": w.inUse / 1e9}, err
		},
	}
}

// rushes has a thousand devices knock at the same moment.
func rushes() measurement {
	return measurement{
		figures:    []figure{{name: "handshakes_1000_failed", unit: ""}, {name: "handshakes_1000", unit: "s"}},
		contenders: []string{ours},
		rounds:     3,
		own:        true,
		run: func(ctx context.Context, e *environment, _ string) (v values, err error) {
			sessions := rush
			if e.options.quick {
				sessions /= 10
			}
			s, err := e.startService(ctx, service.Options{Limits: roomy})
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, s.Stop()) }()
			crowd, result, err := e.crowd(ctx, s, devicesSpec{Sessions: 1, AtOnce: sessions, Rush: true}, sessions)
			if err != nil {
				return nil, err
			}
			if result.Why != "" {
				e.say("an attempt failed: %s", result.Why)
			}
			return values{"handshakes_1000_failed": float64(result.Failed), "handshakes_1000": result.Seconds}, crowd.Stop()
		},
	}
}

// crowd connects so many sessions, of devices that it makes, in a process of their own,
// which keeps them connected until it is stopped.
func (e *environment) crowd(ctx context.Context, s *service.Service, spec devicesSpec, sessions int) (*process.Process, crowdResult, error) {
	for i := range (sessions + spec.Sessions - 1) / spec.Sessions {
		if i > 0 && i%family == 0 {
			if err := s.NextUser(ctx); err != nil {
				return nil, crowdResult{}, err
			}
		}
		link, err := s.Invite(ctx)
		if err != nil {
			return nil, crowdResult{}, err
		}
		spec.Links = append(spec.Links, link)
	}
	p, err := s.Self("devices")
	if err != nil {
		return nil, crowdResult{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, crowdTimeout)
	defer cancel()
	var answer line
	if err := errors.Join(p.Send(spec), p.Receive(ctx, &answer)); err != nil {
		return nil, crowdResult{}, errors.Join(err, p.Stop())
	}
	if !answer.Ready || answer.Crowd == nil {
		return nil, crowdResult{}, errors.Join(fmt.Errorf("%d sessions did not begin", sessions), p.Stop())
	}
	return p, *answer.Crowd, nil
}
