package load

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/bench/internal/origin"
)

// chunk is what is moved at once: large, so that the calls are few.
const chunk = 128 << 10

// lane is one stream that moves as much as it can.
type lane struct {
	conn  *stream
	moved atomic.Int64
}

// streams moves bytes on all streams at once and counts those of the time
// between warm and the end. Then every stream ends properly, unless it is to be cut
// off, and both ends must have counted the same.
func (s Spec) streams(ctx context.Context, ready func(), stop <-chan struct{}) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	mode := byte(origin.Download)
	if s.Up {
		mode = origin.Upload
	}
	lanes := make([]*lane, s.Streams)
	for i := range lanes {
		conn, err := s.connect(ctx)
		if err != nil {
			return Result{}, fmt.Errorf("stream %d: %w", i+1, err)
		}
		defer conn.Close()
		lanes[i] = &lane{conn: conn}
	}
	for i, l := range lanes { // when all are open, so that none is in the way of another
		if _, err := l.conn.Write([]byte{mode}); err != nil {
			return Result{}, fmt.Errorf("stream %d: %w", i+1, err)
		}
	}
	var ending atomic.Bool
	var moving sync.WaitGroup
	defer moving.Wait()
	for i, l := range lanes {
		moving.Go(func() {
			move := l.download
			if s.Up {
				move = func() error { return l.upload(&ending) }
			}
			if err := move(); err != nil && (!s.Cut || !ending.Load()) {
				cancel(fmt.Errorf("stream %d: %w", i+1, err))
			}
		})
	}

	pause(ctx, stop, s.Warm)
	before, start := counts(lanes), time.Now()
	if s.Duration == 0 {
		ready()
		select {
		case <-stop:
		case <-ctx.Done():
		}
	} else {
		pause(ctx, nil, s.Duration)
	}
	after, took := counts(lanes), time.Since(start)

	ending.Store(true)
	for _, l := range lanes {
		switch {
		case s.Cut:
			l.conn.abort()
		case !s.Up:
			_ = l.conn.CloseWrite() // which ends the download
		}
	}
	moving.Wait()
	if err := context.Cause(ctx); err != nil {
		return Result{}, err
	}
	var r Result
	for i := range lanes {
		share := after[i] - before[i]
		r.PerStream = append(r.PerStream, float64(share))
		r.Speed += float64(share) / took.Seconds()
		r.Bytes += lanes[i].moved.Load()
	}
	return r, nil
}

func counts(lanes []*lane) []int64 {
	n := make([]int64, len(lanes))
	for i, l := range lanes {
		n[i] = l.moved.Load()
	}
	return n
}

// download reads to the end and compares the number that the origin says.
func (l *lane) download() error {
	buf := make([]byte, origin.CountLen+chunk) // the last bytes read stand in front
	for {
		n, err := l.conn.Read(buf[origin.CountLen:])
		copy(buf, buf[n:n+origin.CountLen])
		total := l.moved.Add(int64(n))
		if errors.Is(err, io.EOF) {
			sent := binary.BigEndian.Uint64(buf[:origin.CountLen])
			if got := uint64(total - origin.CountLen); total < origin.CountLen || got != sent {
				return fmt.Errorf("%d bytes came, %d were sent", got, sent)
			}
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// upload writes until ending, and compares the number that the origin got.
func (l *lane) upload(ending *atomic.Bool) error {
	pattern := make([]byte, chunk)
	for !ending.Load() {
		n, err := l.conn.Write(pattern)
		l.moved.Add(int64(n))
		if err != nil {
			return err
		}
	}
	if err := l.conn.CloseWrite(); err != nil {
		return err
	}
	var count [origin.CountLen]byte
	if _, err := io.ReadFull(l.conn, count[:]); err != nil {
		return fmt.Errorf("the origin's count: %w", err)
	}
	if got := binary.BigEndian.Uint64(count[:]); got != uint64(l.moved.Load()) {
		return fmt.Errorf("%d bytes were sent, %d came", l.moved.Load(), got)
	}
	return nil
}
