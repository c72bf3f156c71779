package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// QuotaLease is what a gateway says about its lease of a subscription's quota.
type QuotaLease struct {
	SubscriptionID string `json:"subscription_id" minLength:"36" maxLength:"36" pattern:"^[0-9a-f-]*$"`
	Used           int64  `json:"used" minimum:"0" maximum:"9007199254740992" doc:"Bytes, up and down together, of all sessions of the subscription since the gateway's process began."`
	Version        int64  `json:"version,omitempty" minimum:"0" maximum:"9007199254740992" doc:"Of the lease that the gateway has."`
	Hold           *int64 `json:"hold,omitempty" minimum:"0" maximum:"9007199254740992" doc:"The allowance that the gateway wants to have and no more. If version is the lease's, it gives back what it has beyond that, and must have stopped using it."`
}

// QuotaGrant is what a gateway may use of a subscription's quota. Of two, the one with
// the higher version is the later one.
type QuotaGrant struct {
	SubscriptionID string     `json:"subscription_id"`
	State          string     `json:"state" doc:"open: as much as the allowance says. exhausted: what is left of the allowance, and then nothing. throttled: whatever the allowance says, with throttle_bps. unlimited: there is no quota. unknown: there is no lease; ask validate-device about the sessions."`
	Version        int64      `json:"version,omitempty"`
	Allowance      int64      `json:"allowance" doc:"Bytes, up and down together, that all sessions of the subscription may have moved since the gateway's process began."`
	LeaseEndsAt    *time.Time `json:"lease_ends_at,omitempty" doc:"When what is not used goes back, unless the lease is renewed before."`
	ThrottleBPS    int64      `json:"throttle_bps,omitempty" doc:"Bits per second of a device in each direction while throttled."`
	QuotaBytes     int64      `json:"quota_bytes,omitempty" doc:"The whole quota of the period."`
	UsedBytes      int64      `json:"used_bytes,omitempty" doc:"What is used of it at all gateways, as far as they have reported."`
	ReachedPercent int        `json:"reached_percent,omitempty" doc:"The highest of the plan's quota_warnings, and of 100, that is used; absent: none."`
	PeriodFrom     *time.Time `json:"period_from,omitempty"`
	PeriodTo       *time.Time `json:"period_to,omitempty" doc:"When the quota begins anew; absent: never."`
}

func showGrant(g control.Grant) QuotaGrant {
	shown := QuotaGrant{
		SubscriptionID: g.SubscriptionID, State: string(g.State), Version: g.Lease.Version, Allowance: g.Lease.Allowance,
		ThrottleBPS: g.ThrottleBPS, QuotaBytes: g.Quota, UsedBytes: g.Used, ReachedPercent: g.Reached, LeaseEndsAt: orAbsent(g.Lease.EndsAt), PeriodFrom: orAbsent(g.Period.From), PeriodTo: orAbsent(g.Period.To),
	}
	return shown
}

// orAbsent makes a zero time one that JSON leaves out.
func orAbsent(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	t = t.UTC()
	return &t
}

// QuotaLeases are leases to be renewed.
type QuotaLeases struct {
	BootID string       `json:"boot_id" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9_-]*$" doc:"Of the gateway's process."`
	Leases []QuotaLease `json:"leases" minItems:"1" maxItems:"1000"`
}

// QuotaGrants answer them.
type QuotaGrants struct {
	Quotas []QuotaGrant `json:"quotas" doc:"For each of the leases, in their order."`
}

func (s *server) registerQuota(api huma.API) {
	register(s, api, huma.Operation{
		OperationID: "renew-quota-leases", Method: http.MethodPost, Path: "/api/v1/quota/leases", Tags: []string{"gateway"},
		Summary: "Renew leases of quotas, draw more from the quotas, or give back what is not needed", Security: []map[string][]string{{secureGateway: {}}},
		Middlewares: s.asGateway(), DefaultStatus: http.StatusOK, MaxBodyBytes: maxEndsBody,
		Description: "Allowances are cumulative, so requests may be repeated and answers lost. The answer of validate-device makes a lease.",
	}, func(ctx context.Context, in *body[QuotaLeases]) (*body[QuotaGrants], error) {
		quotas, err := s.renewQuota(ctx, in.Body.BootID, in.Body.Leases)
		return &body[QuotaGrants]{QuotaGrants{Quotas: quotas}}, err
	})
}

func (s *server) renewQuota(ctx context.Context, bootID string, leases []QuotaLease) ([]QuotaGrant, error) {
	if len(leases) == 0 {
		return nil, nil
	}
	requests := make([]control.LeaseRequest, 0, len(leases))
	for _, l := range leases {
		requests = append(requests, control.LeaseRequest{SubscriptionID: l.SubscriptionID, Used: l.Used, Version: l.Version, Hold: l.Hold})
	}
	grants, err := s.authority.RenewQuota(ctx, gatewayOf(ctx), bootID, requests)
	if err != nil {
		return nil, err
	}
	shown := make([]QuotaGrant, 0, len(grants))
	for _, g := range grants {
		s.observer.QuotaLease(string(g.State))
		if g.Warning > 0 {
			s.quotaReached(ctx, g)
		}
		shown = append(shown, showGrant(g))
	}
	return shown, nil
}

// quotaReached says that a percentage of a quota that is to be warned of was reached.
func (s *server) quotaReached(ctx context.Context, g control.Grant) {
	s.observer.QuotaReached(g.Warning >= 100)
	s.log.InfoContext(ctx, "quota reached", "subscription_id", g.SubscriptionID, "percent", g.Warning, "used_bytes", g.Used, "quota_bytes", g.Quota)
}
