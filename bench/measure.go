package main

import (
	"context"
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strings"
	"time"
)

// figure is one thing that is measured for contenders.
type figure struct {
	name string
	unit string

	// over names what the figure of HTTVPS is divided by for its ratio:
	// "contender" for the same figure of another, "contender/figure" for another
	// figure. Empty: no ratio.
	over string
}

// values are the figures of one contender in one round.
type values map[string]float64

// measurement yields figures, round after round.
type measurement struct {
	figures    []figure
	contenders []string // in the order of the first round
	rounds     int      // unless the options say otherwise
	own        bool     // each run starts its own contender
	run        func(ctx context.Context, e *environment, contender string) (values, error)
}

// unavailableError says that a measurement cannot run on this machine, which is
// no failure of what is measured.
type unavailableError struct{ reason string }

func (e *unavailableError) Error() string { return e.reason }

// findings are the values of all rounds: by figure, then by contender.
type findings struct {
	values  map[string]map[string][]float64
	skipped map[string]string // figures that could not be measured, and why
	failed  []error
}

func (f *findings) add(contender string, v values) {
	for name, value := range v {
		if f.values[name] == nil {
			f.values[name] = make(map[string][]float64)
		}
		f.values[name][contender] = append(f.values[name][contender], value)
	}
}

// err is what failed, if anything did.
func (f *findings) err() error { return errors.Join(f.failed...) }

// measurements lists everything that can be measured, in the order in which it is.
func measurements() []measurement {
	return slices.Concat(streamMeasurements(), aloneMeasurements(), paddingMeasurements(), openMeasurements(), echoMeasurements(), stalledMeasurements(), memoryMeasurements(), crowdMeasurements(), speedMeasurements(), outlineMeasurements(), attackMeasurements(), linkMeasurements())
}

// choose returns the measurements that yield a figure which pattern finds.
func choose(all []measurement, pattern *regexp.Regexp) []measurement {
	return slices.DeleteFunc(all, func(m measurement) bool {
		return !slices.ContainsFunc(m.figures, func(f figure) bool { return pattern.MatchString(f.name) })
	})
}

// names lists a measurement's figures.
func (m measurement) names() string {
	names := make([]string, len(m.figures))
	for i, f := range m.figures {
		names[i] = f.name
	}
	return strings.Join(names, " ")
}

// measure runs the measurements one after the other, each in rounds: in every
// round all its contenders have their turn, each time another one first.
func (e *environment) measure(ctx context.Context, chosen []measurement) *findings {
	found := &findings{values: make(map[string]map[string][]float64), skipped: make(map[string]string)}
	for _, m := range chosen {
		if err := e.measureOne(ctx, m, found); err != nil {
			for _, f := range m.figures {
				found.skipped[f.name] = err.Error()
			}
			if _, unavailable := errors.AsType[*unavailableError](err); !unavailable {
				found.failed = append(found.failed, err)
			}
			e.say("not measured: %s: %v", m.names(), err)
		}
		if ctx.Err() != nil {
			return found
		}
	}
	return found
}

func (e *environment) measureOne(ctx context.Context, m measurement, found *findings) error {
	rounds := m.rounds
	if e.options.rounds > 0 {
		rounds = e.options.rounds
	}
	for round := range rounds {
		for _, name := range rotate(m.contenders, round) {
			v, others, err := e.undisturbed(ctx, m, name)
			if err != nil {
				return fmt.Errorf("%s, %s, round %d: %w", m.figures[0].name, name, round+1, err)
			}
			found.add(name, v)
			e.say("%d/%d %-7s %s%s", round+1, rounds, name, v.line(m.figures), others)
		}
	}
	return nil
}

// busy is the share of the processors beyond which a load counts as disturbed.
const busy = 0.05

// undisturbed makes a run, again and again while there is patience with others
// on the machine, and returns the least disturbed.
func (e *environment) undisturbed(ctx context.Context, m measurement, name string) (best values, note string, err error) {
	if !m.own {
		if _, err := e.contender(ctx, name); err != nil { // so that starting it does not count
			return nil, "", err
		}
	}
	begin, least := time.Now(), math.Inf(1)
	for {
		watch := newMeter()
		v, err := m.run(ctx, e, name)
		if err != nil {
			return nil, "", err
		}
		if others := watch.others(); others < least {
			best, least = v, others
		}
		if least <= busy || time.Since(begin) >= e.options.patience {
			break
		}
	}
	if least > busy {
		note = fmt.Sprintf(" (others used %.0f %% of the processors)", 100*least)
	}
	return best, note, nil
}

// line shows the values in the order of the figures.
func (v values) line(figures []figure) string {
	var parts []string
	for _, f := range figures {
		if value, ok := v[f.name]; ok {
			parts = append(parts, fmt.Sprintf("%s %.4g %s", f.name, value, f.unit))
		}
	}
	return strings.Join(parts, ", ")
}

// rotate returns list with its first n entries behind the others.
func rotate(list []string, n int) []string {
	n %= len(list)
	return slices.Concat(list[n:], list[:n])
}
