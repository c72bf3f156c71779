package control_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/internal/reason"
)

const (
	mib = 1 << 20
	gib = 1 << 30
)

// carrier is a gateway with a session, which moves traffic as its lease allows and
// tells all of it.
type carrier struct {
	w       *world
	gateway control.Gateway
	sub     string
	session string

	mu       sync.Mutex // guards the following fields
	version  int64
	allowed  int64
	moved    int64
	sequence uint64
	state    control.QuotaState
	throttle int64
	warned   []int
}

// carry begins a session of the device on a gateway.
func (w *world) carry(gateway control.Gateway, device control.Device, key, session uint32) *carrier {
	w.t.Helper()
	r := request(device, key, session)
	decision := w.decide(gateway, r, "")
	c := &carrier{w: w, gateway: gateway, sub: decision.Entitlement.ID, session: r.SessionID}
	c.take(decision.Grant)
	return c
}

// take notes a grant, unless a later one has come before.
func (c *carrier) take(g control.Grant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if g.Lease.Version >= c.version {
		c.version, c.allowed, c.state, c.throttle = g.Lease.Version, g.Lease.Allowance, g.State, g.ThrottleBPS
	}
	if g.Warning > 0 {
		c.warned = append(c.warned, g.Warning)
	}
}

// move moves up to n bytes, as far as the lease allows, and returns how many.
func (c *carrier) move(n int64) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	n = max(min(n, c.allowed-c.moved), 0)
	c.moved += n
	return n
}

// renew draws more, and returns what the service said.
func (c *carrier) renew(t *testing.T, hold *int64) control.Grant {
	t.Helper()
	c.mu.Lock()
	r := control.LeaseRequest{SubscriptionID: c.sub, Used: c.moved, Version: c.version, Hold: hold}
	c.mu.Unlock()
	grants, err := c.w.RenewQuota(t.Context(), c.gateway, "b", []control.LeaseRequest{r})
	if err != nil {
		t.Error(err)
		return control.Grant{State: control.QuotaUnknown}
	}
	c.take(grants[0])
	return grants[0]
}

// report tells what was moved.
func (c *carrier) report(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	c.sequence++
	moved, sequence := c.moved, c.sequence
	c.mu.Unlock()
	answer, err := c.w.ReportUsage(t.Context(), c.gateway, []control.UsageEntry{
		{BootID: "b", SessionID: c.session, Sequence: sequence, Up: uint64(moved / 3), Down: uint64(moved - moved/3), At: c.w.now()},
	})
	if err != nil {
		t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, reached := range answer.Warnings {
		c.warned = append(c.warned, reached.Warning)
	}
}

// committed returns what is used and what is leased beside it, as the records say.
func (w *world) committed(t *testing.T, records *store.Store, sub string) (used, reserved int64) {
	t.Helper()
	err := records.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
		use, err := tx.Quota(ctx, sub)
		if err != nil {
			return err
		}
		used = use.Used
		reserved, err = tx.QuotaReserved(ctx, sub, "", "", w.now(), w.now().AddDate(-1, 0, 0))
		return err
	})
	if err != nil {
		t.Error(err)
	}
	return used, reserved
}

// quotaed makes a device whose user has a plan with a quota, on gateways of its own.
func (w *world) quotaed(fields control.PlanFields, gateways int) (control.Device, control.Plan, control.Subscription, []control.Gateway) {
	w.t.Helper()
	user, plan, sub := w.planned(fields)
	device := ok[control.Enrolled](w.t)(w.enrol(testKey(1), w.invite(user))).Device
	list := make([]control.Gateway, gateways)
	for i := range list {
		list[i] = w.another(uint32(i), "here")
	}
	return device, plan, sub, list
}

func TestGatewaysThatDrawAtOnceNeverGetMoreThanTheQuotaOnBothEngines(t *testing.T) {
	rounds := 1
	if os.Getenv("HTTVPS_SOAK") != "" {
		rounds = 20
	}
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, records := openWorldOn(t, dir, where)
		_, _, _, gateways := w.quotaed(control.PlanFields{QuotaBytes: new(int64(gib))}, 3)
		for round := range uint32(rounds) {
			user, _, sub := w.planned(control.PlanFields{QuotaBytes: new(int64(gib)), MaxSessions: new(9)})
			device := ok[control.Enrolled](t)(w.enrol(testKey(100+round), w.invite(user))).Device
			var carriers []*carrier
			for i, gateway := range gateways {
				carriers = append(carriers, w.carry(gateway, device, 100+round, 10*round+uint32(i)))
			}
			var (
				group  sync.WaitGroup
				done   = make(chan struct{})
				moving atomic.Int64
			)
			watch := func() {
				used, reserved := w.committed(t, records, sub.ID)
				if used < 0 || reserved < 0 || used+reserved > gib {
					t.Errorf("%d bytes are used and %d leased of a quota of %d", used, reserved, gib)
				}
			}
			for _, c := range carriers {
				for range 8 {
					moving.Add(1)
					group.Go(func() {
						defer func() {
							if moving.Add(-1) == 0 {
								close(done)
							}
						}()
						for {
							if c.move(rand.Int64N(8*mib)) > 0 {
								continue
							}
							if got := c.renew(t, nil); got.State != control.QuotaOpen {
								return
							}
							if rand.IntN(4) == 0 {
								c.report(t)
							}
						}
					})
				}
				group.Go(func() { // nobody waits for the last reports of the others
					for {
						select {
						case <-done:
							return
						default:
							c.report(t)
							watch()
						}
					}
				})
			}
			group.Wait()
			total := int64(0)
			for _, c := range carriers {
				c.report(t)
				total += c.moved
			}
			watch()
			if total > gib || total < gib-3*mib {
				t.Errorf("%d bytes were moved of a quota of %d", total, gib)
			}
			used, _ := w.committed(t, records, sub.ID)
			booked := ok[control.Traffic](t)(w.UsedBytes(t.Context(), sub.ID, w.now().AddDate(-1, 0, 0), w.now().AddDate(1, 0, 0)))
			if used != total || booked.Up+booked.Down != total {
				t.Errorf("%d bytes were moved, %d are booked, %d counted as used", total, booked.Up+booked.Down, used)
			}
			w.decide(gateways[0], request(device, 100+round, 10*round+9), reason.QuotaExceeded)
		}
	})
}

func TestWhatADeadGatewayHasNotUsedComesBackWhenItsTimeIsOverOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, records := openWorldOn(t, dir, where)
		device, _, sub, gateways := w.quotaed(control.PlanFields{QuotaBytes: new(int64(64 * mib))}, 3)
		size := control.QuotaLeaseSize(64 * mib)
		dead, living, idle := w.carry(gateways[0], device, 1, 1), w.carry(gateways[1], device, 1, 2), w.carry(gateways[2], device, 1, 3)
		dead.move(size / 4)
		dead.renew(t, nil) // so much is known, and reported late
		dead.move(size)    // and that is known to nobody
		draw := func() {
			t.Helper()
			for range 1000 {
				living.move(gib)
				living.report(t)
				if got := living.renew(t, nil); got.State != control.QuotaOpen || got.Lease.Allowance == living.moved {
					return
				}
			}
			t.Fatal("there is no end to it")
		}
		draw()
		if want := 64*mib - dead.allowed - idle.allowed; living.moved != want || living.state != control.QuotaOpen {
			t.Errorf("beside the dead one's lease %d bytes were given out (%s), want %d", living.moved, living.state, want)
		}
		w.pass(control.QuotaLeaseTTL / 2)
		living.renew(t, nil)
		w.pass(control.QuotaLeaseTTL/2 - time.Second)
		draw()
		if want := 64*mib - dead.allowed - idle.allowed; living.moved != want {
			t.Errorf("before its time is over %d bytes were given out, want %d", living.moved, want)
		}
		w.pass(time.Second)
		draw()
		if want := 64*mib - size/4; living.moved != want {
			t.Errorf("then %d bytes were given out, want %d: all but what the dead one said it had used", living.moved, want)
		}
		if got := idle.renew(t, nil); got.Lease.Allowance != 0 {
			t.Errorf("what it had was given to others, and a gateway that comes back has %+v", got)
		}
		dead.report(t)
		if over := dead.moved + living.moved - 64*mib; over <= 0 || over > size {
			t.Errorf("in the end it is %d bytes too much, want at most a lease of %d", over, size)
		}
		if used, _ := w.committed(t, records, sub.ID); used != dead.moved+living.moved {
			t.Errorf("%d bytes are counted, want %d", used, dead.moved+living.moved)
		}
		if got := dead.renew(t, nil); got.State != control.QuotaExhausted || got.Lease.Allowance != dead.moved {
			t.Errorf("come back, the dead one is told %+v, want nothing more", got)
		}
	})
}

func TestAGatewayThatUsedEverythingIsToldSoBeforeItHasReported(t *testing.T) {
	w := newWorld(t)
	device, _, _, gateways := w.quotaed(control.PlanFields{QuotaBytes: new(int64(2 * mib))}, 1)
	c := w.carry(gateways[0], device, 1, 1)
	for range 100 {
		c.move(gib)
		if got := c.renew(t, nil); got.State == control.QuotaExhausted {
			break
		}
	}
	if c.state != control.QuotaExhausted || c.moved != 2*mib {
		t.Errorf("having moved %d bytes it is %s", c.moved, c.state)
	}
}

func TestAGatewayGivesBackWhatItDoesNotNeed(t *testing.T) {
	w, records := openWorld(t, t.TempDir())
	device, _, sub, gateways := w.quotaed(control.PlanFields{QuotaBytes: new(int64(gib))}, 2)
	c := w.carry(gateways[0], device, 1, 1)
	size := control.QuotaLeaseSize(gib)
	reserved := func(want int64) {
		t.Helper()
		if _, got := w.committed(t, records, sub.ID); got != want {
			t.Errorf("%d bytes are reserved, want %d", got, want)
		}
	}
	reserved(size)
	c.move(size / 2)
	stale := control.LeaseRequest{SubscriptionID: c.sub, Used: c.moved, Version: c.version, Hold: new(c.moved)}
	c.renew(t, nil)
	reserved(size/2 + size)
	// A word that comes late is about another lease.
	ok[[]control.Grant](t)(w.RenewQuota(t.Context(), c.gateway, "b", []control.LeaseRequest{stale}))
	reserved(size/2 + size)
	c.renew(t, nil)
	c.renew(t, new(c.moved))
	reserved(size / 2)
	if c.allowed != c.moved {
		t.Errorf("having given back the rest, the gateway may move %d bytes, want %d", c.allowed, c.moved)
	}
	c.report(t)
	reserved(0)
	c.renew(t, new(int64(0)))
	reserved(0)
	c.renew(t, nil)
	reserved(size)

	// Its next process begins with nothing, and so does one that never had a session.
	unknown := []control.LeaseRequest{{SubscriptionID: c.sub}, {SubscriptionID: "00000000-0000-7000-8000-000000000000"}}
	for _, g := range slices.Concat(
		ok[[]control.Grant](t)(w.RenewQuota(t.Context(), c.gateway, "another", unknown)),
		ok[[]control.Grant](t)(w.RenewQuota(t.Context(), gateways[1], "b", unknown)),
	) {
		if g.State != control.QuotaUnknown || g.Lease.Allowance != 0 {
			t.Errorf("without a lease: %+v", g)
		}
	}
	reserved(size)
}

func TestWhatCannotBeTrueTakesNothingFromOthers(t *testing.T) {
	w, records := openWorld(t, t.TempDir())
	device, _, sub, gateways := w.quotaed(control.PlanFields{QuotaBytes: new(int64(gib))}, 2)
	c := w.carry(gateways[0], device, 1, 1)
	for range 3 {
		ok[[]control.Grant](t)(w.RenewQuota(t.Context(), c.gateway, "b", []control.LeaseRequest{{SubscriptionID: sub.ID, Used: 1 << 53, Version: 1}}))
	}
	if _, reserved := w.committed(t, records, sub.ID); reserved > gib {
		t.Errorf("a gateway that lies reserves %d bytes", reserved)
	}
}

func TestAQuotaBeginsAnewWithItsPeriodAndWarnsOnTheWay(t *testing.T) {
	w, records := openWorld(t, t.TempDir())
	device, plan, sub, gateways := w.quotaed(control.PlanFields{
		QuotaBytes: new(int64(100 * mib)), QuotaPeriod: new(control.PeriodDay), TimeZone: new("Asia/Kathmandu"), QuotaWarnings: &[]int{50, 80},
	}, 1)
	c := w.carry(gateways[0], device, 1, 1)
	until := func(bytes int64) {
		t.Helper()
		for c.moved < bytes {
			if c.move(min(mib, bytes-c.moved)) == 0 {
				c.renew(t, nil)
			}
		}
		c.report(t)
		c.renew(t, nil)
	}
	warned := func(want ...int) {
		t.Helper()
		if !slices.Equal(c.warned, want) {
			t.Errorf("at %d MiB there were warnings of %v, want %v", c.moved/mib, c.warned, want)
		}
	}
	until(49 * mib)
	warned()
	until(50 * mib)
	warned(50)
	until(60 * mib)
	warned(50)
	until(100 * mib)
	warned(50, 100)
	if c.state != control.QuotaExhausted || c.move(mib) != 0 {
		t.Errorf("with the quota used up it is %s", c.state)
	}
	w.decide(c.gateway, request(device, 1, 1), reason.QuotaExceeded)
	w.decide(c.gateway, request(device, 1, 2), reason.QuotaExceeded)

	// An operator may give more, or throttle instead.
	ok[control.Plan](t)(w.UpdatePlan(t.Context(), plan.ID, control.PlanFields{QuotaBytes: new(int64(101 * mib))}))
	if got := c.renew(t, nil); got.State != control.QuotaOpen {
		t.Errorf("with a larger quota it is %s", got.State)
	}
	until(101 * mib)
	ok[control.Plan](t)(w.UpdatePlan(t.Context(), plan.ID, control.PlanFields{
		QuotaAction: new(control.QuotaThrottle), ThrottleBPS: new(int64(64_000)),
	}))
	if got := w.decide(c.gateway, request(device, 1, 1), ""); got.Grant.State != control.QuotaThrottled || got.Grant.ThrottleBPS != 64_000 {
		t.Errorf("with a plan that throttles the session has %+v", got.Grant)
	}
	c.mu.Lock()
	c.moved += 7 * mib // slowly
	c.mu.Unlock()
	c.report(t)
	if got := c.renew(t, nil); got.State != control.QuotaThrottled {
		t.Errorf("throttled it is %s", got.State)
	}

	// Midnight in Kathmandu is at 18:15 in Greenwich.
	begins := time.Date(2026, 3, 1, 18, 15, 0, 0, time.UTC)
	w.clock.Store(begins.UnixMicro() - 1)
	if got := c.renew(t, nil); got.State != control.QuotaThrottled || !got.Period.To.Equal(begins) {
		t.Errorf("a moment before midnight: %+v", got)
	}
	w.clock.Store(begins.UnixMicro())
	c.warned = nil
	if got := c.renew(t, nil); got.State != control.QuotaOpen || got.Used != 0 || got.Lease.Allowance != c.moved+control.QuotaLeaseSize(101*mib) {
		t.Errorf("at midnight: %+v, want the whole quota", got)
	}
	until(c.moved + 51*mib)
	warned(50)
	if used, reserved := w.committed(t, records, sub.ID); used != 51*mib || reserved != control.QuotaLeaseSize(101*mib) {
		t.Errorf("%d bytes are used and %d leased", used, reserved)
	}
	// What was moved yesterday and comes late is yesterday's.
	late := control.UsageEntry{BootID: "b", SessionID: request(device, 1, 77).SessionID, Sequence: 1, Up: mib, At: begins.Add(-time.Minute)}
	w.decide(c.gateway, request(device, 1, 77), "")
	ok[control.UsageAnswer](t)(w.ReportUsage(t.Context(), c.gateway, []control.UsageEntry{late}))
	if used, _ := w.committed(t, records, sub.ID); used != 51*mib {
		t.Errorf("%d bytes are used after a late report, want as before", used)
	}
}

func TestAQuotaThatComesLaterKnowsWhatWasUsedBefore(t *testing.T) {
	w := newWorld(t)
	device, plan, sub, gateways := w.quotaed(control.PlanFields{}, 1)
	c := w.carry(gateways[0], device, 1, 1)
	if c.state != control.QuotaUnlimited {
		t.Fatalf("without a quota it is %s", c.state)
	}
	c.moved = 30 * mib
	c.report(t)
	if got := c.renew(t, nil); got.State != control.QuotaUnlimited {
		t.Errorf("without a quota it is %s", got.State)
	}
	ok[control.Plan](t)(w.UpdatePlan(t.Context(), plan.ID, control.PlanFields{QuotaBytes: new(int64(40 * mib))}))
	if got := c.renew(t, nil); got.State != control.QuotaUnknown {
		t.Errorf("before it asks again about its session, the gateway is told %s", got.State)
	}
	got := w.decide(c.gateway, request(device, 1, 1), "").Grant
	if got.State != control.QuotaOpen || got.Used != 30*mib || got.Lease.Allowance != 31*mib {
		t.Errorf("granted %+v, want 30 MiB used and 1 MiB more", got)
	}
	if err := w.DeleteSubscription(t.Context(), sub.ID); err != nil {
		t.Fatal(err)
	}
	if got := c.renew(t, nil); got.State != control.QuotaUnknown {
		t.Errorf("of a subscription that is gone it is told %s", got.State)
	}
}

func TestASessionGoesOnOnlyWhereItsTrafficIsBooked(t *testing.T) {
	w := newWorld(t)
	device, _, first, gateways := w.quotaed(control.PlanFields{QuotaBytes: new(int64(10 * mib))}, 1)
	user := control.User{ID: first.UserID}
	c := w.carry(gateways[0], device, 1, 1)
	_, larger, _ := w.planned(control.PlanFields{QuotaBytes: new(int64(gib))})
	second := w.subscribe(user, larger)
	if got := w.decide(c.gateway, request(device, 1, 1), ""); got.Entitlement.ID != first.ID {
		t.Errorf("the session moved to %s", got.Entitlement.ID)
	}
	for c.moved < 10*mib {
		c.move(gib)
		c.report(t)
		c.renew(t, nil)
	}
	// Its own quota is used up. A new session can rest on the other one.
	w.decide(c.gateway, request(device, 1, 1), reason.SessionUnknown)
	if got := w.decide(c.gateway, request(device, 1, 2), ""); got.Entitlement.ID != second.ID {
		t.Errorf("a new session rests on %s, want the one with something left", got.Entitlement.ID)
	}
	// Where nothing is counted, it may go on.
	_, free, _ := w.planned(control.PlanFields{})
	third := w.subscribe(user, free)
	if err := w.DeleteSubscription(t.Context(), second.ID); err != nil {
		t.Fatal(err)
	}
	if got := w.decide(c.gateway, request(device, 1, 1), ""); got.Entitlement.ID != third.ID || got.Grant.State != control.QuotaUnlimited {
		t.Errorf("the session rests on %+v, want the one without a quota", got)
	}
}

func TestOldLeasesAreForgotten(t *testing.T) {
	w := newWorld(t)
	device, _, _, gateways := w.quotaed(control.PlanFields{QuotaBytes: new(int64(gib))}, 2)
	idle, lost := w.carry(gateways[0], device, 1, 1), w.carry(gateways[1], device, 1, 2)
	lost.move(mib)
	lost.renew(t, nil)
	pruned := func(after time.Duration, want int) {
		t.Helper()
		w.pass(after)
		if got := ok[control.Pruned](t)(w.Prune(t.Context())); got.QuotaLeases != want {
			t.Errorf("%d leases were forgotten, want %d", got.QuotaLeases, want)
		}
	}
	pruned(24*time.Hour, 0)
	pruned(2*control.QuotaLeaseTTL, 1)
	pruned(400*24*time.Hour-24*time.Hour, 1)
	if got := idle.renew(t, nil); got.State != control.QuotaUnknown {
		t.Errorf("a lease that was forgotten is %s", got.State)
	}
}

func TestASubscriptionShowsWhatIsUsedOfItsQuotaBeforeAndAfterItRuns(t *testing.T) {
	w := newWorld(t)
	fields := control.PlanFields{QuotaBytes: new(int64(100 * mib)), QuotaPeriod: new(control.PeriodDay), DurationDays: new(2), StartsOnFirstUse: new(true)}
	device, _, sub, gateways := w.quotaed(fields, 1)
	want := func(what string, used int64, from, to time.Time) {
		t.Helper()
		_, q, err := w.SubscriptionQuota(t.Context(), sub.ID)
		if err != nil || q == nil || q.Used != used || q.Left != 100*mib-used || !q.From.Equal(from) || !q.To.Equal(to) {
			t.Errorf("%s: %+v, %v, want %d used from %v to %v", what, q, err, used, from, to)
		}
	}
	want("awaiting its first use", 0, time.Time{}, time.Time{})

	began := w.now() // noon
	midnight := began.Truncate(24 * time.Hour)
	c := w.carry(gateways[0], device, 1, 1)
	c.move(mib)
	c.report(t)
	want("on its first day", mib, midnight, midnight.AddDate(0, 0, 1))
	w.pass(36*time.Hour + time.Minute) // the day of its end, of which nobody has asked before
	want("on its last day, unused", 0, midnight.AddDate(0, 0, 2), midnight.AddDate(0, 0, 3))
	w.clock.Store(began.AddDate(0, 0, 2).Add(-time.Hour).UnixMicro())
	c.renew(t, nil)
	c.move(mib / 2)
	c.report(t)
	w.pass(30 * 24 * time.Hour)
	want("long after its end", mib/2, midnight.AddDate(0, 0, 2), midnight.AddDate(0, 0, 3))

	_, _, unlimited := w.planned(control.PlanFields{})
	if _, q, err := w.SubscriptionQuota(t.Context(), unlimited.ID); err != nil || q != nil {
		t.Errorf("without a quota: %+v, %v", q, err)
	}
	if _, _, err := w.SubscriptionQuota(t.Context(), "nothing"); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("of nothing: %v", err)
	}
}
