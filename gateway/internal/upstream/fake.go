package upstream

import (
	"context"
	"net"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

// Echo is a target that sends back what it gets, the end of its input
// included. It touches no network.
type Echo struct{}

// Dial returns a new echo, whatever the target.
func (Echo) Dial(context.Context, wire.Addr) (Conn, error) {
	in, out := net.Pipe()
	return &echo{Conn: out, in: in}, nil
}

// echo is read from one end of a pipe and written to the other.
type echo struct {
	net.Conn
	in net.Conn
}

func (e *echo) Write(p []byte) (int, error) { return e.in.Write(p) }

// CloseWrite lets the reader see the end after all that was written.
func (e *echo) CloseWrite() error { return e.in.Close() }

func (e *echo) Close() error {
	_ = e.in.Close() // closing a pipe does not fail
	return e.Conn.Close()
}

func (e *echo) SetWriteDeadline(t time.Time) error { return e.in.SetWriteDeadline(t) }

func (e *echo) SetDeadline(t time.Time) error {
	if err := e.in.SetWriteDeadline(t); err != nil {
		return err
	}
	return e.SetReadDeadline(t)
}

// Devnull is a target that swallows what it gets and answers nothing but the
// end of its input. It touches no network.
type Devnull struct{}

// Dial returns a new sink, whatever the target.
func (Devnull) Dial(context.Context, wire.Addr) (Conn, error) {
	in, out := net.Pipe()
	return &devnull{Conn: out, in: in}, nil
}

// devnull is read from a pipe that nobody writes to. Its writes never wait,
// so they have no use for a deadline.
type devnull struct {
	net.Conn
	in     net.Conn
	closed atomic.Bool
}

func (d *devnull) Write(p []byte) (int, error) {
	if d.closed.Load() {
		return 0, net.ErrClosed
	}
	return len(p), nil
}

// CloseWrite lets the reader see the end.
func (d *devnull) CloseWrite() error {
	d.closed.Store(true)
	return d.in.Close()
}

func (d *devnull) Close() error {
	d.closed.Store(true)
	_ = d.in.Close() // closing a pipe does not fail
	return d.Conn.Close()
}

func (d *devnull) SetWriteDeadline(time.Time) error { return nil }

func (d *devnull) SetDeadline(t time.Time) error { return d.SetReadDeadline(t) }
