package mux

import (
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

// controlRoom is kept free for one stream's control frames: OPEN, the longest,
// is under 300 bytes.
const controlRoom = 512

// dataRoom is the least space that a DATA frame is begun in.
const dataRoom = 1024

var messagePool = sync.Pool{New: func() any {
	b := make([]byte, Headroom, Headroom+wire.MaxMessage)
	return &b
}}

// writeMessages is the session's one writer. Control frames go first, then
// the streams that have data take turns, a frame each.
func (s *Session) writeMessages() {
	for {
		s.mu.Lock()
		for s.idle() {
			s.work.Wait()
		}
		s.mu.Unlock()

		space, _ := messagePool.Get().(*[]byte)
		buf, last := s.compose((*space)[:Headroom])
		if len(buf) > Headroom {
			timeout := writeTimeout
			if last {
				timeout = closeTimeout
			}
			_ = s.conn.SetWriteDeadline(time.Now().Add(timeout))
			if err := s.conn.WriteReserved(buf); err != nil {
				s.end(err, nil)
				last = true
			}
		}
		messagePool.Put(space)
		if last {
			s.hangUp()
			return
		}
	}
}

// hangUp closes the carrier. After a goodbye the peer goes first: closing with
// its bytes unread would make TCP throw the goodbye away.
func (s *Session) hangUp() {
	s.mu.Lock()
	goodbye := s.goodbye
	s.mu.Unlock()
	if goodbye == nil {
		_ = s.conn.Close()
		return
	}
	time.AfterFunc(goodbyeTimeout, func() { _ = s.conn.Close() })
}

// idle says whether there is nothing to write. Called with mu held.
func (s *Session) idle() bool {
	return s.err == nil && s.pong == nil && (s.ping == nil || !s.ping.sent.IsZero()) &&
		len(s.refusals) == 0 && s.lists[controlList].head == nil && s.lists[dataList].head == nil
}

// compose puts one message together in buf's space. last says that the
// session is over and nothing may follow.
func (s *Session) compose(buf []byte) (_ []byte, last bool) {
	limit := Headroom + wire.MaxMessage
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		if s.goodbye != nil {
			buf = wire.AppendClose(buf, *s.goodbye)
		}
		return buf, true
	}
	if s.pong != nil {
		buf = wire.AppendPong(buf, *s.pong)
		s.pong = nil
	}
	if s.ping != nil && s.ping.sent.IsZero() {
		s.ping.sent = time.Now()
		buf = wire.AppendPing(buf, s.ping.payload)
	}
	for len(s.refusals) > 0 && limit-len(buf) >= controlRoom {
		r := s.refusals[0]
		s.refusals = s.refusals[1:]
		buf = wire.AppendReset(buf, r.id, r.code)
	}
	for {
		// Looked at under one lock, in this order: a stream's data never
		// overtakes the frame that opened it.
		switch control, data := &s.lists[controlList], &s.lists[dataList]; {
		case control.head != nil && limit-len(buf) >= controlRoom:
			st := control.pop()
			bits := st.control
			st.control = 0
			s.mu.Unlock()
			buf = st.appendControl(buf, bits)
			s.mu.Lock()
		case control.head == nil && data.head != nil && limit-len(buf) >= dataRoom:
			st := data.pop()
			s.mu.Unlock()
			buf = st.appendData(buf, limit-len(buf))
			s.mu.Lock()
		default:
			return buf, false
		}
	}
}

// appendControl appends the control frames that bits name.
func (st *Stream) appendControl(buf []byte, bits controlBits) []byte {
	st.mu.Lock()
	defer st.mu.Unlock()
	if bits&sendReset != 0 {
		st.s.mu.Lock()
		st.s.uncount(st)
		st.s.mu.Unlock()
		return wire.AppendReset(buf, st.id, st.resetCode)
	}
	if st.err != nil {
		return buf // reset meanwhile; its own bits follow
	}
	if bits&sendOpen != 0 {
		st.known = true
		buf = wire.AppendOpen(buf, st.id, wire.Open{Kind: st.kind, RecvWindow: st.openLimit, Target: st.target})
	}
	if bits&sendOpened != 0 {
		buf = wire.AppendOpened(buf, st.id, wire.Opened{RecvWindow: st.openLimit})
	}
	if bits&sendCredit != 0 && !st.recvFin && !st.readClosed {
		buf = wire.AppendCredit(buf, st.id, st.recvLimit)
	}
	if bits&sendStop != 0 && !st.recvFin {
		buf = wire.AppendStop(buf, st.id, st.stopCode)
	}
	return buf
}

// appendData appends one DATA or FIN frame of at most room bytes, as credit
// allows, and puts the stream back in line when more may follow.
func (st *Stream) appendData(buf []byte, room int) []byte {
	st.mu.Lock()
	defer st.mu.Unlock()
	if !st.maySend() {
		return buf
	}
	credit := st.sendLimit - st.sendBytes
	n := min(st.send.size, wire.DataPayload, room-wire.MaxHeader)
	if uint64(n) > credit {
		n = int(credit)
	}
	kind := wire.TypeData
	if st.closing && n == st.send.size {
		kind = wire.TypeFin
		st.finSent = true
	}
	buf = wire.AppendFrameHeader(buf, kind, st.id, n)
	start := len(buf)
	buf = buf[:start+n]
	st.send.read(buf[start:])
	st.sendBytes += uint64(n)
	if st.send.size < maxPending {
		st.writable.Signal()
	}
	switch {
	case st.finSent && st.recvFin:
		st.s.finish(st)
	case st.maySend():
		st.s.queueData(st)
	}
	return buf
}
