//go:build !linux

package linkem

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
)

var errLinux = fmt.Errorf("needs Linux: %w", errors.ErrUnsupported)

// Supported returns nil when links can be opened here, and otherwise why not.
func Supported() error { return errLinux }

type tun struct{}

func (*tun) send([]byte) error { return errLinux }

type wakeup struct{}

func newWakeup() (*wakeup, error) { return nil, errLinux }

func (*wakeup) all() error   { return errLinux }
func (*wakeup) close() error { return errLinux }

func pump(*way, *tun, *wakeup) error { return errLinux }

func enter(*os.File) (leave func(), err error) { return nil, errLinux }

func newNamespace(string, netip.Addr, netip.Addr, Config) (*Namespace, error) { return nil, errLinux }

func (*Namespace) changeAddress(netip.Addr) error { return errLinux }
func (*Namespace) close() error                   { return errLinux }
