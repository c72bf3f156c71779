package control

import (
	"context"
	"errors"
	"time"

	"github.com/httvps/httvps/internal/reason"
)

// Me is what a device may know about itself and its user's plan.
type Me struct {
	Device      Device
	User        User
	Refused     reason.Code    // why it gets no session; empty: it may have one
	Entitlement *Entitlement   // what its next session rests on, or what it last had; nil: it never had one
	Quota       *QuotaStanding // nil: there is none
	Support     string         // whom the user can turn to; empty: nobody is named
}

// QuotaStanding is what is used of a subscription's quota in a period.
type QuotaStanding struct {
	Period
	Used    int64
	Left    int64
	Warning int // the highest percentage that was reached and is to be warned of; 0: none
}

// Me returns what a device may know. Of several subscriptions it is the one that
// lasts longest of those that have something left.
func (a *Authority) Me(ctx context.Context, deviceID string) (Me, error) {
	var me Me
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		now := a.now()
		s, err := standing(ctx, tx, deviceID)
		if errors.Is(err, ErrNotFound) {
			return ErrUnauthorized // it went a moment ago
		}
		if err != nil {
			return err
		}
		settings, err := readSettings(ctx, tx)
		if err != nil {
			return err
		}
		me = Me{Device: s.Device, User: s.User, Support: settings.settings().Support}
		usable, why := s.usable(now)
		if why != "" {
			me.Refused = why
			if len(s.Entitlements) > 0 {
				me.Entitlement = &s.Entitlements[0]
			}
			return nil
		}
		for i, e := range usable {
			used, err := quotaStanding(ctx, tx, e, now)
			if err != nil {
				return err
			}
			left := used == nil || used.Left > 0 || e.Plan.QuotaAction == QuotaThrottle
			if i == 0 || left {
				me.Entitlement, me.Quota, me.Refused = &usable[i], used, ""
			}
			if left {
				return nil
			}
			me.Refused = reason.QuotaExceeded
		}
		return nil
	})
	return me, err
}

// SubscriptionQuota returns a subscription with its plan and what is used of its
// quota, nil when it has none: in the present period, or of one that has ended in the
// last.
func (a *Authority) SubscriptionQuota(ctx context.Context, id string) (Entitlement, *QuotaStanding, error) {
	var e Entitlement
	var used *QuotaStanding
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		if e, err = tx.Entitlement(ctx, id); err != nil {
			return err
		}
		at := a.now()
		if e.Status(at) == Expired {
			at = e.EndsAt.Add(-time.Microsecond)
		}
		used, err = quotaStanding(ctx, tx, e, at)
		return err
	})
	return e, used, err
}

// quotaStanding returns what is used of an entitlement's quota in the period that at
// is in, nil when it has none.
func quotaStanding(ctx context.Context, tx Tx, e Entitlement, at time.Time) (*QuotaStanding, error) {
	if e.Plan.QuotaBytes == nil {
		return nil, nil //nolint:nilnil // documented
	}
	q := QuotaStanding{Left: *e.Plan.QuotaBytes}
	if e.AwaitsUse {
		return &q, nil
	}
	q.Period = e.Plan.At(e.StartsAt, at)
	from, to := q.buckets()
	use, err := tx.Quota(ctx, e.ID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return nil, err
	}
	q.Used = use.Used
	if use.From != from || use.To != to { // nobody has asked since the period began
		used, err := tx.UsedBytes(ctx, e.ID, from, to)
		if err != nil {
			return nil, err
		}
		q.Used = used.total()
	}
	q.Left = max(*e.Plan.QuotaBytes-q.Used, 0)
	q.Warning = e.Plan.reached(q.Used)
	return &q, nil
}
