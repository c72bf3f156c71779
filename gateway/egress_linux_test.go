package gateway_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"
	"golang.org/x/sys/unix"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
	"github.com/httvps/httvps/test/sstest"
)

// alone is in the environment of a test that runs in a network of its own.
const alone = "HTTVPS_TEST_ALONE"

// inOwnNetwork runs the test once more, in a process with a network of its own where
// every address there is leads to this host, and reports whether this is that process.
func inOwnNetwork(t *testing.T) bool {
	t.Helper()
	if os.Getenv(alone) == t.Name() {
		// Whatever anybody connects to is a listener of this process, or refused.
		for _, line := range []string{"link set lo up", "route add local 0.0.0.0/0 dev lo", "-6 route add local ::/0 dev lo"} {
			if out, err := exec.CommandContext(t.Context(), "ip", strings.Fields(line)...).CombinedOutput(); err != nil {
				t.Fatalf("ip %s: %v\n%s", line, err, out)
			}
		}
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+regexp.QuoteMeta(t.Name())+"$", "-test.v")
	cmd.Env = append(os.Environ(), alone+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getegid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	switch {
	case err == nil:
		t.Logf("%s", out)
	case !errors.As(err, &failed) && (os.Getenv("CI") != "true" || os.Geteuid() != 0):
		t.Skipf("no network namespace: %v", err)
	default:
		t.Errorf("%v\n%s", err, out)
	}
	return false
}

// trap listens on one port of every address, over TCP and UDP, and takes down what it
// was reached by. Reached by a public address it answers, as any server would.
type trap struct {
	port uint16

	mu     sync.Mutex // guards the following field
	caught map[string]int
	public map[string]int
}

// The public addresses in these tests.
var public = []netip.Addr{netip.MustParseAddr("8.8.8.8"), netip.MustParseAddr("2606:4700::1111")}

func newTrap(t *testing.T) *trap {
	t.Helper()
	l, err := net.Listen("tcp", "[::]:0")
	if err != nil {
		t.Fatal(err)
	}
	trap := &trap{port: uint16(l.Addr().(*net.TCPAddr).Port), caught: make(map[string]int), public: make(map[string]int)}
	packets, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv6unspecified, Port: int(trap.port)})
	if err != nil {
		t.Fatal(err)
	}
	raw, err := packets.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1) })
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			trap.note("tcp", netip.MustParseAddrPort(conn.LocalAddr().String()).Addr())
			_, _ = io.WriteString(conn, "hello")
			_ = conn.Close()
		}
	})
	serving.Go(func() {
		buf, control := make([]byte, 1<<16), make([]byte, 256)
		for {
			_, n, _, _, err := packets.ReadMsgUDPAddrPort(buf, control)
			if err != nil {
				return
			}
			messages, err := unix.ParseSocketControlMessage(control[:n])
			if err != nil || len(messages) != 1 || len(messages[0].Data) < 16 {
				trap.note("udp", netip.Addr{})
				continue
			}
			trap.note("udp", netip.AddrFrom16([16]byte(messages[0].Data[:16])))
		}
	})
	t.Cleanup(func() {
		_, _ = l.Close(), packets.Close()
		serving.Wait()
	})
	return trap
}

func (c *trap) note(network string, by netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	by = by.Unmap()
	if slices.Contains(public, by) {
		c.public[network]++
		return
	}
	c.caught[network+" "+by.String()]++
}

// reached is how often it was by a public address.
func (c *trap) reached(network string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.public[network]
}

func (c *trap) wantUntouched(t *testing.T) {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.caught) > 0 {
		t.Errorf("somebody was here: %v", c.caught)
	}
}

// hostileZone is a name server for all names. Most are this host in all the ways there
// are; under mixed.test they are besides public ones, under rebind.test in turn one or
// the other, under nowhere.test nothing.
type hostileZone struct{ asked atomic.Int64 }

func (z *hostileZone) answer(name string, kind dnsmessage.Type) (addrs []string, exists bool) {
	private4, private6 := []string{"127.0.0.1", "169.254.169.254", "10.0.0.1", "0.0.0.0"}, []string{"::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "fd00::1", "fe80::1"}
	private, open := private4, "8.8.8.8"
	if kind == dnsmessage.TypeAAAA {
		private, open = private6, "2606:4700::1111"
	}
	switch {
	case strings.HasSuffix(name, "nowhere.test."):
		return nil, false
	case strings.HasSuffix(name, "mixed.test."):
		return append(private, open), true
	case strings.HasSuffix(name, "rebind.test."):
		if z.asked.Add(1)%2 == 1 {
			return []string{open}, true
		}
	}
	return private, true
}

func (z *hostileZone) serve(t *testing.T) {
	t.Helper()
	conn, err := net.ListenPacket("udp", "[::]:53") // the host's name servers are here, whoever they are
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				return
			}
			if text := z.reply(buf[:n]); text != nil {
				_, _ = conn.WriteTo(text, from)
			}
		}
	})
	t.Cleanup(func() { conn.Close(); serving.Wait() })
}

func (z *hostileZone) reply(text []byte) []byte {
	var m dnsmessage.Message
	if m.Unpack(text) != nil || len(m.Questions) != 1 {
		return nil
	}
	q := m.Questions[0]
	addrs, exists := z.answer(strings.ToLower(q.Name.String()), q.Type)
	answer := dnsmessage.Message{Header: dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true}, Questions: m.Questions}
	if !exists {
		answer.RCode = dnsmessage.RCodeNameError
	}
	for _, addr := range addrs {
		ip := netip.MustParseAddr(addr)
		r := dnsmessage.Resource{Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET}} // for 0 s
		if q.Type == dnsmessage.TypeA {
			r.Body = &dnsmessage.AResource{A: ip.As4()}
		} else {
			r.Body = &dnsmessage.AAAAResource{AAAA: ip.As16()}
		}
		answer.Answers = append(answer.Answers, r)
	}
	packed, err := answer.Pack()
	if err != nil {
		return nil
	}
	return packed
}

// ways are the upstreams that go anywhere, over a network that is all this host. The
// Shadowsocks server connects to whatever it is told.
var ways = map[string]func(*testing.T, *gateway.Config){
	"direct": func(*testing.T, *gateway.Config) {},
	"outline": func(t *testing.T, c *gateway.Config) {
		t.Helper()
		server := sstest.StartServer(t, "aes-256-gcm", poolPassword, sstest.Options{})
		secret := base64.RawURLEncoding.EncodeToString([]byte("aes-256-gcm:" + poolPassword))
		c.Upstream.Mode, c.Upstream.Outline.Source, c.Upstream.Outline.Probe = "outline", "keys", ""
		c.Upstream.Outline.KeysFile = filepath.Join(t.TempDir(), "keys")
		if err := os.WriteFile(c.Upstream.Outline.KeysFile, []byte("ss://"+secret+"@"+server.Addr.String()+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		c.Upstream.Outline.Resolvers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:53")}
	},
}

// guarded is a service with the built-in policy and no limits in the way.
func guarded(t *testing.T, way func(*testing.T, *gateway.Config)) *service {
	t.Helper()
	return newService(t, func(c *gateway.Config) {
		c.Upstream.Allow = nil
		c.Limits.OpenBurst, c.Limits.OpenRate = 65_536, 65_536
		way(t, c)
	})
}

// The spellings of targets that no device may reach, by what becomes of them when a
// device asks for them through the SDK.
var spellings = map[wire.Code][]string{
	wire.CodePolicyDenied: {
		// Addresses, as they are and in other coats.
		"127.0.0.1", "127.0.0.1.", "127.0.0.2", "127.255.255.254", "0.0.0.0", "0.0.0.1", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255",
		"100.100.100.200", "169.254.0.1", "169.254.169.254", "169.254.169.254.", "169.254.170.2", "172.16.0.1", "172.31.255.255", "192.0.0.1", "192.0.0.192", "192.0.2.1",
		"192.88.99.1", "192.168.0.1", "192.168.255.255", "198.18.0.1", "198.19.255.255", "198.51.100.1", "203.0.113.1", "224.0.0.1", "239.255.255.250", "240.0.0.1",
		"255.255.255.254", "255.255.255.255", "::ffff:127.0.0.1", "::ffff:7f00:1", "::FFFF:127.0.0.1", "0:0:0:0:0:ffff:7f00:0001", "::ffff:169.254.169.254", "::ffff:a9fe:a9fe",
		"::ffff:10.0.0.1", "::ffff:0.0.0.0", "::ffff:127.0.0.1%lo", "::ffff:0:127.0.0.1", "::ffff:0:0:7f00:1", "64:ff9b::127.0.0.1", "64:ff9b::7f00:1", "64:ff9b::169.254.169.254", "64:ff9b::a00:1",
		"64:ff9b:1::7f00:1", "64:ff9b:1::a9fe:a9fe", "2002:7f00:1::", "2002:7f00:0001::1", "2002:a9fe:a9fe::", "2002:a00:1::1", "2001:0:7f00:1::", "2001:0:0:0:0:0:80ff:fffe",
		"2001:2::1", "2001:10::1", "2001:20::1", "2001:db8::1", "3fff::1", "fe80::1", "fe80::a9fe:a9fe", "febf::1", "fec0::1", "fc00::1", "fd00::1", "fd00:ec2::254", "fd20:ce::254",
		"ff01::1", "ff02::1", "ff05::1:3", "ff0e::1", "100::1", "5f00::1", "4000::1", "e000::1", "1::1",
		// Names that stand for them.
		"localhost", "localhost.", "LocalHost", "LOCALHOST", "foo.localhost", "localhost.localdomain", "ip6-localhost", "ip6-loopback", "127.0.0.1.nip.io", "127-0-0-1.sslip.io",
		"0x7f.1.example.com", "localtest.me", "metadata.google.internal", "METADATA.google.internal.", "metadata", "instance-data", "kubernetes.default.svc", "xn--ls8h.example",
		"xn--lcalhost-4za.example", "_x.example", "wiki", "a", "1.0.0.127.in-addr.arpa",
	},
	wire.CodeRefused: {
		// Numbers that resolvers or C libraries have been known to take for addresses.
		"0", "00", "0x0", "0.0", "127.1", "127.0.1", "127.000.000.001", "127.0.0.01", "0127.0.0.1", "0177.0.0.1", "0177.0.0.01", "0177.0000.0000.0001", "00177.1", "0x7f.0.0.1",
		"0x7F.0x0.0x0.0x1", "0x7f.1", "0x7f000001", "0x7F000001", "0X7f000001", "0x0000007f.1", "0x7f.00.0.0x1", "2130706433", "02130706433", "017700000001", "0017700000001",
		"2130706433.", "4294967295", "0x00000000", "000.000.000.000", "0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.16689662", "0xa9.0xfe.0xa9.0xfe", "025177524776", "10.1",
		"127.0.0.256", "1.2.3.4.5", "127.0.0.1..",
		// IPv4 inside of IPv6, and zones.
		"::", "0::", "::1", "0:0:0:0:0:0:0:1", "0000:0000:0000:0000:0000:0000:0000:0001", "::0:1", "::127.0.0.1", "::7f00:1", "::a9fe:a9fe", "::10.0.0.1",
		"fe80::1%lo", "fe80::1%25lo", "::1%lo", "::1%0", "127.0.0.1%lo", "127.0.0.1%25lo",
		// What parsers of other things may have let through.
		"127.0.0.1:80", "[127.0.0.1]", "[::1]", "127.0.0.1/8", " 127.0.0.1", "127.0.0.1 ", "127.0.0.1\x00.example.com", "127.0.0.1\n", "127.0.0.1#@example.com", "example.com@127.0.0.1",
		"127。0。0。1", "127．0．0．1", "１２７.0.0.1", "①②⑦.⓪.⓪.①", "ⓛⓞⓒⓐⓛⓗⓞⓢⓣ", "localhost\u200b", "lоcalhost", "", ".", "..", "a..b", ".localhost", strings.Repeat("a", 64), strings.Repeat("a.", 127) + "a",
	},
	wire.CodeDNSFail: {"nowhere.test", "127.0.0.1.nowhere.test"},
}

// TestNoSpellingReachesAnything that it should not: over TCP and UDP, through either
// upstream, as the SDK writes it and as a hostile device does.
func TestNoSpellingReachesAnything(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	trap, zone := newTrap(t), &hostileZone{}
	zone.serve(t)
	for way, change := range ways {
		t.Run(way, func(t *testing.T) {
			s := guarded(t, change)
			d := s.enrol(t)
			tun := d.connect(t, s.url, s.trust)
			reach(t, tun, trap)
			asked := make(map[wire.Addr]wire.Code)
			for want, list := range spellings {
				for _, spelling := range list {
					target, err := wire.AddrFromHostPort(spelling, trap.port)
					if err != nil {
						if want != wire.CodeRefused {
							t.Errorf("the SDK does not take %q, want %v: %v", spelling, want, err)
						}
						continue
					}
					asked[target] = want
					wantCode(t, spelling, want, open(t, tun, target))
					wantCode(t, "udp "+spelling, want, openFlow(t, tun, target))
				}
			}
			sendAll(t, s, tun, asked)
			d.wantRefusals(t, s, trap.port)
		})
		trap.wantUntouched(t)
	}
	n := 0
	for _, list := range spellings {
		n += len(list)
	}
	t.Logf("%d spellings", n)
}

// reach shows that the trap would see somebody: by its public addresses it is reached.
func reach(t *testing.T, tun *tunnel, trap *trap) {
	t.Helper()
	tcp, udp := trap.reached("tcp"), trap.reached("udp")
	for _, target := range []wire.Addr{{IP: public[0], Port: trap.port}, {IP: public[1], Port: trap.port}, {Name: "mixed.test", Port: trap.port}} {
		stream, err := tun.Open(t.Context(), target)
		if err != nil {
			t.Fatalf("%v: %v", target, err)
		}
		if got, err := io.ReadAll(stream); string(got) != "hello" || err != nil {
			t.Fatalf("%v: %q, %v", target, got, err)
		}
		_ = stream.Close()
		flow, err := tun.OpenFlow(t.Context(), wire.KindUDP, target)
		if err == nil {
			err = flow.WaitOpened(t.Context())
		}
		if err == nil {
			err = flow.Send(wire.Addr{}, []byte("x"))
		}
		if err != nil {
			t.Fatalf("udp %v: %v", target, err)
		}
		udp++
		want(t, "the datagram", func() bool { return trap.reached("udp") == udp })
		flow.Reset(wire.CodeNoError)
	}
	if n := trap.reached("tcp"); n != tcp+3 {
		t.Fatalf("reached %d times, want 3 more than %d", n, tcp)
	}
}

func wantCode(t *testing.T, what string, want wire.Code, err error) {
	t.Helper()
	var refused *mux.StreamError
	if !errors.As(err, &refused) || refused.Code != want {
		t.Errorf("%q: %v, want %v", what, err, want)
	}
}

func open(t *testing.T, tun *tunnel, target wire.Addr) error {
	t.Helper()
	stream, err := tun.Open(t.Context(), target)
	if err != nil {
		return err
	}
	// With outline a stream is open before anybody knows; what comes says more.
	_, err = io.ReadAll(stream)
	_ = stream.Close()
	return errors.Join(errors.New("it was opened"), err)
}

func openFlow(t *testing.T, tun *tunnel, target wire.Addr) error {
	t.Helper()
	flow, err := tun.OpenFlow(t.Context(), wire.KindUDP, target)
	if err != nil {
		return err
	}
	defer flow.Reset(wire.CodeNoError)
	if err := flow.WaitOpened(t.Context()); err != nil {
		return err
	}
	_ = flow.Send(wire.Addr{}, []byte("x"))
	return errors.New("it was opened")
}

// sendAll sends a datagram to each target on flows for any peer, and waits until all
// were dropped.
func sendAll(t *testing.T, s *service, tun *tunnel, targets map[wire.Addr]wire.Code) {
	t.Helper()
	dropped := func() (n int) {
		for line := range strings.Lines(s.metrics(t)) {
			var value float64
			if name, text, _ := strings.Cut(strings.TrimSpace(line), "} "); strings.HasPrefix(name, `httvps_gateway_datagrams_dropped_total{reason="d`) { // denied, dns
				if _, err := fmt.Sscan(text, &value); err != nil {
					t.Fatal(err)
				}
				n += int(value)
			}
		}
		return n
	}
	var flow *mux.Flow
	sent, before := 0, dropped()
	for target := range targets {
		if sent%16 == 0 { // fewer than wait for look-ups at once
			want(t, "the datagrams are dropped", func() bool { return dropped() == before+sent })
			if flow != nil {
				flow.Reset(wire.CodeNoError)
			}
			var err error
			if flow, err = tun.OpenFlow(t.Context(), wire.KindUDPAny, wire.Addr{}); err != nil {
				t.Fatal(err)
			}
			if err := flow.WaitOpened(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if err := flow.Send(target, []byte("x")); err != nil {
			t.Fatal(err)
		}
		sent++
	}
	want(t, "the last datagrams are dropped", func() bool { return dropped() == before+sent })
}

// wantRefusals writes every spelling as a hostile device may, without the SDK's care: as
// a name, whatever it is, and as the bytes of an address.
func (d device) wantRefusals(t *testing.T, s *service, port uint16) {
	t.Helper()
	conn, _ := d.knock(t, s.url, s.trust)
	defer conn.Close()
	var targets []wire.Addr
	for _, list := range spellings {
		for _, spelling := range list {
			if spelling != "" && len(spelling) <= wire.MaxName {
				targets = append(targets, wire.Addr{Name: spelling, Port: port})
			}
			if ip, err := netip.ParseAddr(spelling); err == nil {
				targets = append(targets, wire.Addr{IP: ip.WithZone(""), Port: port}, wire.Addr{IP: netip.AddrFrom16(ip.As16()), Port: port})
			}
		}
	}
	id := uint64(1)
	for batch := range slices.Chunk(targets, 50) {
		waiting := make(map[uint64]string)
		for _, target := range batch {
			for _, kind := range []wire.Kind{wire.KindTCP, wire.KindUDP} {
				ask := wire.Open{Kind: kind, Target: target}
				if kind == wire.KindTCP {
					ask.RecvWindow = 1
				}
				if err := conn.WriteMessage(wire.AppendOpen(nil, id, ask)); err != nil {
					t.Fatal(err)
				}
				waiting[id] = fmt.Sprintf("%v %q", kind, target)
				id += 2
			}
		}
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		for len(waiting) > 0 {
			message, err := conn.ReadMessage(nil)
			if err != nil {
				t.Fatalf("%v; %d requests have no answer: %v", err, len(waiting), waiting)
			}
			for f, err := range wire.Frames(message) {
				switch {
				case err != nil:
					t.Fatal(err)
				case f.Type == wire.TypeReset:
					code, err := wire.ParseReset(f.Payload)
					if err != nil || code != wire.CodeRefused && code != wire.CodePolicyDenied && code != wire.CodeDNSFail {
						t.Errorf("%s: %v, %v", waiting[f.Stream], code, err)
					}
					delete(waiting, f.Stream)
				case f.Type == wire.TypeOpened:
					t.Errorf("%s was opened", waiting[f.Stream])
					delete(waiting, f.Stream)
				case f.Type == wire.TypePing:
					if err := conn.WriteMessage(wire.AppendPong(nil, [8]byte(f.Payload))); err != nil {
						t.Fatal(err)
					}
				case f.Type == wire.TypeClose:
					t.Fatalf("the gateway ends the session: %x", f.Payload)
				}
			}
		}
	}
}

// opens is how often names are opened whose addresses change.
func opens() int {
	if os.Getenv("HTTVPS_SOAK") == "1" {
		return 10_000
	}
	return 500
}

// TestRebindingNamesReachNothing: names that are public when they are asked for and this
// host when they are asked for again, with all mixtures of families, are opened over and
// over; those that are opened lead to the public address.
func TestRebindingNamesReachNothing(t *testing.T) {
	if !inOwnNetwork(t) {
		return
	}
	trap, zone := newTrap(t), &hostileZone{}
	zone.serve(t)
	for way, change := range ways {
		t.Run(way, func(t *testing.T) {
			s := guarded(t, change)
			tun := s.enrol(t).connect(t, s.url, s.trust)
			before := trap.reached("tcp")
			var opened, denied, other atomic.Int64
			next := make(chan int)
			var opening sync.WaitGroup
			for range 32 {
				opening.Go(func() {
					for i := range next {
						name := fmt.Sprintf("n%d.rebind.test", i%100)
						if i%10 == 0 {
							name = fmt.Sprintf("n%d.mixed.test", i)
						}
						stream, err := tun.Open(context.WithoutCancel(t.Context()), wire.Addr{Name: name, Port: trap.port})
						var refused *mux.StreamError
						switch {
						case err == nil:
							if got, err := io.ReadAll(stream); string(got) != "hello" || err != nil {
								t.Errorf("%s: %q, %v", name, got, err)
							}
							_ = stream.Close()
							opened.Add(1)
						case errors.As(err, &refused) && refused.Code == wire.CodePolicyDenied:
							denied.Add(1)
						default:
							other.Add(1)
							t.Errorf("%s: %v", name, err)
						}
					}
				})
			}
			for i := range opens() {
				next <- i
			}
			close(next)
			opening.Wait()
			t.Logf("%d opened, %d denied", opened.Load(), denied.Load())
			if opened.Load() == 0 || denied.Load() == 0 && way == "direct" {
				t.Errorf("%d opened and %d denied, want some of each", opened.Load(), denied.Load())
			}
			if n := trap.reached("tcp") - before; n < int(opened.Load()) { // more where two addresses were tried at once
				t.Errorf("the public address was reached %d times, by %d streams", n, opened.Load())
			}
		})
		trap.wantUntouched(t)
	}
}
