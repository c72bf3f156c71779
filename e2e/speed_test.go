package e2e

import (
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestADeviceHasTheSpeedsOfItsPlan(t *testing.T) {
	s := startService(t)
	far := startOrigin(t)
	var invitation object
	s.ctl(nil, "user", "create", "--name", "anna")
	s.ctl(nil, "plan", "create", "--name", "slow", "--speed-down-bps", "16M", "--speed-up-bps", "8M")
	s.ctl(nil, "subscription", "create", "--user", "anna", "--plan", "slow")
	s.ctl(&invitation, "user", "invite", "anna")
	d := enroll(t, invitation.Link)
	d.connect()

	file := filepath.Join(t.TempDir(), "2MiB")
	if err := os.WriteFile(file, make([]byte, 2<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	down := func() ([]byte, error) { return d.curl("-o", os.DevNull, far.URL()+"/2MiB") }
	up := func() ([]byte, error) { return d.curl("-o", os.DevNull, "-T", file, far.URL()+"/") }
	// took is how long two of them at once take, 4 MiB together.
	took := func(move func() ([]byte, error)) time.Duration {
		began := time.Now()
		var both sync.WaitGroup
		for range 2 {
			both.Go(func() {
				if _, err := move(); err != nil {
					t.Error(err)
				}
			})
		}
		both.Wait()
		return time.Since(began)
	}
	// 4 MiB take 2.10 s and 4.19 s, less the tenth of a second that may come at once, and
	// 5 %. The machine may be slower than that, but not by much.
	if d := took(down); d < 1890*time.Millisecond || d > 4*time.Second {
		t.Errorf("down took %v", d)
	}
	if d := took(up); d < 3880*time.Millisecond || d > 8*time.Second {
		t.Errorf("up took %v", d)
	}

	s.ctl(nil, "plan", "update", "slow", "--speed-down-bps", "0")
	for deadline := time.Now().Add(20 * time.Second); took(down) > 1500*time.Millisecond; {
		if time.Now().After(deadline) {
			t.Fatal("the session goes on at the old speed")
		}
	}
}

// What holds for one user instead of what his plan says holds at once, for the session
// that lives, and so does taking it back.
func TestASessionGetsItsUsersOwnSpeedWhileItLives(t *testing.T) {
	s := startService(t)
	far := startOrigin(t)
	d := enroll(t, s.Invite)
	d.connect()
	var live struct {
		Items []struct {
			ID     string `json:"id"`
			UserID string `json:"user_id"`
		} `json:"items"`
	}
	s.ctl(&live, "session", "list")
	if len(live.Items) != 1 {
		t.Fatalf("%d sessions, want 1", len(live.Items))
	}
	user, session := live.Items[0].UserID, live.Items[0].ID
	took := func() time.Duration {
		t.Helper()
		began := time.Now()
		if _, err := d.curl("-o", os.DevNull, far.URL()+"/2MiB"); err != nil {
			t.Fatal(err)
		}
		return time.Since(began)
	}
	until := func(what string, reached func(time.Duration) bool) {
		t.Helper()
		for deadline := time.Now().Add(20 * time.Second); !reached(took()); {
			if time.Now().After(deadline) {
				t.Fatalf("the session never became %s", what)
			}
		}
	}
	// 2 MiB at 8 Mbit/s take 2.1 s.
	s.ctl(nil, "user", "update", user, "--speed-down-bps", "8M")
	until("slow", func(d time.Duration) bool { return d > 1800*time.Millisecond })
	var why struct {
		Limits []struct {
			Name   string `json:"name"`
			Value  string `json:"value"`
			Source string `json:"source"`
		} `json:"limits"`
	}
	s.ctl(&why, "why", user)
	found := false
	for _, l := range why.Limits {
		found = found || l.Name == "speed_down_bps" && l.Value == "8000000" && l.Source == "user"
	}
	if !found {
		t.Errorf("why does not say whose limit it is: %+v", why.Limits)
	}
	s.ctl(nil, "user", "update", user, "--speed-down-bps", "plan")
	until("fast again", func(d time.Duration) bool { return d < 900*time.Millisecond })
	s.ctl(&live, "session", "list")
	if len(live.Items) != 1 || live.Items[0].ID != session {
		t.Errorf("it is another session: %+v", live.Items)
	}
}

// What a device moves is seen by the operator while it moves.
func TestTopShowsWhoMovesHowMuch(t *testing.T) {
	s := startService(t)
	far := startOrigin(t)
	d := enroll(t, s.Invite)
	d.connect()
	if _, err := d.curl("-o", os.DevNull, far.URL()+"/8MiB"); err != nil {
		t.Fatal(err)
	}
	var shown struct {
		Items []struct {
			Name     string `json:"name"`
			Sessions int    `json:"sessions"`
			Down     int64  `json:"down"`
			DownBPS  int64  `json:"down_bps"`
		} `json:"items"`
	}
	for deadline := time.Now().Add(time.Minute); ; {
		s.ctl(&shown, "top", "--once")
		if len(shown.Items) == 1 && shown.Items[0].Down >= 8<<20 && shown.Items[0].DownBPS > 100_000 && shown.Items[0].Sessions == 1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("it never shows 8 MiB: %+v", shown)
		}
	}
	table, err := s.tryCtl("top", "--by", "session")
	if err != nil || !strings.Contains(table, "DOWN/S") || !strings.Contains(table, "bit/s") || !strings.Contains(table, "8.0 MiB") {
		t.Errorf("%v:\n%s", err, table)
	}
}
