package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Ledger is what the ledger of usage holds.
type Ledger struct {
	Rows   int
	Bytes  int64     // of the file
	Oldest time.Time // since when something is not acknowledged; zero: nothing is
	// Written is until when all that was moved is written; zero: nothing is yet.
	Written time.Time
}

// Quotas are subscriptions in use that have a quota.
type Quotas struct {
	Leases  int
	Stopped int // nothing is left of them
}

// accounts reads both when somebody asks.
type accounts struct {
	ledger func() Ledger
	quotas func() Quotas
}

var (
	ledgerRows  = prometheus.NewDesc("httvps_gateway_ledger_rows", "Rows of usage that the control plane has not acknowledged.", nil, nil)
	ledgerBytes = prometheus.NewDesc("httvps_gateway_ledger_bytes", "Size of the ledger's file.", nil, nil)
	ledgerLag   = prometheus.NewDesc("httvps_gateway_ledger_lag_seconds",
		"Age of the oldest usage that the control plane has not acknowledged; 0 without any.", nil, nil)
	ledgerWritten = prometheus.NewDesc("httvps_gateway_ledger_written_timestamp_seconds",
		"Unix time until which all that sessions have moved is written to the ledger.", nil, nil)
	quotaLeases  = prometheus.NewDesc("httvps_gateway_quota_leases", "Subscriptions with live sessions and a quota.", nil, nil)
	quotaStopped = prometheus.NewDesc("httvps_gateway_quota_stopped", "Those of them whose traffic waits: nothing is left of their allowance.", nil, nil)
)

// Describe implements [prometheus.Collector].
func (accounts) Describe(out chan<- *prometheus.Desc) {
	for _, desc := range []*prometheus.Desc{ledgerRows, ledgerBytes, ledgerLag, ledgerWritten, quotaLeases, quotaStopped} {
		out <- desc
	}
}

// Collect implements [prometheus.Collector].
func (a accounts) Collect(out chan<- prometheus.Metric) {
	gauge := func(desc *prometheus.Desc, value float64) {
		out <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value)
	}
	if a.ledger != nil {
		l := a.ledger()
		lag := 0.0
		if !l.Oldest.IsZero() {
			lag = max(time.Since(l.Oldest).Seconds(), 0)
		}
		gauge(ledgerRows, float64(l.Rows))
		gauge(ledgerBytes, float64(l.Bytes))
		gauge(ledgerLag, lag)
		if !l.Written.IsZero() {
			gauge(ledgerWritten, float64(l.Written.UnixMicro())/1e6)
		}
	}
	if a.quotas != nil {
		q := a.quotas()
		gauge(quotaLeases, float64(q.Leases))
		gauge(quotaStopped, float64(q.Stopped))
	}
}

// UsageRefused counts a row of usage that the control plane does not take, by its
// code.
func (m *Metrics) UsageRefused(code string) {
	switch code {
	case "too_large", "invalid_sequence", "foreign_session":
	default:
		code = "other"
	}
	m.refused.WithLabelValues(code).Inc()
}

// NoLedger counts a session that did not begin because the ledger has no place for it.
func (m *Metrics) NoLedger() { m.noLedger.Inc() }
