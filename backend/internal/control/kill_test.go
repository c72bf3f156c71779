package control_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/password"
	"github.com/httvps/httvps/backend/internal/seal"
	"github.com/httvps/httvps/backend/internal/store"
)

// killDir tells the test binary that it is the process to be killed.
const killDir = "HTTVPS_TEST_KILL_DIR"

// TestKillVictim enrols devices until it is killed, and prints each when the
// caller of the API would have been told.
func TestKillVictim(t *testing.T) {
	dir := os.Getenv(killDir)
	if dir == "" {
		t.Skip("only as a process of its own")
	}
	w, _ := openWorld(t, dir)
	user := w.subscriber(control.MaxPlanDevices, 1)
	for n := range uint32(control.MaxPlanDevices) {
		enrolled, err := w.enrol(testKey(n), w.invite(user))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = fmt.Fprintln(os.Stdout, enrolled.Device.ID) // its reader may be gone
	}
}

func TestAKilledServiceHasAllThatItToldAndNothingHalf(t *testing.T) {
	dir := t.TempDir()
	told := make(map[string]bool)
	for round := range 3 {
		victim := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestKillVictim$")
		victim.Env = append(os.Environ(), killDir+"="+dir)
		out, err := victim.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := victim.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(out)
		enrolled := 0
		for lines.Scan() {
			if uuid.Validate(lines.Text()) != nil {
				t.Fatalf("round %d: the victim failed: %s", round, lines.Text())
			}
			told[lines.Text()] = true
			if enrolled++; enrolled == 20 {
				if err := victim.Process.Kill(); err != nil { // and read on: what was told before counts
					t.Fatal(err)
				}
			}
		}
		if err := victim.Wait(); err == nil || enrolled < 20 {
			t.Fatalf("round %d: the victim ended by itself after %d", round, enrolled)
		}
		checkAfterKill(t, dir, told)
		dir = t.TempDir()
		clear(told)
	}
}

// checkAfterKill opens what a killed service left behind.
func checkAfterKill(t *testing.T, dir string, told map[string]bool) {
	t.Helper()
	w, records := openWorld(t, dir)
	for id := range told {
		if _, err := w.Device(t.Context(), id); err != nil {
			t.Errorf("device %s was told and is not there: %v", id, err)
		}
	}
	err := records.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
		users, err := tx.Users(ctx, "", control.Page{Limit: 10})
		if err != nil {
			return err
		}
		if len(users) == 0 {
			return errors.New("no user")
		}
		devices, err := tx.Devices(ctx, users[0].ID, control.Page{Limit: 2000})
		if err != nil {
			return err
		}
		invitations, err := tx.Invitations(ctx, users[0].ID, control.Page{Limit: 2000})
		if err != nil {
			return err
		}
		used := make(map[string]bool)
		for _, i := range invitations {
			if i.UsedAt != nil {
				used[i.DeviceID] = true
			}
		}
		if len(used) != len(devices) {
			t.Errorf("%d devices and %d used invitations", len(devices), len(used))
		}
		for _, d := range devices {
			if !used[d.ID] {
				t.Errorf("device %s has no invitation", d.ID)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// openWorld is newWorld over a directory that outlives it.
func openWorld(t *testing.T, dir string) (*world, *store.Store) {
	t.Helper()
	return openWorldOn(t, dir, store.Config{Path: filepath.Join(dir, "x.db")})
}

// openWorldOn is openWorld with the records elsewhere.
func openWorldOn(t *testing.T, dir string, where store.Config) (*world, *store.Store) {
	t.Helper()
	w := &world{t: t}
	w.clock.Store(time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).UnixMicro())
	records, err := store.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := records.Close(); err != nil {
			t.Error(err)
		}
	})
	sealed, err := records.HasSecrets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w.Authority, err = w.over(records, keysIn(t, dir, !sealed)); err != nil {
		t.Fatal(err)
	}
	return w, records
}

// keysIn returns the keys in a directory, which makes them only where it may.
func keysIn(t *testing.T, dir string, create bool) *seal.Ring {
	t.Helper()
	ring, err := seal.Open(seal.Source{File: filepath.Join(dir, "kek"), Make: create})
	if err != nil {
		t.Fatal(err)
	}
	return ring
}

// over returns an Authority with the clock of w over records of the test's choice.
func (w *world) over(records control.Store, keys *seal.Ring) (*control.Authority, error) {
	if w.passwords == nil {
		w.passwords = password.New(password.Cost{Passes: 1, Memory: 8})
	}
	return control.Open(w.t.Context(), control.Options{
		Store: records, Sealer: keys, Passwords: w.passwords, Now: w.now, ServiceName: "Test", PublicURL: "https://vpn.example.net", Heartbeat: 5 * time.Second,
		KnockCookie: "sid", KnockRotation: 7 * 24 * time.Hour,
	})
}
