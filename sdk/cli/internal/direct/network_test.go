package direct

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/httvps/httvps/sdk/go/httvps"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// tunnel remembers what it was asked for.
type tunnel struct {
	mu    sync.Mutex
	asked []string
	sent  chan string
	end   chan struct{}
	once  sync.Once
}

func newTunnel() *tunnel { return &tunnel{sent: make(chan string, 16), end: make(chan struct{})} }

var errTunnel = errors.New("by the tunnel")

func (u *tunnel) DialContext(_ context.Context, _, address string) (net.Conn, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked = append(u.asked, address)
	return nil, errTunnel
}

func (u *tunnel) ListenPacket(context.Context) (net.PacketConn, error) { return u, nil }

func (u *tunnel) ReadFrom([]byte) (int, net.Addr, error) { <-u.end; return 0, nil, net.ErrClosed }
func (u *tunnel) WriteTo(p []byte, to net.Addr) (int, error) {
	u.sent <- to.String() + " " + string(p)
	return len(p), nil
}

func (u *tunnel) Close() error                     { u.once.Do(func() { close(u.end) }); return nil }
func (u *tunnel) LocalAddr() net.Addr              { return &net.UDPAddr{} }
func (u *tunnel) SetDeadline(time.Time) error      { return nil }
func (u *tunnel) SetReadDeadline(time.Time) error  { return nil }
func (u *tunnel) SetWriteDeadline(time.Time) error { return nil }

func TestConnectionsTakeTheWayThatTheRulesSay(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	port := ln.Addr().(*net.TCPAddr).Port
	far := newTunnel()
	n := &Network{Rules: mustParse(t, "127.0.0.1", "localhost"), Tunnel: far}
	conn, err := n.DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	if _, err := n.DialContext(t.Context(), "tcp", net.JoinHostPort("127.0.0.2", "1")); !errors.Is(err, errTunnel) {
		t.Errorf("another address: %v", err)
	}
	if len(far.asked) != 1 || far.asked[0] != "127.0.0.2:1" {
		t.Errorf("the tunnel was asked for %q", far.asked)
	}
	_ = ln.Close()
	_, err = n.DialContext(t.Context(), "tcp", (&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}).String())
	if open, ok := errors.AsType[*httvps.OpenError](err); !ok || open.Code != "conn_refused" {
		t.Errorf("a closed port: %v", err)
	}
}

func TestANameThatStandsForThisMachineReachesNothing(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	_, port, _ := net.SplitHostPort(ln.Addr().String())
	_, err = (&Network{Rules: mustParse(t, "localhost"), Tunnel: newTunnel()}).DialContext(t.Context(), "tcp", "localhost:"+port)
	if open, ok := errors.AsType[*httvps.OpenError](err); !ok || open.Code != "policy_denied" {
		t.Errorf("localhost: %v", err)
	}
}

func TestDatagramsTakeTheWayThatTheRulesSay(t *testing.T) {
	peer, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = peer.Close() }()
	at := peer.LocalAddr().(*net.UDPAddr)
	far := newTunnel()
	conn, err := (&Network{Rules: mustParse(t, "127.0.0.1", "named.test"), Tunnel: far}).ListenPacket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	s := conn.(*socket)
	looked := make(chan string, 4)
	s.look = func(host string) (netip.Addr, error) {
		looked <- host
		return netip.MustParseAddr("127.0.0.1"), nil
	}
	buf := make([]byte, 100)
	receive := func() (string, *net.UDPAddr) {
		t.Helper()
		_ = peer.SetReadDeadline(time.Now().Add(10 * time.Second))
		n, from, err := peer.ReadFromUDP(buf)
		if err != nil {
			t.Fatal(err)
		}
		return string(buf[:n]), from
	}
	for text, to := range map[string]net.Addr{
		"to an address":      at,
		"to one as a name":   httvps.Addr{Host: "127.0.0.1", Port: uint16(at.Port)},
		"to a name":          httvps.Addr{Host: "www.Named.test.", Port: uint16(at.Port)},
		"to the name's peer": httvps.Addr{Host: "named.test", Port: uint16(at.Port)},
	} {
		if _, err := conn.WriteTo([]byte(text), to); err != nil {
			t.Fatal(err)
		}
		got, from := receive()
		if got != text {
			t.Errorf("%q came, want %q", got, text)
		}
		_, _ = peer.WriteToUDP([]byte("answer"), from)
		n, answered, err := conn.ReadFrom(buf)
		if err != nil || string(buf[:n]) != "answer" || answered.String() != at.String() {
			t.Errorf("%s: %q from %v, %v", text, buf[:n], answered, err)
		}
	}
	if len(looked) != 2 {
		t.Errorf("%d names were looked up, want 2", len(looked))
	}
	for _, to := range []net.Addr{&net.UDPAddr{IP: net.IPv4(127, 0, 0, 2), Port: 7}, httvps.Addr{Host: "other.test", Port: 7}} {
		_, _ = conn.WriteTo([]byte("x"), to)
		if got := <-far.sent; got != to.String()+" x" {
			t.Errorf("the tunnel was sent %q", got)
		}
	}

	// Who was sent nothing is not heard.
	stranger, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = stranger.Close() }()
	_, _ = conn.WriteTo([]byte("x"), at)
	_, from := receive()
	_, _ = stranger.WriteToUDP([]byte("stranger"), from)
	_, _ = peer.WriteToUDP([]byte("peer"), from)
	if n, _, err := conn.ReadFrom(buf); err != nil || string(buf[:n]) != "peer" {
		t.Errorf("%q was read, %v", buf[:n], err)
	}

	_ = conn.Close()
	if _, _, err := conn.ReadFrom(buf); !errors.Is(err, net.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestTheEndOfTheTunnelsSocketEndsBoth(t *testing.T) {
	far := newTunnel()
	conn, err := (&Network{Rules: mustParse(t, "private"), Tunnel: far}).ListenPacket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	_ = far.Close()
	if _, _, err := conn.ReadFrom(make([]byte, 1)); err == nil {
		t.Error("it goes on")
	}
	_ = conn.Close()
}
