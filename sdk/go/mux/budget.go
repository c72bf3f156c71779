package mux

import (
	"fmt"
	"sync/atomic"
	"time"
)

// DefaultBudget is what one session may hold, in bytes: granted credit with
// what arrived on it, and what waits to be sent.
const DefaultBudget = 32 << 20

// The windows of docs/03, part 7.1.
const (
	windowFloor  = 32 << 10  // what a stream is granted from its open on, at most
	windowStart  = 512 << 10 // what the first streams begin with
	startStreams = 16
	windowLater  = 64 << 10 // what others begin with, while there is enough left

	creditLeast = 256 << 10 // consumed bytes that are worth a CREDIT, when they are half of the window
	creditMost  = 1 << 20   // and that are always worth one

	maxPending = 128 << 10 // what waits to be sent on one stream, at most
	minPending = 8 << 10

	// modest is what a session may hold and still get a share of the memory that is
	// kept from all others: a few streams.
	modest = 1 << 20

	// tuneRTT is the shortest round trip that windows are tuned for. What is
	// faster waits for the scheduler and not for the network.
	tuneRTT = time.Millisecond

	// tuneWhile is the shortest time over which speed is measured.
	tuneWhile = 10 * time.Millisecond
)

// EarlyWindow is the early_window that a gateway can promise maxStreams streams
// of a session with this budget (0: [DefaultBudget]), at most wish. Bytes.
func EarlyWindow(wish, budget, maxStreams uint64) uint64 {
	if budget == 0 {
		budget = DefaultBudget
	}
	return min(wish, windowFloor, budget/4/max(maxStreams, 1))
}

// Memory is what all sessions of a process may hold together. It may be nil,
// which bounds nothing.
type Memory struct {
	limit int64
	used  atomic.Int64
}

// NewMemory returns a bound of limit bytes.
func NewMemory(limit uint64) *Memory { return &Memory{limit: int64(min(limit, 1<<62))} }

// Used is what sessions hold or have promised, in bytes.
func (m *Memory) Used() uint64 {
	if m == nil {
		return 0
	}
	return uint64(max(m.used.Load(), 0))
}

// Hold counts n bytes that something beside the sessions holds for their streams, or
// with a negative n no longer holds.
func (m *Memory) Hold(n int) { m.add(int64(n)) }

func (m *Memory) add(n int64) {
	if m != nil && n != 0 {
		m.used.Add(n)
	}
}

// tight says whether windows have to stay as they are; full that there is no room for
// another stream of a session that holds so much already. The last tenth is for those
// that hold little: what others were promised counts though they may never use it.
func (m *Memory) tight(more uint64) bool {
	return m != nil && m.used.Load()+int64(more) > m.limit/10*8
}

func (m *Memory) full(held uint64) bool {
	if m == nil {
		return false
	}
	most := m.limit
	if held >= modest {
		most = m.limit / 10 * 9
	}
	return m.used.Load() > most
}

// budget is a session's. It is guarded by Session.mu.
type budget struct {
	total    uint64
	reserved uint64 // by streams: their credit, or what of it is still unread
	grown    uint64 // the part of it above the floors
	memory   *Memory

	resumable bool // what was sent and not acknowledged has a share, too
}

// floors is the share of the floors.
func (b *budget) floors() uint64 { return b.total / 4 }

// growth is the share of windows above the floor. It is large because a window
// has to hold three times what is on the way, for BBR to find out how fast a
// path is.
func (b *budget) growth() uint64 { return b.shared() - b.historyLeast() }

// shared is the share of windows above the floor and of the history.
func (b *budget) shared() uint64 { return b.total / 16 * 11 }

// historyLeast is what windows leave to the history, whatever they grow to.
func (b *budget) historyLeast() uint64 {
	if !b.resumable {
		return 0
	}
	return b.total / 16
}

// mayKeep says whether the history may be as large as this.
func (b *budget) mayKeep(history uint64, pending int64) bool {
	if history <= b.historyLeast() {
		return true
	}
	return b.grown+history <= b.shared() && b.grown+history+uint64(max(pending, 0)) <= b.total-b.floors() && !b.memory.tight(0)
}

// pending is what each of n streams may have pending: a share of what floors,
// grown windows and the history leave.
func (b *budget) pending(n int, history uint64) uint64 {
	left := b.total - b.floors() - min(b.grown, b.growth())
	left -= min(left, max(history, b.historyLeast()))
	return min(max(left/uint64(max(n, 1)), minPending), maxPending)
}

// admit sets a stream's floor aside, or says that there is no room.
func (b *budget) admit(floor uint64) bool {
	if b.reserved-b.grown+floor > b.floors() || b.memory.full(b.reserved) {
		return false
	}
	b.reserved += floor
	b.memory.add(int64(floor))
	return true
}

// grow sets up to n bytes aside above the floor and returns how many. With a
// history, windows leave it what it holds, and what is pending its place.
func (b *budget) grow(n, history uint64, pending int64) uint64 {
	n = min(n, b.growth()-min(b.grown, b.growth()))
	if b.resumable {
		history = max(history, b.historyLeast())
		n = min(n, b.shared()-min(b.grown+history, b.shared()))
		taken := b.floors() + b.grown + history + uint64(max(pending, 0))
		n = min(n, b.total-min(taken, b.total))
	}
	if n == 0 || b.memory.tight(n) {
		return 0
	}
	b.grown += n
	b.reserved += n
	b.memory.add(int64(n))
	return n
}

// release gives n bytes back, grown of them from above the floor.
func (b *budget) release(n, grown uint64) {
	if n > b.reserved || grown > b.grown {
		panic(fmt.Sprintf("mux: %d bytes (%d grown) released of %d (%d)", n, grown, b.reserved, b.grown))
	}
	b.reserved -= n
	b.grown -= grown
	b.memory.add(-int64(n))
}

// reservation is what one stream holds of the budget. It is guarded by
// Stream.mu.
type reservation struct {
	floor, size uint64
}

func (r *reservation) grown() uint64 { return r.size - min(r.size, r.floor) }

// shrink lowers the stream's reservation to size. Called with Stream.mu held.
func (st *Stream) shrink(size uint64) {
	if size >= st.held.size {
		return
	}
	before := st.held
	st.held.size = size
	st.s.mu.Lock()
	defer st.s.mu.Unlock()
	st.s.budget.release(before.size-size, before.grown()-st.held.grown())
	st.s.share()
}

// widen raises the stream's window by up to n bytes. Called with Stream.mu
// held.
func (st *Stream) widen(n uint64) {
	st.s.mu.Lock()
	n = st.s.growLocked(n)
	st.s.share()
	st.s.mu.Unlock()
	st.held.size += n
	st.window += n
}

// growLocked sets up to n bytes aside for a window. Called with mu held.
func (s *Session) growLocked(n uint64) uint64 {
	return s.budget.grow(n, s.history.held+s.history.claim, s.pending.Load())
}

// tune doubles the window of a stream that moves half of it in a round trip:
// then the window holds the sender back, or soon will. The speed is that of at
// least a round trip and a while, because readers take in bursts what waited for
// them. Called with Stream.mu held, after n more bytes were consumed.
func (st *Stream) tune(n int) {
	if st.tunedAt.IsZero() {
		st.tunedAt = time.Now()
	}
	if st.tuned += uint64(n); st.tuned < st.window/2 {
		return
	}
	now := time.Now()
	took := now.Sub(st.tunedAt)
	if took < tuneWhile {
		return
	}
	rtt := st.s.roundTrip(now)
	if took < rtt {
		return
	}
	if inRoundTrip := float64(st.tuned) * float64(rtt) / float64(took); inRoundTrip > float64(st.window/2) {
		st.widen(st.window)
	}
	st.tuned, st.tunedAt = 0, now
}
