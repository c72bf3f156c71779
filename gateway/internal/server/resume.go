package server

import (
	"context"
	"crypto/rand"
	"slices"
	"sync"
	"time"

	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/gateway/internal/protocol"
	"github.com/httvps/httvps/gateway/internal/sessions"
	"github.com/httvps/httvps/internal/gate"
	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// One in so many of the sessions that a gateway may have may wait for its device
	// to come back, and all of them together may hold so much memory.
	lostShare = 10
	lostBytes = 256 << 20
	// lostLook is how often that memory is looked at.
	lostLook = time.Second

	// parkTimeout is what the carrier before has to be out of use, turnTimeout what
	// another attempt to resume the same session has to come to its end.
	parkTimeout = time.Second
	turnTimeout = 5 * time.Second

	// A device that has just lost its place to itself waits so long.
	retryReplaced = time.Second
)

// lasting is a session that can go on over another carrier.
type lasting struct {
	live    *sessions.Session
	session *mux.Session
	terms   protocol.Resume
	beside  *attendant    // nil: there is none
	turn    chan struct{} // held by who resumes it, who alone touches the following
	attempt uint64        // the latest

	lost bool // guarded by the mutex of resumes
}

// resumes knows the sessions that can be resumed, and bounds those that have no
// carrier at the moment.
type resumes struct {
	window time.Duration // 0: there are none
	most   int           // sessions without a carrier
	bytes  uint64        // what they may hold

	mu       sync.Mutex // guards the following fields
	sessions map[sessions.ID]*lasting
	lost     []*lasting // longest first
	looking  bool       // a look at their memory is due
}

func newResumes(limits config.Limits) *resumes {
	window := limits.Resume.Std()
	if limits.SessionBudget < mux.MinResumeBudget {
		window = 0
	}
	return &resumes{window: window, most: max(limits.Sessions/lostShare, 1), bytes: lostBytes, sessions: make(map[sessions.ID]*lasting)}
}

// offered is the capability, where it is served.
func (r *resumes) offered() wire.Capabilities {
	if r.window == 0 {
		return 0
	}
	return wire.Capabilities(0).With(wire.Resume)
}

// grant makes what resuming a new session of these capabilities takes.
func (r *resumes) grant(agreed wire.Capabilities) *protocol.Resume {
	terms := &protocol.Resume{Window: r.window, Bound: agreed.Has(wire.ChannelBinding)}
	_, _ = rand.Read(terms.Secret[:]) // never fails (crypto/rand)
	return terms
}

// add makes a session known that can be resumed.
func (r *resumes) add(l *lasting) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.sessions[l.live.ID] = l
}

// remove forgets a session that has ended.
func (r *resumes) remove(l *lasting) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, l.live.ID)
	r.foundLocked(l)
}

// loses notes that a session has lost its carrier. Beyond the bound, the one that
// has waited longest ends.
func (r *resumes) loses(l *lasting) {
	r.mu.Lock()
	if r.sessions[l.live.ID] != l || l.lost {
		r.mu.Unlock()
		return
	}
	l.lost = true
	r.lost = append(r.lost, l)
	var over []*lasting
	if n := len(r.lost) - r.most; n > 0 {
		over = slices.Clone(r.lost[:n])
	}
	if !r.looking {
		r.looking = true
		time.AfterFunc(lostLook, r.look)
	}
	r.mu.Unlock()
	giveUp(over)
}

// look ends those that have waited longest while all hold too much.
func (r *resumes) look() {
	r.mu.Lock()
	r.looking = len(r.lost) > 0
	if r.looking {
		time.AfterFunc(lostLook, r.look)
	}
	waiting := slices.Clone(r.lost)
	r.mu.Unlock()
	held := uint64(0)
	for i, l := range slices.Backward(waiting) {
		if held += l.session.Buffered(); held > r.bytes {
			giveUp(waiting[:i+1])
			return
		}
	}
}

func giveUp(list []*lasting) {
	for _, l := range list {
		l.session.Close(wire.CodeLimit, "")
	}
}

// finds notes that a session has a carrier again.
func (r *resumes) finds(l *lasting) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.foundLocked(l)
}

func (r *resumes) foundLocked(l *lasting) {
	if l.lost {
		l.lost = false
		r.lost = slices.DeleteFunc(r.lost, func(other *lasting) bool { return other == l })
	}
}

// replace ends the sessions of a device that wait for it to come back, because it has
// come for another one, and reports whether there were any.
func (r *resumes) replace(device sessions.Device) bool {
	r.mu.Lock()
	var those []*lasting
	for _, l := range r.lost {
		if l.live.Device == device {
			those = append(those, l)
		}
	}
	r.mu.Unlock()
	giveUp(those)
	return len(those) > 0
}

// count is how many sessions have no carrier.
func (r *resumes) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.lost)
}

// errUnknown is one answer to whoever has no session here or cannot prove that it is
// his.
func errUnknown() error { return &protocol.RefusedError{Code: wire.CodeSessionUnknown} }

// resume decides about a carrier on which a device wants to go on.
func (r *resumes) resume(ctx context.Context, conn *carrier.Conn, asked wire.Resumption, nonce [32]byte) (protocol.Resumption, error) {
	r.mu.Lock()
	l := r.sessions[asked.SessionID]
	r.mu.Unlock()
	if l == nil {
		return protocol.Resumption{}, errUnknown()
	}
	var binding []byte
	if l.terms.Bound {
		var err error
		if binding, err = conn.ExportKeyingMaterial(); err != nil {
			return protocol.Resumption{}, err
		}
	}
	if !asked.Proof.Equal(asked.Prove(l.terms.Secret, nonce, binding)) {
		return protocol.Resumption{}, errUnknown()
	}
	gate.Pass(ctx)
	if err := l.enter(ctx); err != nil {
		return protocol.Resumption{}, err
	}
	received, err := l.park(ctx, asked)
	if err != nil {
		if l.session.Lost() {
			r.loses(l)
		}
		<-l.turn
		return protocol.Resumption{}, err
	}
	answer := wire.Resumed{Received: received}
	answer.Proof = answer.Prove(l.terms.Secret, nonce, asked, binding)
	return protocol.Resumption{
		Answer: answer,
		Attach: func(first []byte) error {
			defer func() { <-l.turn }()
			r.finds(l) // before it may lose this one, too
			return l.session.Resume(conn, first, asked.Received)
		},
		Abandon: func() {
			r.loses(l)
			<-l.turn
		},
	}, nil
}

// enter waits for the session's turn.
func (l *lasting) enter(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, turnTimeout)
	defer cancel()
	select {
	case l.turn <- struct{}{}:
		return nil
	case <-ctx.Done():
		return &protocol.RefusedError{Code: wire.CodeRetryLater, RetryAfter: retryUndecided}
	}
}

// park takes the session's carrier away for a later attempt than all before, and
// returns what had been applied when it was out of use.
func (l *lasting) park(ctx context.Context, asked wire.Resumption) (received uint64, err error) {
	if asked.Attempt <= l.attempt {
		return 0, &protocol.RefusedError{Code: wire.CodeCancelled}
	}
	if l.beside != nil && l.beside.over(time.Now()) { // its timer may be late: the machine has slept
		l.live.End(wire.CodeTokenExpired)
	}
	select {
	case <-l.live.Ending():
		return 0, errUnknown()
	default:
	}
	l.attempt = asked.Attempt
	ctx, cancel := context.WithTimeout(ctx, parkTimeout)
	defer cancel()
	received, err = l.session.Park(ctx)
	switch {
	case l.session.Err() != nil:
		return 0, errUnknown()
	case err != nil:
		return 0, &protocol.RefusedError{Code: wire.CodeRetryLater, RetryAfter: retryUndecided}
	}
	return received, l.session.Judge(asked.Received)
}
