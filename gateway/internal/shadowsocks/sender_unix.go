//go:build unix

package shadowsocks

import (
	"errors"
	"net"
	"os"
	"syscall"
)

// patient sends to a socket of the system's. While that takes nothing no buffer is
// held: what it did not take is sealed again, to the same bytes, when it does. A
// server or a target that reads no more thus costs no memory but the system's.
type patient struct {
	conn Stream
	raw  syscall.RawConn
	try  func(fd uintptr) bool // kept, so that a write allocates nothing

	// Of the send under way.
	c     *Conn
	p     []byte // that is still to be sent
	taken int    // bytes of its first piece, sealed, that the system has
	n     int
	err   error
}

func newSender(stream Stream) sender {
	if c, ok := stream.(syscall.Conn); ok {
		if raw, err := c.SyscallConn(); err == nil {
			s := &patient{conn: stream, raw: raw}
			s.try = s.write
			return s
		}
	}
	return whole{stream}
}

func (s *patient) send(c *Conn, p []byte) (int, error) {
	s.c, s.p, s.taken, s.n, s.err = c, p, 0, 0, nil
	err := s.raw.Write(s.try)
	s.c, s.p = nil, nil
	if err == nil && s.err != nil {
		err = &net.OpError{
			Op: "write", Net: s.conn.LocalAddr().Network(), Source: s.conn.LocalAddr(), Addr: s.conn.RemoteAddr(),
			Err: os.NewSyscallError("write", s.err),
		}
	}
	return s.n, err
}

// write seals and writes once. False means to wait until the socket takes more.
func (s *patient) write(fd uintptr) bool {
	buf := writeBuffers.Get().(*[writeBuffer]byte) //nolint:errcheck // the pool has no others
	defer writeBuffers.Put(buf)
	var room [maxPieces]piece
	out, pieces := s.c.sealSome(buf[:0], s.p, room[:0])
	out = out[s.taken:]
	for len(out) > 0 {
		n, err := syscall.Write(int(fd), out)
		switch {
		case err == nil:
			out = out[n:]
			s.taken += n
		case errors.Is(err, syscall.EINTR):
		default:
			s.settle(pieces)
			if errors.Is(err, syscall.EAGAIN) {
				return false
			}
			s.err = err
			return true
		}
	}
	s.settle(pieces)
	return true
}

// settle counts the pieces that the system has taken whole.
func (s *patient) settle(pieces []piece) {
	for _, piece := range pieces {
		if s.taken < piece.sealed {
			return
		}
		s.taken -= piece.sealed
		s.n += piece.plain
		s.p = s.p[piece.plain:]
		s.c.passed()
	}
}
