//go:build !(linux || darwin || dragonfly || freebsd || netbsd || openbsd)

package terminal

import (
	"context"
	"errors"
	"os"
)

// Terminal is a terminal that a person types at. On this system none is
// recognised, so commands ask for what they need by flags and pipes.
type Terminal struct{}

// Of returns nil.
func Of(*os.File) *Terminal { return nil }

// ReadSecret returns errors.ErrUnsupported.
func (t *Terminal) ReadSecret(context.Context) (string, error) { return "", errors.ErrUnsupported }

func (t *Terminal) readLine(context.Context) (string, error) { return "", errors.ErrUnsupported }

// Size returns zeros: it is not known.
func (t *Terminal) Size() (width, height int) { return 0, 0 }
