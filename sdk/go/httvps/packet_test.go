package httvps_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// answer serves datagrams on loopback until the test ends: f says what is sent
// back, nil for nothing.
func answer(t *testing.T, f func(datagram []byte) []byte) netip.AddrPort {
	t.Helper()
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			if out := f(buf[:n]); out != nil {
				_, _ = conn.WriteToUDPAddrPort(out, from)
			}
		}
	})
	t.Cleanup(func() { _ = conn.Close(); done.Wait() })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort()
}

func same(datagram []byte) []byte { return datagram }

// udp returns a connection of the device for datagrams.
func (d *device) udp(address string) net.Conn {
	d.t.Helper()
	conn, err := d.DialContext(d.t.Context(), "udp", address)
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // a hung test says where
	return conn
}

// packets returns a socket of the device for any peer.
func (d *device) packets() net.PacketConn {
	d.t.Helper()
	conn, err := d.ListenPacket(d.t.Context())
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// repeat sends and receives until both work: datagrams may be lost on a machine
// that has no time for them.
func repeat(conn interface{ SetReadDeadline(t time.Time) error }, send, receive func() error) error {
	var err error
	for range 40 {
		if err = send(); err != nil {
			return err
		}
		_ = conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond))
		if err = receive(); !errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
	}
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
	return err
}

// echoes returns nil when question comes back.
func echoes(conn net.Conn, question string) error {
	buf := make([]byte, 1<<16)
	return repeat(conn, func() error {
		n, err := conn.Write([]byte(question))
		if err == nil && n != len(question) {
			err = fmt.Errorf("wrote %d of %d", n, len(question))
		}
		return err
	}, func() error {
		for {
			n, err := conn.Read(buf)
			if err != nil || string(buf[:n]) == question {
				return err // what differs answers an earlier question
			}
		}
	})
}

// exchange sends a question to one peer that echoes and returns the answer and whose
// it is.
func exchange(conn net.PacketConn, to net.Addr, question string) (answer string, from net.Addr, err error) {
	buf := make([]byte, 1<<16)
	err = repeat(conn, func() error {
		_, err := conn.WriteTo([]byte(question), to)
		return err
	}, func() error {
		for {
			var (
				n   int
				err error
			)
			n, from, err = conn.ReadFrom(buf)
			answer = string(buf[:n])
			if err != nil || answer == question {
				return err // what differs answers an earlier question
			}
		}
	})
	return answer, from, err
}

func TestDatagramsStayApartAndAreCutToTheirBuffer(t *testing.T) {
	origin := answer(t, same)
	s := start(t, httvpstest.Options{})
	d := run(t, s, enrolled(t, s))
	conn := d.udp(origin.String())
	for _, question := range []string{"one", "", "another", strings.Repeat("x", httvps.MaxDatagram)} {
		if err := echoes(conn, question); err != nil {
			t.Fatalf("%d bytes: %v", len(question), err)
		}
	}
	if got := conn.RemoteAddr().(*net.UDPAddr).AddrPort(); got != origin {
		t.Errorf("the remote address is %v", got)
	}
	if conn.LocalAddr() == nil {
		t.Error("no local address")
	}
	conn = d.udp(origin.String())
	buf := make([]byte, 3)
	for _, question := range []string{"abcdef", "ghi"} {
		if err := repeat(conn, func() error {
			_, err := conn.Write([]byte(question))
			return err
		}, func() error {
			n, err := conn.Read(buf)
			if err == nil && n != 3 {
				t.Errorf("read %d bytes", n)
			}
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if string(buf) == "def" {
			t.Error("the rest of a datagram was read")
		}
	}
}

func TestADatagramThatNoTunnelCarriesIsAnErrorOfItsOwn(t *testing.T) {
	origin := answer(t, same)
	s := start(t, httvpstest.Options{})
	d := run(t, s, enrolled(t, s))
	conn, packets := d.udp(origin.String()), d.packets()
	if _, err := conn.Write(make([]byte, httvps.MaxDatagram+1)); !errors.Is(err, httvps.ErrDatagramSize) {
		t.Errorf("Write: %v", err)
	}
	if _, err := packets.WriteTo(make([]byte, httvps.MaxDatagram+1), net.UDPAddrFromAddrPort(origin)); !errors.Is(err, httvps.ErrDatagramSize) {
		t.Errorf("WriteTo: %v", err)
	}
	if err := echoes(conn, "still here"); err != nil {
		t.Error(err)
	}
}

func TestNamesOfUDPTargetsAreResolvedAtTheFarEnd(t *testing.T) {
	origin := answer(t, same)
	asked := make(chan wire.Addr, 1000)
	s := start(t, httvpstest.Options{Peer: func(target wire.Addr) (netip.AddrPort, error) {
		asked <- target
		if target.Name == "absent.test" {
			return netip.AddrPort{}, errors.New("no such name")
		}
		return origin, nil
	}})
	d := run(t, s, enrolled(t, s))
	conn := d.udp("Echo.Test:domain")
	if err := echoes(conn, "by name"); err != nil {
		t.Error(err)
	}
	if got := <-asked; got != (wire.Addr{Name: "echo.test", Port: 53}) {
		t.Errorf("the gateway was asked for %v", got)
	}
	if got := conn.RemoteAddr(); got.String() != "echo.test:53" || got.Network() != "udp" {
		t.Errorf("the remote address is %v %v", got.Network(), got)
	}
	packets := d.packets()
	if _, err := packets.WriteTo([]byte("lost"), httvps.Addr{Host: "absent.test", Port: 1}); err != nil {
		t.Fatal(err) // it is dropped there, and nothing else suffers
	}
	for to, want := range map[httvps.Addr]wire.Addr{
		{Host: "Other.Test", Port: 7}:  {Name: "other.test", Port: 7},
		{Host: "2001:db8::1", Port: 8}: {IP: netip.MustParseAddr("2001:db8::1"), Port: 8},
	} {
		got, from, err := exchange(packets, to, to.Host)
		if err != nil || got != to.Host || from.(*net.UDPAddr).AddrPort() != origin {
			t.Errorf("%v: read %q from %v, %v", to, got, from, err)
		}
		for {
			got := <-asked
			if got == want {
				break
			}
			if got.Name != "absent.test" {
				t.Fatalf("the gateway was asked for %v, want %v", got, want)
			}
		}
	}
}

func TestOneSocketTalksToManyPeers(t *testing.T) {
	s := start(t, httvpstest.Options{})
	packets := run(t, s, enrolled(t, s)).packets()
	want := map[netip.AddrPort]string{}
	for i := range 8 {
		text := fmt.Sprint("I am ", i)
		origin := answer(t, func([]byte) []byte { return []byte(text) })
		want[origin] = text
	}
	got := map[netip.AddrPort]string{}
	buf := make([]byte, 100)
	if err := repeat(packets, func() error {
		for peer := range want {
			if _, err := packets.WriteTo([]byte("who?"), net.UDPAddrFromAddrPort(peer)); err != nil {
				return err
			}
		}
		return nil
	}, func() error {
		for len(got) < len(want) {
			n, from, err := packets.ReadFrom(buf)
			if err != nil {
				return err
			}
			got[from.(*net.UDPAddr).AddrPort()] = string(buf[:n])
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
}

func TestOnlyAddressesThatCanBeSentToAreTaken(t *testing.T) {
	origin := answer(t, same)
	s := start(t, httvpstest.Options{})
	d := run(t, s, enrolled(t, s))
	packets := d.packets()
	for _, to := range []net.Addr{
		nil,
		(*net.UDPAddr)(nil),
		&net.UDPAddr{Port: 1},
		&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)},
		&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1<<16 + 1},
		&net.UDPAddr{IP: net.ParseIP("fe80::1"), Zone: "eth0", Port: 1},
		&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1},
		httvps.Addr{Host: "a.test"},
		httvps.Addr{Host: "münchen.test", Port: 1},
		httvps.Addr{Port: 1},
	} {
		_, err := packets.WriteTo([]byte("?"), to)
		if failed, ok := errors.AsType[*httvps.OpenError](err); !ok || failed.Code != "refused" {
			t.Errorf("%#v: %v, want an OpenError", to, err)
		}
	}
	mapped := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1).To16(), Port: int(origin.Port())}
	got, from, err := exchange(packets, mapped, "hello")
	if err != nil || got != "hello" || from.(*net.UDPAddr).AddrPort() != origin {
		t.Errorf("read %q from %v, %v", got, from, err)
	}
}

func TestUDPDeadlines(t *testing.T) {
	silent := answer(t, func([]byte) []byte { return nil })
	s := start(t, httvpstest.Options{})
	conn := run(t, s, enrolled(t, s)).udp(silent.String())
	wantTimeout := func(what string, err error) {
		t.Helper()
		if netErr, ok := errors.AsType[net.Error](err); !errors.Is(err, os.ErrDeadlineExceeded) || !ok || !netErr.Timeout() {
			t.Errorf("%s: %v, want a deadline", what, err)
		}
	}
	_ = conn.SetDeadline(time.Now().Add(-time.Second))
	_, err := conn.Read(make([]byte, 1))
	wantTimeout("a read behind its deadline", err)
	_, err = conn.Write([]byte("?"))
	wantTimeout("a write behind its deadline", err)
	_ = conn.SetDeadline(time.Time{})
	if _, err := conn.Write([]byte("?")); err != nil {
		t.Errorf("without a deadline: %v", err)
	}
	time.AfterFunc(20*time.Millisecond, func() { _ = conn.SetReadDeadline(time.Now()) })
	_, err = conn.Read(make([]byte, 1))
	wantTimeout("a read whose deadline comes", err)
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, err = conn.Read(make([]byte, 1))
	wantTimeout("a read up to its deadline", err)
}

func TestCloseEndsWhatWaits(t *testing.T) {
	silent := answer(t, func([]byte) []byte { return nil })
	s := start(t, httvpstest.Options{})
	d := run(t, s, enrolled(t, s))
	conn, packets := d.udp(silent.String()), d.packets()
	time.AfterFunc(20*time.Millisecond, func() { _, _ = conn.Close(), packets.Close() })
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Read: %v", err)
	}
	if _, _, err := packets.ReadFrom(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("ReadFrom: %v", err)
	}
	if _, err := conn.Write([]byte("?")); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Write: %v", err)
	}
	if _, err := packets.WriteTo([]byte("?"), net.UDPAddrFromAddrPort(silent)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("WriteTo: %v", err)
	}
	if err := errors.Join(conn.Close(), packets.Close()); err != nil {
		t.Errorf("a second Close: %v", err)
	}
}

func TestARefusedFlowSaysWhyWhenItIsUsed(t *testing.T) {
	codes := make(chan wire.Code, 1)
	s := start(t, httvpstest.Options{Peer: func(wire.Addr) (netip.AddrPort, error) {
		return netip.AddrPort{}, &mux.StreamError{Code: <-codes}
	}})
	d := run(t, s, enrolled(t, s))
	for _, code := range []wire.Code{wire.CodePolicyDenied, wire.CodeDNSFail, wire.CodeIdle, 63} {
		conn := d.udp("a.test:1")
		if _, err := conn.Write([]byte("early")); err != nil {
			t.Errorf("%v: Write before the answer: %v", code, err)
		}
		codes <- code
		_, err := conn.Read(make([]byte, 1))
		_, again := conn.Write([]byte("late"))
		for _, err := range []error{err, again} {
			failed, ok := errors.AsType[*httvps.OpenError](err)
			if !ok || failed.Code != code.Meaning().String() || failed.Target != "a.test:1" {
				t.Errorf("%v: %v, want an OpenError", code, err)
			}
		}
	}
	for _, address := range []string{"", "a.test", "a.test:0", "a.test:http-over-udp"} {
		_, err := d.DialContext(t.Context(), "udp", address)
		if failed, ok := errors.AsType[*httvps.OpenError](err); !ok || failed.Code != "refused" {
			t.Errorf("%q: %v, want an OpenError", address, err)
		}
	}
}

func TestAGatewayWithoutUDPIsToldAtOnce(t *testing.T) {
	s := start(t, httvpstest.Options{NoUDP: true})
	d := run(t, s, enrolled(t, s))
	_, dialled := d.DialContext(t.Context(), "udp", "a.test:1")
	_, listened := d.ListenPacket(t.Context())
	for _, err := range []error{dialled, listened} {
		if failed, ok := errors.AsType[*httvps.OpenError](err); !ok || failed.Code != "unsupported" {
			t.Errorf("%v, want an OpenError", err)
		}
	}
}

func TestUDPConnectionsEndWithTheirSession(t *testing.T) {
	origin := answer(t, same)
	s := start(t, httvpstest.Options{})
	d := run(t, s, enrolled(t, s))
	conn := d.udp(origin.String())
	if err := echoes(conn, "up"); err != nil {
		t.Fatal(err)
	}
	s.Disconnect(wire.CodeShutdown)
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, mux.ErrEnded) {
		t.Errorf("Read: %v, want the session's end", err)
	}
	if _, err := conn.Write([]byte("?")); !errors.Is(err, mux.ErrEnded) {
		t.Errorf("Write: %v, want the session's end", err)
	}
	conn = d.udp(origin.String()) // waits for the next session
	if err := echoes(conn, "up again"); err != nil {
		t.Error(err)
	}
	d.stop()
	_ = d.wait()
	if _, err := d.ListenPacket(t.Context()); !errors.Is(err, net.ErrClosed) || !errors.Is(err, context.Canceled) {
		t.Errorf("after Run: %v, want net.ErrClosed and what Run returned", err)
	}
}

func TestManyFlowsShareASessionAndOneMoreWaits(t *testing.T) {
	origin := answer(t, same)
	s := start(t, httvpstest.Options{})
	d := run(t, s, enrolled(t, s))
	d.next(httvps.Connected)
	most := int(wire.DefaultLimits().MaxUDP)
	conns := make([]net.Conn, most)
	var asking sync.WaitGroup
	for i := range conns {
		conns[i] = d.udp(origin.String())
		asking.Go(func() {
			for j := range 20 {
				if err := echoes(conns[i], fmt.Sprintf("flow %d says %s", i, strings.Repeat("x", i*j))); err != nil {
					t.Errorf("flow %d, datagram %d: %v", i, j, err)
					return
				}
			}
		})
	}
	asking.Wait()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := d.DialContext(ctx, "udp", origin.String()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("flow %d: %v, want a wait", most+1, err)
	}
	_ = conns[0].Close()
	if err := echoes(d.udp(origin.String()), "in its place"); err != nil {
		t.Error(err)
	}
}

// dnsAnswer answers questions for A records with 192.0.2.1, others with none.
func dnsAnswer(query []byte) []byte {
	const header = 12
	end := header + bytes.IndexByte(query[header:], 0) + 1 + 4
	out := append([]byte(nil), query[:end]...)
	copy(out[2:], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
	if bytes.Equal(query[end-4:end], []byte{0, 1, 0, 1}) {
		out[7] = 1
		out = append(out, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 1)
	}
	return out
}

func TestTheStandardResolverWorksThroughATunnel(t *testing.T) {
	server := answer(t, dnsAnswer)
	s := start(t, httvpstest.Options{})
	d := run(t, s, enrolled(t, s))
	resolver := net.Resolver{PreferGo: true, Dial: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return d.DialContext(ctx, network, server.String())
	}}
	got, err := resolver.LookupNetIP(t.Context(), "ip4", "example.test.")
	if err != nil || len(got) != 1 || got[0].Unmap() != netip.MustParseAddr("192.0.2.1") {
		t.Errorf("%v, %v", got, err)
	}
}
