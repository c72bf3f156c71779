package nodes

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func ofDevice(device int) (q Question) {
	binary.BigEndian.PutUint32(q.Device[:], uint32(device))
	q.Session, q.Thumbprint, q.Generation = q.Device, "t", 1
	return q
}

// A control plane that is slow under many questions at once answers a rush of them, if
// they do not reach it at once.
func TestARushOfDevicesIsDecided(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutage(t, func(*Config) {})
		serving := make(chan struct{}, 1) // one at a time, as a database that has one writer
		o.decide = func(map[string]any) any {
			serving <- struct{}{}
			defer func() { <-serving }()
			<-time.After(2900 * time.Microsecond)
			return allowed
		}
		var asking sync.WaitGroup
		for i := range 1000 {
			asking.Go(func() {
				if d, err := o.n.Validate(t.Context(), ofDevice(i)); err != nil || !d.Allowed {
					t.Errorf("Validate = %+v, %v", d, err)
				}
			})
		}
		asking.Wait()
		if o.asked != 1000 || o.most != maxAsking {
			t.Errorf("%d questions, %d at once; want 1000 and %d", o.asked, o.most, maxAsking)
		}
	})
}

func TestWhoWaitsTooLongForAPlaceIsToldToComeAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const answer = 1900 * time.Millisecond // each in time, all of them not
		o := newOutage(t, func(*Config) {})
		o.decide = func(map[string]any) any {
			<-time.After(answer)
			return allowed
		}
		began := time.Now()
		var asking sync.WaitGroup
		var decided, busy atomic.Int64
		for i := range maxAsking + maxWaiting + 1 {
			asking.Go(func() {
				switch _, err := o.n.Validate(t.Context(), ofDevice(i)); {
				case err == nil:
					decided.Add(1)
				case errors.Is(err, ErrBusy) && errors.Is(err, ErrUndecided):
					busy.Add(1)
					if o.n.Breaker() != BreakerClosed {
						t.Error("that devices waited counts against the control plane")
					}
				default:
					t.Errorf("Validate: %v", err)
				}
			})
			if i == maxAsking+maxWaiting {
				synctest.Wait()
				if busy.Load() != 1 {
					t.Errorf("%d were turned away at once, want the one that there is no room for", busy.Load())
				}
			}
			if i == maxAsking-1 {
				synctest.Wait() // they have their places
			}
		}
		asking.Wait()
		if took := time.Since(began); took > queueTimeout+decisionTimeout {
			t.Errorf("the last word after %s", took)
		}
		rounds := 1 + int64(queueTimeout/answer)
		if want := rounds * maxAsking; decided.Load() != want || busy.Load() != maxAsking+maxWaiting+1-want {
			t.Errorf("%d decided, %d to come again; want %d and the rest", decided.Load(), busy.Load(), want)
		}
		if len(o.n.ended.first()) != 0 {
			t.Error("ends are told of sessions that were never asked about")
		}
	})
}

// The two seconds of a question are its own: a wait of any length takes nothing of them.
func TestAQuestionHasItsTimeFromItsPlaceOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutage(t, func(*Config) {})
		o.decide = func(map[string]any) any {
			<-time.After(1500 * time.Millisecond)
			return allowed
		}
		var asking sync.WaitGroup
		for range 2 { // of one device: the second waits for the first
			asking.Go(func() {
				if _, err := o.n.Validate(t.Context(), ofDevice(1)); err != nil {
					t.Errorf("Validate: %v", err)
				}
			})
		}
		asking.Wait()
	})
}

func TestADeviceThatGoesLeavesTheQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutage(t, func(*Config) {})
		for range maxAsking {
			o.n.places.taken <- struct{}{}
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		answered := make(chan error, 1)
		go func() {
			_, err := o.n.Validate(ctx, ofDevice(1))
			answered <- err
		}()
		synctest.Wait()
		if n := o.n.places.waiting.Load(); n != 1 {
			t.Fatalf("%d wait, want 1", n)
		}
		cancel()
		if err := <-answered; !errors.Is(err, context.Canceled) || errors.Is(err, ErrBusy) {
			t.Errorf("Validate: %v, want that it was given up", err)
		}
		if n := o.n.places.waiting.Load(); n != 0 {
			t.Errorf("%d wait, want none", n)
		}
	})
}
