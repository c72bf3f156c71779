package control

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/httvps/httvps/internal/reason"
)

// CheckName names something that a device's sessions depend on.
type CheckName string

// What is looked at, in the order in which the service does.
const (
	CheckCredential   CheckName = "credential"
	CheckUser         CheckName = "user"
	CheckSubscription CheckName = "subscription"
	CheckQuota        CheckName = "quota"
	CheckDevices      CheckName = "devices"
	CheckInvitation   CheckName = "invitation"
	CheckRegion       CheckName = "region"
	CheckGateway      CheckName = "gateway"
	CheckClock        CheckName = "clock"
	CheckSessions     CheckName = "sessions"
	CheckEgress       CheckName = "egress"
	CheckLastRefusal  CheckName = "last_refusal"
)

// CheckState says how a check went.
type CheckState string

// The states of a check.
const (
	CheckPassed CheckState = "passed"
	CheckWarned CheckState = "warned" // it does not stand in the way, and may be what somebody complains of
	CheckFailed CheckState = "failed"
)

// Check is what one of the things is like that a device's sessions depend on.
type Check struct {
	Name   CheckName
	State  CheckState
	Reason reason.Code // of CheckFailed: what the device is told
	Detail string
	Since  *time.Time // when it became so; nil: it is not known
	Next   string     // what to do, empty where there is nothing
}

// Why says whether a device may connect, and what there is against it.
type Why struct {
	User    User
	Device  *Device // nil: it is about the user
	Checks  []Check
	Limits  []HeldLimit // of the user, as they hold with the plan that a session would rest on
	Session *Session    // the newest that lives; nil: none does
	Devices []Why       // of a user: those in use, the newest ones
}

// Cause returns the first check that failed: what a device is refused for.
func (w Why) Cause() (Check, bool) {
	i := slices.IndexFunc(w.Checks, func(c Check) bool { return c.State == CheckFailed })
	if i < 0 {
		return Check{}, false
	}
	return w.Checks[i], true
}

// Refusal is the last time that a device was refused.
type Refusal struct {
	DeviceID  string
	Reason    reason.Code
	GatewayID string // that asked about it; empty: it asked for a token
	At        time.Time
}

const (
	// refusalPause is how long the same refusal is not noted again.
	refusalPause = time.Minute
	// maxWhyDevices bounds the devices that are looked at for a user.
	maxWhyDevices = 20
	// maxWhyGateways bounds the gateways that are looked at.
	maxWhyGateways = 500
	// maxClockOffset is how far a gateway's clock may be off without a word.
	maxClockOffset = time.Minute
)

type refusalRows interface {
	// NoteRefusal keeps a device's last refusal, unless the same was noted since a time.
	NoteRefusal(ctx context.Context, r Refusal, since time.Time) error
	LastRefusal(ctx context.Context, deviceID string) (Refusal, error)
}

// noteRefusal keeps that a device was refused, for those who ask why.
func (a *Authority) noteRefusal(ctx context.Context, tx Tx, deviceID, gatewayID string, why reason.Code) error {
	now := a.now()
	return tx.NoteRefusal(ctx, Refusal{DeviceID: deviceID, Reason: why, GatewayID: gatewayID, At: now}, now.Add(-refusalPause))
}

// rememberRefusal is noteRefusal after a unit of work that left nothing. The refusal is
// the answer, whatever becomes of the note.
func (a *Authority) rememberRefusal(ctx context.Context, deviceID, gatewayID string, why reason.Code) {
	_ = a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		return a.noteRefusal(ctx, tx, deviceID, gatewayID, why)
	})
}

// WhyDevice looks at everything that a session of a device depends on, as the service
// does when it connects.
func (a *Authority) WhyDevice(ctx context.Context, id string) (Why, error) {
	var why Why
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		s, err := standing(ctx, tx, id)
		if err != nil {
			return err
		}
		why, err = a.whyDevice(ctx, tx, s)
		return err
	})
	return why, err
}

// WhyUser does that for a user and his devices, and says whether another device could
// be enrolled.
func (a *Authority) WhyUser(ctx context.Context, id string) (Why, error) {
	var why Why
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		user, err := tx.User(ctx, id)
		if err != nil {
			return err
		}
		entitlements, err := tx.Entitlements(ctx, id, maxEntitlements)
		if err != nil {
			return err
		}
		devices, err := tx.DevicesInUse(ctx, id, maxReplaceable)
		if err != nil {
			return err
		}
		e := explainer{authority: a, tx: tx, now: a.now(), standing: Standing{User: user, Entitlements: entitlements}}
		if err := e.run(ctx, e.user, e.subscription, e.quota, e.region, e.gateways, e.sessions, e.egress); err != nil {
			return err
		}
		if err := e.enrolment(ctx, devices); err != nil {
			return err
		}
		why = Why{User: user, Checks: e.checks, Limits: e.limits(), Session: e.session}
		slices.Reverse(devices)
		for _, d := range devices[:min(len(devices), maxWhyDevices)] {
			own, err := a.whyDevice(ctx, tx, Standing{Device: d, User: user, Entitlements: entitlements})
			if err != nil {
				return err
			}
			why.Devices = append(why.Devices, own)
		}
		return nil
	})
	return why, err
}

func (a *Authority) whyDevice(ctx context.Context, tx Tx, s Standing) (Why, error) {
	e := explainer{authority: a, tx: tx, now: a.now(), standing: s}
	err := e.run(ctx, e.credential, e.user, e.subscription, e.quota, e.region, e.gateways, e.sessions, e.egress, e.lastRefusal)
	return Why{User: s.User, Device: &s.Device, Checks: e.checks, Limits: e.limits(), Session: e.session}, err
}

// explainer goes through what decides about a device's sessions. It follows
// Authority.decide and what comes after it, and goes on where those end.
type explainer struct {
	authority *Authority
	tx        Tx
	now       time.Time
	standing  Standing // without a device when it is about the user

	usable  []Entitlement // that the quota leaves
	regions []string      // codes that they allow; none: all
	live    []Gateway     // in those
	session *Session
	checks  []Check
}

func (e *explainer) run(ctx context.Context, checks ...func(context.Context) error) error {
	for _, check := range checks {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (e *explainer) pass(name CheckName, detail string, args ...any) {
	e.checks = append(e.checks, Check{Name: name, State: CheckPassed, Detail: fmt.Sprintf(detail, args...)})
}

func (e *explainer) warn(name CheckName, since *time.Time, next, detail string, args ...any) {
	e.checks = append(e.checks, Check{Name: name, State: CheckWarned, Since: since, Next: next, Detail: fmt.Sprintf(detail, args...)})
}

func (e *explainer) fail(name CheckName, why reason.Code, since *time.Time, next, detail string, args ...any) {
	e.checks = append(e.checks, Check{Name: name, State: CheckFailed, Reason: why, Since: since, Next: next, Detail: fmt.Sprintf(detail, args...)})
}

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

// update is the command that changes a limit where it is from.
func (e *explainer) update(own bool, plan Plan) string {
	if own {
		return "httvpsctl user update " + e.about()
	}
	return "httvpsctl plan update " + quoted(plan.Name)
}

// about is the user as commands name him.
func (e *explainer) about() string { return quoted(e.standing.User.Name) }

// plainName is one that no shell takes for something else.
var plainName = regexp.MustCompile(`^[A-Za-z0-9_.@][A-Za-z0-9_.@-]*$`)

// quoted is a name as a shell takes it.
func quoted(name string) string {
	if plainName.MatchString(name) {
		return name
	}
	return "'" + strings.ReplaceAll(name, "'", `'\''`) + "'"
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

func (e *explainer) region(ctx context.Context) error {
	regions, err := e.tx.Regions(ctx, "", Page{Limit: MaxPageSize})
	if err != nil {
		return err
	}
	known := make(map[string]bool, len(regions))
	for _, r := range regions {
		known[r.Code] = true
	}
	if len(e.usable) > 0 {
		e.regions = allowedRegions(e.usable)
	}
	there := slices.DeleteFunc(slices.Clone(e.regions), func(code string) bool { return !known[code] })
	switch {
	case len(regions) == 0:
		e.fail(CheckRegion, reason.RegionUnavailable, nil, "httvpsctl region create --code CODE, and then a gateway in it", "there is no region")
	case len(e.regions) == 0:
		e.pass(CheckRegion, "all regions are allowed")
	case len(there) == 0:
		e.fail(CheckRegion, reason.RegionUnavailable, nil, "httvpsctl region create --code "+e.regions[0]+", or other regions for the "+e.regionsOf(), "none of the "+e.regionsOf()+"'s regions is there: %s", strings.Join(e.regions, ", "))
	default:
		e.pass(CheckRegion, "allowed: %s", strings.Join(there, ", "))
	}
	return nil
}

// regionsOf says whose regions hold.
func (e *explainer) regionsOf() string {
	if e.standing.User.Limits.Regions != nil {
		return "user"
	}
	return "plan"
}

// gateways is about those that the device would be told of, and their clocks.
func (e *explainer) gateways(ctx context.Context) error {
	all, err := e.tx.Gateways(ctx, "", Page{Limit: maxWhyGateways})
	if err != nil {
		return err
	}
	var there []Gateway
	for _, g := range all {
		if g.JoinedAt != nil && (len(e.regions) == 0 || slices.Contains(e.regions, g.Region)) {
			there = append(there, g)
		}
	}
	online := slices.DeleteFunc(slices.Clone(there), func(g Gateway) bool { return !g.Online(e.now) })
	e.live = slices.DeleteFunc(slices.Clone(online), Gateway.Draining)
	where := "there"
	if len(e.regions) > 0 {
		where = "in " + strings.Join(e.regions, ", ")
	}
	switch {
	case len(there) == 0:
		e.fail(CheckGateway, reason.RetryLater, nil, "httvpsctl gateway create --name NAME --region REGION, and join it", "no gateway has joined %s", where)
	case len(e.live) == 0 && len(online) > 0:
		drained := online[0]
		e.fail(CheckGateway, reason.RetryLater, drained.DrainedAt, "httvpsctl gateway undrain "+drained.ID+", or another gateway",
			"devices are to leave all %d gateways that are online %s", len(online), where)
	case len(e.live) == 0:
		last := slices.MaxFunc(there, func(x, y Gateway) int { return x.leaseEnd().Compare(y.leaseEnd()) })
		since := last.leaseEnd()
		e.fail(CheckGateway, reason.RetryLater, &since, "look at the machine and the log of gateway "+quoted(last.Name)+": journalctl -u httvps-gateway",
			"none of the %d gateways %s is heard of; the last was %s", len(there), where, quoted(last.Name))
	default:
		e.pass(CheckGateway, "%d of %d are online", len(e.live), len(there))
		e.clocks()
	}
	return nil
}

// leaseEnd is when a gateway's lease ended or ends; zero: it never had one.
func (g Gateway) leaseEnd() time.Time {
	if g.LeaseUntil == nil {
		return time.Time{}
	}
	return *g.LeaseUntil
}

// clocks looks for gateways that would take good tokens for expired.
func (e *explainer) clocks() {
	var off, dead []Gateway
	for _, g := range e.live {
		if g.ClockOffset.Abs() > maxClockOffset {
			off = append(off, g)
		}
		if g.ClockOffset > AccessTokenTTL/2 { // devices renew theirs at half of it
			dead = append(dead, g)
		}
	}
	if len(off) == 0 {
		e.pass(CheckClock, "the gateways' clocks are right")
		return
	}
	const next = "set its clock and keep it right: timedatectl set-ntp true"
	worst := slices.MaxFunc(off, func(x, y Gateway) int { return cmp.Compare(x.ClockOffset.Abs(), y.ClockOffset.Abs()) })
	if len(dead) == len(e.live) {
		e.fail(CheckClock, reason.TokenExpired, nil, next, "the clock of gateway %s is %s ahead: it takes good tokens for expired", quoted(worst.Name), worst.ClockOffset)
		return
	}
	e.warn(CheckClock, nil, next, "the clock of gateway %s is off by %s", quoted(worst.Name), worst.ClockOffset)
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

// egress is about the Outline servers of the regions of the gateways. Where there are
// none, gateways reach targets themselves or have keys of their own.
func (e *explainer) egress(ctx context.Context) error {
	if len(e.live) == 0 {
		return nil
	}
	servers, err := e.tx.OutlineServers(ctx, OutlineFilter{}, Page{Limit: MaxPageSize})
	if err != nil {
		return err
	}
	pooled := make(map[string]bool)
	for _, s := range servers {
		pooled[s.Region] = true
	}
	var since *time.Time // of the last that went down
	for _, g := range e.live {
		choices, err := e.tx.OutlineChoices(ctx, g.Region, maxOutlineChoices)
		if err != nil {
			return err
		}
		if len(choices) == 0 && !pooled[g.Region] {
			e.pass(CheckEgress, "there are no Outline servers for region %s: its gateways find their own way", g.Region)
			return nil
		}
		for _, s := range choices {
			if s.Weight == 0 || !s.usable(e.now) {
				if s.Health.Since != nil && (since == nil || s.Health.Since.After(*since)) {
					since = s.Health.Since
				}
				continue
			}
			n, err := e.tx.CountOutlineSessions(ctx, s.ID)
			if err != nil {
				return err
			}
			if n < s.Capacity {
				e.pass(CheckEgress, "sessions can leave through Outline server %s", quoted(s.Name))
				return nil
			}
		}
	}
	e.fail(CheckEgress, reason.NoOutlineNodesAvailable, since, "httvpsctl outline list shows which are down, disabled or full; httvpsctl outline create adds one",
		"none of the Outline servers for these gateways can be used")
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

// when shows a moment in UTC.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
