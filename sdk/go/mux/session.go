package mux

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// Headroom is the space before a message that the carrier uses for its
	// own header: the longest WebSocket header (RFC 6455, 5.2).
	Headroom = 14

	// writeTimeout bounds one batch of messages. A peer that takes no 64 KiB in
	// this time is gone.
	writeTimeout = 20 * time.Second

	// closeTimeout bounds the sending of CLOSE, goodbyeTimeout the wait for
	// the peer to hang up after it.
	closeTimeout   = 5 * time.Second
	goodbyeTimeout = time.Second

	// maxRefusals bounds the opens whose refusal was not sent yet. Only a
	// peer that goes on opening and does not read gets there.
	maxRefusals = 1024
)

// Messages is a carrier: whole messages, in order, both ways. One goroutine
// reads and another writes.
type Messages interface {
	// Next begins the next message and returns its size in bytes, which is at
	// most wire.MaxMessage. The message before it was read to its end. A
	// *wire.Error is answered with its code.
	Next() (size int, err error)

	// ReadFull fills p with the next bytes of the message.
	ReadFull(p []byte) error

	// BeforeWait has f called before Next or ReadFull wait for the network. It
	// is set before the first of them.
	BeforeWait(f func())

	// WriteReserved sends buf[Headroom:], at the latest with Flush. The carrier
	// may use the space before it, leaves the rest as it is and keeps nothing.
	WriteReserved(buf []byte) error

	// Flush sends what WriteReserved held back.
	Flush() error

	// SetWriteDeadline bounds writes, one that is under way included.
	SetWriteDeadline(t time.Time) error

	// Close ends the carrier; what is under way returns.
	Close() error

	// Abort ends the carrier at once, without a goodbye; what is under way
	// returns.
	Abort() error
}

// Role is which end of the session this is.
type Role int

// The two ends.
const (
	Client  Role = iota // opens streams
	Gateway             // accepts them
)

// Config is what a session needs besides its carrier.
type Config struct {
	Role   Role
	Limits wire.Limits // as READY told them
	Budget uint64      // what the session may hold, in bytes; 0: DefaultBudget
	Memory *Memory     // what all sessions together may hold; nil: no bound
	First  []byte      // frames that came behind the handshake in its message
	Resume Resume      // as agreed in the handshake; needs a Budget of MinResumeBudget
	Drain  Drain       // likewise
	Terms  *Terms      // nil: not agreed on in the handshake

	// Padding is what READY says of it; nil: not agreed on in the handshake.
	Padding *wire.PaddingPolicy
}

// Session is one device's tunnel, on one carrier at a time.
type Session struct {
	role   Role
	told   wire.Limits // by READY
	limits wire.Limits // what of that is used; the numbers of streams may be others by now, see allowed
	resume Resume
	drain  Drain
	terms  *Terms // nil: not agreed on
	floor  uint64 // what every stream may send or be sent from its open on
	began  time.Time

	arrival  chan struct{}   // gateway: holds one when something is to be accepted
	slots    places          // client: one for each stream that counts
	udpSlots places          // client: likewise, flows alone
	shut     chan struct{}   // client: closed when the gateway takes no further OPEN
	done     chan struct{}   // closed when the session ends
	taken    chan attachment // holds a carrier that Run has not begun to read yet

	in       reading
	alive    liveness
	acks     acks
	pads     pads
	pending  atomic.Int64  // bytes of streams that wait to be sent
	sent     atomic.Uint64 // payload bytes sent
	pieces   atomic.Int64  // bytes that one stream may have pending
	datagram atomic.Int64  // bytes of datagrams that wait, in both directions

	mu       sync.Mutex  // guards everything below
	work     sync.Cond   // the writer waits for any of it
	left     sync.Cond   // whoever takes a carrier away waits for who writes to it
	at       attachment  // its conn is nil while there is no carrier
	patience *time.Timer // ends the session that gets no other one; nil: it always had one
	history  history
	writing  bool  // somebody is sending
	over     bool  // the last of all batches was sent
	err      error // why the session ended
	goodbye  *wire.Close
	streams  map[uint64]*Stream
	flows    map[uint64]*Flow
	accepted fifo[Incoming] // gateway: what the client opened
	highest  uint64         // id of the last OPEN
	last     uint64         // no OPEN above it is looked at
	farewell []byte         // gateway: GOAWAY, to be sent
	live     uint64         // gateway: streams and flows that count towards max_streams
	liveUDP  uint64         // gateway: flows alone
	allowed  allowance
	opens    bucket
	refusals []refusal
	unsent   unsent
	pong     *[8]byte // to be answered
	ping     *ping    // to be sent, or waiting for its answer
	pings    uint64
	rtt      roundTrips
	budget   budget
	schedule schedule
}

type refusal struct {
	id   uint64
	code wire.Code
}

// New makes a session on conn, behind a finished handshake. It does nothing
// before Run.
func New(conn Messages, cfg Config) *Session {
	if cfg.Budget == 0 {
		cfg.Budget = DefaultBudget
	}
	s := &Session{
		role: cfg.Role, told: cfg.Limits, limits: cfg.Limits, resume: cfg.Resume, drain: cfg.Drain, terms: cfg.Terms, last: wire.AllOpens,
		at:      attachment{conn: conn, first: cfg.First, parked: make(chan struct{})},
		taken:   make(chan attachment, 1),
		history: history{next: 1},
		began:   time.Now(),
		shut:    make(chan struct{}),
		done:    make(chan struct{}),
		streams: make(map[uint64]*Stream),
		flows:   make(map[uint64]*Flow),
		budget:  budget{total: cfg.Budget, memory: cfg.Memory},
		pads:    newPads(cfg.Padding),
	}
	if cfg.Budget < MinResumeBudget {
		s.resume = Resume{}
	}
	if s.resumable() {
		s.budget.resumable = true
		s.acks.timer = time.AfterFunc(time.Hour, s.ackTimer)
		s.acks.timer.Stop()
	}
	// The other end chose the limits: a wild one must not become ours.
	l := &s.limits
	clampLimits(l)
	s.allowed = allowance{streams: l.MaxStreams, udp: l.MaxUDP}
	s.opens = bucket{burst: l.OpenBurst, rate: l.OpenRate}
	s.in.flood = newFlood(*l, cfg.Padding)
	if s.role == Gateway {
		// docs/03, part 6: the gateway leaves the rate a margin of two.
		s.opens = bucket{burst: 2 * l.OpenBurst, rate: 2 * l.OpenRate}
		s.floor = min(l.EarlyWindow, cfg.Budget)
		s.arrival = make(chan struct{}, 1)
	} else {
		s.floor = max(EarlyWindow(windowFloor, cfg.Budget, l.MaxStreams), 1)
		s.slots.limit, s.udpSlots.limit = l.MaxStreams, l.MaxUDP
	}
	s.share()
	s.schedule.init()
	s.work.L = &s.mu
	s.left.L = &s.mu
	s.alive.start(s)
	s.taken <- s.at
	return s
}

// Run serves the session until it ends and returns why: context.Cause(ctx)
// when ctx did it (the peer is told CLOSE(no_error)), a *CloseError when one
// end closed it, [ErrSilent] when the peer no longer answers, else the carrier's
// error. A session that can be resumed goes on without a carrier for a while,
// and with the next one. When Run returns, the carrier is closed, every stream has
// failed, except that what came whole before can still be read, and both goroutines
// have returned.
func (s *Session) Run(ctx context.Context) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		s.end(context.Cause(ctx), &wire.Close{Code: wire.CodeNoError})
	})
	s.alive.arm()
	var wg sync.WaitGroup
	wg.Go(s.writeMessages)
	for at := <-s.taken; ; {
		s.readMessages(at)
		s.leave(at)
		var goesOn bool
		if at, goesOn = s.nextCarrier(); !goesOn {
			break
		}
	}
	wg.Wait()
	if !stop() {
		<-ended
	}
	s.alive.stop()
	s.giveUp()
	return s.Err()
}

// nextCarrier waits for another carrier, or for the session's end.
func (s *Session) nextCarrier() (at attachment, goesOn bool) {
	if s.Err() != nil {
		return attachment{}, false
	}
	select {
	case at = <-s.taken:
		return at, true
	case <-s.done:
		return attachment{}, false
	}
}

// leave closes a carrier that nobody reads any more, and waits for who writes.
func (s *Session) leave(at attachment) {
	_ = at.conn.Close() // unblocks the writer
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.writing && s.err == nil {
		s.left.Wait()
	}
	close(at.parked)
}

// giveUp closes a carrier that came too late, and stops what would still happen.
func (s *Session) giveUp() {
	if s.acks.timer != nil {
		s.acks.timer.Stop()
	}
	select {
	case at := <-s.taken:
		_ = at.conn.Close()
		close(at.parked)
	default:
	}
}

// Done is closed when the session ends.
func (s *Session) Done() <-chan struct{} { return s.done }

// Err is why the session ended; nil while it lives.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Close ends the session and tells the peer why. The reason, at most 128
// bytes, is for people who debug. Run returns soon after.
func (s *Session) Close(code wire.Code, reason string) {
	s.closeWith(code, reason)
}

// closeWith ends the session because of code.
func (s *Session) closeWith(code wire.Code, reason string) {
	reason = reason[:min(len(reason), wire.MaxReason)]
	s.end(&CloseError{Code: code, Reason: reason}, &wire.Close{Code: code, Reason: reason})
}

// end ends the session once, for the first cause that is given. With a
// goodbye, the writer still sends it; without, the carrier is closed.
func (s *Session) end(cause error, goodbye *wire.Close) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = cause
	s.goodbye = goodbye
	conn := s.at.conn
	if s.patience != nil {
		s.patience.Stop()
	}
	s.forgetHistory()
	streams, flows := s.streams, s.flows
	s.streams, s.flows = nil, nil
	close(s.done)
	s.work.Broadcast()
	s.left.Broadcast()
	s.mu.Unlock()

	// A write that is stuck gives up earlier now, or at once.
	by := time.Unix(1, 0)
	if goodbye != nil {
		by = time.Now().Add(closeTimeout)
	}
	if conn != nil {
		_ = conn.SetWriteDeadline(by)
	}
	failure := &endedError{cause: cause}
	for _, st := range streams {
		st.mu.Lock()
		st.sessionOver(failure)
		st.mu.Unlock()
	}
	for _, f := range flows {
		f.mu.Lock()
		f.fail(failure)
		f.mu.Unlock()
	}
}

// Incoming is what the client opened: a stream or a flow, the other is nil.
type Incoming struct {
	Stream *Stream
	Flow   *Flow
}

// Accept returns the next stream or flow that the client opened. The caller
// confirms or resets it. The error wraps [ErrEnded], or is ctx's cause.
func (s *Session) Accept(ctx context.Context) (Incoming, error) {
	for {
		select {
		case <-s.arrival:
		case <-s.done:
			return Incoming{}, &endedError{cause: s.Err()}
		case <-ctx.Done():
			return Incoming{}, context.Cause(ctx)
		}
		if in, ok := s.nextIncoming(); ok {
			return in, nil
		}
	}
}

// arrived queues what the client opened. There is no more of it than streams
// count.
func (s *Session) arrived(in Incoming) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.accepted.push(in)
	s.announce()
}

func (s *Session) nextIncoming() (Incoming, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.accepted.empty() {
		return Incoming{}, false
	}
	in := s.accepted.pop()
	if !s.accepted.empty() {
		s.announce()
	}
	return in, true
}

// announce wakes one caller of Accept.
func (s *Session) announce() {
	select {
	case s.arrival <- struct{}{}:
	default:
	}
}

// Open opens a TCP stream to target and waits for the target's answer. It also
// waits while as many streams are open as the gateway allows, and while opens
// come faster than it allows. The error is a *StreamError when the gateway
// refused, [ErrUnprocessed] where that goes away, one that wraps [ErrEnded], or ctx's
// cause.
func (s *Session) Open(ctx context.Context, target wire.Addr) (*Stream, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	st, err := s.openStream(target)
	if err != nil {
		s.slots.leave()
		return nil, err
	}
	if err := st.waitOpened(ctx); err != nil {
		return nil, err
	}
	return st, nil
}

// OpenFlow opens a UDP flow to target, or, for wire.KindUDPAny, to whatever its
// datagrams name. It waits like Open for a place and for the rate, but not for
// the gateway's answer: datagrams may be sent at once. Where the gateway serves
// no UDP, the error is a *StreamError (unsupported).
func (s *Session) OpenFlow(ctx context.Context, kind wire.Kind, target wire.Addr) (*Flow, error) {
	s.mu.Lock()
	served := s.allowed.udp > 0
	s.mu.Unlock()
	if !served {
		return nil, &StreamError{Code: wire.CodeUnsupported}
	}
	if err := s.place(ctx, &s.udpSlots); err != nil {
		return nil, err
	}
	if err := s.enter(ctx); err != nil {
		s.udpSlots.leave()
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayOpen(); err != nil {
		s.slots.leave()
		s.udpSlots.leave()
		return nil, err
	}
	f := newFlow(s, s.nextID(), kind, target)
	f.counted = true
	s.flows[f.id] = f
	s.schedule.opens.push(opening{flow: f})
	s.wake()
	return f, nil
}

// place waits for a place.
func (s *Session) place(ctx context.Context, among *places) error {
	err := among.take(ctx, s.done, s.shut)
	if errors.Is(err, ErrEnded) {
		return &endedError{cause: s.Err()}
	}
	return err
}

// enter waits for a place and for the rate of opens.
func (s *Session) enter(ctx context.Context) error {
	if s.role != Client {
		return errors.New("only the client opens streams")
	}
	if err := s.place(ctx, &s.slots); err != nil {
		return err
	}
	s.mu.Lock()
	wait, _ := s.opens.take(time.Now(), 1<<62)
	s.mu.Unlock()
	if wait == 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-s.shut:
		s.slots.leave()
		return ErrUnprocessed
	case <-s.done:
		s.slots.leave()
		return &endedError{cause: s.Err()}
	case <-ctx.Done():
		s.mu.Lock()
		s.opens.giveBack()
		s.mu.Unlock()
		s.slots.leave()
		return context.Cause(ctx)
	}
}

// openStream queues OPEN.
func (s *Session) openStream(target wire.Addr) (*Stream, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.mayOpen(); err != nil {
		return nil, err
	}
	if !s.budget.admit(s.floor) {
		return nil, &StreamError{Code: wire.CodeLimit}
	}
	st := newStream(s, s.nextID(), target)
	st.grantLocked(s.floor)
	st.sendLimit = s.limits.EarlyWindow
	st.counted = true
	s.streams[st.id] = st
	s.share()
	s.schedule.opens.push(opening{stream: st})
	s.wake()
	return st, nil
}

// mayOpen says why a client may open nothing more. Called with mu held.
func (s *Session) mayOpen() error {
	switch {
	case s.err != nil:
		return &endedError{cause: s.err}
	case s.shutLocked():
		return ErrUnprocessed
	}
	return nil
}

// nextID is the id of the next OPEN. OPENs are sent in the order in which their
// ids were drawn. Called with mu held.
func (s *Session) nextID() uint64 {
	if s.highest == 0 {
		s.highest = 1
	} else {
		s.highest += 2
	}
	return s.highest
}

// share says what each stream may have pending. Called with mu held.
func (s *Session) share() {
	n := int(s.live)
	if s.role == Client {
		n = s.slots.len()
	}
	s.pieces.Store(int64(s.budget.pending(n, s.history.held+s.history.claim)))
}

// Streams is how many streams and flows count towards max_streams.
func (s *Session) Streams() int {
	if s.role == Client {
		return s.slots.len()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return int(s.live)
}

// forget takes a stream that was reset out of the session. When the peer has
// to be told, the stream counts until that is written: an OPEN that takes its
// place must come behind it. Called with st.mu held.
func (s *Session) forget(st *Stream, tell bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st.id)
	st.control = 0
	if tell {
		s.queueControlLocked(st, sendReset)
	} else {
		s.uncount(&st.counted, false)
	}
}

// finish takes a stream out whose both directions have ended.
func (s *Session) finish(st *Stream) {
	st.stopLinger()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st.id)
	s.uncount(&st.counted, false)
}

// uncount frees a place among max_streams, and max_udp.
func (s *Session) uncount(counted *bool, udp bool) {
	if !*counted {
		return
	}
	*counted = false
	if s.role == Client {
		s.slots.leave()
		if udp {
			s.udpSlots.leave()
		}
		s.share()
		return
	}
	s.live--
	if udp {
		s.liveUDP--
	}
	s.share()
}

// Stats is what a session has done so far.
type Stats struct {
	Sent, Received uint64        // bytes, of streams and datagrams for the most part
	Streams        int           // that count towards max_streams, flows included
	RoundTrip      time.Duration // the last that was measured; 0: none was
}

// Stats returns what the session has done so far.
func (s *Session) Stats() Stats {
	stats := Stats{Sent: s.sent.Load(), Received: s.in.bytes.Load(), Streams: s.Streams()}
	s.mu.Lock()
	defer s.mu.Unlock()
	stats.RoundTrip = s.rtt.last
	return stats
}

// Held is what is set aside for the other end, in bytes: its credit, and after the
// session's end what came whole and was not read yet.
func (s *Session) Held() uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.budget.reserved
}

// startWindow is what a new stream begins with, when n are open. Called with mu
// held.
func (s *Session) startWindow(n int) uint64 {
	switch {
	case n <= startStreams:
		return windowStart
	case s.budget.grown < s.budget.growth()/4*3:
		return windowLater
	}
	return s.floor
}
