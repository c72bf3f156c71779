package storetest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

// callers is how many act at once where a limit is tested.
const callers = 64

// race runs act from many callers at once, each in a unit of work, and returns
// how many succeeded.
func (f fixture) race(t *testing.T, act func(ctx context.Context, tx control.Tx, caller int) (bool, error)) int {
	t.Helper()
	var (
		group     sync.WaitGroup
		succeeded atomic.Int64
		gate      = make(chan struct{})
	)
	// Connections first: whoever got one before the others would be done before
	// they come.
	for range callers {
		group.Go(func() {
			err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
				_, err := tx.CountOperators(ctx)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	for caller := range callers {
		group.Go(func() {
			<-gate
			won := false
			err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
				var err error
				won, err = act(ctx, tx, caller)
				return err
			})
			if err != nil {
				t.Errorf("caller %d: %v", caller, err)
			}
			if won {
				succeeded.Add(1)
			}
		})
	}
	close(gate)
	group.Wait()
	return int(succeeded.Load())
}

func testRedeemOnce(f fixture) {
	t := f.t
	user := f.user(t)
	invitation := f.invitation(t, user, now.Add(time.Hour))
	devices := make([]control.Device, callers)
	for i := range devices {
		devices[i] = f.device(t, user)
	}
	won := f.race(t, func(ctx context.Context, tx control.Tx, caller int) (bool, error) {
		return tx.RedeemInvitation(ctx, invitation.ID, devices[caller].ID, now)
	})
	if won != 1 {
		t.Errorf("%d of %d redeemed it, want 1", won, callers)
	}
}

func testRedeemExpired(f fixture) {
	t := f.t
	user := f.user(t)
	invitation, device := f.invitation(t, user, now), f.device(t, user)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		redeemed, err := tx.RedeemInvitation(ctx, invitation.ID, device.ID, now)
		if redeemed {
			t.Error("redeemed at the moment it expired")
		}
		return err
	})
}

func testDeviceLimit(f fixture) {
	t := f.t
	user, other := f.user(t), f.user(t)
	f.device(t, other)
	won := f.race(t, func(ctx context.Context, tx control.Tx, _ int) (bool, error) {
		if _, err := tx.LockUser(ctx, user.ID); err != nil {
			return false, err
		}
		return tx.InsertDevice(ctx, newDevice(user), 5)
	})
	if won != 5 {
		t.Errorf("%d of %d enrolled, want 5", won, callers)
	}
}

func testSessionLimit(f fixture) {
	t := f.t
	user, gateway := f.user(t), f.gateway(t, "b")
	device := f.device(t, user)
	won := f.race(t, func(ctx context.Context, tx control.Tx, _ int) (bool, error) {
		if _, err := tx.LockUser(ctx, user.ID); err != nil {
			return false, err
		}
		return tx.StartSession(ctx, control.Session{
			ID: sessionID(), DeviceID: device.ID, UserID: user.ID, GatewayID: gateway.ID, BootID: "b", StartedAt: now,
		}, now, 5)
	})
	if won != 5 {
		t.Errorf("%d of %d began, want 5", won, callers)
	}
}

func testLostGateway(f fixture) {
	t := f.t
	user, gateway := f.user(t), f.gateway(t, "b")
	device := f.device(t, user)
	lost := f.session(t, device, gateway, "b")
	later := now.Add(2 * time.Minute) // the lease is over
	second := f.gateway(t, "b")
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		if _, err := tx.RenewLease(ctx, second.ID, control.Lease{BootID: "b", Until: later.Add(time.Minute)}); err != nil {
			return err
		}
		live, err := tx.LiveGateways(ctx, later, nil, 10)
		if err != nil {
			return err
		}
		if len(live) != 1 || live[0].ID != second.ID {
			t.Errorf("live gateways: %v, want only the one with a lease", live)
		}
		began, err := tx.StartSession(ctx, control.Session{
			ID: sessionID(), DeviceID: device.ID, UserID: user.ID, GatewayID: second.ID, BootID: "b", StartedAt: later,
		}, later, 1)
		if err != nil {
			return err
		}
		if !began {
			t.Error("a session on a lost gateway counts")
		}
		n, err := tx.EndLostSessions(ctx, later, "gateway_lost", later, 10)
		if err != nil {
			return err
		}
		if n != 1 {
			t.Errorf("ended %d lost sessions, want 1", n)
		}
		// Back with the same boot, it still carries the session and must be told.
		if _, err := tx.RenewLease(ctx, gateway.ID, control.Lease{BootID: "b", Until: later.Add(time.Minute)}); err != nil {
			return err
		}
		unwanted, err := tx.UnwantedSessions(ctx, gateway.ID, later, 10)
		if err != nil {
			return err
		}
		if len(unwanted) != 1 || unwanted[0].ID != lost.ID || !unwanted[0].Lost {
			t.Errorf("unwanted: %+v, want the lost session", unwanted)
		}
		return nil
	})
}

func testJoinOnce(f fixture) {
	t := f.t
	gateway := f.pendingGateway(t)
	won := f.race(t, func(ctx context.Context, tx control.Tx, _ int) (bool, error) {
		return tx.RedeemJoin(ctx, gateway.ID, control.Joined{PublicKey: random(32), URL: "wss://a/b", At: now})
	})
	if won != 1 {
		t.Errorf("%d of %d joined, want 1", won, callers)
	}
	late := f.pendingGateway(t)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		redeemed, err := tx.RedeemJoin(ctx, late.ID, control.Joined{PublicKey: random(32), At: late.JoinExpiresAt})
		if redeemed {
			t.Error("joined at the moment the code expired")
		}
		return err
	})
}

func testTakeOnce(f fixture) {
	t := f.t
	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.PutSetting(ctx, "code", "1") })
	won := f.race(t, func(ctx context.Context, tx control.Tx, _ int) (bool, error) { return tx.TakeSetting(ctx, "code", "1") })
	if won != 1 {
		t.Errorf("%d of %d took it, want 1", won, callers)
	}
}
