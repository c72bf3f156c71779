//go:build unix

package upstream

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"

	"github.com/httvps/httvps/sdk/go/lazy"
)

// forbidBroadcast has the kernel refuse broadcasts of every network that it is
// in. Package net allows them, and no address tells that it is one.
func forbidBroadcast(raw syscall.RawConn) error {
	var failed error
	if err := raw.Control(func(fd uintptr) {
		failed = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_BROADCAST, 0)
	}); err != nil {
		return err
	}
	return os.NewSyscallError("setsockopt", failed)
}

// isReport reports whether err tells of an earlier datagram, which an ICMP
// message answered.
func isReport(err error) bool {
	for _, errno := range []syscall.Errno{
		syscall.ECONNREFUSED, syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN,
		syscall.ENOPROTOOPT, syscall.EPROTO, syscall.EACCES, syscall.EMSGSIZE, syscall.EOPNOTSUPP,
	} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

func (s *socket) ReadFrom(space lazy.Space) (n int, from netip.AddrPort, err error) {
	var failed error
	err = s.raw.Read(func(fd uintptr) bool {
		p := space.Take()
		for range maxFaults {
			var sender syscall.Sockaddr
			n, sender, failed = syscall.Recvfrom(int(fd), p, 0)
			if failed == nil {
				from = s.sender(sender)
				return true
			}
			if !errors.Is(failed, syscall.EINTR) && !isReport(failed) {
				break
			}
		}
		wait := errors.Is(failed, syscall.EAGAIN)
		space.Return(wait)
		return !wait
	})
	if err == nil && failed != nil {
		err = &net.OpError{Op: "read", Net: "udp", Source: s.conn.LocalAddr(), Err: os.NewSyscallError("recvfrom", failed)}
	}
	if err != nil {
		return 0, netip.AddrPort{}, err
	}
	return n, from, nil
}

// sender is where a datagram came from.
func (s *socket) sender(addr syscall.Sockaddr) netip.AddrPort {
	switch addr := addr.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(addr.Addr), uint16(addr.Port))
	case *syscall.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(addr.Addr).Unmap(), uint16(addr.Port))
	default: // some systems name nobody where there is but one
		return s.peer
	}
}
