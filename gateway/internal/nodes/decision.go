package nodes

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/httvps/httvps/internal/egress"
	"github.com/httvps/httvps/internal/reason"
)

const decisionTimeout = 2 * time.Second // docs/03, part 5

// ErrUndecided says that the control plane gave no decision in time.
var ErrUndecided = errors.New("no decision of the control plane")

// errNotAsked says that a question was not asked.
var errNotAsked = errors.New("not asked")

// Question asks whether a device may have a session.
type Question struct {
	Session    [16]byte
	Device     [16]byte
	Thumbprint string
	Generation int64
	Expired    time.Duration // for how long its token has been over; only [Node.StandIn] may forgive it
}

func (q Question) about() subject {
	return subject{device: q.Device, thumbprint: q.Thumbprint, generation: q.Generation}
}

// Decision is the control plane's answer to a [Question].
type Decision struct {
	Allowed      bool
	Reason       reason.Code  // why not
	MaxSessions  int          // of the user, by the plan; 0: no word
	MaxStreams   int          // of the plan; 0: no word
	MaxUDP       int          // of the plan, also 0; -1: no word
	SpeedUp      int64        // of the plan, in bits per second from the device; 0: no limit
	SpeedDown    int64        // likewise, to the device
	User, Plan   string       // their ids
	Subscription string       // that carries the session
	Quota        *Grant       // what may be used of its quota; nil: it has none
	Egress       egress.Rules // of the plan: what it denies besides the gateway
	ExpiresAt    time.Time    // end of the subscription; zero: none
	Own          bool         // the gateway's, see [Node.StandIn]
}

// Validate asks for the decision about a device that has proven who it is; one
// question about a device is asked at a time. An allowed session exists at the control
// plane from then on: its end must be told by [Node.Ended]. While the control plane is
// away the gateway decides, see [Node.StandIn]. The error is [ErrUndecided], or
// [ErrBusy], which is one too; the session's end is then told by Validate, because the
// answer may be what was lost. A refusal that is about the device holds for a few
// seconds without being asked for again.
func (n *Node) Validate(ctx context.Context, q Question) (Decision, error) {
	decision, err := n.ask(ctx, q)
	if err == nil {
		return decision, nil
	}
	if decision, standErr := n.StandIn(ctx, q); standErr == nil {
		return decision, nil
	}
	if !errors.Is(err, errNotAsked) {
		n.ended.addUndecided(ended{SessionID: hex.EncodeToString(q.Session[:]), Reason: string(reason.RetryLater)})
	}
	return Decision{}, err
}

// ask asks a question when it is the device's turn.
func (n *Node) ask(ctx context.Context, q Question) (Decision, error) {
	waiting, stop, err := n.places.enter(ctx)
	if err != nil {
		return Decision{}, err
	}
	stop = sync.OnceFunc(stop)
	defer stop()
	end, err := n.turns.take(waiting, q.Device)
	switch {
	case waiting.Err() != nil && err != nil:
		return Decision{}, busy(waiting)
	case err != nil:
		return Decision{}, fmt.Errorf("%w: %w: %w", ErrUndecided, errNotAsked, err)
	}
	if why, refused := n.refused.find(q.about()); refused {
		end(nil)
		return Decision{Reason: why}, nil
	}
	leave, err := n.places.take(waiting)
	if err != nil {
		end(nil) // the next may have more time left
		return Decision{}, err
	}
	stop()
	decision, err := n.decide(ctx, q)
	leave()
	if ctx.Err() != nil {
		end(nil) // that this device has gone says nothing to the next
	} else {
		end(err)
	}
	return decision, err
}

// Renew asks the question of a session that lives once more. The error is
// [ErrUndecided]. However it goes, the session's end is told by [Node.Ended].
func (n *Node) Renew(ctx context.Context, q Question) (Decision, error) {
	if !n.Told(q.Session) {
		return Decision{}, fmt.Errorf("%w: it does not know of the session yet", ErrUndecided)
	}
	waiting, stop, err := n.places.enter(ctx)
	if err != nil {
		return Decision{}, err
	}
	leave, err := n.places.take(waiting)
	stop()
	if err != nil {
		return Decision{}, err
	}
	defer leave()
	return n.decide(ctx, q)
}

// decide asks a question that has its place, unless the control plane counts as away,
// and remembers the answer.
func (n *Node) decide(ctx context.Context, q Question) (Decision, error) {
	if !n.breaker.ask() {
		return Decision{}, fmt.Errorf("%w: %w: it is away", ErrUndecided, errNotAsked)
	}
	ctx, cancel := context.WithTimeout(ctx, decisionTimeout)
	defer cancel()
	body, err := n.validate(ctx, q)
	var decision Decision
	if err == nil {
		decision, err = body.decision()
	}
	n.cfg.Observe("validate", err)
	if errors.Is(ctx.Err(), context.Canceled) {
		n.breaker.dropped()
	} else {
		n.breaker.asked(answers(err))
	}
	if err != nil {
		n.cfg.Log.WarnContext(ctx, "device not decided", "error", err)
		return Decision{}, fmt.Errorf("%w: %w", ErrUndecided, err)
	}
	n.memory.answered()
	if decision.Allowed {
		n.memory.saw(q, decision)
	} else {
		n.noteRefusal(q, decision.Reason)
	}
	return decision, nil
}

// noteRefusal remembers a refusal that is about a device with its key.
func (n *Node) noteRefusal(q Question, why reason.Code) {
	if !lasting(why) {
		return
	}
	n.refused.remember(q.about(), why)
	if _, same := n.memory.find(q); same {
		n.memory.forgetDevice(q.Device)
	}
}

// decisionBody is a decision as the API has it.
type decisionBody struct {
	Allowed        bool         `json:"allowed"`
	Reason         reason.Code  `json:"reason"`
	UserID         string       `json:"user_id"`
	SubscriptionID string       `json:"subscription_id"`
	PlanID         string       `json:"plan_id"`
	Quota          *grant       `json:"quota"`
	Egress         egress.Rules `json:"egress"`
	Limits         struct {
		MaxSessions int   `json:"max_sessions"`
		MaxStreams  int   `json:"max_streams"`
		MaxUDP      *int  `json:"max_udp"`
		SpeedUp     int64 `json:"speed_up_bps"`
		SpeedDown   int64 `json:"speed_down_bps"`
	} `json:"limits"`
	ExpiresAt *time.Time `json:"expires_at"`
}

func (n *Node) validate(ctx context.Context, q Question) (decisionBody, error) {
	var body decisionBody
	err := n.control.call(ctx, http.MethodPost, "/api/v1/auth/validate-device", map[string]any{
		"session_id":     hex.EncodeToString(q.Session[:]),
		"device_id":      uuid.UUID(q.Device).String(),
		"key_thumbprint": q.Thumbprint,
		"generation":     q.Generation,
		"boot_id":        n.boot,
	}, &body)
	return body, err
}

func (b decisionBody) decision() (Decision, error) {
	if !b.Allowed && b.Reason == "" {
		return Decision{}, errors.New("a refusal without its reason")
	}
	if b.Quota != nil && uuid.Validate(b.Quota.SubscriptionID) != nil {
		return Decision{}, errors.New("a quota of a subscription that is none")
	}
	if err := b.Egress.Check(); err != nil { // what cannot be understood cannot be denied
		return Decision{}, fmt.Errorf("egress: %w", err)
	}
	decision := Decision{
		Egress:  b.Egress,
		Allowed: b.Allowed, Reason: b.Reason,
		MaxSessions:  b.Limits.MaxSessions,
		MaxStreams:   b.Limits.MaxStreams,
		User:         b.UserID,
		Plan:         b.PlanID,
		Subscription: b.SubscriptionID,
		SpeedUp:      max(b.Limits.SpeedUp, 0),
		SpeedDown:    max(b.Limits.SpeedDown, 0),
	}
	switch flows := b.Limits.MaxUDP; {
	case flows != nil:
		decision.MaxUDP = max(*flows, 0)
	case b.Allowed:
		decision.MaxUDP = -1
	}
	if b.Quota != nil {
		granted := b.Quota.grant()
		decision.Quota, decision.Subscription = &granted, granted.Subscription
	}
	if b.ExpiresAt != nil {
		decision.ExpiresAt = *b.ExpiresAt
	}
	return decision, nil
}
