package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"

	"github.com/httvps/httvps/sdk/go/httvps"
)

// devicesSpec is what a crowd of devices is told: an invitation for each.
type devicesSpec struct {
	Links []string `json:"links"`
}

// playDevices enrols devices and keeps them connected.
func playDevices(ctx context.Context, text []byte, say func(any), _ <-chan struct{}) error {
	var spec devicesSpec
	if err := json.Unmarshal(text, &spec); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	const atOnce = 8
	turns := make(chan struct{}, atOnce)
	connected := make(chan struct{}, len(spec.Links))
	var running sync.WaitGroup
	defer running.Wait()
	defer cancel(nil)
	for _, link := range spec.Links {
		running.Go(func() {
			if err := runDevice(ctx, link, turns, connected); err != nil && ctx.Err() == nil {
				cancel(err)
			}
		})
	}
	for range spec.Links {
		select {
		case <-connected:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	say(line{Ready: true})
	<-ctx.Done()
	if err := context.Cause(ctx); !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

// runDevice enrols a device when it is its turn, and stays connected until ctx
// ends.
func runDevice(ctx context.Context, link string, turns, connected chan struct{}) error {
	inv, err := httvps.ParseInvitation(link)
	if err != nil {
		return err
	}
	select {
	case turns <- struct{}{}:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	done := sync.OnceFunc(func() { <-turns })
	defer done()
	store := httvps.NewMemoryStore()
	if _, err := httvps.Enroll(ctx, inv, httvps.EnrollOptions{Store: store}); err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	client, err := httvps.NewClient(httvps.Config{Store: store, Agent: "bench", OnEvent: func(e httvps.Event) {
		switch e.Kind {
		case httvps.Connected:
			done()
			connected <- struct{}{}
		case httvps.Disconnected:
			cancel(fmt.Errorf("a device that should have been idle was disconnected: %w", e.Err))
		case httvps.Connecting, httvps.Waiting, httvps.Refused: // on its way, or told by Run
		}
	}})
	if err != nil {
		return err
	}
	return client.Run(ctx)
}
