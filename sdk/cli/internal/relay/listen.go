package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
)

// ErrPublic says that an address can be reached from other machines. Whoever reaches
// what listens there uses the tunnel.
var ErrPublic = errors.New("address is not on this machine only")

// Listen opens the listener of a proxy. Only loopback addresses are accepted
// unless public is set; an empty host is 127.0.0.1 then, and port 0 any free
// port.
func Listen(ctx context.Context, address string, public bool) (net.Listener, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("listen on %q: want host:port", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return nil, fmt.Errorf("listen on %q: want a port from 0 to 65535", address)
	}
	if !public {
		switch host {
		case "", "localhost": // never what a resolver makes of it
			host = "127.0.0.1"
		default:
			addr, err := netip.ParseAddr(host)
			if err != nil {
				return nil, fmt.Errorf("listen on %q: want an IP address or localhost", address)
			}
			if !addr.Unmap().IsLoopback() {
				return nil, fmt.Errorf("listen on %q: %w", address, ErrPublic)
			}
		}
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", net.JoinHostPort(host, port))
}
