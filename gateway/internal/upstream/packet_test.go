package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

// packetCanary is a UDP socket that must not be reached.
type packetCanary struct{ *net.UDPConn }

func newPacketCanary(t *testing.T, addr string) packetCanary {
	t.Helper()
	conn, err := net.ListenPacket("udp", addr)
	if err != nil {
		t.Skipf("this host cannot listen on %s: %v", addr, err)
	}
	t.Cleanup(func() { conn.Close() })
	return packetCanary{conn.(*net.UDPConn)}
}

func (c packetCanary) addr() netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

func (c packetCanary) target() wire.Addr {
	return wire.Addr{IP: c.addr().Addr(), Port: c.addr().Port()}
}

// wantUntouched fails when anybody has sent a datagram: they are received in the
// order in which they came, so the first must be our own.
func (c packetCanary) wantUntouched(t *testing.T) {
	t.Helper()
	own, err := net.Dial("udp", c.LocalAddr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if _, err := own.Write([]byte("own")); err != nil {
		t.Fatal(err)
	}
	if data, from := c.receive(t); data != "own" || from.String() != own.LocalAddr().String() {
		t.Errorf("%q from %s reached the canary on %s", data, from, c.LocalAddr())
	}
}

func (c packetCanary) receive(t *testing.T) (string, netip.AddrPort) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 1<<16)
	n, from, err := c.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n]), from
}

// countedSpace tells when its holder waits.
type countedSpace struct {
	buf   []byte
	held  atomic.Bool
	waits chan struct{}
}

func newSpace(size int) *countedSpace {
	return &countedSpace{buf: make([]byte, size), waits: make(chan struct{}, 100)}
}

func (s *countedSpace) Take() []byte {
	s.held.Store(true)
	return s.buf
}

func (s *countedSpace) Return(wait bool) {
	s.held.Store(false)
	if wait {
		s.waits <- struct{}{}
	}
}

// receivePacket reads one datagram.
func receivePacket(t *testing.T, conn PacketConn) (string, netip.AddrPort) {
	t.Helper()
	stop := time.AfterFunc(10*time.Second, func() { conn.Close() })
	defer stop.Stop()
	space := newSpace(1 << 16)
	n, from, err := conn.ReadFrom(space)
	if err != nil {
		t.Fatal(err)
	}
	return string(space.buf[:n]), from
}

func newPacketDirect(t *testing.T, allow ...string) *Direct {
	t.Helper()
	return NewDirect(DirectConfig{Policy: newPolicy(t, Rules{Allow: prefixes(allow...)})})
}

func TestPacketsGoToTheOnePeerAndBack(t *testing.T) {
	target := newPacketCanary(t, "127.0.0.1:0")
	stranger := newPacketCanary(t, "127.0.0.1:0")
	conn, peer, err := newPacketDirect(t, "127.0.0.0/8").DialPacket(t.Context(), target.target())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if peer != target.addr() {
		t.Errorf("the peer is %s, want %s", peer, target.addr())
	}
	if err := conn.WriteTo([]byte("question"), peer); err != nil {
		t.Fatal(err)
	}
	got, from := target.receive(t)
	if got != "question" {
		t.Errorf("the target got %q", got)
	}
	if _, err := stranger.WriteToUDPAddrPort([]byte("stranger"), from); err != nil {
		t.Fatal(err)
	}
	if _, err := target.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
		t.Fatal(err)
	}
	if got, from := receivePacket(t, conn); got != "answer" || from != peer {
		t.Errorf("got %q from %s", got, from)
	}
	wantFailure(t, conn.WriteTo([]byte("x"), stranger.addr()), Denied)
	stranger.wantUntouched(t)
}

func TestPacketsGoToAnyPeerAndBack(t *testing.T) {
	conn, err := newPacketDirect(t, "127.0.0.0/8", "::1/128").ListenPacket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, addr := range []string{"127.0.0.1:0", "127.0.0.2:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			target := newPacketCanary(t, addr)
			if err := conn.WriteTo([]byte("question"), target.addr()); err != nil {
				t.Fatal(err)
			}
			got, from := target.receive(t)
			if got != "question" {
				t.Errorf("the target got %q", got)
			}
			if _, err := target.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
				t.Fatal(err)
			}
			if got, from := receivePacket(t, conn); got != "answer" || from != target.addr() {
				t.Errorf("got %q from %s, want it from %s", got, from, target.addr())
			}
		})
	}
}

func TestASocketThatWaitsHoldsNoSpace(t *testing.T) {
	target := newPacketCanary(t, "127.0.0.1:0")
	conn, peer, err := newPacketDirect(t, "127.0.0.0/8").DialPacket(t.Context(), target.target())
	if err != nil {
		t.Fatal(err)
	}
	space := newSpace(8)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer conn.Close()
	got := make(chan int, 1)
	reading.Go(func() {
		n, _, _ := conn.ReadFrom(space)
		got <- n
		if _, _, err := conn.ReadFrom(space); err == nil || space.held.Load() {
			t.Errorf("after Close: %v, and the space is held: %v", err, space.held.Load())
		}
	})
	<-space.waits
	if space.held.Load() {
		t.Error("the space is held")
	}
	if err := conn.WriteTo(nil, peer); err != nil {
		t.Fatal(err)
	}
	_, from := target.receive(t)
	if _, err := target.WriteToUDPAddrPort(make([]byte, 100), from); err != nil {
		t.Fatal(err)
	}
	if n := <-got; n != 8 {
		t.Errorf("read %d bytes into 8", n)
	}
	<-space.waits
}

// What an ICMP message says of one datagram is no word on the next.
func TestAnUnreachablePortDoesNotEndASocket(t *testing.T) {
	target := newPacketCanary(t, "127.0.0.1:0")
	addr := target.addr()
	target.Close()
	conn, peer, err := newPacketDirect(t, "127.0.0.0/8").DialPacket(t.Context(), wire.Addr{IP: addr.Addr(), Port: addr.Port()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for range 5 {
		if err := conn.WriteTo([]byte("nobody"), peer); err != nil {
			t.Errorf("WriteTo = %v", err)
		}
	}
	space := newSpace(100) // the last message still has to be read
	got := make(chan string, 1)
	var reading sync.WaitGroup
	defer reading.Wait()
	defer conn.Close()
	reading.Go(func() {
		n, _, err := conn.ReadFrom(space)
		if err != nil {
			t.Errorf("ReadFrom = %v", err)
		}
		got <- string(space.buf[:n])
	})
	select {
	case <-space.waits:
	case early := <-got:
		t.Fatalf("read %q", early)
	}
	back := newPacketCanary(t, addr.String())
	if err := conn.WriteTo([]byte("somebody"), peer); err != nil {
		t.Errorf("WriteTo = %v", err)
	}
	_, from := back.receive(t)
	if _, err := back.WriteToUDPAddrPort([]byte("answer"), from); err != nil {
		t.Fatal(err)
	}
	if text := <-got; text != "answer" {
		t.Errorf("got %q", text)
	}
}

// As TestNoSpellingReachesLoopback, for each way in which a datagram may leave.
func TestNoSpellingSendsADatagramToLoopback(t *testing.T) {
	v4 := newPacketCanary(t, "127.0.0.1:0")
	port := v4.addr().Port()
	v6 := newPacketCanary(t, fmt.Sprintf("[::1]:%d", port))
	dns := newDNS(t, func(_ string, ipv6 bool) ([]netip.Addr, bool) {
		if ipv6 {
			return []netip.Addr{netip.IPv6Loopback(), netip.MustParseAddr("::ffff:127.0.0.1"), netip.MustParseAddr("64:ff9b::7f00:1")}, true
		}
		return []netip.Addr{loopback(1), netip.IPv4Unspecified()}, true
	})
	d := NewDirect(DirectConfig{Policy: newPolicy(t, Rules{}), DialDNS: dns.dial})
	socket, err := d.ListenPacket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	for _, spelling := range spellings() {
		var targets []wire.Addr
		if target, err := wire.AddrFromHostPort(spelling, port); err == nil {
			targets = append(targets, target)
		}
		if spelling != "" {
			targets = append(targets, wire.Addr{Name: spelling, Port: port})
		}
		if ip, err := netip.ParseAddr(spelling); err == nil {
			targets = append(targets, wire.Addr{IP: ip, Port: port})
			wantFailure(t, socket.WriteTo([]byte("x"), netip.AddrPortFrom(ip, port)), Denied)
		}
		for _, target := range targets {
			if conn, peer, err := d.DialPacket(t.Context(), target); err == nil {
				_ = conn.WriteTo([]byte("x"), peer)
				conn.Close()
				t.Errorf("%q (%v) has a socket", spelling, target)
			}
			if addrs, err := d.Resolve(t.Context(), target); err == nil {
				t.Errorf("%q (%v) may be sent to: %v", spelling, target, addrs)
			}
		}
	}
	v4.wantUntouched(t)
	v6.wantUntouched(t)
}

// A name that is public when it is judged and private when it is used again.
func TestARebindingNameSendsNothingToLoopback(t *testing.T) {
	private := newPacketCanary(t, "127.0.0.1:0")
	var asked atomic.Int32
	dns := newDNS(t, func(_ string, ipv6 bool) ([]netip.Addr, bool) {
		if ipv6 {
			return nil, true
		}
		if asked.Add(1) == 1 {
			return []netip.Addr{loopback(2)}, true
		}
		return []netip.Addr{loopback(1)}, true
	})
	d := NewDirect(DirectConfig{Policy: newPolicy(t, Rules{Allow: prefixes("127.0.0.2/32")}), DialDNS: dns.dial})
	target := wire.Addr{Name: "rebind.example", Port: private.addr().Port()}
	conn, peer, err := d.DialPacket(t.Context(), target)
	if err != nil || peer.Addr() != loopback(2) {
		t.Fatalf("DialPacket = %v, %v", peer, err)
	}
	defer conn.Close()
	if err := conn.WriteTo([]byte("x"), peer); err != nil {
		t.Errorf("WriteTo = %v", err)
	}
	_, err = d.Resolve(t.Context(), target)
	wantFailure(t, err, Denied)
	_, _, err = d.DialPacket(t.Context(), target)
	wantFailure(t, err, Denied)
	private.wantUntouched(t)
}

func TestTheAddressOfEachPacketSocketIsCheckedAgain(t *testing.T) {
	private := newPacketCanary(t, "127.0.0.1:0")
	conn, err := newPacketDirect(t).connectPacket(t.Context(), private.addr()) // behind the first check
	if err == nil {
		_ = conn.WriteTo([]byte("x"), private.addr())
		conn.Close()
	}
	if !errors.Is(err, ErrDenied) {
		t.Errorf("connectPacket = %v, want ErrDenied", err)
	}
	private.wantUntouched(t)
}

// The kernel knows which addresses are broadcasts; no exception lets one out.
func TestABroadcastOfANetworkIsRefused(t *testing.T) {
	d := newPacketDirect(t, "0.0.0.0/0")
	conn, err := d.ListenPacket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	all := newPacketCanary(t, "0.0.0.0:0")
	broadcast := netip.AddrPortFrom(netip.MustParseAddr("127.255.255.255"), all.addr().Port())
	wantFailure(t, conn.WriteTo([]byte("x"), broadcast), NetUnreachable)
	_, _, err = d.DialPacket(t.Context(), wire.Addr{IP: broadcast.Addr(), Port: broadcast.Port()})
	wantFailure(t, err, NetUnreachable)
	wantFailure(t, conn.WriteTo([]byte("x"), netip.AddrPortFrom(netip.MustParseAddr("255.255.255.255"), all.addr().Port())), Denied)
}

func TestUDPIsDeniedMoreThanTCP(t *testing.T) {
	p := newPolicy(t, Rules{Allow: prefixes("0.0.0.0/0", "::/0")})
	for addr, allowed := range map[string]bool{
		"93.184.216.34:53":           true,
		"10.0.0.1:53":                true, // by the operator's word
		"93.184.216.34:19":           false,
		"93.184.216.34:389":          false,
		"93.184.216.34:1900":         false,
		"93.184.216.34:11211":        false,
		"[2606:2800::1]:11211":       false,
		"[::ffff:93.184.216.34]:389": false,
		"224.0.0.251:5353":           false,
		"[ff02::fb]:5353":            false,
		"[::ffff:224.0.0.251]:5353":  false,
		"255.255.255.255:67":         false,
		"0.0.0.0:53":                 false,
	} {
		if err := p.CheckUDP(netip.MustParseAddrPort(addr)); allowed != (err == nil) {
			t.Errorf("CheckUDP(%s) = %v, want allowed %v", addr, err, allowed)
		}
	}
}

func TestPacketFailures(t *testing.T) {
	dns := newDNS(t, func(name string, _ bool) ([]netip.Addr, bool) { return nil, strings.HasPrefix(name, "empty") })
	d := NewDirect(DirectConfig{Policy: newPolicy(t, Rules{}), DialDNS: dns.dial})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for name, tc := range map[string]struct {
		ctx    func() context.Context
		target wire.Addr
		want   Failure
	}{
		"a denied address":          {t.Context, wire.Addr{IP: netip.MustParseAddr("10.0.0.1"), Port: 80}, Denied},
		"a denied port":             {t.Context, wire.Addr{IP: netip.MustParseAddr("93.184.216.34"), Port: 1900}, Denied},
		"a name without addresses":  {t.Context, wire.Addr{Name: "empty.example", Port: 80}, DNS},
		"nobody waits for the name": {func() context.Context { return cancelled }, wire.Addr{Name: "x.silent", Port: 80}, Cancelled},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := d.DialPacket(tc.ctx(), tc.target)
			wantFailure(t, err, tc.want)
			_, err = d.Resolve(tc.ctx(), tc.target)
			wantFailure(t, err, tc.want)
		})
	}
}

var _ PacketDialer = (*Direct)(nil)

func TestPacketsOfFakes(t *testing.T) {
	name := wire.Addr{Name: "anything.example", Port: 7}
	for _, d := range []PacketDialer{Echo{}, Devnull{}} {
		conn, peer, err := d.DialPacket(t.Context(), name)
		addrs, resolved := d.Resolve(t.Context(), name)
		if err != nil || resolved != nil || !slices.Equal(addrs, []netip.AddrPort{peer}) {
			t.Errorf("%T: peer %s, %v; addresses %v, %v", d, peer, err, addrs, resolved)
			continue
		}
		for i := range 2 * echoed { // never waits, drops what is too much
			if err := conn.WriteTo(bytes.Repeat([]byte("x"), i), peer); err != nil {
				t.Errorf("%T: WriteTo = %v", d, err)
			}
		}
		if _, echo := d.(Echo); echo {
			for i := range echoed {
				if got, from := receivePacket(t, conn); len(got) != i || from != peer {
					t.Errorf("got %d bytes from %s, want %d", len(got), from, i)
				}
			}
		}
		var reading sync.WaitGroup
		reading.Go(func() {
			if _, _, err := conn.ReadFrom(newSpace(1)); !errors.Is(err, net.ErrClosed) {
				t.Errorf("%T: ReadFrom of a closed socket = %v", d, err)
			}
		})
		conn.Close()
		reading.Wait()
		if err := conn.WriteTo(nil, peer); err == nil {
			t.Errorf("%T: WriteTo of a closed socket went through", d)
		}
	}
}

// BenchmarkPackets is one datagram to a socket and back.
func BenchmarkPackets(b *testing.B) {
	echo, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	defer echo.Close()
	policy, err := NewPolicy(Rules{Allow: prefixes("127.0.0.0/8")})
	if err != nil {
		b.Fatal(err)
	}
	conn, err := NewDirect(DirectConfig{Policy: policy}).ListenPacket(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	defer conn.Close()
	to := echo.LocalAddr().(*net.UDPAddr).AddrPort()
	space, p := newSpace(2048), make([]byte, 1200)
	b.ReportAllocs()
	for b.Loop() {
		if err := conn.WriteTo(p, to); err != nil {
			b.Fatal(err)
		}
		n, from, err := echo.ReadFrom(p)
		if err != nil {
			b.Fatal(err)
		}
		_, _ = echo.WriteTo(p[:n], from)
		if _, _, err := conn.ReadFrom(space); err != nil {
			b.Fatal(err)
		}
	}
}
