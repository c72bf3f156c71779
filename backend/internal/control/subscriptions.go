package control

import (
	"context"
	"errors"
	"time"
)

// Subscription is a user's plan for a period.
type Subscription struct {
	ID       string
	UserID   string
	PlanID   string
	StartsAt time.Time
	EndsAt   *time.Time // nil: without end
	// AwaitsUse says that it begins with the first session that may rest on it.
	// Until then StartsAt is when it was made, and there is no end.
	AwaitsUse bool
	CreatedAt time.Time
}

// Entitlement is a subscription with its plan as it is for its user.
type Entitlement struct {
	Subscription
	Plan    Plan // with the user's own limits
	General Plan // without
}

// Entitle joins a subscription, its plan and the limits of its user. Who decides by an
// Entitlement cannot forget them.
func Entitle(s Subscription, p Plan, own Limits) Entitlement {
	return Entitlement{Subscription: s, Plan: own.Of(p), General: p}
}

// Status says where in its life a subscription is.
type Status string

// The statuses of a subscription.
const (
	Scheduled Status = "scheduled"
	Active    Status = "active"
	Expired   Status = "expired"
)

// Status returns the subscription's status at now.
func (s Subscription) Status(now time.Time) Status {
	switch {
	case s.AwaitsUse:
		return Scheduled
	case s.EndsAt != nil && !now.Before(*s.EndsAt):
		return Expired
	case now.Before(s.StartsAt):
		return Scheduled
	default:
		return Active
	}
}

// begun returns the entitlement as it is when the subscription begins at start.
func (e Entitlement) begun(start time.Time) Entitlement {
	e.StartsAt, e.AwaitsUse = start, false
	e.endByPlan(e.Plan)
	e.normalize()
	return e
}

// endByPlan gives a subscription without an end that of its plan.
func (s *Subscription) endByPlan(plan Plan) {
	if s.EndsAt == nil && plan.DurationDays != nil {
		ends := s.StartsAt.AddDate(0, 0, *plan.DurationDays)
		s.EndsAt = &ends
	}
}

// NewSubscription is what an operator says about a new subscription. When they are
// nil, StartsAt is now, or the first use when the plan says so, and EndsAt follows
// from the plan.
type NewSubscription struct {
	UserID   string
	PlanID   string
	StartsAt *time.Time
	EndsAt   *time.Time
}

// SubscriptionFields are what an operator may change; nil leaves it as it is.
type SubscriptionFields struct {
	StartsAt *time.Time
	EndsAt   *time.Time
	PlanID   *string // its limits hold at once, its duration does not move the end
}

// normalize writes the times as they are kept: in UTC, to the microsecond. A
// year is only what validate takes it for once no zone moves it.
func (s *Subscription) normalize() {
	s.StartsAt = s.StartsAt.UTC().Truncate(time.Microsecond)
	if s.EndsAt != nil {
		ends := s.EndsAt.UTC().Truncate(time.Microsecond)
		s.EndsAt = &ends
	}
}

// validate judges a subscription with normal times.
func (s Subscription) validate() error {
	var c checks
	c.between(s.StartsAt.Year(), 1970, 9999, "starts_at", "want a year from 1970 to 9999 in UTC")
	if s.AwaitsUse {
		c.that(s.EndsAt == nil, "ends_at", "give starts_at, too: the subscription begins with its first use")
	} else if s.EndsAt != nil {
		c.that(s.EndsAt.After(s.StartsAt), "ends_at", "want a time after starts_at")
		c.that(s.EndsAt.Year() <= 9999, "ends_at", "want a year up to 9999 in UTC")
	}
	return c.err()
}

// CreateSubscription adds a subscription. The second result is as in CreateUser.
func (a *Authority) CreateSubscription(ctx context.Context, n NewSubscription, once Once) (Subscription, bool, error) {
	sub := Subscription{ID: newID(), UserID: n.UserID, PlanID: n.PlanID, StartsAt: a.now(), EndsAt: n.EndsAt, CreatedAt: a.now()}
	set(&sub.StartsAt, n.StartsAt)
	insert := func(ctx context.Context, tx Tx) error {
		sub := sub // fn may run again
		var c checks
		_, err := tx.User(ctx, sub.UserID)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		c.that(err == nil, "user_id", "no such user")
		plan, err := tx.Plan(ctx, sub.PlanID)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		c.that(err == nil, "plan_id", "no such plan")
		sub.AwaitsUse = plan.StartsOnFirstUse && n.StartsAt == nil
		c.that(!sub.AwaitsUse || sub.EndsAt == nil, "ends_at", "give starts_at, too: the plan's subscriptions begin with their first use")
		if err := c.err(); err != nil {
			return err
		}
		if !sub.AwaitsUse {
			sub.endByPlan(plan)
		}
		sub.normalize()
		if err := sub.validate(); err != nil {
			return err
		}
		if err := tx.InsertSubscription(ctx, sub); err != nil {
			return err
		}
		if err := a.passOver(ctx, tx, sub, false); err != nil {
			return err
		}
		return a.tellSubscription(ctx, tx, sub, false, sub.Status(a.now()))
	}
	return create(ctx, a, once, sub.ID, insert, Tx.Subscription)
}

// Subscription returns a subscription.
func (a *Authority) Subscription(ctx context.Context, id string) (Subscription, error) {
	return get(ctx, a, id, Tx.Subscription)
}

// Subscriptions lists subscriptions, all or a user's.
func (a *Authority) Subscriptions(ctx context.Context, userID string, page Page) ([]Subscription, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]Subscription, error) { return tx.Subscriptions(ctx, userID, page) })
}

// UpdateSubscription moves a subscription's times, or to another plan. One that awaits
// its first use begins, when it is given a start, at that.
func (a *Authority) UpdateSubscription(ctx context.Context, id string, f SubscriptionFields) (Subscription, error) {
	var sub Subscription
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		sub, err = a.updateSubscription(ctx, tx, id, f)
		return err
	})
	return sub, err
}

func (a *Authority) updateSubscription(ctx context.Context, tx Tx, id string, f SubscriptionFields) (Subscription, error) {
	sub, err := tx.Subscription(ctx, id)
	if err != nil {
		return Subscription{}, err
	}
	wasActive := sub.Status(a.now()) == Active
	set(&sub.PlanID, f.PlanID)
	set(&sub.StartsAt, f.StartsAt)
	if f.EndsAt != nil {
		sub.EndsAt = f.EndsAt
	}
	if f.PlanID != nil || sub.AwaitsUse && f.StartsAt != nil {
		plan, err := tx.Plan(ctx, sub.PlanID)
		if errors.Is(err, ErrNotFound) {
			return Subscription{}, &InvalidError{Fields: []FieldError{{Field: "plan_id", Detail: "no such plan"}}}
		}
		if err != nil {
			return Subscription{}, err
		}
		if sub.AwaitsUse && f.StartsAt != nil {
			sub.AwaitsUse = false
			sub.endByPlan(plan)
		}
	}
	sub.normalize()
	if err := sub.validate(); err != nil {
		return Subscription{}, err
	}
	if err := tx.UpdateSubscription(ctx, sub); err != nil {
		return Subscription{}, err
	}
	if err := a.passOver(ctx, tx, sub, wasActive); err != nil {
		return Subscription{}, err
	}
	return sub, a.tellSubscription(ctx, tx, sub, wasActive, sub.Status(a.now()))
}

// DeleteSubscription removes a subscription; gateways are told to look at
// the sessions that rested on it.
func (a *Authority) DeleteSubscription(ctx context.Context, id string) error {
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error { return a.removeSubscription(ctx, tx, id) })
}
