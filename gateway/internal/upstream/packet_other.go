//go:build !unix

package upstream

import (
	"net/netip"
	"syscall"

	"github.com/httvps/httvps/sdk/go/lazy"
)

// forbidBroadcast does nothing here: the policy denies the one broadcast address
// that can be told from others.
func forbidBroadcast(syscall.RawConn) error { return nil }

// isReport knows no such errors here.
func isReport(error) bool { return false }

// ReadFrom holds the space while it waits: the system cannot say whether there
// is something to read.
func (s *socket) ReadFrom(space lazy.Space) (n int, from netip.AddrPort, err error) {
	space.Take()
	space.Return(true)
	n, from, err = s.conn.ReadFromUDPAddrPort(space.Take())
	if err != nil {
		space.Return(false)
		return 0, netip.AddrPort{}, err
	}
	return n, netip.AddrPortFrom(from.Addr().Unmap().WithZone(""), from.Port()), nil
}
