package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/httvps/httvps/backend/internal/control"
)

// limitColumns are of a user u, in the order of limitFields. The regions are NULL when
// they are the plans', and their codes otherwise: none of them means all.
const limitColumns = `u.max_devices, u.max_sessions, u.max_streams, u.max_udp, u.speed_up_bps, u.speed_down_bps, u.quota_bytes, u.quota_period,
	CASE WHEN u.own_regions = 1 THEN COALESCE((SELECT string_agg(r.code, ' ' ORDER BY r.code)
		FROM user_regions x JOIN regions r ON r.id = x.region_id WHERE x.user_id = u.id), '') END`

func limitFields(l *control.Limits) []any {
	return []any{
		&l.MaxDevices, &l.MaxSessions, &l.MaxStreams, &l.MaxUDP, &l.SpeedUpBPS, &l.SpeedDownBPS, &l.QuotaBytes, &l.QuotaPeriod, maybeWords{&l.Regions},
	}
}

func (t *tx) UpdateLimits(ctx context.Context, u control.User) error {
	l := u.Limits
	var period any
	if l.QuotaPeriod != nil {
		period = string(*l.QuotaPeriod)
	}
	err := t.execOne(ctx, "", `UPDATE users SET max_devices = $2, max_sessions = $3, max_streams = $4, max_udp = $5, speed_up_bps = $6,
		speed_down_bps = $7, quota_bytes = $8, quota_period = $9, own_regions = $10 WHERE id = $1`,
		u.ID, l.MaxDevices, l.MaxSessions, l.MaxStreams, l.MaxUDP, l.SpeedUpBPS, l.SpeedDownBPS, l.QuotaBytes, period, oneIf(l.Regions != nil))
	if err != nil {
		return err
	}
	if _, err := t.exec(ctx, "", "DELETE FROM user_regions WHERE user_id = $1", u.ID); err != nil || l.Regions == nil {
		return err
	}
	for _, code := range *l.Regions {
		err := t.execOne(ctx, "", "INSERT INTO user_regions (user_id, region_id) SELECT CAST($1 AS TEXT), id FROM regions WHERE code = $2", u.ID, code)
		if err != nil {
			return err
		}
	}
	return nil
}

// maybeWords scans a column of words with spaces between them; NULL is nil.
type maybeWords struct{ into **[]string }

// Scan implements sql.Scanner.
func (w maybeWords) Scan(src any) error {
	*w.into = nil
	switch text := src.(type) {
	case nil:
	case string:
		*w.into = new(strings.Fields(text))
	default:
		return fmt.Errorf("%T is not a list", src)
	}
	return nil
}
