package store

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

const deviceColumns = "id, user_id, name, platform, public_key, generation, revoked_at, last_seen_at, created_at"

func scanDevice(r row) (d control.Device, err error) {
	var key []byte
	err = r.Scan(&d.ID, &d.UserID, &d.Name, &d.Platform, &key, &d.Generation,
		maybeMoment{&d.RevokedAt}, maybeMoment{&d.LastSeenAt}, moment{&d.CreatedAt})
	d.PublicKey = key
	return d, err
}

// Parameters of an INSERT … SELECT are cast, because PostgreSQL cannot see
// their types from the columns they end up in.

func (t *tx) InsertDevice(ctx context.Context, d control.Device, limit int) (bool, error) {
	return t.execIf(ctx, "this key is enrolled already", `INSERT INTO devices
		(id, user_id, name, platform, public_key, generation, created_at)
		SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS `+t.sql.bytes+`), CAST($6 AS BIGINT), CAST($7 AS BIGINT)
		WHERE (SELECT COUNT(*) FROM devices WHERE user_id = $2 AND revoked_at IS NULL) < $8`,
		d.ID, d.UserID, d.Name, d.Platform, []byte(d.PublicKey), d.Generation, micros(d.CreatedAt), limit)
}

func (t *tx) Device(ctx context.Context, id string) (control.Device, error) {
	return one(ctx, t, scanDevice, "SELECT "+deviceColumns+" FROM devices WHERE id = $1"+t.held("devices"), id)
}

func (t *tx) Devices(ctx context.Context, userID string, page control.Page) ([]control.Device, error) {
	return part(ctx, t, scanDevice, devicesOf(userID, page), page)
}

func devicesOf(userID string, page control.Page) *listing {
	l := ordered("SELECT "+deviceColumns+" FROM devices", "id", page)
	l.equal("user_id", userID)
	return l
}

func (t *tx) DevicesInUse(ctx context.Context, userID string, limit int) ([]control.Device, error) {
	return many(ctx, t, scanDevice, "SELECT "+deviceColumns+` FROM devices WHERE user_id = $1 AND revoked_at IS NULL
		ORDER BY COALESCE(last_seen_at, created_at), id LIMIT $2`, userID, limit)
}

func (t *tx) SearchDevices(ctx context.Context, words string, page control.Page) ([]control.Device, error) {
	return part(ctx, t, scanDevice, t.search("SELECT "+deviceColumns+" FROM devices", "devices", words, page), page)
}

func (t *tx) RenameDevice(ctx context.Context, id, name string) error {
	return t.execOne(ctx, "", "UPDATE devices SET name = $2 WHERE id = $1", id, name)
}

func (t *tx) RevokeDevice(ctx context.Context, id string, at time.Time) error {
	return t.execOne(ctx, "", "UPDATE devices SET revoked_at = COALESCE(revoked_at, $2) WHERE id = $1", id, micros(at))
}

func (t *tx) TouchDevice(ctx context.Context, id string, at time.Time) error {
	return t.execOne(ctx, "", "UPDATE devices SET last_seen_at = $2 WHERE id = $1", id, micros(at))
}

func scanRefusal(r row) (f control.Refusal, err error) {
	err = r.Scan(&f.DeviceID, &f.Reason, &f.GatewayID, moment{&f.At})
	return f, err
}

func (t *tx) NoteRefusal(ctx context.Context, r control.Refusal, since time.Time) error {
	_, err := t.exec(ctx, "", `INSERT INTO device_refusals AS known (device_id, reason, gateway_id, at) VALUES ($1, $2, $3, $4)
		ON CONFLICT (device_id) DO UPDATE SET reason = excluded.reason, gateway_id = excluded.gateway_id, at = excluded.at
		WHERE known.at < $5 OR known.reason <> excluded.reason OR known.gateway_id <> excluded.gateway_id`,
		r.DeviceID, string(r.Reason), r.GatewayID, micros(r.At), micros(since))
	return err
}

func (t *tx) LastRefusal(ctx context.Context, deviceID string) (control.Refusal, error) {
	return one(ctx, t, scanRefusal, "SELECT device_id, reason, gateway_id, at FROM device_refusals WHERE device_id = $1", deviceID)
}

const sessionColumns = `s.id, s.device_id, s.user_id, s.subscription_id, s.gateway_id, s.boot_id, s.started_at, s.ended_at, s.end_reason, s.close_reason,
	COALESCE(s.outline_server_id, '')`

func sessionFields(s *control.Session) []any {
	return []any{
		&s.ID, &s.DeviceID, &s.UserID, &s.SubscriptionID, &s.GatewayID, &s.BootID,
		moment{&s.StartedAt},
		maybeMoment{&s.EndedAt},
		&s.EndReason,
		&s.CloseReason,
		&s.OutlineServerID,
	}
}

func scanSession(r row) (s control.Session, err error) {
	err = r.Scan(sessionFields(&s)...)
	return s, err
}

func scanListedSession(r row) (s control.Session, err error) {
	var live int
	err = r.Scan(append(sessionFields(&s), &live)...)
	s.Live = live == 1
	return s, err
}

func (t *tx) StartSession(ctx context.Context, s control.Session, now time.Time, limit int) (bool, error) {
	return t.execIf(ctx, "", `INSERT INTO sessions
		(id, device_id, user_id, subscription_id, gateway_id, boot_id, started_at, end_reason)
		SELECT CAST($1 AS TEXT), CAST($2 AS TEXT), CAST($3 AS TEXT), CAST($4 AS TEXT), CAST($5 AS TEXT), CAST($6 AS TEXT), CAST($7 AS BIGINT), ''
		WHERE (
			SELECT COUNT(*) FROM sessions s JOIN gateways g ON g.id = s.gateway_id
			WHERE s.user_id = $3 AND s.ended_at IS NULL AND g.lease_until > $8
				AND NOT (s.device_id = $2 AND (g.drained_at IS NOT NULL OR g.leaving = 1))
		) < $9`,
		s.ID, s.DeviceID, s.UserID, s.SubscriptionID, s.GatewayID, s.BootID, micros(s.StartedAt), micros(now), limit)
}

func (t *tx) Session(ctx context.Context, id string) (control.Session, error) {
	return one(ctx, t, scanSession, "SELECT "+sessionColumns+" FROM sessions s WHERE s.id = $1"+t.held("s"), id)
}

func (t *tx) Sessions(ctx context.Context, f control.SessionFilter, now time.Time, page control.Page) ([]control.Session, error) {
	return part(ctx, t, scanListedSession, sessionsThat(f, now, page), page)
}

func sessionsThat(f control.SessionFilter, now time.Time, page control.Page) *listing {
	l := &listing{
		from: "SELECT " + sessionColumns + `, CASE WHEN s.ended_at IS NULL AND g.lease_until > $1 THEN 1 ELSE 0 END
			FROM sessions s LEFT JOIN gateways g ON g.id = s.gateway_id`,
		order: "s.started_at DESC, s.id DESC", args: []any{micros(now)},
	}
	switch f.State {
	case control.LiveSessions:
		l.that("s.ended_at IS NULL AND g.lease_until > $1")
	case control.EndedSessions:
		l.that("(s.ended_at IS NOT NULL OR g.lease_until IS NULL OR g.lease_until <= $1)")
	case control.AllSessions:
	}
	l.equal("s.user_id", f.UserID)
	l.equal("s.device_id", f.DeviceID)
	l.equal("s.gateway_id", f.GatewayID)
	if page.After != "" {
		l.that("(s.started_at, s.id) < (SELECT a.started_at, a.id FROM sessions a WHERE a.id = ?)", page.After)
	}
	return l
}

func (t *tx) EndSessions(ctx context.Context, gatewayID string, ends []control.SessionEnd, at time.Time) error {
	// In one order for all, so that nobody waits for somebody who waits for him.
	ends = slices.SortedFunc(slices.Values(ends), func(a, b control.SessionEnd) int { return cmp.Compare(a.ID, b.ID) })
	for _, end := range ends {
		// A session that had been given up as lost gets its true end.
		_, err := t.exec(ctx, "", `UPDATE sessions SET ended_at = $3, end_reason = $4
			WHERE id = $1 AND gateway_id = $2 AND (ended_at IS NULL OR end_reason = 'gateway_lost')`,
			end.ID, gatewayID, micros(at), end.Reason)
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) EndOtherBoots(ctx context.Context, gatewayID, bootID, reason string, at time.Time) error {
	_, err := t.exec(ctx, "", `UPDATE sessions SET ended_at = $3, end_reason = $4
		WHERE gateway_id = $1 AND boot_id <> $2 AND ended_at IS NULL`, gatewayID, bootID, micros(at), reason)
	return err
}

func (t *tx) EndLostSessions(ctx context.Context, leaseBefore time.Time, reason string, at time.Time, limit int) (int, error) {
	return t.exec(ctx, "", `WITH lost AS MATERIALIZED (
			SELECT s.id FROM sessions s LEFT JOIN gateways g ON g.id = s.gateway_id
			WHERE s.ended_at IS NULL AND (g.id IS NULL OR g.lease_until < $1) LIMIT $4`+t.unheld("s")+`)
		UPDATE sessions SET ended_at = $2, end_reason = $3 WHERE id IN (SELECT id FROM lost)`,
		micros(leaseBefore), micros(at), reason, limit)
}

func scanUnwanted(r row) (u control.UnwantedSession, err error) {
	err = r.Scan(&u.ID, &u.Lost, &u.Asked, &u.DeviceGone, &u.DeviceRevoked, &u.UserDisabled, &u.Expired)
	return u, err
}

func (t *tx) UnwantedSessions(ctx context.Context, gatewayID string, now time.Time, limit int) ([]control.UnwantedSession, error) {
	// Two short lists instead of one OR, which would keep the indexes from use.
	lost, err := many(ctx, t, scanUnwanted, `SELECT s.id, 1, '', 0, 0, 0, 0
		FROM sessions s JOIN gateways g ON g.id = s.gateway_id
		WHERE s.gateway_id = $1 AND s.end_reason = 'gateway_lost' AND s.boot_id = g.boot_id ORDER BY s.id LIMIT $2`,
		gatewayID, limit)
	if err != nil || len(lost) == limit {
		return lost, err
	}
	live, err := many(ctx, t, scanUnwanted, `SELECT s.id, 0, s.close_reason,
			CASE WHEN d.id IS NULL THEN 1 ELSE 0 END,
			CASE WHEN d.revoked_at IS NULL THEN 0 ELSE 1 END,
			CASE WHEN u.disabled_at IS NULL THEN 0 ELSE 1 END,
			CASE WHEN EXISTS (SELECT 1 FROM subscriptions x WHERE x.user_id = s.user_id AND x.ends_at <= $2) THEN 1 ELSE 0 END
		FROM sessions s LEFT JOIN devices d ON d.id = s.device_id LEFT JOIN users u ON u.id = s.user_id
		WHERE s.gateway_id = $1 AND s.ended_at IS NULL AND (
			s.close_reason <> '' OR d.id IS NULL OR d.revoked_at IS NOT NULL OR u.disabled_at IS NOT NULL OR NOT EXISTS (
				SELECT 1 FROM subscriptions x
				WHERE x.user_id = s.user_id AND x.starts_at <= $2 AND (x.ends_at IS NULL OR x.ends_at > $2)))
		ORDER BY s.id LIMIT $3`, gatewayID, micros(now), limit-len(lost))
	return append(lost, live...), err
}
