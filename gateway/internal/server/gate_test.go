package server

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/gateway/internal/protocol"
	"github.com/httvps/httvps/gateway/internal/upstream"
	"github.com/httvps/httvps/sdk/go/wire"
)

func TestThePartyIsTheNetworkAndNotTheAddress(t *testing.T) {
	for address, want := range map[string]string{
		"192.0.2.77":        "192.0.2.0/24",
		"::ffff:192.0.2.77": "192.0.2.0/24",
		"2001:db8:1:2:3::4": "2001:db8:1::/48",
		"fe80::1%eth0":      "fe80::/48",
	} {
		addr := net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(address), 1))
		if got := networkOf(addr).String(); got != want {
			t.Errorf("networkOf(%s) = %s, want %s", address, got, want)
		}
	}
}

// script is a listener that accepts what a test says.
type script struct {
	net.Listener
	conns []net.Conn
}

var errScript = errors.New("no more")

func (s *script) Accept() (net.Conn, error) {
	if len(s.conns) == 0 {
		return nil, errScript
	}
	conn := s.conns[0]
	s.conns = s.conns[1:]
	return conn, nil
}

// from is a connection from an address.
type from struct {
	net.Conn
	addr   string
	closed bool
}

func (f *from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(f.addr))
}
func (f *from) Close() error { f.closed = true; return nil }

func TestTheGateBoundsStrangersInTotalAndPerNetwork(t *testing.T) {
	var turnedAway []string
	conns := []*from{
		{addr: "192.0.2.1:1"}, {addr: "192.0.2.2:1"}, {addr: "192.0.2.3:1"}, // two of a network
		{addr: "198.51.100.1:1"}, {addr: "203.0.113.1:1"}, // three in total
	}
	s := &script{}
	for _, conn := range conns {
		s.conns = append(s.conns, conn)
	}
	g := newGate(s, 3, 2, func(limit string) { turnedAway = append(turnedAway, limit) })
	var let []net.Conn
	for {
		conn, err := g.Accept()
		if errors.Is(err, errScript) {
			break
		}
		let = append(let, conn)
	}
	if diff := cmp.Diff([]string{"prefix", "total"}, turnedAway); diff != "" {
		t.Error(diff)
	}
	if len(let) != 3 || !conns[2].closed || !conns[4].closed || conns[0].closed || g.unauthenticated() != 3 {
		t.Errorf("%d are in, %d count", len(let), g.unauthenticated())
	}
	// Who proves himself makes room, once, also when he leaves.
	let[0].(*gated).leave()
	let[0].Close()
	let[0].Close()
	if g.unauthenticated() != 2 {
		t.Errorf("%d count, want 2", g.unauthenticated())
	}
	let[1].Close()
	let[2].Close()
	if g.unauthenticated() != 0 || len(g.prefixes) != 0 {
		t.Errorf("%d count, %d networks are remembered", g.unauthenticated(), len(g.prefixes))
	}
}

// The upstream knows no wire code and the protocol no upstream: here both meet.
func TestEveryFailureOfTheUpstreamHasItsWireCode(t *testing.T) {
	seen := make(map[wire.Code]upstream.Failure)
	for _, failure := range upstream.Failures() {
		code := protocol.CodeOf(&upstream.Error{Failure: failure, Err: errScript})
		if other, taken := seen[code]; taken {
			t.Errorf("%s and %s are both %s", failure, other, code)
		}
		seen[code] = failure
		if code == wire.CodeInternal && failure != upstream.Internal {
			t.Errorf("%s has no code", failure)
		}
	}
}
