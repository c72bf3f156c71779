// Package inproc joins two halves of one process by a listener in memory: the
// same protocol as between machines, without a network, a name or a
// certificate that could be wrong.
package inproc

import (
	"context"
	"net"
	"sync"
)

// Listener is a net.Listener whose connections come from its own Dial.
type Listener struct {
	incoming chan net.Conn
	closed   chan struct{}
	once     sync.Once
}

// New returns a listener.
func New() *Listener {
	return &Listener{incoming: make(chan net.Conn), closed: make(chan struct{})}
}

// Dial returns a connection to whoever accepts, and waits for that.
func (l *Listener) Dial(ctx context.Context) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case l.incoming <- conn{far}:
		return conn{near}, nil
	case <-l.closed:
		return nil, net.ErrClosed
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// Accept returns the next connection; net.ErrClosed after Close.
func (l *Listener) Accept() (net.Conn, error) {
	select {
	case c := <-l.incoming:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close ends Accept and Dial; connections stay.
func (l *Listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return nil
}

// Addr is loopback without a port.
func (l *Listener) Addr() net.Addr { return loopback }

var loopback = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}

// conn has the addresses of a loopback connection, for whoever reads them.
type conn struct{ net.Conn }

func (conn) LocalAddr() net.Addr  { return loopback }
func (conn) RemoteAddr() net.Addr { return loopback }
