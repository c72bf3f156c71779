package e2e

import (
	"os"
	"path/filepath"
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
