package mux

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/httvps/httvps/sdk/go/wire"
)

// directLeast is the least payload that is read straight into its stream's
// memory. A message with less, or with more than one frame, is read whole first.
const directLeast = 256

// headSize is read of every message before it is decided how to read the rest:
// a DATA header, and little of the payload.
const headSize = 16

// keptMost is how many bytes are read, at most, before streams' readers are told
// of them, when the carrier never has to wait.
const keptMost = 256 << 10

// readPool holds the space for messages that are read whole.
var readPool = sync.Pool{New: func() any {
	b := make([]byte, wire.MaxMessage)
	return &b
}}

// reading is what belongs to the session's reader alone.
type reading struct {
	conn    Messages
	waited  bool // for the carrier that is being read
	head    [headSize]byte
	small   [512]byte // for most messages that are read whole
	arrived []*Stream // have bytes that their readers do not know of yet
	into    *Stream   // whose memory is being read into
	kept    int       // bytes read since readers were last told
	unread  int       // bytes that are left of a message with a fault
	flood   flood
	bytes   atomic.Uint64 // payload received; others may look

	// How many reliable frames have been acted on, and their payload. Others may look.
	rsn, reliable atomic.Uint64
}

// readMessages is the session's one reader. It never waits for anything but
// the carrier, and returns when that has ended, or the session.
func (s *Session) readMessages(at attachment) {
	s.in.conn, s.in.unread, s.in.waited = at.conn, 0, false
	at.conn.BeforeWait(s.beforeWait)
	var err error
	if len(at.first) > 0 {
		err = s.readFrames(at.first)
	}
	for ; ; err = s.readMessage() {
		if err == nil {
			continue
		}
		s.deliver()
		broken, ok := errors.AsType[*wire.Error](err)
		failed, fatal := errors.AsType[*carrierError](err)
		if !ok {
			if fatal {
				err = failed.error
				if s.resumable() {
					s.lose(at.conn, err)
					return
				}
			}
			s.end(err, nil)
			return
		}
		s.closeWith(broken.Code, broken.What)
		if fatal {
			s.skipAll()
			return
		}
	}
}

// carrierError is a *wire.Error that the carrier found. It may not be able to go
// on.
type carrierError struct{ error }

func (e *carrierError) Unwrap() error { return e.error }

// skipAll reads on after an error of the peer's, until the carrier closes, for
// the sake of our goodbye.
func (s *Session) skipAll() {
	for {
		size, err := s.in.conn.Next()
		if err == nil {
			err = s.skip(size)
		}
		if _, ok := errors.AsType[*wire.Error](err); err != nil && !ok {
			return
		}
	}
}

// skip throws the next n bytes of the message away.
func (s *Session) skip(n int) error {
	for n > 0 {
		m := min(n, len(s.in.small))
		if err := s.in.conn.ReadFull(s.in.small[:m]); err != nil {
			return err
		}
		n -= m
	}
	return nil
}

// readMessage reads and acts on one message. After the session's end it only
// reads: our goodbye is on its way, and the peer is to hang up.
func (s *Session) readMessage() error {
	if s.in.unread > 0 {
		if err := s.skip(s.in.unread); err != nil {
			return &carrierError{err}
		}
		s.in.unread = 0
	}
	size, err := s.in.conn.Next()
	if err != nil {
		return &carrierError{err}
	}
	s.alive.noteReceived()
	if s.Err() != nil {
		return s.skip(size)
	}
	head := s.in.head[:min(size, headSize)]
	if err := s.in.conn.ReadFull(head); err != nil {
		return &carrierError{err}
	}
	if f, n, ok := directFrame(head, size); ok {
		return s.readDirect(f, head[n:])
	}
	msg := s.in.small[:min(size, len(s.in.small))]
	if size > len(msg) {
		space, _ := readPool.Get().(*[]byte)
		defer readPool.Put(space)
		msg = (*space)[:size]
	}
	copy(msg, head)
	if err := s.in.conn.ReadFull(msg[len(head):]); err != nil {
		return &carrierError{err}
	}
	return s.readFrames(msg)
}

// direct is a DATA or FIN that is alone in its message.
type direct struct {
	kind   wire.FrameType
	stream uint64
	size   int
}

// directFrame says whether a message of this size, which begins with head, is
// one long DATA or FIN, and how long its header is. It says no whenever
// something is odd, so that everything odd is judged in one place.
func directFrame(head []byte, size int) (f direct, header int, ok bool) {
	if size < directLeast {
		return direct{}, 0, false
	}
	f.kind = wire.FrameType(head[0])
	if f.kind != wire.TypeData && f.kind != wire.TypeFin {
		return direct{}, 0, false
	}
	id, n, err := wire.ConsumeVarint(head[1:])
	if err != nil {
		return direct{}, 0, false
	}
	header = 1 + n
	length, n, err := wire.ConsumeVarint(head[header:])
	header += n
	if err != nil || length > wire.MaxFramePayload || id%2 == 0 || header+int(length) != size {
		return direct{}, 0, false
	}
	f.stream, f.size = id, int(length)
	return f, header, true
}

// readDirect reads a frame's payload into its stream's memory. got is the
// payload's beginning, which was read already.
func (s *Session) readDirect(f direct, got []byte) error {
	st, err := s.streamFor(f.kind, f.stream)
	wanted := false
	if err == nil && st != nil {
		wanted, err = st.expect(f.kind, f.size)
	}
	if err != nil { // judged now: the rest may take its time
		s.in.unread = f.size - len(got)
		return err
	}
	s.in.bytes.Add(uint64(f.size))
	if wanted {
		err = s.readInto(st, f.size, got)
	} else {
		err = s.skip(f.size - len(got))
	}
	if err != nil {
		if st != nil {
			st.takeBack(f.size, wanted)
		}
		return &carrierError{err}
	}
	if f.kind == wire.TypeFin && st != nil {
		st.mu.Lock()
		defer st.mu.Unlock()
		st.deliver()
		st.finished()
	}
	s.applied(f.size)
	return nil
}

// takeBack undoes expect for a frame that did not come to its end: it will come again
// if the session goes on.
func (st *Stream) takeBack(n int, wanted bool) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil {
		return
	}
	st.recvBytes -= uint64(n)
	if !wanted {
		st.consumed -= uint64(n)
	}
}

// readInto reads n bytes, of which got came already, to the end of what the
// stream has. Its reader learns of them with deliver.
func (s *Session) readInto(st *Stream, n int, got []byte) error {
	b := st.arriving
	if b != nil && len(b.room()) < n {
		st.mu.Lock()
		st.deliver()
		st.mu.Unlock()
		b = nil
	}
	if b == nil {
		class := classFor(n)
		if st.bulk {
			class = bulkBlock
		}
		b = newBlock(class)
		st.arriving, st.bulk = b, false
		s.in.arrived = append(s.in.arrived, st)
	} else {
		st.bulk = true // more than one frame between two waits
	}
	s.in.into = st
	space := b.room()[:n]
	copy(space, got)
	err := s.in.conn.ReadFull(space[len(got):])
	s.in.into = nil
	if err != nil {
		return err
	}
	b.end += n
	if s.in.kept += n; s.in.kept >= keptMost {
		s.deliver()
	}
	return nil
}

// beforeWait is called before the carrier waits: whatever it had has been read.
func (s *Session) beforeWait() {
	if s.in.waited { // the first wait is for the first byte
		s.alive.noteReceived()
	}
	s.in.waited = true
	s.deliver()
	s.ackBeforeWait()
}

// deliver tells streams' readers what has arrived: once for all that came
// together.
func (s *Session) deliver() {
	s.in.kept = 0
	if len(s.in.arrived) == 0 {
		return
	}
	left := s.in.arrived[:0]
	for _, st := range s.in.arrived {
		st.mu.Lock()
		if st == s.in.into { // its block is still being read into
			st.deliverCopy()
			left = append(left, st)
		} else {
			st.deliver()
		}
		st.mu.Unlock()
	}
	clear(s.in.arrived[len(left):])
	s.in.arrived = left
}

// deliver hands the bytes that have arrived to the stream's reader. Called by
// the session's reader, with mu held.
func (st *Stream) deliver() {
	b := st.arriving
	if b == nil {
		return
	}
	st.arriving = nil
	switch {
	case b.size() == 0, st.err != nil, st.readClosed:
		b.free()
	default:
		st.recv.push(b)
		st.readable.Signal()
	}
}

// deliverCopy hands over what is whole in a block that is being read into.
func (st *Stream) deliverCopy() {
	b := st.arriving
	if b.size() == 0 {
		return
	}
	if st.err == nil && !st.readClosed {
		st.recv.write(b.bytes())
		st.readable.Signal()
	}
	b.start = b.end
}
