package control

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/httvps/httvps/internal/reason"
)

// EventKind says what happened. The texts are part of the API.
type EventKind string

// What gateways are told about.
const (
	EventDeviceRevoked       EventKind = "device.revoked"
	EventUserDisabled        EventKind = "user.disabled"
	EventUserEnabled         EventKind = "user.enabled"
	EventUserRemoved         EventKind = "user.removed"
	EventSubscriptionChanged EventKind = "subscription.changed"
	EventSubscriptionEnded   EventKind = "subscription.ended" // gives no right any more at this moment
	EventPlanChanged         EventKind = "plan.changed"
	EventSessionClose        EventKind = "session.close"
	EventGatewayRemoved      EventKind = "gateway.removed"
	EventGatewayChanged      EventKind = "gateway.changed"
	EventKeysChanged         EventKind = "keys.changed"
	EventOutlineChanged      EventKind = "outline.changed"
)

// EventKinds returns all kinds.
func EventKinds() []EventKind {
	return []EventKind{
		EventDeviceRevoked, EventUserDisabled, EventUserEnabled, EventUserRemoved, EventSubscriptionChanged, EventSubscriptionEnded,
		EventPlanChanged, EventSessionClose, EventGatewayRemoved, EventGatewayChanged, EventKeysChanged,
		EventOutlineChanged,
	}
}

// The keys that EventKeysChanged is about.
const (
	KeysJWKS  = "jwks"
	KeysKnock = "knock"
)

// Event is something that gateways act on. It holds no secret. Versions begin with
// 1 and have no gap; a reader who has seen one has been able to see all before it.
type Event struct {
	Version int64 // given when the unit of work that caused it ends
	Kind    EventKind
	At      time.Time

	// All says that it concerns every gateway, Gateways else which.
	All      bool
	Gateways []string

	Reason         string // a reason.Code, where sessions are to be closed
	UserID         string
	DeviceID       string
	SubscriptionID string
	PlanID         string
	SessionID      string
	Keys           string // KeysJWKS or KeysKnock

	OutlineServerID string
}

// Concerns reports whether a gateway is to be told.
func (e Event) Concerns(gatewayID string) bool {
	return e.All || slices.Contains(e.Gateways, gatewayID)
}

// EventLog is a part of the log of events and what is known about all of it.
type EventLog struct {
	Latest int64 // the newest version; 0: there never was an event
	Low    int64 // the newest version that is not kept any more; 0: all are
	Events []Event
}

// Gap reports whether who has seen all up to version after can learn what came
// then from the log no more: that is gone, or the log is not the one he followed.
func (l EventLog) Gap(after int64) bool { return after < l.Low || after > l.Latest }

type eventRows interface {
	// AppendEvent writes an event when the unit of work ends well, with the next
	// version.
	AppendEvent(e Event)
	// Events returns at most limit events after a version, oldest first.
	Events(ctx context.Context, after int64, limit int) (EventLog, error)
	// GatewaysOfUser returns at most limit gateways that have had a session of a
	// user, whether it has ended or not.
	GatewaysOfUser(ctx context.Context, userID string, limit int) ([]string, error)
	// AskClose marks a session that has not ended as one that is to be closed, and
	// reports whether it did: the first to ask says why.
	AskClose(ctx context.Context, sessionID, why string) (bool, error)
	// PruneEvents deletes at most limit of the oldest events: those from before a
	// time and those beyond the keep newest. It returns how many.
	PruneEvents(ctx context.Context, before time.Time, keep, limit int) (int, error)
}

const (
	// keepEvents and keepEventCount bound the log: a gateway that was away for
	// longer starts from a snapshot.
	keepEvents     = 24 * time.Hour
	keepEventCount = 100_000
	// maxAudience is for how many gateways an event names each; beyond it is for all.
	maxAudience = 64
	// MaxEvents is the most events that Events returns at once.
	MaxEvents = 500
)

// tellAbout appends an event about a user's things. It is for the gateways that
// know the user: another one asks before it carries a session of his. The unit of
// work holds what keeps new sessions from beginning, so none is overlooked.
func (a *Authority) tellAbout(ctx context.Context, tx Tx, e Event) error {
	gateways, err := tx.GatewaysOfUser(ctx, e.UserID, maxAudience+1)
	if err != nil {
		return err
	}
	e.Gateways = gateways
	if len(gateways) > maxAudience {
		e.All, e.Gateways = true, nil
	}
	a.tell(tx, e)
	return nil
}

func (a *Authority) tell(tx Tx, e Event) {
	e.At = a.now()
	tx.AppendEvent(e)
}

func (a *Authority) tellUser(ctx context.Context, tx Tx, user User, wasDisabled bool) error {
	switch disabled := user.DisabledAt != nil; {
	case disabled && !wasDisabled:
		a.announceUser(tx, NoticeUserDisabled, user)
		return a.tellAbout(ctx, tx, Event{Kind: EventUserDisabled, UserID: user.ID, Reason: string(reason.UserDisabled)})
	case !disabled && wasDisabled:
		a.announceUser(tx, NoticeUserEnabled, user)
		return a.tellAbout(ctx, tx, Event{Kind: EventUserEnabled, UserID: user.ID})
	default:
		return nil
	}
}

// tellSubscription appends what became of a subscription that was active or not.
func (a *Authority) tellSubscription(ctx context.Context, tx Tx, sub Subscription, wasActive bool, status Status) error {
	e := Event{Kind: EventSubscriptionChanged, UserID: sub.UserID, SubscriptionID: sub.ID, PlanID: sub.PlanID}
	if wasActive && status != Active {
		e.Kind, e.Reason = EventSubscriptionEnded, string(reason.NoActiveSubscription)
		if status == Expired {
			e.Reason = string(reason.SubscriptionExpired)
		}
	}
	// A session that begins holds its user while it looks at subscriptions.
	if _, err := tx.LockUser(ctx, sub.UserID); err != nil {
		return err
	}
	return a.tellAbout(ctx, tx, e)
}

func (a *Authority) tellKeys(tx Tx, keys string) {
	a.tell(tx, Event{Kind: EventKeysChanged, All: true, Keys: keys})
}

// Events returns at most limit (up to MaxEvents) events after a version, of all
// gateways; after may be any number, see EventLog.Gap.
func (a *Authority) Events(ctx context.Context, after int64, limit int) (EventLog, error) {
	var log EventLog
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		log, err = tx.Events(ctx, after, min(limit, MaxEvents))
		return err
	})
	return log, err
}

// Snapshot is what a gateway needs to know when it has missed events, as of a
// version.
type Snapshot struct {
	Version int64
	Close   []SessionEnd // its sessions that must end, at most 1,000
	More    bool         // there are more of them
	Keys    KeyVersions
}

// KeyVersions change with the keys that a gateway's configuration holds.
type KeyVersions struct {
	JWKS  string
	Knock string
}

// Snapshot returns what a gateway needs to know at this moment.
func (a *Authority) Snapshot(ctx context.Context, gateway Gateway) (Snapshot, error) {
	var snapshot Snapshot
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		log, err := tx.Events(ctx, 0, 0)
		if err != nil {
			return err
		}
		unwanted, err := tx.UnwantedSessions(ctx, gateway.ID, a.now(), maxClose)
		if err != nil {
			return err
		}
		snapshot = Snapshot{Version: log.Latest, More: len(unwanted) == maxClose, Close: make([]SessionEnd, 0, len(unwanted))}
		for _, u := range unwanted {
			snapshot.Close = append(snapshot.Close, SessionEnd{ID: u.ID, Reason: string(u.reason())})
		}
		keys, err := tx.KnockKeys(ctx)
		if err != nil {
			return err
		}
		signing, err := a.signingNow(ctx, tx)
		if err == nil {
			snapshot.Keys = a.keyVersions(signing, inForce(keys, a.now()))
		}
		return err
	})
	return snapshot, err
}

func (a *Authority) keyVersions(signing *signing, knock []SealedKnockKey) KeyVersions {
	ids := make([]string, 0, len(signing.keys.Keys))
	for _, key := range signing.keys.Keys {
		ids = append(ids, key.ID)
	}
	numbers := []string{a.opts.KnockCookie}
	for _, key := range knock {
		numbers = append(numbers, strconv.FormatInt(key.Number, 10))
	}
	return KeyVersions{JWKS: fingerprint(ids), Knock: fingerprint(numbers)}
}

func fingerprint(parts []string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\n")))
	return hex.EncodeToString(sum[:8])
}

// CloseSession asks the gateway of a session to close it, by an event and with
// each heartbeat until the gateway says that it has ended. A session that has
// ended already stays as it is. The device may begin another one.
func (a *Authority) CloseSession(ctx context.Context, id string, why reason.Code) (Session, error) {
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		session, err := tx.Session(ctx, id)
		if err != nil {
			return err
		}
		asked, err := tx.AskClose(ctx, id, string(why))
		if asked {
			a.tell(tx, Event{
				Kind: EventSessionClose, Gateways: []string{session.GatewayID}, Reason: string(why),
				SessionID: id, DeviceID: session.DeviceID, UserID: session.UserID,
			})
		}
		return err
	})
	if err != nil {
		return Session{}, err
	}
	return a.Session(ctx, id)
}

// removeUser deletes a user and says so to the gateways that know him.
func (a *Authority) removeUser(ctx context.Context, tx Tx, id string) error {
	user, err := tx.LockUser(ctx, id)
	if err != nil {
		return err
	}
	a.announceUser(tx, NoticeUserRemoved, user)
	if err := a.tellAbout(ctx, tx, Event{Kind: EventUserRemoved, UserID: id, Reason: string(reason.DeviceNotFound)}); err != nil {
		return err
	}
	return tx.DeleteUser(ctx, id)
}

// removeSubscription deletes a subscription and says so.
func (a *Authority) removeSubscription(ctx context.Context, tx Tx, id string) error {
	sub, err := tx.Subscription(ctx, id)
	if err != nil {
		return err
	}
	wasActive := sub.Status(a.now()) == Active
	if err := tx.DeleteSubscription(ctx, id); err != nil {
		return err
	}
	err = a.tellSubscription(ctx, tx, sub, wasActive, Scheduled)
	if errors.Is(err, ErrNotFound) {
		return nil // the user goes with it
	}
	return err
}
