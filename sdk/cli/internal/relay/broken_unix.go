//go:build unix

package relay

import (
	"net"
	"syscall"
)

// isBroken reports whether a connection that gave EOF was in truth reset. The
// system tells a reset once, to the reader or to the writer; the other one then
// sees an end. A connection that was reset has no peer any more.
func isBroken(c net.Conn) bool {
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return false
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return true // closed meanwhile
	}
	var peerErr error
	if err := raw.Control(func(fd uintptr) { _, peerErr = syscall.Getpeername(int(fd)) }); err != nil {
		return true
	}
	return peerErr != nil
}
