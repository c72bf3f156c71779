// Package lazy reads from connections without holding memory while there is
// nothing to read. A connection that waits for its peer costs no buffer, and
// one that has much to say is read in large pieces.
package lazy

import (
	"net"
)

// Space gives the memory for one read.
type Space interface {
	// Take returns the space for the next bytes. It is not empty.
	Take() []byte
	// Return takes back what Take gave and no bytes came into. Wait says that
	// the caller is about to wait for bytes.
	Return(wait bool)
}

// Reader is what can be read from in this way.
type Reader interface {
	// ReadLazy waits until there is something to read, and reads it into what
	// space gives. It returns what a Read would: after an error or an end the
	// space was returned.
	ReadLazy(space Space) (int, error)
}

// NewReader returns a Reader of conn: conn itself when it is one. Where the system cannot say whether there
// is something to read (conn is no socket of the system's), the space is held
// while it waits, and every read counts as a wait: the space is returned and taken
// again before it. One goroutine may read at a time.
func NewReader(conn net.Conn) Reader {
	if r, ok := conn.(Reader); ok {
		return r
	}
	if r := newSocket(conn); r != nil {
		return r
	}
	return holding{conn}
}

// holding reads from a connection that can do nothing but Read.
type holding struct{ conn net.Conn }

func (h holding) ReadLazy(space Space) (int, error) {
	space.Take()
	space.Return(true)
	n, err := h.conn.Read(space.Take())
	if n == 0 {
		space.Return(false)
	}
	return n, err
}
