package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/httvps/httvps/bench/internal/blackhole"
	"github.com/httvps/httvps/bench/internal/hostile"
	"github.com/httvps/httvps/bench/internal/load"
	"github.com/httvps/httvps/bench/internal/origin"
	"github.com/httvps/httvps/bench/internal/process"
	"github.com/httvps/httvps/bench/internal/service"
	"github.com/httvps/httvps/bench/internal/stats"
)

const (
	// resets are the streams of a rapid reset.
	resets = 100_000

	// calm is how long goroutines may take to end: longer than a dial.
	calm = 20 * time.Second

	// beforeAttack is how long the neighbour is measured in peace, duringAttack
	// how long from the first moment of the attack on.
	beforeAttack = 2 * time.Second
	duringAttack = 2 * time.Second
)

// attackMeasurements are about devices that mean ill. The gateway has its
// default limits.
func attackMeasurements() []measurement {
	return []measurement{rapidReset(), everything()}
}

func rapidReset() measurement {
	return measurement{
		figures: []figure{
			{name: "reset_dials", unit: "at once"},
			{name: "reset_stopped", unit: "s"},
			{name: "reset_echo_p99_before", unit: "ms"},
			{name: "reset_echo_p99_added", unit: "ms"},
			{name: "reset_goroutines_left", unit: ""},
		},
		contenders: []string{ours},
		rounds:     3,
		own:        true,
		run: func(ctx context.Context, e *environment, _ string) (v values, err error) {
			hole, err := blackhole.Open(ctx)
			if err != nil {
				return nil, &unavailableError{err.Error()}
			}
			defer func() { err = errors.Join(err, hole.Close()) }()
			s, err := e.startService(ctx, service.Options{})
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, s.Stop()) }()
			device, err := s.Connect(ctx, service.Here)
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, device.Stop()) }()
			neighbour := e.here(ours, contender{socks: device.Socks})

			peace, err := neighbour.load(ctx, e.echoSpec(beforeAttack))
			if err != nil {
				return nil, err
			}
			base, err := s.Metrics(ctx)
			if err != nil {
				return nil, err
			}
			attack, err := e.beginAttack(ctx, s, hostile.Spec{Kind: hostile.RapidReset, Target: hole.Address(), Count: resets})
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, attack.Stop()) }()

			var watching sync.WaitGroup
			watchCtx, stopWatching := context.WithCancel(ctx)
			defer watching.Wait()
			defer stopWatching()
			dials := 0
			watching.Go(func() { dials = mostDials(watchCtx, hole) })
			spec := e.echoSpec(duringAttack)
			spec.Warm = 0
			attack.CloseInput() // now
			war, err := neighbour.load(ctx, spec)
			if err != nil {
				return nil, fmt.Errorf("the neighbour: %w", err)
			}
			result, err := outcome(ctx, attack)
			if err != nil {
				return nil, err
			}
			e.tell(result)
			stopWatching()
			watching.Wait()
			left, err := goroutinesLeft(ctx, s, base["go_goroutines"])
			before, during := stats.Percentile(peace.Echoes, 99), stats.Percentile(war.Echoes, 99)
			return values{
				"reset_dials":           float64(dials),
				"reset_stopped":         result.Stopped,
				"reset_echo_p99_before": milli * before,
				"reset_echo_p99_added":  milli * (during - before),
				"reset_goroutines_left": left,
			}, err
		},
	}
}

// mostDials watches a blackhole until ctx ends and returns the most dials that
// it saw at once.
func mostDials(ctx context.Context, hole *blackhole.Blackhole) int {
	most := 0
	for sleep(ctx, 2*time.Millisecond) {
		if n, err := hole.Dials(); err == nil {
			most = max(most, n)
		}
	}
	return most
}

// goroutinesLeft waits until the gateway has as many goroutines as before, and
// returns how many more it has at the end.
func goroutinesLeft(ctx context.Context, s *service.Service, base float64) (float64, error) {
	for begin := time.Now(); ; {
		m, err := s.Metrics(ctx)
		if err != nil {
			return 0, err
		}
		left := m["go_goroutines"] - base
		if left <= 0 || time.Since(begin) > calm {
			return max(left, 0), nil
		}
		if !sleep(ctx, 200*time.Millisecond) {
			return 0, context.Cause(ctx)
		}
	}
}

func everything() measurement {
	return measurement{
		figures:    []figure{{name: "hostile_memory", unit: "MiB"}, {name: "hostile_memory_in_use", unit: "MiB"}},
		contenders: []string{ours},
		rounds:     3,
		own:        true,
		run: func(ctx context.Context, e *environment, _ string) (v values, err error) {
			s, err := e.startService(ctx, service.Options{})
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, s.Stop()) }()
			attack, err := e.beginAttack(ctx, s, hostile.Spec{
				Kind: hostile.Everything, Target: e.originAt, Duration: e.short(12 * time.Second),
				Stall: origin.Stall, Download: origin.Download,
			})
			if err != nil {
				return nil, err
			}
			defer func() { err = errors.Join(err, attack.Stop()) }()
			before, err := weigh(ctx, s)
			if err != nil {
				return nil, err
			}
			attack.CloseInput() // now
			most, result, err := heaviest(ctx, s, attack)
			if err != nil {
				return nil, err
			}
			e.tell(result)
			release := load.Spec{Target: e.originAt}
			return values{
				"hostile_memory":        (most.resident - before.resident) / mib,
				"hostile_memory_in_use": (most.inUse - before.inUse) / mib,
			}, release.ReleaseOrigin(ctx)
		},
	}
}

// heaviest watches the gateway while an attack lasts and returns the most that
// it held.
func heaviest(ctx context.Context, s *service.Service, attack *process.Process) (weight, hostile.Result, error) {
	var watching sync.WaitGroup
	defer watching.Wait()
	watchCtx, stop := context.WithCancel(ctx)
	defer stop()
	var most weight
	watching.Go(func() {
		for n := 0; sleep(watchCtx, 20*time.Millisecond); n++ {
			if rss, err := process.Resident(s.GatewayPID()); err == nil {
				most.resident = math.Max(most.resident, float64(rss))
			}
			if n%10 == 0 { // its own answers are memory, too
				if m, err := s.Metrics(watchCtx); err == nil {
					most.inUse = math.Max(most.inUse, inUse(m))
				}
			}
		}
	})
	result, err := outcome(ctx, attack)
	stop()
	watching.Wait()
	return most, result, err
}

// tell shows how the gateway took an attack.
func (e *environment) tell(r hostile.Result) {
	how := "the session went on"
	if r.Ended {
		how = "the gateway ended the session"
	}
	if r.Code != "" {
		how += ", code " + r.Code
	}
	if r.Uploaded > 0 {
		how = fmt.Sprintf("%d MiB uploaded (all that was allowed: %t); %s", r.Uploaded/mib, r.Filled, how)
	}
	e.say("attack: %d streams opened; %s; %.2f s", r.Sent, how, r.Stopped)
}

// beginAttack starts a hostile device and waits until it is connected. It
// attacks when its input is closed.
func (e *environment) beginAttack(ctx context.Context, s *service.Service, spec hostile.Spec) (*process.Process, error) {
	link, err := s.Invite(ctx)
	if err != nil {
		return nil, err
	}
	spec.Link, spec.Authority = link, s.Authority()
	p, err := s.Self("hostile")
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	var answer line
	if err := errors.Join(p.Send(spec), p.Receive(ctx, &answer)); err != nil {
		return nil, errors.Join(err, p.Stop())
	}
	if !answer.Ready {
		return nil, errors.Join(errors.New("the hostile device did not connect"), p.Stop())
	}
	return p, nil
}

// outcome waits for the end of an attack.
func outcome(ctx context.Context, attack *process.Process) (hostile.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var answer line
	if err := attack.Receive(ctx, &answer); err != nil {
		return hostile.Result{}, err
	}
	if answer.Attack == nil {
		return hostile.Result{}, errors.New("an attack ended without a result")
	}
	return *answer.Attack, nil
}

// playHostile attacks when its input ends.
func playHostile(ctx context.Context, text []byte, say func(any), begin <-chan struct{}) error {
	var spec hostile.Spec
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	trust, err := trustIn(spec.Authority)
	if err != nil {
		return err
	}
	result, err := hostile.Run(ctx, spec, trust, func() { say(line{Ready: true}) }, begin)
	if err != nil {
		return err
	}
	say(line{Attack: &result})
	return nil
}
