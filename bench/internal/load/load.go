// Package load makes traffic and measures what becomes of it: the program at
// the near end of a tunnel. It speaks SOCKS5, or connects to the target itself,
// is the same for all contenders, and costs as little as it can: a constant
// pattern, no checksums, but every byte is counted at both ends.
package load

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// The kinds of load.
const (
	// Streams moves as much as it can on so many streams at once.
	Streams = "streams"
	// Echoes sends little now and then and waits for it to come back.
	Echoes = "echo"
	// Opens opens streams, echoes one byte and closes them.
	Opens = "opens"
	// Idle opens streams, moves a few bytes on each and leaves them alone.
	Idle = "idle"
	// Stalled opens streams whose data nobody reads.
	Stalled = "stalled"
)

// Spec is one load. A load with Duration 0 says when it is in place, and goes
// on until it is told to end.
type Spec struct {
	Kind     string        `json:"kind"`
	Socks    string        `json:"socks"`  // address of the proxy; empty: the target directly
	Target   string        `json:"target"` // an origin, IP address and port
	Up       bool          `json:"up"`     // bytes go to the target instead of coming from it
	Streams  int           `json:"streams"`
	Warm     time.Duration `json:"warm"` // what moves before that has passed does not count
	Duration time.Duration `json:"duration"`
	Size     int           `json:"size"`     // bytes of an echo
	Interval time.Duration `json:"interval"` // between echoes
	Most     int           `json:"most"`     // opens after which to end
	// Cut breaks streams off at the end, so that nobody compares what both ends have
	// counted: for ways on which one direction cannot end before the other.
	Cut bool `json:"cut"`
}

// Result is what came of a load.
type Result struct {
	Bytes     int64     `json:"bytes"`      // moved in all, for streams
	Speed     float64   `json:"speed"`      // bytes per second while it was measured
	PerStream []float64 `json:"per_stream"` // bytes of each stream while it was measured
	Echoes    []float64 `json:"echoes"`     // seconds, sorted
	Opened    int       `json:"opened"`
	Rate      float64   `json:"rate"` // opens per second
}

// grace is what a load has beyond its duration to begin and to end, slow links
// included.
const grace = 30 * time.Second

// Run makes a load. ready is called when one without a duration is in place;
// it then ends with stop.
func Run(ctx context.Context, s Spec, ready func(), stop <-chan struct{}) (Result, error) {
	if s.Streams < 1 || s.Streams > 10_000 || s.Size < 0 || s.Size > maxEcho || s.Warm < 0 || s.Duration < 0 {
		return Result{}, fmt.Errorf("a load of %d streams, echoes of %d bytes, %v after %v", s.Streams, s.Size, s.Duration, s.Warm)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	ended := make(chan struct{})
	var watching sync.WaitGroup
	defer watching.Wait()
	defer close(ended)
	watching.Go(func() {
		if s.Duration == 0 {
			select {
			case <-stop:
			case <-ended:
			}
		}
		pause(ctx, ended, s.Warm+s.Duration+grace)
		cancel(errors.New("the load did not end in time")) // one that has ended does not mind
	})
	switch s.Kind {
	case Streams:
		return s.streams(ctx, ready, stop)
	case Echoes:
		return s.echoes(ctx, stop)
	case Opens:
		return s.opens(ctx)
	case Idle:
		return s.idle(ctx, ready, stop)
	case Stalled:
		return s.stalled(ctx, ready, stop)
	default:
		return Result{}, fmt.Errorf("no load is called %q", s.Kind)
	}
}

// pause waits for d, or the end of ctx or stop.
func pause(ctx context.Context, stop <-chan struct{}, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-stop:
	case <-ctx.Done():
	}
}
