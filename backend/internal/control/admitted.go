package control

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/httvps/httvps/internal/reason"
)

// MaxAdmitted is how many sessions a gateway may tell of at once that it let in itself.
const MaxAdmitted = 100

// AdmittedSession is one that a gateway let in by itself, because it got no answer
// when it asked.
type AdmittedSession struct {
	SessionRequest
	SubscriptionID string // that the last decision about the device named
	BegunAt        time.Time
	EndedAt        *time.Time // nil: it goes on
	EndReason      string
}

// TakeAdmitted records sessions that a gateway let in by itself, and decides whether
// those may go on that do. Also one that may not is recorded, as ended, so that what it
// has moved is its user's; only the device has to exist. BootID is that of the gateway's
// process. Who is told again decides again.
func (a *Authority) TakeAdmitted(ctx context.Context, gateway Gateway, bootID string, list []AdmittedSession) ([]Decision, error) {
	if len(list) > MaxAdmitted {
		return nil, &InvalidError{Fields: []FieldError{{Field: "sessions", Detail: fmt.Sprintf("want at most %d", MaxAdmitted)}}}
	}
	decisions := make([]Decision, len(list))
	for i, session := range list {
		err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
			var err error
			decisions[i], err = a.takeAdmitted(ctx, tx, gateway, bootID, session)
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return decisions, nil
}

func (a *Authority) takeAdmitted(ctx context.Context, tx Tx, gateway Gateway, bootID string, r AdmittedSession) (Decision, error) {
	now := a.now()
	device, err := tx.Device(ctx, r.DeviceID)
	if errors.Is(err, ErrNotFound) {
		return Decision{Reason: reason.DeviceNotFound}, nil
	}
	if err != nil {
		return Decision{}, err
	}
	user, err := tx.LockUser(ctx, device.UserID)
	if err != nil {
		return Decision{}, err
	}
	lives := r.EndedAt == nil && r.BootID == bootID
	switch _, err := tx.Session(ctx, r.SessionID); {
	case err == nil && !lives: // it was told before, or had begun after all
		return Decision{Reason: reason.SessionUnknown}, a.endAdmitted(ctx, tx, gateway, r, now)
	case err == nil:
		return a.decide(ctx, tx, gateway, r.SessionRequest, now, nil)
	case !errors.Is(err, ErrNotFound):
		return Decision{}, err
	}
	e, err := tx.Entitlement(ctx, r.SubscriptionID)
	if errors.Is(err, ErrNotFound) || err == nil && e.UserID != user.ID {
		e, err = Entitlement{}, nil // there is nothing to book on
	}
	if err != nil {
		return Decision{}, err
	}
	session := Session{
		ID: r.SessionID, DeviceID: device.ID, UserID: user.ID, SubscriptionID: e.ID,
		GatewayID: gateway.ID, BootID: r.BootID, StartedAt: between(r.BegunAt, now.Add(-keepSessions), now),
	}
	limit := e.Plan.MaxSessions
	if !lives {
		limit = math.MaxInt32
	}
	began, err := tx.StartSession(ctx, session, now, limit)
	if err != nil {
		return Decision{}, err
	}
	if !began {
		if _, err := tx.StartSession(ctx, session, now, math.MaxInt32); err != nil {
			return Decision{}, err
		}
	}
	decision := Decision{Reason: reason.SessionUnknown}
	switch {
	case !lives:
		return decision, a.endAdmitted(ctx, tx, gateway, r, now)
	case !began && e.ID != "":
		decision.Reason = reason.SessionLimit
	case began:
		if decision, err = a.decide(ctx, tx, gateway, r.SessionRequest, now, nil); err != nil || decision.Reason == "" {
			return decision, err
		}
	}
	return decision, tx.EndSessions(ctx, gateway.ID, []SessionEnd{{ID: r.SessionID, Reason: string(decision.Reason)}}, now)
}

// endAdmitted records the end of a session that is over.
func (a *Authority) endAdmitted(ctx context.Context, tx Tx, gateway Gateway, r AdmittedSession, now time.Time) error {
	at, why := now, endedRestart
	if r.EndedAt != nil {
		at, why = between(*r.EndedAt, now.Add(-keepSessions), now), r.EndReason
	}
	return tx.EndSessions(ctx, gateway.ID, []SessionEnd{{ID: r.SessionID, Reason: why}}, at)
}

// between returns t, or the end of the period that it is beyond.
func between(t, first, last time.Time) time.Time {
	switch {
	case t.Before(first):
		return first
	case t.After(last):
		return last
	default:
		return t
	}
}
