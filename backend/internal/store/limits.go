package store

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/httvps/httvps/backend/internal/control"
)

// limitColumns are of a user u, in the order of limitFields. The regions that are the
// user's own are for fillRegions.
const limitColumns = "u.max_devices, u.max_sessions, u.max_streams, u.max_udp, u.speed_up_bps, u.speed_down_bps, u.quota_bytes, u.quota_period, u.own_regions"

func limitFields(l *control.Limits) []any {
	return []any{
		&l.MaxDevices, &l.MaxSessions, &l.MaxStreams, &l.MaxUDP, &l.SpeedUpBPS, &l.SpeedDownBPS, &l.QuotaBytes, &l.QuotaPeriod, ownRegions{&l.Regions},
	}
}

// fillRegions reads the codes of regions of those users whose own they are: few.
func (t *tx) fillRegions(ctx context.Context, limits map[string]*control.Limits) error {
	var ids []any
	var places []string
	for id, l := range limits {
		if l.Regions != nil {
			ids = append(ids, id)
			places = append(places, "$"+strconv.Itoa(len(ids)))
		}
	}
	if len(ids) == 0 {
		return nil
	}
	type named struct{ user, code string }
	found, err := many(ctx, t, func(r row) (n named, err error) {
		err = r.Scan(&n.user, &n.code)
		return n, err
	}, "SELECT x.user_id, r.code FROM user_regions x JOIN regions r ON r.id = x.region_id WHERE x.user_id IN ("+strings.Join(places, ", ")+") ORDER BY r.code", ids...)
	for _, n := range found {
		regions := limits[n.user].Regions
		*regions = append(*regions, n.code)
	}
	return err
}

// withRegions fills in the regions that are users' own.
func (t *tx) withRegions(ctx context.Context, users []control.User, err error) ([]control.User, error) {
	if err != nil {
		return nil, err
	}
	limits := make(map[string]*control.Limits, len(users))
	for i := range users {
		limits[users[i].ID] = &users[i].Limits
	}
	return users, t.fillRegions(ctx, limits)
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

// ownRegions scans a column that says whether there are regions: nil when there are not.
type ownRegions struct{ into **[]string }

// Scan implements sql.Scanner.
func (o ownRegions) Scan(src any) error {
	*o.into = nil
	switch is := src.(type) {
	case int64:
		if is == 1 {
			*o.into = new([]string{})
		}
		return nil
	default:
		return fmt.Errorf("%T is no yes or no", src)
	}
}
