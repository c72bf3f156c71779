//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package home

import (
	"errors"
	"os"
	"syscall"
)

// acquire locks the file at path. The system lets go of the lock when the
// process ends, however it ends, so a stale file never locks anybody out.
func acquire(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) //nolint:gosec // the user's own directory
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		_ = f.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, ErrInUse
		}
		return nil, err
	}
	return f, nil
}
