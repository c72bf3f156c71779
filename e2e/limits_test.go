package e2e

import (
	"os"
	"strings"
	"testing"
	"time"
)

// A quota and regions that are a user's own hold for the session that lives and for the
// next one, and what the plan says holds again when they are given back.
func TestAUsersOwnLimitsEndHisSessionAndLetHimInAgain(t *testing.T) {
	s := startService(t)
	far := startOrigin(t)
	var invitation object
	var subs listing
	s.ctl(nil, "settings", "update", "--support", "Write to help@example.com")
	s.ctl(nil, "user", "create", "--name", "anna")
	s.ctl(nil, "plan", "create", "--name", "large", "--quota-bytes", "10GiB")
	s.ctl(nil, "subscription", "create", "--user", "anna", "--plan", "large")
	s.ctl(nil, "region", "create", "--code", "elsewhere")
	s.ctl(&invitation, "user", "invite", "anna")
	d := enroll(t, invitation.Link)
	d.connect()
	moves := func(size string) error {
		_, err := d.curl("-o", os.DevNull, "--max-time", "60", far.URL()+"/"+size)
		return err
	}
	if err := moves("4MiB"); err != nil {
		t.Fatal(err)
	}
	// Less than is known to be used already.
	var sub struct {
		ID    string `json:"id"`
		Quota struct {
			Used int64 `json:"used"`
		} `json:"quota"`
	}
	s.ctl(&subs, "subscription", "list", "--user", "anna")
	for deadline := time.Now().Add(time.Minute); sub.Quota.Used < 4<<20; {
		if time.Now().After(deadline) {
			t.Fatalf("used are %d bytes", sub.Quota.Used)
		}
		s.ctl(&sub, "subscription", "show", subs.Items[0].ID)
	}
	s.ctl(nil, "user", "update", "anna", "--quota-bytes", "2MiB")
	d.wantExit(3, "quota_exceeded")
	if !strings.Contains(d.proc.Log(), "Whom to ask: Write to help@example.com") {
		t.Errorf("nobody is named whom to ask:\n%s", d.proc.Log())
	}
	s.ctl(nil, "user", "update", "anna", "--quota-bytes", "plan")
	d.connect()
	if err := moves("1MiB"); err != nil {
		t.Error(err)
	}
	// Where there is no gateway; a device waits for one.
	s.ctl(nil, "user", "update", "anna", "--regions", "elsewhere")
	for deadline := time.Now().Add(30 * time.Second); !strings.Contains(d.proc.Log(), "region_unavailable"); {
		if time.Now().After(deadline) {
			t.Fatalf("the session goes on; httvps connect said:\n%s", d.proc.Log())
		}
		s.ctl(nil, "session", "list")
	}
	d.proc.Kill()
	if said, err := s.tryCtl("why", "anna"); err == nil || !strings.Contains(err.Error(), "no session is possible") {
		t.Errorf("why: %v\n%s", err, said)
	}
	s.ctl(nil, "user", "update", "anna", "--regions", "plan")
	d.connect()
	if err := moves("1MiB"); err != nil {
		t.Error(err)
	}
}
