// Package pace keeps the speeds of devices: a token bucket for each device and
// direction, which the streams of all its sessions share byte by byte, however
// large the pieces are that they move; and behind those one for each direction of the
// gateway's uplink, which devices share likewise.
//
// The bucket of golang.org/x/time/rate serves in the order of arrival: who asks for
// more has more, and of who waits it can neither change the rate nor end the wait.
package pace

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// burstTime is for how long what was not used is kept. It is also how late a
	// timer may be without loss of speed, and what a sender of datagrams may have
	// in flight at once.
	burstTime = 100 * time.Millisecond
	// turnTime is what a turn of a stream takes where it has the line for itself.
	turnTime = 16 * time.Millisecond
	// leastTurn and mostTurn bound a turn, in bytes.
	leastTurn, mostTurn = 256, 64 << 10
	// probeShare of a turn is read from a target that may have nothing to say: it
	// is paid for afterwards, so that who waits for his target holds nothing that
	// others could use. leastProbe is in bytes.
	probeShare, leastProbe = 16, 256
)

// Speeds are those of one device. The zero value bounds nothing.
type Speeds struct {
	Up, Down Limit

	mu       sync.Mutex // guards the following fields
	asked    time.Time
	up, down int64 // as set
	slowed   map[any]int64
	inForce  [2]int64 // up and down, with all that slows them
	watching map[any]func()
}

// Set sets the speeds in bits per second, where 0 is no limit, unless they are known
// from a question that was asked later.
func (s *Speeds) Set(asked time.Time, up, down int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if asked.Before(s.asked) {
		return
	}
	s.asked, s.up, s.down = asked, up, down
	s.apply()
}

// Slow bounds both speeds besides, in bits per second, for as long as somebody has a
// reason to: the slowest one counts. With 0 the reason has gone.
func (s *Speeds) Slow(reason any, bits int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.slowed[reason] == bits {
		return
	}
	if s.slowed == nil {
		s.slowed = make(map[any]int64)
	}
	if s.slowed[reason] = bits; bits == 0 {
		delete(s.slowed, reason)
	}
	s.apply()
}

// apply has the limits keep to what was said. Called with mu held.
func (s *Speeds) apply() {
	up, down := s.up, s.down
	for _, bits := range s.slowed {
		up, down = slower(up, bits), slower(down, bits)
	}
	s.Up.set(up)
	s.Down.set(down)
	if now := [2]int64{up, down}; now != s.inForce {
		s.inForce = now
		for _, changed := range s.watching {
			changed()
		}
	}
}

// InForce are the speeds in bits per second that hold now; 0 is no limit.
func (s *Speeds) InForce() (up, down int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.inForce[0], s.inForce[1]
}

// Watch has changed called each time that [Speeds.InForce] is another, with locks held,
// until who watches calls it with nil.
func (s *Speeds) Watch(who any, changed func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if changed == nil {
		delete(s.watching, who)
		return
	}
	if s.watching == nil {
		s.watching = make(map[any]func())
	}
	s.watching[who] = changed
}

// slower returns the lower one of two speeds, of which 0 is none.
func slower(a, b int64) int64 {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// Limit bounds the bytes of one direction. The zero value bounds nothing.
type Limit struct {
	member *member // the device at the uplink; nil: that has no limit

	rate atomic.Int64 // bytes a second; 0: no limit. Written with mu held

	mu      sync.Mutex // guards the following fields
	turn    int        // most bytes at once
	burst   float64    // most tokens
	tokens  float64    // bytes that may move; negative after datagrams that were larger than what was there
	at      time.Time  // when tokens was right
	timer   *time.Timer
	waiting queue[*Share] // bounded by the device's streams
	asked   uint64

	// served is how many bytes a share would have moved that always had something to
	// move. A share goes before those that had more.
	served float64
}

// Limited reports whether there is a limit, of the device's or of the uplink.
func (l *Limit) Limited() bool { return l.own() || l.member != nil }

// own reports whether the device has a limit of its own.
func (l *Limit) own() bool { return l.rate.Load() != 0 }

// turnOf is the most that moves at once at so many bytes a second, and burstOf what is
// kept of what was not used.
func turnOf(rate float64) int { return min(max(int(rate*turnTime.Seconds()), leastTurn), mostTurn) }

func burstOf(rate float64, turn int) float64 { return max(rate*burstTime.Seconds(), float64(turn)) }

// set sets the limit, in bits per second. Those who wait go on at the new speed.
func (l *Limit) set(bits int64) {
	rate := int64(0)
	if bits > 0 {
		rate = max(bits/8, 1)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.rate.Load()
	if rate == before {
		return
	}
	l.fill()
	l.rate.Store(rate)
	l.turn = turnOf(float64(rate))
	l.burst = burstOf(float64(rate), l.turn)
	l.tokens = min(l.tokens, l.burst)
	if before == 0 {
		l.tokens, l.at = l.burst, time.Now()
	}
	l.serve()
}

// fill adds what has become free since the last time. Called with mu held.
func (l *Limit) fill() {
	now := time.Now()
	l.tokens = min(l.burst, l.tokens+now.Sub(l.at).Seconds()*float64(l.rate.Load()))
	l.at = now
}

// serve gives turns to those who wait, as far as there are tokens, and comes back
// for the rest. Called with mu held, after fill.
func (l *Limit) serve() {
	rate := l.rate.Load()
	for len(l.waiting) > 0 {
		s := l.waiting[0]
		n := s.want
		if rate != 0 {
			n = min(n, l.turn) // the speed may be another than when it asked
			if missing := float64(n) - l.tokens; missing > 0 {
				l.comeBack(time.Duration(math.Ceil(missing / float64(rate) * float64(time.Second))))
				return
			}
		}
		l.waiting.pop()
		l.give(s, n)
		s.ready <- n
	}
}

// comeBack has serve called after d. Called with mu held.
func (l *Limit) comeBack(d time.Duration) {
	if l.timer != nil {
		l.timer.Reset(d)
		return
	}
	l.timer = time.AfterFunc(d, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.fill()
		l.serve()
	})
}

// give books n bytes of a share. Called with mu held.
func (l *Limit) give(s *Share, n int) {
	l.tokens -= float64(n)
	s.had = max(l.served, s.had) + float64(n)
	l.served += float64(n) / float64(len(l.waiting)+1)
}

// Share is what one stream or flow has of a limit. Its methods but Close are for one
// goroutine at a time.
type Share struct {
	limit *Limit
	ready chan int // how many bytes its turn brought; 0 after Close

	// Of Reserve and Settle.
	owed     int  // bytes that were read and not paid for
	more     bool // the last read brought as much as it might
	most     int  // what the read under way may bring
	reserved bool // and that is paid for

	// Guarded by the limit's mutex.
	spot   // in Limit.waiting, by Limit.served
	want   int
	closed bool

	seat seat // at the uplink
}

// NewShare returns a share of the limit, which starts level with the others.
func (l *Limit) NewShare() *Share {
	return &Share{limit: l, ready: make(chan int, 1), spot: spot{place: -1}, seat: newSeat()}
}

// Limited reports whether there is a limit. Without one there is no need to ask.
func (s *Share) Limited() bool { return s.limit.Limited() }

// Take waits for a turn and returns how many of n bytes may move in it: 0 when the
// share was closed, otherwise at least 1. n is at least 1.
func (s *Share) Take(n int) int {
	got := s.take(n)
	m := s.limit.member
	if got == 0 || m == nil {
		return got
	}
	passed := m.take(&s.seat, got)
	if passed < got {
		s.returnOwn(got - passed)
	}
	return passed
}

// take is Take at the device's own limit.
func (s *Share) take(n int) int {
	l := s.limit
	l.mu.Lock()
	switch {
	case s.closed:
		l.mu.Unlock()
		return 0
	case !l.own():
		l.mu.Unlock()
		return n
	}
	l.fill()
	n = min(n, l.turn)
	if len(l.waiting) == 0 && l.tokens >= float64(n) {
		l.give(s, n)
		l.mu.Unlock()
		return n
	}
	l.asked++
	s.want, s.asked, s.had = n, l.asked, max(l.served, s.had)
	l.waiting.push(s)
	l.serve()
	l.mu.Unlock()
	return <-s.ready
}

// Reserve waits until the next read may happen and returns how many bytes it may
// bring, which [Share.Settle] is told of; 0 when the share was closed.
func (s *Share) Reserve() (most int) {
	for {
		turn, probe := s.pieces()
		if probe == 0 {
			return 0
		}
		want := s.owed
		if s.more {
			want = max(turn, s.owed+1)
		}
		got := 0
		if want > 0 {
			if got = s.Take(want); got == 0 {
				return 0
			}
		}
		paid := min(got, s.owed)
		s.owed -= paid
		switch s.most = got - paid; {
		case s.owed > 0:
		case s.most > 0:
			s.reserved = true
			return s.most
		case !s.more:
			s.most, s.reserved = probe, false
			return probe
		}
	}
}

// Settle says that the read after [Share.Reserve] has brought n bytes.
func (s *Share) Settle(n int) {
	s.more = n == s.most
	switch {
	case !s.reserved:
		s.owed = n
	case n < s.most:
		s.giveBack(s.most - n)
	}
	s.reserved = false
}

// pieces returns the most bytes of a turn, and what is read without one, which is 0
// once the share was closed.
func (s *Share) pieces() (turn, probe int) {
	l := s.limit
	l.mu.Lock()
	defer l.mu.Unlock()
	if s.closed {
		return 0, 0
	}
	turn = max(l.turn, leastTurn)
	if m := l.member; m != nil && (!l.own() || m.line.turn < turn) {
		turn = m.line.turn
	}
	return turn, min(max(turn/probeShare, leastProbe), turn/4)
}

// giveBack returns n bytes that did not move.
func (s *Share) giveBack(n int) {
	s.returnOwn(n)
	if m := s.limit.member; m != nil {
		m.giveBack(&s.seat, n)
	}
}

// returnOwn is giveBack at the device's own limit.
func (s *Share) returnOwn(n int) {
	l := s.limit
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.own() {
		return
	}
	l.fill()
	l.tokens = min(l.burst, l.tokens+float64(n))
	s.had -= float64(n)
	l.served -= float64(n) / float64(len(l.waiting)+1)
	l.serve()
}

// Pass reports whether a datagram of n bytes may pass now. One may be larger than
// what is there; the next ones then have to make good for it. Beside streams that
// wait, the datagrams of a share have as much as each of them.
func (s *Share) Pass(n int) bool {
	if !s.pass(n) {
		return false
	}
	if m := s.limit.member; m != nil && !m.pass(&s.seat, n) {
		s.returnOwn(n)
		return false
	}
	return true
}

// pass is Pass at the device's own limit.
func (s *Share) pass(n int) bool {
	l := s.limit
	if !l.own() {
		return true
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.own() {
		return true
	}
	l.fill()
	if len(l.waiting) == 0 {
		if l.tokens <= 0 {
			return false
		}
	} else if s.had > l.served+float64(l.turn) || l.tokens <= -l.burst {
		return false
	}
	l.give(s, n)
	if len(l.waiting) > 0 {
		l.serve() // later than it was to
	}
	return true
}

// Close ends the share's wait, and each later one at once.
func (s *Share) Close() {
	l := s.limit
	if l.member != nil {
		defer l.member.leave(&s.seat)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.closed = true
	if !s.waits() {
		return
	}
	l.waiting.remove(&s.spot)
	s.ready <- 0
	l.fill()
	l.serve() // the next one may want less
}
