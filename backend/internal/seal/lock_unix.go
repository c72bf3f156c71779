//go:build unix

package seal

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
)

// Lock keeps others who lock it from changing the file, and reads it again. It
// lasts until unlock is called or the process ends. Keys that do not come from a
// file cannot be changed and so need none.
func (r *Ring) Lock() (unlock func() error, err error) {
	if r.source.File == "" {
		return func() error { return nil }, nil
	}
	// The directory, because changing the file makes a new one of its name.
	dir, err := os.Open(filepath.Dir(r.source.File))
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = errors.New("another command is changing it")
		}
		return nil, errors.Join(fmt.Errorf("%s: %w", r.Name(), err), dir.Close())
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.load(); err != nil {
		return nil, errors.Join(err, dir.Close())
	}
	return dir.Close, nil
}
