package server

import (
	"context"
	"crypto/rand"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/gateway/internal/sessions"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// leaver is a session at both ends, and what its device hears.
type leaver struct {
	client *mux.Session
	said   []wire.GoAway
	at     []time.Duration // when, since began
	ended  time.Duration
	began  time.Time
}

// visit has a device come, with a stream open or none.
func visit(t *testing.T, d *drain, registry *sessions.Registry, stream bool) *leaver {
	t.Helper()
	var id sessions.ID
	_, _ = rand.Read(id[:])
	live, err := registry.Add(id, sessions.Device{1}, sessions.Term{})
	if err != nil {
		t.Fatal(err)
	}
	l := &leaver{began: time.Now()}
	a, b := muxtest.Pipe()
	gateway := mux.New(b, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits(), Drain: mux.Drain{Agreed: true}})
	l.client = mux.New(a, mux.Config{Role: mux.Client, Limits: wire.DefaultLimits(), Drain: mux.Drain{Agreed: true, OnGoAway: func(g wire.GoAway) {
		l.said, l.at = append(l.said, g), append(l.at, time.Since(l.began))
	}}})
	live.OnEnd(func(code wire.Code) { gateway.Close(code, "") })
	d.begun(live, gateway)
	var running sync.WaitGroup
	running.Go(func() {
		_ = l.client.Run(context.WithoutCancel(t.Context()))
		l.ended = time.Since(l.began)
	})
	running.Go(func() {
		_ = gateway.Run(context.WithoutCancel(t.Context()))
		d.ended(live)
		registry.Remove(live)
	})
	t.Cleanup(func() {
		l.client.Close(wire.CodeNoError, "")
		running.Wait()
	})
	if stream {
		running.Go(func() { _, _ = l.client.Open(t.Context(), wire.Addr{Name: "a.example", Port: 1}) })
		in, err := gateway.Accept(t.Context())
		if err != nil || in.Stream.Confirm() != nil {
			t.Fatal(err)
		}
	}
	return l
}

func startDrain(t *testing.T, within time.Duration) *drain {
	t.Helper()
	d := newDrain(func() time.Duration { return within }, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var running sync.WaitGroup
	running.Go(func() { d.run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return d
}

// near reports whether something happened at a time, or with the next look after it.
func near(got, want time.Duration) bool { return got >= want && got <= want+2*drainLook }

// docs/04: the table of what happens when.
func TestSessionsGoElsewhereAndTheLastOnesEndWithTheTime(t *testing.T) {
	for name, tc := range map[string]struct {
		within          time.Duration
		others          []string
		spread, settled time.Duration
		lastCall        bool
	}{
		"beside others":    {30 * time.Second, []string{"wss://b/x"}, 10 * time.Second, 12 * time.Second, true},
		"for long":         {10 * time.Minute, []string{"wss://b/x"}, 10 * time.Second, 12 * time.Second, true},
		"for a short time": {3 * time.Second, []string{"wss://b/x"}, time.Second, 1300 * time.Millisecond, true},
		"where it is not known whether there are": {30 * time.Second, nil, 10 * time.Second, 12 * time.Second, true},
		"alone": {30 * time.Second, []string{}, 0, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := startDrain(t, tc.within)
				registry := sessions.New(10, sessions.Leaving{}, nil)
				busy, idle := visit(t, d, registry, true), visit(t, d, registry, false)
				d.mu.Lock()
				d.others = tc.others
				d.mu.Unlock()
				d.stop(tc.within)
				<-time.After(tc.settled + tc.within + time.Second)
				synctest.Wait()
				if !near(busy.at[0], 0) || busy.said[0].Last != wire.AllOpens || busy.said[0].Drain != tc.settled+tc.within || busy.said[0].ReconnectMax != tc.spread {
					t.Errorf("said first: %+v, after %v", busy.said[0], busy.at[0])
				}
				switch {
				case !tc.lastCall:
					if len(busy.said) != 1 {
						t.Errorf("said: %+v", busy.said)
					}
				case len(busy.said) != 2 || !near(busy.at[1], tc.settled) || busy.said[1].Last != 1 || !near(tc.within-busy.said[1].Drain, 0):
					t.Errorf("said then: %+v, after %v", busy.said, busy.at)
				}
				if !near(busy.ended, tc.settled+tc.within) {
					t.Errorf("the session with a stream ended after %v", busy.ended)
				}
				if !near(idle.ended, tc.settled) {
					t.Errorf("the session without one ended after %v", idle.ended)
				}
				if registry.Len() != 0 {
					t.Errorf("%d sessions are left", registry.Len())
				}
			})
		})
	}
}

// Who was told to go goes, and who comes behind undrain stays.
func TestUndrainLetsTheNextOnesStay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := startDrain(t, time.Second)
		registry := sessions.New(10, sessions.Leaving{}, nil)
		told := visit(t, d, registry, true)
		d.told(t.Context(), true, []string{"wss://b/x"})
		if !d.draining() {
			t.Error("sessions begin")
		}
		late := visit(t, d, registry, true) // it was being let in
		<-time.After(time.Second)
		d.told(t.Context(), false, nil)
		if d.draining() {
			t.Error("no session begins")
		}
		after := visit(t, d, registry, true)
		<-time.After(time.Minute)
		synctest.Wait()
		const ends = 12*time.Second + operatorDrain
		for name, l := range map[string]*leaver{"the one before": told, "the one during": late} {
			if len(l.said) != 2 || l.said[0].Drain != ends || !near(l.ended, ends) {
				t.Errorf("%s: said %+v, ended after %v", name, l.said, l.ended)
			}
		}
		if len(after.said) != 0 || after.client.Err() != nil {
			t.Errorf("the one after: said %+v, %v", after.said, after.client.Err())
		}
	})
}
