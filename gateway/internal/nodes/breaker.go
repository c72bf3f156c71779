package nodes

import (
	"sync"
	"time"
)

const (
	// breakerFailures is how many calls in a row fail until the control plane counts
	// as away.
	breakerFailures = 5
	// breakerPause is how long nobody waits for it then, before one more asks.
	breakerPause = 10 * time.Second
)

// BreakerState is how the gateway treats a control plane that may be away.
type BreakerState int

// The states of the breaker.
const (
	BreakerClosed   BreakerState = iota // questions are asked
	BreakerOpen                         // none is: the control plane counts as away
	BreakerHalfOpen                     // likewise, but the next one is asked, or is under way
)

// breaker spares devices the wait for a control plane that does not answer, and the
// control plane the crowd that would be waiting when it comes back.
type breaker struct {
	now func() time.Time
	// changed is told when the control plane begins to count as away, and when it does
	// so no more. It is called without a lock, in order.
	changed func(away bool)

	order sync.Mutex // held while changed is called
	mu    sync.Mutex // guards the following fields
	// questions and beats count failures in a row. They are apart: heartbeats may be
	// answered while decisions are not.
	questions, beats int
	away             bool
	next             time.Time // when the next question may be asked; with away
	trying           bool      // and it is under way
}

// ask reports whether a question may be asked. Who may says how it went.
func (b *breaker) ask() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.away {
		return true
	}
	if b.trying || b.now().Before(b.next) {
		return false
	}
	b.trying = true
	return true
}

// asked notes how a question went.
func (b *breaker) asked(answered bool) {
	b.note(func() {
		b.trying = false
		if answered {
			b.back()
			return
		}
		if b.questions++; b.away || b.questions >= breakerFailures {
			b.away, b.next = true, b.now().Add(breakerPause)
		}
	})
}

// dropped notes that nobody waited for the answer to a question: that says nothing.
func (b *breaker) dropped() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.trying = false
}

// beaten notes how a heartbeat went. Heartbeats are sent in every state. Those that
// were answered all along say nothing about questions that were not.
func (b *breaker) beaten(answered bool) {
	b.note(func() {
		switch {
		case !answered:
			if b.beats++; !b.away && b.beats >= breakerFailures {
				b.away, b.next = true, b.now().Add(breakerPause)
			}
		case !b.away:
			b.beats = 0
		case b.beats > 0 || !b.now().Before(b.next):
			b.back()
		}
	})
}

// back has the control plane count as there. Called with mu held.
func (b *breaker) back() { b.away, b.questions, b.beats = false, 0, 0 }

// note changes the breaker and passes on what that means.
func (b *breaker) note(change func()) {
	b.order.Lock()
	defer b.order.Unlock()
	b.mu.Lock()
	before := b.away
	change()
	after := b.away
	b.mu.Unlock()
	if before != after {
		b.changed(after)
	}
}

// isAway reports whether the control plane counts as away.
func (b *breaker) isAway() bool { return b.state() != BreakerClosed }

func (b *breaker) state() BreakerState {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case !b.away:
		return BreakerClosed
	case b.trying || !b.now().Before(b.next):
		return BreakerHalfOpen
	default:
		return BreakerOpen
	}
}
