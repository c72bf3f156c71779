package protocol

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/gateway/internal/pace"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// openTimeout bounds what a request may take until its answer. It is shorter
// than the 15 s of the protocol, in which the answer has to arrive.
const openTimeout = wire.OpenedTimeout - time.Second

// Conn is a connection to a target.
type Conn interface {
	net.Conn
	// CloseWrite tells the target that no more bytes will come.
	CloseWrite() error
}

// Meter counts what one session does. It is called as bytes move, from many
// goroutines.
type Meter interface {
	AddUp(n int)      // bytes written to a target
	AddDown(n int)    // bytes read from a target
	AddStreams(n int) // 1 when a stream begins, −1 when it has ended
}

// Quota is what a session may move of its subscription's quota. It is called from
// many goroutines.
type Quota interface {
	// Wait waits until there is something to reserve, and reports false when done was
	// closed before.
	Wait(done <-chan struct{}) bool
	// Reserve returns how many of n bytes may move now, from 0.
	Reserve(n int) int
	// Overdraw reserves n bytes that are not there.
	Overdraw(n int)
	// Return takes n reserved bytes back that did not move.
	Return(n int)
}

// Bounds are what the traffic of one session is counted by and kept to.
type Bounds struct {
	Meter  Meter
	Speeds *pace.Speeds // of the device, and of all its other sessions
	Quota  Quota
}

// Dial connects to a target.
type Dial func(ctx context.Context, target wire.Addr) (Conn, error)

// Upstream is how one session leaves the gateway.
type Upstream struct {
	Dial    Dial
	Packets Packets
	// Close is called when the session is over and all it had is closed.
	Close func()
}

// Streams is how the requests of sessions are served, those for flows included.
// It is shared by all sessions of a gateway.
type Streams struct {
	// NewUpstream returns how the session with that id connects to its targets.
	NewUpstream func(id [16]byte) Upstream
	// Slots bounds the dials of all sessions together by its capacity.
	Slots chan struct{}
	// SessionDials bounds the dials of one session. Further requests wait for
	// one of its dials to end, within the time of their answer.
	SessionDials int
	// SessionTargets bounds the connections of one session to targets, those
	// included whose stream has ended: a target may take its time for the last
	// bytes, and the device has its place for another stream by then. Requests
	// that wait are counted, too.
	SessionTargets int
	// Idle ends a stream on which nothing moved; HalfClosedIdle one of which
	// one direction has ended.
	Idle, HalfClosedIdle time.Duration
	// Observe is told of each request's end: "opened" or the name of the
	// code it was refused with.
	Observe func(result string, took time.Duration)
	// ObserveFlow is told the same of requests for flows.
	ObserveFlow func(result string)
	// Dropped is told of n datagrams that were dropped, and of the reason, which
	// is one of a few words.
	Dropped func(reason string, n int)

	flows atomic.Int64
}

// Serve serves the requests of the session with that id until it ends, and returns
// when every connection to a target is closed. The error is the session's. What a
// stream brought whole before the session's end is still written to its target,
// for a few seconds; the end of ctx cuts that off, too.
//
// A dial keeps its place in SessionDials and Slots until it has ended, also
// when the device has reset the stream long before: opening and resetting in a
// loop starts no more dials than waiting does.
func (s *Streams) Serve(ctx context.Context, session *mux.Session, id [16]byte, by Bounds) error {
	cut := ctx
	ctx, cancel := context.WithCancel(ctx)
	leave := s.NewUpstream(id)
	defer leave.Close()
	var streams sync.WaitGroup
	defer streams.Wait()
	defer cancel() // dials of a session that is over

	d := dialer{dial: leave.Dial, packets: leave.Packets, session: make(chan struct{}, s.SessionDials), process: s.Slots}
	targets := make(chan struct{}, s.SessionTargets)
	datagrams := newBucket()
	for {
		in, err := session.Accept(ctx)
		if err != nil {
			return err
		}
		select {
		case targets <- struct{}{}:
		default:
			if in.Flow != nil {
				s.refuseFlow(in.Flow, wire.CodeLimit)
			} else {
				s.refuse(in.Stream, wire.CodeLimit, 0)
			}
			continue
		}
		streams.Go(func() {
			defer func() { <-targets }()
			by.Meter.AddStreams(1)
			defer by.Meter.AddStreams(-1)
			if in.Flow != nil {
				s.serveFlow(ctx, in.Flow, by, d, datagrams)
				return
			}
			target := s.open(ctx, in.Stream, d)
			if target == nil {
				return
			}
			newRelay(in.Stream, target, by, s.Idle, s.HalfClosedIdle).run(cut, ctx)
		})
	}
}

// open connects to the stream's target and confirms the stream, or answers why
// not and returns nil.
func (s *Streams) open(ctx context.Context, stream *mux.Stream, d dialer) Conn {
	began := time.Now()
	target, err := d.connect(ctx, stream)
	took := time.Since(began)
	if err != nil {
		s.refuse(stream, CodeOf(err), took)
		return nil
	}
	if err := stream.Confirm(); err != nil { // reset meanwhile
		abort(target)
		s.Observe(wire.CodeCancelled.String(), took)
		return nil
	}
	s.Observe("opened", took)
	return target
}

// dialer is how one session connects, with the places that a dial needs.
type dialer struct {
	dial             Dial
	packets          Packets
	session, process chan struct{}
}

// request is a stream or a flow whose device waits for an answer.
type request interface {
	Err() error // why it has ended; nil while it lives
}

// connect connects to the stream's target when there is a place for it. While it
// waits, the device may reset the stream, which ends the wait. A dial that has
// begun keeps its places until it ends.
func (d dialer) connect(ctx context.Context, stream *mux.Stream) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	gone := make(chan struct{}, 1)
	stream.OnStop(func() { gone <- struct{}{} }) // by a reset, too
	leave, err := d.enter(ctx, stream, gone)
	if err != nil {
		return nil, err
	}
	defer leave()
	return d.dial(ctx, stream.Target())
}

// enter takes the places of one dial for a request; leave gives them back. The
// wait ends when the request has ended, after which gone has something to say.
func (d dialer) enter(ctx context.Context, asked request, gone <-chan struct{}) (leave func(), err error) {
	// Its own first: who waits for that holds nothing of others.
	if err := wait(ctx, d.session, asked, gone); err != nil {
		return nil, err
	}
	if err := wait(ctx, d.process, asked, gone); err != nil {
		<-d.session
		return nil, err
	}
	return func() { <-d.process; <-d.session }, nil
}

// wait takes a place for a request, unless its device resets it meanwhile.
func wait(ctx context.Context, places chan struct{}, asked request, gone <-chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	default:
	}
	for {
		select {
		case places <- struct{}{}:
			if asked.Err() == nil {
				return nil
			}
			<-places
		case <-gone: // a STOP alone does not withdraw the request
		case <-ctx.Done():
			return ctx.Err()
		}
		if asked.Err() != nil {
			return context.Canceled
		}
	}
}

func (s *Streams) refuse(stream *mux.Stream, code wire.Code, took time.Duration) {
	stream.Reset(code)
	s.Observe(code.String(), took)
}
