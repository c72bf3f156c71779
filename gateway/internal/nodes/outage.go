package nodes

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"time"
)

// The results of the gateway's own decisions.
const (
	StoodIn       = "admitted"
	StrangerHere  = "unknown_device" // not seen here within a day, or revoked
	GraceOver     = "grace_over"     // the control plane has been away for too long
	TokenTooOld   = "token_expired"
	RightOver     = "subscription_expired" // as far as is known
	TooMany       = "session_limit"        // of the user, here
	UntoldFull    = "untold_limit"
	UntoldNotKept = "not_kept" // the session could not be noted on disk
)

// StandIn decides about a device for a control plane that is away: it gets in on what
// was decided last, if that was lately and it is known with this key. The error is
// [ErrUndecided] also while the control plane is there. The control plane is told of
// the session later, and may end it then.
func (n *Node) StandIn(ctx context.Context, q Question) (Decision, error) {
	if !n.breaker.isAway() || n.cfg.Grace == 0 {
		return Decision{}, ErrUndecided
	}
	decision, result := n.standIn(ctx, q)
	n.cfg.StoodIn(result)
	if result != StoodIn {
		return Decision{}, fmt.Errorf("%w: it is away, and the gateway says %s", ErrUndecided, result)
	}
	decision.Own = true
	if q := decision.Quota; q != nil && q.State != throttled {
		// What this process holds of the quota it knows better. If that is nothing, it is
		// nothing.
		decision.Quota = &Grant{Subscription: q.Subscription, State: exhausted}
	}
	return decision, nil
}

// The states of a grant that the gateway has to tell apart while nobody grants
// anything.
const exhausted, throttled = "exhausted", "throttled"

func (n *Node) standIn(ctx context.Context, q Question) (Decision, string) {
	now := time.Now()
	last, known := n.memory.find(q)
	switch {
	case !n.withinGrace():
		return Decision{}, GraceOver
	case !known:
		return Decision{}, StrangerHere
	case q.Expired > n.cfg.Grace:
		return Decision{}, TokenTooOld
	case !last.ExpiresAt.IsZero() && !now.Before(last.ExpiresAt):
		return Decision{}, RightOver
	case last.MaxSessions > 0 && n.cfg.Sessions(last.User) >= last.MaxSessions:
		return Decision{}, TooMany
	}
	err := n.admitted.add(admission{
		Session: hex.EncodeToString(q.Session[:]), Boot: n.boot.String(), Device: q.Device, Thumbprint: q.Thumbprint, Generation: q.Generation,
		Subscription: last.Subscription, Begun: now.UTC(),
	})
	switch {
	case err == nil:
		return last, StoodIn
	case errors.Is(err, errNoRoom):
		return Decision{}, UntoldFull
	default:
		n.cfg.Log.ErrorContext(ctx, "a session without the control plane is not noted", "error", err)
		return Decision{}, UntoldNotKept
	}
}

// withinGrace reports whether the control plane has answered lately enough. A time
// that is still to come is no answer: the clock is not right.
func (n *Node) withinGrace() bool {
	heard := n.memory.lastHeard()
	away := time.Since(heard)
	return !heard.IsZero() && away >= 0 && away <= n.cfg.Grace
}

// Breaker is how the gateway treats the control plane.
func (n *Node) Breaker() BreakerState { return n.breaker.state() }

// StandsIn reports whether the gateway lets devices in by itself.
func (n *Node) StandsIn() bool { return n.cfg.Grace > 0 && n.breaker.isAway() && n.withinGrace() }

// LastAway is when the control plane was away last: now, if it is; the zero Time, if it
// never was.
func (n *Node) LastAway() time.Time {
	if n.breaker.isAway() {
		return time.Now()
	}
	if back := n.back.Load(); back != 0 {
		return time.Unix(0, back)
	}
	return time.Time{}
}

// changed is told when the control plane begins to count as away, and when it is back.
func (n *Node) changed(away bool) {
	if away {
		n.awaySince = time.Now()
		n.cfg.Log.Warn("control plane away: no device is let in but those that are known", "grace", n.cfg.Grace.String(), "last_answer", n.memory.lastHeard().UTC())
		n.memory.hurry()
		return
	}
	n.back.Store(time.Now().UnixNano())
	n.cfg.Log.Info("control plane back", "away", time.Since(n.awaySince).Round(time.Millisecond).String(), "sessions_untold", n.admitted.len())
	n.admitted.signal()
}
