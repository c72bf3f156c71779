package control_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/internal/reason"
)

// fullStore is a store on which there is no room while full says so.
type fullStore struct {
	control.Store
	full bool
}

func (s *fullStore) Write(ctx context.Context, fn func(context.Context, control.Tx) error) error {
	if s.full {
		return control.ErrStorageFull
	}
	return s.Store.Write(ctx, fn)
}

func TestWithoutRoomToWriteWhatIsKnownIsStillDecided(t *testing.T) {
	dir := t.TempDir()
	w, records := openWorld(t, dir)
	disk := &fullStore{Store: records}
	var err error
	if w.Authority, err = w.over(disk, keysIn(t, dir, false)); err != nil {
		t.Fatal(err)
	}
	gateway := w.gateway()
	beat := func() error {
		_, err := w.Heartbeat(t.Context(), gateway, control.Lease{BootID: "b"})
		return err
	}
	if err := beat(); err != nil {
		t.Fatal(err)
	}
	d := w.connect(gateway, 1)
	w.begin(gateway, d, sessionID(1))
	shown := func() int {
		t.Helper()
		return len(ok[control.Issued](t)(w.token(testKey(1), d.device.ID)).Gateways)
	}

	disk.full = true
	if err := beat(); !errors.Is(err, control.ErrStorageFull) {
		t.Errorf("Heartbeat = %v", err)
	}
	w.pass(2 * time.Hour) // no lease can be renewed
	if n := shown(); n != 1 {
		t.Errorf("a device is shown %d gateways while leases cannot be renewed, want the one that was up", n)
	}
	if got := w.begin(gateway, d, sessionID(1)); got.Reason != "" || got.UserID == "" {
		t.Errorf("a session that had begun: %+v", got)
	}
	request := control.SessionRequest{
		SessionID: sessionID(2), DeviceID: d.device.ID, KeyThumbprint: d.device.Thumbprint(), Generation: 1, BootID: "b",
	}
	if _, err := w.Decide(t.Context(), gateway, request); !errors.Is(err, control.ErrStorageFull) {
		t.Errorf("a session that has not begun: %v", err)
	}
	request.KeyThumbprint = "another"
	if got := ok[control.Decision](t)(w.Decide(t.Context(), gateway, request)); got.Reason != reason.DeviceMismatch {
		t.Errorf("another key: %+v", got)
	}

	disk.full = false
	if err := beat(); err != nil {
		t.Fatal(err)
	}
	if n := shown(); n != 1 {
		t.Errorf("a device is shown %d gateways after the lease was renewed", n)
	}
	w.pass(time.Hour)
	if n := shown(); n != 0 {
		t.Errorf("a device is shown %d gateways whose lease is over", n)
	}
}

func TestAServiceThatComesBackGivesGatewaysTimeBeforeItTakesThemForLost(t *testing.T) {
	dir := t.TempDir()
	w, records := openWorld(t, dir)
	gateway := w.gateway()
	w.begin(gateway, w.connect(gateway, 1), sessionID(1))
	w.pass(3 * time.Hour) // it was off
	disk := &fullStore{Store: records}
	var err error
	if w.Authority, err = w.over(disk, keysIn(t, dir, false)); err != nil {
		t.Fatal(err)
	}
	lost := func() int {
		t.Helper()
		return ok[control.Pruned](t)(w.Prune(t.Context())).LostSessions
	}
	for _, wait := range []time.Duration{0, 3 * time.Minute} {
		w.pass(wait)
		if n := lost(); n != 0 {
			t.Fatalf("%d sessions are lost %v after the start", n, wait)
		}
	}
	disk.full = true
	w.pass(time.Minute)
	if _, err := w.Prune(t.Context()); !errors.Is(err, control.ErrStorageFull) {
		t.Errorf("Prune = %v", err)
	}
	disk.full = false
	for _, wait := range []time.Duration{time.Minute, 3 * time.Minute} {
		w.pass(wait)
		if n := lost(); n != 0 {
			t.Fatalf("%d sessions are lost %v after there was room again", n, wait)
		}
	}
	w.pass(time.Minute)
	if n := lost(); n != 1 {
		t.Errorf("%d sessions are lost, want the one of the gateway that did not come back", n)
	}
}

func TestAServiceThatStoodStillGivesGatewaysTimeToo(t *testing.T) {
	w := newWorld(t)
	gateway := w.gateway()
	d := w.connect(gateway, 1)
	w.begin(gateway, d, sessionID(1))
	lost := func() int {
		t.Helper()
		return ok[control.Pruned](t)(w.Prune(t.Context())).LostSessions
	}
	for range 3 {
		lost()
		w.pass(5 * time.Minute)
		ok[[]control.SessionEnd](t)(w.Heartbeat(t.Context(), gateway, control.Lease{BootID: "b"}))
	}
	lost()
	w.pass(3 * time.Hour) // a machine that was suspended, or a clock that was put right
	if n := lost(); n != 0 {
		t.Fatalf("%d sessions are lost before their gateway could be heard", n)
	}
	ok[[]control.SessionEnd](t)(w.Heartbeat(t.Context(), gateway, control.Lease{BootID: "b"}))
	w.pass(5 * time.Minute)
	if n := lost(); n != 0 {
		t.Errorf("%d sessions are lost of a gateway that was heard", n)
	}
	for range 12 { // and one that is not heard any more is lost as ever
		w.pass(5 * time.Minute)
		if n := lost(); n == 1 {
			return
		}
	}
	t.Error("the session of a gateway that is gone is not ended")
}
