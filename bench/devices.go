package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
)

// devicesSpec is what a crowd of devices is told.
type devicesSpec struct {
	Links    []string `json:"links"`    // an invitation for each device
	Sessions int      `json:"sessions"` // of each device
	AtOnce   int      `json:"at_once"`  // connections that are made at the same time
	Rush     bool     `json:"rush"`     // a session that ends has failed, and begins again
}

// crowdResult is how a crowd has connected.
type crowdResult struct {
	Seconds float64 `json:"seconds"`       // from the first attempt to the last session
	Failed  int     `json:"failed"`        // attempts that had to be repeated
	Why     string  `json:"why,omitempty"` // one of them failed
}

// enrolling is how many devices are enrolled at once.
const enrolling = 8

// playDevices enrols devices, connects them, and keeps them connected.
func playDevices(ctx context.Context, text []byte, say func(any), _ <-chan struct{}) error {
	var spec devicesSpec
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stores, err := enrollAll(ctx, spec.Links)
	if err != nil {
		return err
	}
	c := &crowd{rush: spec.Rush, turns: make(chan struct{}, spec.AtOnce), connected: make(chan struct{}, len(stores)*spec.Sessions), cancel: cancel}
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	began := time.Now()
	for _, store := range stores {
		for range spec.Sessions {
			running.Go(func() {
				if err := c.connect(ctx, store); err != nil && ctx.Err() == nil {
					cancel(err)
				}
			})
		}
	}
	for range cap(c.connected) {
		select {
		case <-c.connected:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	why, _ := c.why.Load().(string)
	say(line{Ready: true, Crowd: &crowdResult{Seconds: time.Since(began).Seconds(), Failed: int(c.failed.Load()), Why: why}})
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// enrollAll enrols a device with each invitation.
func enrollAll(ctx context.Context, links []string) ([]httvps.Store, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stores := make([]httvps.Store, len(links))
	next := make(chan int)
	var working sync.WaitGroup
	for range enrolling {
		working.Go(func() {
			for i := range next {
				store := httvps.NewMemoryStore()
				inv, err := httvps.ParseInvitation(links[i])
				if err == nil {
					_, err = httvps.Enroll(ctx, inv, httvps.EnrollOptions{Store: store})
				}
				if err != nil {
					cancel(err)
				}
				stores[i] = store
			}
		})
	}
	for i := range links {
		next <- i
	}
	close(next)
	working.Wait()
	return stores, context.Cause(ctx)
}

// crowd are the sessions of one process.
type crowd struct {
	rush      bool
	turns     chan struct{}
	connected chan struct{}
	failed    atomic.Int64
	why       atomic.Value // string: why one of them did
	cancel    context.CancelCauseFunc
}

// connect opens a session when it is its turn, and keeps it until ctx ends.
func (c *crowd) connect(ctx context.Context, store httvps.Store) error {
	select {
	case c.turns <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	done := sync.OnceFunc(func() { <-c.turns })
	defer done()
	up := sync.OnceFunc(func() { c.connected <- struct{}{} })
	client, err := httvps.NewClient(httvps.Config{Store: store, Agent: "bench", OnEvent: func(e httvps.Event) {
		switch e.Kind {
		case httvps.Connected:
			done()
			up()
		case httvps.Disconnected:
			if !c.rush {
				c.cancel(fmt.Errorf("a session that should have been idle has ended: %w", e.Err))
			}
			c.fail(e.Err)
		case httvps.Waiting:
			c.fail(e.Err)
		case httvps.Connecting, httvps.Resumed, httvps.Moved, httvps.Refused, httvps.Degraded, httvps.LimitsChanged, httvps.Noticed: // on its way, as before, or told by Run
		}
	}})
	if err != nil {
		return err
	}
	return client.Run(ctx)
}

func (c *crowd) fail(err error) {
	c.failed.Add(1)
	if err != nil {
		c.why.CompareAndSwap(nil, err.Error())
	}
}
