//go:build !linux

package upstream

import "net"

// boundUnacknowledged leaves it to the system here.
func boundUnacknowledged(*net.TCPConn) {}
