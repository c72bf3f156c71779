package nodes

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"
)

const (
	// maxAsking is how many questions are under way at once. More would only wait at
	// the control plane, where the wait counts against it.
	maxAsking = 32
	// maxWaiting is how many wait for that; queueTimeout is for how long, their
	// device's turn included. Devices that know of another gateway leave after six
	// seconds; the others give up after twenty.
	maxWaiting   = 4096
	queueTimeout = 10 * time.Second
)

// ErrBusy says that too many questions were waiting to be asked. It is an
// [ErrUndecided].
var ErrBusy = fmt.Errorf("%w: %w: too many questions", ErrUndecided, errNotAsked)

// errWaited ends the wait for a place.
var errWaited = errors.New("waited for a place")

// places are those of the questions that are under way. Who comes first is served
// first.
type places struct {
	taken   chan struct{} // of [maxAsking]
	waiting atomic.Int64  // questions that have no place yet
}

// enter lets a question wait. It returns when the wait is over at the latest, and stop,
// which ends the wait; or [ErrBusy].
func (p *places) enter(ctx context.Context) (waiting context.Context, stop func(), err error) {
	if p.waiting.Add(1) > maxWaiting {
		p.waiting.Add(-1)
		return nil, nil, ErrBusy
	}
	waiting, cancel := context.WithTimeoutCause(ctx, queueTimeout, errWaited)
	return waiting, func() {
		cancel()
		p.waiting.Add(-1)
	}, nil
}

// take takes a place for a question that waits, and returns what leaves it; or ErrBusy,
// or the error of who asks.
func (p *places) take(waiting context.Context) (leave func(), err error) {
	select {
	case p.taken <- struct{}{}:
		return func() { <-p.taken }, nil
	case <-waiting.Done():
		return nil, busy(waiting)
	}
}

// busy is why the wait of a question ended without its turn.
func busy(waiting context.Context) error {
	if cause := context.Cause(waiting); !errors.Is(cause, errWaited) {
		return fmt.Errorf("%w: %w: %w", ErrUndecided, errNotAsked, cause)
	}
	return ErrBusy
}
