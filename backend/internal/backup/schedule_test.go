package backup

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// keeper runs a schedule whose backups are small files.
type keeper struct {
	t   *testing.T
	dir string

	mu     sync.Mutex // held by the test but while time passes
	log    bytes.Buffer
	counts map[string]int
	made   time.Time
	proven time.Time
	makes  []time.Time // when it was tried
	fail   error
	bad    error
	stop   func()
}

func (k *keeper) Backup(result string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.counts[result]++
}

func (k *keeper) BackupTimes(made, verified time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.made, k.proven = made, verified
}

// Write takes the log.
func (k *keeper) Write(line []byte) (int, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.log.Write(line)
}

// pass lets time pass.
func (k *keeper) pass(d time.Duration) {
	k.mu.Unlock()
	<-time.After(d)
	synctest.Wait()
	k.mu.Lock()
}

func keep(t *testing.T, dir string, every time.Duration, n int, verifies bool) *keeper {
	t.Helper()
	k := &keeper{t: t, dir: dir, counts: map[string]int{}}
	s := Schedule{
		Dir: dir, Interval: every, Keep: n, Observer: k, Log: slog.New(slog.NewTextHandler(k, nil)),
		Make: func(_ context.Context, path string) error {
			k.mu.Lock()
			defer k.mu.Unlock()
			k.makes = append(k.makes, time.Now())
			if k.fail != nil {
				return k.fail
			}
			return Create(path, func(w io.Writer) error { _, err := io.WriteString(w, "x"); return err })
		},
	}
	if verifies {
		s.Verify = func(context.Context, string) error {
			k.mu.Lock()
			defer k.mu.Unlock()
			return k.bad
		}
	}
	k.mu.Lock()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	k.stop = func() {
		t.Helper()
		k.mu.Unlock()
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v", err)
		}
	}
	return k
}

// names returns the files of the directory.
func (k *keeper) names() []string {
	k.t.Helper()
	entries, err := os.ReadDir(k.dir)
	if err != nil {
		k.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestBackupsAreMadeByTheClockAndTheOldestGo(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		k := keep(t, dir, 6*time.Hour, 3, false)
		k.pass(25 * time.Hour)
		k.stop()
		if len(k.makes) != 5 || k.counts["made"] != 5 {
			t.Errorf("in 25 h %d were made, at %v", len(k.makes), k.makes)
		}
		if names := k.names(); len(names) != 3 || names[2] != newName(begin.Add(24*time.Hour)) {
			t.Errorf("%v are left", names)
		}
		if !k.made.Equal(begin.Add(24*time.Hour)) || !k.proven.IsZero() {
			t.Errorf("made %v, verified %v", k.made, k.proven)
		}

		// A restart makes none before its time.
		again := keep(t, dir, 6*time.Hour, 3, false)
		again.pass(4 * time.Hour)
		if len(again.makes) != 0 || again.made.IsZero() {
			t.Errorf("after a restart: %v, the newest of %v", again.makes, again.made)
		}
		again.pass(2 * time.Hour)
		again.stop()
		if len(again.makes) != 1 {
			t.Errorf("after a restart, when it is due: %v", again.makes)
		}
	})
}

func TestAFailedBackupIsTriedAgainAndTheOldOnesStay(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, dir, 24*time.Hour, 2, false)
		k.pass(24*time.Hour + time.Minute)
		before := k.names()
		k.fail = errors.New("no space left on device")
		begin := time.Now()
		k.pass(40 * time.Hour)
		if diff := k.names(); !slices.Equal(diff, before) || len(before) != 2 {
			t.Errorf("%v are left of %v", diff, before)
		}
		var waits []time.Duration
		for i := 3; i < len(k.makes); i++ {
			waits = append(waits, k.makes[i].Sub(k.makes[i-1]))
		}
		want := []time.Duration{time.Minute, 2 * time.Minute, 4 * time.Minute, 8 * time.Minute, 16 * time.Minute, 32 * time.Minute, time.Hour, time.Hour}
		if len(waits) < len(want) || !slices.Equal(waits[:len(want)], want) {
			t.Errorf("tried after %v, want %v", waits, want)
		}
		if k.counts["not_made"] != len(k.makes)-2 || !strings.Contains(k.log.String(), "no space left") {
			t.Errorf("%v, %d tries since %v; log: %s", k.counts, len(k.makes), begin, k.log.String())
		}
		k.fail = nil
		k.pass(time.Hour)
		k.stop()
		if k.counts["made"] != 3 || slices.Equal(k.names(), before) {
			t.Errorf("when there is room again: %v, %v", k.counts, k.names())
		}
	})
}

func TestTheNewestThatIsVerifiedStaysWhateverComesAfterIt(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		begin := time.Now()
		k := keep(t, dir, time.Hour, 2, true)
		k.pass(10 * time.Minute)
		if !k.proven.Equal(begin) || k.counts["verified"] != 1 {
			t.Errorf("verified %v, %v; want %v", k.proven, k.counts, begin)
		}
		k.bad = errors.New("a total differs")
		k.pass(5 * time.Hour)
		k.stop()
		names := k.names()
		if len(names) != 4 || names[0] != newName(begin) || names[1] != newName(begin)+verifiedSuffix || k.counts["not_verified"] != 5 {
			t.Errorf("%v are left, %v", names, k.counts)
		}
		if !strings.Contains(k.log.String(), "backup not verified") || !k.proven.Equal(begin) {
			t.Errorf("verified %v; log: %s", k.proven, k.log.String())
		}
	})
}

func TestWhatACrashLeftIsNoBackup(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		foreign := []string{"notes.txt", "httvps-20250101T000000.000000Z.age.old", "httvps-x.age", "mine.age.partial"}
		half := newName(time.Now().Add(-time.Minute)) + partialSuffix
		for _, name := range append(foreign, half) {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if files, err := List(dir); err != nil || len(files) > 0 {
			t.Errorf("List = %v, %v", files, err)
		}
		k := keep(t, dir, time.Hour, 1, false)
		k.pass(5 * time.Hour)
		k.stop()
		names := k.names()
		if slices.Contains(names, half) || len(names) != len(foreign)+1 {
			t.Errorf("%v are left, want one backup and %v", names, foreign)
		}
	})
}

func TestADirectoryThatIsNotThereIsAMistakeAndNotMade(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "mount")
	if err := CheckDir(dir); err == nil || !strings.Contains(err.Error(), "want a directory that is there") {
		t.Errorf("CheckDir = %v", err)
	}
	synctest.Test(t, func(t *testing.T) {
		k := keep(t, dir, time.Hour, 1, false)
		k.pass(2 * time.Minute)
		k.stop()
		if k.counts["not_made"] != 2 {
			t.Errorf("%v; log: %s", k.counts, k.log.String())
		}
	})
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the directory was made: %v", err)
	}
}
