package control_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/sdk/go/knock"
)

const week = 7 * 24 * time.Hour

// knocks are the keys that gateways are told, newest first.
func (w *world) knocks() []knock.Key {
	w.t.Helper()
	return ok[control.GatewayKnock](w.t)(w.GatewayKnock(w.t.Context())).Keys
}

// keepKnock does what the service does every few minutes.
func (w *world) keepKnock() (made bool) {
	w.t.Helper()
	return ok[bool](w.t)(w.KeepKnock(w.t.Context()))
}

func TestTheFirstKnockKeyIsInForceAtOnce(t *testing.T) {
	w := newWorld(t)
	told := ok[control.GatewayKnock](t)(w.GatewayKnock(t.Context()))
	if told.Cookie != "sid" || len(told.Keys) != 1 || told.Keys[0] == (knock.Key{}) {
		t.Fatalf("gateways are told of %d keys in %q", len(told.Keys), told.Cookie)
	}
	user, key := w.subscriber(1, 1), testKey(1)
	enrolled := ok[control.Enrolled](t)(w.enrol(key, w.invite(user)))
	issued := ok[control.Issued](t)(w.token(key, enrolled.Device.ID))
	want := control.Knock{Cookie: "sid", Key: told.Keys[0]}
	if enrolled.Knock != want || issued.Knock != want {
		t.Error("a device gets another key than gateways know")
	}
}

func TestARepeatedEnrolmentBringsTheKnockToo(t *testing.T) {
	w := newWorld(t)
	user, key := w.subscriber(1, 1), testKey(1)
	link := w.invite(user)
	first := ok[control.Enrolled](t)(w.enrol(key, link))
	again := ok[control.Enrolled](t)(w.enrol(key, link))
	if again.New || again.Knock != first.Knock {
		t.Errorf("new: %v, the same knock: %v", again.New, again.Knock == first.Knock)
	}
}

// The whole life of a key: gateways know it 15 minutes before the first device gets
// it, and the one before it for 24 hours after that.
func TestKnockKeysRotate(t *testing.T) {
	w := newWorld(t)
	user, key := w.subscriber(1, 1), testKey(1)
	device := ok[control.Enrolled](t)(w.enrol(key, w.invite(user))).Device.ID
	extend := func() { // its subscription runs for a day only
		plans := ok[[]control.Plan](t)(w.Plans(t.Context(), "", control.Page{Limit: 1}))
		if _, _, err := w.CreateSubscription(t.Context(), control.NewSubscription{UserID: user.ID, PlanID: plans[0].ID}, control.Once{}); err != nil {
			t.Fatal(err)
		}
	}
	given := func() knock.Key { return ok[control.Issued](t)(w.token(key, device)).Knock.Key }

	old := w.knocks()[0]
	if w.pass(week - time.Minute); w.keepKnock() {
		t.Fatal("a key is replaced before its time")
	}
	w.pass(time.Minute)
	if !w.keepKnock() {
		t.Fatal("a key is not replaced in time")
	}
	extend()
	known := w.knocks()
	if len(known) != 2 || known[1] != old || known[0] == old {
		t.Fatalf("gateways know %d keys, want the next and the old one", len(known))
	}
	next := known[0]
	if given() != old {
		t.Error("a device gets a key that gateways may not know yet")
	}
	w.pass(15*time.Minute - time.Microsecond)
	if w.keepKnock() || given() != old {
		t.Error("a device gets the next key before its time")
	}
	w.pass(time.Microsecond)
	if w.keepKnock() || given() != next {
		t.Error("a device does not get the next key in time")
	}
	w.pass(24*time.Hour - time.Microsecond)
	if w.keepKnock(); !slices.Equal(w.knocks(), []knock.Key{next, old}) {
		t.Error("the old key is in force for less than 24 hours after the next one was given out")
	}
	w.pass(time.Microsecond)
	if !slices.Equal(w.knocks(), []knock.Key{next}) {
		t.Error("the old key is in force for longer than 24 hours")
	}
	extend()
	if w.keepKnock() || given() != next || !slices.Equal(w.knocks(), []knock.Key{next}) {
		t.Error("the key changes without a reason")
	}
}

func TestAServiceThatWasOffForLongRotatesAsIfNothingHadHappened(t *testing.T) {
	dir := t.TempDir()
	w, records := openWorld(t, dir)
	old := w.knocks()
	w.pass(5 * week)
	again := &world{t: t}
	again.clock.Store(w.clock.Load())
	var err error
	if again.Authority, err = again.over(records, keysIn(t, dir, false)); err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(again.knocks(), old) {
		t.Fatal("the restart has changed the keys")
	}
	if !again.keepKnock() || again.keepKnock() {
		t.Error("want one next key, once")
	}
	if known := again.knocks(); len(known) != 2 || known[1] != old[0] {
		t.Errorf("gateways know %d keys, want the old one, too", len(known))
	}
}

func TestKnockKeysAreForgottenWhenTheyAreInForceNoMore(t *testing.T) {
	dir := t.TempDir()
	w, records := openWorld(t, dir)
	for range 5 {
		w.pass(week)
		w.keepKnock()
		w.pass(25 * time.Hour)
		w.keepKnock()
	}
	var kept int
	err := records.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
		keys, err := tx.KnockKeys(ctx)
		kept = len(keys)
		return err
	})
	if err != nil || kept != 1 {
		t.Errorf("the database keeps %d keys, %v, want 1", kept, err)
	}
}

func TestAnOperatorRotatesAtAnyTimeWithinBounds(t *testing.T) {
	w := newWorld(t)
	first := w.knocks()[0]
	at := ok[time.Time](t)(w.RotateKnock(t.Context()))
	if want := w.now().Add(15 * time.Minute); !at.Equal(want) {
		t.Errorf("devices get the next key at %v, want %v", at, want)
	}
	w.pass(time.Minute)
	if again := ok[time.Time](t)(w.RotateKnock(t.Context())); !again.Equal(at) || len(w.knocks()) != 2 {
		t.Errorf("asked again, the next key is for %v, and %d are known", again, len(w.knocks()))
	}
	var err error
	for err == nil {
		w.pass(15 * time.Minute)
		_, err = w.RotateKnock(t.Context())
		if n := len(w.knocks()); n > 8 {
			t.Fatalf("%d keys are in force", n)
		}
	}
	if !errors.Is(err, control.ErrKnockKeys) || !slices.Contains(w.knocks(), first) {
		t.Errorf("RotateKnock = %v", err)
	}
	w.pass(24 * time.Hour)
	if _, err := w.RotateKnock(t.Context()); err != nil {
		t.Errorf("a day later: %v", err)
	}
}

func TestOneOfManyMakesTheNextKnockKey(t *testing.T) {
	w := newWorld(t)
	w.pass(week)
	var (
		wg   sync.WaitGroup
		mu   sync.Mutex
		made int
	)
	for range 16 {
		wg.Go(func() {
			one, err := w.KeepKnock(t.Context())
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Error(err)
			}
			if one {
				made++
			}
		})
	}
	wg.Wait()
	if made != 1 || len(w.knocks()) != 2 {
		t.Errorf("%d made one, and there are %d", made, len(w.knocks()))
	}
}

func TestKnockKeysAreSealedWhereTheyLie(t *testing.T) {
	w, records := openWorld(t, t.TempDir())
	key := w.knocks()[0]
	ok[time.Time](t)(w.RotateKnock(t.Context()))
	var rows []control.SealedKnockKey
	change := func(f func(ctx context.Context, tx control.Tx) error) {
		t.Helper()
		if err := records.Write(t.Context(), f); err != nil {
			t.Fatal(err)
		}
	}
	change(func(ctx context.Context, tx control.Tx) (err error) {
		rows, err = tx.KnockKeys(ctx)
		return err
	})
	if diff := cmp.Diff(2, len(rows)); diff != "" || strings.Contains(string(rows[1].Sealed), string(key[:])) {
		t.Fatalf("%d rows, or the key is readable", len(rows))
	}
	change(func(ctx context.Context, tx control.Tx) error { // one row's key into the other's place
		if err := tx.DeleteKnockKey(ctx, rows[0].Number); err != nil {
			return err
		}
		moved := rows[0]
		moved.Sealed = rows[1].Sealed
		return tx.InsertKnockKey(ctx, moved)
	})
	if _, err := w.GatewayKnock(t.Context()); err == nil {
		t.Error("a key opens in another row")
	}
}
