package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// User is a person or account.
type User struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Disabled  bool      `json:"disabled"`
	Note      string    `json:"note"`
	Limits    Limits    `json:"limits" doc:"What holds for the user whatever his plans say."`
	CreatedAt time.Time `json:"created_at"`
}

func showUser(u control.User) User {
	return User{ID: u.ID, Name: u.Name, Disabled: u.DisabledAt != nil, Note: u.Note, Limits: showLimits(u.Limits), CreatedAt: u.CreatedAt}
}

// NewUser is what an operator says about a new user.
type NewUser struct {
	Name     string       `json:"name" minLength:"1" maxLength:"100" doc:"Unique."`
	Note     string       `json:"note,omitempty" maxLength:"1000"`
	Disabled bool         `json:"disabled,omitempty"`
	Limits   LimitsChange `json:"limits,omitzero" doc:"What is to hold for the user whatever his plans say."`
}

// UserChange is what an operator may change about a user.
type UserChange struct {
	Name     *string `json:"name,omitempty" minLength:"1" maxLength:"100"`
	Note     *string `json:"note,omitempty" maxLength:"1000"`
	Disabled *bool   `json:"disabled,omitempty"`
}

type userListInput struct {
	Paging
	Name   string `query:"name" maxLength:"100" doc:"Only the one with this name."`
	Search string `query:"q" maxLength:"100" doc:"Only those whose name begins so, in the order of names. ASCII letters match in both cases. Not together with name."`
}

// Resolve implements huma.Resolver.
func (in *userListInput) Resolve(huma.Context) []error {
	if in.Name != "" && in.Search != "" {
		return []error{&huma.ErrorDetail{Location: "query.q", Message: notTogether}}
	}
	return nil
}

// notTogether says that a list takes one of two selections.
const notTogether = "not together with another selection"

type planListInput struct {
	Paging
	Name string `query:"name" maxLength:"100" doc:"Only the one with this name."`
}

type userChangeInput struct {
	ByID
	Body UserChange
}

func (s *server) registerUsers(api huma.API) {
	register(s, api, s.admin("create-user", http.MethodPost, "/users", "Add a user"),
		func(ctx context.Context, in *Creation[NewUser]) (*created[User], error) {
			fields := control.UserFields{Name: &in.Body.Name, Note: &in.Body.Note, Disabled: &in.Body.Disabled, Limits: in.Body.Limits.change()}
			user, replayed, err := s.authority.CreateUser(ctx, fields, in.once(ctx, "create-user"))
			return createdAs(showUser(user), replayed), err
		})
	register(s, api, s.admin("list-users", http.MethodGet, "/users", "List users"),
		func(ctx context.Context, in *userListInput) (*body[List[User]], error) {
			var users []control.User
			var err error
			if in.Search != "" {
				users, err = s.authority.SearchUsers(ctx, in.Search, in.page())
			} else {
				users, err = s.authority.Users(ctx, in.Name, in.page())
			}
			return listOf(in.Paging, users, showUser, func(u control.User) string { return u.ID }), err
		})
	register(s, api, s.admin("show-user", http.MethodGet, "/users/{id}", "Show a user"),
		func(ctx context.Context, in *ByID) (*body[User], error) {
			user, err := s.authority.User(ctx, in.ID)
			return &body[User]{showUser(user)}, err
		})
	register(s, api, s.admin("update-user", http.MethodPatch, "/users/{id}", "Change a user, or disable it, which ends its sessions"),
		func(ctx context.Context, in *userChangeInput) (*body[User], error) {
			fields := control.UserFields{Name: in.Body.Name, Note: in.Body.Note, Disabled: in.Body.Disabled}
			user, err := s.authority.UpdateUser(ctx, in.ID, fields)
			return &body[User]{showUser(user)}, err
		})
	register(s, api, s.admin("delete-user", http.MethodDelete, "/users/{id}", "Remove a user with its devices, subscriptions and invitations"),
		func(ctx context.Context, in *ByID) (*struct{}, error) {
			return nil, s.authority.DeleteUser(ctx, in.ID)
		})
}

// Plan is what a subscription allows.
type Plan struct {
	ID               string   `json:"id"`
	Name             string   `json:"name"`
	MaxDevices       int      `json:"max_devices" doc:"Enrolled devices of a user."`
	MaxSessions      int      `json:"max_sessions" doc:"Sessions of a user at once."`
	MaxStreams       int      `json:"max_streams" doc:"TCP streams of a session at once."`
	MaxUDP           int      `json:"max_udp" doc:"UDP flows of a session at once."`
	DurationDays     *int     `json:"duration_days" doc:"Of a new subscription; null: without end."`
	StartsOnFirstUse bool     `json:"starts_on_first_use" doc:"A new subscription begins with its user's first session instead of at once."`
	Regions          []string `json:"regions" doc:"Codes of the regions whose gateways may be used; empty: all."`
	SpeedUpBPS       *int64   `json:"speed_up_bps" doc:"Bits per second of a session, from the device; null: no limit."`
	SpeedDownBPS     *int64   `json:"speed_down_bps" doc:"Bits per second of a session, to the device; null: no limit."`
	QuotaBytes       *int64   `json:"quota_bytes" doc:"Traffic of a subscription in a period, up and down together; null: no quota."`
	QuotaPeriod      string   `json:"quota_period" doc:"When the quota begins anew: never (none), by the calendar (day, week from Monday, month), or each month counted from the subscription's start (rolling)."`
	TimeZone         string   `json:"time_zone" doc:"IANA name of the zone in whose calendar periods are."`
	QuotaAction      string   `json:"quota_action" doc:"What becomes of a subscription whose quota is used up: block or throttle."`
	ThrottleBPS      *int64   `json:"throttle_bps" doc:"Bits per second of a session in each direction, with throttle."`
	QuotaWarnings    []int    `json:"quota_warnings" doc:"Of what percentages of the quota the service warns."`
	PlanEgress
	CreatedAt time.Time `json:"created_at"`
}

func showPlan(p control.Plan) Plan {
	return Plan{
		ID: p.ID, Name: p.Name, MaxDevices: p.MaxDevices, MaxSessions: p.MaxSessions, MaxStreams: p.MaxStreams, MaxUDP: p.MaxUDP,
		DurationDays: p.DurationDays, StartsOnFirstUse: p.StartsOnFirstUse, Regions: orEmpty(p.Regions), SpeedUpBPS: p.SpeedUpBPS,
		SpeedDownBPS: p.SpeedDownBPS, QuotaBytes: p.QuotaBytes, QuotaPeriod: string(p.QuotaPeriod), TimeZone: p.TimeZone,
		QuotaAction: string(p.QuotaAction), ThrottleBPS: p.ThrottleBPS, QuotaWarnings: orEmpty(p.QuotaWarnings), PlanEgress: allEgress(p.Egress), CreatedAt: p.CreatedAt,
	}
}

// orEmpty makes an absent list one that JSON shows.
func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

// NewPlan is what an operator says about a new plan.
type NewPlan struct {
	Name             string               `json:"name" minLength:"1" maxLength:"100" doc:"Unique."`
	MaxDevices       *int                 `json:"max_devices,omitempty" minimum:"1" maximum:"1000" doc:"5 when absent."`
	MaxSessions      *int                 `json:"max_sessions,omitempty" minimum:"1" maximum:"1000" doc:"5 when absent."`
	MaxStreams       *int                 `json:"max_streams,omitempty" minimum:"1" maximum:"65535" doc:"1024 when absent."`
	MaxUDP           *int                 `json:"max_udp,omitempty" minimum:"0" maximum:"65535" doc:"256 when absent."`
	DurationDays     *int                 `json:"duration_days,omitempty" nullable:"true" minimum:"0" maximum:"36500" doc:"Null, 0 or absent: without end."`
	StartsOnFirstUse *bool                `json:"starts_on_first_use,omitempty" doc:"False when absent."`
	Regions          *[]string            `json:"regions,omitempty" maxItems:"64" doc:"Codes. Empty or absent: all regions."`
	SpeedUpBPS       *int64               `json:"speed_up_bps,omitempty" minimum:"0" maximum:"1000000000000" doc:"8,000 to 10^12 bits per second; 0 or absent: no limit."`
	SpeedDownBPS     *int64               `json:"speed_down_bps,omitempty" minimum:"0" maximum:"1000000000000" doc:"Likewise."`
	QuotaBytes       *int64               `json:"quota_bytes,omitempty" minimum:"0" maximum:"1125899906842624" doc:"1 MiB to 1 PiB; 0 or absent: no quota."`
	QuotaPeriod      *control.QuotaPeriod `json:"quota_period,omitempty" enum:"none,day,week,month,rolling" doc:"None when absent: the quota is for the whole subscription."`
	TimeZone         *string              `json:"time_zone,omitempty" maxLength:"64" doc:"An IANA name. UTC when absent."`
	QuotaAction      *control.QuotaAction `json:"quota_action,omitempty" enum:"block,throttle" doc:"Block when absent."`
	ThrottleBPS      *int64               `json:"throttle_bps,omitempty" minimum:"0" maximum:"1000000000000" doc:"8,000 to 10^12 bits per second; needed with throttle."`
	QuotaWarnings    *[]int               `json:"quota_warnings,omitempty" maxItems:"8" doc:"Percentages from 1 to 99. 80 and 95 when absent."`
	DeniedPrefixes   *[]string            `json:"denied_prefixes,omitempty" maxItems:"256" doc:"Of addresses that sessions may not reach, such as 203.0.113.0/24; none when absent, here and in what follows. What the gateway denies to all stays denied."`
	DeniedPorts      *[]uint16            `json:"denied_ports,omitempty" maxItems:"256" doc:"On every address."`
	AllowedPorts     *[]uint16            `json:"allowed_ports,omitempty" maxItems:"256" doc:"The only ones that are not denied; empty: all others."`
	DeniedNames      *[]string            `json:"denied_names,omitempty" maxItems:"256" doc:"Each with everything below it; a dot is every name."`
	AllowedNames     *[]string            `json:"allowed_names,omitempty" maxItems:"256" doc:"Exceptions: the longest name decides, and of two that are the same the denial."`
}

// PlanChange is what an operator may change about a plan.
type PlanChange struct {
	Name             *string              `json:"name,omitempty" minLength:"1" maxLength:"100"`
	MaxDevices       *int                 `json:"max_devices,omitempty" minimum:"1" maximum:"1000"`
	MaxSessions      *int                 `json:"max_sessions,omitempty" minimum:"1" maximum:"1000"`
	MaxStreams       *int                 `json:"max_streams,omitempty" minimum:"1" maximum:"65535"`
	MaxUDP           *int                 `json:"max_udp,omitempty" minimum:"0" maximum:"65535"`
	DurationDays     *int                 `json:"duration_days,omitempty" minimum:"0" maximum:"36500" doc:"0: without end."`
	StartsOnFirstUse *bool                `json:"starts_on_first_use,omitempty" doc:"Of subscriptions that are made afterwards."`
	Regions          *[]string            `json:"regions,omitempty" maxItems:"64" doc:"Codes. Empty: all regions."`
	SpeedUpBPS       *int64               `json:"speed_up_bps,omitempty" minimum:"0" maximum:"1000000000000" doc:"8,000 to 10^12 bits per second; 0: no limit."`
	SpeedDownBPS     *int64               `json:"speed_down_bps,omitempty" minimum:"0" maximum:"1000000000000" doc:"Likewise."`
	QuotaBytes       *int64               `json:"quota_bytes,omitempty" minimum:"0" maximum:"1125899906842624" doc:"1 MiB to 1 PiB; 0: no quota."`
	QuotaPeriod      *control.QuotaPeriod `json:"quota_period,omitempty" enum:"none,day,week,month,rolling"`
	TimeZone         *string              `json:"time_zone,omitempty" maxLength:"64" doc:"An IANA name."`
	QuotaAction      *control.QuotaAction `json:"quota_action,omitempty" enum:"block,throttle"`
	ThrottleBPS      *int64               `json:"throttle_bps,omitempty" minimum:"0" maximum:"1000000000000" doc:"8,000 to 10^12 bits per second; 0: none."`
	QuotaWarnings    *[]int               `json:"quota_warnings,omitempty" maxItems:"8" doc:"Percentages from 1 to 99."`
	DeniedPrefixes   *[]string            `json:"denied_prefixes,omitempty" maxItems:"256" doc:"In place of the ones before, here and in what follows. Connections that are open stay."`
	DeniedPorts      *[]uint16            `json:"denied_ports,omitempty" maxItems:"256"`
	AllowedPorts     *[]uint16            `json:"allowed_ports,omitempty" maxItems:"256" doc:"Empty: all but the denied ones."`
	DeniedNames      *[]string            `json:"denied_names,omitempty" maxItems:"256"`
	AllowedNames     *[]string            `json:"allowed_names,omitempty" maxItems:"256"`
}

type planChangeInput struct {
	ByID
	Body PlanChange
}

func (s *server) registerPlans(api huma.API) {
	register(s, api, s.admin("create-plan", http.MethodPost, "/plans", "Add a plan"),
		func(ctx context.Context, in *Creation[NewPlan]) (*created[Plan], error) {
			b := in.Body
			plan, replayed, err := s.authority.CreatePlan(ctx, control.PlanFields{
				Name: &b.Name, MaxDevices: b.MaxDevices, MaxSessions: b.MaxSessions, MaxStreams: b.MaxStreams, MaxUDP: b.MaxUDP,
				DurationDays: b.DurationDays, StartsOnFirstUse: b.StartsOnFirstUse, Regions: b.Regions, SpeedUpBPS: b.SpeedUpBPS,
				SpeedDownBPS: b.SpeedDownBPS, QuotaBytes: b.QuotaBytes, QuotaPeriod: b.QuotaPeriod, TimeZone: b.TimeZone,
				QuotaAction: b.QuotaAction, ThrottleBPS: b.ThrottleBPS, QuotaWarnings: b.QuotaWarnings,
				DeniedPrefixes: b.DeniedPrefixes, DeniedPorts: b.DeniedPorts, AllowedPorts: b.AllowedPorts,
				DeniedNames: b.DeniedNames, AllowedNames: b.AllowedNames,
			}, in.once(ctx, "create-plan"))
			return createdAs(showPlan(plan), replayed), err
		})
	register(s, api, s.admin("list-plans", http.MethodGet, "/plans", "List plans"),
		func(ctx context.Context, in *planListInput) (*body[List[Plan]], error) {
			plans, err := s.authority.Plans(ctx, in.Name, in.page())
			return listOf(in.Paging, plans, showPlan, func(p control.Plan) string { return p.ID }), err
		})
	register(s, api, s.admin("show-plan", http.MethodGet, "/plans/{id}", "Show a plan"),
		func(ctx context.Context, in *ByID) (*body[Plan], error) {
			plan, err := s.authority.Plan(ctx, in.ID)
			return &body[Plan]{showPlan(plan)}, err
		})
	register(s, api, s.admin("update-plan", http.MethodPatch, "/plans/{id}", "Change a plan for what begins afterwards"),
		func(ctx context.Context, in *planChangeInput) (*body[Plan], error) {
			plan, err := s.authority.UpdatePlan(ctx, in.ID, control.PlanFields(in.Body))
			return &body[Plan]{showPlan(plan)}, err
		})
	register(s, api, s.admin("delete-plan", http.MethodDelete, "/plans/{id}", "Remove a plan that has no subscription"),
		func(ctx context.Context, in *ByID) (*struct{}, error) {
			return nil, s.authority.DeletePlan(ctx, in.ID)
		})
}

// Subscription is a user's plan for a period.
type Subscription struct {
	ID        string     `json:"id"`
	UserID    string     `json:"user_id"`
	PlanID    string     `json:"plan_id"`
	StartsAt  time.Time  `json:"starts_at" doc:"With awaits_use: when the subscription was made."`
	EndsAt    *time.Time `json:"ends_at" doc:"Null: without end, or with awaits_use not known yet."`
	Status    string     `json:"status" enum:"scheduled,active,expired"`
	AwaitsUse bool       `json:"awaits_use" doc:"It is scheduled and begins with the user's first session while no other subscription is active."`
	CreatedAt time.Time  `json:"created_at"`
}

// SubscriptionWithQuota is a subscription with what is used of its quota.
type SubscriptionWithQuota struct {
	Subscription
	Quota *QuotaUse `json:"quota" doc:"Null: the plan has none. Of a subscription that has ended, what was used in its last period."`
}

func (s *server) showSubscription(b control.Subscription) Subscription {
	return Subscription{
		ID: b.ID, UserID: b.UserID, PlanID: b.PlanID, StartsAt: b.StartsAt.UTC(), EndsAt: utc(b.EndsAt),
		Status: string(b.Status(s.authority.Now())), AwaitsUse: b.AwaitsUse, CreatedAt: b.CreatedAt,
	}
}

func utc(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	u := t.UTC()
	return &u
}

// NewSubscription is what an operator says about a new subscription.
type NewSubscription struct {
	UserID   string     `json:"user_id" minLength:"36" maxLength:"36" pattern:"^[0-9a-f-]*$"`
	PlanID   string     `json:"plan_id" minLength:"36" maxLength:"36" pattern:"^[0-9a-f-]*$"`
	StartsAt *time.Time `json:"starts_at,omitempty" nullable:"true" doc:"Null or absent: now, or the first use when the plan says so."`
	EndsAt   *time.Time `json:"ends_at,omitempty" nullable:"true" doc:"Null or absent: what the plan's duration says."`
}

// SubscriptionChange moves a subscription's times, or to another plan.
type SubscriptionChange struct {
	StartsAt *time.Time `json:"starts_at,omitempty"`
	EndsAt   *time.Time `json:"ends_at,omitempty"`
	PlanID   *string    `json:"plan_id,omitempty" minLength:"36" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"To another plan. Its limits hold at once, its duration does not move the end."`
}

type ofUserInput struct {
	Paging
	UserID string `query:"user_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Only this user's."`
}

type subscriptionChangeInput struct {
	ByID
	Body SubscriptionChange
}

func (s *server) registerSubscriptions(api huma.API) {
	register(s, api, s.admin("create-subscription", http.MethodPost, "/subscriptions", "Give a user a plan"),
		func(ctx context.Context, in *Creation[NewSubscription]) (*created[Subscription], error) {
			sub, replayed, err := s.authority.CreateSubscription(ctx, control.NewSubscription(in.Body), in.once(ctx, "create-subscription"))
			return createdAs(s.showSubscription(sub), replayed), err
		})
	register(s, api, s.admin("list-subscriptions", http.MethodGet, "/subscriptions", "List subscriptions"),
		func(ctx context.Context, in *ofUserInput) (*body[List[Subscription]], error) {
			subs, err := s.authority.Subscriptions(ctx, in.UserID, in.page())
			return listOf(in.Paging, subs, s.showSubscription, func(b control.Subscription) string { return b.ID }), err
		})
	register(s, api, s.admin("show-subscription", http.MethodGet, "/subscriptions/{id}", "Show a subscription and what is used of its quota"),
		func(ctx context.Context, in *ByID) (*body[SubscriptionWithQuota], error) {
			e, used, err := s.authority.SubscriptionQuota(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			return &body[SubscriptionWithQuota]{SubscriptionWithQuota{
				Subscription: s.showSubscription(e.Subscription), Quota: showQuotaUse(e.Plan, used),
			}}, nil
		})
	register(s, api, s.admin("update-subscription", http.MethodPatch, "/subscriptions/{id}", "Move a subscription's times, or to another plan"),
		func(ctx context.Context, in *subscriptionChangeInput) (*body[Subscription], error) {
			sub, err := s.authority.UpdateSubscription(ctx, in.ID, control.SubscriptionFields(in.Body))
			return &body[Subscription]{s.showSubscription(sub)}, err
		})
	register(s, api, s.admin("delete-subscription", http.MethodDelete, "/subscriptions/{id}", "Remove a subscription, which ends the sessions that rest on it"),
		func(ctx context.Context, in *ByID) (*struct{}, error) {
			return nil, s.authority.DeleteSubscription(ctx, in.ID)
		})
}

// Invitation lets one device of a user enrol, once.
type Invitation struct {
	ID        string     `json:"id"`
	UserID    string     `json:"user_id"`
	ExpiresAt time.Time  `json:"expires_at"`
	UsedAt    *time.Time `json:"used_at" doc:"Null: not used."`
	DeviceID  *string    `json:"device_id" doc:"The device that used it."`
	CreatedAt time.Time  `json:"created_at"`
}

// NewInvitation is an invitation with its link, which is shown once.
type NewInvitation struct {
	Invitation
	Link string `json:"link,omitempty" doc:"Absent when an earlier request with the same Idempotency-Key had made the invitation."`
}

func showInvitation(i control.Invitation) Invitation {
	shown := Invitation{ID: i.ID, UserID: i.UserID, ExpiresAt: i.ExpiresAt.UTC(), UsedAt: i.UsedAt, CreatedAt: i.CreatedAt}
	if i.DeviceID != "" {
		shown.DeviceID = &i.DeviceID
	}
	return shown
}

// Invite is how long an invitation is to be valid.
type Invite struct {
	TTLSeconds int `json:"ttl_seconds,omitempty" minimum:"60" maximum:"2592000" doc:"What the settings say when absent, which is 86400 at first."`
}

type inviteInput struct {
	ByID
	Creation[Invite]
}

type invitationListInput struct {
	ByID
	Paging
}

type invitationInput struct {
	ByID
	InvitationID string `path:"invitation_id" minLength:"36" maxLength:"36" pattern:"^[0-9a-f-]*$"`
}

func (s *server) registerInvitations(api huma.API) {
	register(s, api, s.admin("create-invitation", http.MethodPost, "/users/{id}/invitations", "Invite a device of a user; the link is shown once"),
		func(ctx context.Context, in *inviteInput) (*created[NewInvitation], error) {
			ttl := time.Duration(in.Body.TTLSeconds) * time.Second
			invitation, link, replayed, err := s.authority.Invite(ctx, in.ID, ttl, in.once(ctx, "create-invitation", in.ID))
			return createdAs(NewInvitation{Invitation: showInvitation(invitation), Link: link}, replayed), err
		})
	register(s, api, s.admin("list-invitations", http.MethodGet, "/users/{id}/invitations", "List a user's invitations"),
		func(ctx context.Context, in *invitationListInput) (*body[List[Invitation]], error) {
			invitations, err := s.authority.Invitations(ctx, in.ID, in.page())
			return listOf(in.Paging, invitations, showInvitation, func(i control.Invitation) string { return i.ID }), err
		})
	register(s, api, s.admin("delete-invitation", http.MethodDelete, "/users/{id}/invitations/{invitation_id}", "Withdraw an invitation"),
		func(ctx context.Context, in *invitationInput) (*struct{}, error) {
			return nil, s.authority.DeleteInvitation(ctx, in.ID, in.InvitationID)
		})
}
