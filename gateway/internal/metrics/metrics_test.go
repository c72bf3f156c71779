package metrics

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

func gauges() Gauges {
	one := func() float64 { return 1 }
	return Gauges{
		Sessions: one, Lost: one, Streams: one, Flows: one, Up: one, Down: one, Unauthenticated: one, Joined: one, Draining: one,
		Memory: one, MemoryLimit: one, StandsIn: one, Untold: one, Breaker: func() string { return BreakerOpen },
		Probes: func() []Probe {
			return []Probe{{Server: "ams", Network: "tcp", OK: true}, {Server: "ams", Network: "tcp"}, {Server: "ams", Network: "udp"}}
		},
		Ledger: func() Ledger { return Ledger{Oldest: time.Now(), Written: time.Now()} }, Quotas: func() Quotas { return Quotas{} },
	}
}

// Dashboards are built on these names and labels: a change here breaks them.
func TestNamesAndLabelsAreStable(t *testing.T) {
	registry := prometheus.NewRegistry()
	m, err := New(registry, "v1", "outline", gauges())
	if err != nil {
		t.Fatal(err)
	}
	m.Handshake("ready", time.Second)
	m.Handshake("invalid_token", time.Second)
	m.Reauth("no_error")
	m.Opened("outline", "opened", time.Second)
	m.FlowOpened("opened")
	m.Dropped("rate", 3)
	m.TurnedAway("prefix")
	m.Control("heartbeat", nil)
	m.Control("heartbeat", fakeError{})
	m.Closed("device_revoked")
	m.Probed(Probe{Server: "ams", Network: "tcp", OK: true, Took: time.Second})
	m.Probed(Probe{Server: "ams", Network: "udp", Why: "timeout"})
	m.Switched()
	m.NoLedger()
	m.UsageRefused("foreign_session")
	m.UsageRefused("whatever a control plane may say")
	m.StoodIn("admitted")
	m.Revoked(time.Second)

	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, family := range families {
		for _, metric := range family.GetMetric() {
			var labels []string
			for _, label := range metric.GetLabel() {
				labels = append(labels, label.GetName()+"="+label.GetValue())
			}
			got = append(got, family.GetName()+"{"+strings.Join(labels, ",")+"}")
		}
	}
	slices.Sort(got)
	want := []string{
		"httvps_gateway_bytes_total{direction=down,egress=outline}",
		"httvps_gateway_bytes_total{direction=up,egress=outline}",
		"httvps_gateway_connections_refused_total{limit=prefix}",
		"httvps_gateway_control_breaker{state=closed}",
		"httvps_gateway_control_breaker{state=half_open}",
		"httvps_gateway_control_breaker{state=open}",
		"httvps_gateway_control_requests_total{call=heartbeat,result=error}",
		"httvps_gateway_control_requests_total{call=heartbeat,result=ok}",
		"httvps_gateway_datagrams_dropped_total{reason=rate}",
		"httvps_gateway_degraded{}",
		"httvps_gateway_dial_seconds{egress=outline}",
		"httvps_gateway_draining{}",
		"httvps_gateway_flow_opens_total{result=opened}",
		"httvps_gateway_flows{}",
		"httvps_gateway_handshake_seconds{}",
		"httvps_gateway_handshakes_total{result=invalid_token}",
		"httvps_gateway_handshakes_total{result=ready}",
		"httvps_gateway_info{version=v1}",
		"httvps_gateway_joined{}",
		"httvps_gateway_ledger_bytes{}",
		"httvps_gateway_ledger_lag_seconds{}",
		"httvps_gateway_ledger_refusals_total{}",
		"httvps_gateway_ledger_rows{}",
		"httvps_gateway_ledger_written_timestamp_seconds{}",
		"httvps_gateway_memory_bytes{}",
		"httvps_gateway_memory_limit_bytes{}",
		"httvps_gateway_opens_total{result=opened}",
		"httvps_gateway_outline_probe_seconds{network=tcp}",
		"httvps_gateway_outline_probes_total{network=tcp,result=ok}",
		"httvps_gateway_outline_probes_total{network=udp,result=timeout}",
		"httvps_gateway_outline_switches_total{}",
		"httvps_gateway_outline_up{network=tcp,server=ams}",
		"httvps_gateway_outline_up{network=udp,server=ams}",
		"httvps_gateway_quota_leases{}",
		"httvps_gateway_quota_stopped{}",
		"httvps_gateway_outage_decisions_total{result=admitted}",
		"httvps_gateway_reauths_total{code=no_error}",
		"httvps_gateway_revocation_seconds{}",
		"httvps_gateway_sessions_untold{}",
		"httvps_gateway_sessions_without_connection{}",
		"httvps_gateway_sessions_closed_total{code=device_revoked}",
		"httvps_gateway_sessions{}",
		"httvps_gateway_streams{}",
		"httvps_gateway_unauthenticated_connections{}",
		"httvps_gateway_usage_refused_total{code=foreign_session}",
		"httvps_gateway_usage_refused_total{code=other}",
	}
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// The field's conventions: counters end in _total and nothing else does, times are in
// seconds and sizes in bytes, and each metric says what it is.
func TestNamesFollowTheConventions(t *testing.T) {
	registry := prometheus.NewRegistry()
	m, err := New(registry, "v1", "outline", gauges())
	if err != nil {
		t.Fatal(err)
	}
	m.Handshake("ready", time.Second)
	m.Opened("outline", "opened", time.Second)
	m.FlowOpened("opened")
	m.Dropped("rate", 3)
	m.TurnedAway("prefix")
	m.Control("heartbeat", nil)
	m.Closed("device_revoked")
	m.Probed(Probe{Server: "ams", Network: "tcp", OK: true, Took: time.Second})
	m.StoodIn("admitted")
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, problem := range problems {
		t.Errorf("%s: %s", problem.Metric, problem.Text)
	}
	for _, family := range families {
		help := family.GetHelp()
		if !strings.HasPrefix(family.GetName(), "httvps_gateway_") || len(help) < 10 || !strings.HasSuffix(help, ".") {
			t.Errorf("%s: %q", family.GetName(), help)
		}
	}
}

func TestRegisteringTwiceIsAnError(t *testing.T) {
	registry := prometheus.NewRegistry()
	if _, err := New(registry, "v1", "outline", gauges()); err != nil {
		t.Fatal(err)
	}
	if _, err := New(registry, "v1", "outline", gauges()); err == nil {
		t.Error("no error")
	}
}

type fakeError struct{}

func (fakeError) Error() string { return "fake" }
