package e2e

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/httvps/httvps/test/sstest"
)

// TestASessionOutlivesItsTokens: tokens last an hour, and the session of a device that
// stays connected goes on with the next one.
func TestASessionOutlivesItsTokens(t *testing.T) {
	if !soak {
		t.Skip("takes more than an hour: HTTVPS_SOAK=1 has it run, and the tests of the gateway have shorter tokens")
	}
	admin := freePort(t)
	s := &service{t: t, dir: t.TempDir(), env: []string{"HTTVPS_GATEWAY_ADMIN_LISTEN=" + admin}}
	s.start()
	t.Cleanup(s.proc.Kill)
	d := enroll(t, s.Invite)
	d.connect()
	quiet := d.open(sstest.ServeTCP(t, sstest.Echo).String())
	for began := time.Now(); time.Since(began) < 66*time.Minute; <-time.After(time.Minute) {
		if err := echo(quiet); err != nil {
			t.Fatalf("after %v: %v", time.Since(began), err)
		}
	}
	var now struct {
		Session string `json:"session"`
	}
	got := run(t, "", d.env, "httvps", "status", "--home", d.home, "-o", "json")
	if err := json.Unmarshal([]byte(got.stdout), &now); err != nil || now.Session != d.Session {
		t.Errorf("the session is %q, was %q; %v\n%s", now.Session, d.Session, err, got.stderr)
	}
	if shown := metricsOf(t, admin)[`httvps_gateway_reauths_total{code="no_error"}`]; shown < 2 {
		t.Errorf("%v tokens were shown, want one after half an hour and one after an hour", shown)
	}
}
