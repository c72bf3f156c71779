package nodes

import (
	"context"
	"sync"
)

// turns lets one question about a device be asked at a time. A device that knocks
// many times at once costs the control plane no more than one that knocks once after
// the other, and who waits shares a failure.
type turns struct {
	mu   sync.Mutex // guards the following field
	held map[[16]byte]*turn
}

// turn is one question under way.
type turn struct {
	done chan struct{}
	err  error // set before done is closed: there was no answer
}

// take waits for the device's turn and returns what ends it, or the error of the turn
// that was waited for, or of ctx.
func (t *turns) take(ctx context.Context, device [16]byte) (end func(error), err error) {
	for {
		t.mu.Lock()
		before := t.held[device]
		if before == nil {
			own := &turn{done: make(chan struct{})}
			t.held[device] = own
			t.mu.Unlock()
			return func(err error) {
				own.err = err
				t.mu.Lock()
				delete(t.held, device)
				t.mu.Unlock()
				close(own.done)
			}, nil
		}
		t.mu.Unlock()
		select {
		case <-before.done:
			if before.err != nil {
				return nil, before.err
			}
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}
