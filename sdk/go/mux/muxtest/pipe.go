// Package muxtest plays the parts around a session in tests: a carrier in
// memory and a scripted peer that sends and expects frames one by one.
package muxtest

import (
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
)

// pipeMessages is how many messages a pipe holds in each direction.
const pipeMessages = 4

// End is one end of a carrier in memory.
type End struct {
	in     <-chan []byte
	out    chan<- []byte
	closed chan struct{}
	peer   *End
	once   sync.Once

	mu      sync.Mutex // guards expired and timer
	expired chan struct{}
	timer   *time.Timer
}

var _ mux.Messages = (*End)(nil)

// Pipe returns the two ends of a carrier that holds four messages each way and
// then blocks its writer.
func Pipe() (a, b *End) {
	ab, ba := make(chan []byte, pipeMessages), make(chan []byte, pipeMessages)
	a = &End{in: ba, out: ab, closed: make(chan struct{}), expired: make(chan struct{})}
	b = &End{in: ab, out: ba, closed: make(chan struct{}), expired: make(chan struct{})}
	a.peer, b.peer = b, a
	return a, b
}

// ReadMessage returns the next message. After the other end closed it gives
// what is left and then io.EOF.
func (e *End) ReadMessage(buf []byte) ([]byte, error) {
	select {
	case m := <-e.in:
		return append(buf[:0], m...), nil
	default:
	}
	select {
	case m := <-e.in:
		return append(buf[:0], m...), nil
	case <-e.closed:
		return nil, net.ErrClosed
	case <-e.peer.closed:
		select {
		case m := <-e.in:
			return append(buf[:0], m...), nil
		default:
			return nil, io.EOF
		}
	}
}

// WriteReserved sends buf[mux.Headroom:] and scrambles buf, as a carrier that
// masks in place does.
func (e *End) WriteReserved(buf []byte) error {
	m := append([]byte(nil), buf[mux.Headroom:]...)
	for i := range buf {
		buf[i] ^= 0x5a
	}
	return e.write(m)
}

// WriteMessage sends m.
func (e *End) WriteMessage(m []byte) error { return e.write(append([]byte(nil), m...)) }

func (e *End) write(m []byte) error {
	e.mu.Lock()
	expired := e.expired
	e.mu.Unlock()
	select {
	case <-e.closed:
		return net.ErrClosed
	case <-e.peer.closed:
		return io.ErrClosedPipe
	default:
	}
	select {
	case e.out <- m:
		return nil
	case <-e.closed:
		return net.ErrClosed
	case <-e.peer.closed:
		return io.ErrClosedPipe
	case <-expired:
		return os.ErrDeadlineExceeded
	}
}

// SetWriteDeadline bounds writes, one that is under way included when the
// bound comes nearer.
func (e *End) SetWriteDeadline(t time.Time) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.timer != nil && !e.timer.Stop() {
		e.expired = make(chan struct{})
	}
	e.timer = nil
	if !t.IsZero() {
		expired := e.expired
		e.timer = time.AfterFunc(time.Until(t), func() { close(expired) })
	}
	return nil
}

// Close closes this end. The other reads what was sent and then io.EOF.
func (e *End) Close() error {
	e.once.Do(func() {
		close(e.closed)
		_ = e.SetWriteDeadline(time.Time{})
	})
	return nil
}
