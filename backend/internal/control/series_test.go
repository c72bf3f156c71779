package control_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// everySecond is a store in which every bucket has as many bytes up as seconds.
type everySecond struct{ control.Store }

func (s everySecond) Read(ctx context.Context, fn func(context.Context, control.Tx) error) error {
	return s.Store.Read(ctx, func(ctx context.Context, tx control.Tx) error { return fn(ctx, everySecondTx{tx}) })
}

type everySecondTx struct{ control.Tx }

func (everySecondTx) UsageQuarters(_ context.Context, _ control.UsageFilter, from, to int64, add func(int64, control.Traffic)) error {
	for bucket := from; bucket < to; bucket++ {
		add(bucket, control.Traffic{Up: int64(control.UsageBucket / time.Second)})
	}
	return nil
}

// calendar says which hour, day, week or month clocks show, told apart from the same
// hour when it is repeated.
func calendar(step control.SeriesStep, at time.Time) string {
	switch step {
	case control.StepHour:
		return at.Format("2006-01-02 15 -0700")
	case control.StepWeek:
		year, week := at.ISOWeek()
		return fmt.Sprint(year, " ", week)
	case control.StepMonth:
		return at.Format("2006-01")
	default:
		return at.Format(time.DateOnly)
	}
}

func TestEveryMomentIsInOnePointOfASeriesWhateverTheClocksDo(t *testing.T) {
	dir := t.TempDir()
	w, records := openWorld(t, dir)
	var err error
	if w.Authority, err = w.over(everySecond{records}, keysIn(t, dir, false)); err != nil {
		t.Fatal(err)
	}
	longest := map[control.SeriesStep]time.Duration{
		control.StepHour: 20 * time.Hour, control.StepDay: 20 * 24 * time.Hour, control.StepWeek: 100 * 24 * time.Hour, control.StepMonth: 400 * 24 * time.Hour,
	}
	rapid.Check(t, func(rt *rapid.T) {
		name := rapid.SampledFrom(oddZones).Draw(rt, "zone")
		where, err := time.LoadLocation(name)
		if err != nil {
			rt.Fatal(err)
		}
		step := rapid.SampledFrom(control.SeriesSteps()).Draw(rt, "step")
		// Since 2012 no clock has been changed within a quarter of an hour.
		from := time.Unix(rapid.Int64Range(1325376000, 2200000000).Draw(rt, "from"), 0)
		if rapid.Bool().Draw(rt, "at a change of the clocks") {
			if _, change := from.In(where).ZoneBounds(); !change.IsZero() {
				from = change.Add(-time.Duration(rapid.Int64Range(0, int64(3*time.Hour)).Draw(rt, "before")))
			}
		}
		to := from.Add(time.Duration(rapid.Int64Range(1, int64(longest[step]/time.Microsecond)).Draw(rt, "span")) * time.Microsecond)
		series, err := w.UsageSeries(t.Context(), control.SeriesRequest{Step: step, TimeZone: name, From: from, To: to})
		if err != nil {
			rt.Fatal(err)
		}
		first, last := series.Points[0], series.Points[len(series.Points)-1]
		if first.From.After(from) || !first.To.After(from) || !last.From.Before(to) || last.To.Before(to) {
			rt.Fatalf("%v to %v is from %v to %v", from, to, first.From.In(where), last.To.In(where))
		}
		for i, p := range series.Points {
			if i > 0 && !p.From.Equal(series.Points[i-1].To) {
				rt.Fatalf("%v is followed by %v", series.Points[i-1].To.In(where), p.From.In(where))
			}
			if want := int64(p.To.Sub(p.From) / time.Second); p.Up != want || p.Down != 0 {
				rt.Fatalf("%v to %v has %d bytes, want one for each of %d seconds", p.From.In(where), p.To.In(where), p.Up, want)
			}
			shown := calendar(step, p.From.In(where))
			for at := p.From; at.Before(p.To); at = at.Add(control.UsageBucket) {
				if other := calendar(step, at.In(where)); other != shown {
					rt.Fatalf("%v to %v is %s and %s", p.From.In(where), p.To.In(where), shown, other)
				}
			}
			if next := calendar(step, p.To.In(where)); next == shown {
				rt.Fatalf("%v to %v ends in the middle of %s", p.From.In(where), p.To.In(where), shown)
			}
		}
	})
}

func TestASeriesHasThirtyPointsUnlessSaidOtherwiseAndAtMostFourHundred(t *testing.T) {
	w := newWorld(t)
	for _, step := range control.SeriesSteps() {
		series, err := w.UsageSeries(t.Context(), control.SeriesRequest{Step: step, TimeZone: "Europe/Berlin"})
		if err != nil || len(series.Points) != 30 {
			t.Errorf("%d points by %s, %v", len(series.Points), step, err)
		}
	}
	noon := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, tc := range map[string]struct {
		request control.SeriesRequest
		field   string
		points  int
	}{
		"400 days":           {control.SeriesRequest{Step: control.StepDay, TimeZone: "UTC", From: noon.AddDate(0, 0, -399), To: noon}, "", 400},
		"401 days":           {control.SeriesRequest{Step: control.StepDay, TimeZone: "UTC", From: noon.AddDate(0, 0, -400), To: noon}, "from", 0},
		"to a day's end":     {control.SeriesRequest{Step: control.StepDay, TimeZone: "UTC", From: noon, To: noon.Add(12 * time.Hour)}, "", 1},
		"two thousand years": {control.SeriesRequest{Step: control.StepHour, TimeZone: "UTC", From: noon, To: noon.AddDate(2000, 0, 0)}, "from", 0},
		"nothing":            {control.SeriesRequest{Step: control.StepDay, TimeZone: "UTC", From: noon, To: noon}, "from", 0},
		"no step":            {control.SeriesRequest{Step: "year", TimeZone: "UTC"}, "by", 0},
		"no zone":            {control.SeriesRequest{Step: control.StepDay, TimeZone: "Local"}, "time_zone", 0},
		"no time":            {control.SeriesRequest{Step: control.StepDay, TimeZone: "UTC", To: noon.AddDate(-9999, 0, 0)}, "to", 0},
	} {
		series, err := w.UsageSeries(t.Context(), tc.request)
		invalid, is := errors.AsType[*control.InvalidError](err)
		if tc.field == "" && (err != nil || len(series.Points) != tc.points) || tc.field != "" && (!is || invalid.Fields[0].Field != tc.field) {
			t.Errorf("%s: %d points, %v", name, len(series.Points), err)
		}
	}
	for _, filter := range []control.UsageFilter{{UserID: "x"}, {DeviceID: "x"}, {GatewayID: "x"}, {RegionID: "x"}, {PlanID: "x"}} {
		if _, err := w.UsageSeries(t.Context(), control.SeriesRequest{UsageFilter: filter, Step: control.StepDay, TimeZone: "UTC"}); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("%+v: %v", filter, err)
		}
	}
}

// seriesOf returns the traffic by hour from six hours ago.
func (a *account) seriesOf(filter control.UsageFilter) (points []control.Traffic) {
	a.t.Helper()
	series := ok[control.UsageSeries](a.t)(a.UsageSeries(a.t.Context(), control.SeriesRequest{
		UsageFilter: filter, Step: control.StepHour, TimeZone: "UTC", From: a.now().Add(-5 * time.Hour), To: a.now().Add(time.Minute),
	}))
	for _, p := range series.Points {
		points = append(points, p.Traffic)
	}
	return points
}

func TestSeriesAreOfWhatReportsSayOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		a := newAccount(t, dir, where)
		first := a.session
		second := a.begin(a.subscriber(1, 100), 2)
		this := a.now().Truncate(time.Hour)
		ago := func(hours int) time.Time { return this.Add(-time.Duration(hours) * time.Hour) }
		a.report([]control.UsageEntry{a.entry(1, 10, 100, ago(4)), a.entry(3, 60, 600, ago(1))})
		a.report([]control.UsageEntry{a.entry(2, 30, 300, ago(3))}) // late: what it covers moves there
		a.session = second
		a.report([]control.UsageEntry{a.entry(1, 1, 2, ago(1)), a.entry(2, 3, 5, this)})
		a.report([]control.UsageEntry{{BootID: "b", SessionID: sessionID(77), Sequence: 1, Up: 1000, At: ago(2)}}, "unattributed")

		plan := func(s control.Session) string {
			return ok[control.Subscription](t)(a.Subscription(t.Context(), s.SubscriptionID)).PlanID
		}
		none := control.Traffic{}
		ofFirst := []control.Traffic{none, {Up: 10, Down: 100}, {Up: 20, Down: 200}, none, {Up: 30, Down: 300}, none}
		ofSecond := []control.Traffic{none, none, none, none, {Up: 1, Down: 2}, {Up: 2, Down: 3}}
		all := []control.Traffic{none, {Up: 10, Down: 100}, {Up: 20, Down: 200}, {Up: 1000}, {Up: 31, Down: 302}, {Up: 2, Down: 3}}
		check := func(when string, want map[control.UsageFilter][]control.Traffic) {
			t.Helper()
			for filter, want := range want {
				if diff := cmp.Diff(want, a.seriesOf(filter)); diff != "" {
					t.Errorf("%s, of %+v (-want +got):\n%s", when, filter, diff)
				}
			}
			a.sound()
		}
		firstPlan, secondPlan := plan(first), plan(second)
		check("reported", map[control.UsageFilter][]control.Traffic{
			{}:                     all,
			{UserID: first.UserID}: ofFirst, {DeviceID: first.DeviceID}: ofFirst, {PlanID: firstPlan}: ofFirst,
			{UserID: second.UserID}: ofSecond, {DeviceID: second.DeviceID}: ofSecond, {PlanID: secondPlan}: ofSecond,
			{GatewayID: a.gateway.ID}: all, {RegionID: a.gateway.RegionID}: all,
		})

		// What was used stays, whatever becomes of who used it and where.
		if err := a.DeleteUser(t.Context(), second.UserID); err != nil {
			t.Fatal(err)
		}
		a.report([]control.UsageEntry{a.entry(3, 4, 6, this)})
		ofSecond[5], all[5] = control.Traffic{Up: 3, Down: 4}, control.Traffic{Up: 3, Down: 4}
		check("without its user", map[control.UsageFilter][]control.Traffic{{}: all, {PlanID: secondPlan}: ofSecond, {PlanID: firstPlan}: ofFirst})
		if err := a.DeleteGateway(t.Context(), a.gateway.ID); err != nil {
			t.Fatal(err)
		}
		check("without its gateway", map[control.UsageFilter][]control.Traffic{{}: all, {RegionID: a.gateway.RegionID}: all})
	})
}

// A program from before the totals books in the buckets alone, as beside this one
// during an update.
func TestWhatAnOlderProgramBooksIsInTheTotalsTooOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		a := newAccount(t, dir, where)
		older := storetest.SQL(t, where.Path, where.URL)
		book := func(gateway, subscription string, bucket time.Time, up, down int64) {
			t.Helper()
			statement := `INSERT INTO usage_buckets (subscription_id, bucket, gateway_id, up, down) VALUES ($1, $2, $3, $4, $5)
				ON CONFLICT (subscription_id, bucket, gateway_id) DO UPDATE SET up = usage_buckets.up + excluded.up, down = usage_buckets.down + excluded.down
				WHERE usage_buckets.up <= 4611686018427387904 AND usage_buckets.down <= 4611686018427387904`
			if up < 0 {
				statement = "UPDATE usage_buckets SET up = up + $4, down = down + $5 WHERE subscription_id = $1 AND bucket = $2 AND gateway_id = $3"
			}
			_, err := older.ExecContext(t.Context(), statement, subscription, bucket.UnixMicro()/control.UsageBucket.Microseconds(), gateway, up, down)
			if err != nil {
				t.Fatal(err)
			}
		}
		this := a.now().Truncate(time.Hour)
		sub := ok[control.Subscription](t)(a.Subscription(t.Context(), a.session.SubscriptionID))
		a.report([]control.UsageEntry{a.entry(1, 10, 100, this)})
		book(a.gateway.ID, sub.ID, this, 5, 50)                    // what this program has begun
		book(a.gateway.ID, sub.ID, this.Add(-time.Hour), 700, 7)   // what it has not
		book(a.gateway.ID, sub.ID, this.Add(-time.Hour), -300, -3) // what moves
		book(a.gateway.ID, sub.ID, this.Add(-time.Hour), 20, 2)
		book(a.gateway.ID, "gone", this.Add(-time.Hour), 1, 1)
		a.report([]control.UsageEntry{a.entry(2, 11, 101, this.Add(-time.Hour)), a.entry(3, 12, 102, this)})

		want := []control.Traffic{{}, {}, {}, {}, {Up: 421, Down: 7}, {Up: 16, Down: 151}}
		if diff := cmp.Diff(want, a.seriesOf(control.UsageFilter{PlanID: sub.PlanID})); diff != "" {
			t.Errorf("of the plan (-want +got):\n%s", diff)
		}
		want[4] = control.Traffic{Up: 422, Down: 8}
		for _, filter := range []control.UsageFilter{{}, {RegionID: a.gateway.RegionID}} {
			if diff := cmp.Diff(want, a.seriesOf(filter)); diff != "" {
				t.Errorf("of %+v (-want +got):\n%s", filter, diff)
			}
		}
		err := a.records.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
			if found, err := tx.TotalDifferences(ctx, 10); err != nil || len(found) > 0 {
				t.Errorf("the totals differ: %+v, %v", found, err)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	})
}
