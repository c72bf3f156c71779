package storetest

import (
	"context"
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
		same(t, []control.Entitlement{{Subscription: over, Plan: plan}, {Subscription: first, Plan: plan}}, got)
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
		same(t, []control.Entitlement{{Subscription: begun, Plan: plan}, {Subscription: second, Plan: plan}}, got)
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
