package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

// BulkObjects begins with what is rare of the conditions, as a set of ids: engines
// look up these and not every user.
func (t *tx) BulkObjects(ctx context.Context, r control.BulkRequest, now time.Time, limit int, add func(control.BulkObject)) error {
	l := &listing{order: "u.id, object"}
	subject := "u.id AS object, u.id AS user_id, u.name, '' AS before FROM users u"
	f := r.Filter
	switch r.Action {
	case control.BulkDisable:
		l.that("u.disabled_at IS NULL")
	case control.BulkEnable:
		l.that("u.id IN (SELECT id FROM users WHERE disabled_at IS NOT NULL)")
	case control.BulkRevoke:
		subject = "d.id AS object, u.id AS user_id, u.name, d.name AS before FROM users u JOIN devices d ON d.user_id = u.id"
		l.that("d.revoked_at IS NULL")
	case control.BulkMove:
		subject = "s.id AS object, u.id AS user_id, u.name, s.plan_id AS before FROM users u JOIN subscriptions s ON s.user_id = u.id"
		l.that("s.plan_id <> ? AND (s.awaits_use = 1 OR s.ends_at IS NULL OR s.ends_at > ?)", r.PlanID, micros(now))
		l.equal("s.plan_id", f.PlanID)
	case control.BulkExtend:
		subject = "s.id AS object, u.id AS user_id, u.name, CAST(s.ends_at AS TEXT) AS before FROM users u JOIN subscriptions s ON s.user_id = u.id"
		// The one that ends last of a user's, or of those to the plan.
		later := "x.user_id = s.user_id AND x.awaits_use = 0 AND (x.ends_at IS NULL OR x.ends_at > s.ends_at OR x.ends_at = s.ends_at AND x.id > s.id)"
		l.that("s.awaits_use = 0 AND s.ends_at IS NOT NULL")
		if f.PlanID != "" {
			l.that("s.plan_id = ? AND NOT EXISTS (SELECT 1 FROM subscriptions x WHERE "+later+" AND x.plan_id = ?)", f.PlanID, f.PlanID)
		} else {
			l.that("NOT EXISTS (SELECT 1 FROM subscriptions x WHERE " + later + ")")
		}
		if r.EndsAt != nil {
			l.that("s.ends_at < ?", micros(*r.EndsAt))
		}
	case control.BulkLimit:
		subject = "u.id AS object, u.id AS user_id, u.name, " + limitText + " AS before FROM users u"
	case control.BulkDelete, control.BulkInvite:
	}
	t.selectUsers(l, f)
	l.from = "SELECT " + subject
	query, args := l.query(limit)
	_, err := many(ctx, t, func(row row) (none struct{}, err error) {
		var o control.BulkObject
		if err := row.Scan(&o.ObjectID, &o.UserID, &o.UserName, &o.Before); err != nil {
			return none, err
		}
		add(o)
		return none, nil
	}, query, args...)
	return err
}

// limitText is the limits of a user u as one text.
var limitText = func() string {
	var parts []string
	for _, column := range []string{
		"max_devices", "max_sessions", "max_streams", "max_udp", "speed_up_bps", "speed_down_bps", "quota_bytes", "quota_period", "own_regions",
	} {
		parts = append(parts, "COALESCE(CAST(u."+column+" AS TEXT), '')")
	}
	parts = append(parts, "COALESCE((SELECT string_agg(x.region_id, ' ' ORDER BY x.region_id) FROM user_regions x WHERE x.user_id = u.id), '')")
	return strings.Join(parts, " || '/' || ")
}()

// selectUsers adds the conditions of a filter on users u.
func (t *tx) selectUsers(l *listing, f control.BulkFilter) {
	if len(f.UserIDs) > 0 {
		args := make([]any, 0, len(f.UserIDs))
		for _, id := range f.UserIDs {
			args = append(args, id)
		}
		l.that("u.id IN ("+strings.TrimSuffix(strings.Repeat("?, ", len(args)), ", ")+")", args...)
	}
	if f.Search != "" {
		found := t.search("", "users", f.Search, control.Page{})
		condition := strings.Join(found.where, " AND ")
		for i := range found.args { // from its own numbers to the next of l
			condition = strings.Replace(condition, fmt.Sprint("$", i+1), "?", 1)
		}
		l.that("u.id IN (SELECT id FROM users WHERE "+condition+")", found.args...)
	}
	if f.PlanID != "" {
		l.that("u.id IN (SELECT y.user_id FROM subscriptions y WHERE y.plan_id = ?)", f.PlanID)
	}
	if f.RegionID != "" {
		l.that("u.id IN (SELECT y.user_id FROM subscriptions y JOIN plan_regions z ON z.plan_id = y.plan_id WHERE z.region_id = ?)", f.RegionID)
	}
	if f.Disabled != nil && *f.Disabled {
		l.that("u.id IN (SELECT id FROM users WHERE disabled_at IS NOT NULL)")
	}
	if f.Disabled != nil && !*f.Disabled {
		l.that("u.disabled_at IS NULL")
	}
	if f.ExpiredBefore != nil {
		l.that(`u.id IN (SELECT y.user_id FROM subscriptions y WHERE y.ends_at IS NOT NULL AND y.ends_at < ?)
			AND NOT EXISTS (SELECT 1 FROM subscriptions z WHERE z.user_id = u.id AND (z.ends_at IS NULL OR z.ends_at >= ?))`,
			micros(*f.ExpiredBefore), micros(*f.ExpiredBefore))
	}
	if f.NoSessionSince != nil {
		// Sessions that have ended are kept for a while only; devices are longer.
		l.that(`NOT EXISTS (SELECT 1 FROM sessions y WHERE y.user_id = u.id AND y.ended_at IS NULL)
			AND NOT EXISTS (SELECT 1 FROM sessions y WHERE y.user_id = u.id AND y.started_at >= ?)
			AND NOT EXISTS (SELECT 1 FROM devices y WHERE y.user_id = u.id AND y.last_seen_at >= ?)`, micros(*f.NoSessionSince), micros(*f.NoSessionSince))
	}
}

const bulkColumns = "id, operator_id, request, objects, done, failed, created_at"

func scanBulkJob(r row) (j control.BulkJob, err error) {
	var request string
	if err := r.Scan(&j.ID, &j.OperatorID, &request, &j.Objects, &j.Done, &j.Failed, moment{&j.CreatedAt}); err != nil {
		return j, err
	}
	return j, json.Unmarshal([]byte(request), &j.Request)
}

// bulkPart is how many objects one statement adds: six values each.
const bulkPart = 500

func (t *tx) InsertBulkJob(ctx context.Context, j control.BulkJob, objects []control.BulkObject) error {
	request, err := json.Marshal(j.Request)
	if err != nil {
		return fmt.Errorf("marshal bulk request: %w", err)
	}
	if _, err := t.exec(ctx, "", "INSERT INTO bulk_jobs ("+bulkColumns+") VALUES ($1, $2, $3, $4, 0, 0, $5)",
		j.ID, j.OperatorID, string(request), j.Objects, micros(j.CreatedAt)); err != nil {
		return err
	}
	for part := range slices.Chunk(objects, bulkPart) {
		var text strings.Builder
		text.WriteString("INSERT INTO bulk_objects (job_id, position, user_id, user_name, object_id, state, error) VALUES ")
		args := []any{j.ID}
		for i, o := range part {
			if i > 0 {
				text.WriteString(", ")
			}
			n := len(args)
			fmt.Fprintf(&text, "($1, $%d, $%d, $%d, $%d, '', '')", n+1, n+2, n+3, n+4)
			args = append(args, o.Position, o.UserID, o.UserName, o.ObjectID)
		}
		if _, err := t.exec(ctx, "", text.String(), args...); err != nil {
			return err
		}
	}
	return nil
}

func (t *tx) BulkJob(ctx context.Context, id string) (control.BulkJob, error) {
	return one(ctx, t, scanBulkJob, "SELECT "+bulkColumns+" FROM bulk_jobs WHERE id = $1"+t.held("bulk_jobs"), id)
}

func (t *tx) BulkJobs(ctx context.Context, page control.Page) ([]control.BulkJob, error) {
	return part(ctx, t, scanBulkJob, ordered("SELECT "+bulkColumns+" FROM bulk_jobs", "id", page), page)
}

const bulkObjectColumns = "position, user_id, user_name, object_id, error"

func scanBulkObject(r row) (o control.BulkObject, err error) {
	err = r.Scan(&o.Position, &o.UserID, &o.UserName, &o.ObjectID, &o.Error)
	return o, err
}

func (t *tx) NextBulkObject(ctx context.Context, jobID string) (control.BulkObject, error) {
	return one(ctx, t, scanBulkObject, "SELECT "+bulkObjectColumns+" FROM bulk_objects WHERE job_id = $1 AND state = '' ORDER BY position LIMIT 1", jobID)
}

func (t *tx) EndBulkObject(ctx context.Context, jobID string, o control.BulkObject) error {
	state, count := "done", "done = done + 1"
	if o.Error != "" {
		state, count = "failed", "failed = failed + 1"
	}
	changed, err := t.execIf(ctx, "", "UPDATE bulk_objects SET state = $3, error = $4 WHERE job_id = $1 AND position = $2 AND state = ''",
		jobID, o.Position, state, o.Error)
	if err != nil || !changed {
		return err
	}
	return t.execOne(ctx, "", "UPDATE bulk_jobs SET "+count+" WHERE id = $1", jobID)
}

func (t *tx) BulkFailures(ctx context.Context, jobID string, limit int) ([]control.BulkObject, error) {
	return many(ctx, t, scanBulkObject, "SELECT "+bulkObjectColumns+" FROM bulk_objects WHERE job_id = $1 AND state = 'failed' ORDER BY position LIMIT $2", jobID, limit)
}

func (t *tx) PruneBulkJobs(ctx context.Context, createdBefore time.Time, limit int) (int, error) {
	n, err := t.exec(ctx, "", `DELETE FROM bulk_objects WHERE (job_id, position) IN (
		SELECT o.job_id, o.position FROM bulk_jobs j JOIN bulk_objects o ON o.job_id = j.id WHERE j.created_at < $1 LIMIT $2)`, micros(createdBefore), limit)
	if err != nil || n >= limit {
		return n, err
	}
	jobs, err := t.exec(ctx, "", `DELETE FROM bulk_jobs WHERE created_at < $1 AND NOT EXISTS (SELECT 1 FROM bulk_objects o WHERE o.job_id = bulk_jobs.id)`, micros(createdBefore))
	return min(n+jobs, limit-1), err
}
