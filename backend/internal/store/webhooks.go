package store

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

const webhookColumns = "id, url, description, events, disabled_at, disabled_why, failing_since, failures, succeeded_at, created_at"

func scanWebhook(r row) (h control.Webhook, err error) {
	var events []string
	err = r.Scan(&h.ID, &h.URL, &h.Description, words{&events}, maybeMoment{&h.DisabledAt}, &h.DisabledWhy, maybeMoment{&h.FailingSince}, &h.Failures,
		maybeMoment{&h.SucceededAt}, moment{&h.CreatedAt})
	for _, event := range events {
		h.Events = append(h.Events, control.NoticeType(event))
	}
	return h, err
}

func eventsOf(h control.Webhook) string {
	texts := make([]string, 0, len(h.Events))
	for _, event := range h.Events {
		texts = append(texts, string(event))
	}
	return strings.Join(texts, " ")
}

func (t *tx) InsertWebhook(ctx context.Context, h control.Webhook) error {
	_, err := t.exec(ctx, "", "INSERT INTO webhooks ("+webhookColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
		h.ID, h.URL, h.Description, eventsOf(h), nullMicros(h.DisabledAt), string(h.DisabledWhy), nullMicros(h.FailingSince), h.Failures,
		nullMicros(h.SucceededAt), micros(h.CreatedAt))
	return err
}

const generationColumns = "webhook_id, generation, sealed, ends_at, created_at"

func scanWebhookSecret(r row) (s control.SealedWebhookSecret, err error) {
	err = r.Scan(&s.WebhookID, &s.Generation, &s.Sealed, maybeMoment{&s.EndsAt}, moment{&s.CreatedAt})
	return s, err
}

func (t *tx) Webhook(ctx context.Context, id string) (control.Webhook, error) {
	hook, err := one(ctx, t, scanWebhook, "SELECT "+webhookColumns+" FROM webhooks WHERE id = $1"+t.held("webhooks"), id)
	if err != nil {
		return hook, err
	}
	hook.Secrets, err = many(ctx, t, scanWebhookSecret,
		"SELECT "+generationColumns+" FROM webhook_secrets WHERE webhook_id = $1 ORDER BY generation DESC", id)
	return hook, err
}

func (t *tx) Webhooks(ctx context.Context, page control.Page) ([]control.Webhook, error) {
	return part(ctx, t, scanWebhook, ordered("SELECT "+webhookColumns+" FROM webhooks", "id", page), page)
}

func (t *tx) EnabledWebhooks(ctx context.Context) ([]control.Webhook, error) {
	return many(ctx, t, scanWebhook, "SELECT "+webhookColumns+" FROM webhooks WHERE disabled_at IS NULL ORDER BY id LIMIT $1", control.MaxWebhooks)
}

func (t *tx) CountWebhooks(ctx context.Context) (int, error) {
	return one(ctx, t, scanCount, "SELECT COUNT(*) FROM webhooks")
}

func (t *tx) UpdateWebhook(ctx context.Context, h control.Webhook) error {
	return t.execOne(ctx, "", "UPDATE webhooks SET url = $2, description = $3, events = $4, disabled_at = $5, disabled_why = $6 WHERE id = $1",
		h.ID, h.URL, h.Description, eventsOf(h), nullMicros(h.DisabledAt), string(h.DisabledWhy))
}

func (t *tx) DisableWebhook(ctx context.Context, id string, why control.WebhookDisabled, at time.Time) error {
	return t.execOne(ctx, "", "UPDATE webhooks SET disabled_at = $2, disabled_why = $3 WHERE id = $1 AND disabled_at IS NULL", id, micros(at), string(why))
}

func (t *tx) NoteWebhook(ctx context.Context, h control.Webhook) error {
	return t.execOne(ctx, "", "UPDATE webhooks SET failing_since = $2, failures = $3, succeeded_at = $4 WHERE id = $1",
		h.ID, nullMicros(h.FailingSince), h.Failures, nullMicros(h.SucceededAt))
}

func (t *tx) DeleteWebhook(ctx context.Context, id string) error {
	return t.execOne(ctx, "", "DELETE FROM webhooks WHERE id = $1", id)
}

func (t *tx) InsertWebhookSecret(ctx context.Context, s control.SealedWebhookSecret) error {
	_, err := t.exec(ctx, "the webhook is gone", "INSERT INTO webhook_secrets ("+generationColumns+") VALUES ($1, $2, $3, $4, $5)",
		s.WebhookID, s.Generation, s.Sealed, nullMicros(s.EndsAt), micros(s.CreatedAt))
	return err
}

func (t *tx) EndWebhookSecret(ctx context.Context, webhookID string, generation int64, at time.Time) error {
	return t.execOne(ctx, "", "UPDATE webhook_secrets SET ends_at = $3 WHERE webhook_id = $1 AND generation = $2", webhookID, generation, micros(at))
}

func (t *tx) DropWebhookSecrets(ctx context.Context, webhookID string, before int64) error {
	_, err := t.exec(ctx, "", "DELETE FROM webhook_secrets WHERE webhook_id = $1 AND generation < $2", webhookID, before)
	return err
}

func (t *tx) PruneWebhookSecrets(ctx context.Context, endedBefore time.Time, limit int) (int, error) {
	return t.exec(ctx, "", `DELETE FROM webhook_secrets WHERE (webhook_id, generation) IN (
		SELECT webhook_id, generation FROM webhook_secrets WHERE ends_at < $1 LIMIT $2)`, micros(endedBefore), limit)
}

const deliveryColumns = "id, webhook_id, event_id, type, object_id, payload, state, attempts, next_at, tried_at, ended_at, status, failure, created_at"

func scanDelivery(r row) (d control.Delivery, err error) {
	err = r.Scan(&d.Position, &d.ID, &d.WebhookID, &d.EventID, &d.Type, &d.ObjectID, &d.Payload, &d.State, &d.Attempts, moment{&d.NextAt},
		maybeMoment{&d.TriedAt}, maybeMoment{&d.EndedAt}, &d.Status, &d.Failure, moment{&d.CreatedAt})
	return d, err
}

// InsertDelivery takes the next position. Who holds an object gives its messages
// positions that grow; those of others may be seen in another order.
func (t *tx) InsertDelivery(ctx context.Context, d control.Delivery) error {
	_, err := t.exec(ctx, "", "INSERT INTO webhook_deliveries ("+deliveryColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)",
		d.ID, d.WebhookID, d.EventID, string(d.Type), d.ObjectID, d.Payload, string(d.State), d.Attempts, micros(d.NextAt),
		nullMicros(d.TriedAt), nullMicros(d.EndedAt), d.Status, string(d.Failure), micros(d.CreatedAt))
	return err
}

func (t *tx) CountPending(ctx context.Context, webhookID string, limit int) (int, error) {
	return one(ctx, t, scanCount, "SELECT COUNT(*) FROM (SELECT 1 FROM webhook_deliveries WHERE webhook_id = $1 AND state = 'pending' LIMIT $2) AS waiting",
		webhookID, limit)
}

func (t *tx) CountDeliveries(ctx context.Context, webhookID string) (pending, dead int, err error) {
	const count = "SELECT COUNT(*) FROM webhook_deliveries WHERE webhook_id = $1 AND state = "
	pending, err = one(ctx, t, scanCount, count+"'pending'", webhookID)
	if err == nil {
		dead, err = one(ctx, t, scanCount, count+"'dead'", webhookID)
	}
	return pending, dead, err
}

func (t *tx) Deliveries(ctx context.Context, webhookID string, state control.DeliveryState, page control.Page) ([]control.Delivery, error) {
	return part(ctx, t, scanDelivery, deliveriesOf(webhookID, state, page), page)
}

func deliveriesOf(webhookID string, state control.DeliveryState, page control.Page) *listing {
	l := &listing{from: "SELECT position, " + deliveryColumns + " FROM webhook_deliveries", order: "id DESC"}
	l.that("webhook_id = ?", webhookID)
	l.equal("state", string(state))
	if page.After != "" {
		l.that("id < ?", page.After)
	}
	return l
}

func (t *tx) DueWebhooks(ctx context.Context, now time.Time) ([]string, error) {
	return many(ctx, t, scanText, `SELECT w.id FROM webhooks w WHERE w.disabled_at IS NULL
		AND EXISTS (SELECT 1 FROM webhook_deliveries d WHERE d.webhook_id = w.id AND d.state = 'pending' AND d.next_at <= $1) ORDER BY w.id`, micros(now))
}

// dueDeliveries selects the first $3 messages for webhook $1 that are to be tried at $2
// and have none about the same object before them.
const dueDeliveries = `SELECT d.position FROM webhook_deliveries d
	WHERE d.webhook_id = $1 AND d.state = 'pending' AND d.next_at <= $2 AND NOT EXISTS (
		SELECT 1 FROM webhook_deliveries e
		WHERE e.webhook_id = d.webhook_id AND e.object_id = d.object_id AND e.state = 'pending' AND e.position < d.position)
	ORDER BY d.next_at, d.position LIMIT $3`

func (t *tx) ClaimDeliveries(ctx context.Context, webhookID string, now, until time.Time, limit int) ([]control.Delivery, error) {
	return many(ctx, t, scanDelivery, "WITH due AS MATERIALIZED ("+dueDeliveries+t.unheld("d")+`)
		UPDATE webhook_deliveries SET attempts = attempts + 1, next_at = $4 WHERE position IN (SELECT position FROM due)
		RETURNING position, `+deliveryColumns, webhookID, micros(now), limit, micros(until))
}

func (t *tx) EndAttempt(ctx context.Context, d control.Delivery) (bool, error) {
	return t.execIf(ctx, "", `UPDATE webhook_deliveries SET state = $3, next_at = $4, tried_at = $5, ended_at = $6, status = $7, failure = $8
		WHERE position = $1 AND attempts = $2 AND state = 'pending'`,
		d.Position, d.Attempts, string(d.State), micros(d.NextAt), nullMicros(d.TriedAt), nullMicros(d.EndedAt), d.Status, string(d.Failure))
}

func (t *tx) Redeliver(ctx context.Context, webhookID string, ids []string, now time.Time, limit int) (int, error) {
	l := &listing{from: "SELECT position FROM webhook_deliveries", order: "position"}
	l.that("webhook_id = ?", webhookID)
	if len(ids) == 0 {
		l.that("state = 'dead'")
	} else {
		args := make([]any, 0, len(ids))
		for _, id := range ids {
			args = append(args, id)
		}
		l.that("state <> 'pending'")
		l.that("id IN ("+strings.Repeat("?, ", len(args)-1)+"?)", args...)
	}
	query, args := l.query(limit)
	args = append(args, micros(now))
	return t.exec(ctx, "", "UPDATE webhook_deliveries SET state = 'pending', attempts = 0, ended_at = NULL, next_at = "+placeholder(len(args))+
		" WHERE position IN ("+query+")", args...)
}

// placeholder is that of the nth argument.
func placeholder(n int) string { return "$" + strconv.Itoa(n) }

func (t *tx) WebhookSummary(ctx context.Context) (control.WebhookSummary, error) {
	return one(ctx, t, func(r row) (s control.WebhookSummary, err error) {
		err = r.Scan(&s.Webhooks, &s.Disabled, &s.Pending, &s.Dead, maybeMoment{&s.Oldest})
		return s, err
	}, `SELECT (SELECT COUNT(*) FROM webhooks), (SELECT COUNT(*) FROM webhooks WHERE disabled_at IS NOT NULL AND disabled_why <> 'operator'),
		COUNT(*), (SELECT COUNT(*) FROM webhook_deliveries x WHERE x.state = 'dead'), MIN(d.created_at)
		FROM webhook_deliveries d JOIN webhooks w ON w.id = d.webhook_id WHERE d.state = 'pending' AND w.disabled_at IS NULL`)
}

func (t *tx) PruneDeliveries(ctx context.Context, deliveredBefore, createdBefore time.Time, keep, limit int) (int, error) {
	deleted := 0
	remove := func(condition string, args ...any) error {
		if deleted >= limit {
			return nil
		}
		args = append(args, limit-deleted)
		n, err := t.exec(ctx, "", "DELETE FROM webhook_deliveries WHERE position IN (SELECT position FROM webhook_deliveries WHERE "+condition+
			" LIMIT "+placeholder(len(args))+")", args...)
		deleted += n
		return err
	}
	if err := remove("ended_at < $1 AND (state = 'delivered' OR created_at < $2)", micros(deliveredBefore), micros(createdBefore)); err != nil {
		return deleted, err
	}
	hooks, err := many(ctx, t, scanText, "SELECT id FROM webhooks ORDER BY id")
	for _, id := range hooks {
		for _, condition := range []struct {
			text string
			arg  any
		}{
			{"webhook_id = $1 AND created_at < $2 AND state = 'pending'", micros(createdBefore)}, // of those that are disabled
			{`webhook_id = $1 AND state <> 'pending' AND position < COALESCE((
				SELECT position FROM webhook_deliveries WHERE webhook_id = $1 AND state <> 'pending' ORDER BY position DESC LIMIT 1 OFFSET $2), 0)`, keep - 1},
		} {
			if err == nil {
				err = remove(condition.text, id, condition.arg)
			}
		}
	}
	return deleted, err
}

const untoldEnds = "SELECT " + subscriptionColumns + ` FROM subscriptions s
	WHERE s.ends_at IS NOT NULL AND s.ends_at <> s.end_told AND s.ends_at <= $1 ORDER BY s.ends_at LIMIT $2`

func (t *tx) UntoldEnds(ctx context.Context, now time.Time, limit int) ([]control.Subscription, error) {
	return many(ctx, t, scanSubscription, untoldEnds, micros(now), limit)
}

func (t *tx) TellEnd(ctx context.Context, id string, end time.Time) (bool, error) {
	return t.execIf(ctx, "", "UPDATE subscriptions SET end_told = ends_at WHERE id = $1 AND ends_at = $2 AND end_told <> ends_at", id, micros(end))
}

func (t *tx) ChangedGateways(ctx context.Context, now time.Time, limit int) ([]control.Gateway, error) {
	l := &listing{from: "SELECT " + gatewayColumns + gatewayTables, order: "g.id"}
	l.that("g.joined_at IS NOT NULL AND (g.down_at IS NULL AND g.lease_until <= ? OR g.down_at IS NOT NULL AND g.lease_until > ?)", micros(now), micros(now))
	return part(ctx, t, scanGateway, l, control.Page{Limit: limit})
}

func (t *tx) SetGatewayDown(ctx context.Context, id string, since *time.Time) error {
	return t.execOne(ctx, "", "UPDATE gateways SET down_at = $2 WHERE id = $1", id, nullMicros(since))
}
