package gateway_test

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// aged is the device with a token that has been over for so long.
func (d device) aged(t *testing.T, c *control, over time.Duration) device {
	t.Helper()
	told := claims(d)
	told.ExpiresAt = time.Now().Add(-over)
	told.IssuedAt = told.ExpiresAt.Add(-time.Hour)
	d.token = sign(t, c.signer, serviceID, told)
	return d
}

// eventually waits for something that others do.
func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !is(); {
		if time.Now().After(deadline) {
			t.Fatalf("after a minute still not: %s", what)
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (s *service) counts(t *testing.T, metric string) bool {
	t.Helper()
	return strings.Contains(s.metrics(t), metric+"\n")
}

func TestWhileTheControlPlaneIsAwayDevicesThatAreKnownGetIn(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, func(cfg *gateway.Config) { cfg.OutageGrace = configfile.Duration(2 * time.Hour) })
	known, doomed, o := c.device(t), c.device(t), newOrigin(t)
	before := known.connect(t, s.url, s.trust)
	doomed.connect(t, s.url, s.trust)
	known.aged(t, c, time.Hour).wantReject(t, s.url, s.trust, wire.CodeTokenExpired)

	c.set(func(c *control) { c.away = true })
	c.device(t).wantReject(t, s.url, s.trust, wire.CodeRetryLater)
	eventually(t, "the gateway stands in", func() bool { return s.counts(t, "httvps_gateway_degraded 1") })
	after := known.connect(t, s.url, s.trust)
	later := known.aged(t, c, time.Hour).connect(t, s.url, s.trust)
	ends := doomed.connect(t, s.url, s.trust)
	for _, tun := range []*tunnel{before, after, later} {
		if got, err := exchange(t, tun, o.addr, "on"); got != "on" || err != nil {
			t.Errorf("exchange = %q, %v", got, err)
		}
	}
	c.device(t).wantReject(t, s.url, s.trust, wire.CodeRetryLater)
	c.device(t).aged(t, c, time.Hour).wantReject(t, s.url, s.trust, wire.CodeTokenExpired)
	known.aged(t, c, 3*time.Hour).wantReject(t, s.url, s.trust, wire.CodeTokenExpired)
	for _, metric := range []string{
		`httvps_gateway_control_breaker{state="closed"} 0`, "httvps_gateway_sessions_untold 3", `httvps_gateway_outage_decisions_total{result="admitted"} 3`,
		`httvps_gateway_outage_decisions_total{result="token_expired"} 1`,
	} {
		if !s.counts(t, metric) {
			t.Errorf("no %s in:\n%s", metric, s.metrics(t))
		}
	}

	c.set(func(c *control) {
		c.away = false
		c.admitted = func(device string) any {
			if device == doomed.id.String() {
				return map[string]any{"allowed": false, "reason": "device_revoked"}
			}
			return map[string]any{"allowed": true}
		}
	})
	var closed *mux.CloseError
	if err := <-ends.ended; !errors.As(err, &closed) || closed.Code != wire.CodeDeviceRevoked {
		t.Errorf("the session that is refused afterwards ended with %v", err)
	}
	eventually(t, "all is told", func() bool { return s.counts(t, "httvps_gateway_sessions_untold 0") })
	for _, tun := range []*tunnel{before, after, later} {
		if got, err := exchange(t, tun, o.addr, "still"); got != "still" || err != nil {
			t.Errorf("exchange = %q, %v", got, err)
		}
	}
	if !s.counts(t, "httvps_gateway_degraded 0") || !s.counts(t, `httvps_gateway_control_breaker{state="closed"} 1`) {
		t.Error("the gateway still stands in")
	}
	for _, line := range []string{"control plane away", "control plane back"} {
		if n := strings.Count(s.log.String(), line); n != 1 {
			t.Errorf("the log says %q %d times", line, n)
		}
	}
	c.set(func(c *control) {
		if c.told != 3 {
			t.Errorf("%d sessions are told, want 3", c.told)
		}
	})
}

// Each right that an operator takes ends what rests on it, by the event.
func TestSessionsEndWithTheRightThatTheyRestOn(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		take func(t *testing.T, s *service)
		want wire.Code
		told bool // in the histogram of revocations
	}{
		"the user is disabled": {func(t *testing.T, s *service) {
			t.Helper()
			s.admin(t, http.MethodPatch, "/users/"+s.first(t, "/users"), map[string]any{"disabled": true}, nil)
		}, wire.CodeUserDisabled, true},
		"the user is deleted": {func(t *testing.T, s *service) {
			t.Helper()
			s.admin(t, http.MethodDelete, "/users/"+s.first(t, "/users"), nil, nil)
		}, wire.CodeDeviceNotFound, true},
		"the device is revoked": {func(t *testing.T, s *service) {
			t.Helper()
			s.admin(t, http.MethodPost, "/devices/"+s.first(t, "/devices")+"/revoke", nil, nil)
		}, wire.CodeDeviceRevoked, true},
		"the session is closed": {func(t *testing.T, s *service) {
			t.Helper()
			s.admin(t, http.MethodPost, "/sessions/"+s.first(t, "/sessions")+"/close", nil, nil)
		}, wire.CodeSessionUnknown, true},
		"the subscription is deleted": {func(t *testing.T, s *service) {
			t.Helper()
			s.admin(t, http.MethodDelete, "/subscriptions/"+s.first(t, "/subscriptions"), nil, nil)
		}, wire.CodeNoActiveSubscription, false},
		"the gateway is deleted": {func(t *testing.T, s *service) {
			t.Helper()
			s.admin(t, http.MethodDelete, "/gateways/"+s.first(t, "/gateways"), nil, nil)
		}, wire.CodeShutdown, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, nil)
			tun := s.enrol(t).connect(t, s.url, s.trust)
			tc.take(t, s)
			var closed *mux.CloseError
			if err := <-tun.ended; !errors.As(err, &closed) || closed.Code != tc.want {
				t.Fatalf("the session ended with %v, want CLOSE(%v)", err, tc.want)
			}
			if tc.told {
				eventually(t, "the time is told", func() bool { return s.counts(t, "httvps_gateway_revocation_seconds_count 1") })
			}
		})
	}
}
