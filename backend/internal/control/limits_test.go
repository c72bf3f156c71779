package control_test

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/internal/reason"
)

// to is a value that a limit is to become.
func to[T any](v T) control.To[T] { return control.To[T]{Given: true, Value: &v} }

// plans gives a limit back to the plans.
func plans[T any]() control.To[T] { return control.To[T]{Given: true} }

func (w *world) limit(user control.User, f control.LimitsChange) control.User {
	w.t.Helper()
	return ok[control.User](w.t)(w.UpdateLimits(w.t.Context(), user.ID, f))
}

func TestAUsersOwnLimitsHoldInsteadOfHisPlansOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		here, there := w.another(1, "here"), w.another(2, "there")
		user, plan, _ := w.planned(control.PlanFields{
			MaxDevices: new(2), MaxSessions: new(2), Regions: &[]string{"here"}, SpeedUpBPS: new(int64(1e6)), SpeedDownBPS: new(int64(2e6)),
			QuotaBytes: new(int64(40 * mib)), QuotaPeriod: new(control.PeriodMonth),
		})
		device := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(user))).Device
		holds := func(what string, want control.Plan) control.Decision {
			t.Helper()
			decision := w.decide(here, request(device, 1, 1), "")
			if diff := cmp.Diff(want, decision.Entitlement.Plan); diff != "" {
				t.Errorf("%s, a session has (-want +got):\n%s", what, diff)
			}
			if diff := cmp.Diff(plan, decision.Entitlement.General); diff != "" {
				t.Errorf("%s, the plan itself is (-want +got):\n%s", what, diff)
			}
			return decision
		}
		plan = ok[control.Plan](t)(w.Plan(t.Context(), plan.ID))
		holds("without limits of his own", plan)
		w.decide(there, request(device, 1, 2), reason.RegionUnavailable)

		user = w.limit(user, control.LimitsChange{
			MaxDevices: to(1), MaxSessions: to(1), MaxStreams: to(7), MaxUDP: to(0), SpeedUpBPS: to(int64(9000)), SpeedDownBPS: to(int64(0)),
			QuotaBytes: to(int64(80 * mib)), QuotaPeriod: to(control.PeriodDay), Regions: to([]string{"there", "here", "there"}),
		})
		own := plan
		own.MaxDevices, own.MaxSessions, own.MaxStreams, own.MaxUDP = 1, 1, 7, 0
		own.SpeedUpBPS, own.SpeedDownBPS, own.QuotaBytes, own.QuotaPeriod = new(int64(9000)), nil, new(int64(80*mib)), control.PeriodDay
		own.Regions = []string{"here", "there"}
		if grant := holds("with his own", own).Grant; grant.Quota != 80*mib {
			t.Errorf("the quota is %d", grant.Quota)
		}
		if diff := cmp.Diff(user, ok[control.User](t)(w.User(t.Context(), user.ID))); diff != "" {
			t.Errorf("kept (-told +kept):\n%s", diff)
		}
		w.decide(there, request(device, 1, 2), reason.SessionLimit) // and no longer the region
		if listed := ok[[]control.Gateway](t)(w.GatewaysFor(t.Context(), device.ID, "there")); len(listed) != 1 {
			t.Errorf("the device is shown %d gateways there, want 1", len(listed))
		}
		if me := ok[control.Me](t)(w.Me(t.Context(), device.ID)); me.Entitlement.Plan.MaxSessions != 1 || me.Quota.Left != 80*mib {
			t.Errorf("the device is told %+v of %+v", me.Quota, me.Entitlement.Plan)
		}
		_, err := w.enrol(testKey(2), w.invite(user))
		refused(t, err, reason.DeviceLimit)

		w.limit(user, control.LimitsChange{QuotaBytes: to(int64(0)), Regions: to([]string{}), MaxSessions: plans[int](), MaxStreams: plans[int]()})
		own.QuotaBytes, own.Regions, own.MaxSessions, own.MaxStreams = nil, []string{}, plan.MaxSessions, plan.MaxStreams
		if grant := holds("with nothing instead of something", own).Grant; grant.State != control.QuotaUnlimited {
			t.Errorf("the quota is %s", grant.State)
		}
		w.decide(there, request(device, 1, 2), "")

		w.limit(user, control.LimitsChange{
			MaxDevices: plans[int](), MaxUDP: plans[int](), SpeedUpBPS: plans[int64](), SpeedDownBPS: plans[int64](), QuotaBytes: plans[int64](),
			QuotaPeriod: plans[control.QuotaPeriod](), Regions: plans[[]string](),
		})
		holds("with the plan's again", plan)
		if user := ok[control.User](t)(w.User(t.Context(), user.ID)); !user.Limits.Empty() {
			t.Errorf("the user has %+v", user.Limits)
		}
	})
}

func TestAUsersOwnDeviceLimitNeedsNoPlan(t *testing.T) {
	w := newWorld(t)
	user, _, err := w.CreateUser(t.Context(), control.UserFields{Name: new("new"), Limits: control.LimitsChange{MaxDevices: to(2)}}, control.Once{})
	if err != nil {
		t.Fatal(err)
	}
	for key := range uint32(2) {
		ok[control.Enrolled](t)(w.enrol(testKey(key+1), w.invite(user)))
	}
	_, err = w.enrol(testKey(3), w.invite(user))
	refused(t, err, reason.DeviceLimit)
}

func TestEverythingThatIsWrongWithLimitsIsSaidAtOnce(t *testing.T) {
	w := newWorld(t)
	user := w.subscriber(1, 1)
	before := ok[control.User](t)(w.User(t.Context(), user.ID))
	_, err := w.UpdateLimits(t.Context(), user.ID, control.LimitsChange{
		MaxDevices: to(0), MaxSessions: to(1001), MaxStreams: to(0), MaxUDP: to(-1), SpeedUpBPS: to(int64(1)), SpeedDownBPS: to(int64(-1)),
		QuotaBytes: to(int64(5)), QuotaPeriod: to(control.QuotaPeriod("year")), Regions: to([]string{"nowhere"}),
	})
	invalid, is := errors.AsType[*control.InvalidError](err)
	if !is {
		t.Fatalf("the answer is %v", err)
	}
	var got []string
	for _, f := range invalid.Fields {
		got = append(got, f.Field)
	}
	want := []string{"max_devices", "max_sessions", "max_streams", "max_udp", "quota_bytes", "quota_period", "regions", "speed_down_bps", "speed_up_bps"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("fields (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(before, ok[control.User](t)(w.User(t.Context(), user.ID))); diff != "" {
		t.Errorf("and they were changed:\n%s", diff)
	}
	if _, err := w.UpdateLimits(t.Context(), "00000000-0000-0000-0000-000000000000", control.LimitsChange{}); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("of nobody: %v", err)
	}
}

func TestAChangeOfLimitsIsToldAndAuditedOnceOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		gateway, stranger := w.another(1, "here"), w.another(2, "there")
		user, _, _ := w.planned(control.PlanFields{})
		device := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(user))).Device
		w.decide(gateway, request(device, 1, 1), "")
		latest := func() control.EventLog { return ok[control.EventLog](t)(w.Events(t.Context(), 0, 500)) }
		before := latest().Latest
		for range 2 { // the second time it is so already
			w.limit(user, control.LimitsChange{SpeedUpBPS: to(int64(9000)), Regions: to([]string{"here"})})
		}
		log := ok[control.EventLog](t)(w.Events(t.Context(), before, 500))
		if len(log.Events) != 1 {
			t.Fatalf("%d events, want 1", len(log.Events))
		}
		if e := log.Events[0]; e.Kind != control.EventSubscriptionChanged || e.UserID != user.ID || !e.Concerns(gateway.ID) || e.Concerns(stranger.ID) {
			t.Errorf("the event is %+v", e)
		}
		entries := ok[[]control.AuditEntry](t)(w.AuditEntries(t.Context(), control.AuditFilter{Action: "user.limits_changed", Limit: 9}))
		if len(entries) != 1 || entries[0].ObjectID != user.ID || entries[0].Before != `{}` || entries[0].After != `{"regions":["here"],"speed_up_bps":9000}` {
			t.Errorf("the audit log has %+v", entries)
		}
		var clash *control.ConflictError
		if err := w.DeleteRegion(t.Context(), gateway.RegionID); !errors.As(err, &clash) {
			t.Errorf("a region that a user's limits name is deleted: %v", err)
		}
		if err := w.DeleteUser(t.Context(), user.ID); err != nil {
			t.Error(err)
		}
	})
}

func TestWhySaysWhoseALimitIs(t *testing.T) {
	w := newWorld(t)
	w.another(1, "here")
	user, plan, _ := w.planned(control.PlanFields{MaxSessions: new(1), MaxDevices: new(1), QuotaBytes: new(int64(40 * mib)), Regions: &[]string{"here"}})
	w.limit(user, control.LimitsChange{MaxSessions: to(3), QuotaBytes: to(int64(0)), SpeedUpBPS: to(int64(9000)), Regions: to([]string{})})
	why := ok[control.Why](t)(w.WhyUser(t.Context(), user.ID))
	want := []control.HeldLimit{
		{Name: "max_devices", Value: "1"},
		{Name: "max_sessions", Value: "3", Own: true, Plan: "1"},
		{Name: "max_streams", Value: "1024"},
		{Name: "max_udp", Value: "256"},
		{Name: "speed_up_bps", Value: "9000", Own: true, Plan: "none"},
		{Name: "speed_down_bps", Value: "none"},
		{Name: "quota_bytes", Value: "none", Own: true, Plan: "41943040"},
		{Name: "quota_period", Value: "none"},
		{Name: "regions", Value: "all", Own: true, Plan: "here"},
	}
	if diff := cmp.Diff(want, why.Limits); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	s := w.situation(7)
	s.use(8 << 20)
	for own, next := range map[bool]string{false: "httvpsctl plan update ", true: "httvpsctl user update "} {
		change := control.LimitsChange{QuotaBytes: plans[int64]()}
		if own {
			change.QuotaBytes = to(int64(4 * mib))
		}
		w.limit(s.user, change)
		cause, _ := ok[control.Why](t)(w.WhyDevice(t.Context(), s.device.ID)).Cause()
		if cause.Name != control.CheckQuota || !strings.HasPrefix(cause.Next, next) || !strings.Contains(cause.Next, " --quota-bytes BYTES") {
			t.Errorf("to be done with a quota of his own %v: %q, want %q", own, cause.Next, next)
		}
	}
	// What to do is said about whose limit it is.
	device := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(user))).Device
	gateway := w.another(3, "here")
	for _, own := range []bool{false, true} { // his own stays
		next := "httvpsctl plan update '" + plan.Name + "' --max-sessions N"
		if own {
			next = "httvpsctl user update " + user.Name + " --max-sessions N"
		}
		change := control.LimitsChange{MaxSessions: plans[int]()}
		if own {
			change.MaxSessions = to(1)
		}
		w.limit(user, change)
		_, err := w.Decide(t.Context(), gateway, request(device, 1, 1))
		if err != nil {
			t.Fatal(err)
		}
		cause, _ := ok[control.Why](t)(w.WhyUser(t.Context(), user.ID)).Cause()
		if cause.Name != control.CheckSessions || !strings.HasSuffix(cause.Next, next) {
			t.Errorf("to be done with a limit of his own %v: %q, want %q", own, cause.Next, next)
		}
	}
	if err := w.DeleteSubscription(t.Context(), ok[[]control.Subscription](t)(w.Subscriptions(t.Context(), user.ID, control.Page{Limit: 1}))[0].ID); err != nil {
		t.Fatal(err)
	}
	if why := ok[control.Why](t)(w.WhyUser(t.Context(), user.ID)); len(why.Limits) != 4 || why.Limits[0].Name != "max_sessions" || why.Limits[0].Plan != "" {
		t.Errorf("without a plan: %+v", why.Limits)
	}
}

func TestManyUsersGetTheSameLimitOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		w.another(1, "here")
		plan := w.plan("free")
		ann, _ := w.named("ann", plan.ID, time.Hour)
		bob, _ := w.named("bob", plan.ID, time.Hour)
		w.limit(bob, control.LimitsChange{MaxDevices: to(3), SpeedUpBPS: to(int64(9000))})
		r := control.BulkRequest{
			Action: control.BulkLimit, Filter: control.BulkFilter{All: true},
			Limits: control.LimitsChange{QuotaBytes: to(int64(mib)), MaxDevices: plans[int](), Regions: to([]string{"here"})},
		}
		preview := ok[control.BulkPreview](t)(w.PreviewBulk(t.Context(), r))
		w.limit(ann, control.LimitsChange{MaxUDP: to(1)})
		if _, _, err := w.CreateBulk(t.Context(), r, preview.Token, control.Once{}); !errors.Is(err, control.ErrBulkChanged) {
			t.Errorf("with other limits than the preview saw: %v, want ErrBulkChanged", err)
		}
		job := w.begun(r)
		if kept := ok[[]control.BulkJob](t)(w.BulkJobs(t.Context(), control.Page{Limit: 1}))[0].Request; kept.Limits.MaxDevices != r.Limits.MaxDevices || kept.Limits.MaxUDP.Given {
			t.Errorf("the job keeps %+v", kept.Limits)
		}
		if done, _, err := w.RunBulk(t.Context(), job.ID); err != nil || done.Done != 2 {
			t.Errorf("done: %+v, %v", done, err)
		}
		for user, want := range map[string]control.Limits{
			ann.ID: {QuotaBytes: new(int64(mib)), MaxUDP: new(1), Regions: &[]string{"here"}},
			bob.ID: {QuotaBytes: new(int64(mib)), SpeedUpBPS: new(int64(9000)), Regions: &[]string{"here"}},
		} {
			if diff := cmp.Diff(want, ok[control.User](t)(w.User(t.Context(), user)).Limits); diff != "" {
				t.Errorf("limits (-want +got):\n%s", diff)
			}
		}
		for name, r := range map[string]control.BulkRequest{
			"nothing to change": {Action: control.BulkLimit, Filter: r.Filter},
			"another action":    {Action: control.BulkDisable, Filter: r.Filter, Limits: r.Limits},
			"what cannot be":    {Action: control.BulkLimit, Filter: r.Filter, Limits: control.LimitsChange{MaxDevices: to(0)}},
		} {
			_, err := w.PreviewBulk(t.Context(), r)
			if invalid, is := errors.AsType[*control.InvalidError](err); !is || !strings.HasPrefix(invalid.Fields[0].Field, "limits") {
				t.Errorf("%s: %v, want a complaint about limits", name, err)
			}
		}
	})
}

func TestWhatBecomesOfALimitSurvivesJSON(t *testing.T) {
	for _, text := range []string{`{}`, `{"max_devices":3}`, `{"max_devices":null,"regions":[]}`, `{"quota_bytes":0,"quota_period":"day","regions":null}`} {
		var change control.LimitsChange
		if err := json.Unmarshal([]byte(text), &change); err != nil {
			t.Fatal(err)
		}
		if again, err := json.Marshal(change); err != nil || string(again) != text {
			t.Errorf("%s becomes %s, %v", text, again, err)
		}
	}
}
