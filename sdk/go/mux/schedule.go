package mux

import "time"

// The order of sending, docs/03, part 8.2.
const (
	// batchSize is how much is composed before it is sent, at least, when there
	// is so much: small enough not to stand in the way of what comes meanwhile.
	batchSize = 64 << 10

	quantum     = 16 << 10              // bytes of a turn
	sparseTurns = 4                     // turns of sparse streams for each of the bulk streams
	bulkAfter   = 256 << 10             // bytes without a pause that make a stream bulk
	sparseAfter = 50 * time.Millisecond // the pause that ends it
)

// listID numbers the lists of a session that a stream can be in.
type listID int

const (
	controlList listID = iota // has control frames to send
	sparseList                // has bytes to send, and credit, and sent little lately
	bulkList                  // likewise, and sent much
	numLists
)

// list is a queue of streams, linked through them: being listed costs no
// memory, and no stream is in a list twice.
type list struct {
	id         listID
	head, tail *Stream
}

func (l *list) push(st *Stream) {
	if st.listed[l.id] {
		return
	}
	st.listed[l.id] = true
	if l.tail == nil {
		l.head = st
	} else {
		l.tail.link[l.id] = st
	}
	l.tail = st
}

func (l *list) pop() *Stream {
	st := l.head
	if st == nil {
		return nil
	}
	l.head, st.link[l.id] = st.link[l.id], nil
	if l.head == nil {
		l.tail = nil
	}
	st.listed[l.id] = false
	return st
}

// opening is an OPEN to be sent: of a stream or of a flow.
type opening struct {
	stream *Stream
	flow   *Flow
}

// fifo is a queue in a slice that is used again.
type fifo[T any] struct {
	items []T
	first int
}

func (q *fifo[T]) push(item T) {
	if q.first > 0 && len(q.items) == cap(q.items) {
		n := copy(q.items, q.items[q.first:])
		clear(q.items[n:])
		q.items, q.first = q.items[:n], 0
	}
	q.items = append(q.items, item)
}

func (q *fifo[T]) len() int { return len(q.items) - q.first }

func (q *fifo[T]) empty() bool { return q.len() == 0 }

func (q *fifo[T]) pop() T {
	var none T
	item := q.items[q.first]
	q.items[q.first] = none
	if q.first++; q.first == len(q.items) {
		q.items, q.first = q.items[:0], 0
		if cap(q.items) > 64 {
			q.items = nil
		}
	}
	return item
}

// schedule is what waits to be sent, and in what order. It is guarded by
// Session.mu.
type schedule struct {
	opens  fifo[opening]
	flows  fifo[*Flow] // each at most once
	lists  [numLists]list
	sparse int // turns of sparse streams since one of the bulk streams
	flowed int // turns of flows since one of a stream
}

func (q *schedule) init() {
	for id := range q.lists {
		q.lists[id].id = listID(id)
	}
}

func (q *schedule) empty() bool { return q.noControl() && q.noData() }

// noControl says that nothing waits but bytes of streams.
func (q *schedule) noControl() bool {
	return q.opens.empty() && q.flows.empty() && q.lists[controlList].head == nil
}

func (q *schedule) noData() bool {
	return q.lists[sparseList].head == nil && q.lists[bulkList].head == nil
}

// nextFlow takes the flow off whose turn it is to send; nil when there is none,
// or when streams have waited for as many as sparse ones may have before bulk.
func (q *schedule) nextFlow() *Flow {
	waiting := q.lists[sparseList].head != nil || q.lists[bulkList].head != nil
	if q.flows.empty() || waiting && q.flowed >= sparseTurns {
		q.flowed = 0
		return nil
	}
	q.flowed++
	f := q.flows.pop()
	f.listed = false
	return f
}

// next takes the stream off whose turn it is to send bytes; nil when there is
// none.
func (q *schedule) next() *Stream {
	class := sparseList
	if q.lists[bulkList].head != nil && (q.lists[sparseList].head == nil || q.sparse >= sparseTurns) {
		class, q.sparse = bulkList, 0
	} else {
		q.sparse++
	}
	l := &q.lists[class]
	for {
		st := l.pop()
		if st == nil {
			return nil
		}
		// Deficit round robin: what a stream sent beyond its quantum is taken
		// off its next turns.
		if st.deficit += quantum; st.deficit > 0 || l.head == nil {
			return st
		}
		l.push(st)
	}
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
	s.schedule.lists[controlList].push(st)
	s.wake()
}

// queueData puts a stream in line that has bytes to send. It wakes the writer, or
// leaves it to a caller who can to call write, when nothing else waits: a stream
// does not send for all others. Called with st.mu held.
func (s *Session) queueData(st *Stream, can bool) (own bool) {
	class := sparseList
	if st.burst > bulkAfter {
		if time.Since(st.sentAt) > sparseAfter {
			st.burst = 0
		} else {
			class = bulkList
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil || st.listed[sparseList] || st.listed[bulkList] {
		return false
	}
	own = can && !s.writing && s.schedule.empty()
	s.schedule.lists[class].push(st)
	if !own {
		s.wake()
	}
	return own
}

// settle accounts for n bytes that a stream sent in its turn, and says whether it
// may send more in the same. What it did not use is lost when it has no more.
func (s *Session) settle(st *Stream, n int, more bool) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.deficit -= n
	if st.deficit > 0 && more && s.mayKeep(pieceMost) {
		return true
	}
	// The lower bound is for who was alone: to those who come later it owes
	// nothing.
	st.deficit = max(min(st.deficit, 0), -bulkPayload)
	return false
}

// queueFlow puts a flow in line. Called with mu held.
func (s *Session) queueFlow(f *Flow) {
	if s.err != nil || f.listed {
		return
	}
	f.listed = true
	s.schedule.flows.push(f)
	s.wake()
}
