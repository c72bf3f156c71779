package control_test

import (
	"errors"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/internal/egress"
)

func TestEverythingThatIsWrongWithAPlanIsSaidAtOnce(t *testing.T) {
	w := newWorld(t)
	w.gateway() // in the region "local"
	for name, tc := range map[string]struct {
		fields control.PlanFields
		want   []string
	}{
		"nothing": {control.PlanFields{Name: new("all defaults")}, nil},
		"all of it": {control.PlanFields{
			MaxDevices: new(0), DurationDays: new(-1), Regions: &[]string{"local", "nowhere"}, SpeedUpBPS: new(int64(1)), SpeedDownBPS: new(int64(-1)),
			QuotaBytes: new(int64(5)), QuotaPeriod: new(control.QuotaPeriod("year")), TimeZone: new("Mars/Olympus"),
			QuotaAction: new(control.QuotaAction("nothing")), ThrottleBPS: new(int64(7)), QuotaWarnings: &[]int{50, 100},
		}, []string{
			"duration_days", "max_devices", "name", "quota_action", "quota_bytes", "quota_period", "quota_warnings", "regions",
			"speed_down_bps", "speed_up_bps", "throttle_bps", "time_zone",
		}},
		"to throttle without a speed": {
			control.PlanFields{Name: new("x"), QuotaAction: new(control.QuotaThrottle)}, []string{"throttle_bps"},
		},
		"the machine's zone":       {control.PlanFields{Name: new("x"), TimeZone: new("Local")}, []string{"time_zone"}},
		"no zone":                  {control.PlanFields{Name: new("x"), TimeZone: new("")}, []string{"time_zone"}},
		"a file's name":            {control.PlanFields{Name: new("x"), TimeZone: new("../../etc/passwd")}, []string{"time_zone"}},
		"a zone with leap seconds": {control.PlanFields{Name: new("x"), TimeZone: new("right/UTC")}, []string{"time_zone"}},
		"more than the bounds": {control.PlanFields{
			Name: new("x"), QuotaBytes: new(int64(1<<50 + 1)), SpeedUpBPS: new(int64(1e12 + 1)), Regions: new(make([]string, 65)),
			QuotaWarnings: &[]int{1, 2, 3, 4, 5, 6, 7, 8, 9},
		}, []string{"quota_bytes", "quota_warnings", "regions", "speed_up_bps"}},
		"what sessions may not reach": {control.PlanFields{
			Name: new("x"), DeniedPrefixes: &[]string{"203.0.113.0/24", "203.0.113.1/24"}, DeniedPorts: &[]uint16{0}, AllowedPorts: new(make([]uint16, 257)),
			DeniedNames: &[]string{"*.example.com"}, AllowedNames: &[]string{""},
		}, []string{"allowed_names", "allowed_ports", "denied_names", "denied_ports", "denied_prefixes"}},
		"prefixes that are none": {control.PlanFields{Name: new("x"), MaxDevices: new(0), DeniedPrefixes: &[]string{"203.0.113.7"}}, []string{"denied_prefixes", "max_devices"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := w.CreatePlan(t.Context(), tc.fields, control.Once{})
			var invalid *control.InvalidError
			if !errors.As(err, &invalid) {
				invalid = &control.InvalidError{}
				if err != nil {
					t.Fatal(err)
				}
			}
			var got []string
			for _, f := range invalid.Fields {
				got = append(got, f.Field)
			}
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("fields (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAPlansTermsAreKeptAndCanBeTakenBack(t *testing.T) {
	w := newWorld(t)
	w.gateway()
	plan, _, err := w.CreatePlan(t.Context(), control.PlanFields{
		Name: new("terms"), DurationDays: new(30), StartsOnFirstUse: new(true), Regions: &[]string{"local", "local"},
		SpeedUpBPS: new(int64(8000)), SpeedDownBPS: new(int64(1e12)), QuotaBytes: new(int64(1 << 20)), QuotaPeriod: new(control.PeriodWeek),
		TimeZone: new("Pacific/Chatham"), QuotaAction: new(control.QuotaThrottle), ThrottleBPS: new(int64(9000)), QuotaWarnings: &[]int{90, 50, 90},
	}, control.Once{})
	if err != nil {
		t.Fatal(err)
	}
	want := plan
	want.Regions, want.QuotaWarnings = []string{"local"}, []int{50, 90}
	read := ok[control.Plan](t)(w.Plan(t.Context(), plan.ID))
	if diff := cmp.Diff(want, read); diff != "" {
		t.Errorf("kept (-want +got):\n%s", diff)
	}
	got := ok[control.Plan](t)(w.UpdatePlan(t.Context(), plan.ID, control.PlanFields{
		DurationDays: new(0), StartsOnFirstUse: new(false), Regions: &[]string{}, SpeedUpBPS: new(int64(0)), SpeedDownBPS: new(int64(0)),
		QuotaBytes: new(int64(0)), QuotaAction: new(control.QuotaBlock), ThrottleBPS: new(int64(0)), QuotaWarnings: &[]int{},
	}))
	bare := control.Plan{
		ID: plan.ID, Name: "terms", MaxDevices: 5, MaxSessions: 5, MaxStreams: 1024, MaxUDP: 256, CreatedAt: plan.CreatedAt,
		Quota: control.Quota{QuotaPeriod: control.PeriodWeek, TimeZone: "Pacific/Chatham", QuotaAction: control.QuotaBlock},
	}
	read = ok[control.Plan](t)(w.Plan(t.Context(), plan.ID))
	for _, p := range []*control.Plan{&got, &read} {
		if len(p.Regions) == 0 && len(p.QuotaWarnings) == 0 {
			p.Regions, p.QuotaWarnings = nil, nil
		}
		if diff := cmp.Diff(bare, *p); diff != "" {
			t.Errorf("taken back (-want +got):\n%s", diff)
		}
	}
}

func TestWhatAPlanDeniesComesWithEachDecision(t *testing.T) {
	w := newWorld(t)
	here := w.another(1, "here")
	user, plan, _ := w.planned(control.PlanFields{
		DeniedPrefixes: &[]string{"2001:db8::/32", "203.0.113.0/24", "2001:db8::/32"}, DeniedPorts: &[]uint16{465, 25}, DeniedNames: &[]string{"example.com"},
	})
	device := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(user))).Device
	byText := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	want := egress.Rules{
		DeniedPrefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")},
		DeniedPorts:    []uint16{25, 465}, DeniedNames: []string{"example.com"},
	}
	if diff := cmp.Diff(want, w.decide(here, request(device, 1, 1), "").Entitlement.Plan.Egress, byText); diff != "" {
		t.Errorf("decided (-want +got):\n%s", diff)
	}
	before := len(ok[control.EventLog](t)(w.Events(t.Context(), 0, 500)).Events)
	ok[control.Plan](t)(w.UpdatePlan(t.Context(), plan.ID, control.PlanFields{DeniedPorts: &[]uint16{25, 465, 25}})) // as it is
	if n := len(ok[control.EventLog](t)(w.Events(t.Context(), 0, 500)).Events); n != before {
		t.Errorf("%d events of a change that is none", n-before)
	}
	ok[control.Plan](t)(w.UpdatePlan(t.Context(), plan.ID, control.PlanFields{DeniedPrefixes: &[]string{}, AllowedPorts: &[]uint16{443}}))
	want.DeniedPrefixes, want.AllowedPorts = nil, []uint16{443}
	if diff := cmp.Diff(want, w.decide(here, request(device, 1, 2), "").Entitlement.Plan.Egress, byText); diff != "" {
		t.Errorf("decided after the change (-want +got):\n%s", diff)
	}
	log := ok[control.EventLog](t)(w.Events(t.Context(), 0, 500))
	if last := log.Events[len(log.Events)-1]; len(log.Events) == before || last.Kind != control.EventPlanChanged || last.PlanID != plan.ID || !last.All {
		t.Errorf("the last event is %+v, want that the plan has changed", last)
	}
}
