package control

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"
)

// Bounds of deliveries.
const (
	// MaxPendingDeliveries is how many messages may wait for a webhook: one more
	// disables it.
	MaxPendingDeliveries = 10_000
	// MaxDeliveryAttempts is how often a message is tried, over about a day.
	MaxDeliveryAttempts = 10
	// DeliveryLease is how long a message that is being sent is nobody else's.
	DeliveryLease = time.Minute
	// MaxRedelivered is how many messages are put back at once.
	MaxRedelivered = 1000

	firstDeliveryPause = 5 * time.Second
	maxDeliveryPause   = 8 * time.Hour
	pauseFactor        = 4

	// failingFor is how long, and failingAttempts how often, nothing is taken until a
	// webhook is disabled.
	failingFor      = 3 * 24 * time.Hour
	failingAttempts = 2 * MaxDeliveryAttempts

	keepDelivered  = 7 * 24 * time.Hour
	keepDeliveries = 30 * 24 * time.Hour
	// keepDeliveryCount is how many that have ended are kept of each webhook.
	keepDeliveryCount = 10_000
)

// DeliveryState says how far a delivery is. The texts are part of the API.
type DeliveryState string

// The states of deliveries.
const (
	DeliveryPending   DeliveryState = "pending" // waits, or is being sent
	DeliveryDelivered DeliveryState = "delivered"
	DeliveryDead      DeliveryState = "dead" // is tried no more
)

// DeliveryFailure says why a message was not taken. The texts are part of the API.
type DeliveryFailure string

// The failures that are told apart. They repeat nothing of what the receiver said.
const (
	DeliveryStatus   DeliveryFailure = "status"   // an answer that is none of 2xx
	DeliveryRedirect DeliveryFailure = "redirect" // which is not followed
	DeliveryTimeout  DeliveryFailure = "timeout"
	DeliveryResolve  DeliveryFailure = "resolve" // the name has no address
	DeliveryConnect  DeliveryFailure = "connect"
	DeliveryTLS      DeliveryFailure = "tls"     // the certificate, or the handshake
	DeliveryAddress  DeliveryFailure = "address" // nothing may be sent there
	DeliveryOther    DeliveryFailure = "other"
)

// Delivery is a message for a webhook.
type Delivery struct {
	Position  int64 // the order in which they were written
	ID        string
	WebhookID string
	EventID   string // the same in the messages of one event for several webhooks
	Type      NoticeType
	ObjectID  string
	Payload   string
	State     DeliveryState
	Attempts  int
	NextAt    time.Time  // when it is tried next; of one that is being sent, when others may
	TriedAt   *time.Time // nil: not yet
	EndedAt   *time.Time // when it was delivered or given up; nil: neither
	Status    int        // of the last answer; 0: none
	Failure   DeliveryFailure
	CreatedAt time.Time
}

type deliveryRows interface {
	InsertDelivery(ctx context.Context, d Delivery) error
	// CountPending counts a webhook's messages that wait, up to limit.
	CountPending(ctx context.Context, webhookID string, limit int) (int, error)
	CountDeliveries(ctx context.Context, webhookID string) (pending, dead int, err error)
	// Deliveries returns a webhook's, newest first, all or those in a state.
	Deliveries(ctx context.Context, webhookID string, state DeliveryState, page Page) ([]Delivery, error)
	// DueWebhooks returns the enabled webhooks that have something to try at now.
	DueWebhooks(ctx context.Context, now time.Time) ([]string, error)
	// ClaimDeliveries gives the caller at most limit of a webhook's messages that are to
	// be tried at now, and counts that as an attempt: until nobody else gets them. Of
	// each object it is the first that waits, whoever has it.
	ClaimDeliveries(ctx context.Context, webhookID string, now, until time.Time, limit int) ([]Delivery, error)
	// EndAttempt keeps what became of an attempt, and reports whether it was the last
	// that had been claimed.
	EndAttempt(ctx context.Context, d Delivery) (bool, error)
	// Redeliver puts those of a webhook's deliveries back that have ended and are named,
	// or with no ids at most limit that are dead, the oldest first, and returns how many.
	Redeliver(ctx context.Context, webhookID string, ids []string, now time.Time, limit int) (int, error)
	// WebhookSummary is for metrics.
	WebhookSummary(ctx context.Context) (WebhookSummary, error)
	// PruneDeliveries deletes at most limit deliveries that ended before one time when they
	// were delivered, or were made before another, or are beyond the keep newest that
	// ended of their webhook. It returns how many.
	PruneDeliveries(ctx context.Context, deliveredBefore, createdBefore time.Time, keep, limit int) (int, error)
}

// WebhookSummary is how much there is to send.
type WebhookSummary struct {
	Webhooks int
	Disabled int // by the service itself
	Pending  int // for those that are enabled
	Dead     int
	Oldest   *time.Time // when the oldest was written that waits for an enabled one; nil: none does
}

// Outgoing is a message to be sent. Its keys are secrets, and what follows the host in
// its URL may be one.
type Outgoing struct {
	Delivery
	URL  string
	Keys [][]byte // that sign it, the newest first
}

// Sent is what became of an attempt. Failure is empty when the message was taken.
type Sent struct {
	Status     int // of the answer; 0: there was none
	Failure    DeliveryFailure
	RetryAfter time.Duration // that the receiver asked for; 0: it did not
}

const (
	statusGone = 410
	// maxRetryAfter is how long receivers can put off an attempt.
	maxRetryAfter = 8 * time.Hour
)

// deliveryPause is how long after its nth attempt a message is tried again, give or take
// a tenth, so that not all that failed together come together.
func deliveryPause(attempts int) time.Duration {
	pause := firstDeliveryPause
	for range attempts - 1 {
		pause = min(pause*pauseFactor, maxDeliveryPause)
	}
	return pause - pause/10 + rand.N(pause/5) //nolint:gosec // only spreads attempts
}

// DueWebhooks returns the webhooks that have something to be sent now.
func (a *Authority) DueWebhooks(ctx context.Context) ([]string, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]string, error) { return tx.DueWebhooks(ctx, a.now()) })
}

// ClaimDeliveries returns at most limit of a webhook's messages for the caller to send
// within DeliveryLease. They are nobody else's until then; the caller says by
// FinishDelivery what became of each. Several processes may ask.
func (a *Authority) ClaimDeliveries(ctx context.Context, webhookID string, limit int) ([]Outgoing, error) {
	var out []Outgoing
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		out = nil
		now := a.now()
		hook, err := tx.Webhook(ctx, webhookID)
		if errors.Is(err, ErrNotFound) || err == nil && hook.DisabledAt != nil {
			return nil
		}
		if err != nil {
			return err
		}
		keys, err := a.webhookKeys(hook, now)
		if err != nil {
			return err
		}
		claimed, err := tx.ClaimDeliveries(ctx, webhookID, now, now.Add(DeliveryLease), limit)
		if err != nil {
			return err
		}
		slices.SortFunc(claimed, func(x, y Delivery) int { return cmp.Compare(x.Position, y.Position) })
		for _, d := range claimed {
			out = append(out, Outgoing{Delivery: d, URL: hook.URL, Keys: keys})
		}
		return nil
	})
	return out, err
}

// FinishDelivery keeps what became of an attempt, and returns the delivery as it is then.
// One that took so long that somebody else has begun another is passed over.
func (a *Authority) FinishDelivery(ctx context.Context, out Outgoing, sent Sent) (Delivery, error) {
	d := out.Delivery
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		now := a.now().UTC().Truncate(time.Microsecond)
		hook, err := tx.Webhook(ctx, d.WebhookID) // held before its delivery, as by who claims
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		d = out.after(sent, now)
		last, err := tx.EndAttempt(ctx, d)
		if err != nil || !last || d.Type == NoticeTest {
			return err
		}
		return noteAttempt(ctx, tx, hook, sent, now)
	})
	if err == nil && d.State != DeliveryPending {
		a.posted() // the next about the same object
	}
	return d, err
}

// after is the delivery after an attempt.
func (d Delivery) after(sent Sent, now time.Time) Delivery {
	d.TriedAt, d.Status, d.Failure = &now, sent.Status, sent.Failure
	switch {
	case sent.Failure == "":
		d.State, d.EndedAt = DeliveryDelivered, &now
	case d.Attempts >= MaxDeliveryAttempts, d.Type == NoticeTest, sent.Status == statusGone:
		d.State, d.EndedAt = DeliveryDead, &now
	default:
		d.NextAt = now.Add(max(deliveryPause(d.Attempts), min(sent.RetryAfter, maxRetryAfter)))
	}
	return d
}

// noteAttempt keeps how a webhook does, and disables one of which nothing more is to be
// hoped for.
func noteAttempt(ctx context.Context, tx Tx, hook Webhook, sent Sent, now time.Time) error {
	if sent.Failure == "" {
		hook.FailingSince, hook.Failures, hook.SucceededAt = nil, 0, &now
		return tx.NoteWebhook(ctx, hook)
	}
	hook.Failures++
	if hook.FailingSince == nil {
		hook.FailingSince = &now
	}
	if err := tx.NoteWebhook(ctx, hook); err != nil {
		return err
	}
	why := WebhookDisabled("")
	switch {
	case sent.Status == statusGone:
		why = WebhookGone
	case hook.Failures >= failingAttempts && now.Sub(*hook.FailingSince) >= failingFor:
		why = WebhookFailing
	}
	if why == "" || hook.DisabledAt != nil {
		return nil
	}
	return tx.DisableWebhook(ctx, hook.ID, why, now)
}

// Deliveries lists a webhook's messages, newest first, all or those in a state.
func (a *Authority) Deliveries(ctx context.Context, webhookID string, state DeliveryState, page Page) ([]Delivery, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]Delivery, error) {
		if _, err := tx.Webhook(ctx, webhookID); err != nil {
			return nil, err
		}
		return tx.Deliveries(ctx, webhookID, state, page)
	})
}

// Redeliver has messages sent again that were delivered or given up: those that are named, or
// without any those that are dead, at most MaxRedelivered, the oldest first. They have
// the ids that they had, and as many attempts as a new one.
func (a *Authority) Redeliver(ctx context.Context, webhookID string, ids []string) (int, error) {
	ids = slices.Compact(slices.Sorted(slices.Values(ids)))
	if len(ids) > MaxRedelivered {
		return 0, &InvalidError{Fields: []FieldError{{Field: "delivery_ids", Detail: "want at most 1000"}}}
	}
	n := 0
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if _, err := tx.Webhook(ctx, webhookID); err != nil {
			return err
		}
		room, err := roomFor(ctx, tx, webhookID, max(len(ids), 1))
		if err != nil {
			return err
		}
		n, err = tx.Redeliver(ctx, webhookID, ids, a.now(), min(room, MaxRedelivered))
		if err == nil && n < len(ids) {
			return ErrNotFound
		}
		return err
	})
	if err == nil && n > 0 {
		a.posted()
	}
	return n, err
}

// roomFor returns how many messages more can wait for a webhook, unless those are fewer
// than are wanted.
func roomFor(ctx context.Context, tx Tx, webhookID string, wanted int) (int, error) {
	waiting, err := tx.CountPending(ctx, webhookID, MaxPendingDeliveries)
	if err == nil && waiting+wanted > MaxPendingDeliveries {
		err = &ConflictError{Detail: "too many messages wait for the webhook"}
	}
	return MaxPendingDeliveries - waiting, err
}

// WebhookSummary returns how much there is to send.
func (a *Authority) WebhookSummary(ctx context.Context) (WebhookSummary, error) {
	var s WebhookSummary
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		s, err = tx.WebhookSummary(ctx)
		return err
	})
	return s, err
}
