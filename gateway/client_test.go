package gateway_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
)

// enrolled is what a device of its own has, which the service knows.
func (s *service) enrolled(t *testing.T) httvps.Store {
	t.Helper()
	invitation, err := httvps.ParseInvitation(s.backend.Invite)
	if err != nil {
		t.Fatal(err)
	}
	store := httvps.NewMemoryStore()
	if _, err := httvps.Enroll(t.Context(), invitation, httvps.EnrollOptions{Store: store}); err != nil {
		t.Fatal(err)
	}
	return store
}

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
