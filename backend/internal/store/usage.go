package store

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

const reportColumns = "gateway_id, boot_id, session_id, sequence, up, down, counted_at, received_at, fault"

func scanReport(r row) (u control.UsageReport, err error) {
	err = r.Scan(&u.GatewayID, &u.BootID, &u.SessionID, &u.Sequence, &u.Up, &u.Down, moment{&u.CountedAt}, moment{&u.ReceivedAt}, &u.Fault)
	return u, err
}

func scanTraffic(r row) (u control.Traffic, err error) {
	err = r.Scan(&u.Up, &u.Down)
	return u, err
}

// half of a number of bytes is what sums are made of: the reports of one gateway
// that lies can make a sum leave 64 bits, which is an error on both engines, and would
// take the whole account away from everybody else.
const half = 1 << 32

// halves are the sums of the two halves of a column of bytes, none of which is below zero.
func halves(column string) string {
	return fmt.Sprintf("CAST(COALESCE(SUM((%[1]s) / %[2]d), 0) AS BIGINT), CAST(COALESCE(SUM((%[1]s) %% %[2]d), 0) AS BIGINT)", column, int64(half))
}

// halved is a sum as halves selects it.
type halved struct{ high, low int64 }

// whole returns the sum, or as much as a number can say.
func (h halved) whole() int64 {
	high := h.high + h.low/half
	if high >= math.MaxInt64/half {
		return math.MaxInt64
	}
	return high*half + h.low%half
}

func scanSums(r row) (u control.Traffic, err error) {
	var up, down halved
	err = r.Scan(&up.high, &up.low, &down.high, &down.low)
	return control.Traffic{Up: up.whole(), Down: down.whole()}, err
}

const ofCounter = " WHERE gateway_id = $1 AND boot_id = $2 AND session_id = $3"

func (t *tx) UsageReport(ctx context.Context, k control.UsageKey, sequence int64) (control.UsageReport, error) {
	return one(ctx, t, scanReport, "SELECT "+reportColumns+" FROM usage_reports"+ofCounter+" AND sequence = $4",
		k.GatewayID, k.BootID, k.SessionID, sequence)
}

func (t *tx) UsageBefore(ctx context.Context, k control.UsageKey, sequence int64) (control.Traffic, error) {
	return one(ctx, t, scanTraffic, "SELECT COALESCE(MAX(up), 0), COALESCE(MAX(down), 0) FROM usage_reports"+ofCounter+" AND sequence < $4",
		k.GatewayID, k.BootID, k.SessionID, sequence)
}

func (t *tx) UsageAfter(ctx context.Context, k control.UsageKey, sequence int64, limit int) ([]control.UsageReport, error) {
	return many(ctx, t, scanReport, "SELECT "+reportColumns+" FROM usage_reports"+ofCounter+" AND sequence > $4 ORDER BY sequence LIMIT $5",
		k.GatewayID, k.BootID, k.SessionID, sequence, limit)
}

func (t *tx) PutUsageReport(ctx context.Context, r control.UsageReport) error {
	_, err := t.exec(ctx, "", "INSERT INTO usage_reports ("+reportColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
		ON CONFLICT (gateway_id, boot_id, session_id, sequence) DO UPDATE SET up = excluded.up, down = excluded.down, fault = excluded.fault`,
		r.GatewayID, r.BootID, r.SessionID, r.Sequence, r.Up, r.Down, micros(r.CountedAt), micros(r.ReceivedAt), string(r.Fault))
	return err
}

const counterColumns = `gateway_id, boot_id, session_id, device_id, user_id, subscription_id, sequence, up, down, faults, counted_at, received_at`

func scanCounter(r row) (s control.UsageSession, err error) {
	err = r.Scan(&s.GatewayID, &s.BootID, &s.SessionID, &s.DeviceID, &s.UserID, &s.SubscriptionID, &s.Sequence, &s.Up, &s.Down, &s.Faults,
		moment{&s.CountedAt}, moment{&s.ReceivedAt})
	return s, err
}

func (t *tx) UsageSession(ctx context.Context, k control.UsageKey) (control.UsageSession, error) {
	return one(ctx, t, scanCounter, "SELECT "+counterColumns+" FROM usage_sessions"+ofCounter+t.held("usage_sessions"),
		k.GatewayID, k.BootID, k.SessionID)
}

func (t *tx) InsertUsageSession(ctx context.Context, s control.UsageSession, compactAt time.Time) error {
	_, err := t.exec(ctx, "", "INSERT INTO usage_sessions ("+counterColumns+", compact_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
		s.GatewayID, s.BootID, s.SessionID, s.DeviceID, s.UserID, s.SubscriptionID, s.Sequence, s.Up, s.Down, s.Faults,
		micros(s.CountedAt), micros(s.ReceivedAt), micros(compactAt))
	return err
}

func (t *tx) UpdateUsageSession(ctx context.Context, s control.UsageSession, compactAt time.Time) error {
	return t.execOne(ctx, "", `UPDATE usage_sessions SET sequence = $4, up = $5, down = $6, faults = $7, counted_at = $8, received_at = $9,
		compact_at = COALESCE(compact_at, $10)`+ofCounter,
		s.GatewayID, s.BootID, s.SessionID, s.Sequence, s.Up, s.Down, s.Faults, micros(s.CountedAt), micros(s.ReceivedAt), micros(compactAt))
}

func (t *tx) UsageOwner(ctx context.Context, sessionID string) (control.Session, error) {
	return one(ctx, t, scanSession, "SELECT "+sessionColumns+" FROM sessions s WHERE s.id = $1", sessionID)
}

// maxBucket is the largest sum of a bucket. What one request adds fits on top of
// it, so no sum leaves 64 bits.
const maxBucket = 1 << 62

// beyondMeasure says that a sum has no room for more.
const beyondMeasure = "the usage of a quarter of an hour is beyond all measure: the gateway's counters are wrong"

func (t *tx) AddUsage(ctx context.Context, s control.UsageSum) (planID string, err error) {
	if s.Up < 0 || s.Down < 0 { // what moves to another bucket is in this one
		return one(ctx, t, scanText, `UPDATE usage_buckets SET up = up + $4, down = down + $5, totalled = totalled + 1
			WHERE subscription_id = $1 AND bucket = $2 AND gateway_id = $3 RETURNING plan_id`, s.SubscriptionID, s.Bucket, s.GatewayID, s.Up, s.Down)
	}
	planID, err = one(ctx, t, scanText, `INSERT INTO usage_buckets (subscription_id, bucket, gateway_id, up, down, totalled, plan_id)
		VALUES ($1, $2, $3, $4, $5, 1, COALESCE((SELECT s.plan_id FROM subscriptions s WHERE s.id = $1), ''))
		ON CONFLICT (subscription_id, bucket, gateway_id) DO UPDATE SET up = usage_buckets.up + excluded.up, down = usage_buckets.down + excluded.down,
			totalled = usage_buckets.totalled + 1
		WHERE usage_buckets.up <= $6 AND usage_buckets.down <= $6 RETURNING plan_id`,
		s.SubscriptionID, s.Bucket, s.GatewayID, s.Up, s.Down, int64(maxBucket))
	if errors.Is(err, control.ErrNotFound) {
		return "", &control.ConflictError{Detail: beyondMeasure}
	}
	return planID, err
}

func (t *tx) AddUsageTotal(ctx context.Context, u control.UsageTotal) error {
	if u.Up < 0 || u.Down < 0 {
		return t.execOne(ctx, "", "UPDATE usage_totals SET up = up + $4, down = down + $5 WHERE bucket = $1 AND gateway_id = $2 AND plan_id = $3",
			u.Bucket, u.GatewayID, u.PlanID, u.Up, u.Down)
	}
	done, err := t.execIf(ctx, "", `INSERT INTO usage_totals (bucket, gateway_id, plan_id, region_id, up, down)
		VALUES ($1, $2, $3, COALESCE((SELECT g.region_id FROM gateways g WHERE g.id = $2), ''), $4, $5)
		ON CONFLICT (bucket, gateway_id, plan_id) DO UPDATE SET up = usage_totals.up + excluded.up, down = usage_totals.down + excluded.down
		WHERE usage_totals.up <= $6 AND usage_totals.down <= $6`,
		u.Bucket, u.GatewayID, u.PlanID, u.Up, u.Down, int64(maxBucket))
	if err == nil && !done {
		return &control.ConflictError{Detail: beyondMeasure}
	}
	return err
}

func (t *tx) UsedBytes(ctx context.Context, subscriptionID string, from, to int64) (control.Traffic, error) {
	return one(ctx, t, scanSums, "SELECT "+halves("up")+", "+halves("down")+` FROM usage_buckets
		WHERE subscription_id = $1 AND bucket >= $2 AND bucket < $3`, subscriptionID, from, to)
}

// recount is each report of the counters that the condition selects with what it
// adds: what it has more than all with lower numbers.
func recount(condition string) string {
	const sofar = " OVER (PARTITION BY r.gateway_id, r.boot_id, r.session_id ORDER BY r.sequence ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)"
	return `said AS (
		SELECT s.subscription_id, r.gateway_id, r.boot_id, r.session_id, r.counted_at, r.up, r.down,
			COALESCE(MAX(r.up)` + sofar + `, 0) AS up_before, COALESCE(MAX(r.down)` + sofar + `, 0) AS down_before
		FROM usage_sessions s JOIN usage_reports r
			ON r.gateway_id = s.gateway_id AND r.boot_id = s.boot_id AND r.session_id = s.session_id
		WHERE ` + condition + `
	), added AS (
		SELECT subscription_id, gateway_id, boot_id, session_id, counted_at,
			CASE WHEN up > up_before THEN up - up_before ELSE 0 END AS up,
			CASE WHEN down > down_before THEN down - down_before ELSE 0 END AS down
		FROM said
	)`
}

const day = 24 * time.Hour

func scanUsageDay(r row) (d control.UsageDay, err error) {
	var number int64
	var up, down halved
	err = r.Scan(&number, &up.high, &up.low, &down.high, &down.low)
	d.Up, d.Down = up.whole(), down.whole()
	d.Day = time.UnixMicro(number * day.Microseconds()).UTC()
	return d, err
}

func (t *tx) UsageDays(ctx context.Context, f control.UsageFilter, from, to time.Time) ([]control.UsageDay, error) {
	owner, condition := f.UserID, "s.user_id = $1"
	if f.DeviceID != "" {
		owner, condition = f.DeviceID, "s.device_id = $1"
	}
	return many(ctx, t, scanUsageDay, "WITH "+recount(condition)+`
		SELECT counted_at / $4 AS day, `+halves("up")+", "+halves("down")+` FROM added
		WHERE counted_at >= $2 AND counted_at < $3 GROUP BY day HAVING MAX(up) > 0 OR MAX(down) > 0 ORDER BY day DESC`,
		owner, micros(from), micros(to), day.Microseconds())
}

func (t *tx) UsageQuarters(ctx context.Context, f control.UsageFilter, from, to int64, add func(bucket int64, u control.Traffic)) error {
	// A span has more quarters of an hour than are worth keeping: nothing is kept.
	fold := func(r row) (none struct{}, err error) {
		var bucket int64
		var up, down halved
		if err := r.Scan(&bucket, &up.high, &up.low, &down.high, &down.low); err != nil {
			return none, err
		}
		add(bucket, control.Traffic{Up: up.whole(), Down: down.whole()})
		return none, nil
	}
	sums := halves("up") + ", " + halves("down")
	quarter := control.UsageBucket.Microseconds()
	for _, owner := range []struct{ id, condition string }{{f.DeviceID, "s.device_id = $1"}, {f.UserID, "s.user_id = $1"}} {
		if owner.id == "" {
			continue
		}
		_, err := many(ctx, t, fold, "WITH "+recount(owner.condition)+"SELECT counted_at / $4 AS bucket, "+sums+` FROM added
			WHERE counted_at >= $2 AND counted_at < $3 GROUP BY 1`, owner.id, from*quarter, to*quarter, quarter)
		return err
	}
	condition, args := "", []any{from, to}
	for _, owner := range []struct{ id, column string }{{f.GatewayID, "gateway_id"}, {f.RegionID, "region_id"}, {f.PlanID, "plan_id"}} {
		if owner.id != "" {
			condition, args = " AND "+owner.column+" = $3", append(args, owner.id)
			break
		}
	}
	_, err := many(ctx, t, fold, "SELECT bucket, "+sums+" FROM usage_totals WHERE bucket >= $1 AND bucket < $2"+condition+" GROUP BY bucket", args...)
	return err
}

func scanAccount(r row) (v control.UsageVerdict, err error) {
	var up, down, strayUp, strayDown halved
	err = r.Scan(&v.Reports, &v.Sessions, &v.Buckets, &v.Faults, &up.high, &up.low, &down.high, &down.low,
		&strayUp.high, &strayUp.low, &strayDown.high, &strayDown.low)
	v.Total = control.Traffic{Up: up.whole(), Down: down.whole()}
	v.Unattributed = control.Traffic{Up: strayUp.whole(), Down: strayDown.whole()}
	return v, err
}

func (t *tx) UsageAccount(ctx context.Context) (control.UsageVerdict, error) {
	return one(ctx, t, scanAccount, `WITH largest AS (
			SELECT r.gateway_id, r.boot_id, r.session_id, COUNT(*) AS reports, MAX(up) AS up, MAX(down) AS down,
				SUM(CASE WHEN fault <> '' THEN 1 ELSE 0 END) AS faults
			FROM usage_reports r GROUP BY r.gateway_id, r.boot_id, r.session_id)
		SELECT CAST(COALESCE(SUM(l.reports), 0) AS BIGINT), COUNT(*), (SELECT COUNT(*) FROM usage_buckets), CAST(COALESCE(SUM(l.faults), 0) AS BIGINT),
			`+halves("l.up")+", "+halves("l.down")+`,
			`+halves("CASE WHEN s.subscription_id <> '' THEN 0 ELSE l.up END")+`,
			`+halves("CASE WHEN s.subscription_id <> '' THEN 0 ELSE l.down END")+`
		FROM largest l LEFT JOIN usage_sessions s ON s.gateway_id = l.gateway_id AND s.boot_id = l.boot_id AND s.session_id = l.session_id`)
}

func (t *tx) UsageSubscriptions(ctx context.Context, after string, first bool, limit int) ([]string, error) {
	from := 0
	if first {
		from = 1
	}
	return many(ctx, t, scanText, `SELECT subscription_id FROM (
			SELECT subscription_id FROM usage_sessions UNION SELECT subscription_id FROM usage_buckets) AS known
		WHERE subscription_id > $1 OR $2 = 1 ORDER BY subscription_id LIMIT $3`, after, from, limit)
}

func scanDifference(r row) (d control.UsageDifference, err error) {
	var bucket int64
	err = r.Scan(&d.Level, &d.GatewayID, &d.BootID, &d.SessionID, &d.SubscriptionID, &d.PlanID, &bucket, &d.Want.Up, &d.Want.Down, &d.Have.Up, &d.Have.Down)
	if d.Level == control.LevelBucket || d.Level == control.LevelTotal {
		d.Bucket = time.UnixMicro(bucket * control.UsageBucket.Microseconds()).UTC()
	}
	return d, err
}

func (t *tx) UsageOrphans(ctx context.Context, limit int) ([]control.UsageDifference, error) {
	return many(ctx, t, scanDifference, `SELECT 'reports', r.gateway_id, r.boot_id, r.session_id, '', '', 0, MAX(r.up), MAX(r.down), 0, 0
		FROM usage_reports r WHERE NOT EXISTS (SELECT 1 FROM usage_sessions s
			WHERE s.gateway_id = r.gateway_id AND s.boot_id = r.boot_id AND s.session_id = r.session_id)
		GROUP BY r.gateway_id, r.boot_id, r.session_id ORDER BY 2, 3, 4 LIMIT $1`, limit)
}

func (t *tx) SessionDifferences(ctx context.Context, from, to string, limit int) ([]control.UsageDifference, error) {
	return many(ctx, t, scanDifference, `SELECT CASE WHEN w.up = w.have_up AND w.down = w.have_down THEN 'attribution' ELSE 'session' END,
			w.gateway_id, w.boot_id, w.session_id, w.subscription_id, '', 0, w.up, w.down, w.have_up, w.have_down
		FROM (
			SELECT s.gateway_id, s.boot_id, s.session_id, s.device_id, s.user_id, s.subscription_id, s.up AS have_up, s.down AS have_down,
				COALESCE((SELECT MAX(r.up) FROM usage_reports r
					WHERE r.gateway_id = s.gateway_id AND r.boot_id = s.boot_id AND r.session_id = s.session_id), 0) AS up,
				COALESCE((SELECT MAX(r.down) FROM usage_reports r
					WHERE r.gateway_id = s.gateway_id AND r.boot_id = s.boot_id AND r.session_id = s.session_id), 0) AS down
			FROM usage_sessions s WHERE s.subscription_id >= $1 AND s.subscription_id <= $2) AS w
		LEFT JOIN sessions x ON x.id = w.session_id AND x.gateway_id = w.gateway_id
		WHERE w.up <> w.have_up OR w.down <> w.have_down
			OR (w.subscription_id <> '' AND x.id IS NOT NULL
				AND (x.subscription_id <> w.subscription_id OR x.user_id <> w.user_id OR x.device_id <> w.device_id))
		ORDER BY w.gateway_id, w.boot_id, w.session_id LIMIT $3`, from, to, limit)
}

// BucketDifferences adds up what the reports lead to and what there is instead of
// joining them, for which SQLite would look at all of one for each of the other.
func (t *tx) BucketDifferences(ctx context.Context, from, to string, limit int) ([]control.UsageDifference, error) {
	return many(ctx, t, scanDifference, "WITH "+recount("s.subscription_id >= $1 AND s.subscription_id <= $2")+`
		SELECT 'bucket', gateway_id, '', '', subscription_id, '', bucket,
			CAST(SUM(up) AS BIGINT), CAST(SUM(down) AS BIGINT), CAST(SUM(have_up) AS BIGINT), CAST(SUM(have_down) AS BIGINT)
		FROM (
			SELECT subscription_id, counted_at / $4 AS bucket, gateway_id, up, down, 0 AS have_up, 0 AS have_down FROM added
			UNION ALL
			SELECT subscription_id, bucket, gateway_id, 0, 0, up, down FROM usage_buckets WHERE subscription_id >= $1 AND subscription_id <= $2
		) AS booked
		GROUP BY subscription_id, bucket, gateway_id HAVING SUM(up) <> SUM(have_up) OR SUM(down) <> SUM(have_down)
		ORDER BY 5, 7, 2 LIMIT $3`, from, to, limit, control.UsageBucket.Microseconds())
}

func (t *tx) TotalDifferences(ctx context.Context, limit int) ([]control.UsageDifference, error) {
	return many(ctx, t, scanDifference, `SELECT 'total', gateway_id, '', '', '', plan_id, bucket,
			CAST(SUM(up) AS BIGINT), CAST(SUM(down) AS BIGINT), CAST(SUM(have_up) AS BIGINT), CAST(SUM(have_down) AS BIGINT)
		FROM (
			SELECT bucket, gateway_id, plan_id, up, down, 0 AS have_up, 0 AS have_down FROM usage_buckets
			UNION ALL
			SELECT bucket, gateway_id, plan_id, 0, 0, up, down FROM usage_totals
		) AS booked
		GROUP BY bucket, gateway_id, plan_id HAVING SUM(up) <> SUM(have_up) OR SUM(down) <> SUM(have_down)
		ORDER BY 7, 2, 6 LIMIT $1`, limit)
}

func scanKey(r row) (k control.UsageKey, err error) {
	err = r.Scan(&k.GatewayID, &k.BootID, &k.SessionID)
	return k, err
}

func (t *tx) CompactUsage(ctx context.Context, now, before, next time.Time, limit int) (compacted, deleted int, err error) {
	due, err := many(ctx, t, scanKey, `SELECT gateway_id, boot_id, session_id FROM usage_sessions WHERE compact_at <= $1
		ORDER BY gateway_id, boot_id, session_id LIMIT $2`+t.unheld("usage_sessions"), micros(now), limit)
	if err != nil {
		return 0, 0, err
	}
	for _, k := range due {
		// What goes has a successor in its bucket that says no less: without it, the
		// same follows from what is left.
		n, err := t.exec(ctx, "", `DELETE FROM usage_reports`+ofCounter+` AND received_at < $4 AND fault = '' AND EXISTS (
				SELECT 1 FROM usage_reports n WHERE n.gateway_id = $1 AND n.boot_id = $2 AND n.session_id = $3 AND n.sequence = (
						SELECT MIN(m.sequence) FROM usage_reports m WHERE m.gateway_id = $1 AND m.boot_id = $2 AND m.session_id = $3
							AND m.sequence > usage_reports.sequence)
					AND n.counted_at / $5 = usage_reports.counted_at / $5 AND n.up >= usage_reports.up AND n.down >= usage_reports.down)`,
			k.GatewayID, k.BootID, k.SessionID, micros(before), control.UsageBucket.Microseconds())
		if err != nil {
			return 0, 0, err
		}
		deleted += n
		_, err = t.exec(ctx, "", "UPDATE usage_sessions SET compact_at = CASE WHEN received_at >= $4 THEN CAST($5 AS BIGINT) END"+ofCounter,
			k.GatewayID, k.BootID, k.SessionID, micros(before), micros(next))
		if err != nil {
			return 0, 0, err
		}
	}
	return len(due), deleted, nil
}
