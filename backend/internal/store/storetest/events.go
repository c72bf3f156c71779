package storetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

var errChanged = errors.New("changed its mind")

func testEventsReadBack(f fixture) {
	t := f.t
	all := control.Event{Kind: control.EventKeysChanged, At: now, All: true, Keys: control.KeysKnock}
	some := control.Event{
		Kind: control.EventSessionClose, At: now, Gateways: []string{id(), id()}, Reason: "r", UserID: "u", DeviceID: "d",
		SubscriptionID: "s", PlanID: "p", SessionID: "x",
	}
	none := control.Event{Kind: control.EventUserEnabled, At: now, UserID: "u"}
	f.write(t, func(_ context.Context, tx control.Tx) error {
		tx.AppendEvent(all)
		tx.AppendEvent(some)
		return nil
	})
	f.write(t, func(_ context.Context, tx control.Tx) error { tx.AppendEvent(none); return nil })
	all.Version, some.Version, none.Version = 1, 2, 3
	f.wantEvents(0, 10, control.EventLog{Latest: 3, Events: []control.Event{all, some, none}})
	f.wantEvents(1, 1, control.EventLog{Latest: 3, Events: []control.Event{some}})
	f.wantEvents(3, 10, control.EventLog{Latest: 3})
	f.wantEvents(99, 10, control.EventLog{Latest: 3})
	f.wantEvents(0, 0, control.EventLog{Latest: 3})
}

func (f fixture) events(after int64, limit int) (log control.EventLog) {
	f.t.Helper()
	err := f.Read(f.t.Context(), func(ctx context.Context, tx control.Tx) error {
		var err error
		log, err = tx.Events(ctx, after, limit)
		return err
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return log
}

func (f fixture) wantEvents(after int64, limit int, want control.EventLog) {
	f.t.Helper()
	same(f.t, want, f.events(after, limit))
}

// testEventOrder has units of work that take unequally long, some of which are
// given up at the end, while readers follow the log: none may miss a version, and
// none of what was given up may be there.
func testEventOrder(f fixture) {
	const writing, rounds, readers = 16, 6, 2
	t := f.t
	var (
		writers, all sync.WaitGroup
		written      atomic.Int64
		done         = make(chan struct{})
	)
	for range readers {
		all.Go(func() {
			var last int64
			for final := false; ; {
				log := f.events(last, 7)
				for _, e := range log.Events {
					if e.Version != last+1 {
						t.Errorf("after version %d comes %d: events were skipped", last, e.Version)
					}
					if e.Reason != "" {
						t.Errorf("version %d was given up", e.Version)
					}
					last = e.Version
				}
				if final && len(log.Events) == 0 {
					same(t, written.Load(), last)
					return
				}
				select {
				case <-done:
					final = true
				default:
				}
			}
		})
	}
	for caller := range writing {
		writers.Go(func() {
			for round := range rounds {
				given := (caller+round)%3 == 0
				err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
					e := control.Event{Kind: control.EventUserDisabled, At: now, UserID: id(), All: true}
					if given {
						e.Reason = "given up"
					}
					tx.AppendEvent(e)
					if round%2 == 0 {
						tx.AppendEvent(e)
					}
					for n := range (caller*7 + round*5) % 8 { // so that the order of the ends is another one
						if err := tx.PutSetting(ctx, fmt.Sprint(caller, "-", n), "x"); err != nil {
							return err
						}
					}
					if given {
						return errChanged
					}
					return nil
				})
				switch {
				case given && !errors.Is(err, errChanged), !given && err != nil:
					t.Errorf("Write = %v", err)
				case !given:
					written.Add(int64(2 - round%2))
				}
			}
		})
	}
	writers.Wait()
	close(done)
	all.Wait()
}

func testPruneEvents(f fixture) {
	t := f.t
	for i := range 10 {
		f.write(t, func(_ context.Context, tx control.Tx) error {
			// The fifth has a clock that is behind: its place in the log counts.
			at := now.Add(time.Duration(i) * time.Hour)
			if i == 4 {
				at = now
			}
			tx.AppendEvent(control.Event{Kind: control.EventUserEnabled, At: at})
			return nil
		})
	}
	prune := func(before time.Time, keep, limit, want int) {
		t.Helper()
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			n, err := tx.PruneEvents(ctx, before, keep, limit)
			same(t, want, n)
			return err
		})
	}
	check := func(low int64) {
		t.Helper()
		log := f.events(0, 100)
		same(t, low, log.Low)
		same(t, int64(10), log.Latest)
		same(t, int(log.Latest-low), len(log.Events))
		if !log.Gap(low-1) || log.Gap(low) || log.Gap(10) || !log.Gap(11) {
			t.Errorf("the gap is not where the log begins: %+v", log)
		}
	}
	check(0)
	prune(now.Add(3*time.Hour), 100, 2, 2) // 3 are old: at most 2 at a time
	check(2)
	prune(now.Add(3*time.Hour), 100, 2, 1)
	prune(now.Add(3*time.Hour), 100, 2, 0)
	check(3)
	prune(now, 4, 100, 3) // too many
	check(6)
	prune(now.Add(100*time.Hour), 4, 100, 4) // all are old
	log := f.events(10, 10)
	same(t, control.EventLog{Latest: 10, Low: 10}, log)
	prune(now.Add(100*time.Hour), 4, 100, 0)
	f.write(t, func(_ context.Context, tx control.Tx) error {
		tx.AppendEvent(control.Event{Kind: control.EventUserEnabled, At: now})
		return nil
	})
	same(t, int64(11), f.events(10, 10).Events[0].Version)
}

func testGatewaysOfUser(f fixture) {
	t := f.t
	user, other := f.user(t), f.user(t)
	one, two, three := f.gateway(t, "b"), f.gateway(t, "b"), f.gateway(t, "b")
	device := f.device(t, user)
	f.session(t, device, one, "b")
	f.session(t, device, one, "b")
	ended := f.session(t, device, two, "b")
	f.session(t, f.device(t, other), three, "b")
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		if err := tx.EndSessions(ctx, two.ID, []control.SessionEnd{{ID: ended.ID, Reason: "x"}}, now); err != nil {
			return err
		}
		got, err1 := tx.GatewaysOfUser(ctx, user.ID, 10)
		same(t, []string{one.ID, two.ID}, got)
		few, err2 := tx.GatewaysOfUser(ctx, user.ID, 1)
		same(t, 1, len(few))
		none, err3 := tx.GatewaysOfUser(ctx, id(), 10)
		same(t, 0, len(none))
		return errors.Join(err1, err2, err3)
	})
}

func testAskClose(f fixture) {
	t := f.t
	user, gateway := f.user(t), f.gateway(t, "b")
	f.subscription(t, user, f.plan(t), now.Add(-time.Hour), nil)
	session := f.session(t, f.device(t, user), gateway, "b")
	unwanted := func() (all []control.UnwantedSession) {
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			var err error
			all, err = tx.UnwantedSessions(ctx, gateway.ID, now, 10)
			return err
		})
		return all
	}
	same(t, 0, len(unwanted()))
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		first, err1 := tx.AskClose(ctx, session.ID, "first")
		again, err2 := tx.AskClose(ctx, session.ID, "second")
		absent, err3 := tx.AskClose(ctx, sessionID(), "first")
		same(t, []bool{true, false, false}, []bool{first, again, absent})
		return errors.Join(err1, err2, err3)
	})
	same(t, []control.UnwantedSession{{ID: session.ID, Asked: "first"}}, unwanted())
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		return tx.EndSessions(ctx, gateway.ID, []control.SessionEnd{{ID: session.ID, Reason: "x"}}, now)
	})
	same(t, 0, len(unwanted()))
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		late, err := tx.AskClose(ctx, session.ID, "late")
		same(t, false, late)
		return err
	})
}
