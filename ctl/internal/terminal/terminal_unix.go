//go:build linux || darwin || dragonfly || freebsd || netbsd || openbsd

package terminal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// poll is how soon a wait for the keyboard notices that it is over.
const poll = 100 * time.Millisecond

// Terminal is a terminal that a person types at.
type Terminal struct {
	fd int
}

// Of returns the terminal that f is, or nil when f is something else.
func Of(f *os.File) *Terminal {
	fd := int(f.Fd())
	if _, err := unix.IoctlGetTermios(fd, getTermios); err != nil {
		return nil
	}
	return &Terminal{fd: fd}
}

// Size returns how many characters and lines the terminal has; zeros: it does not say.
func (t *Terminal) Size() (width, height int) {
	size, err := unix.IoctlGetWinsize(t.fd, unix.TIOCGWINSZ)
	if err != nil {
		return 0, 0
	}
	return int(size.Col), int(size.Row)
}

// ReadSecret reads one line that is not shown while it is typed. The terminal
// is as before when it returns, also when ctx ends first.
func (t *Terminal) ReadSecret(ctx context.Context) (line string, err error) {
	before, err := unix.IoctlGetTermios(t.fd, getTermios)
	if err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	quiet := *before
	quiet.Lflag &^= unix.ECHO
	quiet.Lflag |= unix.ICANON | unix.ISIG
	if err := unix.IoctlSetTermios(t.fd, setTermios, &quiet); err != nil {
		return "", fmt.Errorf("terminal: %w", err)
	}
	defer func() {
		if restoreErr := unix.IoctlSetTermios(t.fd, setTermios, before); err == nil && restoreErr != nil {
			err = fmt.Errorf("terminal: %w", restoreErr)
		}
	}()
	return t.readLine(ctx)
}

// readLine waits with a timeout before each read: a read itself cannot be
// interrupted, and Ctrl-C has to end the wait.
func (t *Terminal) readLine(ctx context.Context) (string, error) {
	var line []byte
	buf := make([]byte, maxLine)
	for len(line) <= maxLine {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		var ready unix.FdSet
		ready.Set(t.fd)
		timeout := unix.NsecToTimeval(poll.Nanoseconds())
		n, err := unix.Select(t.fd+1, &ready, nil, nil, &timeout)
		if errors.Is(err, unix.EINTR) || err == nil && n == 0 {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("terminal: %w", err)
		}
		n, err = unix.Read(t.fd, buf)
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			continue
		case err != nil:
			return "", fmt.Errorf("terminal: %w", err)
		case n <= 0:
			return "", ErrClosed
		}
		line = append(line, buf[:n]...)
		if text, _, ok := bytes.Cut(line, []byte("\n")); ok {
			return string(text), nil
		}
	}
	return "", fmt.Errorf("terminal: a line of more than %d bytes", maxLine)
}
