package mux

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/lazy"
	"github.com/httvps/httvps/sdk/go/padding"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
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
	target wire.Addr

	// Guarded by Session.mu.
	link    [numLists]*Stream // the lists that the stream is in
	listed  [numLists]bool
	control controlBits // control frames to be sent
	counted bool        // the stream counts towards max_streams
	deficit int         // bytes that its next turn has besides the quantum

	// Of the session's reader alone.
	arriving *block // what came since readers were last told
	bulk     bool   // several frames came between two waits: a large block pays

	pads padding.Frames // of who writes alone

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
	held       reservation
	tuned      uint64    // bytes consumed since the window was looked at
	tunedAt    time.Time // when that was
	recvFin    bool
	readClosed bool
	left       bool // the session is over, and what came whole before can still be read

	send      queue
	sendBytes uint64    // sent, from the stream's first byte
	sendLimit uint64    // credit received
	sentAt    time.Time // when bytes were last sent
	burst     int       // bytes sent without a pause
	closing   bool      // FIN follows the queue
	finSent   bool
	sendErr   error // the peer sent STOP

	openLimit uint64 // recvLimit as OPENED told it
	stopCode  wire.Code
	resetCode wire.Code
}

// controlBits are the control frames that a stream has to send. A set and not
// a queue: that bounds them, and coalesces credit.
type controlBits uint8

const (
	sendOpened controlBits = 1 << iota
	sendCredit
	sendStop
	sendReset
)

func newStream(s *Session, id uint64, target wire.Addr) *Stream {
	st := &Stream{s: s, id: id, target: target}
	st.readable.L = &st.mu
	st.writable.L = &st.mu
	return st
}

// ID is the stream's number on the wire.
func (st *Stream) ID() uint64 { return st.id }

// Target is where OPEN asked to go.
func (st *Stream) Target() wire.Addr { return st.target }

// grantLocked makes the floor, which was set aside, the stream's window, and
// widens it to what a new stream begins with. Called with Session.mu held, and
// the stream not known to anybody yet.
func (st *Stream) grantLocked(floor uint64) {
	st.held = reservation{floor: floor, size: floor}
	if start := st.s.startWindow(len(st.s.streams) + 1); floor < start {
		st.held.size += st.s.growLocked(start - floor)
	}
	st.window = st.held.size
	st.recvLimit = st.window
}

// Confirm tells the client that its target has accepted the connection. It
// fails when the stream or its session has ended meanwhile.
func (st *Stream) Confirm() error {
	st.mu.Lock()
	defer st.mu.Unlock()
	if st.err != nil || st.opened {
		return st.err
	}
	if !st.recvFin && !st.readClosed {
		st.s.mu.Lock()
		start := st.s.startWindow(len(st.s.streams))
		st.s.mu.Unlock()
		if st.window < start {
			st.widen(start - st.window)
			st.recvLimit = max(st.recvLimit, st.consumed+st.window)
		}
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

// Whole reports whether all that the peer had to say has arrived, and nothing of
// it was thrown away. It can then be read to its end, also when the session is
// over.
func (st *Stream) Whole() bool {
	st.mu.Lock()
	defer st.mu.Unlock()
	return st.recvFin && !st.readClosed && (st.err == nil || st.left)
}

// Read reads bytes that the peer sent. It returns io.EOF after the peer's FIN,
// a *StreamError after a reset, an error that wraps [ErrEnded] after the
// session's end unless the FIN came before that, net.ErrClosed after CloseRead
// and os.ErrDeadlineExceeded.
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
		var b *block
		if err == nil {
			b = st.recv.pop()
		}
		st.mu.Unlock()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return total, err
		}
		size := b.size()
		n, err := w.Write(b.bytes())
		b.free()
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
		case st.err != nil && !st.left:
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
	if st.err != nil && !st.left || st.readClosed {
		return // all was released
	}
	if st.recvFin {
		st.shrink(st.recvBytes - st.consumed)
		return
	}
	if !st.opened {
		return
	}
	st.tune(n)
	if st.consumed+st.window-st.recvLimit >= creditStep(st.window) {
		st.recvLimit = st.consumed + st.window
		st.s.queueControl(st, sendCredit)
	}
}

// creditStep is how much of a window has to be consumed for new credit: a
// quarter, of a small one as much as half, because each CREDIT costs both ends a
// record and a system call, and of a large one less.
func creditStep(window uint64) uint64 {
	return min(max(window/4, min(window/2, creditLeast)), creditMost)
}

// Write queues p to be sent and waits while too much is queued. Errors are
// those of Read; net.ErrClosed after CloseWrite; and a *StreamError with
// Remote set when the peer reads no more.
func (st *Stream) Write(p []byte) (int, error) {
	st.mu.Lock()
	defer st.mu.Unlock()
	total := 0
	for len(p) > 0 || total == 0 {
		room, err := st.waitWritable()
		if err != nil {
			return total, err
		}
		n := min(len(p), room)
		st.send.write(p[:n])
		st.queued(n)
		if total, p = total+n, p[n:]; len(p) == 0 {
			break
		}
	}
	return total, nil
}

// ReadFrom sends what r gives until its end, reading straight into what is
// sent. It implements io.ReaderFrom. While r has nothing to give, no memory is
// held for it, when it is a [lazy.Reader] or a connection of the system's.
func (st *Stream) ReadFrom(r io.Reader) (int64, error) {
	in, isLazy := r.(lazy.Reader)
	if conn, ok := r.(net.Conn); ok && !isLazy {
		in = lazy.NewReader(conn)
	}
	src := source{class: frameBlock}
	var total int64
	for {
		st.mu.Lock()
		room, err := st.waitWritable()
		st.mu.Unlock()
		if err != nil {
			return total, err
		}
		src.limit(room, st.s.fullPayload(st.id))
		var n int
		if in != nil {
			n, err = in.ReadLazy(&src)
		} else if n, err = r.Read(src.Take()); n == 0 {
			src.Return(false)
		}
		if n > 0 {
			b := src.filled(n)
			total += int64(n)
			st.mu.Lock()
			if broken := st.writeError(); broken != nil {
				st.mu.Unlock()
				b.free()
				return total - int64(n), broken
			}
			st.send.push(b)
			st.queued(n)
			st.mu.Unlock()
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return total, err
		}
	}
}

// source takes blocks for what ReadFrom reads: large ones while there is much
// to read.
type source struct {
	class, most int // of the next block, and how many bytes it may take
	b           *block
	space       int
}

// limit prepares the next read: at most room bytes, and in whole frames of full
// bytes where the block has room for one.
func (s *source) limit(room, full int) {
	s.class = min(s.class, max(classWithin(room), smallBlock))
	s.most = blockSizes[s.class] - blockHeadroom
	if s.most > full {
		s.most -= s.most % full
	}
}

// Take implements [lazy.Space].
func (s *source) Take() []byte {
	s.b = newBlock(s.class)
	p := s.b.room()
	s.space = min(len(p), s.most)
	return p[:s.space]
}

// Return implements [lazy.Space].
func (s *source) Return(bool) {
	s.b.free()
	s.b = nil
}

// filled returns the block, n bytes of which were read.
func (s *source) filled(n int) *block {
	b := s.b
	s.b = nil
	b.end += n
	switch {
	case n == s.space && s.class < bulkBlock:
		s.class++
	case n < s.space/4 && s.class > smallBlock:
		s.class--
	}
	return b
}

// queued sends n bytes that were put in the send queue, or has them sent: a
// writer with a deadline must not wait for the carrier. Called with mu held, which
// it gives up meanwhile.
func (st *Stream) queued(n int) {
	st.s.pending.Add(int64(n))
	st.s.budget.memory.add(int64(n))
	if !st.maySend() {
		return
	}
	if st.s.queueData(st, st.writeBy.at.IsZero()) {
		st.mu.Unlock()
		st.s.write()
		st.mu.Lock()
	}
}

// dropSend throws away what was not sent. Called with mu held.
func (st *Stream) dropSend() {
	st.s.pending.Add(-int64(st.send.size))
	st.s.budget.memory.add(-int64(st.send.size))
	st.send.drop()
}

// waitWritable returns how many bytes the queue has room for, which may be less
// than some by a little. Called with mu held.
func (st *Stream) waitWritable() (room int, err error) {
	for {
		if err := st.writeError(); err != nil {
			return 0, err
		}
		most := int(st.s.pieces.Load())
		if room := most - st.send.size; st.send.size == 0 || room >= most/2 {
			return room, nil
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
		st.s.queueData(st, false)
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
	if st.err != nil && !st.left || st.readClosed {
		return
	}
	st.readClosed = true
	st.recv.drop()
	st.shrink(0)
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
		st.closeRead()
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
// Before Confirm it tells the client why its target cannot be had. When the
// stream has ended, it throws away what was not read.
func (st *Stream) Reset(code wire.Code) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.resetLocked(code)
}

func (st *Stream) resetLocked(code wire.Code) {
	if st.err != nil || st.finSent && st.recvFin {
		st.closeRead()
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
	if !st.left {
		st.recv.drop()
		st.shrink(0)
	}
	st.err = err
	st.dropSend()
	st.stopLinger()
	st.stopped()
	st.readable.Broadcast()
	st.writable.Broadcast()
}

// sessionOver is fail, for the session's end. What came whole before that stays
// for its reader, with what was set aside for it: who sent it may have left
// because all was said. A stream that is not confirmed has no reader. Called with
// mu held.
func (st *Stream) sessionOver(err error) {
	st.left = st.err == nil && st.opened && st.recvFin && !st.readClosed
	st.fail(err)
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
