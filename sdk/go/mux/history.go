package mux

import (
	"sort"

	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// MinResumeBudget is the least budget of a session that can be resumed: its
	// share for the history has to hold more than one batch.
	MinResumeBudget = 2 << 20

	// composedMost is what the frames of one composed message cost in the history,
	// at most: blocks of three sizes, none of them full. pieceMost is what one
	// piece of a stream costs beside that: a block as it is.
	composedMost = 32 << 10
	pieceMost    = composedMost + 64<<10
)

// record is some reliable frames, one after the other, as they were sent.
type record struct {
	first  uint64 // the number of the first frame
	frames uint64
	b      *block

	// The bytes of b are whole frames or, where a stream is named, its bytes, which
	// were sent from where they are.
	stream uint64
	full   int            // bytes of each frame but the last
	last   wire.FrameType // of the last; the others are DATA
}

// history is the reliable frames that the other end has not acknowledged yet, in
// their order. It owns their blocks. It is guarded by Session.mu.
type history struct {
	records []record // [head:]
	head    int
	next    uint64 // number of the next frame; the first of a session has 1
	acked   uint64 // all up to this one have been applied
	replay  uint64 // the next one to be sent again; 0: none
	pinned  uint64 // number of the first frame of the record that is being written; 0: none
	held    uint64 // memory of the blocks
	claim   uint64 // set aside for what is being composed
}

func (h *history) tail() *record {
	if h.head == len(h.records) {
		return nil
	}
	return &h.records[len(h.records)-1]
}

func (h *history) push(r record) {
	if h.head > 0 && len(h.records) == cap(h.records) {
		n := copy(h.records, h.records[h.head:])
		clear(h.records[n:])
		h.records, h.head = h.records[:n], 0
	}
	h.records = append(h.records, r)
	h.held += uint64(len(r.b.buf))
}

// keep adds a copy of one frame.
func (h *history) keep(frame []byte) {
	tail := h.tail()
	if tail == nil || tail.stream != 0 || len(tail.b.room()) < len(frame) {
		class := classFor(len(frame))
		if tail != nil && tail.stream == 0 {
			class = max(class, min(tail.b.class+1, frameBlock))
		}
		h.push(record{first: h.next, b: newBlock(class)})
		tail = h.tail()
	}
	tail.b.end += copy(tail.b.room(), frame)
	tail.frames++
	h.next++
}

// trim frees what was acknowledged and is not being written, and returns how much
// memory that was.
func (h *history) trim() (freed uint64) {
	for h.head < len(h.records) {
		r := &h.records[h.head]
		if r.first+r.frames-1 > h.acked || h.pinned != 0 && r.first >= h.pinned {
			break
		}
		freed += uint64(len(r.b.buf))
		r.b.free()
		*r = record{}
		if h.head++; h.head == len(h.records) {
			h.records, h.head = h.records[:0], 0
		}
	}
	h.held -= freed
	return freed
}

// find returns the record with the frame of that number.
func (h *history) find(rsn uint64) record {
	list := h.records[h.head:]
	i := sort.Search(len(list), func(i int) bool { return list[i].first+list[i].frames > rsn })
	return list[i]
}

// logged notes what was added to the history or taken away. Called with mu held.
func (s *Session) logged(before uint64) {
	s.budget.memory.add(int64(s.history.held) - int64(before))
	s.share()
}

// mayKeep says whether the history has room for this much more, which is then set
// aside. Called with mu held.
func (s *Session) mayKeep(most uint64) bool {
	if !s.resumable() {
		return true
	}
	if !s.budget.mayKeep(s.history.held+most, s.pending.Load()) {
		return false
	}
	s.history.claim = most
	return true
}

// keep puts the reliable frames of a message into the history.
func (s *Session) keep(msg []byte) {
	reliable := false
	for rest := msg; len(rest) > 0; {
		f, after, err := wire.ConsumeFrame(rest)
		if err != nil {
			panic("mux: a message of our own is malformed: " + err.Error())
		}
		if f.Type.Reliable() {
			if !reliable {
				s.mu.Lock()
				defer s.mu.Unlock()
				defer s.logged(s.history.held)
				reliable = true
			}
			if s.err == nil {
				s.history.keep(rest[:len(rest)-len(after)])
			}
		}
		rest = after
	}
}

// keepBlock puts bytes of a stream that are sent from where they are into the history,
// which owns them from now on, and keeps them there until unpin.
func (s *Session) keepBlock(r record) record {
	size := r.b.size()
	if size < len(r.b.buf)/2 { // it would hold much more memory than bytes
		small := blockFor(size)
		small.end += copy(small.room(), r.b.bytes())
		r.b.free()
		r.b = small
	}
	r.frames = uint64((size + r.full - 1) / r.full)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return r // nobody will ask for it again
	}
	defer s.logged(s.history.held)
	r.first = s.history.next
	s.history.next += r.frames
	s.history.pinned = r.first
	s.history.push(r)
	return r
}

func (s *Session) unpin() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.history.pinned = 0
	s.trimLocked()
}

func (s *Session) trimLocked() {
	if s.err != nil {
		return // all was given back
	}
	before := s.history.held
	if s.history.trim() > 0 {
		s.logged(before)
		s.wake() // something may have waited for room
	}
}

// acknowledge notes that the other end has applied all frames up to rsn. Called with
// mu held.
func (s *Session) acknowledge(rsn uint64) error {
	if rsn >= s.history.next {
		return protocolError("acknowledged: frames that were never sent")
	}
	if rsn > s.history.acked {
		s.history.acked = rsn
		s.alive.inVain.Store(0)
		s.trimLocked()
	}
	return nil
}

// forgetHistory gives all of it back. The blocks are left to the garbage collector:
// one of them may be on its way. Called with mu held.
func (s *Session) forgetHistory() {
	s.budget.memory.add(-int64(s.history.held))
	s.history = history{next: s.history.next, acked: s.history.acked}
}

// composeReplay adds frames that were sent before to the batch. Called with mu held,
// which it gives up.
func (s *Session) composeReplay(b *batch) {
	h := &s.history
	b.replaying = true
	h.replay = max(h.replay, h.acked+1)
	if h.replay < h.next {
		if r := h.find(h.replay); r.stream == 0 {
			n, crowded := b.again(r, h.replay-r.first)
			if h.replay += n; crowded {
				s.mu.Unlock()
				b.emit()
				s.mu.Lock()
			}
		} else {
			h.pinned = r.first
			from := h.replay - r.first
			h.replay = r.first + r.frames
			s.mu.Unlock()
			b.emit()
			b.writeRecord(r, from)
			s.mu.Lock()
			h.pinned = 0
			s.trimLocked()
		}
	}
	done := h.replay >= h.next
	if done {
		h.replay = 0
	}
	s.mu.Unlock()
	if done {
		b.emit()
		b.replaying = false
	}
}

// again copies the frames of a record but for the first skip into the message, as
// many as fit.
func (b *batch) again(r record, skip uint64) (n uint64, crowded bool) {
	for rest := r.b.bytes(); len(rest) > 0; {
		_, after, err := wire.ConsumeFrame(rest)
		if err != nil {
			panic("mux: the history is malformed: " + err.Error())
		}
		frame := rest[:len(rest)-len(after)]
		rest = after
		if skip > 0 {
			skip--
			continue
		}
		if len(frame) > b.room() {
			return n, true
		}
		b.buf = append(b.buf, frame...)
		n++
	}
	return n, false
}
