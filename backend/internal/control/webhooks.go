package control

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strconv"
	"time"
)

// Bounds of webhooks.
const (
	// MaxWebhooks is how many there may be.
	MaxWebhooks = 20
	// MaxWebhookURL and MaxWebhookDescription are in characters.
	MaxWebhookURL         = 500
	MaxWebhookDescription = 200
	// SecretOverlap is how long a secret signs beside the one that takes its place,
	// unless it is said otherwise, and MaxSecretOverlap how long it may.
	SecretOverlap    = 24 * time.Hour
	MaxSecretOverlap = 7 * 24 * time.Hour

	// maxSecrets is how many sign at once.
	maxSecrets    = 2
	webhookSecret = 32 // bytes
	secretPrefix  = "whsec_"
)

// WebhookDisabled says why nothing is sent to a webhook. The texts are part of the API.
type WebhookDisabled string

// Why webhooks are disabled.
const (
	WebhookByOperator WebhookDisabled = "operator"
	WebhookFailing    WebhookDisabled = "failing"    // for long nothing was taken
	WebhookGone       WebhookDisabled = "gone"       // the receiver answered 410
	WebhookQueueFull  WebhookDisabled = "queue_full" // too much had not been taken
)

// Webhook is who is told of what happens.
type Webhook struct {
	ID          string
	URL         string
	Description string
	Events      []NoticeType // ascending; empty: all

	DisabledAt  *time.Time // nil: enabled
	DisabledWhy WebhookDisabled

	FailingSince *time.Time // the first attempt that failed since one went well; nil: none did
	Failures     int        // attempts since then
	SucceededAt  *time.Time // when something was taken last; nil: never
	CreatedAt    time.Time

	Secrets []SealedWebhookSecret // newest first; not set in lists
	Pending int                   // deliveries; not set where it does not matter
	Dead    int
}

func (h *Webhook) disable(why WebhookDisabled, at time.Time) {
	h.DisabledAt, h.DisabledWhy = &at, why
}

// origin is what may be shown of a URL to everybody: what follows may have a secret.
func (h Webhook) origin() string {
	u, err := url.Parse(h.URL)
	if err != nil {
		return ""
	}
	return u.Scheme + "://" + u.Host
}

// Origin is the URL without what may be a secret in it.
func (h Webhook) Origin() string { return h.origin() }

// SealedWebhookSecret is what messages are signed with, as the database keeps it.
type SealedWebhookSecret struct {
	WebhookID  string
	Generation int64 // 1, 2, …
	Sealed     []byte
	EndsAt     *time.Time // when it signs no more; nil: it is the newest
	CreatedAt  time.Time
}

func (s SealedWebhookSecret) place() string {
	return sealedPlace("webhook_secrets", s.WebhookID+"/"+strconv.FormatInt(s.Generation, 10), "sealed")
}

type webhookRows interface {
	InsertWebhook(ctx context.Context, h Webhook) error
	// Webhook returns one with its secrets; in Write nobody else changes it until the
	// unit of work ends.
	Webhook(ctx context.Context, id string) (Webhook, error)
	// Webhooks returns them without their secrets, and EnabledWebhooks at most
	// MaxWebhooks of those that are enabled.
	Webhooks(ctx context.Context, page Page) ([]Webhook, error)
	EnabledWebhooks(ctx context.Context) ([]Webhook, error)
	CountWebhooks(ctx context.Context) (int, error)
	// UpdateWebhook changes what an operator decides.
	UpdateWebhook(ctx context.Context, h Webhook) error
	// DisableWebhook disables one that is not.
	DisableWebhook(ctx context.Context, id string, why WebhookDisabled, at time.Time) error
	// NoteWebhook keeps FailingSince, Failures and SucceededAt.
	NoteWebhook(ctx context.Context, h Webhook) error
	// DeleteWebhook deletes one with its secrets and deliveries.
	DeleteWebhook(ctx context.Context, id string) error

	InsertWebhookSecret(ctx context.Context, s SealedWebhookSecret) error
	// EndWebhookSecret says when one signs no more.
	EndWebhookSecret(ctx context.Context, webhookID string, generation int64, at time.Time) error
	// DropWebhookSecrets deletes those of a webhook that are older than a generation.
	DropWebhookSecrets(ctx context.Context, webhookID string, before int64) error
	// PruneWebhookSecrets deletes at most limit that ended before a time.
	PruneWebhookSecrets(ctx context.Context, endedBefore time.Time, limit int) (int, error)
}

// WebhookFields are what an operator decides about a webhook; nil leaves it as it is.
type WebhookFields struct {
	URL         *string
	Description *string
	Events      *[]NoticeType
	Disabled    *bool
}

// CheckWebhookURL says what keeps messages from being sent to a URL, as far as that can
// be seen without asking anybody. It is for people, and repeats nothing of the URL.
type CheckWebhookURL func(u *url.URL) error

const webhookURLRule = "want https://HOST[:PORT]/… of at most 500 characters, without a user, a password and a fragment"

func (h *Webhook) apply(f WebhookFields, check CheckWebhookURL, now time.Time) error {
	set(&h.URL, f.URL)
	set(&h.Description, f.Description)
	if f.Events != nil {
		h.Events = slices.Compact(slices.Sorted(slices.Values(*f.Events)))
	}
	if f.Disabled != nil {
		switch {
		case !*f.Disabled: // what was before is forgiven
			h.DisabledAt, h.DisabledWhy, h.FailingSince, h.Failures = nil, "", nil, 0
		case h.DisabledAt == nil:
			h.disable(WebhookByOperator, now)
		}
	}
	var c checks
	if f.URL != nil {
		u, err := url.Parse(h.URL)
		ok := err == nil && validText(h.URL, MaxWebhookURL) && (u.Scheme == "https" || u.Scheme == "http") && u.Hostname() != "" &&
			u.User == nil && u.Fragment == "" && u.Opaque == ""
		c.that(ok, "url", webhookURLRule)
		if ok && check != nil {
			if err := check(u); err != nil {
				c.that(false, "url", err.Error())
			}
		}
	}
	c.that(validText(h.Description, MaxWebhookDescription), "description", "want at most 200 characters, none of them a control character")
	for _, what := range h.Events {
		c.that(slices.Contains(NoticeTypes(), what), "events", "one of them is none of the types that there are")
	}
	return c.err()
}

// NewWebhook is a webhook with its secret, which is nowhere else to be had.
type NewWebhook struct {
	Webhook
	Secret string // empty: the same request had made it before
}

// newWebhookSecret makes a secret that is to be sealed for its place.
func (a *Authority) newWebhookSecret(ctx context.Context, tx Tx, webhookID string, generation int64) (SealedWebhookSecret, string, error) {
	var raw [webhookSecret]byte
	_, _ = rand.Read(raw[:]) // never fails
	secret := SealedWebhookSecret{WebhookID: webhookID, Generation: generation, CreatedAt: a.now()}
	var err error
	if secret.Sealed, err = a.seal(ctx, tx, raw[:], secret.place()); err != nil {
		return SealedWebhookSecret{}, "", fmt.Errorf("seal secret of webhook %s: %w", webhookID, err)
	}
	return secret, secretPrefix + base64.StdEncoding.EncodeToString(raw[:]), nil
}

// CreateWebhook adds a webhook. The second result is as in CreateUser.
func (a *Authority) CreateWebhook(ctx context.Context, f WebhookFields, once Once) (NewWebhook, bool, error) {
	hook := Webhook{ID: newID(), CreatedAt: a.now()}
	if f.URL == nil {
		f.URL = new("")
	}
	if err := hook.apply(f, a.opts.CheckWebhookURL, hook.CreatedAt); err != nil {
		return NewWebhook{}, false, err
	}
	var text string
	insert := func(ctx context.Context, tx Tx) error {
		if err := tx.LockService(ctx); err != nil { // whoever counts is alone
			return err
		}
		secret, shown, err := a.newWebhookSecret(ctx, tx, hook.ID, 1)
		if err != nil {
			return err
		}
		n, err := tx.CountWebhooks(ctx)
		if err != nil {
			return err
		}
		if n >= MaxWebhooks {
			return &ConflictError{Detail: fmt.Sprintf("there are %d webhooks, which is as many as there may be: delete one", n)}
		}
		text = shown
		if err := tx.InsertWebhook(ctx, hook); err != nil {
			return err
		}
		return tx.InsertWebhookSecret(ctx, secret)
	}
	made, replayed, err := create(ctx, a, a.blind(once), hook.ID, insert, countedWebhook)
	if replayed {
		text = ""
	}
	return NewWebhook{Webhook: made, Secret: text}, replayed, err
}

// countedWebhook returns a webhook with the numbers of its deliveries.
func countedWebhook(tx Tx, ctx context.Context, id string) (Webhook, error) { //nolint:revive // as methods of Tx are called
	hook, err := tx.Webhook(ctx, id)
	if err == nil {
		hook.Pending, hook.Dead, err = tx.CountDeliveries(ctx, id)
	}
	return hook, err
}

// Webhook returns a webhook.
func (a *Authority) Webhook(ctx context.Context, id string) (Webhook, error) {
	return get(ctx, a, id, countedWebhook)
}

// Webhooks lists webhooks, without their secrets.
func (a *Authority) Webhooks(ctx context.Context, page Page) ([]Webhook, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]Webhook, error) {
		hooks, err := tx.Webhooks(ctx, page)
		for i := range hooks {
			if err == nil {
				hooks[i].Pending, hooks[i].Dead, err = tx.CountDeliveries(ctx, hooks[i].ID)
			}
		}
		return hooks, err
	})
}

// UpdateWebhook changes a webhook. What waits for one that is disabled is kept, and
// sent when it is enabled again; what happens meanwhile is not told.
func (a *Authority) UpdateWebhook(ctx context.Context, id string, f WebhookFields) (Webhook, error) {
	var hook Webhook
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		if hook, err = tx.Webhook(ctx, id); err != nil {
			return err
		}
		enables := hook.DisabledAt != nil && f.Disabled != nil && !*f.Disabled
		if err := hook.apply(f, a.opts.CheckWebhookURL, a.now()); err != nil {
			return err
		}
		if err := tx.UpdateWebhook(ctx, hook); err != nil {
			return err
		}
		if enables {
			if err := tx.NoteWebhook(ctx, hook); err != nil {
				return err
			}
		}
		hook.Pending, hook.Dead, err = tx.CountDeliveries(ctx, id)
		return err
	})
	if err == nil {
		a.posted()
	}
	return hook, err
}

// DeleteWebhook removes a webhook with what waits for it.
func (a *Authority) DeleteWebhook(ctx context.Context, id string) error {
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error { return tx.DeleteWebhook(ctx, id) })
}

// RotateWebhookSecret gives a webhook another secret and returns it. The one before
// signs beside it for overlap; those that are older sign no more. Whoever verifies a
// message accepts it when one of its signatures is right.
func (a *Authority) RotateWebhookSecret(ctx context.Context, id string, overlap time.Duration) (NewWebhook, error) {
	if overlap < 0 || overlap > MaxSecretOverlap {
		return NewWebhook{}, &InvalidError{Fields: []FieldError{{Field: "overlap_seconds", Detail: "want 0 to 604800 (7 days)"}}}
	}
	var rotated NewWebhook
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if _, err := tx.Setting(ctx, settingSealingKey); err != nil { // first what is sealed, as everywhere
			return err
		}
		hook, err := tx.Webhook(ctx, id)
		if err != nil {
			return err
		}
		if len(hook.Secrets) == 0 {
			return fmt.Errorf("webhook %s has no secret", id)
		}
		last := hook.Secrets[0]
		secret, text, err := a.newWebhookSecret(ctx, tx, id, last.Generation+1)
		if err != nil {
			return err
		}
		if err := tx.InsertWebhookSecret(ctx, secret); err != nil {
			return err
		}
		if err := tx.EndWebhookSecret(ctx, id, last.Generation, a.now().Add(overlap)); err != nil {
			return err
		}
		if err := tx.DropWebhookSecrets(ctx, id, secret.Generation-(maxSecrets-1)); err != nil {
			return err
		}
		hook, err = countedWebhook(tx, ctx, id)
		rotated = NewWebhook{Webhook: hook, Secret: text}
		return err
	})
	return rotated, err
}

// TestWebhook has a message of the type webhook.test sent to a webhook. It is tried once.
func (a *Authority) TestWebhook(ctx context.Context, id string) (Delivery, error) {
	var made Delivery
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		hook, err := tx.Webhook(ctx, id)
		if err != nil {
			return err
		}
		if hook.DisabledAt != nil {
			return &ConflictError{Detail: "the webhook is disabled: enable it first"}
		}
		if _, err := roomFor(ctx, tx, id, 1); err != nil {
			return err
		}
		event := newID()
		n := notice{Type: NoticeTest, Object: event, At: a.now(), Data: noticeData{Webhook: &noticeWebhook{ID: id}}}
		payload, err := n.payload()
		if err != nil {
			return err
		}
		made = newDelivery(id, event, n, payload)
		return tx.InsertDelivery(ctx, made)
	})
	if err == nil {
		a.posted()
	}
	return made, err
}

// posted says that there may be something to send.
func (a *Authority) posted() {
	if a.opts.Posted != nil {
		a.opts.Posted()
	}
}

// fingerprint of a URL tells whether it is another one, and nothing about it.
func (h Webhook) fingerprint() string {
	sum := sha256.Sum256([]byte(h.URL))
	return hex.EncodeToString(sum[:4])
}

// errNoSecret says that nothing can be signed.
var errNoSecret = errors.New("no secret is in force")

// webhookKeys opens the secrets that sign at now, the newest first.
func (a *Authority) webhookKeys(h Webhook, now time.Time) ([][]byte, error) {
	var keys [][]byte
	for _, s := range h.Secrets {
		if s.EndsAt != nil && !now.Before(*s.EndsAt) {
			continue
		}
		key, err := a.opts.Sealer.Open(s.Sealed, s.place())
		if err != nil {
			return nil, fmt.Errorf("open secret of webhook %s: %w", h.ID, err)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return nil, fmt.Errorf("webhook %s: %w", h.ID, errNoSecret)
	}
	return keys, nil
}
