package httvps

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"time"
)

// Account is what the service tells a device about itself and its user's plan.
type Account struct {
	DeviceName string // as the operator sees it
	UserName   string // likewise

	// Allowed says that the device may have sessions.
	Allowed bool

	// Reason is why it may not: a code that [Explain] knows, like that of a
	// [RefusedError]. Empty with Allowed.
	Reason string

	// Plan is what the next session rests on, or what the user last had; nil: there
	// never was one.
	Plan *Plan

	// Support is whom the user can turn to, to be shown: a text or a URL of the
	// operator's, in one line; empty: the service did not say.
	Support string
}

// Plan is a user's subscription to a plan of the operator's.
type Plan struct {
	Name     string    // for people
	Status   string    // "active", "scheduled" or "expired"
	StartsAt time.Time // meaningless with AwaitsUse
	EndsAt   time.Time // zero: without end, or not known yet

	// AwaitsUse says that it begins with the first session.
	AwaitsUse bool

	MaxDevices  int      // that the user may have enrolled
	MaxSessions int      // at once, of all of the user's devices
	Regions     []string // codes; empty: all

	// SpeedUp and SpeedDown are bits per second of the device's sessions together; 0:
	// no limit.
	SpeedUp, SpeedDown int64

	// Quota is nil where traffic is not limited, or the plan not active.
	Quota *Quota
}

// Quota is how much traffic a plan includes, and what is used of it. Usage is known
// some seconds late.
type Quota struct {
	// Bytes is what a period includes, Used and Left are what was used of it and what
	// was not; in bytes, both directions together. Left is never less than zero.
	Bytes, Used, Left int64

	// ResetsAt is when the next period begins; zero: never.
	ResetsAt time.Time

	// Throttled says that it is used up and traffic goes on, at Throttle.
	Throttled bool

	// Throttle is how fast traffic goes on when it is used up, in bits per second; 0:
	// it ends then.
	Throttle int64
}

// DaysLeft is how many days the plan lasts from now on, a day that has begun counted
// whole; ok is false when it has no end, or none yet.
func (p *Plan) DaysLeft(now time.Time) (days int, ok bool) {
	if p.EndsAt.IsZero() {
		return 0, false
	}
	left := p.EndsAt.Sub(now)
	return int(max(0, math.Ceil(left.Hours()/24))), true
}

// me is the service's answer.
type me struct {
	Device struct {
		Name string `json:"name"`
	} `json:"device"`
	UserName     string `json:"user_name"`
	Allowed      bool   `json:"allowed"`
	Reason       string `json:"reason"`
	Support      string `json:"support"`
	Subscription *struct {
		PlanName     string     `json:"plan_name"`
		Status       string     `json:"status"`
		StartsAt     time.Time  `json:"starts_at"`
		EndsAt       *time.Time `json:"ends_at"`
		AwaitsUse    bool       `json:"awaits_use"`
		MaxDevices   int        `json:"max_devices"`
		MaxSessions  int        `json:"max_sessions"`
		Regions      []string   `json:"regions"`
		SpeedUpBPS   *int64     `json:"speed_up_bps"`
		SpeedDownBPS *int64     `json:"speed_down_bps"`
		Quota        *struct {
			Bytes       int64      `json:"bytes"`
			Used        int64      `json:"used"`
			Left        int64      `json:"left"`
			ResetsAt    *time.Time `json:"resets_at"`
			Throttled   bool       `json:"throttled"`
			ThrottleBPS *int64     `json:"throttle_bps"`
		} `json:"quota"`
	} `json:"subscription"`
}

// account is the answer as programs have it.
func (m me) account() Account {
	a := Account{DeviceName: m.Device.Name, UserName: m.UserName, Allowed: m.Allowed, Support: contact(m.Support)}
	if isCode(m.Reason) {
		a.Reason = m.Reason
	}
	s := m.Subscription
	if s == nil {
		return a
	}
	a.Plan = &Plan{
		Name: s.PlanName, Status: s.Status, StartsAt: s.StartsAt, EndsAt: orZero(s.EndsAt), AwaitsUse: s.AwaitsUse, MaxDevices: s.MaxDevices,
		MaxSessions: s.MaxSessions, Regions: s.Regions, SpeedUp: orZero(s.SpeedUpBPS), SpeedDown: orZero(s.SpeedDownBPS),
	}
	if q := s.Quota; q != nil {
		a.Plan.Quota = &Quota{
			Bytes: q.Bytes, Used: q.Used, Left: q.Left, ResetsAt: orZero(q.ResetsAt), Throttled: q.Throttled, Throttle: orZero(q.ThrottleBPS),
		}
	}
	return a
}

// orZero is what p points to, or nothing.
func orZero[T any](p *T) (v T) {
	if p != nil {
		v = *p
	}
	return v
}

// Account asks the service about the device's user and plan: through the tunnel or a
// gateway where its own addresses do not answer. It works beside Run and without it,
// and takes as long as ctx allows: give ctx an end. The error is a *RefusedError when
// the service does not know the device, an *UnreachableError when nobody answered, or
// one of the store.
func (c *Client) Account(ctx context.Context) (Account, error) {
	c.mu.Lock()
	r := c.runner
	c.mu.Unlock()
	if r == nil {
		var err error
		if r, err = c.prepare(ctx); err != nil {
			return Account{}, err
		}
	}
	tok, err := r.tokens.get(ctx, "")
	if err != nil {
		return Account{}, err
	}
	get := func(text string) (Account, error) {
		answer, err := ask(ctx, r.tokens.service, func(ctx context.Context, on way) (answer me, err error) {
			err = call(ctx, on, http.MethodGet, "/api/v1/me", text, nil, &answer)
			return answer, err
		})
		return answer.account(), err
	}
	account, err := get(tok.text)
	// The service may have changed its keys, or its mind, since the token was made.
	if refused, ok := errors.AsType[*RefusedError](err); ok && judge(refused.Code) == freshToken {
		if tok, err = r.tokens.get(ctx, tok.text); err != nil {
			return Account{}, err
		}
		account, err = get(tok.text)
	}
	if err != nil {
		return Account{}, fmt.Errorf("account: %w", err)
	}
	return account, nil
}
