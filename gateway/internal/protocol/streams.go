package protocol

import (
	"context"
	"net"
	"sync"
	"time"

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

// Streams is how the requests of sessions are served. It is shared by all
// sessions of a gateway.
type Streams struct {
	// Dial connects to a target.
	Dial func(ctx context.Context, target wire.Addr) (Conn, error)
	// Slots bounds the dials of all sessions together by its capacity.
	Slots chan struct{}
	// SessionDials bounds the dials of one session.
	SessionDials int
	// Idle ends a stream on which nothing moved; HalfClosedIdle one of which
	// one direction has ended.
	Idle, HalfClosedIdle time.Duration
	// Observe is told of each request's end: "opened" or the name of the
	// code it was refused with.
	Observe func(result string, took time.Duration)
}

// Serve serves the requests of one session until it ends, and returns when
// every connection to a target is closed. The error is the session's.
//
// A dial keeps its place in SessionDials and Slots until it has ended, also
// when the device has reset the stream long before: opening and resetting in a
// loop starts no more dials than waiting does.
func (s *Streams) Serve(ctx context.Context, session *mux.Session, meter Meter) error {
	ctx, cancel := context.WithCancel(ctx)
	var streams sync.WaitGroup
	defer streams.Wait()
	defer cancel() // dials of a session that is over

	slots := make(chan struct{}, s.SessionDials)
	for {
		stream, err := session.Accept(ctx)
		if err != nil {
			return err
		}
		select {
		case slots <- struct{}{}:
		default:
			s.refuse(stream, wire.CodeEnhanceCalm, 0)
			continue
		}
		streams.Go(func() {
			meter.AddStreams(1)
			defer meter.AddStreams(-1)
			target := s.open(ctx, stream, func() { <-slots })
			if target == nil {
				return
			}
			newRelay(stream, target, meter, s.Idle, s.HalfClosedIdle).run()
		})
	}
}

// open connects to the stream's target and confirms the stream, or answers why
// not and returns nil. It calls dialled when the dial has ended.
func (s *Streams) open(ctx context.Context, stream *mux.Stream, dialled func()) Conn {
	began := time.Now()
	target, err := s.dial(ctx, stream.Target(), dialled)
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

func (s *Streams) dial(ctx context.Context, target wire.Addr, dialled func()) (Conn, error) {
	defer dialled()
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	select {
	case s.Slots <- struct{}{}:
		defer func() { <-s.Slots }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return s.Dial(ctx, target)
}

func (s *Streams) refuse(stream *mux.Stream, code wire.Code, took time.Duration) {
	stream.Reset(code)
	s.Observe(code.String(), took)
}
