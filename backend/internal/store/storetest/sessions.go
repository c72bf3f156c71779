package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

func testEndSessions(f fixture) {
	t := f.t
	user, gateway, other := f.user(t), f.gateway(t, "b"), f.gateway(t, "b")
	device := f.device(t, user)
	ours, theirs := f.session(t, device, gateway, "b"), f.session(t, device, other, "b")
	end := func(reason string, at time.Time) {
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			return tx.EndSessions(ctx, gateway.ID, []control.SessionEnd{
				{ID: ours.ID, Reason: reason}, {ID: theirs.ID, Reason: reason}, {ID: sessionID(), Reason: reason},
			}, at)
		})
	}
	end("first", now)
	end("second", now.Add(time.Hour))
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		got, err1 := tx.Session(ctx, ours.ID)
		foreign, err2 := tx.Session(ctx, theirs.ID)
		ours.EndedAt, ours.EndReason = &now, "first"
		same(t, ours, got)
		same(t, theirs, foreign)
		return errors.Join(err1, err2)
	})
}

func testBoots(f fixture) {
	t := f.t
	user, gateway, other := f.user(t), f.gateway(t, "new"), f.gateway(t, "old")
	device := f.device(t, user)
	old, fresh, foreign := f.session(t, device, gateway, "old"), f.session(t, device, gateway, "new"), f.session(t, device, other, "old")
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		for _, boot := range []struct {
			id       string
			rebooted bool
		}{{"new", false}, {"newer", true}, {"newer", false}, {"new", true}} {
			rebooted, err := tx.RenewLease(ctx, gateway.ID, control.Lease{BootID: boot.id, Until: now.Add(time.Minute)})
			if err != nil {
				return err
			}
			if rebooted != boot.rebooted {
				t.Errorf("boot %s: rebooted is %t", boot.id, rebooted)
			}
		}
		if err := tx.EndOtherBoots(ctx, gateway.ID, "new", "restarted", now); err != nil {
			return err
		}
		for _, want := range []struct{ id, reason string }{{old.ID, "restarted"}, {fresh.ID, ""}, {foreign.ID, ""}} {
			got, err := tx.Session(ctx, want.id)
			if err != nil {
				return err
			}
			same(t, want.reason, got.EndReason)
		}
		return nil
	})
}

func testUnwanted(f fixture) {
	t := f.t
	gateway, plan := f.gateway(t, "b"), f.plan(t)
	past, future := now.Add(-time.Hour), now.Add(time.Hour)
	// someone returns a user's device with a session on the gateway.
	someone := func(starts time.Time, ends *time.Time) (control.User, control.Device, string) {
		user := f.user(t)
		f.subscription(t, user, plan, starts, ends)
		device := f.device(t, user)
		return user, device, f.session(t, device, gateway, "b").ID
	}
	_, _, fine := someone(past, nil)
	_, _, alsoFine := someone(past, &future)
	_, revokedDevice, revoked := someone(past, nil)
	disabledUser, _, disabled := someone(past, nil)
	goneUser, _, gone := someone(past, nil)
	_, _, expired := someone(past, &now)
	_, _, scheduled := someone(future, nil)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		disabledUser.DisabledAt = &now
		if err := errors.Join(
			tx.RevokeDevice(ctx, revokedDevice.ID, now), tx.UpdateUser(ctx, disabledUser), tx.DeleteUser(ctx, goneUser.ID),
		); err != nil {
			return err
		}
		unwanted, err := tx.UnwantedSessions(ctx, gateway.ID, now, 100)
		if err != nil {
			return err
		}
		got := make(map[string]control.UnwantedSession)
		for _, u := range unwanted {
			got[u.ID] = u
		}
		same(t, map[string]control.UnwantedSession{
			revoked:   {ID: revoked, DeviceRevoked: true},
			disabled:  {ID: disabled, UserDisabled: true},
			gone:      {ID: gone, DeviceGone: true},
			expired:   {ID: expired, Expired: true},
			scheduled: {ID: scheduled},
		}, got)
		_, _ = fine, alsoFine
		few, err := tx.UnwantedSessions(ctx, gateway.ID, now, 2)
		if len(few) != 2 {
			t.Errorf("asked for 2, got %d", len(few))
		}
		return err
	})
}
