package mux

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// Headroom is the space before a message that the carrier uses for its
	// own header: the longest WebSocket header (RFC 6455, 5.2).
	Headroom = 14

	// DefaultBudget is what one session may hold of received bytes.
	DefaultBudget = 32 << 20

	// writeTimeout bounds one message. A peer that takes no 64 KiB in this
	// time is gone.
	writeTimeout = 20 * time.Second

	// closeTimeout bounds the sending of CLOSE, goodbyeTimeout the wait for
	// the peer to hang up after it.
	closeTimeout   = 5 * time.Second
	goodbyeTimeout = time.Second

	// maxRefusals bounds the opens whose refusal was not sent yet. Only a
	// peer that goes on opening and does not read gets there.
	maxRefusals = 1024
)

// Windows. Until a stream's needs are measured it gets an eighth of what is
// left of half of the budget, within these bounds. The floor for every one of
// 256 streams fits the other half.
const (
	windowFloor = 64 << 10
	windowStart = 2 << 20
)

// Messages is a carrier: whole messages, in order, both ways. One goroutine
// reads and another writes.
type Messages interface {
	// ReadMessage reads the next message into the space of buf, or into new
	// space when it is too small. A *wire.Error is answered with its code.
	ReadMessage(buf []byte) ([]byte, error)

	// WriteReserved sends buf[Headroom:]. The carrier may use the space
	// before it and scramble all of buf.
	WriteReserved(buf []byte) error

	// SetWriteDeadline bounds writes, one that is under way included.
	SetWriteDeadline(t time.Time) error

	// Close ends the carrier; what is under way returns.
	Close() error
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
	Budget uint64      // bytes received and not yet read, all streams together; 0: DefaultBudget
	First  []byte      // frames that came behind the handshake in its message
}

// Session is one device's tunnel on one carrier.
type Session struct {
	conn   Messages
	role   Role
	limits wire.Limits
	first  []byte

	accepted chan *Stream  // gateway: streams to be accepted; never full
	slots    chan struct{} // client: one for each stream that counts
	pinging  chan struct{} // held by the Ping under way
	done     chan struct{} // closed when the session ends

	mu       sync.Mutex // guards everything below
	work     sync.Cond  // the writer waits for any of it
	err      error      // why the session ended
	goodbye  *wire.Close
	streams  map[uint64]*Stream
	highest  uint64 // id of the last OPEN
	live     uint64 // streams that count towards max_streams
	opens    bucket
	lists    [numLists]list
	refusals []refusal
	pong     *[8]byte // to be answered
	ping     *ping    // to be sent, or waiting for its answer
	pings    uint64
	budget   uint64
	reserved uint64
}

type refusal struct {
	id   uint64
	code wire.Code
}

// New makes a session on conn, behind a finished handshake. It does nothing
// before Run.
func New(conn Messages, cfg Config) *Session {
	s := &Session{
		conn: conn, role: cfg.Role, limits: cfg.Limits, first: cfg.First,
		pinging: make(chan struct{}, 1),
		done:    make(chan struct{}),
		streams: make(map[uint64]*Stream),
		budget:  cfg.Budget,
	}
	if s.budget == 0 {
		s.budget = DefaultBudget
	}
	// The other end chose the limits: a wild one must not become ours.
	s.limits.MaxStreams = min(max(s.limits.MaxStreams, 1), 1<<16)
	s.limits.OpenBurst = min(max(s.limits.OpenBurst, 1), 1<<16)
	s.limits.OpenRate = min(max(s.limits.OpenRate, 1), 1<<16)
	s.limits.EarlyWindow = min(s.limits.EarlyWindow, s.budget)
	s.opens = bucket{burst: s.limits.OpenBurst, rate: s.limits.OpenRate}
	if s.role == Gateway {
		// docs/03, part 6: the gateway leaves the rate a margin of two.
		s.opens = bucket{burst: 2 * s.limits.OpenBurst, rate: 2 * s.limits.OpenRate}
	}
	s.accepted = make(chan *Stream, s.limits.MaxStreams)
	s.slots = make(chan struct{}, s.limits.MaxStreams)
	s.work.L = &s.mu
	for id := range s.lists {
		s.lists[id].id = listID(id)
	}
	return s
}

// Run serves the session until it ends and returns why: context.Cause(ctx)
// when ctx did it (the peer is told CLOSE(no_error)), a *CloseError when one
// end closed it, else the carrier's error. When Run returns, the carrier is
// closed, every stream has failed and both goroutines have returned.
func (s *Session) Run(ctx context.Context) error {
	ended := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(ended)
		s.end(context.Cause(ctx), &wire.Close{Code: wire.CodeNoError})
	})
	var wg sync.WaitGroup
	wg.Go(s.writeMessages)
	s.readMessages()
	_ = s.conn.Close() // unblocks the writer
	wg.Wait()
	if !stop() {
		<-ended
	}
	return s.Err()
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
	if len(reason) > wire.MaxReason {
		reason = reason[:wire.MaxReason]
	}
	s.end(&CloseError{Code: code, Reason: reason}, &wire.Close{Code: code, Reason: reason})
}

// end ends the session once, for the first cause that is given. With a
// goodbye, the writer still sends it.
func (s *Session) end(cause error, goodbye *wire.Close) {
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return
	}
	s.err = cause
	s.goodbye = goodbye
	streams := s.streams
	s.streams = nil
	close(s.done)
	s.work.Broadcast()
	s.mu.Unlock()

	if goodbye != nil {
		_ = s.conn.SetWriteDeadline(time.Now().Add(closeTimeout)) // a write that is stuck gives up earlier now
	}
	failure := &endedError{cause: cause}
	for _, st := range streams {
		st.mu.Lock()
		st.fail(failure)
		st.mu.Unlock()
	}
}

// Open opens a stream to target and waits for the target's answer. It also
// waits while as many streams are open as the gateway allows, and while opens
// come faster than it allows. The error is a *StreamError when the gateway
// refused, one that wraps [ErrEnded], or ctx's cause.
func (s *Session) Open(ctx context.Context, kind wire.Kind, target wire.Addr) (*Stream, error) {
	if s.role != Client {
		return nil, errors.New("only the client opens streams")
	}
	if kind != wire.KindTCP {
		return nil, &StreamError{Code: wire.CodeUnsupported}
	}
	select {
	case s.slots <- struct{}{}:
	case <-s.done:
		return nil, &endedError{cause: s.Err()}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
	st, err := s.open(ctx, kind, target)
	if err != nil {
		<-s.slots
		return nil, err
	}
	if err := st.waitOpened(ctx); err != nil {
		return nil, err
	}
	return st, nil
}

// open queues OPEN, when its rate allows.
func (s *Session) open(ctx context.Context, kind wire.Kind, target wire.Addr) (*Stream, error) {
	s.mu.Lock()
	wait, _ := s.opens.take(time.Now(), 1<<62)
	s.mu.Unlock()
	if wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.done:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	window := s.grant(0)
	if window == 0 {
		return nil, &StreamError{Code: wire.CodeLimit}
	}
	s.mu.Lock()
	if s.err != nil {
		s.mu.Unlock()
		return nil, &endedError{cause: s.Err()}
	}
	defer s.mu.Unlock()
	if s.highest == 0 {
		s.highest = 1
	} else {
		s.highest += 2
	}
	st := newStream(s, s.highest, kind, target)
	st.window, st.reserved, st.recvLimit, st.openLimit = window, window, window, window
	st.sendLimit = s.limits.EarlyWindow
	st.counted = true
	s.streams[st.id] = st
	s.queueControlLocked(st, sendOpen)
	return st, nil
}

// Accept returns the next stream that the client opened. The caller confirms
// or resets it. The error wraps [ErrEnded], or is ctx's cause.
func (s *Session) Accept(ctx context.Context) (*Stream, error) {
	select {
	case st := <-s.accepted:
		return st, nil
	case <-s.done:
		return nil, &endedError{cause: s.Err()}
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// ping is one PING and the channel that its answer closes.
type ping struct {
	payload [8]byte
	sent    time.Time
	answer  chan time.Duration
}

// Ping measures the time to the other end and back.
func (s *Session) Ping(ctx context.Context) (time.Duration, error) {
	select {
	case s.pinging <- struct{}{}:
		defer func() { <-s.pinging }()
	case <-s.done:
		return 0, &endedError{cause: s.Err()}
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	p := &ping{answer: make(chan time.Duration, 1)}
	s.mu.Lock()
	s.pings++
	for i := range p.payload {
		p.payload[i] = byte(s.pings >> (8 * i))
	}
	s.ping = p
	s.work.Signal()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ping = nil
	}()
	select {
	case rtt := <-p.answer:
		return rtt, nil
	case <-s.done:
		return 0, &endedError{cause: s.Err()}
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
}

// Streams is how many streams count towards max_streams.
func (s *Session) Streams() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.role == Client {
		return len(s.slots)
	}
	return int(s.live)
}

// grant sets a window aside from the budget for a stream that holds has of
// it already; 0 when nothing is left.
func (s *Session) grant(has uint64) uint64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	window := uint64(windowFloor)
	if half := s.budget / 2; s.reserved < half {
		window = min(max((half-s.reserved)/8, windowFloor), windowStart)
	}
	window -= min(window, has)
	if s.reserved+window > s.budget {
		return 0
	}
	s.reserved += window
	return window
}

func (s *Session) release(n uint64) {
	if n == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if n > s.reserved {
		panic(fmt.Sprintf("mux: %d bytes released of %d reserved", n, s.reserved))
	}
	s.reserved -= n
}

// queueControl notes that st has these control frames to send.
func (s *Session) queueControl(st *Stream, bits controlBits) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.queueControlLocked(st, bits)
}

func (s *Session) queueControlLocked(st *Stream, bits controlBits) {
	if s.err != nil {
		return
	}
	st.control |= bits
	s.lists[controlList].push(st)
	s.work.Signal()
}

func (s *Session) queueData(st *Stream) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return
	}
	s.lists[dataList].push(st)
	s.work.Signal()
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
		s.uncount(st)
	}
}

// finish takes a stream out whose both directions have ended.
func (s *Session) finish(st *Stream) {
	st.stopLinger()
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.streams, st.id)
	s.uncount(st)
}

// uncount frees the stream's place among max_streams.
func (s *Session) uncount(st *Stream) {
	if !st.counted {
		return
	}
	st.counted = false
	if s.role == Client {
		<-s.slots
	} else {
		s.live--
	}
}
