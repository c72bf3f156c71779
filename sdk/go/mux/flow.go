package mux

import (
	"context"
	"errors"
	"os"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/lazy"
	"github.com/httvps/httvps/sdk/go/padding"
	"github.com/httvps/httvps/sdk/go/wire"
)

// Queues of datagrams, docs/03, part 6.1.
const (
	maxDatagrams = 64                     // in each direction of a flow
	maxEarly     = 32                     // for a flow that is not confirmed
	staleAfter   = 100 * time.Millisecond // what waited longer to be sent is dropped
	flowTurn     = 16                     // datagrams of one flow's turn
)

// ErrDatagramSize says that a datagram is longer than wire.MaxDatagram.
var ErrDatagramSize = errors.New("datagram too long")

// Flow is one UDP flow inside a session. Datagrams may get lost: whatever has no
// room, or waits too long, is dropped. All of its methods may be called from any
// goroutine.
type Flow struct {
	s      *Session
	id     uint64
	kind   wire.Kind
	target wire.Addr

	// Guarded by Session.mu.
	listed  bool // it waits for its turn to send
	counted bool // it counts towards max_streams and max_udp

	pads padding.Frames // of who writes alone

	mu        sync.Mutex // guards everything below
	readable  sync.Cond
	readBy    deadline
	err       error
	done      chan struct{} // closed with err
	known     bool          // the peer has heard of the flow
	opened    bool          // OPENED was sent or received
	tell      controlBits   // OPENED or RESET are to be sent
	resetCode wire.Code
	in, out   datagrams
	dropped   uint64
}

func newFlow(s *Session, id uint64, kind wire.Kind, target wire.Addr) *Flow {
	f := &Flow{s: s, id: id, kind: kind, target: target, done: make(chan struct{})}
	f.readable.L = &f.mu
	return f
}

// ID is the flow's number on the wire.
func (f *Flow) ID() uint64 { return f.id }

// Kind is wire.KindUDP or wire.KindUDPAny.
func (f *Flow) Kind() wire.Kind { return f.kind }

// Target is the one peer of a wire.KindUDP.
func (f *Flow) Target() wire.Addr { return f.target }

// Done is closed when the flow has ended.
func (f *Flow) Done() <-chan struct{} { return f.done }

// Err is why the flow ended: a *StreamError after a reset, with wire.CodeNoError
// when the other end was done with it; an error that wraps [ErrEnded] after the
// session's end. It is nil while the flow lives.
func (f *Flow) Err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.err
}

// Dropped is how many datagrams were dropped here, in both directions.
func (f *Flow) Dropped() uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.dropped
}

// Confirm tells the client that datagrams are on their way to the target. It
// fails when the flow or its session has ended meanwhile.
func (f *Flow) Confirm() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil || f.opened {
		return f.err
	}
	f.opened = true
	f.tell |= sendOpened
	f.queue()
	return nil
}

// WaitOpened waits for the gateway's answer to OPEN. Nobody has to: datagrams
// may be sent before. The error is the flow's, or ctx's cause.
func (f *Flow) WaitOpened(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.readable.Broadcast()
	})
	defer stop()
	f.mu.Lock()
	defer f.mu.Unlock()
	for !f.opened && f.err == nil && ctx.Err() == nil {
		f.readable.Wait()
	}
	switch {
	case f.err != nil:
		return f.err
	case !f.opened:
		return context.Cause(ctx)
	}
	return nil
}

// Send sends p, to peer when the flow is of wire.KindUDPAny. It never waits, and
// what it takes may be dropped. The error is [ErrDatagramSize] or that of the
// flow.
func (f *Flow) Send(peer wire.Addr, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case f.err != nil:
		return f.err
	case len(p) > wire.MaxDatagram:
		f.dropped++
		return ErrDatagramSize
	case !f.opened && f.s.role == Gateway:
		return errUnconfirmed
	}
	f.dropped += f.out.push(f.s, peer, p, maxDatagrams)
	f.queue()
	return nil
}

// Receive waits for a datagram, moves what p has room for into it, and returns
// how many bytes that are and whom they came from: the zero Addr unless the flow
// is of wire.KindUDPAny. The error is that of the flow, or os.ErrDeadlineExceeded.
func (f *Flow) Receive(p []byte) (n int, peer wire.Addr, err error) {
	d, err := f.receive()
	if err != nil {
		return 0, wire.Addr{}, err
	}
	defer d.b.free()
	return copy(p, d.b.bytes()), d.peer, nil
}

// ReceiveLazy is Receive into what space gives, which it takes only when there is
// a datagram: a flow that waits holds no memory for one.
func (f *Flow) ReceiveLazy(space lazy.Space) (n int, peer wire.Addr, err error) {
	d, err := f.receive()
	if err != nil {
		return 0, wire.Addr{}, err
	}
	defer d.b.free()
	return copy(space.Take(), d.b.bytes()), d.peer, nil
}

// receive waits for a datagram, whose block the caller frees.
func (f *Flow) receive() (datagram, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for {
		switch {
		case f.in.len() > 0:
			return f.in.pop(f.s), nil
		case f.err != nil:
			return datagram{}, f.err
		case f.readBy.passed():
			return datagram{}, os.ErrDeadlineExceeded
		}
		f.readable.Wait()
	}
}

// SetReadDeadline bounds Receive; the zero time removes the bound.
func (f *Flow) SetReadDeadline(t time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.readBy.set(t, &f.readable)
}

// Reset ends the flow: with wire.CodeNoError when it is done, and before
// Confirm with why its target cannot be had. When the flow has ended already, it
// only drops what was not received; call it in any case.
func (f *Flow) Reset(code wire.Code) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		f.in.drop(f.s) // whoever resets it reads no more
		return
	}
	f.resetCode = code
	f.fail(&StreamError{Code: code})
	s := f.s
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.flows, f.id)
	if f.known { // the flow counts until the peer is told
		f.tell = sendReset
		s.queueFlow(f)
	} else {
		s.uncount(&f.counted, true)
	}
}

// fail ends the flow. What has arrived can still be received when its session
// lives. Called with mu held.
func (f *Flow) fail(err error) {
	if f.err != nil {
		return
	}
	f.err = err
	f.out.drop(f.s)
	if ended, ok := errors.AsType[*StreamError](err); !ok || !ended.Remote {
		f.in.drop(f.s)
	}
	f.tell = 0
	close(f.done)
	f.readable.Broadcast()
}

// queue asks for a turn to send. Called with mu held.
func (f *Flow) queue() {
	f.s.mu.Lock()
	defer f.s.mu.Unlock()
	f.s.queueFlow(f)
}

// appendOpen appends OPEN, unless the flow has ended already.
func (f *Flow) appendOpen(buf []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return buf
	}
	f.known = true
	return wire.AppendOpen(buf, f.id, wire.Open{Kind: f.kind, Target: f.target})
}

// send is the flow's turn in the session's writer. It holds no lock while the
// carrier may wait.
func (f *Flow) send(b *batch) {
	b.composed(f.appendControl(b.buf), &f.pads)
	for range flowTurn {
		d, ok := f.next()
		if !ok {
			return
		}
		if b.room() < d.b.size()+controlRoom {
			b.emit()
		}
		b.composed(wire.AppendDgram(b.buf, f.id, f.kind, wire.Dgram{Peer: d.peer, Data: d.b.bytes()}), &f.pads)
		f.s.sent.Add(uint64(d.b.size()))
		d.b.free()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.out.len() > 0 {
		f.queue()
	}
}

// appendControl appends OPENED or RESET when they are due.
func (f *Flow) appendControl(buf []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	tell := f.tell
	f.tell = 0
	switch {
	case tell&sendReset != 0:
		f.s.mu.Lock()
		f.s.uncount(&f.counted, true)
		f.s.mu.Unlock()
		return wire.AppendReset(buf, f.id, f.resetCode)
	case tell&sendOpened != 0 && f.err == nil:
		return wire.AppendOpened(buf, f.id, wire.Opened{})
	}
	return buf
}

// next takes the next datagram that is still worth sending. It looks at the clock
// each time: the batch may have waited for the carrier.
func (f *Flow) next() (datagram, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for f.err == nil && f.out.len() > 0 {
		d := f.out.pop(f.s)
		if time.Since(d.at) <= staleAfter {
			return d, true
		}
		d.b.free()
		f.dropped++
	}
	return datagram{}, false
}

// readFrame acts on a frame for the flow.
func (f *Flow) readFrame(fr wire.Frame) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return checkStreamFrame(fr)
	}
	switch fr.Type {
	case wire.TypeOpened:
		o, err := wire.ParseOpened(fr.Payload)
		switch {
		case err != nil:
			return err
		case f.opened:
			return protocolError("second OPENED")
		case o.RecvWindow != 0:
			return protocolError("OPENED of a flow with a window")
		}
		f.opened = true
		f.readable.Broadcast()
	case wire.TypeReset:
		code, err := wire.ParseReset(fr.Payload)
		if err != nil {
			return err
		}
		f.fail(&StreamError{Code: code, Remote: true})
		f.s.mu.Lock()
		defer f.s.mu.Unlock()
		delete(f.s.flows, f.id)
		f.s.uncount(&f.counted, true)
	case wire.TypeDgram:
		return f.readDgram(fr.Payload)
	default:
		return protocolError(fr.Type.String() + " on a flow")
	}
	return nil
}

func (f *Flow) readDgram(payload []byte) error {
	most := maxDatagrams
	if !f.opened {
		if f.s.role == Client {
			return protocolError("DGRAM before OPENED")
		}
		most = maxEarly
	}
	d, err := wire.ParseDgram(f.kind, payload)
	if broken, ok := errors.AsType[*wire.Error](err); ok && broken.StreamOnly || len(d.Data) > wire.MaxDatagram {
		f.dropped++
		return nil
	}
	if err != nil {
		return err
	}
	f.dropped += f.in.push(f.s, d.Peer, d.Data, most)
	f.readable.Signal()
	return nil
}

// datagram is one that waits.
type datagram struct {
	peer wire.Addr
	b    *block
	at   time.Time
}

// datagrams is a queue that drops from its front.
type datagrams struct{ queue fifo[datagram] }

func (q *datagrams) len() int { return q.queue.len() }

// push appends a copy of p and returns how many datagrams were dropped for it:
// beyond most, or beyond what the session may hold of them.
func (q *datagrams) push(s *Session, peer wire.Addr, p []byte, most int) (dropped uint64) {
	b := blockFor(len(p))
	size := int64(len(b.buf))
	for q.len() >= most || q.len() > 0 && s.datagram.Load()+size > s.maxDatagramBytes() {
		q.pop(s).b.free()
		dropped++
	}
	if s.datagram.Load()+size > s.maxDatagramBytes() {
		b.free()
		return dropped + 1
	}
	s.datagram.Add(size)
	b.end += copy(b.room(), p)
	q.queue.push(datagram{peer: peer, b: b, at: time.Now()})
	return dropped
}

// pop takes the first datagram off; the caller frees its block.
func (q *datagrams) pop(s *Session) datagram {
	d := q.queue.pop()
	s.datagram.Add(-int64(len(d.b.buf)))
	return d
}

func (q *datagrams) drop(s *Session) {
	for q.len() > 0 {
		q.pop(s).b.free()
	}
}

// maxDatagramBytes bounds the memory of all datagrams of the session that wait.
func (s *Session) maxDatagramBytes() int64 { return int64(s.budget.total / 8) }
