package storetest

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// SmallDisk returns a directory on a disk of its own of some MiB. Making one needs a
// right that CI has; tests get skipped where it is missing.
func SmallDisk(tb testing.TB, mebibytes string) string {
	tb.Helper()
	// Not the test's own directory: the account of a database server must get there.
	dir, err := os.MkdirTemp("", "httvps-disk-")
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := os.Remove(dir); err != nil {
			tb.Error(err)
		}
	})
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // nothing in it is secret
		tb.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size="+mebibytes+"m"); err != nil {
		if inCI() {
			tb.Fatalf("mount a small disk: %v", err)
		}
		tb.Skipf("a small disk needs the right to mount one (root, CAP_SYS_ADMIN): %v", err)
	}
	tb.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			tb.Error(err)
		}
	})
	return dir
}

// Fill leaves free bytes of a small disk and returns the file that takes the rest.
func Fill(tb testing.TB, dir string, free int64) string {
	tb.Helper()
	path := filepath.Join(dir, "ballast")
	file, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600) //nolint:gosec // the test's own
	if err != nil {
		tb.Fatal(err)
	}
	chunk := make([]byte, 4096)
	for {
		if _, err := file.Write(chunk); errors.Is(err, syscall.ENOSPC) {
			break
		} else if err != nil {
			tb.Fatal(err)
		}
	}
	info, err := file.Stat()
	if err != nil {
		tb.Fatal(err)
	}
	if err := errors.Join(file.Truncate(info.Size()-free), file.Close()); err != nil {
		tb.Fatal(err)
	}
	return path
}

// DatabaseOn returns the URL of a new, empty database whose tables are in a
// directory. The test's end drops it.
func (s *Server) DatabaseOn(tb testing.TB, dir string) string {
	tb.Helper()
	if s.user != nil {
		if err := os.Chown(dir, int(s.user.Uid), int(s.user.Gid)); err != nil {
			tb.Fatal(err)
		}
	}
	name := "small_" + suffix()
	if err := s.execute(tb.Context(), "CREATE TABLESPACE "+name+" LOCATION '"+dir+"'"); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if s.ended == nil {
			return
		}
		if err := s.execute(context.WithoutCancel(tb.Context()), "DROP TABLESPACE "+name); err != nil {
			tb.Errorf("drop a test's tablespace: %v", err)
		}
	})
	return s.database(tb, " TABLESPACE "+name)
}
