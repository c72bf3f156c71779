package mux

// listID numbers the lists of a session that a stream can be in.
type listID int

const (
	controlList listID = iota // has control frames to send
	dataList                  // has bytes to send, and credit
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
