package gateway_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
)

// keep runs a client until stop, which waits for its end.
func keep(t *testing.T, client *httvps.Client) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- client.Run(ctx) }()
	return func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("Run = %v", err)
		}
	}
}

// awaitEvent waits for the next event of a kind.
func awaitEvent(t *testing.T, events <-chan httvps.Event, kind httvps.EventKind) httvps.Event {
	t.Helper()
	for timeout := time.After(30 * time.Second); ; {
		select {
		case e := <-events:
			if e.Kind == kind {
				return e
			}
		case <-timeout:
			t.Fatalf("no event %v", kind)
		}
	}
}
