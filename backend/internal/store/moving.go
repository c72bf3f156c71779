package store

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

// ofSession is the counter of a session s that has the key of table x.
const ofSession = "x.gateway_id = s.gateway_id AND x.boot_id = s.boot_id AND x.session_id = s.id"

// counted are the columns of Counters: of each session its newest report from before $1
// is found from the newest on.
const counted = `SELECT s.id, COALESCE(u.name, ''), COALESCE(d.name, ''), COALESCE(g.name, ''), COALESCE(r.code, ''),
		COALESCE(n.up, 0), COALESCE(n.down, 0), n.received_at, COALESCE(b.up, 0), COALESCE(b.down, 0), b.received_at
	FROM sessions s
	LEFT JOIN users u ON u.id = s.user_id
	LEFT JOIN devices d ON d.id = s.device_id
	LEFT JOIN gateways g ON g.id = s.gateway_id
	LEFT JOIN regions r ON r.id = g.region_id
	LEFT JOIN usage_sessions n ON n.gateway_id = s.gateway_id AND n.boot_id = s.boot_id AND n.session_id = s.id
	LEFT JOIN usage_reports b ON b.gateway_id = s.gateway_id AND b.boot_id = s.boot_id AND b.session_id = s.id
		AND b.sequence = (SELECT x.sequence FROM usage_reports x WHERE ` + ofSession + ` AND x.received_at <= $1 ORDER BY x.sequence DESC LIMIT 1)
	WHERE s.id IN (`

func (t *tx) Counters(ctx context.Context, sessions []control.Session, before time.Time) (map[string]control.Counters, error) {
	found := make(map[string]control.Counters, len(sessions))
	if len(sessions) == 0 {
		return found, nil
	}
	args := []any{micros(before)}
	places := make([]string, 0, len(sessions))
	for _, s := range sessions {
		args = append(args, s.ID)
		places = append(places, "$"+strconv.Itoa(len(args)))
	}
	_, err := many(ctx, t, func(r row) (none struct{}, err error) {
		var (
			id           string
			c            control.Counters
			now, earlier *time.Time
		)
		err = r.Scan(&id, &c.UserName, &c.DeviceName, &c.GatewayName, &c.Region, &c.Now.Up, &c.Now.Down, maybeMoment{&now},
			&c.Then.Up, &c.Then.Down, maybeMoment{&earlier})
		if now != nil {
			c.ReportedAt = *now
		}
		if earlier != nil {
			c.ThenAt = *earlier
		}
		found[id] = c
		return none, err
	}, counted+strings.Join(places, ", ")+")", args...)
	return found, err
}
