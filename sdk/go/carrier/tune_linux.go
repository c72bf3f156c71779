package carrier

import (
	"net"
	"syscall"
)

// Options of Linux's TCP that package syscall has no names for
// (linux/tcp.h).
const (
	tcpUserTimeout  = 18
	tcpNotSentLowAt = 25
)

const (
	// notSent is how much the system may hold that it has not sent: nothing can
	// overtake it. Less starves some congestion controls.
	notSent = 128 << 10

	// userTimeout is how long sent bytes may stay unacknowledged, in
	// milliseconds.
	userTimeout = 20_000
)

// tuneTCP keeps the queue in the system short (docs/03, part 8.2). A system that
// does not know an option goes without.
func tuneTCP(conn net.Conn) {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpNotSentLowAt, notSent)
		_ = syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, tcpUserTimeout, userTimeout)
	})
}
