package control_test

import (
	"context"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/google/uuid"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/internal/reason"
)

// since returns the events after a version, and the newest version.
func (w *world) since(after int64) ([]control.Event, int64) {
	w.t.Helper()
	log := ok[control.EventLog](w.t)(w.Events(w.t.Context(), after, control.MaxEvents))
	return log.Events, log.Latest
}

// connected is a user's device with a session on the gateway.
type connected struct {
	user    control.User
	device  control.Device
	session string
}

func (w *world) connect(gateway control.Gateway, n uint32) connected {
	w.t.Helper()
	c := connected{user: w.subscriber(1, 1), session: sessionID(n)}
	c.device = ok[control.Enrolled](w.t)(w.enrol(testKey(n), w.invite(c.user))).Device
	if d := w.begin(gateway, c, c.session); d.Reason != "" {
		w.t.Fatalf("the session is refused: %s", d.Reason)
	}
	return c
}

func sessionID(n uint32) string {
	id := uuid.NewSHA1(uuid.Nil, []byte{byte(n)})
	return id.String()[:8] + "000000000000000000000000"
}

func (w *world) begin(gateway control.Gateway, c connected, session string) control.Decision {
	w.t.Helper()
	return ok[control.Decision](w.t)(w.Decide(w.t.Context(), gateway, control.SessionRequest{
		SessionID: session, DeviceID: c.device.ID, KeyThumbprint: c.device.Thumbprint(), Generation: c.device.Generation, BootID: "b",
	}))
}

func TestEveryChangeThatGatewaysActOnIsAnEventOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		gateway := w.gateway()
		here := []string{gateway.ID}
		one, two := w.connect(gateway, 1), w.connect(gateway, 2)
		stranger := w.subscriber(1, 1) // no gateway knows him
		subs := ok[[]control.Subscription](t)(w.Subscriptions(t.Context(), one.user.ID, control.Page{Limit: 1}))
		sub, plan := subs[0].ID, subs[0].PlanID
		events, last := w.since(0)
		kinds := make(map[control.EventKind]int)
		for _, e := range events {
			kinds[e.Kind]++
		}
		// The keys of the first start, and the subscriptions that were made.
		want := map[control.EventKind]int{control.EventKeysChanged: 2, control.EventSubscriptionChanged: 3}
		if diff := cmp.Diff(want, kinds); diff != "" {
			t.Errorf("events of the first start (-want +got):\n%s", diff)
		}
		do := func(name string, change func() error, want ...control.Event) {
			t.Helper()
			if err := change(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			var got []control.Event
			got, last = w.since(last)
			if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(control.Event{}, "Version", "At"), cmpopts.EquateEmpty()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		user := func(id string, f control.UserFields) func() error {
			return func() error { _, err := w.UpdateUser(t.Context(), id, f); return err }
		}
		move := func(f control.SubscriptionFields) func() error {
			return func() error { _, err := w.UpdateSubscription(t.Context(), sub, f); return err }
		}
		revoke := func() error { _, err := w.RevokeDevice(t.Context(), two.device.ID); return err }
		closeIt := func() error { _, err := w.CloseSession(t.Context(), one.session, reason.SessionUnknown); return err }
		now := w.now()
		changed := control.Event{Kind: control.EventSubscriptionChanged, Gateways: here, UserID: one.user.ID, SubscriptionID: sub, PlanID: plan}
		ended := changed
		ended.Kind, ended.Reason = control.EventSubscriptionEnded, "subscription_expired"
		gone := changed
		gone.Kind, gone.Reason = control.EventSubscriptionEnded, "no_active_subscription"

		do("a note", user(one.user.ID, control.UserFields{Note: new("x")}))
		do("disabled", user(one.user.ID, control.UserFields{Disabled: new(true)}),
			control.Event{Kind: control.EventUserDisabled, Gateways: here, UserID: one.user.ID, Reason: "user_disabled"})
		do("disabled again", user(one.user.ID, control.UserFields{Disabled: new(true)}))
		do("enabled", user(one.user.ID, control.UserFields{Disabled: new(false)}),
			control.Event{Kind: control.EventUserEnabled, Gateways: here, UserID: one.user.ID})
		do("disabled whom nobody knows", user(stranger.ID, control.UserFields{Disabled: new(true)}),
			control.Event{Kind: control.EventUserDisabled, UserID: stranger.ID, Reason: "user_disabled"})
		do("longer", move(control.SubscriptionFields{EndsAt: new(now.Add(48 * time.Hour))}), changed)
		do("over", move(control.SubscriptionFields{StartsAt: new(now.Add(-2 * time.Hour)), EndsAt: new(now.Add(-time.Hour))}), ended)
		do("on again", move(control.SubscriptionFields{EndsAt: new(now.Add(time.Hour))}), changed)
		do("a plan's name", func() error {
			_, err := w.UpdatePlan(t.Context(), plan, control.PlanFields{Name: new("other")})
			return err
		})
		do("a plan's limit", func() error {
			_, err := w.UpdatePlan(t.Context(), plan, control.PlanFields{MaxStreams: new(7)})
			return err
		},
			control.Event{Kind: control.EventPlanChanged, All: true, PlanID: plan})
		do("a session closed", closeIt, control.Event{
			Kind: control.EventSessionClose, Gateways: here, Reason: "session_unknown", SessionID: one.session, DeviceID: one.device.ID, UserID: one.user.ID,
		})
		do("closed again", closeIt)
		if d := w.begin(gateway, one, one.session); d.Reason != reason.SessionUnknown {
			t.Errorf("a session that is to be closed is answered %q", d.Reason)
		}
		do("revoked", revoke, control.Event{
			Kind: control.EventDeviceRevoked, Gateways: here, Reason: "device_revoked", DeviceID: two.device.ID, UserID: two.user.ID,
		})
		do("revoked again", revoke)
		do("a knock key", func() error { _, err := w.RotateKnock(t.Context()); return err },
			control.Event{Kind: control.EventKeysChanged, All: true, Keys: "knock"})
		do("a subscription deleted", func() error { return w.DeleteSubscription(t.Context(), sub) }, gone)
		do("a user deleted", func() error { return w.DeleteUser(t.Context(), two.user.ID) },
			control.Event{Kind: control.EventUserRemoved, Gateways: here, UserID: two.user.ID, Reason: "device_not_found"})
		do("a user who is not there", func() error {
			if err := w.DeleteUser(t.Context(), two.user.ID); err == nil {
				t.Error("deleted twice")
			}
			return nil
		})
		drain := func(change func(context.Context, string) (control.Gateway, error)) func() error {
			return func() error { _, err := change(t.Context(), gateway.ID); return err }
		}
		do("a gateway drained", drain(w.DrainGateway), control.Event{Kind: control.EventGatewayChanged, Gateways: here})
		do("drained again", drain(w.DrainGateway))
		do("undrained", drain(w.UndrainGateway), control.Event{Kind: control.EventGatewayChanged, Gateways: here})
		do("undrained again", drain(w.UndrainGateway))
		do("a gateway deleted", func() error { return w.DeleteGateway(t.Context(), gateway.ID) },
			control.Event{Kind: control.EventGatewayRemoved, Gateways: here})
	})
}

func TestASnapshotSaysWhatAGatewayMustKnowNow(t *testing.T) {
	w := newWorld(t)
	gateway := w.gateway()
	fine, revoked, kicked := w.connect(gateway, 1), w.connect(gateway, 2), w.connect(gateway, 3)
	ok[control.Device](t)(w.RevokeDevice(t.Context(), revoked.device.ID))
	ok[control.Session](t)(w.CloseSession(t.Context(), kicked.session, reason.SessionUnknown))
	_, latest := w.since(0)
	snapshot := ok[control.Snapshot](t)(w.Snapshot(t.Context(), gateway))
	got := make(map[string]string)
	for _, end := range snapshot.Close {
		got[end.ID] = end.Reason
	}
	want := map[string]string{revoked.session: "device_revoked", kicked.session: "session_unknown"}
	if diff := cmp.Diff(want, got); diff != "" || snapshot.Version != latest || snapshot.More {
		t.Errorf("snapshot is %+v, want version %d and without %s:\n%s", snapshot, latest, fine.session, diff)
	}

	told := ok[control.GatewayKnock](t)(w.GatewayKnock(t.Context()))
	if told.Versions != snapshot.Keys || told.Versions.Knock == "" || told.Versions.JWKS == "" {
		t.Errorf("the configuration's keys are %+v, the snapshot's %+v", told.Versions, snapshot.Keys)
	}
	ok[time.Time](t)(w.RotateKnock(t.Context()))
	after := ok[control.Snapshot](t)(w.Snapshot(t.Context(), gateway)).Keys
	if after.Knock == snapshot.Keys.Knock || after.JWKS != snapshot.Keys.JWKS {
		t.Errorf("keys were %+v and are %+v, want another knock", snapshot.Keys, after)
	}
}

func TestOldEventsAreForgotten(t *testing.T) {
	w := newWorld(t)
	w.subscriber(1, 1)
	_, latest := w.since(0)
	w.pass(25 * time.Hour)
	w.subscriber(1, 1)
	pruned := ok[control.Pruned](t)(w.Prune(t.Context()))
	log := ok[control.EventLog](t)(w.Events(t.Context(), 0, 10))
	if pruned.Events != int(latest) || log.Low != latest || len(log.Events) != 1 || !log.Gap(0) {
		t.Errorf("pruned %d, log is %+v, want only what came after %d", pruned.Events, log, latest)
	}
}
