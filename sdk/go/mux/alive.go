package mux

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

// ErrSilent says that the other end no longer answers: it, or the way to it, is
// gone without a word.
var ErrSilent = errors.New("the other end no longer answers")

// Keep-alive, docs/03, part 8.1.
const (
	probeAfter  = 2 * time.Second         // nothing came back for what was sent
	probeWait   = 5 * time.Second         // for anything to come back for a PING
	resumeWait  = 2500 * time.Millisecond // likewise, where another carrier loses nothing
	resumeMost  = 20 * time.Second        // the same after several in a row: the way may only be slow
	pingPatient = 10 * time.Second
	rttLife     = 5 * time.Minute // how long the shortest one counts: under load, all others measure the queue
	rttFresh    = 5 * time.Second // how old one gets before it is measured again, while windows grow
)

// ping is a PING to be sent, or one that waits for its answer.
type ping struct {
	payload [8]byte
	at      time.Time // when it was wanted
	sent    time.Time // when it was put into a batch; zero: not yet
	written time.Time // when the carrier had taken all of it
	waiters []chan<- time.Duration
}

// roundTrips remembers how long PINGs took.
type roundTrips struct {
	least, last time.Duration
	at, leastAt time.Time // of the last, and of the least
}

func (r *roundTrips) add(rtt time.Duration, now time.Time) {
	r.last, r.at = rtt, now
	if r.leastAt.IsZero() || rtt <= r.least || now.Sub(r.leastAt) > rttLife {
		r.least, r.leastAt = rtt, now
	}
}

// roundTrip is the shortest round trip of the last seconds, for the tuning of
// windows. It has it measured again when that is long ago.
func (s *Session) roundTrip(now time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rtt.at.IsZero() || now.Sub(s.rtt.at) > rttFresh {
		s.wantPing(now, pingPatient)
	}
	return max(s.rtt.least, tuneRTT)
}

// wantPing has a PING sent unless one is under way, for less than patience.
// Called with mu held.
func (s *Session) wantPing(now time.Time, patience time.Duration) {
	if s.err != nil || s.ping != nil && (s.ping.sent.IsZero() || now.Sub(s.ping.sent) < patience) {
		return
	}
	var waiters []chan<- time.Duration
	if s.ping != nil {
		waiters = s.ping.waiters
	}
	s.pings++
	s.ping = &ping{waiters: waiters, at: now}
	for i := range s.ping.payload {
		s.ping.payload[i] = byte(s.pings >> (8 * i))
	}
	s.wake()
}

// Ping measures the time to the other end and back. The error wraps [ErrEnded],
// or is ctx's cause.
func (s *Session) Ping(ctx context.Context) (time.Duration, error) {
	answer := make(chan time.Duration, 1)
	s.mu.Lock()
	s.wantPing(time.Now(), pingPatient)
	if s.ping != nil {
		s.ping.waiters = append(s.ping.waiters, answer)
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.ping != nil {
			s.ping.waiters = slices.DeleteFunc(s.ping.waiters, func(w chan<- time.Duration) bool { return w == answer })
		}
	}()
	select {
	case rtt := <-answer:
		return rtt, nil
	case <-s.done:
		return 0, &endedError{cause: s.Err()}
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

func (s *Session) readPong(payload []byte) error {
	p, err := wire.ParsePing(payload)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ping == nil || s.ping.sent.IsZero() || s.ping.payload != p {
		return nil
	}
	now := time.Now()
	from := s.ping.sent
	if !s.ping.written.IsZero() {
		from = s.ping.written
	}
	rtt := now.Sub(from)
	s.rtt.add(rtt, now)
	for _, w := range s.ping.waiters {
		w <- rtt // has room for it
	}
	s.ping = nil
	return nil
}

// noteWritten is called when the carrier has taken a PING, if any.
func (s *Session) noteWritten(p *ping) {
	if p == nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.written = time.Now()
}

// liveness finds out when the other end is gone without a word.
type liveness struct {
	s         *Session
	received  atomic.Int64 // when the last bytes came, since the session began
	sent      atomic.Int64 // when the last was sent
	inVain    atomic.Int32 // carriers given up since the other end last acknowledged anything
	probing   atomic.Bool  // the timer is set for the answer to what was sent
	mu        sync.Mutex   // guards what follows
	timer     *time.Timer
	due       time.Time // when it fires
	stopped   bool
	idleAfter time.Duration // a client's patience with silence, drawn anew for each PING
}

func (a *liveness) start(s *Session) {
	a.s = s
	a.idleAfter = idleAfter(s.limits.Silence)
}

// idleAfter draws when a silent client pings: two to three ninths of what the
// gateway suffers.
func idleAfter(silence time.Duration) time.Duration {
	return silence*2/9 + time.Duration(rand.Int64N(int64(max(silence/9, 1)))) //nolint:gosec // a jitter, no secret
}

func (a *liveness) now() int64 { return int64(time.Since(a.s.began)) }

func (a *liveness) arm() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.s.limits.Silence <= 0 || a.stopped {
		return
	}
	first := a.firstLocked()
	a.due = time.Now().Add(first)
	a.timer = time.AfterFunc(first, a.check)
}

// first is how long a new carrier may be silent before that is looked at.
func (a *liveness) first() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.firstLocked()
}

func (a *liveness) firstLocked() time.Duration {
	if a.s.role == Client {
		return a.idleAfter
	}
	return a.s.limits.Silence
}

// pause stops looking while there is no carrier.
func (a *liveness) pause() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.timer != nil {
		a.timer.Stop()
	}
}

// again begins anew with another carrier.
func (a *liveness) again() {
	a.received.Store(a.now() - 1) // what is sent at once comes after it
	a.sent.Store(0)
	a.probing.Store(false)
	a.set(a.first())
}

func (a *liveness) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stopped = true
	if a.timer != nil {
		a.timer.Stop()
	}
}

func (a *liveness) noteReceived() { a.received.Store(a.now()) }

// noteSent is called after a batch was sent. What was sent wants an answer
// sooner than silence does.
func (a *liveness) noteSent() {
	a.sent.Store(a.now())
	a.wantAnswer()
}

// wantAnswer has it looked at soon whether anything comes.
func (a *liveness) wantAnswer() {
	if a.s.role == Client && !a.probing.Swap(true) {
		a.sooner(probeAfter)
	}
}

func (a *liveness) set(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.setLocked(d)
}

// sooner sets the timer unless it fires before that anyway.
func (a *liveness) sooner(d time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if time.Now().Add(d).Before(a.due) {
		a.setLocked(d)
	}
}

func (a *liveness) setLocked(d time.Duration) {
	if !a.stopped && a.timer != nil {
		d = max(d, time.Millisecond)
		a.due = time.Now().Add(d)
		a.timer.Reset(d)
	}
}

// check is called by the timer, which it sets again.
func (a *liveness) check() {
	s := a.s
	s.mu.Lock()
	conn := s.at.conn
	s.mu.Unlock()
	if conn == nil {
		return
	}
	now, received := a.now(), a.received.Load()
	quiet := time.Duration(now - received)
	if s.role == Gateway {
		if quiet >= s.limits.Silence && s.resumable() {
			s.lose(conn, ErrSilent)
			return
		}
		if quiet >= s.limits.Silence {
			s.closeWith(wire.CodeIdle, "nothing was received for too long")
			return
		}
		a.set(s.limits.Silence - quiet)
		return
	}

	s.mu.Lock()
	rtt := s.rtt.last
	var asked time.Duration // how long an answer is due
	if s.ping != nil {
		from := s.ping.written
		if s.resumable() { // there is no need to wait for a write that is stuck
			from = s.ping.at
		}
		if !from.IsZero() && int64(from.Sub(s.began)) > received {
			asked = time.Since(from)
		}
	}
	s.mu.Unlock()
	wait, probe, waiting := max(a.patience(), 4*rtt), max(probeAfter, 3*rtt), a.waiting()
	switch {
	case asked >= wait && s.resumable():
		a.inVain.Add(1)
		s.lose(conn, ErrSilent)
		return
	case asked >= wait:
		s.end(ErrSilent, nil)
		return
	case asked > 0:
		a.set(wait - asked)
	case waiting && quiet >= probe, quiet >= a.idle():
		s.mu.Lock()
		if s.ping != nil && s.ping.sent.IsZero() {
			s.ping.at = time.Now() // the patience with it begins anew
		}
		s.wantPing(time.Now(), 0) // one before it was answered by something else
		s.mu.Unlock()
		a.redraw()
		a.set(wait)
	case waiting:
		a.set(probe - quiet)
	default:
		a.set(a.idle() - quiet)
	}
	// From here on who sends sets the timer himself. Who did so meanwhile may have set it
	// before it was set here.
	a.probing.Store(false)
	if a.waiting() {
		a.probing.Store(true)
		a.sooner(probe)
	}
}

// waiting says whether an answer is due to something that was sent. Where the session
// can be resumed, that is an acknowledgement, too, and room for what is being sent.
func (a *liveness) waiting() bool {
	s := a.s
	if a.sent.Load() > a.received.Load() {
		return true
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.resumable() && (s.writing || s.history.acked+1 < s.history.next)
}

// patience is how long a PING may wait for anything to come.
func (a *liveness) patience() time.Duration {
	if a.s.resumable() {
		return min(resumeWait<<min(max(a.inVain.Load()-1, 0), 10), resumeMost) // 10: no overflow
	}
	return probeWait
}

func (a *liveness) idle() time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.idleAfter
}

func (a *liveness) redraw() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.idleAfter = idleAfter(a.s.limits.Silence)
}
