// Package sessions knows the live sessions of this gateway: it bounds them,
// counts their bytes and passes on the word that one must end.
package sessions

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/gateway/internal/pace"
	"github.com/httvps/httvps/gateway/internal/quota"
	"github.com/httvps/httvps/gateway/internal/upstream"
	"github.com/httvps/httvps/sdk/go/wire"
)

// ErrFull is what [Registry.Add] returns when the gateway has all the sessions
// it may have.
var ErrFull = errors.New("no room for another session")

// ErrStopping is what [Registry.Add] returns after [Registry.EndAll].
var ErrStopping = errors.New("the gateway is stopping")

// ID is a session's id; it is random and says nothing.
type ID [16]byte

// String returns 32 hexadecimal digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Device is a device's id.
type Device [16]byte

// Traffic is payload bytes, counted where they are written to or read from a
// target. It is safe for concurrent use.
type Traffic struct{ up, down atomic.Int64 }

// Up is what was written to targets.
func (t *Traffic) Up() int64 { return t.up.Load() }

// Down is what was read from targets.
func (t *Traffic) Down() int64 { return t.down.Load() }

// Moved is both directions together.
func (t *Traffic) Moved() int64 { return t.Up() + t.Down() }

// Term is how long a session may run.
type Term struct {
	Until time.Time // zero: without an end
	// Renew is asked at Until, and by [Session.Review], how long the session may go on,
	// or why it may not: wire.CodeNoError is no reason.
	Renew func(context.Context) (until time.Time, why wire.Code)
}

// Terms are what a session rests on. The ids are the control plane's.
type Terms struct{ User, Plan, Subscription string }

// renewPause is the least time between two questions about a term: a gateway's
// clock may be ahead of its control plane's.
const renewPause = 10 * time.Second

// Session is one live session.
type Session struct {
	ID     ID
	Device Device
	Speeds *pace.Speeds // of the device: all its sessions have the same
	Quota  *quota.Use   // set before the session is carried
	Egress upstream.Narrowing
	Traffic

	all     *Traffic
	streams atomic.Int64
	ending  chan struct{} // closed when the session must end
	term    Term
	moved   chan struct{} // holds one token when its end is another
	changed chan struct{} // holds one token when what its device was told may be out of date
	held    func() uint64 // guarded by the registry's mutex; see Registry.Leave

	mu    sync.Mutex // guards the following fields
	terms Terms
	until time.Time // zero: without an end
	offer Offer
	shown time.Time // see ShownUntil
	ended bool
	code  wire.Code       // why
	since time.Time       // see EndSince
	onEnd func(wire.Code) // see OnEnd
}

// AddUp counts n bytes that were written to a target.
func (s *Session) AddUp(n int) {
	s.up.Add(int64(n))
	s.all.up.Add(int64(n))
}

// AddDown counts n bytes that were read from a target.
func (s *Session) AddDown(n int) {
	s.down.Add(int64(n))
	s.all.down.Add(int64(n))
}

// AddStreams changes the number of streams in being by n.
func (s *Session) AddStreams(n int) { s.streams.Add(int64(n)) }

// Streams is how many streams are in being.
func (s *Session) Streams() int { return int(s.streams.Load()) }

// Ending is closed when the session must end.
func (s *Session) Ending() <-chan struct{} { return s.ending }

// OnEnd has f called once, with the reason, when the session must end; at once
// when that is so already. f must not block.
func (s *Session) OnEnd(f func(wire.Code)) {
	s.mu.Lock()
	ended, code := s.ended, s.code
	s.onEnd = f
	s.mu.Unlock()
	if ended {
		f(code)
	}
}

// End tells the session to end. Only the first call counts.
func (s *Session) End(code wire.Code) { s.EndSince(code, time.Time{}) }

// EndSince is End for a reason that has been there since a time.
func (s *Session) EndSince(code wire.Code, since time.Time) {
	s.mu.Lock()
	if s.ended {
		s.mu.Unlock()
		return
	}
	s.ended, s.code, s.since = true, code, since
	f := s.onEnd
	close(s.ending)
	s.mu.Unlock()
	if f != nil {
		f(code)
	}
}

// Since is since when there has been a reason to end; zero: unknown, or there is none.
func (s *Session) Since() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.since
}

// Terms returns what the control plane said last.
func (s *Session) Terms() Terms {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.terms
}

// Rest notes what the session rests on.
func (s *Session) Rest(on Terms) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.terms = on
}

// Offer is what the device of a session may have of its gateway.
type Offer struct {
	MaxStreams, MaxUDP uint64
	asked              time.Time
}

// Offer notes what the device may have by the answer to a question that was asked at
// a time, unless a later one is known.
func (s *Session) Offer(asked time.Time, streams, udp uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if asked.Before(s.offer.asked) {
		return
	}
	s.offer = Offer{MaxStreams: streams, MaxUDP: udp, asked: asked}
	s.signal(s.changed)
}

// Offered returns what was offered last, and until when the session runs; the zero Time:
// without an end.
func (s *Session) Offered() (offer Offer, until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.offer, s.until
}

// Changed has a token when what the device was told may be out of date: its offer, its
// speeds, or the session's end.
func (s *Session) Changed() <-chan struct{} { return s.changed }

// Change says so. It may be called with locks held.
func (s *Session) Change() { s.signal(s.changed) }

// Show notes until when the device has shown who it is; the zero Time: for ever.
func (s *Session) Show(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown = until
}

// ShownUntil is until when the device has shown who it is; the zero Time: for ever.
func (s *Session) ShownUntil() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.shown
}

func (s *Session) signal(token chan struct{}) {
	select {
	case token <- struct{}{}:
	default:
	}
}

// run notes until when the session runs.
func (s *Session) run(until time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.until.Equal(until) {
		s.until = until
		s.signal(s.moved)
		s.signal(s.changed)
	}
}

// Review asks about the session while its term runs: the answer may be another now.
// It ends the session when it may not go on, and reports whether there was an answer.
func (s *Session) Review(ctx context.Context) bool {
	switch until, why := s.term.Renew(ctx); why {
	case wire.CodeNoError:
		s.run(until)
	case wire.CodeRetryLater:
		return false
	default:
		s.End(why)
	}
	return true
}

// KeepTerm ends the session when its term is over and not renewed. It returns
// when the session must end, and when ctx ends.
func (s *Session) KeepTerm(ctx context.Context) {
	least := time.Duration(0)
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		_, until := s.Offered()
		if until.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(least, time.Until(until)))
		}
		select {
		case <-timer.C:
		case <-s.moved:
			continue
		case <-s.ending:
			return
		case <-ctx.Done():
			return
		}
		until, why := s.term.Renew(ctx)
		if why != wire.CodeNoError {
			s.End(why)
			return
		}
		s.run(until)
		least = renewPause
	}
}

// Leaving bounds what the sessions of one device hold, all together, that are over
// and have only something left for targets.
type Leaving struct {
	Bytes   uint64
	Streams int
}

// Registry knows every live session of this gateway.
type Registry struct {
	leaving Leaving
	uplink  *pace.Uplink
	total   Traffic

	mu       sync.Mutex // guards the following fields
	limit    int
	sessions map[ID]*Session
	devices  map[Device]map[ID]*Session
	left     map[Device][]*Session // see Leave; the oldest first
	stopping bool
}

// New returns a registry for at most limit sessions, whose devices share the uplink; nil
// is one without a limit.
func New(limit int, leaving Leaving, uplink *pace.Uplink) *Registry {
	return &Registry{
		limit:    limit,
		leaving:  leaving,
		uplink:   uplink,
		sessions: make(map[ID]*Session),
		devices:  make(map[Device]map[ID]*Session),
		left:     make(map[Device][]*Session),
	}
}

// Limit has the registry take at most limit sessions from now on. Those that live
// stay.
func (r *Registry) Limit(limit int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.limit = limit
}

// Add makes a live session. The caller must [Session.KeepTerm] while it runs, and
// then [Registry.Remove] it.
func (r *Registry) Add(id ID, device Device, term Term) (*Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stopping {
		return nil, ErrStopping
	}
	if len(r.sessions) >= r.limit {
		return nil, ErrFull
	}
	if _, taken := r.sessions[id]; taken {
		return nil, fmt.Errorf("session id %s is in use", id)
	}
	var speeds *pace.Speeds
	for _, other := range r.devices[device] {
		speeds = other.Speeds
		break
	}
	if speeds == nil {
		speeds = r.uplink.NewSpeeds()
	}
	s := &Session{
		ID: id, Device: device, Speeds: speeds, all: &r.total, ending: make(chan struct{}), term: term, until: term.Until,
		moved: make(chan struct{}, 1), changed: make(chan struct{}, 1),
	}
	r.sessions[id] = s
	if r.devices[device] == nil {
		r.devices[device] = make(map[ID]*Session)
	}
	r.devices[device][id] = s
	return s, nil
}

// Remove forgets a session that has ended.
func (r *Registry) Remove(s *Session) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.sessions, s.ID)
	delete(r.devices[s.Device], s.ID)
	if len(r.devices[s.Device]) == 0 {
		delete(r.devices, s.Device)
	}
	r.left[s.Device] = slices.DeleteFunc(r.left[s.Device], func(other *Session) bool { return other == s })
	if len(r.left[s.Device]) == 0 {
		delete(r.left, s.Device)
	}
}

// Leave notes that a session is over but for what targets still have to take, of
// which held tells the bytes until Remove. The device may be back already and leave
// another one: of those that it left before, the oldest are told to end when they
// hold too much. This one is not judged yet, as its streams are only ending.
func (r *Registry) Leave(s *Session, held func() uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	before := r.left[s.Device]
	var now Leaving
	for _, other := range before {
		now.Bytes += other.held()
		now.Streams += int(other.streams.Load())
	}
	for _, other := range before {
		if now.Bytes <= r.leaving.Bytes && now.Streams <= r.leaving.Streams {
			break
		}
		now.Bytes -= min(now.Bytes, other.held())
		now.Streams -= int(other.streams.Load())
		other.End(wire.CodeLimit)
	}
	s.held = held
	r.left[s.Device] = append(before, s)
}

// End tells one session to end and reports whether there is such a session.
func (r *Registry) End(id ID, code wire.Code) bool { return r.EndSession(id, code, time.Time{}) }

// EndSession is End for a reason that has been there since a time.
func (r *Registry) EndSession(id ID, code wire.Code, since time.Time) bool {
	s, live := r.Find(id)
	if live {
		s.EndSince(code, since)
	}
	return live
}

// EndDevice tells every session of a device to end, for a reason that has been there
// since a time, and reports how many there are.
func (r *Registry) EndDevice(device Device, code wire.Code, since time.Time) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.devices[device] {
		s.EndSince(code, since)
	}
	return len(r.devices[device])
}

// EndUser is EndDevice for all sessions of a user.
func (r *Registry) EndUser(user string, code wire.Code, since time.Time) int {
	those := r.Those(func(of Terms) bool { return of.User == user })
	for _, s := range those {
		s.EndSince(code, since)
	}
	return len(those)
}

// Devices returns the devices that have live sessions.
func (r *Registry) Devices() [][16]byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := make([][16]byte, 0, len(r.devices))
	for device := range r.devices {
		list = append(list, device)
	}
	return list
}

// Find returns a live session.
func (r *Registry) Find(id ID) (*Session, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s, live := r.sessions[id]
	return s, live
}

// Stop makes every later Add fail.
func (r *Registry) Stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping = true
}

// Stopping reports whether Stop or EndAll was called.
func (r *Registry) Stopping() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.stopping
}

// EndAll stops the registry and tells every session to end.
func (r *Registry) EndAll(code wire.Code) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopping = true
	for _, s := range r.sessions {
		s.End(code)
	}
}

// All returns the live sessions.
func (r *Registry) All() []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Collect(maps.Values(r.sessions))
}

// Those returns the live sessions whose terms are wanted.
func (r *Registry) Those(wanted func(Terms) bool) []*Session {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*Session
	for _, s := range r.sessions {
		if wanted(s.Terms()) {
			list = append(list, s)
		}
	}
	return list
}

// Len is how many sessions are live.
func (r *Registry) Len() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.sessions)
}

// Streams is how many streams the live sessions have.
func (r *Registry) Streams() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	var n int64
	for _, s := range r.sessions {
		n += s.streams.Load()
	}
	return int(n)
}

// Total is the traffic of all sessions, past ones included.
func (r *Registry) Total() *Traffic { return &r.total }
