package store

import (
	"context"
	"strings"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

const regionColumns = "id, code, name, created_at"

func scanRegion(r row) (g control.Region, err error) {
	err = r.Scan(&g.ID, &g.Code, &g.Name, moment{&g.CreatedAt})
	return g, err
}

const regionClash = "there is a region with this code"

func (t *tx) InsertRegion(ctx context.Context, r control.Region) error {
	_, err := t.exec(ctx, regionClash, "INSERT INTO regions ("+regionColumns+") VALUES ($1, $2, $3, $4)",
		r.ID, r.Code, r.Name, micros(r.CreatedAt))
	return err
}

func (t *tx) Region(ctx context.Context, id string) (control.Region, error) {
	return one(ctx, t, scanRegion, "SELECT "+regionColumns+" FROM regions WHERE id = $1"+t.held("regions"), id)
}

func (t *tx) RegionByCode(ctx context.Context, code string) (control.Region, error) {
	return one(ctx, t, scanRegion, "SELECT "+regionColumns+" FROM regions WHERE code = $1"+t.held("regions"), code)
}

func (t *tx) Regions(ctx context.Context, code string, page control.Page) ([]control.Region, error) {
	return many(ctx, t, scanRegion, "SELECT "+regionColumns+` FROM regions
		WHERE id > $1 AND ($2 = '' OR code = $2) ORDER BY id LIMIT $3`, page.After, code, page.Limit)
}

func (t *tx) UpdateRegion(ctx context.Context, r control.Region) error {
	return t.execOne(ctx, regionClash, "UPDATE regions SET code = $2, name = $3 WHERE id = $1", r.ID, r.Code, r.Name)
}

func (t *tx) DeleteRegion(ctx context.Context, id string) error {
	return t.execOne(ctx, "the region has gateways or Outline servers, or a plan or a user's limits name it", "DELETE FROM regions WHERE id = $1", id)
}

const gatewayColumns = `g.id, g.name, g.region_id, r.code, g.join_code_hash, g.join_expires_at, g.joined_at, g.public_key,
	g.url, g.version, g.boot_id, g.lease_until, g.sessions, g.streams, g.drained_at, g.leaving, g.clock_offset, g.down_at, g.created_at`

const gatewayTables = " FROM gateways g JOIN regions r ON r.id = g.region_id "

func scanGateway(r row) (g control.Gateway, err error) {
	var (
		key     []byte
		leaving int
		offset  int64
	)
	err = r.Scan(&g.ID, &g.Name, &g.RegionID, &g.Region, &g.JoinCodeHash, moment{&g.JoinExpiresAt}, maybeMoment{&g.JoinedAt}, &key,
		&g.URL, &g.Version, &g.BootID, maybeMoment{&g.LeaseUntil}, &g.Sessions, &g.Streams,
		maybeMoment{&g.DrainedAt}, &leaving, &offset, maybeMoment{&g.DownAt}, moment{&g.CreatedAt})
	g.PublicKey, g.Leaving, g.ClockOffset = key, leaving == 1, time.Duration(offset)*time.Microsecond
	return g, err
}

func (t *tx) InsertGateway(ctx context.Context, g control.Gateway) error {
	_, err := t.exec(ctx, "the region is gone", `INSERT INTO gateways
		(id, name, region_id, join_code_hash, join_expires_at, url, version, boot_id, sessions, streams, created_at)
		VALUES ($1, $2, $3, $4, $5, '', '', '', 0, 0, $6)`,
		g.ID, g.Name, g.RegionID, g.JoinCodeHash, micros(g.JoinExpiresAt), micros(g.CreatedAt))
	return err
}

func (t *tx) Gateway(ctx context.Context, id string) (control.Gateway, error) {
	return one(ctx, t, scanGateway, "SELECT "+gatewayColumns+gatewayTables+"WHERE g.id = $1"+t.held("g"), id)
}

func (t *tx) GatewayByJoinCode(ctx context.Context, codeHash []byte) (control.Gateway, error) {
	return one(ctx, t, scanGateway, "SELECT "+gatewayColumns+gatewayTables+"WHERE g.join_code_hash = $1"+t.held("g"), codeHash)
}

func (t *tx) Gateways(ctx context.Context, regionID string, page control.Page) ([]control.Gateway, error) {
	return part(ctx, t, scanGateway, gatewaysIn(regionID, page), page)
}

func gatewaysIn(regionID string, page control.Page) *listing {
	l := ordered("SELECT "+gatewayColumns+gatewayTables, "g.id", page)
	l.equal("g.region_id", regionID)
	return l
}

func (t *tx) LiveGateways(ctx context.Context, now time.Time, regions []string, limit int) ([]control.Gateway, error) {
	l := &listing{from: "SELECT " + gatewayColumns + gatewayTables, order: "g.id"}
	l.that("g.lease_until > ? AND g.drained_at IS NULL AND g.leaving = 0", micros(now))
	if len(regions) > 0 {
		codes := make([]any, 0, len(regions))
		for _, code := range regions {
			codes = append(codes, code)
		}
		l.that("r.code IN ("+strings.Repeat("?, ", len(codes)-1)+"?)", codes...)
	}
	return part(ctx, t, scanGateway, l, control.Page{Limit: limit})
}

func (t *tx) RedeemJoin(ctx context.Context, id string, j control.Joined) (bool, error) {
	return t.execIf(ctx, "this key has joined already", `UPDATE gateways
		SET public_key = $2, url = $3, version = $4, joined_at = $5
		WHERE id = $1 AND joined_at IS NULL AND join_expires_at > $5`,
		id, []byte(j.PublicKey), j.URL, j.Version, micros(j.At))
}

func (t *tx) RenewLease(ctx context.Context, id string, l control.Lease) (bool, error) {
	const renew = `UPDATE gateways SET boot_id = $2, lease_until = $3,
			url = CASE WHEN $4 = '' THEN url ELSE $4 END, version = CASE WHEN $5 = '' THEN version ELSE $5 END,
			sessions = COALESCE($6, sessions), streams = COALESCE($7, streams), leaving = COALESCE($8, leaving),
			clock_offset = COALESCE($9, clock_offset)
		WHERE id = $1`
	var (
		leaving *int
		offset  *int64
	)
	if l.Leaving != nil {
		leaving = new(oneIf(*l.Leaving))
	}
	if l.ClockOffset != nil {
		offset = new(l.ClockOffset.Microseconds())
	}
	args := []any{id, l.BootID, micros(l.Until), l.URL, l.Version, l.Sessions, l.Streams, leaving, offset}
	if same, err := t.execIf(ctx, "", renew+" AND boot_id = $2", args...); err != nil || same {
		return false, err
	}
	return true, t.execOne(ctx, "", renew, args...)
}

func (t *tx) SetDrained(ctx context.Context, id string, at *time.Time) error {
	return t.execOne(ctx, "", "UPDATE gateways SET drained_at = $2 WHERE id = $1", id, nullMicros(at))
}

func (t *tx) DeleteGateway(ctx context.Context, id string) error {
	return t.execOne(ctx, "", "DELETE FROM gateways WHERE id = $1", id)
}
