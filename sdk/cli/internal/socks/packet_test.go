package socks_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/cli/internal/relay"
	"github.com/httvps/httvps/sdk/cli/internal/socks"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// packet is a datagram with the address of its far end.
type packet struct {
	peer net.Addr
	data string
}

// far is a socket of a tunnel in memory.
type far struct {
	net.PacketConn // nil: other methods are not called
	sent           chan packet
	in             chan packet
	closed         chan struct{}
	once           sync.Once
}

func newFar() *far {
	return &far{sent: make(chan packet, 1000), in: make(chan packet, 1000), closed: make(chan struct{})}
}

func (f *far) WriteTo(p []byte, to net.Addr) (int, error) {
	select {
	case f.sent <- packet{to, string(p)}:
		return len(p), nil
	case <-f.closed:
		return 0, net.ErrClosed
	}
}

func (f *far) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case in := <-f.in:
		return copy(p, in.data), in.peer, nil
	case <-f.closed:
		return 0, nil, net.ErrClosed
	}
}

func (f *far) Close() error { f.once.Do(func() { close(f.closed) }); return nil }

// wantSent waits for a datagram to leave.
func (f *far) wantSent(t *testing.T, to, data string) {
	t.Helper()
	select {
	case p := <-f.sent:
		if p.peer.String() != to || p.data != data {
			t.Fatalf("%q was sent to %v, want %q to %s", p.data, p.peer, data, to)
		}
	case <-time.After(20 * time.Second):
		t.Fatalf("nothing was sent, want %q to %s", data, to)
	}
}

// tunnels hands out far sockets and tells of each.
type tunnels struct{ opened chan *far }

func newTunnels() *tunnels { return &tunnels{opened: make(chan *far, 1000)} }

func (s *tunnels) listen(context.Context) (net.PacketConn, error) {
	f := newFar()
	s.opened <- f
	return f, nil
}

// associate asks for an association with port and returns a connected socket
// for it.
func (c *client) associate(port int) (door netip.AddrPort) {
	c.t.Helper()
	c.send(5, 1, 0)
	c.want(5, 0)
	c.send(5, 3, 0, 1, 0, 0, 0, 0, port>>8, port&0xff)
	c.want(5, 0, 0)
	kind := make([]byte, 1)
	_, _ = io.ReadFull(c, kind)
	address := make([]byte, map[byte]int{1: 4, 4: 16}[kind[0]]+2)
	if _, err := io.ReadFull(c, address); err != nil || len(address) == 2 {
		c.t.Fatalf("address of type %d, %v", kind, err)
	}
	ip, _ := netip.AddrFromSlice(address[:len(address)-2])
	return netip.AddrPortFrom(ip, uint16(address[len(address)-2])<<8|uint16(address[len(address)-1]))
}

// socket opens a UDP socket of the client's.
func socket(t *testing.T, at string) *net.UDPConn {
	t.Helper()
	conn, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn.(*net.UDPConn)
}

func sendTo(t *testing.T, from *net.UDPConn, door netip.AddrPort, parts ...any) {
	t.Helper()
	if _, err := from.WriteToUDPAddrPort(join(parts...), door); err != nil {
		t.Fatal(err)
	}
}

func wantFrom(t *testing.T, at *net.UDPConn, door netip.AddrPort, parts ...any) {
	t.Helper()
	buf := make([]byte, 1<<16)
	n, from, err := at.ReadFromUDPAddrPort(buf)
	from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
	if want := join(parts...); err != nil || from != door || !bytes.Equal(buf[:n], want) {
		t.Fatalf("read % x from %v, %v, want % x from %v", buf[:n], from, err, want, door)
	}
}

// head is the start of a datagram's header.
const head = "\x00\x00\x00"

func TestDatagramsCarryTheAddressOfTheirPeer(t *testing.T) {
	longest := string(bytes.Repeat([]byte("n"), 255))
	for name, tc := range map[string]struct {
		address string // as SOCKS5 writes it
		want    net.Addr
	}{
		"IPv4": {string(join(1, 192, 0, 2, 7, 0, 53)), &net.UDPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 53}},
		"IPv6": {
			string(join(4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0xbb)),
			&net.UDPAddr{IP: net.ParseIP("2001:db8::1"), Port: 443},
		},
		"a name":           {string(join(3, 11, "Example.COM", 0x1f, 0x90)), httvps.Addr{Host: "Example.COM", Port: 8080}},
		"the longest name": {string(join(3, 255, longest, 0, 1)), httvps.Addr{Host: longest, Port: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			tunnels := newTunnels()
			c := connect(t, serveWith(t, &socks.Server{ListenPacket: tunnels.listen}, ":0"))
			door := c.associate(0)
			far, own := <-tunnels.opened, socket(t, "127.0.0.1:0")
			for _, data := range []string{"question", "", string(make([]byte, httvps.MaxDatagram))} {
				sendTo(t, own, door, head, tc.address, data)
				far.wantSent(t, tc.want.String(), data)
				far.in <- packet{tc.want, data}
				wantFrom(t, own, door, head, tc.address, data)
			}
		})
	}
}

func TestTheRelayIsBesideTheListener(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "127.0.0.2:0", "[::1]:0"} {
		t.Run(at, func(t *testing.T) {
			ln, err := relay.Listen(t.Context(), at, false)
			if err != nil {
				t.Skip(err) // no such address here
			}
			_ = ln.Close()
			tunnels := newTunnels()
			address := serveWith(t, &socks.Server{ListenPacket: tunnels.listen}, at)
			c := connect(t, address)
			door := c.associate(0)
			if want := netip.MustParseAddrPort(address).Addr(); door.Addr() != want {
				t.Errorf("the door is at %v, the listener at %s", door, address)
			}
			own := socket(t, net.JoinHostPort(c.LocalAddr().(*net.TCPAddr).IP.String(), "0"))
			sendTo(t, own, door, head, 1, 192, 0, 2, 7, 0, 53, "hello")
			(<-tunnels.opened).wantSent(t, "192.0.2.7:53", "hello")
		})
	}
}

func TestDatagramsOfOthersAreDropped(t *testing.T) {
	const to = "\x01\xc0\x00\x02\x07\x00\x35"
	t.Run("from another address", func(t *testing.T) {
		tunnels := newTunnels()
		door := connect(t, serveWith(t, &socks.Server{ListenPacket: tunnels.listen}, ":0")).associate(0)
		sendTo(t, socket(t, "127.0.0.2:0"), door, head, to, "theirs")
		own := socket(t, "127.0.0.1:0")
		sendTo(t, own, door, head, to, "ours")
		(<-tunnels.opened).wantSent(t, "192.0.2.7:53", "ours")
	})
	t.Run("from another port than the first", func(t *testing.T) {
		tunnels := newTunnels()
		door := connect(t, serveWith(t, &socks.Server{ListenPacket: tunnels.listen}, ":0")).associate(0)
		own, far := socket(t, "127.0.0.1:0"), <-tunnels.opened
		sendTo(t, own, door, head, to, "ours")
		far.wantSent(t, "192.0.2.7:53", "ours")
		sendTo(t, socket(t, "127.0.0.1:0"), door, head, to, "theirs")
		sendTo(t, own, door, head, to, "ours again")
		far.wantSent(t, "192.0.2.7:53", "ours again")
		far.in <- packet{&net.UDPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 53}, "answer"}
		wantFrom(t, own, door, head, to, "answer")
	})
	t.Run("from another port than the request named", func(t *testing.T) {
		tunnels := newTunnels()
		own := socket(t, "127.0.0.1:0")
		c := connect(t, serveWith(t, &socks.Server{ListenPacket: tunnels.listen}, ":0"))
		door := c.associate(own.LocalAddr().(*net.UDPAddr).Port)
		sendTo(t, socket(t, "127.0.0.1:0"), door, head, to, "theirs")
		sendTo(t, own, door, head, to, "ours")
		(<-tunnels.opened).wantSent(t, "192.0.2.7:53", "ours")
	})
}

func TestDatagramsThatAreNotServedAreDropped(t *testing.T) {
	tunnels := newTunnels()
	door := connect(t, serveWith(t, &socks.Server{ListenPacket: tunnels.listen}, ":0")).associate(0)
	own, far := socket(t, "127.0.0.1:0"), <-tunnels.opened
	for _, bad := range [][]byte{
		{},
		join(head),
		join(0, 0, 1, 1, 192, 0, 2, 7, 0, 53, "a fragment"),
		join(0, 0, 0x80, 1, 192, 0, 2, 7, 0, 53, "the last fragment"),
		join(0, 1, 0, 1, 192, 0, 2, 7, 0, 53, "reserved"),
		join(head, 2, 192, 0, 2, 7, 0, 53, "an unknown address type"),
		join(head, 3, 0, 0, 53, "an empty name"),
		join(head, 3, 200, "cut"),
		join(head, 1, 192, 0, 2, 7, 0),
		join(head, 1, 192, 0, 2, 7, 0, 53, string(make([]byte, httvps.MaxDatagram+1))),
		join(head, 1, 192, 0, 2, 7, 0, 53, string(make([]byte, 40_000))),
	} {
		sendTo(t, own, door, string(bad))
	}
	far.in <- packet{&net.TCPAddr{}, "from nowhere"}
	far.in <- packet{httvps.Addr{}, "from nobody"}
	sendTo(t, own, door, head, 1, 192, 0, 2, 7, 0, 53, "hello")
	far.wantSent(t, "192.0.2.7:53", "hello")
	far.in <- packet{&net.UDPAddr{IP: net.IPv4(192, 0, 2, 7), Port: 53}, "answer"}
	wantFrom(t, own, door, head, 1, 192, 0, 2, 7, 0, 53, "answer")
}

func TestAnAssociationEndsWithItsConnection(t *testing.T) {
	for name, end := range map[string]func(c *client){
		"closed":    func(c *client) { _ = c.Close() },
		"half":      func(c *client) { c.send("noise"); _ = c.CloseWrite(); c.wantEOF() },
		"broken":    func(c *client) { _ = c.SetLinger(0); _ = c.Close() },
		"with data": func(c *client) { c.send("noise"); _ = c.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			tunnels := newTunnels()
			c := connect(t, serveWith(t, &socks.Server{ListenPacket: tunnels.listen}, ":0"))
			c.associate(0)
			end(c)
			<-(<-tunnels.opened).closed
		})
	}
}

func TestServeEndsAssociations(t *testing.T) {
	ln, err := relay.Listen(t.Context(), ":0", false)
	if err != nil {
		t.Fatal(err)
	}
	tunnels := newTunnels()
	ctx, cancel := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() { _ = (&socks.Server{ListenPacket: tunnels.listen}).Serve(ctx, ln) })
	c := connect(t, ln.Addr().String())
	door := c.associate(0)
	cancel()
	serving.Wait()
	c.wantEOF()
	<-(<-tunnels.opened).closed
	again, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", door.String())
	if err != nil {
		t.Fatalf("the door socket is still open: %v", err)
	}
	_ = again.Close()
}

func TestTheNextDatagramTakesAnotherSocketWhenOneHasEnded(t *testing.T) {
	tunnels := newTunnels()
	door := connect(t, serveWith(t, &socks.Server{ListenPacket: tunnels.listen}, ":0")).associate(0)
	own := socket(t, "127.0.0.1:0")
	for i := range 3 {
		// What is sent before the end of the last socket was seen is lost.
		var far *far
		for far == nil {
			sendTo(t, own, door, head, 3, 1, "a", 0, 7, "round ", i)
			select {
			case far = <-tunnels.opened:
			case <-time.After(10 * time.Millisecond):
			}
		}
		far.wantSent(t, "a:7", "round "+string(rune(i)))
		far.in <- packet{httvps.Addr{Host: "a", Port: 7}, "answer"}
		wantFrom(t, own, door, head, 3, 1, "a", 0, 7, "answer")
		_ = far.Close()
	}
}

func TestTheReplyToAnAssociationSaysWhyThereIsNone(t *testing.T) {
	for name, tc := range map[string]struct {
		listen func(context.Context) (net.PacketConn, error)
		want   int
	}{
		"no UDP here":     {nil, 7},
		"none at the far": {func(context.Context) (net.PacketConn, error) { return nil, &httvps.OpenError{Code: "unsupported"} }, 7},
		"a limit":         {func(context.Context) (net.PacketConn, error) { return nil, &httvps.OpenError{Code: "limit"} }, 1},
		"no session":      {func(context.Context) (net.PacketConn, error) { return nil, context.DeadlineExceeded }, 6},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, serveWith(t, &socks.Server{ListenPacket: tc.listen}, ":0"))
			c.send(5, 1, 0)
			c.want(5, 0)
			c.send(5, 3, 0, 1, 0, 0, 0, 0, 0, 0)
			c.wantReply(tc.want)
			c.wantEOF()
		})
	}
}

func TestAssociationsBeyondTheBoundAreRefused(t *testing.T) {
	tunnels := newTunnels()
	address := serveWith(t, &socks.Server{ListenPacket: tunnels.listen}, ":0")
	var first *client
	for i := range 256 {
		c := connect(t, address)
		c.associate(0)
		if i == 0 {
			first = c
		}
	}
	c := connect(t, address)
	c.send(5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0)
	c.want(5, 0)
	c.wantReply(1)
	c.wantEOF()
	_ = first.CloseWrite()
	first.wantEOF() // its place may be free a moment later
	for {
		c := connect(t, address)
		c.send(5, 1, 0, 5, 3, 0, 1, 0, 0, 0, 0, 0, 0)
		reply := make([]byte, 12)
		if _, err := io.ReadFull(c, reply); err != nil {
			t.Fatal(err)
		}
		if reply[3] == 0 {
			return
		}
	}
}
