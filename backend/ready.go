package backend

import (
	"context"
	"sync"
	"time"
)

const (
	readyTimeout = time.Second
	// readyLife is how long an answer holds: the question costs a write, and
	// whoever reaches the listener may ask it.
	readyLife = time.Second
)

// readiness asks whether the service can do its work, for all who want to know.
type readiness struct {
	check func(context.Context) error
	tell  func(bool)

	mu    sync.Mutex // guards what follows, and makes one ask for all
	asked time.Time
	err   error
}

// Ready returns why the service cannot do its work at the moment, or nil.
func (r *readiness) Ready(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.asked) < readyLife {
		return r.err
	}
	// The answer is for others, too: who asked first may have gone.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), readyTimeout)
	defer cancel()
	r.err = r.check(ctx)
	r.asked = time.Now()
	r.tell(r.err == nil)
	return r.err
}
