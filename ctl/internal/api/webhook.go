package api

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// Webhook is who is told of what happens.
type Webhook struct {
	ID             string          `json:"id"`
	URL            string          `json:"url"`
	Description    string          `json:"description"`
	Events         []string        `json:"events"` // empty: all
	Status         string          `json:"status"`
	DisabledAt     *time.Time      `json:"disabled_at"`
	DisabledReason string          `json:"disabled_reason"`
	FailingSince   *time.Time      `json:"failing_since"`
	SucceededAt    *time.Time      `json:"succeeded_at"` // nil: never
	Pending        int             `json:"pending"`
	Dead           int             `json:"dead"`
	Secrets        []WebhookSecret `json:"secrets"` // newest first; not in lists
	CreatedAt      time.Time       `json:"created_at"`
}

// WebhookSecret is what the service tells about a secret.
type WebhookSecret struct {
	Generation int64      `json:"generation"`
	CreatedAt  time.Time  `json:"created_at"`
	EndsAt     *time.Time `json:"ends_at"`
}

// NewWebhook is a webhook with its secret, which is shown once.
type NewWebhook struct {
	Webhook
	Secret string `json:"secret"`
}

// Delivery is a message for a webhook.
type Delivery struct {
	ID        string     `json:"id"`
	Type      string     `json:"type"`
	ObjectID  string     `json:"object_id"`
	State     string     `json:"state"`
	Attempts  int        `json:"attempts"`
	NextAt    *time.Time `json:"next_at"`
	TriedAt   *time.Time `json:"tried_at"`
	Status    int        `json:"status"`  // of the last answer; 0: there was none
	Failure   string     `json:"failure"` // empty: none
	CreatedAt time.Time  `json:"created_at"`
}

// Redelivered is how many messages are sent again.
type Redelivered struct {
	Redelivered int `json:"redelivered"`
}

// Webhooks is every webhook.
func (c *Client) Webhooks() Collection[Webhook] { return Collection[Webhook]{c, "webhook", "webhooks"} }

// CreateWebhook makes a webhook of fields. A repetition with the same key has no secret.
func (c *Client) CreateWebhook(ctx context.Context, fields map[string]any, key string) (Object[NewWebhook], error) {
	return one[NewWebhook](ctx, c, call{method: http.MethodPost, path: c.Webhooks().path, body: fields, key: key, what: Thing{Kind: "webhook"}})
}

// RotateWebhook gives a webhook another secret; the one before signs, too, for overlap,
// or with nil for as long as the service likes.
func (c *Client) RotateWebhook(ctx context.Context, id string, overlap *time.Duration) (Object[NewWebhook], error) {
	body := struct {
		Overlap *int `json:"overlap_seconds,omitempty"`
	}{}
	if overlap != nil {
		body.Overlap = new(int(overlap.Seconds()))
	}
	return one[NewWebhook](ctx, c, call{method: http.MethodPost, path: c.Webhooks().pathOf(id) + "/rotate", body: body, what: Thing{"webhook", id}})
}

// TestWebhook has a test message sent.
func (c *Client) TestWebhook(ctx context.Context, id string) (Object[Delivery], error) {
	return one[Delivery](ctx, c, call{method: http.MethodPost, path: c.Webhooks().pathOf(id) + "/test", body: struct{}{}, what: Thing{"webhook", id}})
}

// Deliveries are the messages for a webhook, newest first.
func (c *Client) Deliveries(id string) Collection[Delivery] {
	return Collection[Delivery]{c, "webhook", c.Webhooks().pathOf(id) + "/deliveries"}
}

// Redeliver has messages sent again: those that are named, or without any the dead.
func (c *Client) Redeliver(ctx context.Context, id string, deliveries []string) (Object[Redelivered], error) {
	body := struct {
		IDs []string `json:"delivery_ids,omitempty"`
	}{deliveries}
	return one[Redelivered](ctx, c, call{method: http.MethodPost, path: c.Webhooks().pathOf(id) + "/redeliver", body: body, what: Thing{"webhook", id}})
}

// Delivery returns a message that is among the newest; false: it is not.
func (c *Client) Delivery(ctx context.Context, webhook, id string) (Object[Delivery], bool, error) {
	const newest = 100
	page, err := c.Deliveries(webhook).List(ctx, url.Values{}, newest, "")
	if err != nil {
		return Object[Delivery]{}, false, err
	}
	for _, d := range page.Items {
		if d.Value.ID == id {
			return d, true, nil
		}
	}
	return Object[Delivery]{}, false, nil
}
