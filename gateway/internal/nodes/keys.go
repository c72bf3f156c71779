package nodes

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/httvps/httvps/internal/ticket"
)

// ErrNoKeys says that the control plane has not told its keys yet.
var ErrNoKeys = errors.New("the keys that verify tokens are not known yet")

// minRefresh is the shortest time between two refreshes because of an unknown
// key: anybody can present a token that names one.
const minRefresh = 10 * time.Second

// keys verifies tokens with the control plane's current keys.
type keys struct {
	fetch func(context.Context) (*ticket.Verifier, error)
	now   func() time.Time

	mu       sync.Mutex // guards the following fields
	current  *ticket.Verifier
	asked    time.Time     // begin of the last refresh
	fetching chan struct{} // closed when the refresh under way ends; nil: none is
}

// Verify checks everything in a token but its expiry. A token of a key that is
// not known makes the keys be fetched again, at most one fetch at a time and
// one in ten seconds; callers that come meanwhile share it.
func (k *keys) Verify(ctx context.Context, token string) (ticket.Claims, error) {
	verifier := k.load()
	if verifier == nil {
		return ticket.Claims{}, ErrNoKeys
	}
	claims, err := verifier.Verify(token)
	if !errors.Is(err, ticket.ErrUnknownKey) {
		return claims, err
	}
	if !k.newer(ctx, verifier) {
		return ticket.Claims{}, err
	}
	return k.load().Verify(token)
}

func (k *keys) load() *ticket.Verifier {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.current
}

// newer reports whether there are other keys than tried by now, asking the
// control plane when that is due.
func (k *keys) newer(ctx context.Context, tried *ticket.Verifier) bool {
	k.mu.Lock()
	switch {
	case k.current != tried: // fetched meanwhile, for somebody else
		k.mu.Unlock()
		return true
	case k.fetching == nil && k.now().Sub(k.asked) < minRefresh:
		k.mu.Unlock()
		return false
	}
	k.mu.Unlock()
	return k.refresh(ctx) == nil
}

// refresh fetches the keys, or waits for the fetch that is under way.
func (k *keys) refresh(ctx context.Context) error {
	k.mu.Lock()
	if k.fetching != nil {
		fetching := k.fetching
		k.mu.Unlock()
		select {
		case <-fetching:
			return nil
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	k.asked = k.now()
	done := make(chan struct{})
	k.fetching = done
	k.mu.Unlock()

	verifier, err := k.fetch(ctx)

	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.current = verifier
	}
	k.fetching = nil
	close(done)
	return err
}
