package control

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/httvps/httvps/internal/reason"
)

// limits are those of the first entitlement that the quota leaves, else of the one that
// lasts longest.
func (e *explainer) limits() []HeldLimit {
	own := e.standing.User.Limits
	switch {
	case len(e.usable) > 0:
		return heldLimits(own, &e.usable[0].General)
	case len(e.standing.Entitlements) > 0:
		return heldLimits(own, &e.standing.Entitlements[0].General)
	default:
		return heldLimits(own, nil)
	}
}

func (e *explainer) credential(ctx context.Context) error {
	d := e.standing.Device
	if d.RevokedAt != nil {
		e.fail(CheckCredential, reason.DeviceRevoked, d.RevokedAt, "httvpsctl user invite "+e.about()+", and enrol the device again", "the device was revoked for good")
		return nil
	}
	refusal, err := e.tx.LastRefusal(ctx, d.ID)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	switch {
	case err == nil && refusal.Reason == reason.DeviceMismatch && (d.LastSeenAt == nil || refusal.At.After(*d.LastSeenAt)):
		e.fail(CheckCredential, reason.DeviceMismatch, &refusal.At, "enrol the device again: httvpsctl device revoke "+d.ID+", then httvpsctl user invite "+e.about(),
			"a gateway was shown another key than the one that was enrolled")
	case d.LastSeenAt == nil:
		e.warn(CheckCredential, &d.CreatedAt, "on the device: httvps doctor", "the device is enrolled and has never asked for access")
	default:
		e.pass(CheckCredential, "its key is known; it last asked for access %s", when(*d.LastSeenAt))
	}
	return nil
}

func (e *explainer) user(context.Context) error {
	if at := e.standing.User.DisabledAt; at != nil {
		e.fail(CheckUser, reason.UserDisabled, at, "httvpsctl user enable "+e.about(), "the user is disabled")
	} else {
		e.pass(CheckUser, "the user is enabled")
	}
	return nil
}

func (e *explainer) subscription(context.Context) error {
	s := e.standing
	s.Device.RevokedAt, s.User.DisabledAt = nil, nil // have checks of their own
	usable, why := s.usable(e.now)
	e.usable = usable
	create := "httvpsctl subscription create --user " + e.about() + " --plan PLAN"
	switch {
	case why == reason.SubscriptionExpired:
		last := s.Entitlements[0]
		for _, one := range s.Entitlements {
			if one.EndsAt != nil && (last.EndsAt == nil || one.EndsAt.After(*last.EndsAt)) {
				last = one
			}
		}
		e.fail(CheckSubscription, why, last.EndsAt, "httvpsctl subscription update "+last.ID+" --ends-at TIME, or "+create, "the last subscription, to plan %s, has ended", quoted(last.Plan.Name))
	case why != "":
		for _, one := range s.Entitlements {
			if one.Status(e.now) == Scheduled {
				e.fail(CheckSubscription, why, nil, "httvpsctl subscription update "+one.ID+" --starts-at TIME, or "+create, "the subscription to plan %s begins %s", quoted(one.Plan.Name), when(one.StartsAt))
				return nil
			}
		}
		e.fail(CheckSubscription, why, &e.standing.User.CreatedAt, create, "the user has no subscription")
	case usable[0].AwaitsUse:
		e.pass(CheckSubscription, "plan %s, which begins with the first session", quoted(usable[0].Plan.Name))
	case usable[0].EndsAt != nil:
		e.pass(CheckSubscription, "plan %s until %s", quoted(usable[0].Plan.Name), when(*usable[0].EndsAt))
	default:
		e.pass(CheckSubscription, "plan %s, without end", quoted(usable[0].Plan.Name))
	}
	return nil
}

// quota leaves those entitlements that have something left.
func (e *explainer) quota(ctx context.Context) error {
	if len(e.usable) == 0 {
		return nil
	}
	var (
		left  []Entitlement
		first *QuotaStanding // of the first that has nothing left
		none  Entitlement
	)
	for _, one := range e.usable {
		used, err := quotaStanding(ctx, e.tx, one, e.now)
		if err != nil {
			return err
		}
		switch {
		case used == nil:
			left = append(left, one)
			e.pass(CheckQuota, "no quota")
		case used.Left > 0:
			left = append(left, one)
			e.pass(CheckQuota, "%d of %d bytes left", used.Left, *one.Plan.QuotaBytes)
		case one.Plan.QuotaAction == QuotaThrottle:
			left = append(left, one)
			since, err := e.usedUpSince(ctx, one, used)
			if err != nil {
				return err
			}
			e.warn(CheckQuota, since, e.raiseQuota(one), "the quota of %d bytes is used up: sessions are slow%s", *one.Plan.QuotaBytes, until(used.Period))
		case first == nil:
			first, none = used, one
		}
		if len(left) > 0 {
			break
		}
	}
	if len(left) == 0 {
		since, err := e.usedUpSince(ctx, none, first)
		if err != nil {
			return err
		}
		e.fail(CheckQuota, reason.QuotaExceeded, since, e.raiseQuota(none), "the quota of %d bytes is used up%s", *none.Plan.QuotaBytes, until(first.Period))
		return nil // where it could go is looked at all the same
	}
	e.usable = left
	return nil
}

func (e *explainer) raiseQuota(of Entitlement) string {
	own := e.standing.User.Limits.QuotaBytes != nil
	next := e.update(own, of.Plan) + " --quota-bytes BYTES"
	if !own {
		next += ", or a subscription to another plan"
	}
	return next
}

// until says when a period is over.
func until(p Period) string {
	if p.To.IsZero() {
		return ""
	}
	return ", until " + when(p.To)
}

// usedUpSince returns the day in UTC, of the user's traffic, on which a quota came to
// its end; nil: it is not known.
func (e *explainer) usedUpSince(ctx context.Context, one Entitlement, q *QuotaStanding) (*time.Time, error) {
	from := q.From
	if oldest := e.now.AddDate(0, 0, -MaxUsageDays); from.Before(oldest) {
		return nil, nil //nolint:nilnil // documented
	}
	day := from.UTC().Truncate(24 * time.Hour)
	days, err := e.tx.UsageDays(ctx, UsageFilter{UserID: one.UserID}, day, e.now.UTC().Truncate(24*time.Hour).AddDate(0, 0, 1))
	if err != nil {
		return nil, err
	}
	var used int64
	for _, d := range slices.Backward(days) { // newest first
		if used += d.total(); used >= *one.Plan.QuotaBytes {
			since := d.Day
			if since.Before(from) {
				since = from
			}
			return &since, nil
		}
	}
	return nil, nil //nolint:nilnil // documented
}

func (e *explainer) sessions(ctx context.Context) error {
	if len(e.usable) == 0 {
		return nil
	}
	limit := e.usable[0].Plan.MaxSessions
	live, err := e.tx.Sessions(ctx, SessionFilter{State: LiveSessions, UserID: e.standing.User.ID}, e.now, Page{Limit: MaxPageSize})
	if err != nil {
		return err
	}
	for _, s := range live { // newest first
		if e.standing.Device.ID == "" || s.DeviceID == e.standing.Device.ID {
			e.session = &s
			break
		}
	}
	switch {
	case e.session != nil && e.standing.Device.ID != "":
		e.pass(CheckSessions, "it is connected, since %s; its user has %d of %d sessions", when(e.session.StartedAt), len(live), limit)
	case len(live) > 0 && len(live) >= limit:
		newest := live[0] // took the last place
		e.fail(CheckSessions, reason.SessionLimit, &newest.StartedAt,
			"httvpsctl session close "+newest.ID+", or "+e.update(e.standing.User.Limits.MaxSessions != nil, e.usable[0].Plan)+" --max-sessions N", "the user has %d of %d sessions", len(live), limit)
	default:
		e.pass(CheckSessions, "the user has %d of %d sessions", len(live), limit)
	}
	return nil
}

func (e *explainer) lastRefusal(ctx context.Context) error {
	r, err := e.tx.LastRefusal(ctx, e.standing.Device.ID)
	if errors.Is(err, ErrNotFound) {
		e.pass(CheckLastRefusal, "it was never refused")
		return nil
	}
	if err != nil {
		return err
	}
	where := "when it asked for access"
	if r.GatewayID != "" {
		where = "at gateway " + r.GatewayID
		g, err := e.tx.Gateway(ctx, r.GatewayID)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if err == nil {
			where = "at gateway " + quoted(g.Name)
		}
	}
	if seen := e.standing.Device.LastSeenAt; e.session != nil && e.session.StartedAt.After(r.At) || seen != nil && seen.After(r.At) && r.GatewayID == "" {
		e.pass(CheckLastRefusal, "it was last refused %s, %s: %s; it got in since", when(r.At), where, r.Reason)
		return nil
	}
	e.warn(CheckLastRefusal, &r.At, "", "it was last refused %s, %s: %s", when(r.At), where, r.Reason)
	return nil
}

// enrolment is about one more device of a user.
func (e *explainer) enrolment(ctx context.Context, devices []Device) error {
	user := e.standing.User
	limit, err := deviceLimit(ctx, e.tx, user, e.now)
	if err != nil {
		return err
	}
	full := len(devices) >= limit
	if full {
		newest := devices[0].CreatedAt
		for _, d := range devices {
			if d.CreatedAt.After(newest) {
				newest = d.CreatedAt
			}
		}
		e.warn(CheckDevices, &newest, "httvpsctl device revoke DEVICE, httvpsctl user update "+e.about()+" --max-devices N, or replace one while enrolling", "the user has %d of %d devices: another one is refused with device_limit", len(devices), limit)
	} else {
		e.pass(CheckDevices, "the user has %d of %d devices", len(devices), limit)
	}
	if len(devices) > 0 {
		return nil
	}
	invitations, err := e.tx.Invitations(ctx, user.ID, Page{Limit: MaxPageSize})
	if err != nil {
		return err
	}
	next := "httvpsctl user invite " + e.about()
	var ended *time.Time
	for _, i := range invitations {
		switch {
		case i.UsedAt != nil:
		case e.now.Before(i.ExpiresAt):
			e.fail(CheckInvitation, reason.DeviceNotFound, &i.CreatedAt, "have the user open the link: httvps enroll LINK", "no device is enrolled; an invitation is open until %s", when(i.ExpiresAt))
			return nil
		case ended == nil || i.ExpiresAt.After(*ended):
			ended = &i.ExpiresAt
		}
	}
	if ended != nil {
		e.fail(CheckInvitation, reason.DeviceNotFound, ended, next, "no device is enrolled, and the invitation has expired")
		return nil
	}
	e.fail(CheckInvitation, reason.DeviceNotFound, &user.CreatedAt, next, "no device is enrolled, and no invitation is open")
	return nil
}
