package control

import (
	"regexp"
	"sync"
	"time"
	_ "time/tzdata" // plans name time zones wherever the service runs
)

// QuotaPeriod is how often a quota begins anew.
type QuotaPeriod string

// The periods of quotas. All but the last are of the calendar in the plan's time zone.
const (
	PeriodNone    QuotaPeriod = "none" // never: it is for the whole subscription
	PeriodDay     QuotaPeriod = "day"
	PeriodWeek    QuotaPeriod = "week" // from Monday
	PeriodMonth   QuotaPeriod = "month"
	PeriodRolling QuotaPeriod = "rolling" // a month, counted from the subscription's start
)

func (p QuotaPeriod) valid() bool {
	switch p {
	case PeriodNone, PeriodDay, PeriodWeek, PeriodMonth, PeriodRolling:
		return true
	default:
		return false
	}
}

// Period is a time: From belongs to it, To does not. A To of zero is no end.
type Period struct {
	From time.Time
	To   time.Time
}

// PeriodAt returns the period that now is in, of a subscription that began at
// start. The periods of a subscription follow each other without a gap. What is
// before the start counts as the moment of the start.
func PeriodAt(kind QuotaPeriod, zone *time.Location, start, now time.Time) Period {
	if now.Before(start) {
		now = start
	}
	var begin func(n int) time.Time // of the nth period; never earlier than that of the one before
	n := 0
	start, local := start.UTC(), now.In(zone)
	switch kind {
	case PeriodDay:
		begin = func(n int) time.Time { return firstAt(zone, local.Year(), local.Month(), local.Day()+n, 0) }
	case PeriodWeek:
		sinceMonday := (int(local.Weekday()) + 6) % 7
		begin = func(n int) time.Time {
			return firstAt(zone, local.Year(), local.Month(), local.Day()-sinceMonday+7*n, 0)
		}
	case PeriodMonth:
		begin = func(n int) time.Time { return firstAt(zone, local.Year(), local.Month()+time.Month(n), 1, 0) }
	case PeriodRolling:
		anchor := start.In(zone)
		n = 12*(local.Year()-anchor.Year()) + int(local.Month()-anchor.Month())
		begin = func(n int) time.Time {
			if n <= 0 {
				return start
			}
			month := time.Date(anchor.Year(), anchor.Month()+time.Month(n), 1, 0, 0, 0, 0, time.UTC)
			last := month.AddDate(0, 1, -1).Day() // a 31st is the last day where there is none
			return firstAt(zone, month.Year(), month.Month(), min(anchor.Day(), last), sinceMidnight(anchor))
		}
	default:
		return Period{From: start}
	}
	// The estimate is wrong by one where clocks are put back over the beginning of
	// a period, and where a period's beginning is later in its day than now.
	for begin(n).After(now) {
		n--
	}
	for !begin(n + 1).After(now) {
		n++
	}
	return Period{From: begin(n), To: begin(n + 1)}
}

// sinceMidnight is what the clock shows at t.
func sinceMidnight(t time.Time) time.Duration {
	hour, minute, second := t.Clock()
	return time.Duration(hour)*time.Hour + time.Duration(minute)*time.Minute + time.Duration(second)*time.Second +
		time.Duration(t.Nanosecond())
}

// firstAt returns the first moment at which clocks in zone show this day and time
// of day or a later one. It may be another one that they show, where they are
// put forward over it.
func firstAt(zone *time.Location, year int, month time.Month, day int, clock time.Duration) time.Time {
	shown := time.Date(year, month, day, 0, 0, 0, 0, time.UTC).Add(clock)
	// No offset is as large as this, so the moment is later. Of the times between two
	// changes of the offset, the first is looked for in which the clocks get there.
	at := shown.Add(-27 * time.Hour)
	for {
		_, offset := at.In(zone).Zone()
		_, until := at.In(zone).ZoneBounds()
		there := shown.Add(-time.Duration(offset) * time.Second)
		if there.Before(at) {
			there = at
		}
		if until.IsZero() || there.Before(until) {
			return there
		}
		at = until.UTC()
	}
}

// zoneName is what names of time zones look like. Those that begin with "right" or
// "posix" are other tables of some systems.
var zoneName = regexp.MustCompile(`^[A-Z][A-Za-z0-9_+-]{0,31}(/[A-Z][A-Za-z0-9_+-]{0,31}){0,2}$`)

// zones has those that were asked for: there are some 600.
var zones sync.Map // name to *time.Location

// zoneNamed returns the time zone with an IANA name.
func zoneNamed(name string) (*time.Location, bool) {
	if known, ok := zones.Load(name); ok {
		zone, ok := known.(*time.Location)
		return zone, ok
	}
	if !zoneName.MatchString(name) || name == "Local" {
		return nil, false
	}
	zone, err := time.LoadLocation(name)
	if err != nil {
		return nil, false
	}
	zones.Store(name, zone)
	return zone, true
}
