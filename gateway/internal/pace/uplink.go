package pace

import (
	"math"
	"sync"
	"time"
)

// Uplink is what all devices of a gateway have together. Devices get equal shares of
// it, whatever the number of their streams, and a device's streams equal shares of
// that. The zero value bounds nothing.
type Uplink struct{ up, down *line }

// NewUplink returns an uplink of so many bits per second in each direction, where 0 is
// no limit.
func NewUplink(up, down int64) *Uplink { return &Uplink{newLine(up), newLine(down)} }

// NewSpeeds returns the speeds of a device at the uplink, which may be nil. It has none
// of its own yet.
func (u *Uplink) NewSpeeds() *Speeds {
	s := new(Speeds)
	if u == nil {
		return s
	}
	s.Up.member, s.Down.member = u.up.join(), u.down.join()
	return s
}

// line is an uplink's bucket of one direction. It serves in the order of what devices had
// by then (start-time fair queueing): who comes begins with what those have who are
// served.
type line struct {
	rate  float64 // bytes a second
	turn  int     // most bytes at once
	burst float64 // most tokens

	mu      sync.Mutex // guards the following fields, and members and seats
	tokens  float64
	at      time.Time // when tokens was right
	timer   *time.Timer
	waiting queue[*member] // bounded by the gateway's devices
	asked   uint64
	clock   float64 // bytes: what the device had that was served last, before that
}

func newLine(bits int64) *line {
	if bits <= 0 {
		return nil
	}
	rate := max(float64(bits)/8, 1)
	l := &line{rate: rate, turn: turnOf(rate), at: time.Now()}
	l.burst = burstOf(rate, l.turn)
	l.tokens = l.burst
	return l
}

// join returns a device's place at the line; nil where there is no line.
func (l *line) join() *member {
	if l == nil {
		return nil
	}
	return &member{line: l, spot: spot{place: -1}}
}

// member is a device at a line. It serves its shares as the line serves devices.
type member struct {
	line *line

	// Guarded by the line's mutex.
	spot    // in line.waiting
	waiting queue[*seat]
	clock   float64 // as line.clock, of shares
}

// seat is a share at a line.
type seat struct {
	ready chan int

	// Guarded by the line's mutex.
	spot   // in member.waiting
	want   int
	closed bool
}

func newSeat() seat { return seat{ready: make(chan int, 1), spot: spot{place: -1}} }

// fill adds what has become free. Called with mu held.
func (l *line) fill() {
	now := time.Now()
	l.tokens = min(l.burst, l.tokens+now.Sub(l.at).Seconds()*l.rate)
	l.at = now
}

// serve gives turns as far as there are tokens, and comes back for the rest. Called
// with mu held, after fill.
func (l *line) serve() {
	for len(l.waiting) > 0 {
		m := l.waiting[0]
		s := m.waiting[0]
		if missing := float64(s.want) - l.tokens; missing > 0 {
			l.comeBack(time.Duration(math.Ceil(missing / l.rate * float64(time.Second))))
			return
		}
		l.waiting.pop()
		m.waiting.pop()
		l.give(m, s, s.want)
		if len(m.waiting) > 0 {
			l.enqueue(m)
		}
		s.ready <- s.want
	}
}

// comeBack has serve called after d. Called with mu held.
func (l *line) comeBack(d time.Duration) {
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

// enqueue has a device wait of which a share does. Called with mu held.
func (l *line) enqueue(m *member) {
	l.asked++
	m.asked, m.had = l.asked, max(l.clock, m.had)
	l.waiting.push(m)
}

// give books n bytes of a share that does not wait. Called with mu held.
func (l *line) give(m *member, s *seat, n int) {
	l.tokens -= float64(n)
	begin, own := max(l.clock, m.had), max(m.clock, s.had)
	if len(l.waiting) == 0 || begin <= l.waiting[0].had {
		l.clock = max(l.clock, begin)
	}
	if len(m.waiting) == 0 || own <= m.waiting[0].had {
		m.clock = max(m.clock, own)
	}
	m.had, s.had = begin+float64(n), own+float64(n)
	l.fix(m)
}

// fix puts a device that waits where it belongs. Called with mu held.
func (l *line) fix(m *member) {
	if m.waits() {
		l.waiting.reorder(&m.spot)
	}
}

// take waits for a turn and returns how many of n bytes may move in it; 0 when the
// seat was closed.
func (m *member) take(s *seat, n int) int {
	l := m.line
	l.mu.Lock()
	if s.closed {
		l.mu.Unlock()
		return 0
	}
	l.fill()
	n = min(n, l.turn)
	if len(l.waiting) == 0 && l.tokens >= float64(n) {
		l.give(m, s, n)
		l.mu.Unlock()
		return n
	}
	l.asked++
	s.want, s.asked, s.had = n, l.asked, max(m.clock, s.had)
	m.waiting.push(s)
	if !m.waits() {
		l.enqueue(m)
	}
	l.serve()
	l.mu.Unlock()
	return <-s.ready
}

// giveBack returns n bytes that did not move.
func (m *member) giveBack(s *seat, n int) {
	l := m.line
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fill()
	l.tokens = min(l.burst, l.tokens+float64(n))
	m.had -= float64(n)
	l.fix(m)
	s.had -= float64(n)
	l.serve()
}

// pass reports whether a datagram of n bytes may pass now, as [Share.Pass] does.
func (m *member) pass(s *seat, n int) bool {
	l := m.line
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fill()
	turn := float64(l.turn)
	switch {
	case len(l.waiting) == 0:
		if l.tokens <= 0 {
			return false
		}
	case l.tokens <= -l.burst, m.had > l.waiting[0].had+turn, len(m.waiting) > 0 && s.had > m.waiting[0].had+turn:
		return false
	}
	l.give(m, s, n)
	if len(l.waiting) > 0 {
		l.serve() // later than it was to
	}
	return true
}

// leave ends the seat's wait, and each later one at once.
func (m *member) leave(s *seat) {
	l := m.line
	l.mu.Lock()
	defer l.mu.Unlock()
	s.closed = true
	if !s.waits() {
		return
	}
	m.waiting.remove(&s.spot)
	if len(m.waiting) == 0 {
		l.waiting.remove(&m.spot)
	}
	s.ready <- 0
	l.fill()
	l.serve() // the next one may want less
}
