package mux

import (
	"errors"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// lowerAfter is how long a gateway goes on to take what it allowed before: opens may
	// be on their way.
	lowerAfter = 5 * time.Second

	// maxNotices bounds the notices that wait to be sent; the oldest is dropped.
	maxNotices = 8
)

// Terms is what becomes of frames that change what a session rests on, docs/03, part 8.5.
// Its functions are called by the session's reader and must not block; what has none is
// read and dropped.
type Terms struct {
	OnReauth func(wire.Reauth)       // to the gateway, which answers by [Session.AnswerReauth]
	OnAuth   func(wire.Auth)         // to the client, like the following
	OnLimits func(wire.SessionTerms) // in force already
	OnNotice func(wire.Notice)
}

// errNoTerms says that the other end does not know these frames.
var errNoTerms = errors.New("not agreed on with the other end")

// ErrReauthUnderway is what [Session.Reauth] returns while the one before is not answered.
var ErrReauthUnderway = errors.New("another REAUTH waits for its answer")

// unsent is what waits to be sent of these frames: the latest of each, and a few notices.
type unsent struct {
	asked   bool // a REAUTH waits for its answer
	reauth  *wire.Reauth
	auth    *wire.Auth
	limits  *wire.SessionTerms
	notices fifo[wire.Notice]
}

func (u *unsent) empty() bool {
	return u.reauth == nil && u.auth == nil && u.limits == nil && u.notices.empty()
}

// next takes a frame.
func (u *unsent) next() (frame []byte) {
	switch {
	case u.auth != nil:
		frame = wire.AppendAuth(nil, *u.auth)
		u.auth = nil
	case u.limits != nil:
		frame = wire.AppendLimits(nil, *u.limits)
		u.limits = nil
	case u.reauth != nil:
		frame = wire.AppendReauth(nil, *u.reauth)
		u.reauth = nil
	default:
		frame = wire.AppendNotice(nil, u.notices.pop())
	}
	return frame
}

// say has queue put something to be sent into the queue.
func (s *Session) say(queue func()) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil:
		return &endedError{cause: s.err}
	case s.terms == nil:
		return errNoTerms
	}
	queue()
	s.wake()
	return nil
}

// Reauth shows the gateway another access token. One waits for its answer at a time;
// another gets [ErrReauthUnderway]. Other errors wrap [ErrEnded], or say that the gateway
// does not know REAUTH.
func (s *Session) Reauth(r wire.Reauth) error {
	underway := false
	err := s.say(func() {
		if underway = s.unsent.asked; !underway {
			s.unsent.reauth, s.unsent.asked = &r, true
		}
	})
	if err == nil && underway {
		err = ErrReauthUnderway
	}
	return err
}

// AnswerReauth answers the REAUTH that the client waits for. Errors are those of [Session.Notify].
func (s *Session) AnswerReauth(a wire.Auth) error {
	return s.say(func() { s.unsent.auth, s.unsent.asked = &a, false })
}

// Notify tells the client what is about to happen to the session. The error wraps
// [ErrEnded], or says that the client does not know NOTICE.
func (s *Session) Notify(n wire.Notice) error {
	return s.say(func() {
		if s.unsent.notices.len() == maxNotices {
			s.unsent.notices.pop()
		}
		s.unsent.notices.push(n)
	})
}

// SetTerms changes how many streams and flows the client may have open, and how fast it
// may open them, and tells it, together with the rest of the terms; early_window and
// silence stay what they are. More streams than the budget has floors for are not
// allowed. What is open stays open. Errors are those of [Session.Notify]; nothing has
// changed then.
func (s *Session) SetTerms(t wire.SessionTerms) error {
	return s.say(func() {
		l := &t.Limits
		l.EarlyWindow, l.Silence = s.told.EarlyWindow, s.told.Silence
		s.bound(l)
		s.allowed.set(time.Now(), l.MaxStreams, l.MaxUDP)
		s.opens.burst, s.opens.rate = 2*l.OpenBurst, 2*l.OpenRate
		s.unsent.limits = &t
	})
}

// bound keeps limits within what this end can hold. Called with mu held.
func (s *Session) bound(l *wire.Limits) {
	clampLimits(l)
	if s.floor > 0 {
		l.MaxStreams = min(l.MaxStreams, max(s.limits.MaxStreams, s.budget.floors()/s.floor))
	}
	l.MaxUDP = min(l.MaxUDP, l.MaxStreams)
}

// clampLimits keeps limits that the other end chose within reason.
func clampLimits(l *wire.Limits) {
	l.MaxStreams = min(max(l.MaxStreams, 1), 1<<16)
	l.MaxUDP = min(l.MaxUDP, l.MaxStreams)
	l.OpenBurst = min(max(l.OpenBurst, 1), 1<<16)
	l.OpenRate = min(max(l.OpenRate, 1), 1<<16)
}

// readTerms acts on a frame that changes what the session rests on.
func (s *Session) readTerms(f wire.Frame) error {
	switch {
	case s.terms == nil && f.Type.Critical():
		return &wire.Error{Code: wire.CodeUnsupported, What: f.Type.String() + " without its capability"}
	case s.terms == nil:
		return nil // a type that is not known
	case (f.Type == wire.TypeReauth) != (s.role == Gateway):
		return protocolError(f.Type.String() + " from the wrong end")
	}
	switch f.Type {
	case wire.TypeReauth:
		return s.readReauth(f.Payload)
	case wire.TypeAuth:
		return s.readAuth(f.Payload)
	case wire.TypeLimits:
		return s.readLimits(f.Payload)
	default:
		n, err := wire.ParseNotice(f.Payload)
		if err == nil && s.terms.OnNotice != nil {
			s.terms.OnNotice(n)
		}
		return err
	}
}

func (s *Session) readReauth(payload []byte) error {
	r, err := wire.ParseReauth(payload)
	if err != nil {
		return err
	}
	s.mu.Lock()
	underway := s.unsent.asked
	s.unsent.asked = true
	s.mu.Unlock()
	if underway {
		return protocolError("REAUTH before the answer to the one before")
	}
	if s.terms.OnReauth != nil {
		s.terms.OnReauth(r)
	}
	return nil
}

func (s *Session) readAuth(payload []byte) error {
	a, err := wire.ParseAuth(payload)
	if err != nil {
		return err
	}
	s.mu.Lock()
	asked := s.unsent.asked && s.unsent.reauth == nil
	if asked {
		s.unsent.asked = false
	}
	s.mu.Unlock()
	if !asked {
		return protocolError("AUTH without a REAUTH")
	}
	if s.terms.OnAuth != nil {
		s.terms.OnAuth(a)
	}
	return nil
}

func (s *Session) readLimits(payload []byte) error {
	t, err := wire.ParseLimits(payload)
	if err != nil {
		return err
	}
	if t.Limits.EarlyWindow != s.told.EarlyWindow || t.Limits.Silence != s.told.Silence {
		return protocolError("LIMITS: early_window and silence are READY's")
	}
	l := t.Limits
	s.mu.Lock()
	s.bound(&l)
	s.allowed = allowance{streams: l.MaxStreams, udp: l.MaxUDP}
	s.opens.burst, s.opens.rate = l.OpenBurst, l.OpenRate
	s.slots.resize(l.MaxStreams)
	s.udpSlots.resize(l.MaxUDP)
	s.mu.Unlock()
	s.in.flood.allow(l)
	if s.terms.OnLimits != nil {
		s.terms.OnLimits(t)
	}
	return nil
}

// allowance is how many streams and flows may be open at once. It is guarded by
// Session.mu.
type allowance struct {
	streams, udp uint64

	// What is allowed from a time on; the zero Time: nothing else.
	later struct {
		at           time.Time
		streams, udp uint64
	}
}

// set allows more at once, and less when what is on its way has come.
func (a *allowance) set(now time.Time, streams, udp uint64) {
	a.later.at, a.later.streams, a.later.udp = now.Add(lowerAfter), streams, udp
	a.streams, a.udp = max(a.streams, streams), max(a.udp, udp)
}

// inForce is what is allowed now.
func (a *allowance) inForce(now time.Time) (streams, udp uint64) {
	if !a.later.at.IsZero() && !now.Before(a.later.at) {
		*a = allowance{streams: a.later.streams, udp: a.later.udp}
	}
	return a.streams, a.udp
}
