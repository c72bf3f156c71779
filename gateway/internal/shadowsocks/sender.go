package shadowsocks

import "io"

// maxPieces are in what one write sends.
const maxPieces = writeBuffer/MaxPayload + 2

// sender sends what a connection seals.
type sender interface {
	// send sends as much of p as one write takes, and returns how much that is.
	// The error is final.
	send(c *Conn, p []byte) (int, error)
}

// whole sends to what can do nothing but Write, which holds a buffer meanwhile.
type whole struct{ w io.Writer }

func (s whole) send(c *Conn, p []byte) (int, error) {
	buf := writeBuffers.Get().(*[writeBuffer]byte) //nolint:errcheck // the pool has no others
	defer writeBuffers.Put(buf)
	var room [maxPieces]piece
	out, pieces := c.sealSome(buf[:0], p, room[:0])
	if _, err := s.w.Write(out); err != nil {
		return 0, err
	}
	n := 0
	for _, piece := range pieces {
		c.passed()
		n += piece.plain
	}
	return n, nil
}
