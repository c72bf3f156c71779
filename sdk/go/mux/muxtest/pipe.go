// Package muxtest plays the parts around a session in tests: a carrier in
// memory and a scripted peer that sends and expects frames one by one.
package muxtest

import (
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
)

const (
	// PipeMessages is how many messages a pipe without delay holds in each
	// direction.
	PipeMessages = 4

	// delayedMessages is how many one with a delay holds: enough for 64 MiB on
	// their way, in full TLS records.
	delayedMessages = 4096
)

// errUnread says that a session did not keep to what mux.Messages asks.
var errUnread = errors.New("muxtest: Next before the message was read to its end")

// message is one on its way.
type message struct {
	bytes []byte
	at    time.Time // when it arrives
}

// End is one end of a carrier in memory.
type End struct {
	in     <-chan message
	out    chan<- message
	delay  time.Duration
	closed chan struct{}
	peer   *End
	once   sync.Once

	breakAt atomic.Int64 // see BreakAfter

	ahead   *message // taken from in, and not arrived yet
	unread  []byte   // what is left of the message that Next began
	wait    func()   // see BeforeWait
	mu      sync.Mutex
	expired chan struct{} // guarded by mu, like timer
	timer   *time.Timer
}

var _ mux.Messages = (*End)(nil)

// Pipe returns the two ends of a carrier that holds four messages each way and
// then blocks its writer.
func Pipe() (a, b *End) { return newPipe(PipeMessages, 0) }

// DelayedPipe returns the two ends of a carrier on which every message takes
// this long, and that holds as many as may be on their way meanwhile.
func DelayedPipe(oneWay time.Duration) (a, b *End) { return newPipe(delayedMessages, oneWay) }

func newPipe(size int, delay time.Duration) (a, b *End) {
	ab, ba := make(chan message, size), make(chan message, size)
	a = &End{in: ba, out: ab, delay: delay, closed: make(chan struct{}), expired: make(chan struct{})}
	b = &End{in: ab, out: ba, delay: delay, closed: make(chan struct{}), expired: make(chan struct{})}
	a.peer, b.peer = b, a
	return a, b
}

// arrived says whether ReadMessage has something to return at once.
func (e *End) arrived() bool {
	if e.ahead == nil {
		select {
		case m := <-e.in:
			e.ahead = &m
		default:
			return false
		}
	}
	return !e.ahead.at.After(time.Now())
}

// ReadMessage returns the next message. After the other end closed it gives
// what is left and then io.EOF.
func (e *End) ReadMessage(buf []byte) ([]byte, error) {
	if !e.arrived() {
		if err := e.await(); err != nil {
			return nil, err
		}
	}
	m := e.ahead
	e.ahead = nil
	return append(buf[:0], m.bytes...), nil
}

// await waits until a message has arrived.
func (e *End) await() error {
	if e.ahead == nil {
		select {
		case m := <-e.in:
			e.ahead = &m
		case <-e.closed:
			return net.ErrClosed
		case <-e.peer.closed:
			if !e.arrived() && e.ahead == nil {
				return io.EOF
			}
		}
	}
	left := time.Until(e.ahead.at)
	if left <= 0 {
		return nil
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-e.closed:
		return net.ErrClosed
	}
}

// Next begins the next message.
func (e *End) Next() (int, error) {
	if len(e.unread) > 0 {
		return 0, errUnread
	}
	if !e.arrived() && e.wait != nil {
		e.wait()
	}
	var err error
	if e.unread, err = e.ReadMessage(nil); err != nil {
		return 0, err
	}
	return len(e.unread), nil
}

// BreakAfter has the carrier break when n more bytes were read here, be it within a
// message.
func (e *End) BreakAfter(n int) { e.breakAt.Store(int64(n) + 1) }

// ReadFull fills p with the next bytes of the message.
func (e *End) ReadFull(p []byte) error {
	if len(p) > len(e.unread) {
		return io.ErrUnexpectedEOF
	}
	if e.breakAt.Load() > 0 && e.breakAt.Add(-int64(len(p))) <= 0 {
		_ = e.Close()
		return net.ErrClosed
	}
	e.unread = e.unread[copy(p, e.unread):]
	return nil
}

// BeforeWait has f called before Next waits.
func (e *End) BeforeWait(f func()) { e.wait = f }

// Flush does nothing: the pipe holds nothing back.
func (e *End) Flush() error { return nil }

// WriteReserved sends buf[mux.Headroom:] and scrambles the space before it, where a
// carrier puts its header.
func (e *End) WriteReserved(buf []byte) error {
	m := append([]byte(nil), buf[mux.Headroom:]...)
	for i := range mux.Headroom {
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
	case <-expired:
		return os.ErrDeadlineExceeded
	default:
	}
	select {
	case e.out <- message{m, time.Now().Add(e.delay)}:
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

// Abort is Close.
func (e *End) Abort() error { return e.Close() }
