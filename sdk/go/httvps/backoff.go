package httvps

import (
	"context"
	"math/rand/v2"
	"time"
)

// backoff doubles a bound and draws each delay evenly from zero to that bound
// ("full jitter"), so that the devices of a gateway that went away do not come
// back all at once.
type backoff struct {
	min, max time.Duration
	bound    time.Duration
	rand     func(n int64) int64 // [0, n); nil means math/rand
}

// next returns how long to wait, not less than atLeast plus jitter when the
// service asked for a pause.
func (b *backoff) next(atLeast time.Duration) time.Duration {
	if b.bound == 0 {
		b.bound = b.min
	}
	draw := b.rand
	if draw == nil {
		draw = func(n int64) int64 { return int64(jitter(time.Duration(n))) }
	}
	delay := time.Duration(draw(int64(b.bound) + 1))
	b.bound = min(2*b.bound, b.max)
	if atLeast > 0 {
		// What was asked for, and up to a half more: the same answer went to
		// everybody.
		asked := min(atLeast, maxRetryAfter)
		return max(delay, asked+time.Duration(draw(int64(asked/2)+1)))
	}
	return delay
}

func (b *backoff) reset() { b.bound = 0 }

// jitter returns a random time in [0, d), to spread what many devices do.
func jitter(d time.Duration) time.Duration {
	return rand.N(d) //nolint:gosec // nothing depends on nobody guessing it
}

// pause waits for d and reports whether ctx is still good.
func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return ctx.Err() == nil
	case <-ctx.Done():
		return false
	}
}

// maxRetryAfter bounds what a service can ask for, so that a wrong number does
// not silence a device for good.
const maxRetryAfter = 10 * time.Minute
