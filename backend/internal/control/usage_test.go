package control_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/internal/reason"
	"github.com/httvps/httvps/internal/ticket"
)

// account is a world with a session whose usage is reported.
type account struct {
	*world
	records *store.Store
	gateway control.Gateway
	session control.Session
}

func newAccount(t *testing.T, dir string, where store.Config) *account {
	t.Helper()
	w, records := openWorldOn(t, dir, where)
	a := &account{world: w, records: records, gateway: w.gateway()}
	a.session = a.begin(w.subscriber(1, 100), 1)
	return a
}

// begin begins a session of a new device of the user.
func (a *account) begin(user control.User, key uint32) control.Session {
	a.t.Helper()
	enrolled := ok[control.Enrolled](a.t)(a.enrol(testKey(key), a.invite(user)))
	id := hex.EncodeToString(fmt.Appendf(nil, "session %08d", key))
	decided := ok[control.Decision](a.t)(a.Decide(a.t.Context(), a.gateway, control.SessionRequest{
		SessionID: id, DeviceID: enrolled.Device.ID, KeyThumbprint: ticket.Thumbprint(public(testKey(key))), Generation: 1, BootID: "b",
	}))
	if decided.Reason != "" {
		a.t.Fatalf("the session is refused: %s", decided.Reason)
	}
	return ok[control.Session](a.t)(a.Session(a.t.Context(), id))
}

func (a *account) entry(sequence, up, down uint64, at time.Time) control.UsageEntry {
	return control.UsageEntry{BootID: "b", SessionID: a.session.ID, Sequence: sequence, Up: up, Down: down, At: at}
}

// report reports, and fails the test unless the results are these.
func (a *account) report(entries []control.UsageEntry, want ...control.UsageResult) control.UsageAnswer {
	a.t.Helper()
	answer := ok[control.UsageAnswer](a.t)(a.ReportUsage(a.t.Context(), a.gateway, entries))
	if diff := cmp.Diff(want, answer.Results); want != nil && diff != "" {
		a.t.Errorf("results (-want +got):\n%s", diff)
	}
	return answer
}

func (a *account) used(from, to time.Time) control.Traffic {
	a.t.Helper()
	return ok[control.Traffic](a.t)(a.UsedBytes(a.t.Context(), a.session.SubscriptionID, from, to))
}

// sound fails the test unless the account is what its reports lead to.
func (a *account) sound() control.UsageVerdict {
	a.t.Helper()
	verdict := ok[control.UsageVerdict](a.t)(a.VerifyUsage(a.t.Context()))
	if len(verdict.Differences) > 0 {
		a.t.Errorf("the account differs from its reports: %+v", verdict.Differences)
	}
	return verdict
}

func (a *account) same(what string, want, got control.Traffic) {
	a.t.Helper()
	if want != got {
		a.t.Errorf("%s: %+v, want %+v", what, got, want)
	}
}

// booked is what reports lead to, worked out from all of them at once: bytes
// belong to the bucket of the lowest number that covers them.
func booked(entries []control.UsageEntry) (sum control.Traffic, buckets map[time.Time]control.Traffic) {
	buckets = make(map[time.Time]control.Traffic)
	entries = slices.SortedFunc(slices.Values(entries), func(a, b control.UsageEntry) int { return int(a.Sequence) - int(b.Sequence) })
	for _, e := range entries {
		bucket := e.At.Truncate(control.UsageBucket)
		gain := control.Traffic{Up: max(int64(e.Up)-sum.Up, 0), Down: max(int64(e.Down)-sum.Down, 0)}
		buckets[bucket] = buckets[bucket].Plus(gain)
		sum = sum.Plus(gain)
	}
	return sum, buckets
}

func TestAnyOrderOfReportsIsTheSameAccountOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		a := newAccount(t, dir, where)
		user, begin := a.subscriber(30, 100), a.now().Add(-6*time.Hour)
		for round := range uint32(12) {
			a.session = a.begin(user, 100+round)
			var all []control.UsageEntry
			var up, down uint64
			for sequence := range uint64(40) {
				up, down = up+rand.Uint64N(1000), down+rand.Uint64N(1000)
				e := a.entry(sequence+1, up, down, begin.Add(time.Duration(sequence)*8*time.Minute))
				if round >= 6 && rand.IntN(5) == 0 { // a gateway with a fault
					e.Up, e.Down = rand.Uint64N(20000), rand.Uint64N(20000)
				}
				if rand.IntN(4) > 0 { // else it is lost
					all = append(all, e)
				}
			}
			sent := slices.Concat(all, all[:len(all)/2])
			rand.Shuffle(len(sent), func(i, j int) { sent[i], sent[j] = sent[j], sent[i] })
			before := make(map[time.Time]control.Traffic)
			for at := begin.Truncate(control.UsageBucket); at.Before(a.now()); at = at.Add(control.UsageBucket) {
				before[at] = a.used(at, at.Add(control.UsageBucket))
			}
			for part := range slices.Chunk(sent, 1+rand.IntN(20)) {
				a.report(part)
			}
			sum, buckets := booked(all)
			for at, was := range before {
				got := a.used(at, at.Add(control.UsageBucket))
				a.same(fmt.Sprint("round ", round, " at ", at), was.Plus(buckets[at]), got)
			}
			key := control.UsageKey{GatewayID: a.gateway.ID, BootID: "b", SessionID: a.session.ID}
			err := a.records.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
				total, err := tx.UsageSession(ctx, key)
				a.same(fmt.Sprint("round ", round), sum, total.Traffic)
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		a.sound()
	})
}

func TestReportsAreJudgedOneByOne(t *testing.T) {
	w, _ := openWorld(t, t.TempDir())
	a := &account{world: w, gateway: w.gateway()}
	a.session = a.begin(w.subscriber(1, 1), 1)
	at := a.now()
	foreign := control.Gateway{ID: "another"}
	stranger := control.UsageEntry{BootID: "b", SessionID: "ffffffffffffffffffffffffffffffff", Sequence: 1, Up: 7, Down: 9, At: at}

	answer := a.report([]control.UsageEntry{
		a.entry(2, 100, 200, at), a.entry(1, 50, 60, at), a.entry(3, 1<<63, 0, at), a.entry(3, 0, 1<<52+1, at), a.entry(0, 0, 0, at),
		a.entry(1<<62+1, 0, 0, at), a.entry(2, 100, 200, at), stranger, a.entry(4, 1<<52, 200, at),
	}, "taken", "taken", "too_large", "too_large", "invalid_sequence", "invalid_sequence", "duplicate", "unattributed", "taken")
	if diff := cmp.Diff([]control.UsageAck{{BootID: "b", SessionID: a.session.ID, Sequence: 4}, {BootID: "b", SessionID: stranger.SessionID, Sequence: 1}}, answer.Acks); diff != "" {
		t.Errorf("acknowledged (-want +got):\n%s", diff)
	}
	a.same("what a subscription used", control.Traffic{Up: 1 << 52, Down: 200}, a.used(at.Add(-time.Hour), at.Add(time.Hour)))

	a.report([]control.UsageEntry{a.entry(5, 10, 300, at)}, "decreased")
	a.report([]control.UsageEntry{a.entry(5, 10, 300, at)}, "duplicate")
	a.report([]control.UsageEntry{a.entry(5, 10, 250, at)}, "rewritten")
	a.same("after counters that went down", control.Traffic{Up: 1 << 52, Down: 300}, a.used(at.Add(-time.Hour), at.Add(time.Hour)))

	others := ok[control.UsageAnswer](t)(a.ReportUsage(t.Context(), foreign, []control.UsageEntry{a.entry(9, 1<<52, 1<<52, at)}))
	if others.Results[0] != control.UsageForeign || len(others.Acks) != 0 {
		t.Errorf("another gateway's report: %+v", others)
	}
	verdict := a.sound()
	if verdict.Unattributed != (control.Traffic{Up: 7, Down: 9}) || verdict.Total != (control.Traffic{Up: 1<<52 + 7, Down: 309}) || verdict.Faults != 1 {
		t.Errorf("verdict is %+v", verdict)
	}
	var invalid *control.InvalidError
	if _, err := a.ReportUsage(t.Context(), a.gateway, make([]control.UsageEntry, control.MaxUsageReports+1)); !errors.As(err, &invalid) {
		t.Errorf("too many: %v", err)
	}
}

func TestUsageIsExactWhereADayBeginsAtAnOddMinute(t *testing.T) {
	for name, offset := range map[string]time.Duration{
		"Kolkata": 5*time.Hour + 30*time.Minute, "Kathmandu": 5*time.Hour + 45*time.Minute, "Marquesas": -(9*time.Hour + 30*time.Minute),
	} {
		t.Run(name, func(t *testing.T) {
			w, _ := openWorld(t, t.TempDir())
			a := &account{world: w, gateway: w.gateway()}
			a.session = a.begin(w.subscriber(1, 1), 1)
			today := a.now().Add(offset).Truncate(24 * time.Hour).Add(-offset) // midnight there
			yesterday := today.Add(-24 * time.Hour)
			a.report([]control.UsageEntry{
				a.entry(1, 1, 0, yesterday), a.entry(2, 11, 0, today.Add(-time.Microsecond)), a.entry(3, 111, 0, today), a.entry(4, 1111, 0, a.now()),
			})
			a.same("yesterday", control.Traffic{Up: 11}, a.used(yesterday, today))
			a.same("today", control.Traffic{Up: 1100}, a.used(today, today.Add(24*time.Hour)))
		})
	}
}

func TestAClockThatCannotBeRightIsNotBelieved(t *testing.T) {
	w, _ := openWorld(t, t.TempDir())
	a := &account{world: w, gateway: w.gateway()}
	a.session = a.begin(w.subscriber(1, 1), 1)
	now := a.now()
	a.report([]control.UsageEntry{a.entry(1, 1, 1, time.Time{}), a.entry(2, 2, 2, now.AddDate(7000, 0, 0)), a.entry(3, 3, 3, time.Unix(0, 0))})
	a.same("now", control.Traffic{Up: 3, Down: 3}, a.used(now, now.Add(control.UsageBucket)))
	a.sound()
}

func TestCompactionKeepsTheAccountOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		a := newAccount(t, dir, where)
		begin := a.now().Add(-10 * time.Hour)
		var all []control.UsageEntry
		for n := range uint64(600) { // one each minute
			all = append(all, a.entry(n+1, (n+1)*10, (n+1)*7, begin.Add(time.Duration(n)*time.Minute)))
		}
		all[300].Up = 5 // a fault
		a.report(all)
		if pruned := ok[control.Pruned](t)(a.Prune(t.Context())); pruned.UsageReports != 0 {
			t.Errorf("%d reports went at once", pruned.UsageReports)
		}
		before := a.sound()
		_, buckets := booked(all)
		a.pass(3*24*time.Hour + time.Second)
		pruned := ok[control.Pruned](t)(a.Prune(t.Context()))
		after := a.sound()
		if after.Reports > 50 || after.Reports+int64(pruned.UsageReports) != before.Reports || after.Total != before.Total || after.Faults != 1 {
			t.Errorf("%d reports went; before %+v, after %+v", pruned.UsageReports, before, after)
		}
		check := func(when string) {
			for at, want := range buckets {
				a.same(when+" at "+at.String(), want, a.used(at, at.Add(control.UsageBucket)))
			}
		}
		check("compacted")
		// Reports that come again change nothing, although their rows have gone.
		for part := range slices.Chunk(all, 100) {
			a.report(part)
		}
		a.sound()
		check("repeated")
		// A session that goes on is compacted again.
		a.report([]control.UsageEntry{a.entry(1000, 100000, 100000, a.now())})
		a.pass(7 * 24 * time.Hour)
		if again := ok[control.Pruned](t)(a.Prune(t.Context())); again.UsageReports < 500 {
			t.Errorf("the second time %d reports went, want those that came again", again.UsageReports)
		}
		a.sound()
		check("compacted again")
	})
}

func TestVerifyNamesEachDifferenceOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		a := newAccount(t, dir, where)
		at := a.now().Truncate(control.UsageBucket)
		a.report([]control.UsageEntry{a.entry(1, 10, 20, at), a.entry(2, 30, 40, at)})
		key := control.UsageKey{GatewayID: a.gateway.ID, BootID: "b", SessionID: a.session.ID}
		sum := control.UsageSum{SubscriptionID: a.session.SubscriptionID, GatewayID: a.gateway.ID, Bucket: at.UnixMicro() / control.UsageBucket.Microseconds()}
		orphan := control.UsageReport{
			UsageKey: control.UsageKey{GatewayID: a.gateway.ID, BootID: "b", SessionID: "0000000000000000000000000000000f"},
			Traffic:  control.Traffic{Up: 5}, Sequence: 1, CountedAt: at, ReceivedAt: at,
		}
		var (
			session control.UsageSession
			total   control.UsageTotal
		)
		spoil := func(change func(ctx context.Context, tx control.Tx) error) {
			t.Helper()
			if err := a.records.Write(t.Context(), change); err != nil {
				t.Fatal(err)
			}
		}
		spoil(func(ctx context.Context, tx control.Tx) (err error) {
			session, err = tx.UsageSession(ctx, key)
			return err
		})
		a.sound()
		want := make(map[control.UsageLevel]control.UsageDifference)
		expect := func(d control.UsageDifference) {
			t.Helper()
			want[d.Level] = d
			got := make(map[control.UsageLevel]control.UsageDifference)
			for _, d := range ok[control.UsageVerdict](t)(a.VerifyUsage(t.Context())).Differences {
				got[d.Level] = d
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("differences (-want +got):\n%s", diff)
			}
		}
		spoil(func(ctx context.Context, tx control.Tx) error {
			sum.Traffic = control.Traffic{Down: 1}
			plan, err := tx.AddUsage(ctx, sum)
			if err != nil {
				return err
			}
			total = control.UsageTotal{Bucket: sum.Bucket, GatewayID: sum.GatewayID, PlanID: plan, Traffic: sum.Traffic}
			return tx.AddUsageTotal(ctx, total)
		})
		expect(control.UsageDifference{
			Level: control.LevelBucket, GatewayID: a.gateway.ID, SubscriptionID: sum.SubscriptionID, Bucket: at,
			Want: control.Traffic{Up: 30, Down: 40}, Have: control.Traffic{Up: 30, Down: 41},
		})
		spoil(func(ctx context.Context, tx control.Tx) error { return tx.AddUsageTotal(ctx, total) })
		expect(control.UsageDifference{
			Level: control.LevelTotal, GatewayID: a.gateway.ID, PlanID: total.PlanID, Bucket: at,
			Want: control.Traffic{Up: 30, Down: 41}, Have: control.Traffic{Up: 30, Down: 42},
		})
		spoil(func(ctx context.Context, tx control.Tx) error {
			session.Up--
			return tx.UpdateUsageSession(ctx, session, at)
		})
		expect(control.UsageDifference{
			Level: control.LevelSession, GatewayID: a.gateway.ID, BootID: "b", SessionID: a.session.ID, SubscriptionID: sum.SubscriptionID,
			Want: control.Traffic{Up: 30, Down: 40}, Have: control.Traffic{Up: 29, Down: 40},
		})
		spoil(func(ctx context.Context, tx control.Tx) error { return tx.PutUsageReport(ctx, orphan) })
		expect(control.UsageDifference{
			Level: control.LevelReports, GatewayID: a.gateway.ID, BootID: "b", SessionID: orphan.SessionID, Want: control.Traffic{Up: 5},
		})
		other := a.begin(a.subscriber(1, 1), 2)
		spoil(func(ctx context.Context, tx control.Tx) error {
			return tx.InsertUsageSession(ctx, control.UsageSession{
				UsageKey: control.UsageKey{GatewayID: a.gateway.ID, BootID: "b", SessionID: other.ID},
				DeviceID: other.DeviceID, UserID: "somebody else", SubscriptionID: other.SubscriptionID, CountedAt: at, ReceivedAt: at,
			}, at)
		})
		expect(control.UsageDifference{
			Level: control.LevelAttribution, GatewayID: a.gateway.ID, BootID: "b", SessionID: other.ID, SubscriptionID: other.SubscriptionID,
		})
		spoil(func(ctx context.Context, tx control.Tx) error {
			for n := range 2 * control.MaxUsageDifferences {
				orphan.SessionID = fmt.Sprintf("%032x", n)
				if err := tx.PutUsageReport(ctx, orphan); err != nil {
					return err
				}
			}
			return nil
		})
		if many := ok[control.UsageVerdict](t)(a.VerifyUsage(t.Context())); len(many.Differences) != control.MaxUsageDifferences || !many.More {
			t.Errorf("%d differences are named, more: %v", len(many.Differences), many.More)
		}
	})
}

func TestUsageIsShownByDayOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		a := newAccount(t, dir, where)
		today := a.now().Truncate(24 * time.Hour)
		a.report([]control.UsageEntry{
			a.entry(1, 1, 2, today.AddDate(0, 0, -2)), a.entry(2, 11, 22, today.Add(-time.Microsecond)), a.entry(3, 111, 222, today),
		})
		want := map[time.Time]control.Traffic{
			today: {Up: 100, Down: 200}, today.AddDate(0, 0, -1): {Up: 10, Down: 20}, today.AddDate(0, 0, -2): {Up: 1, Down: 2},
		}
		for name, filter := range map[string]control.UsageFilter{"user": {UserID: a.session.UserID}, "device": {DeviceID: a.session.DeviceID}} {
			days := ok[[]control.UsageDay](t)(a.UsageDays(t.Context(), filter, today.AddDate(0, 0, -2), a.now()))
			got := make(map[time.Time]control.Traffic)
			for _, d := range days {
				got[d.Day] = d.Traffic
			}
			if !maps.Equal(want, got) {
				t.Errorf("%s: %v, want %v", name, got, want)
			}
		}
		if days := ok[[]control.UsageDay](t)(a.UsageDays(t.Context(), control.UsageFilter{UserID: a.session.UserID}, today, today)); len(days) != 1 {
			t.Errorf("one day is %v", days)
		}
		if _, err := a.UsageDays(t.Context(), control.UsageFilter{UserID: "nobody"}, today, today); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("nobody's usage: %v", err)
		}
	})
}

// Counters may be so large that sums of them leave 64 bits: whoever has stolen a
// gateway's key can make it so, for the users that he carries.
func TestAGatewayThatLiesBeyondMeasureTakesNothingFromOthersOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		a := newAccount(t, dir, where)
		plan, _, err := a.CreatePlan(t.Context(), control.PlanFields{Name: new("quota"), QuotaBytes: new(int64(mib))}, control.Once{})
		if err != nil {
			t.Fatal(err)
		}
		user := a.subscriber(2, 100)
		sub, _, err := a.CreateSubscription(t.Context(), control.NewSubscription{UserID: user.ID, PlanID: plan.ID}, control.Once{})
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range ok[[]control.Subscription](t)(a.Subscriptions(t.Context(), user.ID, control.Page{Limit: 9})) {
			if s.ID != sub.ID {
				if err := a.DeleteSubscription(t.Context(), s.ID); err != nil {
					t.Fatal(err)
				}
			}
		}
		honest := a.session
		a.report([]control.UsageEntry{a.entry(1, 10, 20, a.now())})
		a.session = a.begin(user, 2)
		for round := range 3 {
			entries := make([]control.UsageEntry, control.MaxUsageReports)
			for i := range entries {
				entries[i] = a.entry(1, control.MaxUsageBytes, control.MaxUsageBytes, a.now().Add(-time.Duration(round)*control.UsageBucket))
				entries[i].BootID = fmt.Sprint(round, "-", i)
			}
			a.report(entries)
		}

		most := control.Traffic{Up: math.MaxInt64, Down: math.MaxInt64}
		a.same("used", most, a.used(a.now().AddDate(0, 0, -1), a.now().AddDate(0, 0, 1)))
		if verdict := a.sound(); verdict.Total != most {
			t.Errorf("in all %+v, want as much as a number can say", verdict.Total)
		}
		for id, want := range map[string]control.Traffic{user.ID: most, honest.UserID: {Up: 10, Down: 20}} {
			days := ok[[]control.UsageDay](t)(a.UsageDays(t.Context(), control.UsageFilter{UserID: id}, a.now(), a.now()))
			if len(days) != 1 || days[0].Traffic != want {
				t.Errorf("of a day %v, want %v", days, want)
			}
		}
		decided, err := a.Decide(t.Context(), a.gateway, control.SessionRequest{
			SessionID: sessionID(9), DeviceID: a.session.DeviceID, KeyThumbprint: ticket.Thumbprint(public(testKey(2))), Generation: 1, BootID: "b",
		})
		if err != nil || decided.Reason != reason.QuotaExceeded {
			t.Errorf("the user's next session: %+v, %v, want quota_exceeded", decided, err)
		}
	})
}

func TestOneRecomputationRunsAtATime(t *testing.T) {
	dir := t.TempDir()
	w, records := openWorld(t, dir)
	slow := &slowStore{Store: records, reading: make(chan struct{}), goOn: make(chan struct{})}
	var err error
	if w.Authority, err = w.over(slow, keysIn(t, dir, false)); err != nil {
		t.Fatal(err)
	}
	slow.slow.Store(true)
	first := make(chan error, 1)
	go func() {
		_, err := w.VerifyUsage(t.Context())
		first <- err
	}()
	<-slow.reading
	if _, err := w.VerifyUsage(t.Context()); err == nil || !strings.Contains(err.Error(), "already") {
		t.Errorf("a second one beside it: %v", err)
	}
	close(slow.goOn)
	if err := <-first; err != nil {
		t.Error(err)
	}
	ok[control.UsageVerdict](t)(w.VerifyUsage(t.Context()))
}

// slowStore is a store in which the next who reads waits when slow says so.
type slowStore struct {
	control.Store
	slow    atomic.Bool
	reading chan struct{} // has one waiter
	goOn    chan struct{}
}

func (s *slowStore) Read(ctx context.Context, fn func(context.Context, control.Tx) error) error {
	if s.slow.Swap(false) {
		s.reading <- struct{}{}
		<-s.goOn
	}
	return s.Store.Read(ctx, fn)
}
