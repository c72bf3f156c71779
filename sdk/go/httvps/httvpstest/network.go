package httvpstest

import (
	"context"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// network is a network of one address in memory. Unlike a socket it counts as
// idle inside a testing/synctest bubble.
type network struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func newNetwork() *network {
	return &network{conns: make(chan net.Conn), closed: make(chan struct{})}
}

// dial connects to the listener, whatever the address.
func (n *network) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := pipe()
	select {
	case n.conns <- far:
		return near, nil
	case <-n.closed:
		return nil, syscall.ECONNREFUSED
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Accept returns the next connection.
func (n *network) Accept() (net.Conn, error) {
	select {
	case c := <-n.conns:
		return c, nil
	case <-n.closed:
		return nil, net.ErrClosed
	}
}

// Close ends the listener.
func (n *network) Close() error {
	n.once.Do(func() { close(n.closed) })
	return nil
}

// Addr is a name for messages.
func (n *network) Addr() net.Addr { return memoryAddr{} }

type memoryAddr struct{}

func (memoryAddr) Network() string { return "memory" }
func (memoryAddr) String() string  { return "memory" }

// pipe returns two ends of a connection that buffers what is written, as a
// socket does and net.Pipe does not.
func pipe() (near, far net.Conn) {
	a, b := newFlow(), newFlow()
	return &end{in: a, out: b}, &end{in: b, out: a}
}

// flow is one direction of a connection.
type flow struct {
	mu     sync.Mutex // guards the following fields
	cond   sync.Cond
	buf    []byte
	ended  bool      // by its writer
	closed bool      // by its reader
	until  time.Time // for its reader
	timer  *time.Timer
}

func newFlow() *flow {
	f := &flow{}
	f.cond.L = &f.mu
	return f
}

// end is one end of a connection.
type end struct{ in, out *flow }

// Read implements net.Conn.
func (e *end) Read(p []byte) (int, error) {
	f := e.in
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.closed:
			return 0, net.ErrClosed
		case !f.until.IsZero() && !time.Now().Before(f.until):
			return 0, os.ErrDeadlineExceeded
		case len(f.buf) > 0:
			n := copy(p, f.buf)
			f.buf = f.buf[n:]
			return n, nil
		case f.ended:
			return 0, io.EOF
		}
		f.cond.Wait()
	}
}

// Write implements net.Conn. It never waits.
func (e *end) Write(p []byte) (int, error) {
	f := e.out
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.ended:
		return 0, net.ErrClosed
	case f.closed:
		return 0, syscall.ECONNRESET
	}
	f.buf = append(f.buf, p...)
	f.cond.Broadcast()
	return len(p), nil
}

// Close implements net.Conn.
func (e *end) Close() error {
	e.in.mu.Lock()
	e.in.closed, e.in.buf = true, nil
	e.in.cond.Broadcast()
	e.in.mu.Unlock()
	e.out.mu.Lock()
	e.out.ended = true
	e.out.cond.Broadcast()
	e.out.mu.Unlock()
	return nil
}

// SetReadDeadline implements net.Conn.
func (e *end) SetReadDeadline(t time.Time) error {
	f := e.in
	f.mu.Lock()
	defer f.mu.Unlock()
	f.until = t
	if f.timer != nil {
		f.timer.Stop()
	}
	if !t.IsZero() {
		f.timer = time.AfterFunc(time.Until(t), func() {
			f.mu.Lock()
			defer f.mu.Unlock()
			f.cond.Broadcast()
		})
	}
	f.cond.Broadcast()
	return nil
}

// SetWriteDeadline implements net.Conn; writes never wait.
func (e *end) SetWriteDeadline(time.Time) error { return nil }

// SetDeadline implements net.Conn.
func (e *end) SetDeadline(t time.Time) error { return e.SetReadDeadline(t) }

// LocalAddr implements net.Conn.
func (e *end) LocalAddr() net.Addr { return memoryAddr{} }

// RemoteAddr implements net.Conn.
func (e *end) RemoteAddr() net.Addr { return memoryAddr{} }
