package e2e

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

func TestThePersonLearnsHowItGoesAndWhatIsWrong(t *testing.T) {
	s := startService(t)
	far := startOrigin(t)
	d := enroll(t, s.Invite)
	d.connect()
	if _, err := d.curl(far.URL() + "/1MiB"); err != nil {
		t.Fatal(err)
	}
	home := []string{"--home", d.home}
	var status struct {
		State, Gateway, Region, Session string
		Latency                         *float64 `json:"latency_ms"`
		Received                        int64
	}
	r := run(t, "", nil, "httvps", append([]string{"status", "-o", "json"}, home...)...)
	if err := json.Unmarshal([]byte(r.stdout), &status); err != nil || r.code != 0 {
		t.Fatalf("status: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if status.State != "connected" || status.Region != "local" || status.Session != d.Session || !strings.Contains(d.Gateway, status.Gateway) || status.Latency == nil || status.Received < 1<<20 {
		t.Errorf("status: %s", r.stdout)
	}
	if r = run(t, "", nil, "httvps", append([]string{"gateways"}, home...)...); r.code != 0 || !strings.Contains(r.stdout, "* local") {
		t.Errorf("gateways: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if r = run(t, "", nil, "httvps", append([]string{"speedtest", far.URL() + "/4MiB", "--upload", far.URL() + "/", "--time", "500ms"}, home...)...); r.code != 0 || strings.Count(r.stdout, "Mbit/s") != 2 {
		t.Errorf("speedtest: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if _, err := d.proc.Stop(); err != nil {
		t.Fatal(err)
	}
	if r = run(t, "", nil, "httvps", append([]string{"doctor"}, home...)...); r.code != 0 || !strings.Contains(r.stdout, "opens a session") || !strings.Contains(r.stdout, "Everything is as it should be.") {
		t.Errorf("doctor: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}

	var devices listing
	s.ctl(&devices, "device", "list")
	s.ctl(nil, "device", "revoke", devices.Items[0].ID)
	russian := []string{"LANG=ru_RU.UTF-8"}
	// The session that doctor tried may not have been ended yet.
	for deadline := time.Now().Add(20 * time.Second); ; {
		r = run(t, "", russian, "httvps", append([]string{"doctor"}, home...)...)
		if r.code == 3 || time.Now().After(deadline) {
			break
		}
	}
	if r.code != 3 || !strings.Contains(r.stdout, "Оператор отозвал это устройство.") || !strings.Contains(r.stderr, "device_revoked") {
		t.Errorf("doctor of a device that is revoked: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	s.proc.Kill()
	if r = run(t, "", nil, "httvps", append([]string{"doctor"}, home...)...); r.code != 4 || !strings.Contains(r.stdout, "Try another network") {
		t.Errorf("doctor without a service: exit %d, %s%s", r.code, r.stdout, r.stderr)
	}
	if r = run(t, "", nil, "httvps", append([]string{"logout"}, home...)...); r.code != 0 {
		t.Errorf("logout: exit %d, %s", r.code, r.stderr)
	}
	d.start()
	d.wantExit(2, "not enrolled")
}
