//go:build !linux

package carrier

import "net"

// tuneTCP knows no options here.
func tuneTCP(net.Conn) {}
