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

// Address judges the address of a proxy and returns it as it is listened on. Only
// loopback addresses are accepted unless public is set; an empty host is 127.0.0.1
// then, and port 0 any free port.
func Address(address string, public bool) (string, error) {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return "", fmt.Errorf("listen on %q: want HOST:PORT, such as 127.0.0.1:1080", address)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", fmt.Errorf("listen on %q: want a port from 0 to 65535", address)
	}
	if !public {
		switch host {
		case "", "localhost": // never what a resolver makes of it
			host = "127.0.0.1"
		default:
			addr, err := netip.ParseAddr(host)
			if err != nil {
				return "", fmt.Errorf("listen on %q: want an IP address or localhost", address)
			}
			if !addr.Unmap().IsLoopback() {
				return "", fmt.Errorf("listen on %q: %w", address, ErrPublic)
			}
		}
	}
	return net.JoinHostPort(host, port), nil
}

// Listen opens the listener of a proxy at an address that Address takes.
func Listen(ctx context.Context, address string, public bool) (net.Listener, error) {
	at, err := Address(address, public)
	if err != nil {
		return nil, err
	}
	var lc net.ListenConfig
	return lc.Listen(ctx, "tcp", at)
}
