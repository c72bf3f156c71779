package gate

import (
	"bytes"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
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
	closed atomic.Bool
}

func (f *from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(f.addr))
}
func (f *from) Close() error { f.closed.Store(true); return nil }

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
	g := New(s, Limits{Total: 3, PerPrefix: 2, Life: time.Hour}, func(limit string) { turnedAway = append(turnedAway, limit) })
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
	if len(let) != 3 || !conns[2].closed.Load() || !conns[4].closed.Load() || conns[0].closed.Load() || g.Strangers() != 3 {
		t.Errorf("%d are in, %d count", len(let), g.Strangers())
	}
	// Who proves himself makes room, once, also when he leaves.
	Pass(ConnContext(t.Context(), tls.Server(let[0], &tls.Config{MinVersion: tls.VersionTLS13})))
	let[0].Close()
	let[0].Close()
	if g.Strangers() != 2 {
		t.Errorf("%d count, want 2", g.Strangers())
	}
	let[1].Close()
	let[2].Close()
	if g.Strangers() != 0 || len(g.prefixes) != 0 {
		t.Errorf("%d count, %d networks are remembered", g.Strangers(), len(g.prefixes))
	}
}

func TestAStrangersTimeEndsAndOthersHaveNone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stays, known := &from{addr: "192.0.2.1:1"}, &from{addr: "192.0.2.2:1"}
		g := New(&script{conns: []net.Conn{stays, known}}, Limits{Total: 9, PerPrefix: 9, Life: time.Minute}, func(string) {})
		for range 2 {
			conn, err := g.Accept()
			if err != nil {
				t.Fatal(err)
			}
			if conn.RemoteAddr().String() == known.addr {
				Pass(ConnContext(t.Context(), conn))
			}
		}
		<-time.After(time.Minute - 1)
		if stays.closed.Load() || g.Strangers() != 1 {
			t.Error("a stranger's connection ends before its time")
		}
		<-time.After(2)
		synctest.Wait()
		if !stays.closed.Load() || g.Strangers() != 0 {
			t.Errorf("a stranger's connection outlives its time: closed %v, %d count", stays.closed.Load(), g.Strangers())
		}
		if <-time.After(time.Hour); known.closed.Load() {
			t.Error("the connection of someone known has ended by itself")
		}
	})
}

func TestWhoIsVouchedForCountsInTotalAndNotForItsNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var turnedAway []string
		s := &script{}
		conns := make([]*from, 8)
		for i := range conns {
			conns[i] = &from{addr: []string{"192.0.2.1:1", "198.51.100.1:1"}[i%2]}
			s.conns = append(s.conns, conns[i])
		}
		g := New(s, Limits{Total: 6, PerPrefix: 1, Life: time.Minute}, func(limit string) { turnedAway = append(turnedAway, limit) })
		for range 6 { // three from each network, one after the other
			conn, err := g.Accept()
			if err != nil {
				t.Fatal(err)
			}
			for range 2 { // counts once
				Vouch(ConnContext(t.Context(), conn))
			}
		}
		if _, err := g.Accept(); !errors.Is(err, errScript) { // the rest meets the total
			t.Errorf("Accept = %v", err)
		}
		if diff := cmp.Diff([]string{"total", "total"}, turnedAway); diff != "" || g.Strangers() != 6 {
			t.Errorf("%d count: %s", g.Strangers(), diff)
		}
		<-time.After(time.Minute + 1)
		synctest.Wait()
		if !conns[0].closed.Load() || g.Strangers() != 0 || len(g.prefixes)+len(g.vouched) != 0 {
			t.Errorf("after their time %d count, %d networks are remembered, closed: %v", g.Strangers(), len(g.prefixes)+len(g.vouched), conns[0].closed.Load())
		}
	})
}

// Who has knocked has not proven who he is: one device, with nothing behind its
// knocks, must not take the places of all others.
func TestWhoKnocksFromOneNetworkLeavesHalfOfThePlaces(t *testing.T) {
	var turnedAway []string
	s := &script{}
	for range 8 {
		s.conns = append(s.conns, &from{addr: "192.0.2.1:1"})
	}
	s.conns = append(s.conns, &from{addr: "198.51.100.1:1"})
	g := New(s, Limits{Total: 6, PerPrefix: 1, Life: time.Hour}, func(limit string) { turnedAway = append(turnedAway, limit) })
	var let []net.Conn
	for {
		conn, err := g.Accept()
		if errors.Is(err, errScript) {
			break
		}
		let = append(let, conn)
		Vouch(ConnContext(t.Context(), conn))
	}
	// Three knock, one more counts for its network, and the other network has room.
	if diff := cmp.Diff([]string{"prefix", "prefix", "prefix", "prefix"}, turnedAway); diff != "" || len(let) != 5 {
		t.Errorf("%d are in: %s", len(let), diff)
	}
	Pass(ConnContext(t.Context(), let[0])) // makes room for another knock
	Vouch(ConnContext(t.Context(), let[3]))
	s.conns = append(s.conns, &from{addr: "192.0.2.1:1"})
	conn, err := g.Accept()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range append(let, conn) {
		c.Close()
	}
	if g.Strangers() != 0 || len(g.prefixes)+len(g.vouched) != 0 {
		t.Errorf("%d count, %d networks are remembered", g.Strangers(), len(g.prefixes)+len(g.vouched))
	}
}

func TestWithoutAGateNothingHappens(t *testing.T) {
	ctx := ConnContext(t.Context(), &from{})
	Vouch(ctx)
	Pass(ctx)
}

// exhausted is a listener of a process that may open no more files for a while.
type exhausted struct {
	net.Listener
	failures int
	tries    int
}

func (e *exhausted) Accept() (net.Conn, error) {
	e.tries++
	if e.tries <= e.failures {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return &from{addr: "192.0.2.1:1"}, nil
}

func (*exhausted) Close() error { return nil }

func TestWithoutDescriptorsTheGateWaitsLongerAndLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		counted := 0
		var logged bytes.Buffer
		l := &exhausted{failures: 20}
		g := New(l, Limits{Total: 9, PerPrefix: 9, Life: time.Hour}, Tell(func(limit string) {
			if limit == Descriptors {
				counted++
			}
		}, slog.New(slog.NewTextHandler(&logged, nil))))
		began := time.Now()
		conn, err := g.Accept()
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		// 5 ms, 10 ms … 640 ms, and then a second each.
		if took := time.Since(began); took != 1275*time.Millisecond+12*time.Second || counted != 20 {
			t.Errorf("%v for %d failures", took, counted)
		}
		if n := strings.Count(logged.String(), "may open no more files"); n != 1 {
			t.Errorf("told %d times in a minute: %s", n, &logged)
		}

		l.failures = l.tries + 1000
		ended := make(chan error, 1)
		go func() {
			_, err := g.Accept()
			ended <- err
		}()
		<-time.After(time.Minute)
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept = %v", err)
		}
		if n := strings.Count(logged.String(), "may open no more files"); n != 2 {
			t.Errorf("told %d times in two minutes", n)
		}
	})
}

func TestOtherLimitsHoldForWhoComesFromThenOn(t *testing.T) {
	var turnedAway []string
	s := &script{}
	for range 4 {
		s.conns = append(s.conns, &from{addr: "192.0.2.1:1"})
	}
	g := New(s, Limits{Total: 9, PerPrefix: 1, Life: time.Hour}, func(limit string) { turnedAway = append(turnedAway, limit) })
	first, err := g.Accept()
	if err != nil {
		t.Fatal(err)
	}
	g.Limit(2, 9)
	second, err := g.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := g.Accept(); !errors.Is(err, errScript) {
		t.Errorf("Accept = %v", err)
	}
	if diff := cmp.Diff([]string{"total", "total"}, turnedAway); diff != "" {
		t.Error(diff)
	}
	first.Close()
	second.Close()
}
