package mux

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

// When an ACK is sent, docs/03, part 8.3: after so many bytes or frames once the carrier
// has no more at hand, after four times as many whatever it has, or so long after the
// first of them, whichever comes first. It goes along with whatever is sent before that.
const (
	ackBytes, mostAckBytes   = 64 << 10, 256 << 10
	ackFrames, mostAckFrames = 64, 256
	ackAfter                 = 200 * time.Millisecond
)

// errParked is why a carrier is lost that another one is to take the place of.
var errParked = errors.New("another carrier takes over")

// Resume says that a session goes on over another carrier when its own is lost.
type Resume struct {
	// Within is how long a session without a carrier waits for one. 0: the session
	// ends with its carrier.
	Within time.Duration
	// OnLost is told, with the reason, when the session has lost its carrier, but
	// for [Session.Park]. It must not block.
	OnLost func(why error)
}

// attachment is a carrier in use.
type attachment struct {
	conn   Messages
	first  []byte        // frames that came behind the handshake in its message
	parked chan struct{} // closed when nobody reads from it or writes to it any more
}

// acks is what the other end was told of the reliable frames that were applied, and
// when it is to be told more. Its fields are the writer's, for others to look at.
type acks struct {
	rsn, bytes atomic.Uint64 // as told last
	due        atomic.Bool
	armed      atomic.Bool // the timer runs
	timer      *time.Timer
}

// resumable says whether the session can outlive its carrier.
func (s *Session) resumable() bool { return s.resume.Within > 0 }

// lose takes the carrier away for a reason: the session waits for another one. conn
// is the one that failed; when the session has another by now, nothing happens.
func (s *Session) lose(conn Messages, why error) {
	if s.detach(conn, why) && s.resume.OnLost != nil {
		s.resume.OnLost(why)
	}
}

func (s *Session) detach(conn Messages, why error) bool {
	s.mu.Lock()
	if s.err != nil || s.at.conn != conn || conn == nil {
		s.mu.Unlock()
		return false
	}
	s.at.conn = nil
	s.pong = nil
	if s.ping != nil {
		waiters := s.ping.waiters
		if s.ping = nil; len(waiters) > 0 {
			s.ping = &ping{waiters: waiters, at: time.Now()} // asked again on the next carrier
		}
	}
	s.patience = time.AfterFunc(s.resume.Within, func() { s.end(why, nil) })
	s.mu.Unlock()
	s.alive.pause()
	_ = conn.Abort()
	return true
}

// Lost says whether the session has no carrier at the moment.
func (s *Session) Lost() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err == nil && s.at.conn == nil
}

// Park takes the session's carrier away, if it has one, and returns how many reliable
// frames of the other end it has applied when nothing more can come. The error
// wraps [ErrEnded], or is ctx's cause.
func (s *Session) Park(ctx context.Context) (received uint64, err error) {
	s.mu.Lock()
	conn, parked, ended := s.at.conn, s.at.parked, s.err
	s.mu.Unlock()
	if ended != nil {
		return 0, &endedError{cause: ended}
	}
	s.detach(conn, errParked)
	select {
	case <-parked:
	case <-ctx.Done():
		return 0, context.Cause(ctx)
	}
	if err := s.Err(); err != nil {
		return 0, &endedError{cause: err}
	}
	return s.in.rsn.Load(), nil
}

// Judge says whether the other end of a parked session can have applied so many
// reliable frames. If not, the session ends and the error is a *wire.Error.
func (s *Session) Judge(received uint64) error {
	s.mu.Lock()
	fits := s.err != nil || received >= s.history.acked && received < s.history.next
	s.mu.Unlock()
	if fits {
		return nil
	}
	err := &wire.Error{Code: wire.CodeProtocol, What: "rx_rsn outside of what was sent and not acknowledged"}
	s.closeWith(err.Code, err.What)
	return err
}

// Resume goes on over conn, after [Session.Park]: the other end has applied so many
// reliable frames, and is sent the others again. first are frames that came behind
// the handshake in its message. On an error conn is the caller's; it wraps
// [ErrEnded], or is that of [Session.Judge].
func (s *Session) Resume(conn Messages, first []byte, received uint64) error {
	if err := s.Judge(received); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return &endedError{cause: s.err}
	}
	if s.at.conn != nil {
		return errors.New("the session has a carrier")
	}
	if s.patience != nil && !s.patience.Stop() {
		return &endedError{cause: errParked} // its time is over just now
	}
	if err := s.acknowledge(received); err != nil {
		return err
	}
	if received+1 < s.history.next {
		s.history.replay = received + 1
	}
	s.rtt = roundTrips{}
	s.pads.again()
	if s.ping != nil {
		s.ping.at = time.Now()
	}
	s.at = attachment{conn: conn, first: first, parked: make(chan struct{})}
	s.alive.again()
	s.taken <- s.at // has room for it: the one before was parked
	s.work.Broadcast()
	return nil
}

// Settled says whether the other end has acknowledged every reliable frame.
func (s *Session) Settled() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.history.acked+1 == s.history.next
}

// Buffered is the memory of what waits in the session, in bytes: to be read, to be
// sent, or to be acknowledged.
func (s *Session) Buffered() uint64 {
	s.mu.Lock()
	sum := s.history.held + uint64(max(s.datagram.Load(), 0))
	streams := make([]*Stream, 0, len(s.streams))
	for _, st := range s.streams {
		streams = append(streams, st)
	}
	s.mu.Unlock()
	for _, st := range streams {
		st.mu.Lock()
		sum += uint64(st.recv.held + st.send.held)
		st.mu.Unlock()
	}
	return sum
}

// applied notes one reliable frame that the reader has acted on.
func (s *Session) applied(bytes int) {
	if !s.resumable() {
		return
	}
	rsn, moved := s.in.rsn.Add(1), s.in.reliable.Add(uint64(bytes))
	a := &s.acks
	switch {
	case rsn-a.rsn.Load() >= mostAckFrames, moved-a.bytes.Load() >= mostAckBytes:
		s.wantAck()
	case !a.armed.Load() && !a.armed.Swap(true):
		a.timer.Reset(ackAfter)
	}
}

// ackBeforeWait has what was applied acknowledged if that is enough for an ACK: the other
// end may wait for it, and this one has nothing else to do.
func (s *Session) ackBeforeWait() {
	if !s.resumable() {
		return
	}
	if s.in.rsn.Load()-s.acks.rsn.Load() >= ackFrames || s.in.reliable.Load()-s.acks.bytes.Load() >= ackBytes {
		s.wantAck()
	}
}

// ackTimer is called when an ACK may be due.
func (s *Session) ackTimer() {
	s.acks.armed.Store(false)
	if s.in.rsn.Load() > s.acks.rsn.Load() {
		s.wantAck()
	}
}

func (s *Session) wantAck() {
	if s.acks.due.Swap(true) {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wake()
}

// appendAck appends an ACK when there is anything new to tell. Only who writes
// calls it.
func (s *Session) appendAck(buf []byte) []byte {
	s.acks.due.Store(false)
	bytes := s.in.reliable.Load() // before rsn: what is left over is told sooner
	rsn := s.in.rsn.Load()
	if rsn == s.acks.rsn.Load() {
		return buf
	}
	s.acks.bytes.Store(bytes)
	s.acks.rsn.Store(rsn)
	return wire.AppendAck(buf, rsn)
}

func (s *Session) readAck(payload []byte) error {
	if !s.resumable() {
		return nil // not agreed on: a type that is not known
	}
	rsn, err := wire.ParseAck(payload)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.acknowledge(rsn)
}
