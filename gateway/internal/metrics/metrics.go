// Package metrics is what a gateway counts about itself. Labels come from
// fixed sets only, and from the names of the operator's own servers: never a
// device, a user, an address or a target.
package metrics

import (
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Gauges are read when somebody asks for the metrics. They must not block.
type Gauges struct {
	Sessions        func() float64 // live sessions
	Lost            func() float64 // sessions among them that have lost their connection
	Streams         func() float64 // streams in them, and flows
	Flows           func() float64 // UDP flows among them
	Up, Down        func() float64 // payload bytes since start: written to targets, read from them
	Unauthenticated func() float64 // connections that have not proven who they are
	Joined          func() float64 // 1 while the control plane answers
	Draining        func() float64 // 1 while the gateway sends devices away
	Memory          func() float64 // bytes of sessions' data in flight
	MemoryLimit     func() float64 // how many there may be
	StandsIn        func() float64 // 1 while the gateway decides for a control plane that is away
	Breaker         func() string  // one of Breaker…
	Untold          func() float64 // sessions that the control plane does not know of yet
	// Probes are the latest results for the Outline servers in use. Nil: there are
	// none.
	Probes func() []Probe
	Ledger func() Ledger
	Quotas func() Quotas
}

// The states of the breaker before the control plane.
const (
	BreakerClosed   = "closed"
	BreakerOpen     = "open"
	BreakerHalfOpen = "half_open"
)

// Probe is what half a probe of an Outline server saw.
type Probe struct {
	Server  string // the operator's name or id for it
	Network string // tcp or udp
	OK      bool
	Took    time.Duration
	Why     string // of a failure, one of a few words
}

// Metrics are the gateway's counters.
type Metrics struct {
	handshakes *prometheus.CounterVec
	handshake  prometheus.Histogram
	reauths    *prometheus.CounterVec
	opens      *prometheus.CounterVec
	dial       *prometheus.HistogramVec
	flows      *prometheus.CounterVec
	dropped    *prometheus.CounterVec
	turnedAway *prometheus.CounterVec
	control    *prometheus.CounterVec
	closed     *prometheus.CounterVec
	probes     *prometheus.CounterVec
	probe      *prometheus.HistogramVec
	switches   prometheus.Counter
	refused    *prometheus.CounterVec
	noLedger   prometheus.Counter
	stoodIn    *prometheus.CounterVec
	revocation prometheus.Histogram
}

// New registers the metrics of a gateway whose sessions all leave by egress.
func New(registry prometheus.Registerer, version, egress string, gauges Gauges) (*Metrics, error) {
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		return prometheus.NewCounterVec(prometheus.CounterOpts{Name: "httvps_gateway_" + name, Help: help}, labels)
	}
	m := &Metrics{
		handshakes: counter("handshakes_total", "Handshakes by how they ended: ready, resumed, or the wire code of the refusal.", "result"),
		handshake: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "httvps_gateway_handshake_seconds",
			Help:    "Time from the upgrade to READY.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}),
		reauths: counter("reauths_total", "Later tokens that devices of live sessions have shown, by the code of the answer: no_error, or why not.", "code"),
		opens:   counter("opens_total", "Streams asked for by how that ended: opened, or the wire code of the refusal.", "result"),
		dial: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "httvps_gateway_dial_seconds",
			Help:    "Time until a target was connected; with the egress outline, until its server was.",
			Buckets: []float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 15},
		}, []string{"egress"}),
		flows:      counter("flow_opens_total", "UDP flows asked for by how that ended: opened, or the wire code of the refusal.", "result"),
		dropped:    counter("datagrams_dropped_total", "Datagrams of UDP flows that were dropped here.", "reason"),
		turnedAway: counter("connections_refused_total", "Connections closed at once because of a limit.", "limit"),
		control:    counter("control_requests_total", "Requests to the control plane.", "call", "result"),
		closed:     counter("sessions_closed_total", "Sessions ended by the gateway, by the code of CLOSE.", "code"),
		probes:     counter("outline_probes_total", "Probes of Outline servers by how they ended: ok, or what was wrong.", "network", "result"),
		probe: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "httvps_gateway_outline_probe_seconds",
			Help:    "Time until the first byte came through an Outline server.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5},
		}, []string{"network"}),
		switches: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "httvps_gateway_outline_switches_total",
			Help: "Sessions that went over to another Outline server.",
		}),
		refused: counter("usage_refused_total", "Rows of usage that the control plane does not take.", "code"),
		noLedger: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "httvps_gateway_ledger_refusals_total",
			Help: "Sessions that did not begin because the ledger of usage is full or cannot be written.",
		}),
		stoodIn: counter("outage_decisions_total", "Decisions of the gateway itself while the control plane was away: admitted, or why not.", "result"),
		revocation: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name:    "httvps_gateway_revocation_seconds",
			Help:    "Time from an event of the control plane that ends a session until it was closed; both clocks count.",
			Buckets: []float64{.01, .025, .05, .1, .25, .5, 1, 2, 5, 10, 30, 60},
		}),
	}
	info := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "httvps_gateway_info", Help: "Always 1: its label is the version of the program.", ConstLabels: prometheus.Labels{"version": version},
	}, func() float64 { return 1 })
	gauge := func(name, help string, read func() float64) prometheus.Collector {
		return prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "httvps_gateway_" + name, Help: help}, read)
	}
	bytes := func(direction string, read func() float64) prometheus.Collector {
		return prometheus.NewCounterFunc(prometheus.CounterOpts{
			Name:        "httvps_gateway_bytes_total",
			Help:        "Payload bytes of streams and UDP flows: up was written to targets, down was read from them.",
			ConstLabels: prometheus.Labels{"direction": direction, "egress": egress},
		}, read)
	}
	if gauges.Probes == nil {
		gauges.Probes = func() []Probe { return nil }
	}
	var problems []error
	for _, collector := range []prometheus.Collector{
		m.probes, m.probe, m.switches, m.refused, m.noLedger, m.stoodIn, m.revocation,
		servers{gauges.Probes},
		accounts{gauges.Ledger, gauges.Quotas},
		breaker{gauges.Breaker},
		m.handshakes, m.handshake, m.reauths, m.opens, m.dial, m.flows, m.dropped, m.turnedAway, m.control, m.closed, info,
		gauge("sessions", "Live sessions.", gauges.Sessions),
		gauge("sessions_without_connection", "Live sessions that wait for their device to come back.", gauges.Lost),
		gauge("streams", "Streams of live sessions, UDP flows among them.", gauges.Streams),
		gauge("flows", "UDP flows of live sessions.", gauges.Flows),
		gauge("unauthenticated_connections", "Connections that have not proven who they are.", gauges.Unauthenticated),
		gauge("joined", "1 while the control plane answers.", gauges.Joined),
		gauge("draining", "1 while devices are sent to other gateways, or the gateway stops.", gauges.Draining),
		gauge("memory_bytes", "Data in flight of all sessions.", gauges.Memory),
		gauge("memory_limit_bytes", "How much data in flight all sessions may have.", gauges.MemoryLimit),
		gauge("degraded", "1 while the gateway lets known devices in because the control plane is away.", gauges.StandsIn),
		gauge("sessions_untold", "Sessions that began while the control plane was away and that it does not know of yet.", gauges.Untold),
		bytes("up", gauges.Up),
		bytes("down", gauges.Down),
	} {
		if err := registry.Register(collector); err != nil {
			problems = append(problems, err)
		}
	}
	if err := errors.Join(problems...); err != nil {
		return nil, fmt.Errorf("register metrics: %w", err)
	}
	return m, nil
}

// Handshake counts a handshake that ended in result, "ready", "resumed" or the name
// of a wire code, after took.
func (m *Metrics) Handshake(result string, took time.Duration) {
	m.handshakes.WithLabelValues(result).Inc()
	if result == "ready" {
		m.handshake.Observe(took.Seconds())
	}
}

// Reauth counts a later token that the device of a live session has shown, answered
// with the code of that name.
func (m *Metrics) Reauth(code string) { m.reauths.WithLabelValues(code).Inc() }

// Opened counts a request for a stream: result is "opened" or the name of a
// wire code, took the time of the dial, egress the way that it took.
func (m *Metrics) Opened(egress, result string, took time.Duration) {
	m.opens.WithLabelValues(result).Inc()
	if result == "opened" {
		m.dial.WithLabelValues(egress).Observe(took.Seconds())
	}
}

// FlowOpened counts a request for a UDP flow: result is "opened" or the name of a
// wire code.
func (m *Metrics) FlowOpened(result string) { m.flows.WithLabelValues(result).Inc() }

// Dropped counts n datagrams that were dropped for a reason of the protocol
// package's.
func (m *Metrics) Dropped(reason string, n int) { m.dropped.WithLabelValues(reason).Add(float64(n)) }

// TurnedAway counts a connection that met a limit, "total" or "prefix"; or a try to
// accept one for which there was no free descriptor, "descriptors".
func (m *Metrics) TurnedAway(limit string) { m.turnedAway.WithLabelValues(limit).Inc() }

// Control counts a request to the control plane.
func (m *Metrics) Control(call string, err error) {
	result := "ok"
	if err != nil {
		result = "error"
	}
	m.control.WithLabelValues(call, result).Inc()
}

// Closed counts a session that the gateway ended with the code of that name.
func (m *Metrics) Closed(code string) { m.closed.WithLabelValues(code).Inc() }

// StoodIn counts a decision that the gateway made itself.
func (m *Metrics) StoodIn(result string) { m.stoodIn.WithLabelValues(result).Inc() }

// Revoked notes how long a session lived on without a right. Clocks may differ, so
// that it seems to have ended before.
func (m *Metrics) Revoked(took time.Duration) { m.revocation.Observe(max(took, 0).Seconds()) }

// Probed counts half a probe of an Outline server.
func (m *Metrics) Probed(p Probe) {
	if !p.OK {
		m.probes.WithLabelValues(p.Network, p.Why).Inc()
		return
	}
	m.probes.WithLabelValues(p.Network, "ok").Inc()
	m.probe.WithLabelValues(p.Network).Observe(p.Took.Seconds())
}

// Switched counts a session that went over to another Outline server.
func (m *Metrics) Switched() { m.switches.Inc() }

// breaker has a gauge for each state, of which one is 1.
type breaker struct{ state func() string }

var breakerState = prometheus.NewDesc("httvps_gateway_control_breaker",
	"1 for the state of the breaker: open while the control plane counts as away, half_open while it is tried again.", []string{"state"}, nil)

// Describe implements [prometheus.Collector].
func (breaker) Describe(out chan<- *prometheus.Desc) { out <- breakerState }

// Collect implements [prometheus.Collector].
func (b breaker) Collect(out chan<- prometheus.Metric) {
	now := b.state()
	for _, state := range []string{BreakerClosed, BreakerOpen, BreakerHalfOpen} {
		is := 0.0
		if state == now {
			is = 1
		}
		out <- prometheus.MustNewConstMetric(breakerState, prometheus.GaugeValue, is, state)
	}
}

// servers has a gauge for each server in use, and for no other.
type servers struct{ probes func() []Probe }

var serverUp = prometheus.NewDesc("httvps_gateway_outline_up",
	"1 while the latest probe through an Outline server was answered.", []string{"server", "network"}, nil)

// Describe implements [prometheus.Collector].
func (servers) Describe(out chan<- *prometheus.Desc) { out <- serverUp }

// Collect implements [prometheus.Collector].
func (s servers) Collect(out chan<- prometheus.Metric) {
	seen := make(map[Probe]bool)
	for _, p := range s.probes() {
		key := Probe{Server: p.Server, Network: p.Network}
		if seen[key] { // under an earlier key of the same server
			continue
		}
		seen[key] = true
		up := 0.0
		if p.OK {
			up = 1
		}
		out <- prometheus.MustNewConstMetric(serverUp, prometheus.GaugeValue, up, p.Server, p.Network)
	}
}
