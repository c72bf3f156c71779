package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/internal/egress"
)

// planColumns are in the order of planFields and planValues, and after them the
// codes of the plan's regions.
const planColumns = `p.id, p.name, p.max_devices, p.max_sessions, p.max_streams, p.max_udp, p.duration_days, p.created_at,
	p.starts_on_first_use, p.speed_up_bps, p.speed_down_bps, p.quota_bytes, p.quota_period, p.time_zone, p.quota_action, p.throttle_bps,
	p.quota_warnings, p.egress, (SELECT string_agg(r.code, ' ' ORDER BY r.code) FROM plan_regions x JOIN regions r ON r.id = x.region_id WHERE x.plan_id = p.id)`

func planFields(p *control.Plan) []any {
	return []any{
		&p.ID, &p.Name, &p.MaxDevices, &p.MaxSessions, &p.MaxStreams, &p.MaxUDP, &p.DurationDays,
		moment{&p.CreatedAt},
		&p.StartsOnFirstUse, &p.SpeedUpBPS, &p.SpeedDownBPS, &p.QuotaBytes, &p.QuotaPeriod, &p.TimeZone, &p.QuotaAction, &p.ThrottleBPS,
		numbers{&p.QuotaWarnings},
		egressRules{&p.Egress},
		words{&p.Regions},
	}
}

func planValues(p control.Plan) []any {
	return []any{
		p.ID, p.Name, p.MaxDevices, p.MaxSessions, p.MaxStreams, p.MaxUDP, p.DurationDays, micros(p.CreatedAt),
		oneIf(p.StartsOnFirstUse), p.SpeedUpBPS, p.SpeedDownBPS, p.QuotaBytes, string(p.QuotaPeriod), p.TimeZone, string(p.QuotaAction), p.ThrottleBPS,
		joined(p.QuotaWarnings),
		egressText(p.Egress),
	}
}

func scanPlan(r row) (p control.Plan, err error) {
	err = r.Scan(planFields(&p)...)
	return p, err
}

const planClash = "there is a plan with this name"

func (t *tx) InsertPlan(ctx context.Context, p control.Plan) error {
	_, err := t.exec(ctx, planClash, `INSERT INTO plans (id, name, max_devices, max_sessions, max_streams, max_udp, duration_days, created_at,
			starts_on_first_use, speed_up_bps, speed_down_bps, quota_bytes, quota_period, time_zone, quota_action, throttle_bps, quota_warnings, egress)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)`, planValues(p)...)
	if err != nil {
		return err
	}
	return t.putPlanRegions(ctx, p)
}

// putPlanRegions adds a plan's regions.
func (t *tx) putPlanRegions(ctx context.Context, p control.Plan) error {
	for _, code := range p.Regions {
		err := t.execOne(ctx, "", "INSERT INTO plan_regions (plan_id, region_id) SELECT CAST($1 AS TEXT), id FROM regions WHERE code = $2", p.ID, code)
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) Plan(ctx context.Context, id string) (control.Plan, error) {
	return one(ctx, t, scanPlan, "SELECT "+planColumns+" FROM plans p WHERE p.id = $1"+t.held("p"), id)
}

func (t *tx) Plans(ctx context.Context, name string, page control.Page) ([]control.Plan, error) {
	return many(ctx, t, scanPlan, "SELECT "+planColumns+` FROM plans p
		WHERE p.id > $1 AND ($2 = '' OR p.name = $2) ORDER BY p.id LIMIT $3`, page.After, name, page.Limit)
}

func (t *tx) UpdatePlan(ctx context.Context, p control.Plan) error {
	err := t.execOne(ctx, planClash, `UPDATE plans
		SET name = $2, max_devices = $3, max_sessions = $4, max_streams = $5, max_udp = $6, duration_days = $7, created_at = $8,
			starts_on_first_use = $9, speed_up_bps = $10, speed_down_bps = $11, quota_bytes = $12, quota_period = $13, time_zone = $14,
			quota_action = $15, throttle_bps = $16, quota_warnings = $17, egress = $18
		WHERE id = $1`, planValues(p)...)
	if err != nil {
		return err
	}
	if _, err := t.exec(ctx, "", "DELETE FROM plan_regions WHERE plan_id = $1", p.ID); err != nil {
		return err
	}
	return t.putPlanRegions(ctx, p)
}

func (t *tx) DeletePlan(ctx context.Context, id string) error {
	return t.execOne(ctx, "the plan has subscriptions", "DELETE FROM plans WHERE id = $1", id)
}

const subscriptionColumns = "s.id, s.user_id, s.plan_id, s.starts_at, s.ends_at, s.awaits_use, s.created_at"

func subscriptionFields(s *control.Subscription) []any {
	return []any{
		&s.ID, &s.UserID, &s.PlanID, moment{&s.StartsAt}, maybeMoment{&s.EndsAt}, &s.AwaitsUse, moment{&s.CreatedAt},
	}
}

// awaiting is when a subscription starts that awaits its first use.
var awaiting = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

func startOf(s control.Subscription) int64 {
	if s.AwaitsUse {
		return micros(awaiting)
	}
	return micros(s.StartsAt)
}

func scanSubscription(r row) (s control.Subscription, err error) {
	err = r.Scan(subscriptionFields(&s)...)
	return read(s), err
}

// read gives a subscription that awaits its first use the start that people see.
func read(s control.Subscription) control.Subscription {
	if s.AwaitsUse {
		s.StartsAt = s.CreatedAt
	}
	return s
}

// entitled is an entitlement before the user's own regions are there.
type entitled struct {
	sub  control.Subscription
	plan control.Plan
	own  control.Limits
}

func scanEntitled(r row) (e entitled, err error) {
	err = r.Scan(slices.Concat(subscriptionFields(&e.sub), planFields(&e.plan), limitFields(&e.own))...)
	e.sub = read(e.sub)
	return e, err
}

const entitlements = "SELECT " + subscriptionColumns + ", " + planColumns + ", " + limitColumns +
	" FROM subscriptions s JOIN plans p ON p.id = s.plan_id JOIN users u ON u.id = s.user_id"

func (t *tx) InsertSubscription(ctx context.Context, s control.Subscription) error {
	_, err := t.exec(ctx, "the user or the plan is gone", `INSERT INTO subscriptions
		(id, user_id, plan_id, starts_at, ends_at, awaits_use, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7)`,
		s.ID, s.UserID, s.PlanID, startOf(s), nullMicros(s.EndsAt), oneIf(s.AwaitsUse), micros(s.CreatedAt))
	if err != nil {
		return err
	}
	// There before any usage can be booked, so that who books can hold it.
	return t.PutQuota(ctx, control.QuotaUse{SubscriptionID: s.ID, CountedAt: time.UnixMicro(0)})
}

func (t *tx) Entitlement(ctx context.Context, id string) (control.Entitlement, error) {
	e, err := one(ctx, t, scanEntitled, entitlements+" WHERE s.id = $1", id)
	if err == nil {
		err = t.fillRegions(ctx, map[string]*control.Limits{e.sub.UserID: &e.own})
	}
	return control.Entitle(e.sub, e.plan, e.own), err
}

func (t *tx) Subscription(ctx context.Context, id string) (control.Subscription, error) {
	return one(ctx, t, scanSubscription, "SELECT "+subscriptionColumns+" FROM subscriptions s WHERE s.id = $1"+t.held("s"), id)
}

func (t *tx) Subscriptions(ctx context.Context, userID string, page control.Page) ([]control.Subscription, error) {
	return part(ctx, t, scanSubscription, subscriptionsOf(userID, page), page)
}

func subscriptionsOf(userID string, page control.Page) *listing {
	l := ordered("SELECT "+subscriptionColumns+" FROM subscriptions s", "s.id", page)
	l.equal("s.user_id", userID)
	return l
}

func (t *tx) Entitlements(ctx context.Context, userID string, limit int) ([]control.Entitlement, error) {
	const ofUser = entitlements + " WHERE s.user_id = $1"
	list, err := many(ctx, t, scanEntitled, ofUser+` AND s.awaits_use = 0
		ORDER BY CASE WHEN s.ends_at IS NULL THEN 0 ELSE 1 END, s.ends_at DESC, s.id DESC LIMIT $2`, userID, limit)
	if err != nil {
		return nil, err
	}
	waiting, err := many(ctx, t, scanEntitled, ofUser+" AND s.awaits_use = 1 ORDER BY s.id LIMIT 1", userID)
	if err != nil {
		return nil, err
	}
	list = append(list, waiting...)
	if len(list) == 0 {
		return nil, nil
	}
	own := list[0].own // one user's
	if err := t.fillRegions(ctx, map[string]*control.Limits{userID: &own}); err != nil {
		return nil, err
	}
	entitlements := make([]control.Entitlement, 0, len(list))
	for _, e := range list {
		entitlements = append(entitlements, control.Entitle(e.sub, e.plan, own))
	}
	return entitlements, nil
}

func (t *tx) UpdateSubscription(ctx context.Context, s control.Subscription) error {
	return t.execOne(ctx, "the plan is gone", "UPDATE subscriptions SET starts_at = $2, ends_at = $3, awaits_use = $4, plan_id = $5 WHERE id = $1",
		s.ID, startOf(s), nullMicros(s.EndsAt), oneIf(s.AwaitsUse), s.PlanID)
}

func (t *tx) BeginSubscription(ctx context.Context, s control.Subscription) (bool, error) {
	return t.execIf(ctx, "", "UPDATE subscriptions SET starts_at = $2, ends_at = $3, awaits_use = 0 WHERE id = $1 AND awaits_use = 1",
		s.ID, micros(s.StartsAt), nullMicros(s.EndsAt))
}

func (t *tx) DeleteSubscription(ctx context.Context, id string) error {
	return t.execOne(ctx, "", "DELETE FROM subscriptions WHERE id = $1", id)
}

func oneIf(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// joined writes numbers with spaces between them.
func joined(list []int) string {
	texts := make([]string, 0, len(list))
	for _, n := range list {
		texts = append(texts, strconv.Itoa(n))
	}
	return strings.Join(texts, " ")
}

// words scans a column of words with spaces between them, which may be NULL.
type words struct{ into *[]string }

// Scan implements sql.Scanner.
func (w words) Scan(src any) error {
	*w.into = nil
	switch text := src.(type) {
	case nil:
	case string:
		*w.into = strings.Fields(text)
	default:
		return fmt.Errorf("%T is not a list", src)
	}
	return nil
}

// numbers scans what joined wrote.
type numbers struct{ into *[]int }

// Scan implements sql.Scanner.
func (n numbers) Scan(src any) error {
	var texts []string
	if err := (words{&texts}).Scan(src); err != nil {
		return err
	}
	*n.into = nil
	for _, text := range texts {
		number, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("a list has what is no number: %w", err)
		}
		*n.into = append(*n.into, number)
	}
	return nil
}

// egressText is rules as they are kept.
func egressText(r egress.Rules) string {
	if r.Empty() && len(r.AllowedNames) == 0 {
		return ""
	}
	text, err := json.Marshal(r)
	if err != nil {
		panic(err) // prefixes, numbers and words marshal
	}
	return string(text)
}

// egressRules scans rules that are kept as JSON; an empty text is none.
type egressRules struct{ into *egress.Rules }

// Scan implements sql.Scanner.
func (e egressRules) Scan(src any) error {
	*e.into = egress.Rules{}
	switch text := src.(type) {
	case string:
		if text == "" {
			return nil
		}
		if err := json.Unmarshal([]byte(text), e.into); err != nil {
			return fmt.Errorf("rules for egress: %w", err)
		}
		return nil
	default:
		return fmt.Errorf("%T is no rules for egress", src)
	}
}
