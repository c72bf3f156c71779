package mux

import (
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// controlRoom is kept free for one stream's control frames: OPEN, the
	// longest, is under 300 bytes.
	controlRoom = 512

	// inPlace is the least that a block has to hold to be sent from where it is.
	// Less is copied to others in one message.
	inPlace = 2 << 10

	// ackRoom is kept free in a composed message for an ACK.
	ackRoom = 16

	// tlsRecord is the plaintext of a full TLS record (RFC 8446, 5.1).
	tlsRecord = 16 << 10
)

// composePool holds the space in which control frames and short pieces of data
// are put together.
var composePool = sync.Pool{New: func() any {
	b := make([]byte, Headroom+tlsRecord-8) // a WebSocket header, and all of it fits one TLS record
	return &b
}}

// fullPayload is how many bytes of a stream fill one TLS record together with
// the headers before them.
func (s *Session) fullPayload(id uint64) int {
	webSocket := 4 // RFC 6455, 5.2, for a message of this size
	if s.role == Client {
		webSocket = 8 // masked
	}
	return min(tlsRecord-webSocket-1-wire.SizeVarint(id)-2, wire.MaxFramePayload)
}

// writeMessages is the session's writer, for all that nobody wrote on the way.
func (s *Session) writeMessages() {
	for {
		s.mu.Lock()
		for s.idle() || s.writing {
			s.work.Wait()
		}
		over := s.over
		s.writing = !over
		s.mu.Unlock()
		if over || s.writeBatch() {
			s.hangUp()
			return
		}
		s.mu.Lock()
		s.stopWriting()
		s.mu.Unlock()
	}
}

// stopWriting tells that nobody sends. Called with mu held.
func (s *Session) stopWriting() {
	s.writing = false
	s.history.claim = 0
	if s.at.conn == nil {
		s.left.Broadcast()
	}
}

// write sends a batch from the goroutine that has queued some of it, when nobody
// is sending: that saves waking the writer, and the bytes stay on this processor.
// What is left is the writer's.
func (s *Session) write() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.writing || s.err != nil || s.at.conn == nil {
		return
	}
	s.writing = true
	s.mu.Unlock()
	over := s.writeBatch()
	s.mu.Lock()
	s.stopWriting()
	s.over = over
	if !s.idle() {
		s.work.Signal()
	}
}

// wake has the writer look for what there is to send. Whoever is sending looks by
// himself when he is done. Called with mu held.
func (s *Session) wake() {
	if !s.writing {
		s.work.Signal()
	}
}

// hangUp closes the carrier. After a goodbye the peer goes first: closing with
// its bytes unread would make TCP throw the goodbye away.
func (s *Session) hangUp() {
	s.mu.Lock()
	goodbye, conn := s.goodbye, s.at.conn
	s.mu.Unlock()
	switch {
	case conn == nil:
	case goodbye == nil:
		_ = conn.Close()
	default:
		time.AfterFunc(goodbyeTimeout, func() { _ = conn.Close() })
	}
}

// idle says whether there is nothing to write. Called with mu held.
func (s *Session) idle() bool {
	switch {
	case s.err != nil:
		return false
	case s.at.conn == nil:
		return true
	case s.pong != nil, s.ping != nil && s.ping.sent.IsZero(), s.acks.due.Load(), s.history.replay != 0:
		return false
	}
	return !s.reliableWaits()
}

// reliableWaits says whether there is something to write that the history has room
// for. Called with mu held.
func (s *Session) reliableWaits() bool {
	if !s.resumable() {
		return s.farewell != nil || len(s.refusals) > 0 || !s.unsent.empty() || !s.schedule.empty()
	}
	return (s.farewell != nil || len(s.refusals) > 0 || !s.unsent.empty() || !s.schedule.noControl()) && s.mayKeep(composedMost) ||
		!s.schedule.noData() && s.mayKeep(pieceMost)
}

// batch is what is sent together: some messages, held back by the carrier until
// the last of them.
type batch struct {
	s    *Session
	conn Messages
	buf  []byte // the message that is being put together, from Headroom on
	size int    // bytes of finished messages
	err  error
	now  time.Time
	ping *ping // is in the batch
	last bool  // nothing may follow
	pad  bool  // the message that is being put together is to be padded

	replaying bool // what is composed is in the history already
}

func (b *batch) room() int { return cap(b.buf) - len(b.buf) - ackRoom }

// emit finishes the message that is being put together.
func (b *batch) emit() {
	if len(b.buf) == Headroom {
		return
	}
	if b.s.resumable() && !b.last {
		if !b.replaying {
			b.s.keep(b.buf[Headroom:])
		}
		b.buf = b.s.appendAck(b.buf) // there is room left for it
	}
	b.lengthen()
	b.write(b.buf)
	b.buf = b.buf[:Headroom]
}

func (b *batch) write(msg []byte) {
	if b.size == 0 && b.s.resumable() {
		b.s.alive.wantAnswer() // the write may get stuck
	}
	b.size += len(msg) - Headroom
	b.s.pads.first--
	if b.err == nil {
		b.err = b.conn.WriteReserved(msg)
	}
}

// writeBatch sends what waits, up to some size. last says that the session is
// over and nothing may follow.
func (s *Session) writeBatch() (last bool) {
	s.mu.Lock()
	conn := s.at.conn
	over := s.err != nil
	s.mu.Unlock()
	if conn == nil {
		return over
	}
	space, _ := composePool.Get().(*[]byte)
	defer composePool.Put(space)
	b := &batch{s: s, conn: conn, buf: (*space)[:Headroom], now: time.Now()}
	_ = conn.SetWriteDeadline(b.now.Add(writeTimeout))
	for b.err == nil && b.size+len(b.buf) < batchSize {
		more, over := s.compose(b)
		if b.last = over; over || !more {
			break
		}
	}
	if b.last {
		_ = conn.SetWriteDeadline(b.now.Add(closeTimeout))
	}
	b.emit()
	if b.size > 0 && b.err == nil {
		b.err = conn.Flush()
		s.noteWritten(b.ping)
		s.alive.noteSent()
	}
	if b.err == nil {
		return b.last
	}
	if s.resumable() && !b.last {
		s.lose(conn, b.err)
		return false
	}
	s.end(b.err, nil)
	return true
}

// compose adds what comes next to the batch. more is false when nothing is
// left.
func (s *Session) compose(b *batch) (more, last bool) {
	if b.room() < controlRoom {
		b.emit()
	}
	s.mu.Lock()
	if s.err != nil {
		if s.goodbye != nil {
			b.buf = wire.AppendClose(b.buf, *s.goodbye)
		}
		s.mu.Unlock()
		return false, true
	}
	s.composeSession(b)
	if s.history.replay != 0 {
		s.composeReplay(b)
		return true, false
	}
	if !s.mayKeep(composedMost) {
		s.mu.Unlock()
		return false, false
	}
	s.composeFarewell(b)
	s.composeRefusals(b)
	// Looked at under one lock, in this order: a stream's data never overtakes
	// the frame that opened it.
	q := &s.schedule
	switch {
	case len(s.refusals) > 0: // no room for all of them
		s.mu.Unlock()
	case !s.unsent.empty():
		frame := s.unsent.next()
		s.mu.Unlock()
		if b.room() < len(frame) {
			b.emit()
		}
		b.buf = append(b.buf, frame...)
	case !q.opens.empty():
		o := q.opens.pop()
		s.mu.Unlock()
		if o.stream != nil {
			b.composed(o.stream.appendOpen(b.buf), &o.stream.pads)
		} else {
			b.composed(o.flow.appendOpen(b.buf), &o.flow.pads)
		}
	case q.lists[controlList].head != nil:
		st := q.lists[controlList].pop()
		bits := st.control
		st.control = 0
		s.mu.Unlock()
		b.composed(st.appendControl(b.buf, bits), &st.pads)
	default:
		if f := q.nextFlow(); f != nil {
			s.mu.Unlock()
			f.send(b)
			return true, false
		}
		if !s.mayKeep(pieceMost) {
			s.mu.Unlock()
			return false, false
		}
		st := q.next()
		s.mu.Unlock()
		if st == nil {
			return false, false
		}
		st.sendTurn(b)
	}
	return true, false
}

// composeSession appends the session's own frames. Called with mu held.
func (s *Session) composeSession(b *batch) {
	if s.pong != nil {
		b.buf = wire.AppendPong(b.buf, *s.pong)
		s.pong = nil
	}
	if s.ping != nil && s.ping.sent.IsZero() {
		s.ping.sent, b.ping = time.Now(), s.ping
		b.buf = wire.AppendPing(b.buf, s.ping.payload)
	}
	if s.acks.due.Load() {
		b.buf = s.appendAck(b.buf)
	}
}

// composeRefusals appends the answers to opens that were refused. Called with mu held.
func (s *Session) composeRefusals(b *batch) {
	n := 0
	for ; n < len(s.refusals) && b.room() >= controlRoom; n++ {
		b.buf = wire.AppendReset(b.buf, s.refusals[n].id, s.refusals[n].code)
	}
	if s.refusals = s.refusals[n:]; len(s.refusals) == 0 {
		s.refusals = nil
	}
}

// appendOpen appends OPEN, unless the stream has ended already.
func (st *Stream) appendOpen(buf []byte) []byte {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil {
		return buf
	}
	st.known = true
	return wire.AppendOpen(buf, st.id, wire.Open{Kind: wire.KindTCP, RecvWindow: st.recvLimit, Target: st.target})
}

// appendControl appends the control frames that bits name.
func (st *Stream) appendControl(buf []byte, bits controlBits) []byte {
	st.mu.Lock()
	defer st.mu.Unlock()
	if bits&sendReset != 0 {
		st.s.mu.Lock()
		st.s.uncount(&st.counted, false)
		st.s.mu.Unlock()
		return wire.AppendReset(buf, st.id, st.resetCode)
	}
	if st.err != nil {
		return buf // reset meanwhile; its own bits follow
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

// sendTurn sends what the stream's turn allows, and puts it back in line when
// more may follow.
func (st *Stream) sendTurn(b *batch) {
	for st.sendPiece(b) {
	}
}

// sendPiece sends a block, or what of smaller ones fits into a message, and says
// whether the stream's turn allows another.
func (st *Stream) sendPiece(b *batch) (again bool) {
	if b.room() < inPlace {
		b.emit() // not with mu held: the session's reader needs it
	}
	st.mu.Lock()
	if !st.maySend() {
		st.mu.Unlock()
		return false
	}
	credit := st.sendLimit - st.sendBytes
	whole := st.send.head
	var n int
	early := b.early(&st.pads)
	if whole != nil && whole.size() >= inPlace && uint64(whole.size()) <= credit && (!early || !b.fits(st.id, whole.size())) {
		st.send.pop()
		n = whole.size()
	} else {
		whole = nil
		b.pad = b.pad || early
		n = min(st.send.size, b.room()-wire.MaxHeader)
		if uint64(n) > credit {
			n = int(credit)
		}
	}
	kind := wire.TypeData
	if st.closing && n == st.send.size+pendingIn(whole) {
		kind = wire.TypeFin
		st.finSent = true
	}
	if whole == nil {
		b.buf = wire.AppendFrameHeader(b.buf, kind, st.id, n)
		start := len(b.buf)
		b.buf = b.buf[:start+n]
		st.send.read(b.buf[start:])
	}
	st.sent(n, b.now)
	more := st.maySend()
	again = st.s.settle(st, n, more)
	switch {
	case st.finSent && st.recvFin:
		st.s.finish(st)
	case more && !again:
		st.s.queueData(st, false)
	}
	st.mu.Unlock()
	if whole != nil {
		b.emit() // what came before it
		b.writeBlock(record{b: whole, stream: st.id, full: st.s.fullPayload(st.id), last: kind})
	}
	return again
}

// pendingIn is what a block that was taken off the queue holds.
func pendingIn(b *block) int {
	if b == nil {
		return 0
	}
	return b.size()
}

// sent accounts for n bytes. Called with mu held.
func (st *Stream) sent(n int, now time.Time) {
	st.sendBytes += uint64(n)
	if now.Sub(st.sentAt) > sparseAfter {
		st.burst = 0
	}
	st.burst += n
	st.sentAt = now
	st.s.sent.Add(uint64(n))
	st.s.pending.Add(-int64(n))
	st.s.budget.memory.add(-int64(n))
	st.writable.Signal()
}

// writeBlock sends a block, which it owns from now on.
func (b *batch) writeBlock(r record) {
	if !b.s.resumable() {
		b.writeRecord(r, 0)
		r.b.free()
		return
	}
	r = b.s.keepBlock(r)
	b.writeRecord(r, 0)
	b.s.unpin()
}

// writeRecord sends the bytes of a stream without copying them, in frames that fill
// TLS records, but for the first skip of them. A frame's header takes the place of
// bytes before it, which were sent already and are put back.
func (b *batch) writeRecord(r record, skip uint64) {
	var space [wire.MaxHeader]byte
	var saved [blockHeadroom]byte
	for start := r.b.start + int(skip)*r.full; start < r.b.end; {
		n, kind := r.b.end-start, r.last
		if n > r.full {
			n, kind = r.full, wire.TypeData
		}
		header := wire.AppendFrameHeader(space[:0], kind, r.stream, n)
		before := r.b.buf[start-blockHeadroom : start]
		copy(saved[:], before)
		copy(before[blockHeadroom-len(header):], header)
		b.write(r.b.buf[start-len(header)-Headroom : start+n])
		copy(before, saved[:])
		start += n
	}
}
