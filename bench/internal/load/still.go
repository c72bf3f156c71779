package load

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/httvps/httvps/bench/internal/origin"
)

// openAll opens the streams, a few at once.
func (s Spec) openAll(ctx context.Context, mode byte, more ...byte) ([]*stream, error) {
	const atOnce = 16
	conns := make([]*stream, s.Streams)
	open, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var opening sync.WaitGroup
	for w := range atOnce {
		opening.Go(func() {
			for i := w; i < len(conns) && open.Err() == nil; i += atOnce {
				var err error
				if conns[i], err = s.dial(ctx, mode, more...); err != nil {
					cancel(fmt.Errorf("stream %d: %w", i+1, err)) // the first reason is enough
				}
			}
		})
	}
	opening.Wait()
	if err := context.Cause(open); err != nil {
		closeAll(conns)
		return nil, err
	}
	return conns, nil
}

func closeAll(conns []*stream) {
	for _, c := range conns {
		if c != nil {
			c.abort()
		}
	}
}

// idle holds streams on which nothing moves any more.
func (s Spec) idle(ctx context.Context, ready func(), stop <-chan struct{}) (Result, error) {
	conns, err := s.openAll(ctx, origin.Echo, '.', '.', '.')
	if err != nil {
		return Result{}, err
	}
	defer closeAll(conns)
	for i, c := range conns {
		var back [3]byte
		if _, err := io.ReadFull(c, back[:]); err != nil {
			return Result{}, fmt.Errorf("stream %d: %w", i+1, err)
		}
	}
	ready()
	select {
	case <-stop:
		return Result{Opened: len(conns)}, nil
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	}
}

// stalled holds streams that are as full as they get: downloads that this end
// never reads, or uploads that the target never reads.
func (s Spec) stalled(ctx context.Context, ready func(), stop <-chan struct{}) (Result, error) {
	mode := byte(origin.Download)
	if s.Up {
		mode = origin.Stall
	}
	conns, err := s.openAll(ctx, mode)
	if err != nil {
		return Result{}, err
	}
	defer closeAll(conns)
	if s.Up {
		var filling sync.WaitGroup
		defer filling.Wait()
		defer closeAll(conns) // unblocks them
		for _, c := range conns {
			filling.Go(func() {
				pattern := make([]byte, chunk)
				for {
					if _, err := c.Write(pattern); err != nil {
						return // closed, below
					}
				}
			})
		}
	}
	pause(ctx, stop, s.Warm) // until they are full
	ready()
	select {
	case <-stop:
	case <-ctx.Done():
		return Result{}, context.Cause(ctx)
	}
	return Result{Opened: len(conns)}, s.ReleaseOrigin(ctx)
}

// ReleaseOrigin lets the origin end what is stalled there.
func (s Spec) ReleaseOrigin(ctx context.Context) error {
	direct := s
	direct.Socks = ""
	conn, err := direct.dial(ctx, origin.Release)
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(dialTimeout))
	_, err = io.ReadFull(conn, make([]byte, 1))
	return err
}
