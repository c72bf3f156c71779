package mux

import (
	"errors"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

func (s *Session) readFrames(msg []byte) error {
	for f, err := range wire.Frames(msg) {
		if err == nil {
			err = s.readFrame(f)
		}
		if err != nil {
			return err
		}
		if f.Type.Reliable() {
			s.applied(len(f.Payload))
		}
	}
	return nil
}

// protocolError makes the error of a rule that has no parser to enforce it.
func protocolError(what string) error {
	return &wire.Error{Code: wire.CodeProtocol, What: what}
}

// readFrame acts on one frame. The error is a *wire.Error when the peer broke
// a rule, and a *CloseError when it closed the session.
func (s *Session) readFrame(f wire.Frame) error {
	switch f.Type {
	case wire.TypeData, wire.TypeFin, wire.TypeDgram:
		s.in.bytes.Add(uint64(len(f.Payload)))
	default:
		if !s.in.flood.pass(time.Since(s.began), s.in.bytes.Load()+s.sent.Load()) {
			return &wire.Error{Code: wire.CodeEnhanceCalm, What: "too many frames that carry nothing"}
		}
	}
	switch f.Type {
	case wire.TypePad:
		return nil
	case wire.TypePing:
		return s.readPing(f.Payload)
	case wire.TypePong:
		return s.readPong(f.Payload)
	case wire.TypeAck:
		return s.readAck(f.Payload)
	case wire.TypeClose:
		c, err := wire.ParseClose(f.Payload)
		if err != nil {
			return err
		}
		return &CloseError{Code: c.Code, Reason: c.Reason, Remote: true}
	case wire.TypeGoAway:
		return s.readGoAway(f.Payload)
	case wire.TypeOpen:
		return s.readOpen(f)
	case wire.TypeOpened, wire.TypeData, wire.TypeFin, wire.TypeCredit, wire.TypeReset, wire.TypeStop, wire.TypeDgram:
		return s.readStreamFrame(f)
	case wire.TypeReauth, wire.TypeAuth, wire.TypeLimits, wire.TypeNotice:
		return s.readTerms(f)
	case wire.TypeChallenge, wire.TypeHello, wire.TypeReady, wire.TypeReject, wire.TypeResume, wire.TypeResumed:
		return protocolError(f.Type.String() + " after the handshake")
	}
	return nil // unknown and not critical: skipped
}

func (s *Session) readPing(payload []byte) error {
	p, err := wire.ParsePing(payload)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pong = &p
	s.wake()
	return nil
}

// readOpen makes a stream or a flow of an OPEN, or refuses it.
func (s *Session) readOpen(f wire.Frame) error {
	if s.role != Gateway {
		return protocolError("OPEN from the gateway")
	}
	s.mu.Lock()
	old := f.Stream <= s.highest
	if !old {
		s.highest = f.Stream
	}
	ignored := f.Stream > s.last
	_, udp := s.allowed.inForce(time.Now())
	s.mu.Unlock()
	if old {
		return protocolError("OPEN with an old id")
	}
	o, err := wire.ParseOpen(f.Payload)
	var broken *wire.Error
	streamOnly := errors.As(err, &broken) && broken.StreamOnly
	switch {
	case err != nil && !streamOnly:
		return err
	case uint64(len(o.Early)) > s.floor:
		return &wire.Error{Code: wire.CodeFlowControl, What: "OPEN: early data over early_window"}
	case ignored: // and so is what follows on it, as of any stream that has ended
		return nil
	case o.Kind.Flow() && udp == 0:
		return s.refuse(f.Stream, wire.CodeUnsupported)
	case streamOnly:
		return s.refuse(f.Stream, broken.Code)
	}
	var in Incoming
	if o.Kind == wire.KindTCP {
		in.Stream = newStream(s, f.Stream, o.Target)
	} else {
		in.Flow = newFlow(s, f.Stream, o.Kind, o.Target)
	}
	if code := s.admit(in, o); code != wire.CodeNoError {
		return s.refuse(f.Stream, code)
	}
	s.arrived(in)
	return nil
}

// admit counts what was opened and sets its early window aside, or says why
// not.
func (s *Session) admit(in Incoming, o wire.Open) wire.Code {
	s.mu.Lock()
	defer s.mu.Unlock()
	streams, udp := s.allowed.inForce(time.Now())
	s.in.flood.allow(wire.Limits{MaxStreams: streams, OpenBurst: s.opens.burst / 2, OpenRate: s.opens.rate / 2})
	switch {
	case s.err != nil:
		return wire.CodeShutdown
	case s.live >= streams, in.Flow != nil && s.liveUDP >= udp:
		return wire.CodeLimit
	case uint64(s.accepted.len()) >= 2*streams: // as many again were reset before anybody accepted them
		return wire.CodeEnhanceCalm
	}
	if _, ok := s.opens.take(time.Now(), 0); !ok {
		return wire.CodeEnhanceCalm
	}
	if f := in.Flow; f != nil {
		s.live++
		s.liveUDP++
		f.known, f.counted = true, true
		s.flows[f.id] = f
		return wire.CodeNoError
	}
	if !s.budget.admit(s.floor) {
		return wire.CodeLimit
	}
	st := in.Stream
	s.live++
	s.share()
	st.held = reservation{floor: s.floor, size: s.floor}
	st.window, st.recvLimit = s.floor, s.floor
	st.sendLimit = o.RecvWindow
	st.known, st.counted = true, true
	st.recv.write(o.Early)
	st.recvBytes = uint64(len(o.Early))
	s.streams[st.id] = st
	return wire.CodeNoError
}

func (s *Session) refuse(id uint64, code wire.Code) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.refusals) >= maxRefusals {
		return &wire.Error{Code: wire.CodeEnhanceCalm, What: "opens go on while their refusals are not read"}
	}
	s.refusals = append(s.refusals, refusal{id: id, code: code})
	s.wake()
	return nil
}

// streamFor finds the stream of a frame; nil when it has ended or is a flow.
func (s *Session) streamFor(kind wire.FrameType, id uint64) (*Stream, error) {
	s.mu.Lock()
	st, flow, above := s.streams[id], s.flows[id], id > s.highest
	s.mu.Unlock()
	switch {
	case above:
		return nil, protocolError(kind.String() + " for a stream that was never opened")
	case flow != nil:
		return nil, protocolError(kind.String() + " on a flow")
	}
	return st, nil
}

// readStreamFrame acts on a frame for something that was opened before.
func (s *Session) readStreamFrame(f wire.Frame) error {
	s.mu.Lock()
	st, flow, above := s.streams[f.Stream], s.flows[f.Stream], f.Stream > s.highest
	s.mu.Unlock()
	switch {
	case above:
		return protocolError(f.Type.String() + " for a stream that was never opened")
	case f.Type == wire.TypeOpened && s.role != Client:
		return protocolError("OPENED from the client")
	case flow != nil:
		return flow.readFrame(f)
	case st == nil:
		return checkStreamFrame(f)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil {
		return checkStreamFrame(f)
	}
	switch {
	case f.Type == wire.TypeOpened:
		return st.readOpened(f.Payload)
	case f.Type == wire.TypeReset:
		return st.readReset(f.Payload)
	case f.Type == wire.TypeStop:
		return st.readStop(f.Payload)
	case f.Type == wire.TypeCredit && s.role == Client && !st.opened:
		return protocolError("CREDIT before OPENED")
	case f.Type == wire.TypeCredit:
		return st.readCredit(f.Payload)
	case f.Type == wire.TypeDgram:
		return protocolError("DGRAM on a TCP stream")
	}
	wanted, err := st.expectLocked(f.Type, len(f.Payload))
	if err != nil {
		return err
	}
	st.deliver()
	if wanted {
		st.recv.write(f.Payload)
		st.readable.Signal()
	}
	if f.Type == wire.TypeFin {
		st.finished()
	}
	return nil
}

// checkStreamFrame looks for faults in a frame whose stream has ended. Such a
// frame is ignored, a malformed one is not.
func checkStreamFrame(f wire.Frame) error {
	var err error
	switch f.Type {
	case wire.TypeOpened:
		_, err = wire.ParseOpened(f.Payload)
	case wire.TypeReset:
		_, err = wire.ParseReset(f.Payload)
	case wire.TypeStop:
		_, err = wire.ParseStop(f.Payload)
	case wire.TypeCredit:
		_, err = wire.ParseCredit(f.Payload)
	default: // any payload will do
	}
	return err
}

func (st *Stream) readOpened(payload []byte) error {
	o, err := wire.ParseOpened(payload)
	switch {
	case err != nil:
		return err
	case st.opened:
		return protocolError("second OPENED")
	case o.RecvWindow < st.s.limits.EarlyWindow:
		return protocolError("OPENED: recv_window below early_window")
	}
	st.opened = true
	st.sendLimit = o.RecvWindow
	st.writable.Broadcast()
	return nil
}

// expect judges a DATA or FIN with n bytes and accounts for them. wanted says
// that they are to be kept.
func (st *Stream) expect(kind wire.FrameType, n int) (wanted bool, err error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.expectLocked(kind, n)
}

func (st *Stream) expectLocked(kind wire.FrameType, n int) (wanted bool, err error) {
	switch {
	case st.err != nil:
		return false, nil //nolint:nilerr // the stream has ended: its frames are ignored
	case st.s.role == Client && !st.opened:
		return false, protocolError(kind.String() + " before OPENED")
	case st.recvFin:
		return false, protocolError(kind.String() + " after FIN")
	case st.recvBytes+uint64(n) > st.recvLimit:
		return false, &wire.Error{Code: wire.CodeFlowControl, What: "bytes beyond the credit"}
	}
	st.recvBytes += uint64(n)
	if st.readClosed {
		st.consumed += uint64(n)
		return false, nil
	}
	return true, nil
}

// finished notes that the peer's direction has ended. Called with mu held.
func (st *Stream) finished() {
	if st.err != nil || st.recvFin {
		return
	}
	st.recvFin = true
	if !st.readClosed {
		st.shrink(st.recvBytes - st.consumed)
	}
	if st.finSent {
		st.s.finish(st)
	}
	st.readable.Signal()
}

func (st *Stream) readReset(payload []byte) error {
	code, err := wire.ParseReset(payload)
	if err != nil {
		return err
	}
	st.fail(&StreamError{Code: code, Remote: true})
	st.s.forget(st, false)
	return nil
}

func (st *Stream) readCredit(payload []byte) error {
	offset, err := wire.ParseCredit(payload)
	if err != nil {
		return err
	}
	if offset > st.sendLimit {
		st.sendLimit = offset
		st.sendable()
	}
	return nil
}

// readStop: the peer throws away what this end sends. docs/03, part 6: this
// direction ends with an empty FIN, and the writer learns the code.
func (st *Stream) readStop(payload []byte) error {
	code, err := wire.ParseStop(payload)
	if err != nil {
		return err
	}
	if !st.finSent && st.sendErr == nil {
		st.sendErr = &StreamError{Code: code, Remote: true}
		st.stopped()
		st.dropSend()
		st.closing = true
		st.writable.Broadcast()
		st.sendable()
	}
	return nil
}
