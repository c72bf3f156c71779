package relay

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"

	"github.com/httvps/httvps/sdk/go/lazy"
)

// Copy copies both ways until both directions have ended or one has failed.
// The end of one direction is passed on and leaves the other open.
func Copy(client, target net.Conn) {
	in := &source{Conn: client, lazy: lazy.NewReader(client)}
	var up sync.WaitGroup
	// sent: the client has ended its direction, and the target has all of it.
	// answered: the target has ended its own, and the client is told so; without a
	// peer is then how every connection ends.
	var sent, answered atomic.Bool
	up.Go(func() {
		_, err := io.Copy(target, in)
		switch {
		case err == nil && (!isBroken(client) || answered.Load()): // asked in this order
			closeWrite(target)
			sent.Store(true)
		case err == nil || in.err != nil:
			// Broken off, not ended: the target must not take what it has for
			// all, and nobody is left to read its answer.
			Abort(target)
			_ = client.Close()
		default:
			// The far end reads no more, but may still have something to say.
			closeRead(client)
		}
	})
	if _, err := io.Copy(client, target); err != nil {
		// Cut off, not ended: the client must not take what it has for all, and
		// neither must the target when the client has not said that it was.
		Abort(client)
		if sent.Load() {
			_ = target.Close()
		} else {
			Abort(target)
		}
	} else {
		answered.Store(true)
		closeWrite(client)
	}
	up.Wait()
}

// source remembers whether reading failed, which io.Copy does not tell from a
// failed write.
type source struct {
	net.Conn
	lazy lazy.Reader
	err  error
}

// ReadLazy implements [lazy.Reader]: a client that says nothing costs no buffer.
func (s *source) ReadLazy(space lazy.Space) (int, error) {
	n, err := s.lazy.ReadLazy(space)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Conn.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

func closeWrite(c net.Conn) {
	if half, ok := c.(interface{ CloseWrite() error }); ok {
		_ = half.CloseWrite()
		return
	}
	_ = c.Close()
}

func closeRead(c net.Conn) {
	if half, ok := c.(interface{ CloseRead() error }); ok {
		_ = half.CloseRead()
		return
	}
	_ = c.Close()
}

// Abort closes c in a way that the other end can tell from a proper end, where
// there is one.
func Abort(c net.Conn) {
	switch c := c.(type) {
	case interface{ Abort() }:
		c.Abort()
		return
	case *net.TCPConn:
		_ = c.SetLinger(0) // reset
	}
	_ = c.Close()
}
