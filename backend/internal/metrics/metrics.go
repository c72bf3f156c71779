// Package metrics counts what the control plane does. Every label has a fixed
// set of values: nothing that a client chooses becomes one.
package metrics

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// Metrics are the control plane's. It implements httpapi.Observer.
type Metrics struct {
	registry   *prometheus.Registry
	requests   *prometheus.CounterVec
	durations  *prometheus.HistogramVec
	decisions  *prometheus.CounterVec
	enrolments *prometheus.CounterVec
	pruned     *prometheus.CounterVec
	turnedAway *prometheus.CounterVec
	ready      prometheus.Gauge

	streams      prometheus.Gauge
	streamsEnded *prometheus.CounterVec
	eventsSent   *prometheus.CounterVec
	eventAge     prometheus.Histogram
	wakeUps      *prometheus.CounterVec
	announced    *prometheus.CounterVec
	busConnected prometheus.Gauge

	usage    *prometheus.CounterVec
	usageLag prometheus.Histogram

	exits           *prometheus.CounterVec
	outlineFailures *prometheus.CounterVec
	outlineProbes   *prometheus.CounterVec
	outlineServers  *prometheus.GaugeVec
	outlineSessions prometheus.Gauge
	outlineCapacity prometheus.Gauge
	quotaLeases     *prometheus.CounterVec
	quotaReached    *prometheus.CounterVec
	logins          *prometheus.CounterVec

	backups        *prometheus.CounterVec
	backupMade     prometheus.Gauge
	backupVerified prometheus.Gauge

	webhookAttempts *prometheus.CounterVec
	webhooks        *prometheus.GaugeVec
	webhookMessages *prometheus.GaugeVec
	webhookOldest   prometheus.Gauge
}

// New returns metrics with a registry of their own.
func New() *Metrics {
	m := &Metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_requests_total", Help: "Requests answered, by operation and class of status.",
		}, []string{"operation", "status"}),
		durations: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "httvps_backend_request_duration_seconds", Help: "Time to answer a request, by operation.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10},
		}, []string{"operation"}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_decisions_total", Help: "Answers to gateways whether a device may have a session, by outcome.",
		}, []string{"outcome"}),
		enrolments: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_enrolments_total", Help: "Attempts to enrol a device, by outcome.",
		}, []string{"outcome"}),
		pruned: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_pruned_total", Help: "Records removed or ended because their time was over, by kind.",
		}, []string{"kind"}),
		turnedAway: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_connections_refused_total", Help: "Connections of strangers closed at once, by the limit that they met.",
		}, []string{"limit"}),
		ready: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "httvps_backend_ready", Help: "1 when the database could be read and written at the last check.",
		}),
		streams: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "httvps_backend_event_streams", Help: "Event streams of gateways that are open.",
		}),
		streamsEnded: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_event_streams_ended_total", Help: "Event streams that ended, by why.",
		}, []string{"why"}),
		eventsSent: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_events_sent_total", Help: "Events sent on streams, by kind.",
		}, []string{"kind"}),
		eventAge: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "httvps_backend_event_age_seconds", Help: "Age of events when they were sent on a stream.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2, 5, 15, 60, 300, 3600},
		}),
		wakeUps: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_event_reads_total", Help: "Times that the event log was looked at, by what caused it.",
		}, []string{"cause"}),
		announced: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_bus_announcements_total", Help: "Wake-ups sent to other processes, by result.",
		}, []string{"result"}),
		busConnected: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "httvps_backend_bus_connected", Help: "1 while the wake-up bus can be reached.",
		}),
		usage: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_usage_entries_total", Help: "Entries of gateways' usage reports, by result.",
		}, []string{"result"}),
		usageLag: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "httvps_backend_usage_lag_seconds", Help: "Age of the oldest new entry of a batch of usage reports when it was booked.",
			Buckets: []float64{1, 2.5, 5, 10, 30, 60, 300, 1800, 3600, 21600, 86400, 604800},
		}),
		exits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_outline_assignments_total", Help: "Answers to gateways which Outline server a session leaves through, by result.",
		}, []string{"result"}),
		outlineFailures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_outline_failures_total", Help: "Failures of sessions' Outline servers that gateways reported, by kind.",
		}, []string{"failure"}),
		outlineProbes: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_outline_probes_total", Help: "Probes of gateways through Outline servers, by what they saw.",
		}, []string{"result"}),
		outlineServers: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "httvps_backend_outline_servers", Help: "Outline servers, by status.",
		}, []string{"status"}),
		outlineSessions: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "httvps_backend_outline_sessions", Help: "Sessions that have an Outline server.",
		}),
		outlineCapacity: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "httvps_backend_outline_capacity", Help: "How many sessions the Outline servers take at once that are neither down nor disabled.",
		}),
		quotaLeases: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_quota_leases_total", Help: "Leases of quotas that gateways renewed, by the quota's state.",
		}, []string{"state"}),
		quotaReached: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_quotas_reached_total", Help: "Times that a subscription reached a part of its quota that is to be warned of, or the whole.",
		}, []string{"part"}),
		logins: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_logins_total", Help: "Attempts of operators to sign in, by outcome.",
		}, []string{"outcome"}),
		backups: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_backups_total", Help: "Scheduled backups, by result of making and of verifying them.",
		}, []string{"result"}),
		backupMade: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "httvps_backend_backup_timestamp_seconds", Help: "When the newest backup in backup.directory was made; 0: there is none.",
		}),
		backupVerified: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "httvps_backend_backup_verified_timestamp_seconds", Help: "When a backup in backup.directory was verified last; 0: never.",
		}),
		webhookAttempts: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "httvps_backend_webhook_attempts_total", Help: "Attempts to send a message to a webhook, by result: delivered, failed (it is tried again) or dead (it is not).",
		}, []string{"result"}),
		webhooks: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "httvps_backend_webhooks", Help: "Webhooks: all of them, and those that the service has disabled because nothing was taken.",
		}, []string{"which"}),
		webhookMessages: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "httvps_backend_webhook_messages", Help: "Messages that wait for webhooks that are enabled (pending), and those that were given up and are kept (dead).",
		}, []string{"state"}),
		webhookOldest: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "httvps_backend_webhook_oldest_pending_seconds", Help: "Age of the oldest message that waits for a webhook that is enabled; 0: none does.",
		}),
	}
	m.registry.MustRegister(
		m.requests, m.durations, m.decisions, m.enrolments, m.pruned, m.turnedAway, m.ready,
		m.streams, m.streamsEnded, m.eventsSent, m.eventAge, m.wakeUps, m.announced, m.busConnected,
		m.usage, m.usageLag,
		m.exits, m.outlineFailures, m.outlineProbes, m.outlineServers, m.outlineSessions, m.outlineCapacity,
		m.quotaLeases, m.quotaReached, m.logins,
		m.backups, m.backupMade, m.backupVerified,
		m.webhookAttempts, m.webhooks, m.webhookMessages, m.webhookOldest,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	)
	return m
}

// Handler answers scrapes.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{MaxRequestsInFlight: 4})
}

// Request counts an answered request.
func (m *Metrics) Request(operation string, status int, took time.Duration) {
	m.requests.WithLabelValues(operation, strconv.Itoa(status/100)+"xx").Inc()
	m.durations.WithLabelValues(operation).Observe(took.Seconds())
}

// Decision counts an answer to a gateway.
func (m *Metrics) Decision(outcome string) { m.decisions.WithLabelValues(outcome).Inc() }

// Enrolment counts an attempt to enrol.
func (m *Metrics) Enrolment(outcome string) { m.enrolments.WithLabelValues(outcome).Inc() }

// Usage counts an entry of a usage report.
func (m *Metrics) Usage(result string) { m.usage.WithLabelValues(result).Inc() }

// UsageLag says how old the oldest entry of a batch was.
func (m *Metrics) UsageLag(age time.Duration) { m.usageLag.Observe(max(age, 0).Seconds()) }

// Exit counts an answer which Outline server a session leaves through.
func (m *Metrics) Exit(result string) { m.exits.WithLabelValues(result).Inc() }

// OutlineFailure counts a failure of a session's Outline server.
func (m *Metrics) OutlineFailure(failure string) { m.outlineFailures.WithLabelValues(failure).Inc() }

// OutlineProbe counts a probe through an Outline server by its failure, if it
// was one.
func (m *Metrics) OutlineProbe(failure string) {
	if failure == "" {
		failure = "ok"
	}
	m.outlineProbes.WithLabelValues(failure).Inc()
}

// OutlineServers says how many Outline servers have a status.
func (m *Metrics) OutlineServers(status string, n int) {
	m.outlineServers.WithLabelValues(status).Set(float64(n))
}

// OutlinePlaces says how many sessions have an Outline server, and how many can.
func (m *Metrics) OutlinePlaces(sessions, capacity int) {
	m.outlineSessions.Set(float64(sessions))
	m.outlineCapacity.Set(float64(capacity))
}

// QuotaLease counts a renewed lease.
func (m *Metrics) QuotaLease(state string) { m.quotaLeases.WithLabelValues(state).Inc() }

// Login counts an attempt to sign in.
func (m *Metrics) Login(outcome string) { m.logins.WithLabelValues(outcome).Inc() }

// QuotaReached counts a subscription that reached a part of its quota.
func (m *Metrics) QuotaReached(whole bool) {
	part := "warning"
	if whole {
		part = "whole"
	}
	m.quotaReached.WithLabelValues(part).Inc()
}

// Backup counts a step of a scheduled backup.
func (m *Metrics) Backup(result string) { m.backups.WithLabelValues(result).Inc() }

// BackupTimes says when the newest backup was made, and when one was verified last.
func (m *Metrics) BackupTimes(made, verified time.Time) {
	m.backupMade.Set(unixOrZero(made))
	m.backupVerified.Set(unixOrZero(verified))
}

func unixOrZero(t time.Time) float64 {
	if t.IsZero() {
		return 0
	}
	return float64(t.UnixMicro()) / 1e6
}

// WebhookAttempt counts an attempt to send a message.
func (m *Metrics) WebhookAttempt(result string) { m.webhookAttempts.WithLabelValues(result).Inc() }

// Webhooks says how many there are, how many of them the service has disabled, how many
// messages wait and how many were given up, and for how long the oldest waits.
func (m *Metrics) Webhooks(all, disabled, pending, dead int, oldest time.Duration) {
	m.webhooks.WithLabelValues("all").Set(float64(all))
	m.webhooks.WithLabelValues("disabled").Set(float64(disabled))
	m.webhookMessages.WithLabelValues("pending").Set(float64(pending))
	m.webhookMessages.WithLabelValues("dead").Set(float64(dead))
	m.webhookOldest.Set(max(oldest, 0).Seconds())
}

// Pruned counts records that a clean-up removed or ended.
func (m *Metrics) Pruned(kind string, n int) { m.pruned.WithLabelValues(kind).Add(float64(n)) }

// TurnedAway counts a connection that met a limit, "total" or "prefix"; or a try to
// accept one for which there was no free descriptor, "descriptors".
func (m *Metrics) TurnedAway(limit string) { m.turnedAway.WithLabelValues(limit).Inc() }

// Ready says whether the database could be used.
func (m *Metrics) Ready(ready bool) { m.ready.Set(oneIf(ready)) }

// Streams says how many event streams are open.
func (m *Metrics) Streams(n int) { m.streams.Set(float64(n)) }

// StreamEnded counts an event stream that ended.
func (m *Metrics) StreamEnded(why string) { m.streamsEnded.WithLabelValues(why).Inc() }

// EventSent counts an event sent on a stream.
func (m *Metrics) EventSent(kind string, age time.Duration) {
	m.eventsSent.WithLabelValues(kind).Inc()
	m.eventAge.Observe(age.Seconds())
}

// Woken counts a look at the event log.
func (m *Metrics) Woken(cause string) { m.wakeUps.WithLabelValues(cause).Inc() }

// Announced counts a wake-up for other processes.
func (m *Metrics) Announced(ok bool) {
	result := "sent"
	if !ok {
		result = "lost"
	}
	m.announced.WithLabelValues(result).Inc()
}

// BusConnected says whether the wake-up bus can be reached.
func (m *Metrics) BusConnected(connected bool) { m.busConnected.Set(oneIf(connected)) }

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}
