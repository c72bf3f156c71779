package upstream

import (
	"net"
	"syscall"
)

// tcpUserTimeout is an option of Linux's TCP that package syscall has no name for
// (linux/tcp.h).
const tcpUserTimeout = 18

// boundUnacknowledged ends a connection whose other end does not acknowledge what
// it was sent. A system that does not know the option goes without.
func boundUnacknowledged(conn *net.TCPConn) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, int(userTimeout.Milliseconds()))
	})
}
