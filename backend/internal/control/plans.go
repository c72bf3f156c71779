package control

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"reflect"
	"slices"
	"time"

	"github.com/httvps/httvps/internal/egress"
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
	// StartsOnFirstUse lets a new subscription begin with the first session instead
	// of at once.
	StartsOnFirstUse bool
	Regions          []string     // codes of those whose gateways may be used, in their order; none: all
	SpeedUpBPS       *int64       // bits per second of a session, from the device; nil: no limit
	SpeedDownBPS     *int64       // to the device
	Egress           egress.Rules // what sessions may not reach, besides what their gateway denies to all
	Quota
	CreatedAt time.Time
}

// Quota is how much traffic a subscription may have, up and down together.
type Quota struct {
	QuotaBytes    *int64 // nil: no quota, and the rest means nothing
	QuotaPeriod   QuotaPeriod
	TimeZone      string // in whose calendar periods are
	QuotaAction   QuotaAction
	ThrottleBPS   *int64 // of a session with QuotaThrottle, in each direction
	QuotaWarnings []int  // percent, ascending
}

// QuotaAction is what becomes of a subscription that has used up its quota.
type QuotaAction string

// What can become of it, until the next period begins.
const (
	QuotaBlock    QuotaAction = "block"    // no more traffic
	QuotaThrottle QuotaAction = "throttle" // as much as there may be, and slow
)

// At returns the period that now is in, of a subscription that began at start.
func (q Quota) At(start, now time.Time) Period {
	zone, ok := zoneNamed(q.TimeZone)
	if !ok { // a table of time zones that has lost it
		zone = time.UTC
	}
	return PeriodAt(q.QuotaPeriod, zone, start, now)
}

// PlanFields are what an operator decides about a plan; nil leaves it as it is.
type PlanFields struct {
	Name             *string
	MaxDevices       *int
	MaxSessions      *int
	MaxStreams       *int
	MaxUDP           *int
	DurationDays     *int // 0: without end
	StartsOnFirstUse *bool
	Regions          *[]string
	SpeedUpBPS       *int64 // 0, here and in what follows: none
	SpeedDownBPS     *int64
	QuotaBytes       *int64
	QuotaPeriod      *QuotaPeriod
	TimeZone         *string
	QuotaAction      *QuotaAction
	ThrottleBPS      *int64
	QuotaWarnings    *[]int
	DeniedPrefixes   *[]string // this one and the rest: see egress.Rules
	DeniedPorts      *[]uint16
	AllowedPorts     *[]uint16
	DeniedNames      *[]string
	AllowedNames     *[]string
}

// Bounds and defaults of a plan.
const (
	MaxPlanDevices  = 1000
	MaxPlanSessions = 1000
	MaxPlanStreams  = 65535
	MaxPlanUDP      = 65535
	MaxPlanDays     = 36500
	MaxPlanRegions  = 64
	MinPlanSpeed    = 8_000 // bits per second
	MaxPlanSpeed    = 1_000_000_000_000
	MinQuota        = 1 << 20 // bytes
	MaxQuota        = 1 << 50
	MaxWarnings     = 8

	DefaultPlanDevices  = 5
	DefaultPlanSessions = 5
	DefaultPlanStreams  = 1024
	DefaultPlanUDP      = 256
)

// newPlan is a plan of which nothing has been said.
func newPlan(now time.Time) Plan {
	return Plan{
		ID: newID(), CreatedAt: now, MaxDevices: DefaultPlanDevices, MaxSessions: DefaultPlanSessions,
		MaxStreams: DefaultPlanStreams, MaxUDP: DefaultPlanUDP,
		Quota: Quota{QuotaPeriod: PeriodNone, TimeZone: "UTC", QuotaAction: QuotaBlock, QuotaWarnings: []int{80, 95}},
	}
}

// apply changes the plan, and returns everything that is wrong with it.
func (p *Plan) apply(ctx context.Context, tx Tx, f PlanFields) error {
	set(&p.Name, f.Name)
	set(&p.MaxDevices, f.MaxDevices)
	set(&p.MaxSessions, f.MaxSessions)
	set(&p.MaxStreams, f.MaxStreams)
	set(&p.MaxUDP, f.MaxUDP)
	set(&p.StartsOnFirstUse, f.StartsOnFirstUse)
	set(&p.QuotaPeriod, f.QuotaPeriod)
	set(&p.TimeZone, f.TimeZone)
	set(&p.QuotaAction, f.QuotaAction)
	orNone(&p.DurationDays, f.DurationDays)
	orNone(&p.SpeedUpBPS, f.SpeedUpBPS)
	orNone(&p.SpeedDownBPS, f.SpeedDownBPS)
	orNone(&p.QuotaBytes, f.QuotaBytes)
	orNone(&p.ThrottleBPS, f.ThrottleBPS)
	if f.QuotaWarnings != nil {
		p.QuotaWarnings = slices.Compact(slices.Sorted(slices.Values(*f.QuotaWarnings)))
	}
	if f.Regions != nil {
		p.Regions = slices.Compact(slices.Sorted(slices.Values(*f.Regions)))
	}
	unread := p.setEgress(f)
	return p.verdict(ctx, tx, unread)
}

// setEgress changes what sessions may not reach, and returns the prefixes that are none.
func (p *Plan) setEgress(f PlanFields) (unread []FieldError) {
	rules := p.Egress
	if f.DeniedPrefixes != nil {
		rules.DeniedPrefixes = nil
		for _, text := range *f.DeniedPrefixes {
			prefix, err := netip.ParsePrefix(text)
			if err != nil {
				return []FieldError{{Field: "denied_prefixes", Detail: "want prefixes such as 203.0.113.0/24 or 2001:db8::/32"}}
			}
			rules.DeniedPrefixes = append(rules.DeniedPrefixes, prefix)
		}
	}
	set(&rules.DeniedPorts, f.DeniedPorts)
	set(&rules.AllowedPorts, f.AllowedPorts)
	set(&rules.DeniedNames, f.DeniedNames)
	set(&rules.AllowedNames, f.AllowedNames)
	p.Egress = rules.Sorted()
	return nil
}

// verdict returns everything that is wrong with a plan.
func (p *Plan) verdict(ctx context.Context, tx Tx, unread []FieldError) error {
	c := p.check()
	c.fields = append(c.fields, unread...)
	c.that(len(p.Regions) <= MaxPlanRegions, "regions", "want at most 64")
	for _, code := range p.Regions[:min(len(p.Regions), MaxPlanRegions)] {
		_, err := tx.RegionByCode(ctx, code)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err != nil {
			c.that(false, "regions", "there is no region with one of these codes")
			break
		}
	}
	slices.SortStableFunc(c.fields, func(a, b FieldError) int { return cmp.Compare(a.Field, b.Field) })
	return c.err()
}

// check looks for what is wrong with a plan by itself.
func (p *Plan) check() *checks {
	var c checks
	c.that(validName(p.Name), "name", nameRule)
	c.between(p.MaxDevices, 1, MaxPlanDevices, "max_devices", "want 1 to 1000")
	c.between(p.MaxSessions, 1, MaxPlanSessions, "max_sessions", "want 1 to 1000")
	c.between(p.MaxStreams, 1, MaxPlanStreams, "max_streams", "want 1 to 65535")
	c.between(p.MaxUDP, 0, MaxPlanUDP, "max_udp", "want 0 to 65535")
	if p.DurationDays != nil {
		c.between(*p.DurationDays, 1, MaxPlanDays, "duration_days", "want 1 to 36500, or 0 for no end")
	}
	for field, speed := range map[string]*int64{"speed_up_bps": p.SpeedUpBPS, "speed_down_bps": p.SpeedDownBPS, "throttle_bps": p.ThrottleBPS} {
		c.that(speed == nil || *speed >= MinPlanSpeed && *speed <= MaxPlanSpeed, field, "want 8000 to 1000000000000 bits per second, or 0 for none")
	}
	c.that(p.QuotaBytes == nil || *p.QuotaBytes >= MinQuota && *p.QuotaBytes <= MaxQuota, "quota_bytes", "want 1048576 (1 MiB) to 1125899906842624 (1 PiB), or 0 for none")
	c.that(p.QuotaPeriod.valid(), "quota_period", "want none, day, week, month or rolling")
	_, known := zoneNamed(p.TimeZone)
	c.that(known, "time_zone", "want the name of a time zone like Europe/Berlin, or UTC")
	c.that(p.QuotaAction == QuotaBlock || p.QuotaAction == QuotaThrottle, "quota_action", "want block or throttle")
	c.that(p.QuotaAction != QuotaThrottle || p.ThrottleBPS != nil, "throttle_bps", "needed with quota_action throttle")
	c.that(len(p.QuotaWarnings) <= MaxWarnings, "quota_warnings", "want at most 8")
	for _, problem := range p.Egress.Problems() {
		c.that(false, problem.List, problem.What)
	}
	for _, percent := range p.QuotaWarnings {
		if percent < 1 || percent > 99 {
			c.that(false, "quota_warnings", "want percentages from 1 to 99")
			break
		}
	}
	return &c
}

// orNone sets a field that may be absent; zero means that.
func orNone[T int | int64](field **T, value *T) {
	if value == nil {
		return
	}
	*field = nil
	if *value != 0 {
		*field = new(*value)
	}
}

// CreatePlan adds a plan. The second result is as in CreateUser.
func (a *Authority) CreatePlan(ctx context.Context, f PlanFields, once Once) (Plan, bool, error) {
	plan := newPlan(a.now())
	return create(ctx, a, once, plan.ID, func(ctx context.Context, tx Tx) error {
		plan := plan // fn may run again
		if err := plan.apply(ctx, tx, f); err != nil {
			return err
		}
		return tx.InsertPlan(ctx, plan)
	}, Tx.Plan)
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
		if err := plan.apply(ctx, tx, f); err != nil {
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
