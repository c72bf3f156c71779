//go:build unix

package store

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// fileLock is held by the process that has a database open. It ends with the
// process, however that ends.
type fileLock struct {
	file *os.File
}

// acquireLock takes the lock that the file at path stands for, or returns
// ErrInUse. It makes the file only when create is true.
func acquireLock(path string, create bool) (*fileLock, error) {
	flags := os.O_RDWR
	if create {
		flags |= os.O_CREATE
	}
	file, err := os.OpenFile(path, flags, 0o600) //nolint:gosec // beside the operator's database
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
	}
	return &fileLock{file: file}, nil
}

// release gives the lock up. The file stays: removing it could remove a lock
// that another process has just taken. A nil lock has nothing to give.
func (l *fileLock) release() error {
	if l == nil {
		return nil
	}
	return l.file.Close()
}
