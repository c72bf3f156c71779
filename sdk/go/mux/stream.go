package mux

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// maxPending is how much a stream holds that was written and not yet
	// sent; a writer waits beyond it.
	maxPending = 64 << 10

	// linger is how long a closed stream may take to send its last bytes to
	// a peer that gives no credit.
	linger = 30 * time.Second
)

// errUnconfirmed is returned by Write before Confirm.
var errUnconfirmed = errors.New("the stream is not confirmed yet")

// Stream is one TCP connection inside a session: a net.Conn with half-close.
// All of its methods may be called from any goroutine; one Read and one Write
// make sense at a time.
type Stream struct {
	s      *Session
	id     uint64
	kind   wire.Kind
	target wire.Addr

	// The session's lists that the stream is in. Guarded by Session.mu.
	link    [numLists]*Stream
	listed  [numLists]bool
	control controlBits // control frames to be sent
	counted bool        // the stream counts towards max_streams

	mu       sync.Mutex // guards everything below
	readable sync.Cond
	writable sync.Cond
	readBy   deadline
	writeBy  deadline
	err      error // ends both directions: reset, or the session's end
	known    bool  // the peer has heard of the stream
	opened   bool  // OPENED was sent or received
	onStop   func()
	linger   *time.Timer

	recv       queue
	recvBytes  uint64 // arrived, from the stream's first byte
	consumed   uint64 // of these, taken by the reader or thrown away
	recvLimit  uint64 // credit granted
	window     uint64 // how far recvLimit is kept ahead of consumed
	reserved   uint64 // what the stream holds of the session's budget
	recvFin    bool
	readClosed bool

	send      queue
	sendBytes uint64 // sent, from the stream's first byte
	sendLimit uint64 // credit received
	closing   bool   // FIN follows the queue
	finSent   bool
	sendErr   error // the peer sent STOP

	openLimit uint64 // recvLimit as OPEN or OPENED told it
	stopCode  wire.Code
	resetCode wire.Code
}

// controlBits are the control frames that a stream has to send. A set and not
// a queue: that bounds them, and coalesces credit.
type controlBits uint8

const (
	sendOpen controlBits = 1 << iota
	sendOpened
	sendCredit
	sendStop
	sendReset
)

func newStream(s *Session, id uint64, kind wire.Kind, target wire.Addr) *Stream {
	st := &Stream{s: s, id: id, kind: kind, target: target}
	st.readable.L = &st.mu
	st.writable.L = &st.mu
	return st
}

// ID is the stream's number on the wire.
func (st *Stream) ID() uint64 { return st.id }

// Kind is what OPEN asked for.
func (st *Stream) Kind() wire.Kind { return st.kind }

// Target is where OPEN asked to go.
func (st *Stream) Target() wire.Addr { return st.target }

// Confirm tells the client that its target has accepted the connection. It
// fails when the stream or its session has ended meanwhile.
func (st *Stream) Confirm() error {
	window := st.s.grant(st.s.limits.EarlyWindow)
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil || st.opened {
		st.s.release(window)
		return st.err
	}
	st.reserved += window
	st.window += window
	if !st.recvFin {
		st.recvLimit = max(st.recvLimit, st.consumed+st.window)
	}
	st.opened = true
	st.openLimit = st.recvLimit
	st.s.queueControl(st, sendOpened)
	st.sendable() // an empty FIN, when the client has sent STOP already
	return nil
}

// OnStop has f called once, when the peer no longer reads this stream: it said
// STOP, one end reset the stream, or the session ended. A relay that waits for
// bytes to write would otherwise not learn of it. f must not block and must not
// use the stream. When it has happened already, f is called at once.
func (st *Stream) OnStop(f func()) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil || st.sendErr != nil {
		f()
		return
	}
	st.onStop = f
}

// Err is why both directions ended at once: a *StreamError after a reset, an
// error that wraps [ErrEnded] after the session's end. It is nil while the stream
// lives, and when its directions ended one by one.
func (st *Stream) Err() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.err
}

// stopped calls what OnStop was given. Called with mu held.
func (st *Stream) stopped() {
	if st.onStop != nil {
		st.onStop()
		st.onStop = nil
	}
}

// Read reads bytes that the peer sent. It returns io.EOF after the peer's FIN,
// a *StreamError after a reset, an error that wraps [ErrEnded] after the
// session's end, net.ErrClosed after CloseRead and os.ErrDeadlineExceeded.
func (st *Stream) Read(p []byte) (int, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	if err := st.waitReadable(); err != nil {
		return 0, err
	}
	n := st.recv.read(p)
	st.consume(n)
	return n, nil
}

// WriteTo hands what the peer sends to w until its FIN, without the copy that
// Read makes. It implements io.WriterTo.
func (st *Stream) WriteTo(w io.Writer) (int64, error) {
	var total int64
	for {
		st.mu.Lock()
		err := st.waitReadable()
		var c *chunk
		if err == nil {
			c = st.recv.pop()
		}
		st.mu.Unlock()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return total, err
		}
		size := len(c.bytes())
		n, err := w.Write(c.bytes())
		c.free()
		total += int64(n)
		st.mu.Lock()
		st.consume(size)
		st.mu.Unlock()
		if err != nil {
			return total, err
		}
	}
}

// waitReadable returns nil when there are bytes to take. Called with mu held.
func (st *Stream) waitReadable() error {
	for {
		switch {
		case st.readBy.passed():
			return os.ErrDeadlineExceeded
		case st.err != nil:
			return st.err
		case st.readClosed:
			return net.ErrClosed
		case st.recv.size > 0:
			return nil
		case st.recvFin:
			return io.EOF
		}
		st.readable.Wait()
	}
}

// consume accounts for n bytes that the reader took, and grants new credit
// when a quarter of the window is due. Called with mu held.
func (st *Stream) consume(n int) {
	st.consumed += uint64(n)
	switch {
	case st.err != nil || st.readClosed: // all was released
	case st.recvFin:
		st.reserved -= uint64(n)
		st.s.release(uint64(n))
	case st.opened && st.consumed+st.window-st.recvLimit >= st.window/4:
		st.recvLimit = st.consumed + st.window
		st.s.queueControl(st, sendCredit)
	}
}

// Write queues p to be sent and waits while too much is queued. Errors are
// those of Read; net.ErrClosed after CloseWrite; and a *StreamError with
// Remote set when the peer reads no more.
func (st *Stream) Write(p []byte) (int, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	total := 0
	for len(p) > 0 || total == 0 {
		if err := st.waitWritable(); err != nil {
			return total, err
		}
		n := min(len(p), maxPending-st.send.size)
		st.send.write(p[:n])
		st.sendable()
		if total, p = total+n, p[n:]; len(p) == 0 {
			break
		}
	}
	return total, nil
}

// ReadFrom sends what r gives until its end, reading straight into the send
// queue. It implements io.ReaderFrom.
func (st *Stream) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	for {
		st.mu.Lock()
		err := st.waitWritable()
		st.mu.Unlock()
		if err != nil {
			return total, err
		}
		c := newChunk()
		n, readErr := r.Read(c.data[:])
		if n > 0 {
			c.end = n
			total += int64(n)
			st.mu.Lock()
			if err = st.writeError(); err != nil {
				st.mu.Unlock()
				c.free()
				return total - int64(n), err
			}
			st.send.push(c)
			st.sendable()
			st.mu.Unlock()
		} else {
			c.free()
		}
		if readErr != nil {
			if errors.Is(readErr, io.EOF) {
				readErr = nil
			}
			return total, readErr
		}
	}
}

// waitWritable returns nil when the queue has room. Called with mu held.
func (st *Stream) waitWritable() error {
	for {
		if err := st.writeError(); err != nil {
			return err
		}
		if st.send.size < maxPending {
			return nil
		}
		st.writable.Wait()
	}
}

func (st *Stream) writeError() error {
	switch {
	case st.writeBy.passed():
		return os.ErrDeadlineExceeded
	case st.err != nil:
		return st.err
	case st.sendErr != nil:
		return st.sendErr
	case st.closing:
		return net.ErrClosed
	case !st.opened:
		return errUnconfirmed
	}
	return nil
}

// sendable tells the session's writer when the stream has something that it
// may send. Called with mu held.
func (st *Stream) sendable() {
	if st.maySend() {
		st.s.queueData(st)
	}
}

func (st *Stream) maySend() bool {
	if st.err != nil || !st.opened || st.finSent {
		return false
	}
	if st.send.size == 0 {
		return st.closing
	}
	return st.sendLimit > st.sendBytes
}

// CloseWrite ends this direction with FIN behind what is queued; the other
// goes on.
func (st *Stream) CloseWrite() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil || st.closing {
		return nil
	}
	if !st.opened {
		return errUnconfirmed
	}
	st.closing = true
	st.writable.Broadcast()
	st.sendable()
	return nil
}

// CloseRead throws away what the peer sent and asks it to send no more.
func (st *Stream) CloseRead() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.closeRead()
	return nil
}

func (st *Stream) closeRead() {
	if st.err != nil || st.readClosed {
		return
	}
	st.readClosed = true
	st.recv.drop()
	st.releaseAll()
	st.readable.Broadcast()
	if !st.recvFin {
		st.stopCode = wire.CodeCancelled
		st.s.queueControl(st, sendStop)
	}
}

// Close ends both directions. What was written before is still sent, within
// half a minute; then the stream is reset.
func (st *Stream) Close() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil {
		return nil
	}
	if !st.opened {
		st.resetLocked(wire.CodeCancelled)
		return nil
	}
	st.closeRead()
	if !st.closing {
		st.closing = true
		st.writable.Broadcast()
		st.sendable()
	}
	if st.linger == nil && (!st.finSent || !st.recvFin) {
		st.linger = time.AfterFunc(linger, func() { st.Reset(wire.CodeCancelled) })
	}
	return nil
}

// Reset ends the stream at once, in both directions; what is queued is lost.
// Before Confirm it tells the client why its target cannot be had. It does
// nothing when the stream has ended.
func (st *Stream) Reset(code wire.Code) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.resetLocked(code)
}

func (st *Stream) resetLocked(code wire.Code) {
	if st.err != nil || (st.finSent && st.recvFin) {
		return
	}
	st.resetCode = code
	st.fail(&StreamError{Code: code})
	st.s.forget(st, st.known)
}

// fail ends both directions with err and gives everything back. Called with mu
// held.
func (st *Stream) fail(err error) {
	if st.err != nil {
		return
	}
	st.err = err
	st.recv.drop()
	st.send.drop()
	st.releaseAll()
	st.stopLinger()
	st.stopped()
	st.readable.Broadcast()
	st.writable.Broadcast()
}

func (st *Stream) releaseAll() {
	st.s.release(st.reserved)
	st.reserved = 0
}

func (st *Stream) stopLinger() {
	if st.linger != nil {
		st.linger.Stop()
	}
}

// waitOpened waits for the gateway's answer to OPEN.
func (st *Stream) waitOpened(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		st.mu.Lock()
		defer st.mu.Unlock()
		st.writable.Broadcast()
	})
	defer stop()
	st.mu.Lock()
	defer st.mu.Unlock()
	for !st.opened && st.err == nil && ctx.Err() == nil {
		st.writable.Wait()
	}
	switch {
	case st.err != nil:
		return st.err
	case !st.opened:
		st.resetLocked(wire.CodeCancelled)
		return context.Cause(ctx)
	}
	return nil
}

// LocalAddr is this end of the stream: the session has one for all of them.
func (st *Stream) LocalAddr() net.Addr { return addr("httvps") }

// RemoteAddr is the target as OPEN named it.
func (st *Stream) RemoteAddr() net.Addr { return addr(st.target.String()) }

// SetDeadline bounds reading and writing; the zero time removes the bound.
func (st *Stream) SetDeadline(t time.Time) error {
	_ = st.SetReadDeadline(t)
	return st.SetWriteDeadline(t)
}

// SetReadDeadline bounds reading.
func (st *Stream) SetReadDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.readBy.set(t, &st.readable)
	return nil
}

// SetWriteDeadline bounds writing.
func (st *Stream) SetWriteDeadline(t time.Time) error {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.writeBy.set(t, &st.writable)
	return nil
}

// deadline wakes the waiters of a condition when its time comes.
type deadline struct {
	at    time.Time
	timer *time.Timer
}

// set is called with the condition's lock held.
func (d *deadline) set(at time.Time, cond *sync.Cond) {
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	d.at = at
	if !at.IsZero() {
		d.timer = time.AfterFunc(time.Until(at), func() {
			cond.L.Lock()
			defer cond.L.Unlock()
			cond.Broadcast()
		})
	}
	cond.Broadcast()
}

func (d *deadline) passed() bool {
	return !d.at.IsZero() && !time.Now().Before(d.at)
}

// addr is a net.Addr that is only a name.
type addr string

func (addr) Network() string  { return "httvps" }
func (a addr) String() string { return string(a) }
