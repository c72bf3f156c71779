package control

import (
	"cmp"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Limits are what holds for one user whatever his plans say. nil leaves it to them.
// The JSON is how bulk actions keep them, and how the audit log shows them.
type Limits struct {
	MaxDevices   *int         `json:"max_devices,omitempty"`
	MaxSessions  *int         `json:"max_sessions,omitempty"`
	MaxStreams   *int         `json:"max_streams,omitempty"`
	MaxUDP       *int         `json:"max_udp,omitempty"`
	SpeedUpBPS   *int64       `json:"speed_up_bps,omitempty"` // 0, here and in the next two: none
	SpeedDownBPS *int64       `json:"speed_down_bps,omitempty"`
	QuotaBytes   *int64       `json:"quota_bytes,omitempty"`
	QuotaPeriod  *QuotaPeriod `json:"quota_period,omitempty"`
	Regions      *[]string    `json:"regions,omitempty"` // codes, in their order; empty: all
}

// Empty reports whether the user's plans decide everything.
func (l Limits) Empty() bool { return l == Limits{} }

// Of returns the plan as it is for the user.
func (l Limits) Of(p Plan) Plan {
	set(&p.MaxDevices, l.MaxDevices)
	set(&p.MaxSessions, l.MaxSessions)
	set(&p.MaxStreams, l.MaxStreams)
	set(&p.MaxUDP, l.MaxUDP)
	set(&p.QuotaPeriod, l.QuotaPeriod)
	set(&p.Regions, l.Regions)
	orNone(&p.SpeedUpBPS, l.SpeedUpBPS)
	orNone(&p.SpeedDownBPS, l.SpeedDownBPS)
	orNone(&p.QuotaBytes, l.QuotaBytes)
	return p
}

// To says what becomes of a value that may be absent.
type To[T any] struct {
	Given bool // false: it stays as it is
	Value *T   // nil: it goes
}

// MarshalJSON implements json.Marshaler; one that is not given is left out by omitzero.
func (t To[T]) MarshalJSON() ([]byte, error) { return json.Marshal(t.Value) }

// UnmarshalJSON implements json.Unmarshaler. null is given, too.
func (t *To[T]) UnmarshalJSON(text []byte) error {
	t.Given, t.Value = true, nil
	return json.Unmarshal(text, &t.Value)
}

func (t To[T]) change(field **T) {
	if t.Given {
		*field = t.Value
	}
}

// LimitsChange is what an operator decides about a user's limits. What is given
// without a value is the plans' again. The JSON is how bulk actions keep it.
type LimitsChange struct {
	MaxDevices   To[int]         `json:"max_devices,omitzero"`
	MaxSessions  To[int]         `json:"max_sessions,omitzero"`
	MaxStreams   To[int]         `json:"max_streams,omitzero"`
	MaxUDP       To[int]         `json:"max_udp,omitzero"`
	SpeedUpBPS   To[int64]       `json:"speed_up_bps,omitzero"`
	SpeedDownBPS To[int64]       `json:"speed_down_bps,omitzero"`
	QuotaBytes   To[int64]       `json:"quota_bytes,omitzero"`
	QuotaPeriod  To[QuotaPeriod] `json:"quota_period,omitzero"`
	Regions      To[[]string]    `json:"regions,omitzero"`
}

// apply changes limits, and returns everything that is wrong with them then.
func (l *Limits) apply(ctx context.Context, tx Tx, f LimitsChange) error {
	f.MaxDevices.change(&l.MaxDevices)
	f.MaxSessions.change(&l.MaxSessions)
	f.MaxStreams.change(&l.MaxStreams)
	f.MaxUDP.change(&l.MaxUDP)
	f.SpeedUpBPS.change(&l.SpeedUpBPS)
	f.SpeedDownBPS.change(&l.SpeedDownBPS)
	f.QuotaBytes.change(&l.QuotaBytes)
	f.QuotaPeriod.change(&l.QuotaPeriod)
	f.Regions.change(&l.Regions)
	if l.Regions != nil {
		l.Regions = new(append([]string{}, slices.Compact(slices.Sorted(slices.Values(*l.Regions)))...)) // none is not nil
	}
	sound := newPlan(time.Time{})
	sound.Name = "a plan with which nothing is wrong"
	plan := l.Of(sound)
	return plan.verdict(ctx, tx, nil)
}

// UpdateLimits changes what holds for one user whatever his plans say. His sessions
// are told at once.
func (a *Authority) UpdateLimits(ctx context.Context, userID string, f LimitsChange) (User, error) {
	var user User
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		user, err = a.updateLimits(ctx, tx, userID, f)
		return err
	})
	return user, err
}

func (a *Authority) updateLimits(ctx context.Context, tx Tx, userID string, f LimitsChange) (User, error) {
	user, err := tx.LockUser(ctx, userID)
	if err != nil {
		return User{}, err
	}
	before := user.Limits
	if err := user.Limits.apply(ctx, tx, f); err != nil {
		return User{}, err
	}
	if showLimits(before).text() == showLimits(user.Limits).text() {
		return user, nil
	}
	if err := tx.UpdateLimits(ctx, user); err != nil {
		return User{}, err
	}
	// Every gateway knows what to do about a user's subscription, also of a release that
	// does not know of limits.
	return user, a.tellAbout(ctx, tx, Event{Kind: EventSubscriptionChanged, UserID: user.ID})
}

// HeldLimit is one of the limits of a user as it holds.
type HeldLimit struct {
	Name  string // as in LimitsChange
	Value string // a number, words with commas, or none or all
	Own   bool   // it is the user's own
	Plan  string // what the plan says, of one that is his own; empty: there is no plan
}

// heldLimits returns what holds for a user with a plan, and where it is from. Without a
// plan there are only the user's own.
func heldLimits(own Limits, plan *Plan) []HeldLimit {
	one := func(name string, is bool, of func(Plan) string) HeldLimit {
		var general Plan
		if plan != nil {
			general = *plan
		}
		held := HeldLimit{Name: name, Value: of(own.Of(general)), Own: is}
		if plan != nil && is {
			held.Plan = of(general)
		}
		return held
	}
	orNone := func(n *int64) string {
		if n == nil {
			return "none"
		}
		return strconv.FormatInt(*n, 10)
	}
	all := []HeldLimit{
		one("max_devices", own.MaxDevices != nil, func(p Plan) string { return strconv.Itoa(p.MaxDevices) }),
		one("max_sessions", own.MaxSessions != nil, func(p Plan) string { return strconv.Itoa(p.MaxSessions) }),
		one("max_streams", own.MaxStreams != nil, func(p Plan) string { return strconv.Itoa(p.MaxStreams) }),
		one("max_udp", own.MaxUDP != nil, func(p Plan) string { return strconv.Itoa(p.MaxUDP) }),
		one("speed_up_bps", own.SpeedUpBPS != nil, func(p Plan) string { return orNone(p.SpeedUpBPS) }),
		one("speed_down_bps", own.SpeedDownBPS != nil, func(p Plan) string { return orNone(p.SpeedDownBPS) }),
		one("quota_bytes", own.QuotaBytes != nil, func(p Plan) string { return orNone(p.QuotaBytes) }),
		one("quota_period", own.QuotaPeriod != nil, func(p Plan) string { return string(p.QuotaPeriod) }),
		one("regions", own.Regions != nil, func(p Plan) string {
			return cmp.Or(strings.Join(p.Regions, ","), "all")
		}),
	}
	if plan == nil {
		all = slices.DeleteFunc(all, func(h HeldLimit) bool { return !h.Own })
	}
	return all
}

// showLimits is what the audit log shows of limits.
func showLimits(l Limits) view {
	said, err := json.Marshal(l)
	if err != nil {
		panic(err) // numbers and words marshal
	}
	var set map[string]json.RawMessage
	if err := json.Unmarshal(said, &set); err != nil {
		panic(err)
	}
	v := view{}
	for name, value := range set {
		v[name] = value
	}
	return v
}
