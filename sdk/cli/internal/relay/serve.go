// Package relay joins the connections of programs on this machine with those of
// the tunnel: it accepts the former and copies between the two.
package relay

import (
	"context"
	"errors"
	"net"
	"sync"
	"time"
)

// Serve accepts connections from ln until ctx ends, or ln fails for good, and has
// handle serve each. It serves most of them at once; more wait in the system's
// queue. When it returns, ln and every connection are closed and every handle has
// returned. The error is nil when ctx ended.
func Serve(ctx context.Context, ln net.Listener, most int, handle func(ctx context.Context, conn net.Conn)) error {
	ctx, cancel := context.WithCancel(ctx)
	var handlers sync.WaitGroup
	defer handlers.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	defer func() { _ = ln.Close() }()

	places := make(chan struct{}, most)
	var pause time.Duration
	for {
		select {
		case places <- struct{}{}:
		case <-ctx.Done():
			return nil
		}
		conn, err := ln.Accept()
		if err != nil {
			<-places
			if ctx.Err() != nil {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Out of descriptors, most likely: connections that end free some.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			if !Sleep(ctx, pause) {
				return nil
			}
			continue
		}
		pause = 0
		handlers.Go(func() {
			defer func() { <-places }()
			defer func() { _ = conn.Close() }()
			stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
			defer stop()
			handle(ctx, conn)
		})
	}
}

// Sleep waits for d to pass and says whether it did before ctx ended.
func Sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
