package control_test

import (
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/internal/reason"
	"github.com/httvps/httvps/internal/ticket"
)

// planned makes a user with a subscription of a plan.
func (w *world) planned(fields control.PlanFields) (control.User, control.Plan, control.Subscription) {
	w.t.Helper()
	user := w.subscriber(5, 5)
	for _, s := range ok[[]control.Subscription](w.t)(w.Subscriptions(w.t.Context(), user.ID, control.Page{Limit: 10})) {
		if err := w.DeleteSubscription(w.t.Context(), s.ID); err != nil {
			w.t.Fatal(err)
		}
	}
	fields.Name = new("plan of " + user.ID)
	plan, _, err := w.CreatePlan(w.t.Context(), fields, control.Once{})
	if err != nil {
		w.t.Fatal(err)
	}
	return user, plan, w.subscribe(user, plan)
}

func (w *world) subscribe(user control.User, plan control.Plan) control.Subscription {
	w.t.Helper()
	sub, _, err := w.CreateSubscription(w.t.Context(), control.NewSubscription{UserID: user.ID, PlanID: plan.ID}, control.Once{})
	if err != nil {
		w.t.Fatal(err)
	}
	return sub
}

// another makes a gateway in a region of that code, made when it is not there.
func (w *world) another(number uint32, region string) control.Gateway {
	w.t.Helper()
	if found := ok[[]control.Region](w.t)(w.Regions(w.t.Context(), region, control.Page{Limit: 1})); len(found) == 0 {
		if _, _, err := w.CreateRegion(w.t.Context(), control.RegionFields{Code: &region}, control.Once{}); err != nil {
			w.t.Fatal(err)
		}
	}
	_, join, _, err := w.CreateGateway(w.t.Context(), control.NewGateway{Name: "gw", Region: region}, control.Once{})
	if err != nil {
		w.t.Fatal(err)
	}
	key, c := testKey(1000+number), code(w.t, join)
	gateway, _, err := w.JoinGateway(w.t.Context(), control.Join{
		Code: c, PublicKey: public(key), Proof: w.proof(key, "join", c), URL: "wss://gw.example.net/t",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return gateway
}

// request is a question about a session of a device with a key.
func request(device control.Device, key, session uint32) control.SessionRequest {
	return control.SessionRequest{
		SessionID: hex.EncodeToString(fmt.Appendf(nil, "session %08d", session)), DeviceID: device.ID,
		KeyThumbprint: ticket.Thumbprint(public(testKey(key))), Generation: 1, BootID: "b",
	}
}

func (w *world) decide(gateway control.Gateway, r control.SessionRequest, want reason.Code) control.Decision {
	w.t.Helper()
	decision := ok[control.Decision](w.t)(w.Decide(w.t.Context(), gateway, r))
	if decision.Reason != want {
		w.t.Errorf("decision is %q, want %q", decision.Reason, want)
	}
	return decision
}

func TestAPlansRegionsAreThoseOfItsSessions(t *testing.T) {
	w := newWorld(t)
	here, there := w.another(1, "here"), w.another(2, "there")
	user, plan, _ := w.planned(control.PlanFields{Regions: &[]string{"here"}})
	device := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(user))).Device
	w.decide(here, request(device, 1, 1), "")
	w.decide(there, request(device, 1, 2), reason.RegionUnavailable)

	listed := func(region string, want ...string) {
		t.Helper()
		var got []string
		for _, g := range ok[[]control.Gateway](t)(w.GatewaysFor(t.Context(), device.ID, region)) {
			got = append(got, g.Region)
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Errorf("gateways with the filter %q are in %v, want %v", region, got, want)
		}
	}
	listed("", "here")
	listed("here", "here")
	listed("there")
	issued := ok[control.Issued](t)(w.token(testKey(1), device.ID))
	if len(issued.Gateways) != 1 || issued.Gateways[0].ID != here.ID {
		t.Errorf("with the token come %+v, want the one gateway of the plan's region", issued.Gateways)
	}

	// Another subscription may allow what this one does not.
	_, anywhere, _ := w.planned(control.PlanFields{})
	wider := w.subscribe(user, anywhere)
	if got := w.decide(there, request(device, 1, 2), ""); got.Entitlement.ID != wider.ID {
		t.Errorf("the session rests on %s, want the subscription that allows the region", got.Entitlement.ID)
	}
	listed("", "here", "there")
	if err := w.DeleteSubscription(t.Context(), wider.ID); err != nil {
		t.Fatal(err)
	}

	ok[control.Plan](t)(w.UpdatePlan(t.Context(), plan.ID, control.PlanFields{Regions: &[]string{"there"}}))
	w.decide(here, request(device, 1, 1), reason.RegionUnavailable)
	log := ok[control.EventLog](t)(w.Events(t.Context(), 0, 500))
	if last := log.Events[len(log.Events)-1]; last.Kind != control.EventPlanChanged || last.PlanID != plan.ID || !last.All {
		t.Errorf("the last event is %+v, want that the plan has changed", last)
	}
}

func TestASubscriptionBeginsWithItsFirstUse(t *testing.T) {
	w := newWorld(t)
	here, there := w.another(1, "here"), w.another(2, "there")
	user, _, sub := w.planned(control.PlanFields{
		StartsOnFirstUse: new(true), DurationDays: new(30), Regions: &[]string{"here"}, MaxSessions: new(1),
	})
	if !sub.AwaitsUse || sub.EndsAt != nil || sub.Status(w.now()) != control.Scheduled {
		t.Fatalf("made as %+v, want one that awaits its first use", sub)
	}
	device := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(user))).Device
	w.pass(100 * 24 * time.Hour)
	ok[control.Issued](t)(w.token(testKey(1), device.ID))
	w.decide(there, request(device, 1, 1), reason.RegionUnavailable)
	if got := ok[control.Subscription](t)(w.Subscription(t.Context(), sub.ID)); !got.AwaitsUse {
		t.Fatalf("a session that was refused began it: %+v", got)
	}
	began := w.now()
	decision := w.decide(here, request(device, 1, 2), "")
	ends := began.AddDate(0, 0, 30)
	got := ok[control.Subscription](t)(w.Subscription(t.Context(), sub.ID))
	for _, s := range []control.Subscription{got, decision.Entitlement.Subscription} {
		if s.AwaitsUse || !s.StartsAt.Equal(began) || s.EndsAt == nil || !s.EndsAt.Equal(ends) {
			t.Errorf("it is %+v, want from %v to %v", s, began, ends)
		}
	}
	w.pass(time.Hour)
	w.decide(here, request(device, 1, 2), "")
	if again := ok[control.Subscription](t)(w.Subscription(t.Context(), sub.ID)); !again.StartsAt.Equal(began) {
		t.Errorf("asked again it begins at %v", again.StartsAt)
	}
	w.pass(30 * 24 * time.Hour)
	w.decide(here, request(device, 1, 2), reason.SubscriptionExpired)
}

func TestASubscriptionAwaitsUseWhileAnotherRuns(t *testing.T) {
	w := newWorld(t)
	here := w.another(1, "here")
	user, plan, later := w.planned(control.PlanFields{StartsOnFirstUse: new(true), DurationDays: new(30)})
	_, running, _ := w.planned(control.PlanFields{DurationDays: new(1)})
	first := w.subscribe(user, running)
	device := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(user))).Device
	if got := w.decide(here, request(device, 1, 1), ""); got.Entitlement.ID != first.ID {
		t.Errorf("the session rests on %s, want the one that runs", got.Entitlement.ID)
	}
	w.pass(24 * time.Hour)
	if got := w.decide(here, request(device, 1, 1), ""); got.Entitlement.ID != later.ID {
		t.Errorf("the session goes on with %s, want the one that waited", got.Entitlement.ID)
	}
	if got := ok[control.Subscription](t)(w.Subscription(t.Context(), later.ID)); got.AwaitsUse {
		t.Error("it still waits")
	}

	// An operator can begin one, too.
	third := w.subscribe(user, plan)
	starts := w.now().Add(time.Hour)
	moved := ok[control.Subscription](t)(w.UpdateSubscription(t.Context(), third.ID, control.SubscriptionFields{StartsAt: &starts}))
	if moved.AwaitsUse || moved.EndsAt == nil || !moved.EndsAt.Equal(starts.AddDate(0, 0, 30)) {
		t.Errorf("moved to %+v, want 30 days from %v", moved, starts)
	}
	fourth := w.subscribe(user, plan)
	if _, err := w.UpdateSubscription(t.Context(), fourth.ID, control.SubscriptionFields{EndsAt: &starts}); err == nil {
		t.Error("a subscription that has not begun was given an end alone")
	}
}

func TestOfManyFirstUsesOneBeginsTheSubscriptionOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		here := w.another(1, "here")
		user, _, sub := w.planned(control.PlanFields{StartsOnFirstUse: new(true), DurationDays: new(1), MaxSessions: new(1000)})
		device := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(user))).Device
		began := w.now()
		n, failed := atOnce(func(caller uint32) error {
			decision, err := w.Decide(t.Context(), here, request(device, 1, caller))
			if err == nil && (decision.Reason != "" || decision.Entitlement.ID != sub.ID || !decision.Entitlement.StartsAt.Equal(began)) {
				err = fmt.Errorf("decided %+v", decision)
			}
			return err
		})
		if n != 64 {
			t.Errorf("%d of 64 sessions began: %v", n, failed)
		}
	})
}

func TestGatewaysThatCarryLessAndWereHeardOfComeFirst(t *testing.T) {
	w := newWorld(t)
	user, _, _ := w.planned(control.PlanFields{})
	device := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(user))).Device
	gateways := make([]control.Gateway, 6)
	for i := range gateways {
		gateways[i] = w.another(uint32(i), "here")
	}
	beat := func(i, sessions int) {
		t.Helper()
		if _, err := w.Heartbeat(t.Context(), gateways[i], control.Lease{BootID: "b", Sessions: &sessions}); err != nil {
			t.Fatal(err)
		}
	}
	place := func() map[string]int {
		order := make(map[string]int)
		for i, g := range ok[[]control.Gateway](t)(w.GatewaysFor(t.Context(), device.ID, "")) {
			order[g.ID] = i
		}
		return order
	}
	beat(0, 100)
	w.pass(w.HeartbeatInterval() * 3 / 2)
	w.pass(time.Millisecond)
	for i, sessions := range []int{100, 100, 110, 600, 290} {
		beat(i+1, sessions)
	}
	first := place()
	for i, want := range map[int][]int{0: {5}, 4: {4}, 5: {3}, 1: {0, 1, 2}, 2: {0, 1, 2}, 3: {0, 1, 2}} {
		if got := first[gateways[i].ID]; !slices.Contains(want, got) {
			t.Errorf("gateway %d is at place %d, want %v", i, got, want)
		}
	}
	beat(1, 103) // no reason to go elsewhere
	for id, at := range place() {
		if first[id] != at {
			t.Errorf("a few sessions more change the order: %d became %d", first[id], at)
		}
	}
}

// A device has its session elsewhere before it leaves the gateway that goes away, though
// its plan has one place; and who leaves is told where to.
func TestDevicesOfADrainedGatewayHaveAPlaceElsewhere(t *testing.T) {
	w := newWorld(t)
	far, near, idle := w.another(1, "far"), w.another(2, "here"), w.another(3, "here")
	gateway := w.another(4, "here")
	sessions := 5
	ok[[]control.SessionEnd](t)(w.Heartbeat(t.Context(), near, control.Lease{BootID: "b", URL: "wss://near/x", Sessions: &sessions}))
	ok[[]control.SessionEnd](t)(w.Heartbeat(t.Context(), idle, control.Lease{BootID: "b", URL: "wss://idle/x"}))
	ok[[]control.SessionEnd](t)(w.Heartbeat(t.Context(), far, control.Lease{BootID: "b", URL: "wss://far/x"}))
	c := w.connect(gateway, 9)
	shown := func() bool {
		list := ok[[]control.Gateway](t)(w.GatewaysFor(t.Context(), c.device.ID, ""))
		return slices.ContainsFunc(list, func(g control.Gateway) bool { return g.ID == gateway.ID })
	}
	if d := w.begin(near, c, sessionID(10)); d.Reason != reason.SessionLimit || !shown() {
		t.Errorf("a second session is answered %q", d.Reason)
	}
	drained := ok[control.Gateway](t)(w.DrainGateway(t.Context(), gateway.ID))
	if drained.DrainedAt == nil || !drained.Draining() || shown() {
		t.Errorf("drained: %+v", drained)
	}
	if got := ok[[]string](t)(w.OtherGateways(t.Context(), gateway)); !slices.Equal(got, []string{"wss://idle/x", "wss://near/x", "wss://far/x"}) {
		t.Errorf("others: %q", got)
	}
	if d := w.begin(near, c, sessionID(11)); d.Reason != "" {
		t.Errorf("the session elsewhere is answered %q", d.Reason)
	}
	// The session that is left goes on, and may be asked about.
	if d := w.begin(gateway, c, c.session); d.Reason != "" {
		t.Errorf("the session that is left is answered %q", d.Reason)
	}
	if d := w.begin(idle, c, sessionID(12)); d.Reason != reason.SessionLimit {
		t.Errorf("a third one is answered %q", d.Reason)
	}
	if undrained := ok[control.Gateway](t)(w.UndrainGateway(t.Context(), gateway.ID)); undrained.Draining() || !shown() {
		t.Errorf("undrained: %+v", undrained)
	}
	if _, err := w.DrainGateway(t.Context(), c.user.ID); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("a gateway that there is not: %v", err)
	}
}
