package httpapi

import (
	"context"
	"encoding/json"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// Webhook is who is told of what happens. Nothing shows its secrets.
type Webhook struct {
	ID             string          `json:"id"`
	URL            string          `json:"url" doc:"For who may not change it only where it leads: what follows the host may have a secret."`
	Description    string          `json:"description"`
	Events         []string        `json:"events" doc:"Types of messages; empty: all."`
	Status         string          `json:"status" enum:"active,failing,disabled" doc:"failing: nothing was taken since failing_since. After 3 days of that it is disabled."`
	DisabledAt     *time.Time      `json:"disabled_at"`
	DisabledReason string          `json:"disabled_reason,omitempty" enum:"operator,failing,gone,queue_full" doc:"gone: the receiver answered 410. queue_full: 10,000 messages waited."`
	FailingSince   *time.Time      `json:"failing_since"`
	Failures       int             `json:"failures" doc:"Attempts since the last that went well."`
	SucceededAt    *time.Time      `json:"succeeded_at" doc:"When a message was taken last; null: never."`
	Pending        int             `json:"pending" doc:"Messages that wait."`
	Dead           int             `json:"dead" doc:"Messages that were given up, and are kept for 30 days."`
	Secrets        []WebhookSecret `json:"secrets" doc:"That messages are signed with, newest first. Empty in lists."`
	CreatedAt      time.Time       `json:"created_at"`
}

// WebhookSecret is what is shown of a secret.
type WebhookSecret struct {
	Generation int64      `json:"generation" doc:"Grows by one with each other secret."`
	CreatedAt  time.Time  `json:"created_at"`
	EndsAt     *time.Time `json:"ends_at" doc:"When it signs no more; null: it is the newest."`
}

// WebhookWithSecret is a webhook with its secret, which is shown once.
type WebhookWithSecret struct {
	Webhook
	Secret string `json:"secret,omitempty" doc:"whsec_ and base64 of the key that messages are signed with. Absent when the same request had made it before."`
}

func showWebhook(ctx context.Context, h control.Webhook) Webhook {
	shown := Webhook{
		ID: h.ID, URL: h.Origin(), Description: h.Description, Events: make([]string, 0, len(h.Events)), Status: "active",
		DisabledAt: utc(h.DisabledAt), DisabledReason: string(h.DisabledWhy), FailingSince: utc(h.FailingSince), Failures: h.Failures, SucceededAt: utc(h.SucceededAt),
		Pending: h.Pending, Dead: h.Dead, Secrets: make([]WebhookSecret, 0, len(h.Secrets)), CreatedAt: h.CreatedAt,
	}
	if operatorOf(ctx).Token.Role.Has(control.RightManage) {
		shown.URL = h.URL
	}
	for _, event := range h.Events {
		shown.Events = append(shown.Events, string(event))
	}
	for _, s := range h.Secrets {
		shown.Secrets = append(shown.Secrets, WebhookSecret{Generation: s.Generation, CreatedAt: s.CreatedAt, EndsAt: utc(s.EndsAt)})
	}
	switch {
	case h.DisabledAt != nil:
		shown.Status = "disabled"
	case h.FailingSince != nil:
		shown.Status = "failing"
	}
	return shown
}

// NewWebhook is what an operator says about a new webhook.
type NewWebhook struct {
	URL         string    `json:"url" minLength:"1" maxLength:"500" doc:"Where messages are sent to: https, and a public address unless webhooks.allow has it."`
	Description *string   `json:"description,omitempty" maxLength:"200"`
	Events      *[]string `json:"events,omitempty" maxItems:"32" doc:"Types of messages; all when absent."`
	Disabled    *bool     `json:"disabled,omitempty"`
}

// WebhookChange is what an operator may change about a webhook.
type WebhookChange struct {
	URL         *string   `json:"url,omitempty" minLength:"1" maxLength:"500"`
	Description *string   `json:"description,omitempty" maxLength:"200"`
	Events      *[]string `json:"events,omitempty" maxItems:"32" doc:"Types of messages; empty: all."`
	Disabled    *bool     `json:"disabled,omitempty" doc:"What waits is kept until it is enabled again; what happens meanwhile is not told."`
}

func webhookFields(url, description *string, events *[]string, disabled *bool) control.WebhookFields {
	f := control.WebhookFields{URL: url, Description: description, Disabled: disabled}
	if events != nil {
		types := make([]control.NoticeType, 0, len(*events))
		for _, event := range *events {
			types = append(types, control.NoticeType(event))
		}
		f.Events = &types
	}
	return f
}

// Delivery is a message for a webhook.
type Delivery struct {
	ID        string          `json:"id"`
	EventID   string          `json:"event_id" doc:"The webhook-id that it is sent with, each time. Messages for several webhooks about the same event have the same."`
	Type      string          `json:"type"`
	ObjectID  string          `json:"object_id" doc:"What it is about. Of the messages about one object each waits until those before it are delivered or dead."`
	State     string          `json:"state" enum:"pending,delivered,dead"`
	Attempts  int             `json:"attempts"`
	NextAt    *time.Time      `json:"next_at" doc:"When it is tried next, if none before it is in its way; null: it is not."`
	TriedAt   *time.Time      `json:"tried_at" doc:"Null: not yet."`
	EndedAt   *time.Time      `json:"ended_at" doc:"When it was delivered or given up."`
	Status    int             `json:"status" doc:"Of the last answer; 0: there was none."`
	Failure   string          `json:"failure,omitempty" enum:"status,redirect,timeout,resolve,connect,tls,address,other" doc:"Why the last attempt failed. address: nothing may be sent there (webhooks.allow)."`
	Payload   json.RawMessage `json:"payload" doc:"The body that is sent."`
	CreatedAt time.Time       `json:"created_at"`
}

func showDelivery(d control.Delivery) Delivery {
	shown := Delivery{
		ID: d.ID, EventID: d.EventID, Type: string(d.Type), ObjectID: d.ObjectID, State: string(d.State), Attempts: d.Attempts,
		TriedAt: utc(d.TriedAt), EndedAt: utc(d.EndedAt), Status: d.Status, Failure: string(d.Failure), Payload: orNull(d.Payload), CreatedAt: d.CreatedAt,
	}
	if d.State == control.DeliveryPending {
		shown.NextAt = &d.NextAt
	}
	return shown
}

type webhookChangeInput struct {
	ByID
	Body WebhookChange
}

// WebhookRotation says how long the secret before signs beside the new one.
type WebhookRotation struct {
	OverlapSeconds *int `json:"overlap_seconds,omitempty" minimum:"0" maximum:"604800" doc:"For how long the one before signs, too; 86400 when absent."`
}

type webhookRotationInput struct {
	ByID
	Body WebhookRotation
}

type deliveryListInput struct {
	ByID
	Paging
	State string `query:"state" enum:"pending,delivered,dead" doc:"Only those."`
}

// Redelivery says which messages are to be sent again.
type Redelivery struct {
	DeliveryIDs []string `json:"delivery_ids,omitempty" maxItems:"1000" doc:"These, delivered or dead. Without any: those that are dead, the oldest first, at most 1,000."`
}

type redeliveryInput struct {
	ByID
	Body Redelivery
}

// Redelivered is how many messages are sent again.
type Redelivered struct {
	Redelivered int `json:"redelivered"`
}

func (s *server) registerWebhooks(api huma.API) {
	create := s.admin("create-webhook", http.MethodPost, "/webhooks", "Have somebody told of what happens")
	create.Description = "At most 20. Messages are signed in the form of Standard Webhooks."
	register(s, api, create, func(ctx context.Context, in *Creation[NewWebhook]) (*created[WebhookWithSecret], error) {
		b := in.Body
		made, replayed, err := s.authority.CreateWebhook(ctx, webhookFields(&b.URL, b.Description, b.Events, b.Disabled), in.once(ctx, "create-webhook"))
		return createdAs(WebhookWithSecret{Webhook: showWebhook(ctx, made.Webhook), Secret: made.Secret}, replayed), err
	})
	register(s, api, s.admin("list-webhooks", http.MethodGet, "/webhooks", "List webhooks"),
		func(ctx context.Context, in *Paging) (*body[List[Webhook]], error) {
			hooks, err := s.authority.Webhooks(ctx, in.page())
			return listOf(*in, hooks, func(h control.Webhook) Webhook { return showWebhook(ctx, h) }, func(h control.Webhook) string { return h.ID }), err
		})
	register(s, api, s.admin("show-webhook", http.MethodGet, "/webhooks/{id}", "Show a webhook"),
		func(ctx context.Context, in *ByID) (*body[Webhook], error) {
			hook, err := s.authority.Webhook(ctx, in.ID)
			return &body[Webhook]{showWebhook(ctx, hook)}, err
		})
	register(s, api, s.admin("update-webhook", http.MethodPatch, "/webhooks/{id}", "Change a webhook, or disable or enable it"),
		func(ctx context.Context, in *webhookChangeInput) (*body[Webhook], error) {
			b := in.Body
			hook, err := s.authority.UpdateWebhook(ctx, in.ID, webhookFields(b.URL, b.Description, b.Events, b.Disabled))
			return &body[Webhook]{showWebhook(ctx, hook)}, err
		})
	register(s, api, s.admin("delete-webhook", http.MethodDelete, "/webhooks/{id}", "Remove a webhook with what waits for it"),
		func(ctx context.Context, in *ByID) (*struct{}, error) {
			return nil, s.authority.DeleteWebhook(ctx, in.ID)
		})
	rotate := s.admin("rotate-webhook-secret", http.MethodPost, "/webhooks/{id}/rotate", "Give a webhook another secret, beside which the one before signs for a while")
	rotate.DefaultStatus = http.StatusOK
	register(s, api, rotate, func(ctx context.Context, in *webhookRotationInput) (*body[WebhookWithSecret], error) {
		overlap := control.SecretOverlap
		if in.Body.OverlapSeconds != nil {
			overlap = time.Duration(*in.Body.OverlapSeconds) * time.Second
		}
		rotated, err := s.authority.RotateWebhookSecret(ctx, in.ID, overlap)
		return &body[WebhookWithSecret]{WebhookWithSecret{Webhook: showWebhook(ctx, rotated.Webhook), Secret: rotated.Secret}}, err
	})
	test := s.admin("test-webhook", http.MethodPost, "/webhooks/{id}/test", "Send a webhook a message of the type webhook.test")
	test.DefaultStatus = http.StatusOK
	test.Description = "It is tried once. What became of it is among the deliveries."
	register(s, api, test, func(ctx context.Context, in *ByID) (*body[Delivery], error) {
		made, err := s.authority.TestWebhook(ctx, in.ID)
		return &body[Delivery]{showDelivery(made)}, err
	})
	register(s, api, s.admin("list-webhook-deliveries", http.MethodGet, "/webhooks/{id}/deliveries", "List messages for a webhook, newest first"),
		func(ctx context.Context, in *deliveryListInput) (*body[List[Delivery]], error) {
			list, err := s.authority.Deliveries(ctx, in.ID, control.DeliveryState(in.State), in.page())
			return listOf(in.Paging, list, showDelivery, func(d control.Delivery) string { return d.ID }), err
		})
	again := s.admin("redeliver-webhook", http.MethodPost, "/webhooks/{id}/redeliver", "Send messages again that were delivered or given up")
	again.DefaultStatus = http.StatusOK
	register(s, api, again, func(ctx context.Context, in *redeliveryInput) (*body[Redelivered], error) {
		n, err := s.authority.Redeliver(ctx, in.ID, in.Body.DeliveryIDs)
		return &body[Redelivered]{Redelivered{n}}, err
	})
}
