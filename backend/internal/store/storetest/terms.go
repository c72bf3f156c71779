package storetest

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

// waiting makes a subscription that awaits its first use.
func (f fixture) waiting(t *testing.T, user control.User, plan control.Plan) control.Subscription {
	t.Helper()
	s := control.Subscription{ID: id(), UserID: user.ID, PlanID: plan.ID, StartsAt: now, AwaitsUse: true, CreatedAt: now}
	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.InsertSubscription(ctx, s) })
	return s
}

func testFirstUse(f fixture) {
	t := f.t
	user, plan := f.user(t), f.plan(t)
	first, second := f.waiting(t, user, plan), f.waiting(t, user, plan)
	ends := now.Add(time.Hour)
	over := f.subscription(t, user, plan, now.Add(-time.Hour), &now)
	device, gateway := f.device(t, user), f.gateway(t, "b")
	session := f.session(t, device, gateway, "b")
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		read, err := tx.Subscription(ctx, first.ID)
		if err != nil {
			return err
		}
		same(t, first, read)
		got, err := tx.Entitlements(ctx, user.ID, 1)
		if err != nil {
			return err
		}
		same(t, []control.Entitlement{control.Entitle(over, plan, control.Limits{}), control.Entitle(first, plan, control.Limits{})}, got)
		unwanted, err := tx.UnwantedSessions(ctx, gateway.ID, now.AddDate(100, 0, 0), 10)
		if err != nil {
			return err
		}
		if len(unwanted) != 1 || unwanted[0].ID != session.ID {
			t.Errorf("a subscription that has not begun carries a session: %+v", unwanted)
		}
		return nil
	})
	won := f.race(t, func(ctx context.Context, tx control.Tx, _ int) (bool, error) {
		s := first
		s.StartsAt, s.EndsAt = now, &ends
		return tx.BeginSubscription(ctx, s)
	})
	if won != 1 {
		t.Errorf("%d of %d began it, want 1", won, callers)
	}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		got, err := tx.Entitlements(ctx, user.ID, 1)
		if err != nil {
			return err
		}
		begun := first
		begun.EndsAt, begun.AwaitsUse = &ends, false
		same(t, []control.Entitlement{control.Entitle(begun, plan, control.Limits{}), control.Entitle(second, plan, control.Limits{})}, got)
		second.AwaitsUse, second.StartsAt = false, now.Add(time.Minute)
		if err := tx.UpdateSubscription(ctx, second); err != nil {
			return err
		}
		read, err := tx.Subscription(ctx, second.ID)
		same(t, second, read)
		return err
	})
}

func testLiveGateways(f fixture) {
	t := f.t
	gateways := []control.Gateway{f.gateway(t, "b"), f.gateway(t, "b"), f.gateway(t, "b")}
	f.pendingGateway(t)
	for name, tc := range map[string]struct {
		regions []string
		limit   int
		want    []control.Gateway
	}{
		"all":           {nil, 10, gateways},
		"two regions":   {[]string{gateways[2].Region, "nowhere", gateways[0].Region}, 10, []control.Gateway{gateways[0], gateways[2]}},
		"no more":       {nil, 2, gateways[:2]},
		"another place": {[]string{"nowhere"}, 10, nil},
	} {
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			got, err := tx.LiveGateways(ctx, now, tc.regions, tc.limit)
			if len(got) != len(tc.want) {
				t.Errorf("%s: %d gateways, want %d", name, len(got), len(tc.want))
				return err
			}
			for i := range got {
				same(t, tc.want[i].ID, got[i].ID)
			}
			return err
		})
	}
}

// A gateway that devices are to leave is shown to nobody, and a session on it counts for
// other devices alone.
func testDrained(f fixture) {
	t := f.t
	user, stays := f.user(t), f.gateway(t, "b")
	device, other := f.device(t, user), f.device(t, user)
	yes, no := true, false
	for name, tc := range map[string]struct {
		leave, stay func(ctx context.Context, tx control.Tx, id string) error
		want        func(control.Gateway) bool
	}{
		"by an operator": {
			func(ctx context.Context, tx control.Tx, id string) error { return tx.SetDrained(ctx, id, new(now)) },
			func(ctx context.Context, tx control.Tx, id string) error { return tx.SetDrained(ctx, id, nil) },
			func(g control.Gateway) bool { return g.DrainedAt != nil && g.DrainedAt.Equal(now) && !g.Leaving },
		},
		"by itself": {
			func(ctx context.Context, tx control.Tx, id string) error {
				if _, err := tx.RenewLease(ctx, id, control.Lease{BootID: "b", Until: now.Add(time.Minute), Leaving: &yes}); err != nil {
					return err
				}
				// What says nothing of it leaves it.
				_, err := tx.RenewLease(ctx, id, control.Lease{BootID: "b", Until: now.Add(time.Minute)})
				return err
			},
			func(ctx context.Context, tx control.Tx, id string) error {
				_, err := tx.RenewLease(ctx, id, control.Lease{BootID: "b", Until: now.Add(time.Minute), Leaving: &no})
				return err
			},
			func(g control.Gateway) bool { return g.DrainedAt == nil && g.Leaving },
		},
	} {
		gateway := f.gateway(t, "b")
		old := f.session(t, device, gateway, "b")
		begins := func(ctx context.Context, tx control.Tx, device control.Device) bool {
			s := control.Session{ID: sessionID(), DeviceID: device.ID, UserID: user.ID, GatewayID: stays.ID, BootID: "b", StartedAt: now}
			began, err := tx.StartSession(ctx, s, now, 1)
			if err == nil && began {
				err = tx.EndSessions(ctx, stays.ID, []control.SessionEnd{{ID: s.ID, Reason: "no_error"}}, now)
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			return began
		}
		shown := func(ctx context.Context, tx control.Tx) bool {
			live, err := tx.LiveGateways(ctx, now, nil, 100)
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			return slices.ContainsFunc(live, func(g control.Gateway) bool { return g.ID == gateway.ID })
		}
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			if begins(ctx, tx, device) || begins(ctx, tx, other) || !shown(ctx, tx) {
				t.Errorf("%s: a session begins beside the only one, or the gateway is not shown", name)
			}
			if err := tc.leave(ctx, tx, gateway.ID); err != nil {
				return err
			}
			got, err := tx.Gateway(ctx, gateway.ID)
			if err != nil {
				return err
			}
			if !tc.want(got) || !got.Draining() {
				t.Errorf("%s: %+v", name, got)
			}
			if !begins(ctx, tx, device) || begins(ctx, tx, other) || shown(ctx, tx) {
				t.Errorf("%s: the device has no session elsewhere, or another one has, or the gateway is shown", name)
			}
			if err := tc.stay(ctx, tx, gateway.ID); err != nil {
				return err
			}
			if begins(ctx, tx, device) || !shown(ctx, tx) {
				t.Errorf("%s: afterwards a session begins beside the only one, or the gateway is not shown", name)
			}
			return tx.EndSessions(ctx, gateway.ID, []control.SessionEnd{{ID: old.ID, Reason: "no_error"}}, now)
		})
	}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		if err := tx.SetDrained(ctx, id(), new(now)); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("a gateway that there is not: %v", err)
		}
		return nil
	})
}

func testUserLimits(f fixture) {
	t := f.t
	user, other, plan := f.user(t), f.user(t), f.plan(t)
	gateway := f.gateway(t, "b")
	sub := f.subscription(t, user, plan, now, nil)
	for name, limits := range map[string]control.Limits{
		"all": {
			MaxDevices: new(1), MaxSessions: new(2), MaxStreams: new(3), MaxUDP: new(0), SpeedUpBPS: new(int64(0)), SpeedDownBPS: new(int64(1e12)),
			QuotaBytes: new(int64(1 << 50)), QuotaPeriod: new(control.PeriodRolling), Regions: &[]string{gateway.Region},
		},
		"every region": {Regions: &[]string{}},
		"none":         {},
	} {
		user.Limits = limits
		changed := user
		changed.Name, changed.Note = "not", "changed"
		f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.UpdateLimits(ctx, changed) })
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			noLimits := user
			noLimits.Limits = control.Limits{MaxDevices: new(9)}
			return tx.UpdateUser(ctx, noLimits) // which is not about them
		})
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			got, err := tx.User(ctx, user.ID)
			same(t, user, got)
			untouched, err2 := tx.User(ctx, other.ID)
			same(t, other, untouched)
			one, err3 := tx.Entitlement(ctx, sub.ID)
			same(t, control.Entitle(sub, plan, limits), one)
			all, err4 := tx.Entitlements(ctx, user.ID, 5)
			same(t, []control.Entitlement{control.Entitle(sub, plan, limits)}, all)
			if t.Failed() {
				t.Logf("with limits: %s", name)
			}
			return errors.Join(err, err2, err3, err4)
		})
	}
	made := control.User{ID: id(), Name: "made with " + id(), CreatedAt: now, Limits: control.Limits{MaxUDP: new(4), Regions: &[]string{gateway.Region}}}
	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.InsertUser(ctx, made) })
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		got, err := tx.User(ctx, made.ID)
		same(t, made, got)
		return err
	})
	err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error { return tx.DeleteRegion(ctx, gateway.RegionID) })
	if _, clashes := errors.AsType[*control.ConflictError](err); !clashes {
		t.Errorf("a region that a user's limits name is deleted: %v", err)
	}
	unknown := made
	unknown.Limits.Regions = &[]string{"nowhere"}
	err = f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error { return tx.UpdateLimits(ctx, unknown) })
	if !errors.Is(err, control.ErrNotFound) {
		t.Errorf("a region that there is not: %v", err)
	}
	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.DeleteUser(ctx, made.ID) })
}
