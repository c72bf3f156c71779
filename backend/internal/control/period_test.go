package control_test

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/httvps/httvps/backend/internal/control"
)

func zone(t *testing.T, name string) *time.Location {
	t.Helper()
	return ok[*time.Location](t)(time.LoadLocation(name))
}

func TestAQuotasPeriodIsTheCalendarsInThePlansZone(t *testing.T) {
	const minute = "2006-01-02 15:04"
	for name, tc := range map[string]struct {
		kind     control.QuotaPeriod
		zone     string
		start    string // in the zone, as all here
		now      string
		from, to string
	}{
		"a day":                 {control.PeriodDay, "UTC", "2026-01-01 00:00", "2026-03-01 12:34", "2026-03-01 00:00", "2026-03-02 00:00"},
		"a day's first moment":  {control.PeriodDay, "UTC", "2026-01-01 00:00", "2026-03-01 00:00", "2026-03-01 00:00", "2026-03-02 00:00"},
		"a leap day":            {control.PeriodDay, "UTC", "2026-01-01 00:00", "2028-02-29 23:59", "2028-02-29 00:00", "2028-03-01 00:00"},
		"a day of a quarter":    {control.PeriodDay, "Asia/Kathmandu", "2026-01-01 00:00", "2026-03-01 00:01", "2026-03-01 00:00", "2026-03-02 00:00"},
		"a day without its 0 h": {control.PeriodDay, "America/Sao_Paulo", "2010-01-01 00:00", "2010-10-17 12:00", "2010-10-17 01:00", "2010-10-18 00:00"},
		"the day after a day that never was": {
			control.PeriodDay, "Pacific/Apia", "2011-01-01 00:00", "2011-12-31 12:00", "2011-12-31 00:00", "2012-01-01 00:00",
		},
		"the day before a day that never was": {
			control.PeriodDay, "Pacific/Apia", "2011-01-01 00:00", "2011-12-29 12:00", "2011-12-29 00:00", "2011-12-31 00:00",
		},
		"a Sunday is of the week before": {control.PeriodWeek, "UTC", "2026-01-01 00:00", "2026-03-01 23:59", "2026-02-23 00:00", "2026-03-02 00:00"},
		"a Monday begins the week":       {control.PeriodWeek, "UTC", "2026-01-01 00:00", "2026-03-02 00:00", "2026-03-02 00:00", "2026-03-09 00:00"},
		"February":                       {control.PeriodMonth, "Europe/Berlin", "2026-01-01 00:00", "2026-02-28 23:59", "2026-02-01 00:00", "2026-03-01 00:00"},
		"December":                       {control.PeriodMonth, "Europe/Berlin", "2026-01-01 00:00", "2026-12-31 23:59", "2026-12-01 00:00", "2027-01-01 00:00"},
		"rolling from the 31st":          {control.PeriodRolling, "UTC", "2026-01-31 10:00", "2026-02-28 09:59", "2026-01-31 10:00", "2026-02-28 10:00"},
		"and into a February":            {control.PeriodRolling, "UTC", "2026-01-31 10:00", "2026-02-28 10:00", "2026-02-28 10:00", "2026-03-31 10:00"},
		"of a leap year":                 {control.PeriodRolling, "UTC", "2028-01-31 10:00", "2028-03-01 00:00", "2028-02-29 10:00", "2028-03-31 10:00"},
		"and out of it":                  {control.PeriodRolling, "UTC", "2026-01-31 10:00", "2026-04-30 09:00", "2026-03-31 10:00", "2026-04-30 10:00"},
		"rolling into an hour that is skipped": {
			control.PeriodRolling, "Europe/Berlin", "2026-01-29 02:30", "2026-03-29 12:00", "2026-03-29 03:00", "2026-04-29 02:30",
		},
		"rolling from a leap day, a year later": {
			control.PeriodRolling, "UTC", "2028-02-29 00:00", "2029-02-28 12:00", "2029-02-28 00:00", "2029-03-29 00:00",
		},
	} {
		t.Run(name, func(t *testing.T) {
			where := zone(t, tc.zone)
			at := func(s string) time.Time { return ok[time.Time](t)(time.ParseInLocation(minute, s, where)) }
			got := control.PeriodAt(tc.kind, where, at(tc.start), at(tc.now))
			if from, to := got.From.In(where).Format(minute), got.To.In(where).Format(minute); from != tc.from || to != tc.to {
				t.Errorf("%s to %s, want %s to %s", from, to, tc.from, tc.to)
			}
		})
	}
}

func TestAQuotaWithoutPeriodsIsForTheWholeSubscription(t *testing.T) {
	start := time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC)
	got := control.PeriodAt(control.PeriodNone, time.UTC, start, start.AddDate(30, 0, 0))
	if !got.From.Equal(start) || !got.To.IsZero() {
		t.Errorf("%v to %v, want from the start without end", got.From, got.To)
	}
}

// Clocks in Newfoundland went from a minute past midnight back to the evening
// before: that hour is of the day that had begun already.
func TestAnHourThatIsRepeatedIsInOnePeriod(t *testing.T) {
	where := zone(t, "America/St_Johns")
	noon := time.Date(2010, 11, 6, 12, 0, 0, 0, where)
	_, change := noon.ZoneBounds()
	begins, again := change.Add(-time.Minute), change.Add(10*time.Minute)
	if got := control.PeriodAt(control.PeriodDay, where, noon, again); !got.From.Equal(begins) || again.In(where).Day() != 6 {
		t.Errorf("at %v the day began at %v, want %v", again.In(where), got.From, begins)
	}
	if got := control.PeriodAt(control.PeriodRolling, where, again, again); !got.From.Equal(again) {
		t.Errorf("a subscription from %v has a month from %v", again, got.From)
	}
}

// oddZones have what makes days odd: offsets of a half and a quarter of an hour,
// changes by half an hour, at midnight, a minute later, and over a whole day.
var oddZones = []string{
	"UTC", "Europe/Berlin", "America/New_York", "America/St_Johns", "America/Sao_Paulo", "America/Havana", "Asia/Kathmandu", "Asia/Tehran",
	"Asia/Beirut", "Asia/Gaza", "Africa/Cairo", "Africa/Casablanca", "Australia/Lord_Howe", "Pacific/Chatham", "Pacific/Apia",
	"Pacific/Kiritimati", "Pacific/Kwajalein", "Antarctica/Troll", "Atlantic/Azores", "Etc/GMT+12",
}

func TestPeriodsFollowEachOtherWithoutAGap(t *testing.T) {
	kinds := []control.QuotaPeriod{control.PeriodDay, control.PeriodWeek, control.PeriodMonth, control.PeriodRolling}
	longest := map[control.QuotaPeriod]time.Duration{
		control.PeriodDay: 49 * time.Hour, control.PeriodWeek: 8 * 24 * time.Hour, control.PeriodMonth: 32 * 24 * time.Hour,
		control.PeriodRolling: 32 * 24 * time.Hour,
	}
	rapid.Check(t, func(t *rapid.T) {
		where, err := time.LoadLocation(rapid.SampledFrom(oddZones).Draw(t, "zone"))
		if err != nil {
			t.Fatal(err)
		}
		kind := rapid.SampledFrom(kinds).Draw(t, "kind")
		first, last := time.Date(1970, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2060, 1, 1, 0, 0, 0, 0, time.UTC)
		start := time.UnixMicro(rapid.Int64Range(first.UnixMicro(), last.UnixMicro()).Draw(t, "start"))
		now := start.Add(time.Duration(rapid.Int64Range(0, int64(20*365*24*time.Hour)).Draw(t, "later")))
		if rapid.Bool().Draw(t, "at a change of the clocks") {
			if _, change := now.In(where).ZoneBounds(); !change.IsZero() {
				now = change.Add(time.Duration(rapid.Int64Range(-int64(2*time.Hour), int64(2*time.Hour)).Draw(t, "around")))
			}
		}
		if now.Before(start) {
			now = start
		}
		p := control.PeriodAt(kind, where, start, now)
		if now.Before(p.From) || !now.Before(p.To) {
			t.Fatalf("%v is not in %v to %v", now, p.From, p.To)
		}
		if got := p.To.Sub(p.From); got > longest[kind] {
			t.Fatalf("%v to %v is %v long", p.From, p.To, got)
		}
		for _, inside := range []time.Time{p.From, p.To.Add(-1)} {
			if inside.Before(start) {
				continue
			}
			if again := control.PeriodAt(kind, where, start, inside); !again.From.Equal(p.From) || !again.To.Equal(p.To) {
				t.Fatalf("at %v it is %v to %v, at %v %v to %v", now, p.From, p.To, inside, again.From, again.To)
			}
		}
		if next := control.PeriodAt(kind, where, start, p.To); !next.From.Equal(p.To) {
			t.Fatalf("%v to %v is followed by %v to %v", p.From, p.To, next.From, next.To)
		}
		if kind == control.PeriodRolling {
			begins, anchor := p.From.In(where), start.In(where)
			if p.From.Before(start) || begins.Day() > anchor.Day() && !p.From.Equal(start) {
				t.Fatalf("of a subscription from %v a period begins at %v", anchor, begins)
			}
		}
	})
}

// Every period in turn, over the years in which the clocks of a zone did the
// oddest things.
func TestEveryDayOfThirtyYearsIsInOnePeriod(t *testing.T) {
	for _, name := range oddZones {
		where := zone(t, name)
		start, end := time.Date(1990, 1, 31, 23, 30, 0, 0, where), time.Date(2021, 1, 1, 0, 0, 0, 0, where)
		for _, kind := range []control.QuotaPeriod{control.PeriodDay, control.PeriodWeek, control.PeriodMonth, control.PeriodRolling} {
			count := 0
			for now := start; now.Before(end); count++ {
				p := control.PeriodAt(kind, where, start, now)
				if count > 0 && !p.From.Equal(now) || !p.To.After(now) {
					t.Fatalf("%s in %s at %v: %v to %v", kind, name, now, p.From, p.To)
				}
				now = p.To
			}
			if monthly := kind == control.PeriodMonth || kind == control.PeriodRolling; monthly && count != 12*31 {
				t.Errorf("%d times a %s in %s, want one for each month", count, kind, name)
			}
		}
	}
}
