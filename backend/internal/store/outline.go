package store

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

// outlineColumns end with the number of sessions, which sessions selects.
func outlineColumns(sessions string) string {
	return `o.id, o.name, o.region_id, r.code, o.host, o.port, o.weight, o.priority, o.capacity, o.managed, o.fallback, o.disabled_at,
		o.health, o.health_since, o.probed_at, o.down_at, k.generation, k.cipher, k.prefix, k.created_at, o.created_at, ` + sessions
}

const (
	outlineTables = ` FROM outline_servers o JOIN regions r ON r.id = o.region_id
		JOIN outline_keys k ON k.server_id = o.id AND k.generation = (SELECT MAX(n.generation) FROM outline_keys n WHERE n.server_id = o.id)`

	// exitsOf counts the sessions that have the server that server names.
	exitsOf  = "(SELECT COUNT(*) FROM sessions x WHERE x.ended_at IS NULL AND x.outline_server_id = "
	outlined = exitsOf + "o.id)"
)

func scanOutline(r row) (s control.OutlineServer, err error) {
	err = r.Scan(&s.ID, &s.Name, &s.RegionID, &s.Region, &s.Host, &s.Port, &s.Weight, &s.Priority, &s.Capacity, &s.Managed, &s.Fallback,
		maybeMoment{&s.DisabledAt}, &s.Health.State, maybeMoment{&s.Health.Since}, maybeMoment{&s.Health.ProbedAt}, maybeMoment{&s.Health.DownAt},
		&s.Key.Generation, &s.Key.Cipher, someBytes{&s.Key.Prefix}, moment{&s.Key.CreatedAt}, moment{&s.CreatedAt}, &s.Sessions)
	return s, err
}

// someBytes scans a column, of which no byte is nil on both engines.
type someBytes struct{ into *[]byte }

// Scan implements sql.Scanner.
func (b someBytes) Scan(src any) error {
	raw, ok := src.([]byte)
	if !ok && src != nil {
		return fmt.Errorf("%T is not bytes", src)
	}
	*b.into = nil
	if len(raw) > 0 {
		*b.into = bytes.Clone(raw)
	}
	return nil
}

// flag is a boolean as both engines keep it.
func flag(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

const outlineClash = "there is an Outline server with this name or this address"

func (t *tx) InsertOutlineServer(ctx context.Context, s control.OutlineServer) error {
	_, err := t.exec(ctx, outlineClash, `INSERT INTO outline_servers
		(id, name, region_id, host, port, weight, priority, capacity, managed, fallback, disabled_at, health, created_at)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)`,
		s.ID, s.Name, s.RegionID, s.Host, s.Port, s.Weight, s.Priority, s.Capacity, flag(s.Managed), flag(s.Fallback),
		nullMicros(s.DisabledAt), string(s.Health.State), micros(s.CreatedAt))
	return err
}

func (t *tx) OutlineServer(ctx context.Context, id string) (control.OutlineServer, error) {
	return one(ctx, t, scanOutline, "SELECT "+outlineColumns(outlined)+outlineTables+" WHERE o.id = $1"+t.held("o"), id)
}

func (t *tx) PeekOutlineServer(ctx context.Context, id string) (control.OutlineServer, error) {
	return one(ctx, t, scanOutline, "SELECT "+outlineColumns("0")+outlineTables+" WHERE o.id = $1", id)
}

func (t *tx) OutlineServers(ctx context.Context, f control.OutlineFilter, page control.Page) ([]control.OutlineServer, error) {
	return part(ctx, t, scanOutline, outlineServersThat(f, page), page)
}

func outlineServersThat(f control.OutlineFilter, page control.Page) *listing {
	l := ordered("SELECT "+outlineColumns(outlined)+outlineTables, "o.id", page)
	l.equal("o.name", f.Name)
	l.equal("o.region_id", f.RegionID)
	return l
}

func (t *tx) UpdateOutlineServer(ctx context.Context, s control.OutlineServer) error {
	return t.execOne(ctx, outlineClash, `UPDATE outline_servers SET name = $2, region_id = $3, host = $4, port = $5, weight = $6, priority = $7,
		capacity = $8, managed = $9, fallback = $10, disabled_at = $11 WHERE id = $1`,
		s.ID, s.Name, s.RegionID, s.Host, s.Port, s.Weight, s.Priority, s.Capacity, flag(s.Managed), flag(s.Fallback), nullMicros(s.DisabledAt))
}

func (t *tx) DeleteOutlineServer(ctx context.Context, id string) error {
	return t.execOne(ctx, "", "DELETE FROM outline_servers WHERE id = $1", id)
}

const outlineKeyColumns = "server_id, generation, cipher, prefix, sealed, created_at"

func scanOutlineKey(r row) (k control.SealedOutlineKey, err error) {
	err = r.Scan(&k.ServerID, &k.Generation, &k.Cipher, someBytes{&k.Prefix}, &k.Sealed, moment{&k.CreatedAt})
	return k, err
}

func (t *tx) PutOutlineKey(ctx context.Context, k control.SealedOutlineKey) error {
	prefix := k.Prefix
	if prefix == nil {
		prefix = []byte{} // nil would be NULL
	}
	_, err := t.exec(ctx, "", "INSERT INTO outline_keys ("+outlineKeyColumns+") VALUES ($1, $2, $3, $4, $5, $6)",
		k.ServerID, k.Generation, string(k.Cipher), prefix, k.Sealed, micros(k.CreatedAt))
	if err == nil {
		_, err = t.exec(ctx, "", "DELETE FROM outline_keys WHERE server_id = $1 AND generation < $2", k.ServerID, k.Generation)
	}
	return err
}

func (t *tx) OutlineKey(ctx context.Context, serverID string) (control.SealedOutlineKey, error) {
	return one(ctx, t, scanOutlineKey, "SELECT "+outlineKeyColumns+" FROM outline_keys WHERE server_id = $1 ORDER BY generation DESC LIMIT 1", serverID)
}

func (t *tx) OutlineChoices(ctx context.Context, region string, limit int) ([]control.OutlineServer, error) {
	return many(ctx, t, scanOutline, "SELECT "+outlineColumns("0")+outlineTables+` WHERE o.disabled_at IS NULL AND (r.code = $1 OR o.fallback = 1)
		ORDER BY CASE WHEN r.code = $1 THEN 0 ELSE 1 END, o.priority, o.id LIMIT $2`, region, limit)
}

const countExits = "SELECT COUNT(*) FROM sessions WHERE ended_at IS NULL AND outline_server_id = $1"

func (t *tx) CountOutlineSessions(ctx context.Context, serverID string) (int, error) {
	return one(ctx, t, scanCount, countExits, serverID)
}

func scanExit(r row) (e control.SessionExit, err error) {
	err = r.Scan(append(sessionFields(&e.Session), &e.BeforeID, maybeMoment{&e.SwitchedAt})...)
	return e, err
}

func (t *tx) SessionExit(ctx context.Context, sessionID string) (control.SessionExit, error) {
	return one(ctx, t, scanExit, "SELECT "+sessionColumns+", s.outline_before, s.outline_switched_at FROM sessions s WHERE s.id = $1"+t.held("s"), sessionID)
}

const takeExit = `UPDATE sessions SET outline_server_id = $2, outline_before = $3, outline_switched_at = $4
	WHERE id = $1 AND ended_at IS NULL AND ` + exitsOf + `$2 AND x.id <> $1) < $5`

func (t *tx) TakeExit(ctx context.Context, e control.SessionExit, capacity int) (bool, error) {
	return t.execIf(ctx, "", takeExit, e.ID, e.OutlineServerID, e.BeforeID, nullMicros(e.SwitchedAt), capacity)
}

func (t *tx) LeaveExit(ctx context.Context, gatewayID, sessionID string) error {
	_, err := t.exec(ctx, "", `UPDATE sessions SET outline_server_id = NULL
		WHERE id = $1 AND gateway_id = $2 AND ended_at IS NULL`, sessionID, gatewayID)
	return err
}

const probeColumns = "server_id, gateway_id, streak, failure, latency, probed_at"

func scanProbe(r row) (p control.OutlineProbe, err error) {
	var latency int64
	err = r.Scan(&p.ServerID, &p.GatewayID, &p.Streak, &p.Failure, &latency, moment{&p.ProbedAt})
	p.Latency = time.Duration(latency) * time.Microsecond
	return p, err
}

func (t *tx) OutlineProbe(ctx context.Context, serverID, gatewayID string) (control.OutlineProbe, error) {
	return one(ctx, t, scanProbe, "SELECT "+probeColumns+" FROM outline_probes WHERE server_id = $1 AND gateway_id = $2", serverID, gatewayID)
}

func (t *tx) PutOutlineProbe(ctx context.Context, p control.OutlineProbe) error {
	_, err := t.exec(ctx, "the gateway or the Outline server is gone", "INSERT INTO outline_probes ("+probeColumns+`) VALUES ($1, $2, $3, $4, $5, $6)
		ON CONFLICT (server_id, gateway_id) DO UPDATE SET
			streak = excluded.streak, failure = excluded.failure, latency = excluded.latency, probed_at = excluded.probed_at`,
		p.ServerID, p.GatewayID, p.Streak, string(p.Failure), p.Latency.Microseconds(), micros(p.ProbedAt))
	return err
}

func (t *tx) OutlineProbes(ctx context.Context, serverID string, since time.Time, limit int) ([]control.OutlineProbe, error) {
	return many(ctx, t, scanProbe, "SELECT "+probeColumns+` FROM outline_probes
		WHERE server_id = $1 AND probed_at >= $2 ORDER BY gateway_id LIMIT $3`, serverID, micros(since), limit)
}

func (t *tx) SetOutlineHealth(ctx context.Context, serverID string, h control.OutlineHealth) error {
	return t.execOne(ctx, "", "UPDATE outline_servers SET health = $2, health_since = $3, probed_at = $4, down_at = $5 WHERE id = $1",
		serverID, string(h.State), nullMicros(h.Since), nullMicros(h.ProbedAt), nullMicros(h.DownAt))
}

// outlineGroup is the servers that are in a state.
type outlineGroup struct {
	state             control.OutlineState
	servers, capacity int
}

func scanOutlineGroup(r row) (g outlineGroup, err error) {
	err = r.Scan(&g.state, &g.servers, &g.capacity)
	return g, err
}

func (t *tx) OutlineSummary(ctx context.Context, since time.Time) (control.OutlineSummary, error) {
	groups, err := many(ctx, t, scanOutlineGroup, `SELECT state, COUNT(*), CAST(SUM(capacity) AS BIGINT) FROM (
			SELECT CASE WHEN disabled_at IS NOT NULL THEN 'disabled' WHEN probed_at IS NULL OR probed_at < $1 THEN 'unknown' ELSE health END AS state, capacity
			FROM outline_servers) AS s
		GROUP BY state`, micros(since))
	if err != nil {
		return control.OutlineSummary{}, err
	}
	summary := control.OutlineSummary{Servers: make(map[control.OutlineState]int)}
	for _, g := range groups {
		summary.Servers[g.state] = g.servers
		if g.state == control.OutlineUp || g.state == control.OutlineUnknown {
			summary.Capacity += g.capacity
		}
	}
	summary.Sessions, err = one(ctx, t, scanCount, "SELECT COUNT(*) FROM sessions WHERE ended_at IS NULL AND outline_server_id IS NOT NULL")
	return summary, err
}
