package control

import (
	"context"
	"math"
	"time"
)

// RateWindow is over how long the rates of sessions are averages. Gateways report
// usage in shorter steps.
const RateWindow = time.Minute

// maxRateSpan is what a rate is divided by at most. Who was silent has not been reported
// about for long; what came since, came within the window and the step before it.
const maxRateSpan = RateWindow + 15*time.Second

// Moving is a live session with what it has moved and moves.
type Moving struct {
	Session
	UserName    string
	DeviceName  string
	GatewayName string
	Region      string // its code
	Moved       Traffic
	// ReportedAt is when its gateway last told of it; zero: it has not yet.
	ReportedAt time.Time
	// Rate is bits per second, on average since Since.
	Rate  Traffic
	Since time.Time
}

// Counters are what is known of a session's traffic, and what was a while ago.
type Counters struct {
	UserName, DeviceName, GatewayName, Region string
	Now, Then                                 Traffic
	ReportedAt                                time.Time // of Now; zero: nothing was reported
	ThenAt                                    time.Time // of Then; zero: there was no report then
}

type movingRows interface {
	// Counters returns those of sessions by their ids, and as the last report before a time
	// had them.
	Counters(ctx context.Context, sessions []Session, before time.Time) (map[string]Counters, error)
}

// Moving lists live sessions with what they move, newest first.
func (a *Authority) Moving(ctx context.Context, filter SessionFilter, page Page) ([]Moving, error) {
	filter.State = LiveSessions
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]Moving, error) {
		now := a.now()
		sessions, err := tx.Sessions(ctx, filter, now, page)
		if err != nil {
			return nil, err
		}
		counters, err := tx.Counters(ctx, sessions, now.Add(-RateWindow))
		if err != nil {
			return nil, err
		}
		moving := make([]Moving, 0, len(sessions))
		for _, s := range sessions {
			c := counters[s.ID]
			m := Moving{
				Session: s, UserName: c.UserName, DeviceName: c.DeviceName, GatewayName: c.GatewayName, Region: c.Region,
				Moved: c.Now, ReportedAt: c.ReportedAt, Since: c.ThenAt,
			}
			if m.Since.IsZero() {
				m.Since = s.StartedAt
			}
			m.Since = between(m.Since, now.Add(-maxRateSpan), now.Add(-time.Second))
			span := now.Sub(m.Since)
			m.Rate = Traffic{rateOf(c.Now.Up-c.Then.Up, span), rateOf(c.Now.Down-c.Then.Down, span)}
			moving = append(moving, m)
		}
		return moving, nil
	})
}

// rateOf returns the bits per second of bytes in a time.
func rateOf(bytes int64, in time.Duration) int64 {
	const bits = 8
	rate := float64(max(bytes, 0)) * bits / in.Seconds()
	if rate >= math.MaxInt64 {
		return math.MaxInt64
	}
	return int64(rate)
}
