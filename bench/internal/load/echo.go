package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/bench/internal/origin"
)

const maxEcho = 1 << 10

// dot is what echoes are made of.
var dot = []byte{'.'}

// errEcho says that what came back is not what was sent.
var errEcho = errors.New("an echo came back changed")

// mostUnanswered bounds the echoes under way: a stream on which more are missing
// has stopped.
const mostUnanswered = 10_000

// echoes sends Size bytes each Interval on one stream, whether the ones before
// have come back or not, and measures how long each takes: an echo that is late
// does not hide others behind it.
func (s Spec) echoes(ctx context.Context, stop <-chan struct{}) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	conn, err := s.dial(ctx, origin.Echo)
	if err != nil {
		return Result{}, err
	}
	defer conn.Close()
	sent := make(chan time.Time, mostUnanswered)
	begin := time.Now()
	var took []float64
	var receiving sync.WaitGroup
	receiving.Go(func() {
		in := make([]byte, max(s.Size, 1))
		for at := range sent {
			if _, err := io.ReadFull(conn, in); err != nil {
				cancel(fmt.Errorf("echo: %w", err))
				return
			}
			if bytes.Count(in, dot) != len(in) {
				cancel(errEcho)
				return
			}
			if at.Sub(begin) >= s.Warm {
				took = append(took, time.Since(at).Seconds())
			}
		}
	})
	s.sendEchoes(ctx, conn, sent, stop, cancel)
	close(sent)
	receiving.Wait()
	slices.Sort(took)
	return Result{Echoes: took}, context.Cause(ctx)
}

// sendEchoes sends until the time is over, or ctx, or stop, and tells when it
// sent each.
func (s Spec) sendEchoes(ctx context.Context, conn *stream, sent chan<- time.Time, stop <-chan struct{}, cancel context.CancelCauseFunc) {
	out := bytes.Repeat(dot, max(s.Size, 1))
	ticker := time.NewTicker(max(s.Interval, time.Microsecond))
	defer ticker.Stop()
	for begin := time.Now(); s.Duration == 0 || time.Since(begin) < s.Warm+s.Duration; {
		select {
		case sent <- time.Now():
		default:
			cancel(fmt.Errorf("%d echoes did not come back", mostUnanswered))
			return
		}
		if _, err := conn.Write(out); err != nil {
			cancel(fmt.Errorf("echo: %w", err))
			return
		}
		select {
		case <-ticker.C:
		case <-stop:
			return
		case <-ctx.Done():
			return
		}
	}
}

// opens opens streams one behind the other, Streams of them at once. Each
// echoes one byte, so that it is known to have reached its target, and closes.
func (s Spec) opens(ctx context.Context) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	start := time.Now()
	var opened atomic.Int64
	var workers sync.WaitGroup
	for range s.Streams {
		workers.Go(func() {
			for ctx.Err() == nil && time.Since(start) < s.Duration && opened.Load() < int64(s.Most) {
				if err := s.openOnce(ctx); err != nil {
					cancel(fmt.Errorf("open: %w", err))
					return
				}
				opened.Add(1)
			}
		})
	}
	workers.Wait()
	took := time.Since(start)
	if err := context.Cause(ctx); err != nil {
		return Result{}, err
	}
	n := opened.Load()
	return Result{Opened: int(n), Rate: float64(n) / took.Seconds()}, nil
}

func (s Spec) openOnce(ctx context.Context) error {
	conn, err := s.dial(ctx, origin.Echo, '.')
	if err != nil {
		return err
	}
	defer conn.Close()
	var back [1]byte
	if _, err := io.ReadFull(conn, back[:]); err != nil {
		return err
	}
	if back[0] != '.' {
		return errEcho
	}
	return nil
}
