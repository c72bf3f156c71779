package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// Me is what a device may know about itself and its user's plan.
type Me struct {
	Device       MyDevice        `json:"device"`
	UserName     string          `json:"user_name"`
	Allowed      bool            `json:"allowed" doc:"The device may have sessions, as far as its gateway and the number of its user's sessions let it."`
	Reason       string          `json:"reason,omitempty" doc:"Why it may not, such as subscription_expired or quota_exceeded."`
	Subscription *MySubscription `json:"subscription" doc:"What its next session rests on, or what it last had. Null: there never was one."`
	Support      string          `json:"support,omitempty" doc:"Whom the user can turn to: a text or a URL of the operator's, to be shown. Absent: nobody is named."`
}

// MyDevice is the device that asks.
type MyDevice struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	Platform   string     `json:"platform"`
	CreatedAt  time.Time  `json:"created_at"`
	LastSeenAt *time.Time `json:"last_seen_at"`
}

func showMyDevice(d control.Device) MyDevice {
	return MyDevice{ID: d.ID, Name: d.Name, Platform: d.Platform, CreatedAt: d.CreatedAt, LastSeenAt: d.LastSeenAt}
}

// MySubscription is the subscription of the device's user.
type MySubscription struct {
	PlanName     string     `json:"plan_name"`
	Status       string     `json:"status" doc:"active, scheduled or expired."`
	StartsAt     time.Time  `json:"starts_at" doc:"With awaits_use: when the subscription was made."`
	EndsAt       *time.Time `json:"ends_at" doc:"Null: without end, or with awaits_use not known yet."`
	AwaitsUse    bool       `json:"awaits_use" doc:"It begins with the first session."`
	MaxDevices   int        `json:"max_devices"`
	MaxSessions  int        `json:"max_sessions"`
	Regions      []string   `json:"regions" doc:"Codes; empty: all."`
	SpeedUpBPS   *int64     `json:"speed_up_bps" doc:"Bits per second of a session; null: no limit."`
	SpeedDownBPS *int64     `json:"speed_down_bps" doc:"Likewise."`
	Quota        *QuotaUse  `json:"quota" doc:"Null: there is none, or the subscription is not active."`
}

// QuotaUse is what there is and what is used of it. Usage is known some seconds late.
type QuotaUse struct {
	Bytes       int64      `json:"bytes"`
	Used        int64      `json:"used" doc:"In the present period, up and down together."`
	Left        int64      `json:"left"`
	From        *time.Time `json:"from,omitempty" doc:"When the present period began."`
	ResetsAt    *time.Time `json:"resets_at,omitempty" doc:"When the next begins; absent: never."`
	Warning     int        `json:"warning" doc:"The highest percentage that is used and was to be warned of; 0: none."`
	Throttled   bool       `json:"throttled" doc:"It is used up, and sessions have throttle_bps."`
	ThrottleBPS *int64     `json:"throttle_bps" doc:"Bits per second of a session once it is used up; null: there is no traffic then."`
}

func (s *server) registerMe(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "me", Method: http.MethodGet, Path: "/api/v1/me", Tags: []string{"device"},
		Summary: "Show the device, its user's plan and what is used of it", Security: []map[string][]string{{secureDevice: {}}},
		Middlewares: s.asDevice(),
	}, func(ctx context.Context, _ *struct{}) (*body[Me], error) {
		me, err := s.authority.Me(ctx, deviceOf(ctx))
		return &body[Me]{s.showMe(me)}, err
	})
}

func (s *server) showMe(me control.Me) Me {
	shown := Me{Device: showMyDevice(me.Device), UserName: me.User.Name, Allowed: me.Refused == "", Reason: string(me.Refused), Support: me.Support}
	if me.Entitlement == nil {
		return shown
	}
	e, plan := me.Entitlement, me.Entitlement.Plan
	mine := &MySubscription{
		PlanName: plan.Name, Status: string(e.Status(s.authority.Now())), StartsAt: e.StartsAt.UTC(), EndsAt: utc(e.EndsAt), AwaitsUse: e.AwaitsUse,
		MaxDevices: plan.MaxDevices, MaxSessions: plan.MaxSessions, Regions: orEmpty(plan.Regions), SpeedUpBPS: plan.SpeedUpBPS,
		SpeedDownBPS: plan.SpeedDownBPS,
	}
	mine.Quota = showQuotaUse(plan, me.Quota)
	shown.Subscription = mine
	return shown
}

// showQuotaUse shows what is used of the quota of a plan; nil: there is none.
func showQuotaUse(plan control.Plan, q *control.QuotaStanding) *QuotaUse {
	if q == nil {
		return nil
	}
	use := &QuotaUse{
		Bytes: *plan.QuotaBytes, Used: q.Used, Left: q.Left, From: orAbsent(q.From), ResetsAt: orAbsent(q.To), Warning: q.Warning,
	}
	if plan.QuotaAction == control.QuotaThrottle {
		use.ThrottleBPS, use.Throttled = plan.ThrottleBPS, q.Left == 0
	}
	return use
}
