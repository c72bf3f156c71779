package main

import (
	"runtime"
	"time"

	"github.com/httvps/httvps/bench/internal/process"
)

// meter measures how much of the machine others use meanwhile: compilers, other
// benchmarks, a neighbour of a virtual machine.
type meter struct {
	start        time.Time
	busy, family time.Duration
}

func newMeter() meter {
	m := meter{start: time.Now()}
	m.busy, m.family = usedBy()
	return m
}

// usedBy returns the processor time of everybody and of this run; where that is
// not known both are 0, and others have used nothing.
func usedBy() (everybody, family time.Duration) {
	everybody, err := process.Busy()
	if err != nil {
		return 0, 0
	}
	if family, err = process.Family(); err != nil {
		return 0, 0
	}
	return everybody, family
}

// took is how long the meter has run.
func (m meter) took() time.Duration { return time.Since(m.start) }

// others is the share of the processors that others have used, of 1.
func (m meter) others() float64 {
	everybody, family := usedBy()
	used := (everybody - m.busy) - (family - m.family)
	return max(used.Seconds(), 0) / m.took().Seconds() / float64(runtime.NumCPU())
}
