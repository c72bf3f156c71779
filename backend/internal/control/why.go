package control

import (
	"context"
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

// when shows a moment in UTC.
func when(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }
