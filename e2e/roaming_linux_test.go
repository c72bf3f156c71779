package e2e

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/net/proxy"

	"github.com/httvps/httvps/e2e/internal/origin"
	"github.com/httvps/httvps/e2e/internal/stack"
	"github.com/httvps/httvps/sdk/go/wire"
	"github.com/httvps/httvps/test/linkem"
	"github.com/httvps/httvps/test/sstest"
)

// insider opens connections through the proxy of a device in a namespace.
type insider struct {
	ns    *linkem.Namespace
	socks string
}

// Dial makes a connection in the namespace.
func (d insider) Dial(network, address string) (net.Conn, error) {
	return d.ns.Dial(context.Background(), network, address)
}

func (d insider) open(t *testing.T, target string) net.Conn {
	t.Helper()
	dialer, err := proxy.SOCKS5("tcp", d.socks, nil, d)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dialer.Dial("tcp", target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// TestADeviceThatRoamsLosesNothing: the device has another address every few seconds,
// each time without a word to those that it was connected to, while it downloads and
// holds connections that say nothing.
func TestADeviceThatRoamsLosesNothing(t *testing.T) {
	changes, every, size := 3, 5*time.Second, int64(20<<20)
	if soak {
		changes, every, size = 30, 10*time.Second, 500<<20
	}
	w := newWorld(t, linkem.Config{Rate: 15e6, Delay: 20 * time.Millisecond})
	var (
		far  *origin.Server
		idle wire.Addr
	)
	if err := w.link.Server.Do(func() (err error) {
		idle = sstest.ServeTCP(t, sstest.Echo)
		far, err = origin.Start()
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	home := filepath.Join(w.dir, "home")
	w.program(filepath.Join(bin, "httvps"), "enroll", w.ready.Invite, "--home", home)
	var ready stack.ConnectReady
	w.begin(w.link.Client, w.nameServer, &ready, filepath.Join(bin, "httvps"), "connect", "--home", home, "--socks", "127.0.0.1:0")
	d := insider{w.link.Client, ready.Socks}

	quiet := make([]net.Conn, 20)
	for i := range quiet {
		quiet[i] = d.open(t, idle.String())
		if err := echo(quiet[i]); err != nil {
			t.Fatal(err)
		}
	}
	conn := d.open(t, far.Addr())
	if _, err := fmt.Fprintf(conn, "GET /%d HTTP/1.0\r\nHost: far\r\n\r\n", size); err != nil {
		t.Fatal(err)
	}
	download := make(chan error, 1)
	var longest time.Duration // that nothing came
	go func() { download <- receive(conn, size, mustSum(t, size), &longest) }()

	ticker := time.NewTicker(every)
	defer ticker.Stop()
	addr, done := netip.MustParseAddr("192.0.2.1"), 0
	for over := false; !over; {
		select {
		case err := <-download:
			if err != nil {
				t.Error(err)
			}
			over = true
		case <-ticker.C:
			addr, done = addr.Next(), done+1
			if err := w.link.ChangeAddress(addr); err != nil {
				t.Fatal(err)
			}
		case <-time.After(2 * time.Minute):
			t.Fatalf("the download stands still after %d changes", done)
		}
	}
	t.Logf("%d changes while %d MiB came; at most %v without a byte", done, size>>20, longest.Round(time.Millisecond))
	if done < changes {
		t.Errorf("%d changes of the address while the download went on, want %d", done, changes)
	}
	for i, conn := range quiet {
		if err := echo(conn); err != nil {
			t.Errorf("connection %d that said nothing: %v", i, err)
		}
	}
}
