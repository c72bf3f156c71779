package protocol

import (
	"context"
	"errors"
	"io"
	"math"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/httvps/httvps/gateway/internal/pace"
	"github.com/httvps/httvps/sdk/go/lazy"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// flushTimeout is what a target has, once the session is over, to take what came
// whole before that and to end its own direction.
const flushTimeout = 5 * time.Second

// relay moves bytes between a stream and its target, each direction by itself:
//
//	the device ends its direction (FIN)     → the target reads the end
//	the target ends its direction           → FIN
//	the device resets                       → the target's connection is reset
//	its session ends                        → likewise, but what came whole before that,
//	                                          with its end, the target still gets
//	the target resets                       → RESET(target_reset)
//	the way to the target fails             → RESET with its code, such as egress_lost
//	the target takes no more                → STOP; what it still says is passed on
//	the device reads no more (STOP)         → the target's bytes are not read any more;
//	                                          with its own direction ended, too, that is the end
//	nothing moves for too long              → RESET(idle)
//
// Where the device has a speed, or its subscription a quota of which nothing is left,
// bytes wait for their turn: those of the device in the stream, whose credit then ends,
// those of the target where the system has them.
type relay struct {
	stream *mux.Stream
	target *watched
	halfIn time.Duration // idle limit once a direction has ended

	mu      sync.Mutex // guards the following fields
	limit   time.Duration
	timer   *time.Timer
	ended   bool
	flushBy time.Time // set when the session is over
	flush   *time.Timer

	stopped   atomic.Bool // the device reads no more
	delivered bool        // the target has all that the device said, and its end; of run, and of up before that
}

func newRelay(stream *mux.Stream, target Conn, by Bounds, idle, halfClosedIdle time.Duration) *relay {
	return &relay{
		stream: stream,
		target: &watched{
			Conn: target, in: lazy.NewReader(target), meter: by.Meter, began: time.Now(),
			up: newTurns(&by.Speeds.Up, by.Quota), down: newTurns(&by.Speeds.Down, by.Quota),
			gone:  func() bool { return stream.Err() != nil && !stream.Whole() },
			holds: holdsSpace(target),
		},
		halfIn: min(idle, halfClosedIdle),
		limit:  idle,
	}
}

// run returns when both directions have ended and the target is closed. The end
// of session bounds what waits for the target alone, which would go on for as long
// as the target likes. That of ctx resets the target at once.
func (r *relay) run(ctx, session context.Context) {
	stop := context.AfterFunc(ctx, r.target.abort)
	defer stop()
	leave := context.AfterFunc(session, r.sessionOver)
	defer leave()
	r.stream.OnStop(func() {
		r.stopped.Store(true)
		r.target.down.Close()
		_ = r.target.SetReadDeadline(time.Unix(1, 0)) // ends the wait for bytes that nobody takes
	})
	r.mu.Lock()
	r.timer = time.AfterFunc(r.limit, r.checkIdle)
	r.mu.Unlock()

	var up sync.WaitGroup
	up.Go(r.up)
	r.down()
	up.Wait()

	r.mu.Lock()
	r.ended = true
	r.timer.Stop()
	if r.flush != nil {
		r.flush.Stop()
	}
	r.mu.Unlock()
	if r.stream.Err() != nil || session.Err() != nil {
		if r.delivered && r.stream.Whole() {
			r.awaitTarget()
		} else {
			r.target.abort()
		}
	}
	_ = r.target.Close()
	_ = r.stream.Close()
}

// sessionOver ends what the device would have to do something for. The bytes of
// one that came to its end are not lost with it.
func (r *relay) sessionOver() {
	if !r.stream.Whole() {
		r.target.abort()
		return
	}
	by := r.flushUntil()
	_ = r.target.SetWriteDeadline(by)
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.ended {
		r.flush = time.AfterFunc(time.Until(by), r.target.up.Close)
	}
}

// flushUntil is when the target's time for the last bytes is over.
func (r *relay) flushUntil() time.Time {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.flushBy.IsZero() {
		r.flushBy = time.Now().Add(flushTimeout)
	}
	return r.flushBy
}

// awaitTarget waits for the end of what the target says, which nobody is there to
// hear: closing before that would be a reset, and might overtake the last bytes.
func (r *relay) awaitTarget() {
	_ = r.target.SetReadDeadline(r.flushUntil())
	if _, err := io.Copy(io.Discard, r.target.Conn); err != nil {
		r.target.abort()
	}
}

// up moves bytes to the target.
func (r *relay) up() {
	_, err := io.Copy(r.target, r.stream) // the stream hands its bytes over without a copy
	switch {
	case err == nil:
		_ = r.target.CloseWrite() // a target that is gone shows in the other direction
		r.delivered = true
	case r.target.writeFailed.Load():
		_ = r.stream.CloseRead()
	default:
		r.target.abort()
	}
	r.halfClosed()
}

// down moves bytes to the device.
func (r *relay) down() {
	_, err := io.Copy(r.stream, r.target)
	switch {
	case r.stopped.Load() && r.stream.Err() != nil: // run sees to the target
		if r.target.gone() {
			r.target.up.Close()
		}
	case r.stopped.Load():
		if half, ok := r.target.Conn.(interface{ CloseRead() error }); ok {
			_ = half.CloseRead()
		}
	case err == nil:
		_ = r.stream.CloseWrite() // fails only when the stream has ended, which up sees too
	case r.target.readFailed.Load():
		r.stream.Reset(codeOfEnd(err, wire.CodeTargetReset))
	}
	r.halfClosed()
}

// halfClosed shortens the patience with what is left.
func (r *relay) halfClosed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended || r.limit == r.halfIn {
		return
	}
	r.limit = r.halfIn
	r.target.touch()
	r.timer.Reset(r.limit)
}

func (r *relay) checkIdle() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	if left := r.limit - r.target.idle(); left > 0 {
		r.timer.Reset(left)
		return
	}
	r.stream.Reset(wire.CodeIdle)
	r.target.abort()
}

// abort closes a connection so that the other end sees a reset and not an end.
func abort(conn Conn) {
	if tcp, ok := conn.(interface{ SetLinger(seconds int) error }); ok {
		_ = tcp.SetLinger(0)
	}
	_ = conn.Close()
}

// turns are when the bytes of one direction may move.
type turns struct {
	speed *pace.Share
	quota Quota
	paced bool // the bytes under way are those of a turn
	ended chan struct{}
	once  sync.Once // closes ended
}

func newTurns(limit *pace.Limit, quota Quota) *turns {
	return &turns{speed: limit.NewShare(), quota: quota, ended: make(chan struct{})}
}

// take waits until some of n bytes may move, and returns how many, which the quota
// has as taken; 0 after Close.
func (t *turns) take(n int) int {
	for t.quota.Wait(t.ended) {
		most := n
		if t.paced = t.speed.Limited(); t.paced {
			if most = t.speed.Take(n); most == 0 {
				return 0
			}
		}
		if most = t.quota.Reserve(most); most > 0 { // else others were faster
			return most
		}
	}
	return 0
}

// reserve waits until a read may happen, and returns how many bytes it may bring;
// 0 after Close. The read takes them of the quota itself, when there are some.
func (t *turns) reserve() int {
	if !t.quota.Wait(t.ended) {
		return 0
	}
	if t.paced = t.speed.Limited(); t.paced {
		return t.speed.Reserve()
	}
	return math.MaxInt
}

// settle says that the read after reserve has brought n bytes.
func (t *turns) settle(n int) {
	if t.paced {
		t.speed.Settle(n)
	}
}

// Close ends a wait, and each later one at once.
func (t *turns) Close() {
	t.speed.Close()
	t.once.Do(func() { close(t.ended) })
}

// errNoTurn says that bytes wait no longer for their turn: the stream has ended.
var errNoTurn = errors.New("the stream ended before its turn came")

// watched is a connection to a target whose bytes are counted as they move, at the
// device's speeds. It remembers when one did, and on which side an error came up.
type watched struct {
	Conn
	in                      lazy.Reader
	meter                   Meter
	began                   time.Time
	moved                   atomic.Int64 // when, since began
	readFailed, writeFailed atomic.Bool

	up, down *turns
	gone     func() bool // the stream has ended, and what it said is of no use
	part     portion     // of the read under way
	holds    bool        // see portion
}

// abort closes the connection so that the target sees a reset, and what waits for
// its turn waits no longer.
func (w *watched) abort() {
	w.up.Close()
	w.down.Close()
	abort(w.Conn)
}

// ReadLazy implements [lazy.Reader], which is how streams read.
func (w *watched) ReadLazy(space lazy.Space) (int, error) {
	most := w.down.reserve()
	if most == 0 {
		return 0, errNoTurn
	}
	w.part = portion{Space: space, most: most, quota: w.down.quota, holds: w.holds}
	n, err := w.in.ReadLazy(&w.part)
	w.part.settle(n)
	w.down.settle(n)
	w.noteRead(n, err)
	return n, err
}

// portion is the beginning of a space, as far as the quota goes.
type portion struct {
	lazy.Space
	most  int
	quota Quota
	holds bool // it is out while there is nothing to read
	taken int  // of the quota
}

// Take implements [lazy.Space]. A space is not empty: where others took what was
// left, it is a byte too much.
func (p *portion) Take() []byte {
	space := p.Space.Take()
	most := min(len(space), p.most)
	if p.holds { // and must keep nothing from others meanwhile
		return space[:most]
	}
	if p.taken = p.quota.Reserve(most); p.taken == 0 {
		p.quota.Overdraw(1)
		p.taken = 1
	}
	return space[:p.taken]
}

// Return implements [lazy.Space].
func (p *portion) Return(wait bool) {
	p.Space.Return(wait)
	p.quota.Return(p.taken)
	p.taken = 0
}

// settle says that n bytes came into what Take gave.
func (p *portion) settle(n int) {
	if n > p.taken {
		p.quota.Overdraw(n - p.taken)
		return
	}
	p.quota.Return(p.taken - n)
}

// holdsSpace reports whether a connection cannot say when there is something to read.
func holdsSpace(conn Conn) bool {
	_, isLazy := conn.(lazy.Reader)
	_, isSocket := conn.(syscall.Conn)
	return !isLazy && !isSocket
}

func (w *watched) noteRead(n int, err error) {
	if n > 0 {
		w.meter.AddDown(n)
		w.touch()
	}
	if err != nil && err != io.EOF { //nolint:errorlint // a reader returns io.EOF itself
		w.readFailed.Store(true)
	}
}

func (w *watched) Write(p []byte) (int, error) {
	total := 0
	for total < len(p) {
		most := w.up.take(len(p) - total)
		if most == 0 || w.up.paced && w.gone() {
			w.up.quota.Return(most)
			return total, errNoTurn
		}
		n, err := w.write(p[total : total+most])
		w.up.quota.Return(most - n)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

func (w *watched) write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	if n > 0 {
		w.meter.AddUp(n)
		w.touch()
	}
	if err != nil {
		w.writeFailed.Store(true)
	}
	return n, err
}

func (w *watched) touch() { w.moved.Store(int64(time.Since(w.began))) }

func (w *watched) idle() time.Duration {
	return time.Since(w.began) - time.Duration(w.moved.Load())
}
