package store

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

const eventColumns = "version, kind, gateways, reason, user_id, device_id, subscription_id, plan_id, session_id, keys, outline_server_id, created_at"

func scanEvent(r row) (e control.Event, err error) {
	var gateways sql.Null[string]
	err = r.Scan(&e.Version, &e.Kind, &gateways, &e.Reason, &e.UserID, &e.DeviceID, &e.SubscriptionID, &e.PlanID, &e.SessionID,
		&e.Keys, &e.OutlineServerID, moment{&e.At})
	e.All = !gateways.Valid
	if gateways.V != "" {
		e.Gateways = strings.Split(gateways.V, " ")
	}
	return e, err
}

// AppendEvent keeps the event until the unit of work ends: taking a version makes
// all others that want one wait, so it is the last thing that a unit of work does.
func (t *tx) AppendEvent(e control.Event) { t.events = append(t.events, e) }

// writeEvents gives the unit of work's events their versions.
func (t *tx) writeEvents(ctx context.Context) error {
	if len(t.events) == 0 {
		return nil
	}
	latest, err := one(ctx, t, scanNumber, "UPDATE event_log SET latest = latest + $1 WHERE id = 1 RETURNING latest", len(t.events))
	if err != nil {
		return fmt.Errorf("take event versions: %w", err)
	}
	for i, e := range t.events {
		gateways := sql.Null[string]{V: strings.Join(e.Gateways, " "), Valid: !e.All}
		version := latest - int64(len(t.events)-1-i)
		_, err := t.exec(ctx, "", "INSERT INTO events ("+eventColumns+") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
			version, string(e.Kind), gateways, e.Reason, e.UserID, e.DeviceID, e.SubscriptionID, e.PlanID, e.SessionID, e.Keys, e.OutlineServerID, micros(e.At))
		if err != nil {
			return fmt.Errorf("write event: %w", err)
		}
	}
	return nil
}

func scanNumber(r row) (n int64, err error) {
	err = r.Scan(&n)
	return n, err
}

func scanBounds(r row) (l control.EventLog, err error) {
	err = r.Scan(&l.Latest, &l.Low)
	return l, err
}

func (t *tx) Events(ctx context.Context, after int64, limit int) (control.EventLog, error) {
	log, err := one(ctx, t, scanBounds, "SELECT latest, low FROM event_log WHERE id = 1")
	if err != nil || after >= log.Latest || limit == 0 {
		return log, err
	}
	log.Events, err = many(ctx, t, scanEvent, "SELECT "+eventColumns+" FROM events WHERE version > $1 ORDER BY version LIMIT $2", after, limit)
	return log, err
}

func (t *tx) GatewaysOfUser(ctx context.Context, userID string, limit int) ([]string, error) {
	return many(ctx, t, scanText, "SELECT DISTINCT gateway_id FROM sessions WHERE user_id = $1 ORDER BY gateway_id LIMIT $2", userID, limit)
}

func (t *tx) AskClose(ctx context.Context, sessionID, reason string) (bool, error) {
	return t.execIf(ctx, "", "UPDATE sessions SET close_reason = $2 WHERE id = $1 AND ended_at IS NULL AND close_reason = ''", sessionID, reason)
}

func (t *tx) PruneEvents(ctx context.Context, before time.Time, keep, limit int) (int, error) {
	// Whoever appends waits, and only the oldest go: what is left has no gap.
	log, err := one(ctx, t, scanBounds, "UPDATE event_log SET low = low WHERE id = 1 RETURNING latest, low")
	if err != nil {
		return 0, err
	}
	young, err := one(ctx, t, scanNumber, "SELECT COALESCE(MIN(version), $2) FROM events WHERE created_at >= $1", micros(before), log.Latest+1)
	if err != nil {
		return 0, err
	}
	low := min(max(young-1, log.Latest-int64(keep)), log.Low+int64(limit))
	if low <= log.Low {
		return 0, nil
	}
	if _, err := t.exec(ctx, "", "UPDATE event_log SET low = $1 WHERE id = 1", low); err != nil {
		return 0, err
	}
	return t.exec(ctx, "", "DELETE FROM events WHERE version <= $1", low)
}
