package mux

import (
	"errors"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

// readMessages is the session's one reader. It never waits for anything but
// the carrier.
func (s *Session) readMessages() {
	msg := s.first
	if len(msg) > 0 {
		s.readFrames(msg)
	}
	s.first, msg = nil, nil
	for {
		var err error
		msg, err = s.conn.ReadMessage(msg)
		if err != nil {
			var broken *wire.Error
			if errors.As(err, &broken) {
				s.closeWith(broken.Code, broken.What)
			}
			s.end(err, nil)
			if broken == nil {
				return
			}
			s.drain(msg)
			return
		}
		if s.Err() != nil {
			continue // our goodbye is on its way; wait for the peer to hang up
		}
		s.readFrames(msg)
	}
}

// drain reads on after an error of the peer's, until the carrier closes, for
// the sake of our goodbye.
func (s *Session) drain(space []byte) {
	for {
		if _, err := s.conn.ReadMessage(space); err != nil {
			if _, ok := errors.AsType[*wire.Error](err); !ok {
				return
			}
		}
	}
}

func (s *Session) readFrames(msg []byte) {
	for f, err := range wire.Frames(msg) {
		if err == nil {
			err = s.readFrame(f)
		}
		if err != nil {
			if broken, ok := errors.AsType[*wire.Error](err); ok {
				s.closeWith(broken.Code, broken.What)
			} else {
				s.end(err, nil)
			}
			return
		}
	}
}

// protocolError makes the error of a rule that has no parser to enforce it.
func protocolError(what string) error {
	return &wire.Error{Code: wire.CodeProtocol, What: what}
}

// readFrame acts on one frame. The error is a *wire.Error when the peer broke
// a rule.
func (s *Session) readFrame(f wire.Frame) error {
	switch f.Type {
	case wire.TypePad:
		return nil
	case wire.TypePing:
		return s.readPing(f.Payload)
	case wire.TypePong:
		return s.readPong(f.Payload)
	case wire.TypeClose:
		c, err := wire.ParseClose(f.Payload)
		if err != nil {
			return err
		}
		return &CloseError{Code: c.Code, Reason: c.Reason, Remote: true}
	case wire.TypeOpen:
		return s.readOpen(f)
	case wire.TypeOpened, wire.TypeData, wire.TypeFin, wire.TypeCredit, wire.TypeReset, wire.TypeStop:
		return s.readStreamFrame(f)
	case wire.TypeChallenge, wire.TypeHello, wire.TypeReady, wire.TypeReject:
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
	s.work.Signal()
	return nil
}

func (s *Session) readPong(payload []byte) error {
	p, err := wire.ParsePing(payload)
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ping != nil && !s.ping.sent.IsZero() && s.ping.payload == p {
		select {
		case s.ping.answer <- time.Since(s.ping.sent):
		default: // the answer to this one came already
		}
	}
	return nil
}

// readOpen makes a stream of an OPEN, or refuses it.
func (s *Session) readOpen(f wire.Frame) error {
	if s.role != Gateway {
		return protocolError("OPEN from the gateway")
	}
	s.mu.Lock()
	old := f.Stream <= s.highest
	if !old {
		s.highest = f.Stream
	}
	s.mu.Unlock()
	if old {
		return protocolError("OPEN with an old id")
	}
	o, err := wire.ParseOpen(f.Payload)
	var broken *wire.Error
	switch {
	case errors.As(err, &broken) && broken.StreamOnly:
		return s.refuse(f.Stream, broken.Code)
	case err != nil:
		return err
	case uint64(len(o.Early)) > s.limits.EarlyWindow:
		return &wire.Error{Code: wire.CodeFlowControl, What: "OPEN: early data over early_window"}
	case o.Kind != wire.KindTCP:
		return s.refuse(f.Stream, wire.CodeUnsupported)
	}

	st := newStream(s, f.Stream, o.Kind, o.Target)
	st.sendLimit = o.RecvWindow
	st.known = true
	st.window = s.limits.EarlyWindow
	st.recvLimit = s.limits.EarlyWindow
	code := s.admit(st)
	if code != wire.CodeNoError {
		return s.refuse(f.Stream, code)
	}
	st.mu.Lock()
	st.recv.write(o.Early)
	st.recvBytes = uint64(len(o.Early))
	st.mu.Unlock()
	select {
	case s.accepted <- st:
	case <-s.done:
	}
	return nil
}

// admit counts a new stream and sets its early window aside, or says why not.
func (s *Session) admit(st *Stream) wire.Code {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return wire.CodeShutdown
	}
	if s.live >= s.limits.MaxStreams || s.reserved+st.window > s.budget {
		return wire.CodeLimit
	}
	if _, ok := s.opens.take(time.Now(), 0); !ok {
		return wire.CodeEnhanceCalm
	}
	s.reserved += st.window
	st.reserved = st.window
	s.live++
	st.counted = true
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
	s.work.Signal()
	return nil
}

// readStreamFrame acts on a frame for a stream that was opened before.
func (s *Session) readStreamFrame(f wire.Frame) error {
	s.mu.Lock()
	st, above := s.streams[f.Stream], f.Stream > s.highest
	s.mu.Unlock()
	if above {
		return protocolError(f.Type.String() + " for a stream that was never opened")
	}
	if f.Type == wire.TypeOpened && s.role != Client {
		return protocolError("OPENED from the client")
	}
	if st == nil {
		return checkStreamFrame(f)
	}
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil {
		return checkStreamFrame(f)
	}
	early := s.role == Client && !st.opened
	switch {
	case f.Type == wire.TypeOpened:
		return st.readOpened(f.Payload)
	case f.Type == wire.TypeReset:
		return st.readReset(f.Payload)
	case f.Type == wire.TypeStop:
		return st.readStop(f.Payload)
	case early:
		return protocolError(f.Type.String() + " before OPENED")
	case f.Type == wire.TypeCredit:
		return st.readCredit(f.Payload)
	default:
		return st.readData(f)
	}
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
	default:
		if f.Type == wire.TypeData && len(f.Payload) == 0 {
			err = protocolError("DATA without bytes")
		}
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

func (st *Stream) readData(f wire.Frame) error {
	n := uint64(len(f.Payload))
	switch {
	case n == 0 && f.Type == wire.TypeData:
		return protocolError("DATA without bytes")
	case st.recvFin:
		return protocolError(f.Type.String() + " after FIN")
	case st.recvBytes+n > st.recvLimit:
		return &wire.Error{Code: wire.CodeFlowControl, What: "bytes beyond the credit"}
	}
	st.recvBytes += n
	if st.readClosed {
		st.consumed += n
	} else {
		st.recv.write(f.Payload)
	}
	if f.Type == wire.TypeFin {
		st.recvFin = true
		if unread := st.recvBytes - st.consumed; !st.readClosed {
			st.s.release(st.reserved - unread)
			st.reserved = unread
		}
		if st.finSent {
			st.s.finish(st)
		}
	}
	st.readable.Signal()
	return nil
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
		st.send.drop()
		st.closing = true
		st.writable.Broadcast()
		st.sendable()
	}
	return nil
}
