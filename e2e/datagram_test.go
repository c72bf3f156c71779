package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// serveUDP answers datagrams on loopback until the test ends; no answer is sent
// when there is none.
func serveUDP(t *testing.T, answer func(question []byte) []byte) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if p := answer(buf[:n]); p != nil {
				_, _ = conn.WriteToUDPAddrPort(p, from)
			}
		}
	})
	t.Cleanup(func() { _ = conn.Close(); wg.Wait() })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

// nameServer answers like a name server (RFC 1035) that knows the address of one
// name and no other.
func nameServer(name string, addr netip.Addr) func(question []byte) []byte {
	var wanted []byte
	for label := range strings.SplitSeq(name, ".") {
		wanted = append(append(wanted, byte(len(label))), label...)
	}
	wanted = append(wanted, 0, 0, 1, 0, 1) // the root, type A, class IN
	return func(question []byte) []byte {
		const header = 12
		if len(question) < header {
			return nil
		}
		end := bytes.IndexByte(question[header:], 0) + header + 5
		if end < header+5 || end > len(question) {
			return nil
		}
		answer := append([]byte(nil), question[:end]...)
		binary.BigEndian.PutUint16(answer[2:], 0x8583) // an authoritative answer: no such name
		copy(answer[4:header], []byte{0, 1, 0, 0, 0, 0, 0, 0})
		if bytes.EqualFold(question[header:end], wanted) {
			binary.BigEndian.PutUint16(answer[2:], 0x8580)
			answer[7] = 1                                                        // one answer
			answer = append(answer, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4) // for the name in the question, for a minute
			answer = append(answer, addr.AsSlice()...)
		}
		return answer
	}
}

// dig asks the name server at address.
func dig(t *testing.T, address, name string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "dig", "@"+host, "-p", port, name, "+tries=3", "+time=5").CombinedOutput()
	if err != nil {
		t.Errorf("dig %s: %v", name, err)
	}
	return string(out)
}

// TestPortsThatAreForwarded shows programs that know no proxy a name server and a
// web server at the far end.
func TestPortsThatAreForwarded(t *testing.T) {
	if _, err := exec.LookPath("dig"); err != nil {
		t.Skip("dig is not installed (Debian: dnsutils)")
	}
	s := startService(t)
	far := startOrigin(t)
	dns := serveUDP(t, nameServer("example.test", netip.MustParseAddr("192.0.2.77")))
	d := enroll(t, s.Invite)
	d.args = []string{
		"-L", "udp:127.0.0.1:0:" + dns.String(),
		"-L", "tcp:0:" + strings.TrimPrefix(far.URL(), "http://"),
	}
	d.connect()
	if len(d.Forwards) != 2 || d.Forwards[0].Proto != "udp" || d.Forwards[0].Target != dns.String() || d.Forwards[1].Proto != "tcp" {
		t.Fatalf("the ready line tells of %+v", d.Forwards)
	}

	for range 3 {
		if out := dig(t, d.Forwards[0].Listen, "example.test"); !strings.Contains(out, "192.0.2.77") || !strings.Contains(out, "status: NOERROR") {
			t.Errorf("dig said:\n%s", out)
		}
	}
	if out := dig(t, d.Forwards[0].Listen, "elsewhere.test"); !strings.Contains(out, "status: NXDOMAIN") {
		t.Errorf("dig said:\n%s", out)
	}
	t.Run("more sources than flows", func(t *testing.T) { askFromManyPorts(t, d.Forwards[0].Listen) })

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	through, err := exec.CommandContext(ctx, "curl", "-sS", "--fail", "http://"+d.Forwards[1].Listen+"/100000").Output()
	if err != nil || len(through) != 100_000 {
		t.Errorf("curl: %d bytes, %v", len(through), err)
	}
}

// askFromManyPorts sends one question from each of more sockets than a session has
// flows, as resolvers do, and wants all of them answered.
func askFromManyPorts(t *testing.T, address string) {
	t.Helper()
	const sockets = 100
	question := append([]byte{0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0}, "\x07example\x04test\x00\x00\x01\x00\x01"...)
	buf := make([]byte, 512)
	for i := range sockets {
		func() {
			conn, err := net.Dial("udp", address)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			question[1] = byte(i)
			for range 5 { // what is lost is asked again
				_, _ = conn.Write(question)
				_ = conn.SetReadDeadline(time.Now().Add(2 * time.Second))
				if n, err := conn.Read(buf); err == nil && n > 12 && buf[1] == byte(i) {
					return
				}
			}
			t.Errorf("question %d was not answered", i)
		}()
	}
}

// association is a client of RFC 1928, part 7.
type association struct {
	control net.Conn // the association lives as long as this
	relay   *net.UDPConn
}

func associate(t *testing.T, proxy string) *association {
	t.Helper()
	control, err := net.Dial("tcp", proxy)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = control.Close() })
	_ = control.SetDeadline(time.Now().Add(time.Minute))
	_, _ = control.Write([]byte{5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0})
	reply := make([]byte, 2+10)
	if _, err := io.ReadFull(control, reply); err != nil || !bytes.Equal(reply[:6], []byte{5, 0, 5, 0, 0, 1}) {
		t.Fatalf("the proxy answers % x, %v", reply, err)
	}
	bound := netip.AddrPortFrom(netip.AddrFrom4([4]byte(reply[6:])), binary.BigEndian.Uint16(reply[10:]))
	relay, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(bound))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = relay.Close() })
	return &association{control, relay}
}

// ask sends a datagram to an address and returns what comes back from there.
func (a *association) ask(t *testing.T, to netip.AddrPort, data string) string {
	t.Helper()
	ip := to.Addr().As4()
	header := append([]byte{0, 0, 0, 1}, ip[:]...)
	header = binary.BigEndian.AppendUint16(header, to.Port())
	buf := make([]byte, 1<<16)
	for range 5 { // datagrams may get lost
		if _, err := a.relay.Write(append(header[:10:10], data...)); err != nil {
			t.Fatal(err)
		}
		_ = a.relay.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := a.relay.Read(buf)
		if err != nil {
			continue
		}
		if !bytes.HasPrefix(buf[:n], header) {
			t.Errorf("% x came, want it from %s", buf[:min(n, 20)], to)
		}
		return string(buf[len(header):n])
	}
	t.Errorf("%s did not answer", to)
	return ""
}

func TestDatagramsThroughTheProxyReachManyPeers(t *testing.T) {
	s := startService(t)
	d := enroll(t, s.Invite)
	d.connect()
	shout := serveUDP(t, bytes.ToUpper)
	echo := serveUDP(t, func(p []byte) []byte { return p })
	a := associate(t, d.Socks)
	for _, data := range []string{"one", "", strings.Repeat("long ", 250)} {
		if got := a.ask(t, shout, data); got != strings.ToUpper(data) {
			t.Errorf("%.20q was answered with %.20q", data, got)
		}
		if got := a.ask(t, echo, data); got != data {
			t.Errorf("%.20q came back as %.20q", data, got)
		}
	}
	_ = a.control.Close() // and with it the association
	deadline := time.Now().Add(20 * time.Second)
	for {
		_, err := a.relay.Write([]byte{0, 0, 0, 1, 127, 0, 0, 1, 0, 7, 'x'})
		if err == nil {
			_ = a.relay.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
			_, err = a.relay.Read(make([]byte, 1))
		}
		if errors.Is(err, syscall.ECONNREFUSED) { // nobody is there: the system says so
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("the relay is still there: %v", err)
		}
	}
}
