package control

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/httvps/httvps/internal/reason"
)

// maxEntitlements bounds how many of a user's subscriptions are looked at;
// the running one that lasts longest is always among them.
const maxEntitlements = 32

// Standing is everything that decides whether a device may run sessions.
type Standing struct {
	Device       Device
	User         User
	Entitlements []Entitlement
}

// Admit returns the entitlement that a session of the device would rest on as far
// as the terms of its plan allow, or the reason why there can be none; the reason
// is empty when it may.
func (s Standing) Admit(now time.Time) (Entitlement, reason.Code) {
	usable, why := s.usable(now)
	if why != "" {
		return Entitlement{}, why
	}
	return usable[0], ""
}

// usable returns the entitlements that a session could rest on, the one that lasts
// longest first, or the reason why there is none. One that awaits its first use is
// only among them when there is no other.
func (s Standing) usable(now time.Time) ([]Entitlement, reason.Code) {
	switch {
	case s.Device.RevokedAt != nil:
		return nil, reason.DeviceRevoked
	case s.User.DisabledAt != nil:
		return nil, reason.UserDisabled
	}
	var running []Entitlement
	for _, e := range s.Entitlements {
		if e.Status(now) == Active {
			running = append(running, e)
		}
	}
	if len(running) > 0 {
		slices.SortStableFunc(running, func(a, b Entitlement) int {
			switch {
			case outlasts(a.EndsAt, b.EndsAt):
				return -1
			case outlasts(b.EndsAt, a.EndsAt):
				return 1
			default:
				return 0
			}
		})
		return running, ""
	}
	for _, e := range s.Entitlements {
		if e.AwaitsUse {
			return []Entitlement{e}, ""
		}
	}
	expired := func(e Entitlement) bool { return e.Status(now) == Expired }
	if slices.ContainsFunc(s.Entitlements, expired) {
		return nil, reason.SubscriptionExpired
	}
	return nil, reason.NoActiveSubscription
}

// allowedRegions returns the codes of those that the entitlements allow together;
// none: all.
func allowedRegions(entitlements []Entitlement) []string {
	var codes []string
	for _, e := range entitlements {
		if len(e.Plan.Regions) == 0 {
			return nil
		}
		codes = append(codes, e.Plan.Regions...)
	}
	slices.Sort(codes)
	return slices.Compact(codes)
}

// outlasts reports whether a subscription that ends at a lasts longer than one
// that ends at b.
func outlasts(a, b *time.Time) bool {
	return b != nil && (a == nil || a.After(*b))
}

// standing reads a device's standing; ErrNotFound means the device.
func standing(ctx context.Context, tx Tx, deviceID string) (Standing, error) {
	var s Standing
	var err error
	if s.Device, err = tx.Device(ctx, deviceID); err != nil {
		return Standing{}, err
	}
	if s.User, err = tx.User(ctx, s.Device.UserID); err != nil {
		return Standing{}, err
	}
	s.Entitlements, err = tx.Entitlements(ctx, s.Device.UserID, maxEntitlements)
	return s, err
}

// Session is one device's tunnel on one gateway.
type Session struct {
	ID              string // 32 hexadecimal digits, chosen by the gateway
	DeviceID        string
	UserID          string
	SubscriptionID  string
	GatewayID       string
	BootID          string // of the gateway process that carries it
	StartedAt       time.Time
	EndedAt         *time.Time // nil: not ended
	EndReason       string
	OutlineServerID string // that it leaves through, or left through when it ended; empty: none
	CloseReason     string // why its gateway has been asked to close it; empty: it has not
	Live            bool   // not ended, and its gateway's lease holds
}

// SessionState selects sessions.
type SessionState string

// The states that sessions can be listed by.
const (
	LiveSessions  SessionState = "live"
	EndedSessions SessionState = "ended"
	AllSessions   SessionState = "all"
)

// SessionFilter selects sessions; empty fields select all.
type SessionFilter struct {
	State     SessionState
	UserID    string
	DeviceID  string
	GatewayID string
}

// SessionEnd says that a session is over and why.
type SessionEnd struct {
	ID     string
	Reason string
}

// Why sessions end when it was not their gateway that said so.
const (
	endedRestart = "gateway_restarted"
	endedLost    = "gateway_lost"
	endedDeleted = "gateway_deleted"
)

// UnwantedSession is a session that its gateway should close, with what there
// is against it.
type UnwantedSession struct {
	ID            string
	Lost          bool   // ended already, because the gateway had not been heard of
	Asked         string // the reason with which its end was asked for; may be empty
	DeviceGone    bool
	DeviceRevoked bool
	UserDisabled  bool
	Expired       bool // a subscription has ended and none runs
}

// reason gives the reason that Standing.Admit would give.
func (u UnwantedSession) reason() reason.Code {
	switch {
	case u.Lost:
		return reason.SessionUnknown
	case u.Asked != "":
		return reason.Code(u.Asked)
	case u.DeviceGone:
		return reason.DeviceNotFound
	case u.DeviceRevoked:
		return reason.DeviceRevoked
	case u.UserDisabled:
		return reason.UserDisabled
	case u.Expired:
		return reason.SubscriptionExpired
	default:
		return reason.NoActiveSubscription
	}
}

// SessionRequest is a gateway's question whether a device may have a session.
type SessionRequest struct {
	SessionID     string
	DeviceID      string
	KeyThumbprint string
	Generation    int64
	BootID        string
}

// Decision is the answer to a SessionRequest. Reason is empty when the session
// may run, and only then user, entitlement and grant are set.
type Decision struct {
	Reason      reason.Code
	UserID      string
	Entitlement Entitlement
	Grant       Grant // what of the quota the gateway may use
	// Warnings are of quotas of which a percentage was reached just now, also when
	// there is a reason against the session.
	Warnings []Grant
}

// Decide says whether a device may have a session on a gateway, and if so begins
// it. Asked again about the same session it answers the same. The question is
// also a sign of life of the gateway. While there is no room to write, sessions that
// had begun are decided on, and so are refusals; others cannot begin, and nothing is
// given out of quotas.
func (a *Authority) Decide(ctx context.Context, gateway Gateway, r SessionRequest) (Decision, error) {
	var decision Decision
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		now := a.now()
		err := a.renew(ctx, tx, gateway, Lease{BootID: r.BootID}, now)
		if err == nil {
			decision, err = a.decide(ctx, tx, gateway, r, now, nil)
		}
		if err != nil || decision.Reason == "" || decision.Reason == reason.DeviceNotFound {
			return err
		}
		return a.noteRefusal(ctx, tx, r.DeviceID, gateway.ID, decision.Reason)
	})
	if !errors.Is(err, ErrStorageFull) {
		return decision, err
	}
	readErr := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var readErr error
		decision, readErr = a.decide(ctx, tx, gateway, r, a.now(), err)
		return readErr
	})
	return decision, readErr
}

// decide decides on a session. What cannot be decided without writing gives full,
// unless that is nil.
func (a *Authority) decide(ctx context.Context, tx Tx, gateway Gateway, r SessionRequest, now time.Time, full error) (Decision, error) {
	s, err := standing(ctx, tx, r.DeviceID)
	if errors.Is(err, ErrNotFound) {
		return Decision{Reason: reason.DeviceNotFound}, nil
	}
	if err != nil {
		return Decision{}, err
	}
	if s.Device.Thumbprint() != r.KeyThumbprint || s.Device.Generation != r.Generation {
		return Decision{Reason: reason.DeviceMismatch}, nil
	}
	usable, why := s.usable(now)
	if why != "" {
		return Decision{Reason: why}, nil
	}
	return a.admit(ctx, tx, gateway, r, usable, now, full)
}

// admit looks for the first entitlement whose terms allow the session, and begins
// the session on it. A session that has begun rests on the subscription that it
// began with as long as that allows it.
func (a *Authority) admit(ctx context.Context, tx Tx, gateway Gateway, r SessionRequest, usable []Entitlement, now time.Time, full error) (Decision, error) {
	user, err := tx.LockUser(ctx, usable[0].UserID)
	if err != nil {
		return Decision{}, err
	}
	earlier, err := tx.Session(ctx, r.SessionID)
	begun := err == nil
	switch {
	case begun && earlier.EndedAt == nil && earlier.CloseReason != "":
		return Decision{Reason: reason.Code(earlier.CloseReason)}, nil
	case begun && (earlier.EndedAt != nil || earlier.GatewayID != gateway.ID || earlier.DeviceID != r.DeviceID):
		return Decision{Reason: reason.SessionUnknown}, nil
	case !begun && !errors.Is(err, ErrNotFound):
		return Decision{}, err
	}
	if own := slices.IndexFunc(usable, func(e Entitlement) bool { return begun && e.ID == earlier.SubscriptionID }); own > 0 {
		usable = slices.Concat(usable[own:own+1], usable[:own], usable[own+1:])
	}
	var (
		refused reason.Code // by the first
		reached []Grant
	)
	for _, e := range usable {
		first := e.AwaitsUse
		if first && full != nil {
			return Decision{}, full
		}
		if first {
			e = e.begun(now)
		}
		why := terms(e.Plan, gateway)
		var q *quota
		if why == "" && e.Plan.QuotaBytes != nil {
			var err error
			if q, err = a.openQuota(ctx, tx, e, gateway.ID, r.BootID, now, full == nil); err != nil {
				return Decision{}, err
			}
			if q.reach > 0 {
				reached = append(reached, Grant{SubscriptionID: e.ID, Quota: q.limit, Used: q.use.Used, Warning: q.reach})
			}
			switch {
			case q.exhausted() && e.Plan.QuotaAction == QuotaBlock:
				why = reason.QuotaExceeded
			case begun && e.ID != earlier.SubscriptionID:
				// Its traffic is booked where it began: it has to begin anew.
				return Decision{Reason: reason.SessionUnknown, Warnings: reached}, nil
			}
		}
		if why != "" {
			refused = cmp.Or(refused, why)
			continue
		}
		if !begun && full != nil {
			return Decision{}, full
		}
		if !begun {
			if why, err := a.begin(ctx, tx, gateway, r, e, now); err != nil || why != "" {
				return Decision{Reason: why, Warnings: reached}, err
			}
		}
		if first {
			if _, err := tx.BeginSubscription(ctx, e.Subscription); err != nil {
				return Decision{}, err
			}
		}
		decision := Decision{UserID: user.ID, Entitlement: e, Grant: Grant{SubscriptionID: e.ID, State: QuotaUnlimited}, Warnings: reached}
		if q == nil {
			return decision, nil
		}
		decision.Grant, err = q.grant(ctx, LeaseRequest{})
		return decision, err
	}
	return Decision{Reason: refused, Warnings: reached}, nil
}

// terms says why a plan does not allow sessions on a gateway, if it does not.
func terms(plan Plan, gateway Gateway) reason.Code {
	if len(plan.Regions) > 0 && !slices.Contains(plan.Regions, gateway.Region) {
		return reason.RegionUnavailable
	}
	return ""
}

// begin makes the row of an admitted session.
func (a *Authority) begin(ctx context.Context, tx Tx, gateway Gateway, r SessionRequest, e Entitlement, now time.Time) (reason.Code, error) {
	session := Session{
		ID: r.SessionID, DeviceID: r.DeviceID, UserID: e.UserID, SubscriptionID: e.ID,
		GatewayID: gateway.ID, BootID: r.BootID, StartedAt: now,
	}
	began, err := tx.StartSession(ctx, session, now, e.Plan.MaxSessions)
	if err != nil {
		return "", err
	}
	if !began {
		return reason.SessionLimit, nil
	}
	return "", nil
}

// Session returns a session.
func (a *Authority) Session(ctx context.Context, id string) (Session, error) {
	var session Session
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		if session, err = tx.Session(ctx, id); err != nil {
			return err
		}
		if session.EndedAt != nil {
			return nil
		}
		gateway, err := tx.Gateway(ctx, session.GatewayID)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		session.Live = gateway.Online(a.now())
		return err
	})
	return session, err
}

// Sessions lists sessions, newest first.
func (a *Authority) Sessions(ctx context.Context, filter SessionFilter, page Page) ([]Session, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]Session, error) {
		return tx.Sessions(ctx, filter, a.now(), page)
	})
}
