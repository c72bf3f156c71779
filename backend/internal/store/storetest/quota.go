package storetest

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

func testQuotaHeld(f fixture) {
	t := f.t
	sub := f.subscription(t, f.user(t), f.plan(t), now, nil)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		fresh, err := tx.Quota(ctx, sub.ID)
		if fresh.To != 0 || fresh.Used != 0 {
			t.Errorf("the quota of a new subscription is %+v", fresh)
		}
		return err
	})
	f.race(t, func(ctx context.Context, tx control.Tx, _ int) (bool, error) {
		use, err := tx.Quota(ctx, sub.ID)
		if err != nil {
			return false, err
		}
		use.From, use.To, use.Used, use.Warned, use.CountedAt = -3, math.MaxInt64, use.Used+1, 80, now
		return true, tx.PutQuota(ctx, use)
	})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		use, err := tx.Quota(ctx, sub.ID)
		same(t, control.QuotaUse{SubscriptionID: sub.ID, From: -3, To: math.MaxInt64, Used: callers, Warned: 80, CountedAt: now}, use)
		return err
	})
}

func testQuotaLeases(f fixture) {
	t := f.t
	sub := f.subscription(t, f.user(t), f.plan(t), now, nil)
	other := f.subscription(t, f.user(t), f.plan(t), now, nil)
	lease := func(gateway string, allowance, booked, used int64, ends time.Time) control.QuotaLease {
		return control.QuotaLease{
			SubscriptionID: sub.ID, GatewayID: gateway, BootID: "b", Version: 7, Allowance: allowance, Booked: booked, Used: used, EndsAt: ends,
		}
	}
	later, before := now.Add(time.Minute), now.Add(-time.Hour)
	leases := []control.QuotaLease{
		lease("live", 100, 30, 50, later),            // 70
		lease("over", 100, 200, 50, later),           // nothing
		lease("ended", 1000, 30, 45, now),            // 15
		lease("ended, all told", 1000, 45, 45, now),  // nothing
		lease("ended long ago", 1000, 0, 45, before), // nothing
		lease("own", 5000, 0, 0, later),              // not asked for
	}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		for _, l := range append(leases, control.QuotaLease{SubscriptionID: other.ID, GatewayID: "live", BootID: "b", Allowance: 9000, EndsAt: later}) {
			if err := tx.PutQuotaLease(ctx, l); err != nil {
				return err
			}
		}
		for _, want := range leases {
			got, err := tx.QuotaLease(ctx, sub.ID, want.GatewayID, "b")
			if err != nil {
				return err
			}
			same(t, want, got)
		}
		if _, err := tx.QuotaLease(ctx, sub.ID, "live", "another"); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("a lease of another process: %v", err)
		}
		reserved, err := tx.QuotaReserved(ctx, sub.ID, "own", "b", now, before.Add(time.Microsecond))
		same(t, int64(70+15), reserved)
		return err
	})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		return errors.Join(
			tx.BookQuotaLease(ctx, sub.ID, "live", "b", 60), tx.BookQuotaLease(ctx, sub.ID, "live", "another", 60),
			tx.BookQuotaLease(ctx, sub.ID, "over", "b", math.MaxInt64/2), tx.BookQuotaLease(ctx, sub.ID, "over", "b", math.MaxInt64/2),
			tx.BookQuotaLease(ctx, sub.ID, "over", "b", math.MaxInt64/2),
		)
	})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		reserved, err := tx.QuotaReserved(ctx, sub.ID, "own", "b", now, before.Add(time.Microsecond))
		same(t, int64(10+15), reserved)
		return err
	})
	prune := func(ended, unreported time.Time, limit, want int) {
		t.Helper()
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			n, err := tx.PruneQuotaLeases(ctx, ended, unreported, limit)
			same(t, want, n)
			return err
		})
	}
	prune(now, before, 10, 0)
	prune(later, before, 10, 1)                                           // all told
	prune(later, before.Add(time.Microsecond), 10, 1)                     // long ago
	prune(later.Add(time.Microsecond), later.Add(time.Microsecond), 2, 2) // no more than that
	prune(later.Add(time.Hour), later.Add(time.Hour), 9, 3)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		if err := tx.PutQuotaLease(ctx, lease("live", 1, 0, 0, later)); err != nil {
			return err
		}
		return tx.DeleteSubscription(ctx, sub.ID)
	})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		_, err1 := tx.Quota(ctx, sub.ID)
		_, err2 := tx.QuotaLease(ctx, sub.ID, "live", "b")
		for _, err := range []error{err1, err2} {
			if !errors.Is(err, control.ErrNotFound) {
				t.Errorf("of a subscription that is gone: %v", err)
			}
		}
		return nil
	})
	err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
		return tx.PutQuotaLease(ctx, lease("live", 1, 0, 0, later))
	})
	if conflict := new(control.ConflictError); !errors.As(err, &conflict) {
		t.Errorf("a lease of a subscription that is gone: %v", err)
	}
}
