package sstest

import (
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"github.com/httvps/httvps/sdk/go/wire"
)

// ServeTCP serves each connection to a target on loopback until the test ends, and
// returns its address.
func ServeTCP(t *testing.T, serve func(*net.TCPConn)) wire.Addr {
	t.Helper()
	l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.MustParseAddrPort("127.0.0.1:0")))
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := l.AcceptTCP()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				stop := context.AfterFunc(t.Context(), func() { _ = conn.Close() })
				defer stop()
				serve(conn)
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		wg.Wait()
	})
	addr := netip.MustParseAddrPort(l.Addr().String())
	return wire.Addr{IP: addr.Addr(), Port: addr.Port()}
}

// Echo sends back what comes, the end included.
func Echo(conn *net.TCPConn) {
	_, _ = io.Copy(conn, conn) // who waits for the rest sees that it is missing
	_ = conn.CloseWrite()
}
