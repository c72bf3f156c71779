package store

import (
	"context"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

const quotaColumns = "subscription_id, from_bucket, to_bucket, used, warned, warn_at, counted_at"

func scanQuota(r row) (u control.QuotaUse, err error) {
	err = r.Scan(&u.SubscriptionID, &u.From, &u.To, &u.Used, &u.Warned, &u.WarnAt, moment{&u.CountedAt})
	return u, err
}

func (t *tx) Quota(ctx context.Context, subscriptionID string) (control.QuotaUse, error) {
	return one(ctx, t, scanQuota, "SELECT "+quotaColumns+" FROM quotas WHERE subscription_id = $1"+t.held("quotas"), subscriptionID)
}

func (t *tx) PutQuota(ctx context.Context, u control.QuotaUse) error {
	_, err := t.exec(ctx, "the subscription is gone", "INSERT INTO quotas ("+quotaColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (subscription_id) DO UPDATE SET from_bucket = excluded.from_bucket, to_bucket = excluded.to_bucket, used = excluded.used,
			warned = excluded.warned, warn_at = excluded.warn_at, counted_at = excluded.counted_at`,
		u.SubscriptionID, u.From, u.To, u.Used, u.Warned, u.WarnAt, micros(u.CountedAt))
	return err
}

const leaseColumns = "subscription_id, gateway_id, boot_id, version, allowance, booked, used, ends_at"

func scanLease(r row) (l control.QuotaLease, err error) {
	err = r.Scan(&l.SubscriptionID, &l.GatewayID, &l.BootID, &l.Version, &l.Allowance, &l.Booked, &l.Used, moment{&l.EndsAt})
	return l, err
}

func (t *tx) QuotaLease(ctx context.Context, subscriptionID, gatewayID, bootID string) (control.QuotaLease, error) {
	return one(ctx, t, scanLease, "SELECT "+leaseColumns+` FROM quota_leases
		WHERE subscription_id = $1 AND gateway_id = $2 AND boot_id = $3`, subscriptionID, gatewayID, bootID)
}

func (t *tx) PutQuotaLease(ctx context.Context, l control.QuotaLease) error {
	_, err := t.exec(ctx, "the subscription is gone", "INSERT INTO quota_leases ("+leaseColumns+`) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (subscription_id, gateway_id, boot_id) DO UPDATE SET version = excluded.version, allowance = excluded.allowance,
			booked = excluded.booked, used = excluded.used, ends_at = excluded.ends_at`,
		l.SubscriptionID, l.GatewayID, l.BootID, l.Version, l.Allowance, l.Booked, l.Used, micros(l.EndsAt))
	return err
}

// maxBooked is the largest number that is added to.
const maxBooked = 1 << 61

func (t *tx) BookQuotaLease(ctx context.Context, subscriptionID, gatewayID, bootID string, bytes int64) error {
	_, err := t.exec(ctx, "", `UPDATE quota_leases SET booked = booked + $4
		WHERE subscription_id = $1 AND gateway_id = $2 AND boot_id = $3 AND booked <= $5`,
		subscriptionID, gatewayID, bootID, min(bytes, maxBooked), int64(maxBooked))
	return err
}

func (t *tx) QuotaReserved(ctx context.Context, subscriptionID, gatewayID, bootID string, now, since time.Time) (int64, error) {
	return one(ctx, t, scanNumber, `SELECT CAST(COALESCE(SUM(CASE
			WHEN ends_at > $4 AND allowance > booked THEN allowance - booked
			WHEN ends_at <= $4 AND ends_at >= $5 AND used > booked THEN used - booked
			ELSE 0 END), 0) AS BIGINT)
		FROM quota_leases WHERE subscription_id = $1 AND NOT (gateway_id = $2 AND boot_id = $3)`,
		subscriptionID, gatewayID, bootID, micros(now), micros(since))
}

func (t *tx) UsageOfProcess(ctx context.Context, subscriptionID, gatewayID, bootID string) (control.Traffic, error) {
	return one(ctx, t, scanSums, "SELECT "+halves("up")+", "+halves("down")+` FROM usage_sessions
		WHERE subscription_id = $1 AND gateway_id = $2 AND boot_id = $3`, subscriptionID, gatewayID, bootID)
}

func (t *tx) PruneQuotaLeases(ctx context.Context, endedBefore, unreportedBefore time.Time, limit int) (int, error) {
	return t.exec(ctx, "", `WITH ended AS MATERIALIZED (
			SELECT l.subscription_id, l.gateway_id, l.boot_id FROM quota_leases l
			WHERE l.ends_at < $1 AND (l.used <= l.booked OR l.ends_at < $2) LIMIT $3`+t.unheld("l")+`)
		DELETE FROM quota_leases WHERE (subscription_id, gateway_id, boot_id) IN (SELECT subscription_id, gateway_id, boot_id FROM ended)`,
		micros(endedBefore), micros(unreportedBefore), limit)
}
