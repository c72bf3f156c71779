//go:build unix

package lazy

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"
)

// socket reads from a socket of the system's.
type socket struct {
	conn net.Conn
	raw  syscall.RawConn
	try  func(fd uintptr) bool // kept, so that a read allocates nothing

	space Space // of the read under way, like n and err
	n     int
	err   error
}

func newSocket(conn net.Conn) Reader {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil
	}
	s := &socket{conn: conn, raw: raw}
	s.try = s.read
	return s
}

func (s *socket) ReadLazy(space Space) (int, error) {
	s.space = space
	err := s.raw.Read(s.try)
	s.space = nil
	switch {
	case err != nil: // closed, or a deadline: nothing is held
		return 0, err
	case s.err != nil:
		return 0, s.fault(s.err)
	case s.n == 0:
		return 0, io.EOF
	}
	return s.n, nil
}

// read tries once. False means to wait until the socket is readable.
func (s *socket) read(fd uintptr) bool {
	p := s.space.Take()
	for {
		s.n, s.err = syscall.Read(int(fd), p)
		if !errors.Is(s.err, syscall.EINTR) {
			break
		}
	}
	wait := errors.Is(s.err, syscall.EAGAIN)
	if s.err != nil || s.n <= 0 {
		s.n = 0
		s.space.Return(wait)
	}
	return !wait
}

// fault dresses a system's error as package net does.
func (s *socket) fault(err error) error {
	return &net.OpError{
		Op: "read", Net: s.conn.LocalAddr().Network(), Source: s.conn.LocalAddr(), Addr: s.conn.RemoteAddr(),
		Err: os.NewSyscallError("read", err),
	}
}
