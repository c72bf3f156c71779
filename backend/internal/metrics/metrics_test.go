package metrics

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestWhatHappenedIsExported(t *testing.T) {
	m := New()
	m.Request("whoami", http.StatusUnauthorized, 3*time.Millisecond)
	m.Decision("allowed")
	m.Decision("session_limit")
	m.Enrolment("enrolled")
	m.Pruned("session", 7)
	m.TurnedAway("prefix")
	m.Ready(true)
	m.Streams(3)
	m.StreamEnded("slow")
	m.EventSent("device.revoked", 3*time.Millisecond)
	m.Woken("bus")
	m.Announced(true)
	m.Announced(false)
	m.BusConnected(true)
	m.Exit("switched")
	m.OutlineFailure("reset")
	m.OutlineProbe("")
	m.OutlineProbe("timeout")
	m.OutlineServers("up", 3)
	m.OutlinePlaces(7, 3000)
	m.QuotaLease("open")
	m.QuotaReached(false)
	m.QuotaReached(true)
	m.WebhookAttempt("dead")
	m.Webhooks(3, 1, 7, 2, 90*time.Second)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	for _, want := range []string{
		`httvps_backend_requests_total{operation="whoami",status="4xx"} 1`,
		`httvps_backend_request_duration_seconds_bucket{operation="whoami",le="0.005"} 1`,
		`httvps_backend_decisions_total{outcome="allowed"} 1`,
		`httvps_backend_decisions_total{outcome="session_limit"} 1`,
		`httvps_backend_enrolments_total{outcome="enrolled"} 1`,
		`httvps_backend_pruned_total{kind="session"} 7`,
		`httvps_backend_connections_refused_total{limit="prefix"} 1`,
		`httvps_backend_ready 1`,
		`httvps_backend_event_streams 3`,
		`httvps_backend_event_streams_ended_total{why="slow"} 1`,
		`httvps_backend_events_sent_total{kind="device.revoked"} 1`,
		`httvps_backend_event_age_seconds_bucket{le="0.005"} 1`,
		`httvps_backend_event_reads_total{cause="bus"} 1`,
		`httvps_backend_bus_announcements_total{result="lost"} 1`,
		`httvps_backend_bus_announcements_total{result="sent"} 1`,
		`httvps_backend_bus_connected 1`,
		`httvps_backend_outline_assignments_total{result="switched"} 1`,
		`httvps_backend_outline_failures_total{failure="reset"} 1`,
		`httvps_backend_outline_probes_total{result="ok"} 1`,
		`httvps_backend_outline_probes_total{result="timeout"} 1`,
		`httvps_backend_outline_servers{status="up"} 3`,
		`httvps_backend_outline_sessions 7`,
		`httvps_backend_outline_capacity 3000`,
		`httvps_backend_quota_leases_total{state="open"} 1`,
		`httvps_backend_quotas_reached_total{part="warning"} 1`,
		`httvps_backend_quotas_reached_total{part="whole"} 1`,
		`httvps_backend_webhook_attempts_total{result="dead"} 1`,
		`httvps_backend_webhooks{which="all"} 3`,
		`httvps_backend_webhooks{which="disabled"} 1`,
		`httvps_backend_webhook_messages{state="dead"} 2`,
		`httvps_backend_webhook_messages{state="pending"} 7`,
		`httvps_backend_webhook_oldest_pending_seconds 90`,
		`go_goroutines`,
	} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("no %s", want)
		}
	}
}
