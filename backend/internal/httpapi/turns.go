package httpapi

import (
	"context"

	"github.com/danielgtaylor/huma/v2"
)

// devicesAtOnce is how many requests of devices are at work at once. The others wait,
// first come, first served, as long as a request may take. Gateways have two seconds for
// a question: thousands of devices that come back together would stand in line before it.
const devicesAtOnce = 8

// turns are places for requests that are at work.
type turns chan struct{}

// take waits for a place and returns what leaves it.
func (t turns) take(ctx context.Context) (leave func(), err error) {
	select {
	case t <- struct{}{}:
		return func() { <-t }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// ofDevices reports whether an operation is there for devices alone.
func ofDevices(op huma.Operation) bool { return len(op.Tags) == 1 && op.Tags[0] == "device" }

// inTurn has handle run when it is its turn. Its body has been read by then, so that
// nobody holds a place by being slow.
func inTurn[I, O any](t turns, handle func(context.Context, *I) (*O, error)) func(context.Context, *I) (*O, error) {
	return func(ctx context.Context, in *I) (*O, error) {
		leave, err := t.take(ctx)
		if err != nil {
			return nil, err
		}
		defer leave()
		return handle(ctx, in)
	}
}
