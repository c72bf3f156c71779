package store

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/httvps/httvps/backend/internal/control"
)

// smallDisk returns a directory on a disk of 4 MiB.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=4m"); err != nil {
		t.Skipf("a small disk needs the right to mount one: %v", err)
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves free bytes of a small disk and returns the file that takes the rest.
func fill(t *testing.T, dir string, free int64) string {
	t.Helper()
	path := filepath.Join(dir, "ballast")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	chunk := make([]byte, 4096)
	for {
		if _, err := file.Write(chunk); errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			t.Fatal(err)
		}
	}
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(file.Truncate(info.Size()-free), file.Close()); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestWithoutRoomForABackupNothingIsUpdated(t *testing.T) {
	dir := smallDisk(t)
	cfg := Config{Path: filepath.Join(dir, "x.db")}
	openAndClose(t, cfg)
	fill(t, dir, spare)
	newer := cfg
	newer.steps = withStep(t, furtherTable)
	if _, err := Open(t.Context(), newer); !errors.Is(err, ErrNoRoom) || !strings.Contains(err.Error(), "KiB free") {
		t.Errorf("Open = %v, want ErrNoRoom with figures", err)
	}
	if found := backups(t, cfg); len(found) != 0 {
		t.Errorf("there are %v", found)
	}
	openTest(t, cfg) // as it was
}

func TestAFullDiskStopsWritersOnlyAndOnlyForAsLong(t *testing.T) {
	dir := smallDisk(t)
	cfg := Config{Path: filepath.Join(dir, "x.db")}
	s := openTest(t, cfg)
	if err := putNote(t.Context(), s, "before"); err != nil {
		t.Fatal(err)
	}
	ballast := fill(t, dir, 0)
	var told int
	var err error
	for range 1000 { // what SQLite has already has some room
		if err = putNote(t.Context(), s, fmt.Sprint(told+1)); err != nil {
			break
		}
		told++
	}
	if !errors.Is(err, control.ErrUnavailable) || !strings.Contains(err.Error(), "full") {
		t.Fatalf("Write on a full disk = %v, want ErrUnavailable that says why", err)
	}
	want := "before"
	if told > 0 {
		want = fmt.Sprint(told)
	}
	wantNote(t, s, want)
	if err := s.Ping(t.Context()); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("Ping on a full disk = %v, want ErrUnavailable", err)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Ping(t.Context()), putNote(t.Context(), s, "after")); err != nil {
		t.Errorf("with room again: %v", err)
	}
	var verdict string
	if err := s.writer.QueryRowContext(t.Context(), "PRAGMA integrity_check").Scan(&verdict); err != nil || verdict != "ok" {
		t.Errorf("integrity_check = %q, %v", verdict, err)
	}
	wantNote(t, s, "after")
}
