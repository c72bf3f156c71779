package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"golang.org/x/net/dns/dnsmessage"

	"github.com/httvps/httvps/sdk/go/wire"
)

func TestMain(m *testing.M) {
	// The resolver keeps the system's configuration, and a channel that guards it,
	// for the whole process. It makes them at the first look-up: were that in a
	// synctest bubble, look-ups outside of it would die.
	first := net.Resolver{PreferGo: true, Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("nobody is asked")
	}}
	_, _ = first.LookupHost(context.Background(), "first.invalid")
	goleak.VerifyTestMain(m)
}

// canary is a listener that must not be reached.
type canary struct{ net.Listener }

func newCanary(t *testing.T, addr string) canary {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Skipf("this host cannot listen on %s: %v", addr, err)
	}
	t.Cleanup(func() { l.Close() })
	return canary{l}
}

func (c canary) addr() netip.AddrPort { return c.Addr().(*net.TCPAddr).AddrPort() }

// wantUntouched fails when anybody has connected: connections are accepted in
// the order in which they came, so the first must be our own.
func (c canary) wantUntouched(t *testing.T) {
	t.Helper()
	own, err := net.Dial("tcp", c.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	first, err := c.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if first.RemoteAddr().String() != own.LocalAddr().String() {
		t.Errorf("somebody reached the canary on %s", c.Addr())
	}
}

// wantTouched accepts the one connection that must have come.
func (c canary) wantTouched(t *testing.T) {
	t.Helper()
	conn, err := c.Accept()
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
}

func wantFailure(t *testing.T, err error, want Failure) {
	t.Helper()
	var failed *Error
	if !errors.As(err, &failed) || failed.Failure != want {
		t.Errorf("Dial = %v, want the failure %q", err, want)
	}
	if errors.Is(err, io.EOF) {
		t.Errorf("%v passes for a good end", err)
	}
}

func loopback(last byte) netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, last}) }

func TestDialConnectsToAnAllowedAddress(t *testing.T) {
	target := newCanary(t, "127.0.0.1:0")
	d := NewDirect(DirectConfig{Policy: newPolicy(t, Rules{Allow: prefixes("127.0.0.0/8")})})
	conn, err := d.Dial(t.Context(), wire.Addr{IP: loopback(1), Port: target.addr().Port()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	peer, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	// Half-close: the target reads the end and still answers.
	if _, err := io.WriteString(conn, "question"); err != nil {
		t.Fatal(err)
	}
	if err := conn.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(peer); string(got) != "question" || err != nil {
		t.Errorf("the target read %q, %v", got, err)
	}
	_, _ = io.WriteString(peer, "answer")
	peer.Close()
	if got, err := io.ReadAll(conn); string(got) != "answer" || err != nil {
		t.Errorf("read %q, %v after the half-close", got, err)
	}
}

// TestNoSpellingReachesLoopback dials every way of writing a local address
// that resolvers, C libraries or URL parsers have been known to accept. The
// test's DNS server says 127.0.0.1 and ::1 to everything that becomes a name.
func TestNoSpellingReachesLoopback(t *testing.T) {
	v4 := newCanary(t, "127.0.0.1:0")
	v6, err := net.Listen("tcp", fmt.Sprintf("[::1]:%d", v4.addr().Port()))
	if err == nil {
		defer v6.Close()
	}
	dns := newDNS(t, func(_ string, ipv6 bool) ([]netip.Addr, bool) {
		if ipv6 {
			return []netip.Addr{netip.IPv6Loopback()}, true
		}
		return []netip.Addr{loopback(1)}, true
	})
	d := NewDirect(DirectConfig{Policy: newPolicy(t, Rules{}), DialDNS: dns.dial})
	for _, spelling := range spellings() {
		// As a device's own library would send it, and as a hostile one may.
		var targets []wire.Addr
		if target, err := wire.AddrFromHostPort(spelling, v4.addr().Port()); err == nil {
			targets = append(targets, target)
		}
		targets = append(targets, wire.Addr{Name: spelling, Port: v4.addr().Port()})
		if ip, err := netip.ParseAddr(spelling); err == nil {
			targets = append(targets, wire.Addr{IP: ip, Port: v4.addr().Port()})
		}
		for _, target := range targets {
			if target.Name == "" && !target.IP.IsValid() {
				continue
			}
			conn, err := d.Dial(t.Context(), target)
			if err == nil {
				conn.Close()
				t.Errorf("%q (%v) was dialled", spelling, target)
			}
		}
	}
	v4.wantUntouched(t)
	if v6 != nil {
		canary{v6}.wantUntouched(t)
	}
}

func spellings() []string {
	list := []string{
		"localhost", "LOCALHOST", "localhost.", "localhost.localdomain", "ip6-localhost", "ip6-loopback", "foo.localhost",
		"127.0.0.1.nip.io", "localtest.me", "127-0-0-1.sslip.io", "rebind.example.com", "xn--ls8h.example", "_x.example",
		"metadata.google.internal", "metadata", "instance-data", "kubernetes.default.svc", "wiki", "a", "0", "00", "0x0", "0.0",
		"127.1", "127.0.1", "127.0.0.1", "127.0.0.1.", "127.000.000.001", "127.0.0.01", "0127.0.0.1", "0177.0.0.1", "0177.0.0.01",
		"0177.0000.0000.0001", "00177.1", "0x7f.0.0.1", "0x7F.0x0.0x0.0x1", "0x7f.1", "0x7f000001", "0x7F000001", "0X7f000001",
		"0x0000007f.1", "0x7f.00.0.0x1", "2130706433", "02130706433", "017700000001", "0017700000001", "2130706433.", "4294967295",
		"0.0.0.0", "0.0.0.1", "0.0.0.0.", "000.000.000.000", "0x00000000", "127.0.0.1:80", "[127.0.0.1]", "127.0.0.1%25lo",
		"127.0.0.256", "127.0.0.1/8", " 127.0.0.1", "127.0.0.1 ", "127.0.0.1\x00.example.com", "127.0.0.1\n", "127。0。0。1",
		"127．0．0．1", "１２７.0.0.1", "①②⑦.⓪.⓪.①", "localhost\u200b", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "127.0.0.1#@example.com", "example.com@127.0.0.1",
		"::1", "[::1]", "0:0:0:0:0:0:0:1", "0000:0000:0000:0000:0000:0000:0000:0001", "::0:1", "::", "0::", "::ffff:127.0.0.1",
		"::ffff:7f00:1", "::FFFF:127.0.0.1", "0:0:0:0:0:ffff:7f00:0001", "::127.0.0.1", "::7f00:1", "::ffff:0:127.0.0.1",
		"::ffff:0:0:7f00:1", "64:ff9b::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "2002:7f00:0001::1",
		"2001:0:7f00:1::", "2001:0:0:0:0:0:80ff:fffe", "fe80::1", "fe80::1%lo", "fe80::1%25lo", "::1%lo", "::1%0", "fec0::1", "ff01::1",
		"ff02::1", "fc00::1", "fd00::1", "fd00:ec2::254", "100::1", "::ffff:0.0.0.0", "::ffff:10.0.0.1", "::ffff:169.254.169.254",
		"::a9fe:a9fe", "169.254.169.254", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.16689662", "10.0.0.1", "10.1",
		"192.168.1.1", "172.16.0.1", "100.100.100.200", "192.0.0.192", "198.18.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255",
		"", ".", "..", "a..b", "-", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a",
	}
	return list
}

func TestANameForTheUnspecifiedAddressDoesNotReachOwnListeners(t *testing.T) {
	own := newCanary(t, "127.0.0.1:0")
	dns := newDNS(t, func(_ string, ipv6 bool) ([]netip.Addr, bool) {
		if ipv6 {
			return []netip.Addr{netip.IPv6Unspecified(), netip.MustParseAddr("::ffff:0.0.0.0")}, true
		}
		return []netip.Addr{netip.IPv4Unspecified()}, true
	})
	d := NewDirect(DirectConfig{
		Policy:  newPolicy(t, Rules{Allow: prefixes("0.0.0.0/0", "::/0"), Own: []netip.AddrPort{own.addr()}}),
		DialDNS: dns.dial,
	})
	conn, err := d.Dial(t.Context(), wire.Addr{Name: "here.example", Port: own.addr().Port()})
	if err == nil {
		conn.Close()
	}
	wantFailure(t, err, Denied)
	own.wantUntouched(t)
}

func TestANameIsResolvedOnceAndTheCheckedAddressIsDialled(t *testing.T) {
	allowed := newCanary(t, "127.0.0.2:0")
	private := newCanary(t, fmt.Sprintf("127.0.0.1:%d", allowed.addr().Port()))
	// A rebinding zone: the allowed address once, the private one ever after.
	var answered atomic.Int32
	dns := newDNS(t, func(_ string, ipv6 bool) ([]netip.Addr, bool) {
		if ipv6 {
			return nil, true
		}
		if answered.Add(1) == 1 {
			return []netip.Addr{loopback(2)}, true
		}
		return []netip.Addr{loopback(1)}, true
	})
	d := NewDirect(DirectConfig{Policy: newPolicy(t, Rules{Allow: prefixes("127.0.0.2/32")}), DialDNS: dns.dial})
	target := wire.Addr{Name: "rebind.example", Port: allowed.addr().Port()}

	conn, err := d.Dial(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	allowed.wantTouched(t)
	asked := dns.asked()
	slices.Sort(asked)
	if diff := cmp.Diff([]string{"rebind.example. A", "rebind.example. AAAA"}, asked); diff != "" {
		t.Errorf("queries (-want +got):\n%s", diff)
	}

	_, err = d.Dial(t.Context(), target)
	wantFailure(t, err, Denied)
	private.wantUntouched(t)
}

// TestAnAnswerIsKeptForItsTimeAndJudgedEachTime: also by other sessions, and at each
// connect call, so that what was kept reaches nothing that a new answer would not.
func TestAnAnswerIsKeptForItsTimeAndJudgedEachTime(t *testing.T) {
	target := newCanary(t, "127.0.0.2:0")
	zone := func(name string, ipv6 bool) ([]netip.Addr, bool) {
		switch {
		case strings.HasPrefix(name, "none."):
			return nil, false
		case ipv6:
			return nil, true
		case strings.HasPrefix(name, "private."):
			return []netip.Addr{loopback(1)}, true
		case strings.HasPrefix(name, "many."):
			addrs := make([]netip.Addr, maxKnownAddresses+1)
			for i := range addrs {
				addrs[i] = loopback(2)
			}
			return addrs, true
		}
		return []netip.Addr{loopback(2)}, true
	}
	for name, tc := range map[string]struct {
		ttl     uint32
		fails   Failure
		queries int // for two of them
	}{
		"kept.test":           {ttl: 60, queries: 2}, // one for each family
		"private.test":        {ttl: 60, fails: Denied, queries: 2},
		"none.test":           {fails: DNS, queries: 2},
		"once.test":           {ttl: 0, queries: 4}, // it may be another at once
		"many.addresses.test": {ttl: 60, queries: 4},
	} {
		t.Run(name, func(t *testing.T) {
			dns := newDNS(t, zone)
			dns.ttl.Store(tc.ttl)
			d := NewDirect(DirectConfig{Policy: newPolicy(t, Rules{Allow: prefixes("127.0.0.2/32")}), DialDNS: dns.dial})
			for range 2 {
				conn, err := d.ForSession(nil).Dial(t.Context(), wire.Addr{Name: name, Port: target.addr().Port()})
				if tc.fails != "" {
					wantFailure(t, err, tc.fails)
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				conn.Close()
				target.wantTouched(t)
			}
			if asked := dns.asked(); len(asked) != tc.queries {
				t.Errorf("queries: %q, want %d", asked, tc.queries)
			}
		})
	}
}

func TestHowLongAnAnswerIsGood(t *testing.T) {
	records := func(ttls ...uint32) []byte {
		q, err := newQuestion("a.test", dnsmessage.TypeA)
		if err != nil {
			t.Fatal(err)
		}
		var list []dnsmessage.Resource
		for _, ttl := range ttls {
			list = append(list, a("a.test.", ttl, 1))
		}
		return reply(t, q, nil, list...)
	}
	for name, tc := range map[string]struct {
		heard [][]byte
		want  time.Duration
	}{
		"nothing came":                   {nil, 0},
		"there is no address":            {[][]byte{records()}, 0},
		"as long as it says":             {[][]byte{records(30)}, 30 * time.Second},
		"the shortest of several":        {[][]byte{records(50, 20), records(40)}, 20 * time.Second},
		"a minute at most":               {[][]byte{records(86_400)}, time.Minute},
		"not at all":                     {[][]byte{records(60), records(0)}, 0},
		"what is no message tells none":  {[][]byte{{1, 2, 3}, records(30)}, 30 * time.Second},
		"nor does what is cut in itself": {[][]byte{records(30), records(50)[:38]}, 30 * time.Second},
	} {
		_, h := withHeard(t.Context())
		for _, text := range tc.heard {
			h.hear(text)
		}
		if got := h.life(); got != tc.want {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
	ctx, h := withHeard(t.Context())
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	if heardOn(ctx, near) != near { // what it brings is not heard
		t.Error("a stream is another")
	}
	h.hear(records(30))
	if got := h.life(); got != 0 {
		t.Errorf("beside a stream that nobody heard: %v", got)
	}
}

func TestNamesThatTheOperatorDeniesAreNotAskedFor(t *testing.T) {
	dns := newDNS(t, func(string, bool) ([]netip.Addr, bool) { return []netip.Addr{loopback(2)}, true })
	d := NewDirect(DirectConfig{
		Policy:  newPolicy(t, Rules{Allow: prefixes("127.0.0.2/32"), DenyNames: []string{"bad.test"}}),
		DialDNS: dns.dial,
	})
	for _, name := range []string{"bad.test", "very.bad.test"} {
		target := wire.Addr{Name: name, Port: 80}
		_, err := d.Dial(t.Context(), target)
		wantFailure(t, err, Denied)
		_, _, err = d.DialPacket(t.Context(), target)
		wantFailure(t, err, Denied)
		_, err = d.Resolve(t.Context(), target)
		wantFailure(t, err, Denied)
	}
	if asked := dns.asked(); len(asked) > 0 {
		t.Errorf("asked for %q", asked)
	}
}

func TestDeniedAnswersAreDroppedAndTheRestIsDialled(t *testing.T) {
	allowed := newCanary(t, "127.0.0.2:0")
	private := newCanary(t, fmt.Sprintf("127.0.0.1:%d", allowed.addr().Port()))
	dns := newDNS(t, func(_ string, ipv6 bool) ([]netip.Addr, bool) {
		if ipv6 {
			return []netip.Addr{netip.IPv6Loopback(), netip.MustParseAddr("::ffff:127.0.0.1"), netip.MustParseAddr("fd00::1")}, true
		}
		return []netip.Addr{loopback(1), loopback(2), netip.MustParseAddr("10.0.0.1")}, true
	})
	d := NewDirect(DirectConfig{Policy: newPolicy(t, Rules{Allow: prefixes("127.0.0.2/32")}), DialDNS: dns.dial})
	conn, err := d.Dial(t.Context(), wire.Addr{Name: "mixed.example", Port: allowed.addr().Port()})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	allowed.wantTouched(t)
	private.wantUntouched(t)
}

func TestTheAddressOfEachConnectCallIsCheckedAgain(t *testing.T) {
	private := newCanary(t, "127.0.0.1:0")
	d := NewDirect(DirectConfig{Policy: newPolicy(t, Rules{})})
	conn, err := d.connect(t.Context(), private.addr()) // behind the first check
	if err == nil {
		conn.Close()
	}
	if !errors.Is(err, ErrDenied) {
		t.Errorf("connect = %v, want ErrDenied", err)
	}
	private.wantUntouched(t)
}

func TestADeadAddressDoesNotKeepFromALivingOne(t *testing.T) {
	target := newCanary(t, "127.0.0.1:0")
	dns := newDNS(t, func(_ string, ipv6 bool) ([]netip.Addr, bool) {
		if ipv6 {
			return []netip.Addr{netip.IPv6Loopback()}, true // nobody listens there
		}
		return []netip.Addr{loopback(1)}, true
	})
	d := NewDirect(DirectConfig{Policy: newPolicy(t, Rules{Allow: prefixes("127.0.0.0/8", "::1/128")}), DialDNS: dns.dial})
	conn, err := d.Dial(t.Context(), wire.Addr{Name: "dual.example", Port: target.addr().Port()})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	target.wantTouched(t)
}

func TestDialFailures(t *testing.T) {
	free := newCanary(t, "127.0.0.1:0")
	port := free.addr().Port()
	free.Close() // now nobody listens
	dns := newDNS(t, func(name string, _ bool) ([]netip.Addr, bool) { return nil, strings.HasPrefix(name, "empty") })
	d := NewDirect(DirectConfig{Policy: newPolicy(t, Rules{Allow: prefixes("127.0.0.0/8")}), DialDNS: dns.dial})
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	soon, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	for name, tc := range map[string]struct {
		ctx    func() context.Context
		target wire.Addr
		want   Failure
	}{
		"nobody listens":               {t.Context, wire.Addr{IP: loopback(1), Port: port}, Refused},
		"a denied address":             {t.Context, wire.Addr{IP: netip.MustParseAddr("10.0.0.1"), Port: 80}, Denied},
		"a name that does not exist":   {t.Context, wire.Addr{Name: "nowhere.example", Port: 80}, DNS},
		"a name without addresses":     {t.Context, wire.Addr{Name: "empty.example", Port: 80}, DNS},
		"a name that nobody answers":   {func() context.Context { return soon }, wire.Addr{Name: "x.silent", Port: 80}, DNS},
		"nobody waits for the address": {func() context.Context { return cancelled }, wire.Addr{IP: loopback(1), Port: port}, Cancelled},
		"nobody waits for the name":    {func() context.Context { return cancelled }, wire.Addr{Name: "x.silent", Port: 80}, Cancelled},
		"no target at all":             {t.Context, wire.Addr{}, Denied},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := d.Dial(tc.ctx(), tc.target)
			wantFailure(t, err, tc.want)
		})
	}
}

func TestLookupsAreBounded(t *testing.T) {
	dns := newDNS(t, func(string, bool) ([]netip.Addr, bool) { return nil, false })
	d := NewDirect(DirectConfig{Policy: newPolicy(t, Rules{}), DialDNS: dns.dial, MaxLookups: 1})
	d.lookups.all <- struct{}{} // one is under way
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := d.Dial(ctx, wire.Addr{Name: "second.example", Port: 80})
	wantFailure(t, err, DNS)
	if asked := dns.asked(); len(asked) != 0 {
		t.Errorf("asked %v beside the lookup under way", asked)
	}
}

// One session asks for names whose servers never answer. Another's are looked up
// all the same.
func TestASessionsLookupsHaveAShareOfTheirOwn(t *testing.T) {
	dns := newDNS(t, func(string, bool) ([]netip.Addr, bool) { return nil, false })
	hostile := NewDirect(DirectConfig{Policy: newPolicy(t, Rules{}), DialDNS: dns.dial, MaxLookups: 16})
	other := hostile.ForSession(nil)
	ctx, cancel := context.WithCancel(t.Context())
	var asking sync.WaitGroup
	for i := range 64 {
		asking.Go(func() { _, _ = hostile.Dial(ctx, wire.Addr{Name: fmt.Sprintf("%d.silent", i), Port: 80}) })
	}
	for len(hostile.lookups.share) < 2 || len(hostile.lookups.all) < 2 {
		runtime.Gosched()
	}
	_, err := other.Dial(t.Context(), wire.Addr{Name: "nowhere.example", Port: 80})
	wantFailure(t, err, DNS)
	if !slices.Contains(dns.asked(), "nowhere.example. A") {
		t.Error("the other session's name was not asked for")
	}
	if under := len(hostile.lookups.all); under > 2 {
		t.Errorf("%d of 16 lookups are one session's, want 2", under)
	}
	cancel()
	asking.Wait()
}

func TestALookupEndsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		release := make(chan struct{})
		defer close(release)
		d := NewDirect(DirectConfig{Policy: newPolicy(t, Rules{}), DialDNS: func(context.Context, string, string) (net.Conn, error) {
			<-release // whatever the host's configuration says of time-outs
			return nil, errors.New("no name server")
		}})
		began := time.Now()
		_, err := d.Dial(t.Context(), wire.Addr{Name: "x.example", Port: 80})
		wantFailure(t, err, DNS)
		if took := time.Since(began); took != lookupTimeout || len(d.lookups.all) != 0 || len(d.lookups.share) != 0 {
			t.Errorf("the lookup took %v, want %v; %d and %d places are taken", took, lookupTimeout, len(d.lookups.all), len(d.lookups.share))
		}
	})
}

func TestASilentNameServerLeavesTimeForTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		resolver := newResolver(func(context.Context, string, string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			t.Cleanup(func() { theirs.Close() })
			return ours, nil
		})
		began := time.Now()
		conn, err := resolver.Dial(t.Context(), "udp", "192.0.2.1:53")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Read(make([]byte, 1)); err == nil || 2*time.Since(began) >= lookupTimeout {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestErrorsOfConnectCallsAreClassified(t *testing.T) {
	op := func(errno syscall.Errno) error {
		return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
	}
	for _, tc := range []struct {
		err  error
		want Failure
	}{
		{op(syscall.ECONNREFUSED), Refused},
		{op(syscall.ECONNRESET), Refused},
		{op(syscall.ENETUNREACH), NetUnreachable},
		{op(syscall.EAFNOSUPPORT), NetUnreachable},
		{op(syscall.EADDRNOTAVAIL), NetUnreachable},
		{op(syscall.EACCES), NetUnreachable},
		{op(syscall.EPERM), NetUnreachable},
		{op(syscall.EHOSTUNREACH), HostUnreachable},
		{op(syscall.ETIMEDOUT), Timeout},
		{context.DeadlineExceeded, Timeout},
		{context.Canceled, Cancelled},
		{&net.DNSError{IsTimeout: true}, DNS},
		{op(syscall.EMFILE), Internal},
		{&net.OpError{Op: "dial", Err: ErrDenied}, Denied},
	} {
		if got := classify(tc.err); got != tc.want {
			t.Errorf("classify(%v) = %s, want %s", tc.err, got, tc.want)
		}
	}
}

func TestFamiliesTakeTurns(t *testing.T) {
	parse := func(list ...string) (addrs []netip.AddrPort) {
		for _, text := range list {
			addrs = append(addrs, netip.AddrPortFrom(netip.MustParseAddr(text), 1))
		}
		return addrs
	}
	for name, tc := range map[string]struct{ in, want []netip.AddrPort }{
		"IPv6 preferred": {parse("::1", "::2", "::3", "1.1.1.1"), parse("::1", "1.1.1.1", "::2", "::3")},
		"IPv4 preferred": {parse("1.1.1.1", "::1", "::2"), parse("1.1.1.1", "::1", "::2")},
		"one family":     {parse("1.1.1.1", "1.1.1.2"), parse("1.1.1.1", "1.1.1.2")},
	} {
		if got := alternate(tc.in); !slices.Equal(got, tc.want) {
			t.Errorf("%s: %v, want %v", name, got, tc.want)
		}
	}
}
