package control

import (
	"context"
	"reflect"
	"time"
)

// Plan is what a subscription allows. Its name is unique.
type Plan struct {
	ID           string
	Name         string
	MaxDevices   int  // enrolled, not revoked
	MaxSessions  int  // live at once, over all devices of a user
	MaxStreams   int  // TCP streams of a session
	MaxUDP       int  // UDP flows of a session
	DurationDays *int // of a new subscription; nil: without end
	CreatedAt    time.Time
}

// PlanFields are what an operator decides about a plan; nil leaves it as it is.
type PlanFields struct {
	Name         *string
	MaxDevices   *int
	MaxSessions  *int
	MaxStreams   *int
	MaxUDP       *int
	DurationDays *int // 0: without end
}

// Bounds and defaults of a plan.
const (
	MaxPlanDevices  = 1000
	MaxPlanSessions = 1000
	MaxPlanStreams  = 65535
	MaxPlanUDP      = 65535
	MaxPlanDays     = 36500

	DefaultPlanDevices  = 5
	DefaultPlanSessions = 5
	DefaultPlanStreams  = 1024
	DefaultPlanUDP      = 256
)

func (p *Plan) apply(f PlanFields) error {
	set(&p.Name, f.Name)
	set(&p.MaxDevices, f.MaxDevices)
	set(&p.MaxSessions, f.MaxSessions)
	set(&p.MaxStreams, f.MaxStreams)
	set(&p.MaxUDP, f.MaxUDP)
	if f.DurationDays != nil {
		p.DurationDays = f.DurationDays
		if *f.DurationDays == 0 {
			p.DurationDays = nil
		}
	}
	var c checks
	c.that(validName(p.Name), "name", nameRule)
	c.between(p.MaxDevices, 1, MaxPlanDevices, "max_devices", "want 1 to 1000")
	c.between(p.MaxSessions, 1, MaxPlanSessions, "max_sessions", "want 1 to 1000")
	c.between(p.MaxStreams, 1, MaxPlanStreams, "max_streams", "want 1 to 65535")
	c.between(p.MaxUDP, 0, MaxPlanUDP, "max_udp", "want 0 to 65535")
	if p.DurationDays != nil {
		c.between(*p.DurationDays, 1, MaxPlanDays, "duration_days", "want 1 to 36500, or 0 for no end")
	}
	return c.err()
}

// CreatePlan adds a plan. The second result is as in CreateUser.
func (a *Authority) CreatePlan(ctx context.Context, f PlanFields, once Once) (Plan, bool, error) {
	plan := Plan{
		ID: newID(), CreatedAt: a.now(), MaxDevices: DefaultPlanDevices, MaxSessions: DefaultPlanSessions,
		MaxStreams: DefaultPlanStreams, MaxUDP: DefaultPlanUDP,
	}
	if err := plan.apply(f); err != nil {
		return Plan{}, false, err
	}
	return create(ctx, a, once, plan.ID, func(ctx context.Context, tx Tx) error { return tx.InsertPlan(ctx, plan) }, Tx.Plan)
}

// Plan returns a plan.
func (a *Authority) Plan(ctx context.Context, id string) (Plan, error) {
	return get(ctx, a, id, Tx.Plan)
}

// Plans lists plans, all or those with a name.
func (a *Authority) Plans(ctx context.Context, name string, page Page) ([]Plan, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]Plan, error) { return tx.Plans(ctx, name, page) })
}

// UpdatePlan changes a plan. Limits hold for what begins afterwards; gateways are
// told, who may ask again about the sessions that they carry.
func (a *Authority) UpdatePlan(ctx context.Context, id string, f PlanFields) (Plan, error) {
	var plan Plan
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		if plan, err = tx.Plan(ctx, id); err != nil {
			return err
		}
		before := plan
		if err := plan.apply(f); err != nil {
			return err
		}
		if before.Name = plan.Name; !reflect.DeepEqual(before, plan) {
			a.tell(tx, Event{Kind: EventPlanChanged, All: true, PlanID: id})
		}
		return tx.UpdatePlan(ctx, plan)
	})
	return plan, err
}

// DeletePlan removes a plan that no subscription uses.
func (a *Authority) DeletePlan(ctx context.Context, id string) error {
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error { return tx.DeletePlan(ctx, id) })
}
