package main

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// echoUDP echoes datagrams on loopback until the test ends.
func echoUDP(t *testing.T) *net.UDPAddr {
	t.Helper()
	origin, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var echoing sync.WaitGroup
	echoing.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := origin.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = origin.WriteTo(buf[:n], from)
		}
	})
	t.Cleanup(func() { _ = origin.Close(); echoing.Wait() })
	return origin.LocalAddr().(*net.UDPAddr)
}

// udpAssociate asks a SOCKS5 server for an association and returns a socket that is
// connected to its relay.
func udpAssociate(t *testing.T, server string) net.Conn {
	t.Helper()
	control, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = control.Close() })
	_ = control.SetDeadline(time.Now().Add(20 * time.Second))
	_, _ = control.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0})
	reply := make([]byte, 12)
	if _, err := io.ReadFull(control, reply); err != nil || !bytes.Equal(reply[:6], []byte{5, 0, 5, 0, 0, 1}) {
		t.Fatalf("the server replied % x, %v", reply, err)
	}
	relay := netip.AddrPortFrom(netip.AddrFrom4([4]byte(reply[6:10])), uint16(reply[10])<<8|uint16(reply[11]))
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "udp", relay.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestDatagramsGoThroughTheProxyAndOutliveASession(t *testing.T) {
	origin := echoUDP(t)
	s := start(t, httvpstest.Options{Peer: func(target wire.Addr) (netip.AddrPort, error) {
		if target != (wire.Addr{Name: "origin.test", Port: 7}) {
			return netip.AddrPort{}, &mux.StreamError{Code: wire.CodeDNSFail}
		}
		return origin.AddrPort(), nil
	}})
	stdout, stderr, end := begin(t, "connect", "--home", enrolled(t, s), "--socks", ":0")
	stdout.waitFor(t, "\n")
	conn := udpAssociate(t, parseReady(t, stdout.String()).SOCKS)

	header := append([]byte{0, 0, 0, 1}, origin.IP.To4()...)
	header = append(header, byte(origin.Port>>8), byte(origin.Port))
	ask := func(text string) {
		t.Helper()
		question := append([]byte{0, 0, 0, 3, 11}, "origin.test\x00\x07"+text...)
		buf := make([]byte, 1<<16)
		for range 40 { // datagrams may be lost, and are while there is no session
			if _, err := conn.Write(question); err != nil {
				t.Fatal(err)
			}
			_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
			n, err := conn.Read(buf)
			if err == nil && bytes.Equal(buf[:n], append(bytes.Clone(header), text...)) {
				return
			}
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
		}
		t.Fatalf("%q did not come back", text)
	}
	ask("hello")
	s.Disconnect(wire.CodeShutdown)
	stderr.waitFor(t, "lost the connection")
	ask("hello again")
	if code := end(); code != 0 {
		t.Errorf("exit %d after the user ended it", code)
	}
}
