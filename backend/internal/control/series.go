package control

import (
	"context"
	"fmt"
	"slices"
	"sort"
	"time"
)

// SeriesStep is how long the points of a series are. The texts are part of the API.
type SeriesStep string

// The steps of series, of the calendar in a time zone.
const (
	StepHour  SeriesStep = "hour"
	StepDay   SeriesStep = "day"
	StepWeek  SeriesStep = "week" // from Monday
	StepMonth SeriesStep = "month"
)

// SeriesSteps returns all of them.
func SeriesSteps() []SeriesStep { return []SeriesStep{StepHour, StepDay, StepWeek, StepMonth} }

const (
	// MaxUsagePoints bounds the points of a series.
	MaxUsagePoints = 400
	// usagePoints is how many a series has unless its beginning is said.
	usagePoints = 30
)

// SeriesRequest says what a series is of. A zero To is now, a zero From so much
// before that the series has 30 points.
type SeriesRequest struct {
	UsageFilter // none of the ids: everything
	Step        SeriesStep
	TimeZone    string // IANA name
	From        time.Time
	To          time.Time // does not belong to it
}

// UsagePoint is the traffic of a part of a series.
type UsagePoint struct {
	Period
	Traffic
}

// UsageSeries is traffic over time: points that follow each other without a gap.
type UsageSeries struct {
	Zone   *time.Location
	Points []UsagePoint // oldest first, those without traffic too
}

// UsageSeries returns the traffic of a span, in whole points: the first is the one
// that From is in, and the last the one in which the span ends. A change of the clocks
// makes days of 23 and 25 hours, and where it is by less than an hour, hours that are
// shorter. That of a user or a device follows from the reports, so it reaches back as
// far as they do; a plan's is that of the subscriptions that had it when the quarter
// of an hour was first reported about.
func (a *Authority) UsageSeries(ctx context.Context, r SeriesRequest) (UsageSeries, error) {
	if r.To.IsZero() {
		r.To = a.now()
	}
	var c checks
	zone, known := zoneNamed(r.TimeZone)
	c.that(known, "time_zone", "want the name of a time zone like Europe/Berlin, or UTC")
	c.that(slices.Contains(SeriesSteps(), r.Step), "by", "want hour, day, week or month")
	c.between(r.To.UTC().Year(), 1970, 9999, "to", "want a year from 1970 to 9999 in UTC")
	if err := c.err(); err != nil {
		return UsageSeries{}, err
	}
	last := stepAt(r.Step, zone, r.To.Add(-1))
	if r.From.IsZero() {
		r.From = last.From
		for range usagePoints - 1 {
			r.From = stepAt(r.Step, zone, r.From.Add(-1)).From
		}
	}
	c.between(r.From.UTC().Year(), 1969, 9999, "from", "want a year from 1970 to 9999 in UTC")
	c.that(r.From.Before(r.To), "from", "want a time before to")
	if err := c.err(); err != nil {
		return UsageSeries{}, err
	}
	series := UsageSeries{Zone: zone}
	for at := r.From; at.Before(last.To); {
		if len(series.Points) == MaxUsagePoints {
			c.that(false, "from", fmt.Sprintf("want a time nearer to to, or a longer step: at most %d points", MaxUsagePoints))
			return UsageSeries{}, c.err()
		}
		p := stepAt(r.Step, zone, at)
		series.Points = append(series.Points, UsagePoint{Period: p})
		at = p.To
	}
	begins := make([]int64, len(series.Points))
	for i, p := range series.Points {
		begins[i] = bucketOf(p.From)
	}
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		if err := r.known(ctx, tx); err != nil {
			return err
		}
		for i := range series.Points { // fn may run again
			series.Points[i].Traffic = Traffic{}
		}
		return tx.UsageQuarters(ctx, r.UsageFilter, begins[0], bucketOf(last.To), func(bucket int64, u Traffic) {
			// The last point that has begun: what begins within a bucket, as where clocks
			// are changed a minute past the hour, has it from there on.
			i := sort.Search(len(begins), func(i int) bool { return begins[i] > bucket }) - 1
			series.Points[i].Traffic = series.Points[i].Plus(u)
		})
	})
	return series, err
}

// known returns ErrNotFound when there is nothing with the id.
func (f UsageFilter) known(ctx context.Context, tx Tx) error {
	var err error
	switch {
	case f.UserID != "":
		_, err = tx.User(ctx, f.UserID)
	case f.DeviceID != "":
		_, err = tx.Device(ctx, f.DeviceID)
	case f.GatewayID != "":
		_, err = tx.Gateway(ctx, f.GatewayID)
	case f.RegionID != "":
		_, err = tx.Region(ctx, f.RegionID)
	case f.PlanID != "":
		_, err = tx.Plan(ctx, f.PlanID)
	}
	return err
}

// stepAt returns the point of a series that a moment is in.
func stepAt(step SeriesStep, zone *time.Location, at time.Time) Period {
	switch step {
	case StepHour:
		return hourAt(zone, at)
	case StepWeek:
		return PeriodAt(PeriodWeek, zone, time.Time{}, at)
	case StepMonth:
		return PeriodAt(PeriodMonth, zone, time.Time{}, at)
	default:
		return PeriodAt(PeriodDay, zone, time.Time{}, at)
	}
}

// hourAt returns the hour of the clocks in zone that a moment is in. Where they are
// changed an hour ends and another one begins, whatever they show.
func hourAt(zone *time.Location, at time.Time) Period {
	shown := at.In(zone)
	begin := at.Add(-(sinceMidnight(shown) % time.Hour))
	p := Period{From: begin, To: begin.Add(time.Hour)}
	changed, changes := shown.ZoneBounds()
	_, offset := shown.Zone()
	differs := func(at time.Time) bool { // tables have ends at which nothing changes
		_, other := at.In(zone).Zone()
		return other != offset
	}
	if changed.After(p.From) && differs(changed.Add(-1)) {
		p.From = changed
	}
	if !changes.IsZero() && changes.Before(p.To) && differs(changes) {
		p.To = changes
	}
	return Period{From: p.From.UTC(), To: p.To.UTC()}
}
