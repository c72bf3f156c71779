package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/bench/internal/origin"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// switchSpec is what sessions are told one of whose ways out will break.
type switchSpec struct {
	Links   []string `json:"links"`   // an invitation for each
	Target  string   `json:"target"`  // an origin
	Streams int      `json:"streams"` // downloads of each session
}

// switchResult is what became of them.
type switchResult struct {
	Before []float64 `json:"before"` // seconds that a new stream took while nothing was broken, sorted
	Took   []float64 `json:"took"`   // seconds until a new stream worked, of those that lost streams, sorted
	Lost   int       `json:"lost"`   // sessions that ended
}

// playSwitch connects sessions that download all they can get, until the input ends:
// then a server is gone, and each session opens streams until one works.
func playSwitch(ctx context.Context, text []byte, say func(any), stop <-chan struct{}) error {
	var spec switchSpec
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stores, err := enrollAll(ctx, spec.Links)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	var lost atomic.Int64
	all := make([]*switching, len(stores))
	for i, store := range stores {
		all[i] = &switching{target: spec.Target}
		if all[i].client, err = httvps.NewClient(httvps.Config{Store: store, Agent: "bench", OnEvent: func(e httvps.Event) {
			if e.Kind == httvps.Disconnected && ctx.Err() == nil {
				lost.Add(1)
			}
		}}); err != nil {
			return err
		}
		running.Go(func() { _ = all[i].client.Run(ctx) })
		for range spec.Streams {
			running.Go(func() { all[i].download(ctx) })
		}
	}
	for _, s := range all {
		for s.moved.Load() == 0 {
			if !sleep(ctx, 10*time.Millisecond) {
				return context.Cause(ctx)
			}
		}
	}
	result := switchResult{Before: askAll(ctx, all, cancel, false)}
	say(line{Ready: true})
	<-stop
	result.Took = askAll(ctx, all, cancel, true)
	if err := context.Cause(ctx); err != nil {
		return err
	}
	result.Lost = int(lost.Load())
	say(line{Switch: &result})
	return nil
}

// askAll has each session open streams until one works, and returns how long that took,
// sorted: of all, or of those that lost streams meanwhile.
func askAll(ctx context.Context, all []*switching, cancel context.CancelCauseFunc, broken bool) (took []float64) {
	began := time.Now()
	var mu sync.Mutex // guards took
	var asking sync.WaitGroup
	for _, s := range all {
		before := s.broken.Load()
		asking.Go(func() {
			if err := s.again(ctx); err != nil {
				cancel(err)
			}
			seconds := time.Since(began).Seconds()
			if broken && (!sleep(ctx, time.Second) || s.broken.Load() == before) { // none of its streams has ended
				return
			}
			mu.Lock()
			defer mu.Unlock()
			took = append(took, seconds)
		})
	}
	asking.Wait()
	slices.Sort(took)
	return took
}

// switching is one session.
type switching struct {
	client *httvps.Client
	target string
	moved  atomic.Int64
	broken atomic.Int64 // streams that ended
}

// download takes all it can get, on one stream after the other.
func (s *switching) download(ctx context.Context) {
	for ctx.Err() == nil {
		err := s.open(ctx, origin.Download, func(conn httvps.Conn) error {
			_, err := io.Copy(counting{&s.moved}, conn)
			return err
		})
		if err != nil && ctx.Err() == nil {
			s.broken.Add(1)
		}
	}
}

// counting counts what is written.
type counting struct{ n *atomic.Int64 }

func (c counting) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// again opens streams until a byte comes back on one.
func (s *switching) again(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, failoverTimeout)
	defer cancel()
	for {
		err := s.open(ctx, origin.Echo, func(conn httvps.Conn) error {
			_ = conn.SetDeadline(time.Now().Add(failoverTimeout))
			if _, err := conn.Write([]byte{'x'}); err != nil {
				return err
			}
			_, err := io.ReadFull(conn, make([]byte, 1))
			return err
		})
		if err == nil {
			return nil
		}
		if ctx.Err() != nil {
			return fmt.Errorf("a session found no other way: %w", err)
		}
	}
}

func (s *switching) open(ctx context.Context, mode byte, use func(httvps.Conn) error) error {
	dialled, err := s.client.DialContext(ctx, "tcp", s.target)
	if err != nil {
		return err
	}
	conn := dialled.(httvps.Conn) //nolint:errcheck // as it is documented
	defer conn.Abort()
	stop := context.AfterFunc(ctx, conn.Abort)
	defer stop()
	if _, err := conn.Write([]byte{mode}); err != nil {
		return err
	}
	return use(conn)
}
