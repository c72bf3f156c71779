package ledger

import (
	"errors"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// smallDisk mounts a file system of a few pages.
func smallDisk(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=200k"); err != nil {
		t.Skipf("cannot mount a small disk here: %v", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(dir, syscall.MNT_DETACH) })
	return dir
}

func TestOnAFullDiskRowsStayInMemoryAndNoSessionBegins(t *testing.T) {
	dir := smallDisk(t)
	path := filepath.Join(dir, "usage.db")
	l := openAt(t, path, 100_000)
	mustPut(t, l, row(1, 1, 1, noon))
	if err := l.Enter(); err != nil {
		t.Fatal(err)
	}
	_ = exec.CommandContext(t.Context(), "dd", "if=/dev/zero", "of="+filepath.Join(dir, "filler"), "bs=1k").Run() // until it is full
	var rows []Row
	for i := range 5000 {
		r := row(2, 1, 1, noon.Add(time.Minute))
		r.Session[1], r.Session[2] = byte(i), byte(i>>8)
		rows = append(rows, r)
	}
	if err := l.Put(rows); err == nil {
		t.Fatal("there is room for all")
	}
	if err := l.Enter(); !errors.Is(err, ErrUnwritable) || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("Enter = %v", err)
	}
	if got := all(t, l, 999); len(got) != 5001 {
		t.Errorf("%d rows are to be told, want 5001", len(got))
	}
	if got := l.Stats(); got.Rows != 5001 || !got.Oldest.Equal(noon) {
		t.Errorf("%+v", got)
	}
	// What was told from memory need not be written.
	_ = l.Drop(all(t, l, 5001)[1:4001])
	if got := l.Stats().Rows; got != 1001 {
		t.Errorf("%d rows are left, want 1001", got)
	}
	if err := l.Put(nil); err == nil {
		t.Error("the disk has room")
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", syscall.MS_REMOUNT, "size=20m"); err != nil {
		t.Fatal(err)
	}
	if err := l.Put(nil); err != nil {
		t.Fatal(err)
	}
	if err := l.Enter(); err != nil {
		t.Errorf("with room again: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if got := openAt(t, path, 100_000).Stats().Rows; got != 1001 {
		t.Errorf("%d rows were written, want 1001", got)
	}
}
