package e2e

import (
	"strings"
	"testing"
	"time"
)

func TestRevokedDeviceIsOut(t *testing.T) {
	s := startService(t)
	far := startOrigin(t)
	d := enroll(t, s.Invite)
	d.connect()
	if _, err := d.curl(far.URL() + "/1000"); err != nil {
		t.Fatal(err)
	}
	var devices listing
	s.ctl(&devices, "device", "list")
	if len(devices.Items) != 1 {
		t.Fatalf("%d devices, want 1", len(devices.Items))
	}
	s.ctl(nil, "device", "revoke", devices.Items[0].ID)

	before := far.Requests()
	again := &device{t: t, home: d.home}
	again.start() // at once: it waits for the first, whose session is being closed
	d.wantExit(3, "device_revoked")
	again.wantExit(3, "device_revoked") // there is no way back
	if far.Requests() != before {
		t.Error("a revoked device reached its target")
	}
}

func TestRefusalsSayWhy(t *testing.T) {
	s := startService(t)
	var user, plan, subscription object
	s.ctl(&user, "user", "create", "--name", "anna")
	s.ctl(&plan, "plan", "create", "--name", "small", "--max-devices", "1", "--max-sessions", "1")
	invite := func() string {
		var invitation object
		s.ctl(&invitation, "user", "invite", "anna")
		return invitation.Link
	}

	t.Run("no subscription", func(t *testing.T) {
		d := enroll(t, invite())
		d.t = t
		d.start()
		d.wantExit(3, "no_active_subscription")
		s.ctl(&subscription, "subscription", "create", "--user", "anna", "--plan", "small")
		d.connect()

		t.Run("device limit", func(t *testing.T) {
			r := run(t, invite()+"\n", nil, "httvps", "enroll", "-", "--home", t.TempDir()+"/second")
			if r.code != 3 || !strings.Contains(r.stderr, "device_limit") {
				t.Errorf("exit code %d: %s", r.code, r.stderr)
			}
		})
		t.Run("disabled user", func(t *testing.T) {
			s.ctl(nil, "user", "disable", "anna")
			d.wantExit(3, "user_disabled")
			s.ctl(nil, "user", "enable", "anna")
			d.connect()
		})
	})
	t.Run("an invitation works once", func(t *testing.T) {
		other := invite()
		s.ctl(nil, "plan", "update", "small", "--max-devices", "5")
		enroll(t, other)
		r := run(t, "", nil, "httvps", "enroll", other, "--home", t.TempDir()+"/again")
		if r.code != 3 || !strings.Contains(r.stderr, "invalid_invitation") {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
	})
	t.Run("a damaged invitation", func(t *testing.T) {
		r := run(t, "", nil, "httvps", "enroll", strings.Replace(s.Invite, "code=", "code=x", 1), "--home", t.TempDir()+"/damaged")
		if r.code != 2 || r.stderr == "" {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
	})
	t.Run("an invitation with another pin", func(t *testing.T) {
		link, pin, _ := strings.Cut(s.Invite, "pin=")
		forged := link + "pin=" + strings.Map(func(r rune) rune {
			if r == pin2(pin) {
				return 'A'
			}
			return r
		}, pin)
		r := run(t, "", nil, "httvps", "enroll", forged, "--home", t.TempDir()+"/pin")
		if r.code != 4 || strings.Contains(r.stderr, "insecure") {
			t.Errorf("exit code %d: %s", r.code, r.stderr)
		}
	})
}

// pin2 is the first letter of a pin that is not A.
func pin2(pin string) rune {
	for _, r := range pin {
		if r != 'A' {
			return r
		}
	}
	return 'B'
}

func TestDeviceComesBackAfterTheServiceWasKilled(t *testing.T) {
	s := startService(t)
	far := startOrigin(t)
	d := enroll(t, s.Invite)
	d.connect()
	for range 2 {
		s.proc.Kill()
		s.start()
		deadline := time.Now().Add(time.Minute)
		for {
			_, err := d.curl("--max-time", "20", far.URL()+"/100000")
			if err == nil {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("a minute after the restart: %v", err)
			}
		}
	}
	if code, err := d.proc.Stop(); code != 0 || err != nil {
		t.Errorf("httvps connect ended with %d, %v", code, err)
	}
	if code, err := s.proc.Stop(); code != 0 || err != nil {
		t.Errorf("httvps-server ended with %d, %v", code, err)
	}
}

func TestUnreachableServiceIsExitCode4(t *testing.T) {
	s := startService(t)
	d := enroll(t, s.Invite)
	s.proc.Kill()
	r := run(t, "", nil, "httvps", "connect", "--home", d.home, "--socks", "127.0.0.1:0", "--connect-timeout", "2s")
	if r.code != 4 {
		t.Errorf("exit code %d: %s", r.code, r.stderr)
	}
}
