package upstream

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/gateway/internal/shadowsocks"
	"github.com/httvps/httvps/sdk/go/wire"
	"github.com/httvps/httvps/test/sstest"
)

const (
	outlinePassword = "correct horse battery staple"
	outlinePatience = 30 * time.Second
)

// outlineRig is an Outline over loopback.
type outlineRig struct {
	*Outline
	dns *dnsServer
	web wire.Addr // what probes ask
}

func serverAt(id string, addr netip.AddrPort) Server {
	return Server{ID: id, Host: addr.Addr().String(), Port: addr.Port(), Cipher: shadowsocks.DefaultCipher, Password: outlinePassword}
}

// zone answers for a.test and what else it is told.
func zone(extra map[string]string) func(string, bool) ([]netip.Addr, bool) {
	return func(name string, ipv6 bool) ([]netip.Addr, bool) {
		text, known := extra[strings.TrimSuffix(name, ".")]
		if !known {
			text = map[string]string{"a.test": "127.0.0.1", "private.test": "10.0.0.1"}[strings.TrimSuffix(name, ".")]
		}
		if text == "" {
			return nil, false
		}
		ip := netip.MustParseAddr(text)
		if ip.Is6() != ipv6 {
			return nil, true
		}
		return []netip.Addr{ip}, true
	}
}

func newOutlineRig(t *testing.T, change func(*OutlineConfig), servers ...Server) *outlineRig {
	t.Helper()
	r := &outlineRig{dns: newDNS(t, zone(nil))}
	l, err := net.Listen("tcp", "127.0.0.1:0")
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
			serving.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(outlinePatience))
				_, _ = conn.Read(make([]byte, 1000))
				_, _ = io.WriteString(conn, "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
			})
		}
	})
	t.Cleanup(func() { l.Close(); serving.Wait() })
	web := l.Addr().(*net.TCPAddr).AddrPort()
	r.web = wire.Addr{IP: web.Addr(), Port: web.Port()}
	cfg := OutlineConfig{
		Policy: newPolicy(t, Rules{Allow: prefixes("127.0.0.0/8"), Ports: []uint16{25}}), Assigner: NewStatic(servers), Servers: servers,
		Resolvers: []netip.AddrPort{r.dns.conn.LocalAddr().(*net.UDPAddr).AddrPort()},
	}
	if change != nil {
		change(&cfg)
	}
	if r.Outline, err = NewOutline(cfg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // it ends in the cleanup, after what the test closes
	var running sync.WaitGroup
	running.Go(func() { r.Run(ctx) })
	t.Cleanup(func() { cancel(); running.Wait() })
	return r
}

func (r *outlineRig) session(t *testing.T, id byte) *OutlineSession {
	t.Helper()
	s := r.ForSession([16]byte{id}, nil)
	t.Cleanup(s.Close)
	return s
}

func mustDial(t *testing.T, d Dialer, target wire.Addr) Conn {
	t.Helper()
	conn, err := d.Dial(t.Context(), target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(outlinePatience))
	return conn
}

// ask sends a word to an echo and reads it back.
func ask(conn Conn) error {
	if _, err := conn.Write([]byte("hello")); err != nil {
		return err
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil {
		return err
	}
	if string(got) != "hello" {
		return errors.New("other bytes")
	}
	return nil
}

func TestStreamsLeaveThroughAShadowsocksServer(t *testing.T) {
	libev := sstest.StartLibev(t, shadowsocks.DefaultCipher, outlinePassword)
	r := newOutlineRig(t, nil, serverAt("one", libev.Addr))
	target := sstest.ServeTCP(t, sstest.Echo)
	for name, to := range map[string]wire.Addr{"address": target, "name": {Name: "a.test", Port: target.Port}} {
		if err := ask(mustDial(t, r.session(t, 1), to)); err != nil {
			t.Errorf("to an %s: %v", name, err)
		}
	}
}

// TestWhoResolvesANameIsDecidedByTheServer: a managed server gets it, another gets
// an address that was looked up through it and judged.
func TestWhoResolvesANameIsDecidedByTheServer(t *testing.T) {
	target := sstest.ServeTCP(t, sstest.Echo)
	deny := newPolicy(t, Rules{Allow: prefixes("127.0.0.0/8"), Deny: prefixes("192.0.2.0/24")})
	for name, tc := range map[string]struct {
		managed bool
		policy  *Policy
		want    string
	}{
		"managed":                           {managed: true, want: wire.Addr{Name: "a.test", Port: target.Port}.String()},
		"managed, but addresses are denied": {managed: true, policy: deny, want: target.String()},
		"any other":                         {want: target.String()},
	} {
		t.Run(name, func(t *testing.T) {
			far := sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{
				Dial: func(string) (net.Conn, error) { return net.Dial("tcp", target.String()) },
			})
			server := serverAt("one", far.Addr)
			server.Managed = tc.managed
			r := newOutlineRig(t, func(c *OutlineConfig) {
				if tc.policy != nil {
					c.Policy = tc.policy
				}
			}, server)
			if err := ask(mustDial(t, r.session(t, 1), wire.Addr{Name: "a.test", Port: target.Port})); err != nil {
				t.Fatal(err)
			}
			if got := far.Targets(); !slices.Equal(got, []string{tc.want}) {
				t.Errorf("the server was asked for %q, want %q", got, tc.want)
			}
		})
	}
}

func TestWhatThePolicyDeniesReachesNoServer(t *testing.T) {
	var asked atomic.Int64
	far := sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{
		Serve: func(*sstest.Server, *net.TCPConn) { asked.Add(1) },
	})
	managed := serverAt("managed", far.Addr)
	managed.Managed = true
	for _, server := range []Server{serverAt("one", far.Addr), managed} {
		s := newOutlineRig(t, func(c *OutlineConfig) {
			c.Policy = newPolicy(t, Rules{Allow: prefixes("127.0.0.0/8"), Ports: []uint16{25}, DenyNames: []string{"denied.test"}})
		}, server).session(t, 1)
		targets := []wire.Addr{
			{Name: "denied.test", Port: 80},
			{Name: "very.denied.test", Port: 80},
			{IP: netip.MustParseAddr("10.0.0.1"), Port: 80},
			{IP: netip.MustParseAddr("169.254.169.254"), Port: 80},
			{IP: netip.MustParseAddr("fd00::1"), Port: 80},
			{IP: netip.MustParseAddr("127.0.0.1"), Port: 25},
			{Name: "a.test", Port: 25},
		}
		if !server.Managed {
			targets = append(targets, wire.Addr{Name: "private.test", Port: 80})
		}
		for _, target := range targets {
			_, err := s.Dial(t.Context(), target)
			wantFailure(t, err, Denied)
		}
		_, _, err := s.DialPacket(t.Context(), wire.Addr{Name: "private.test", Port: 80})
		wantFailure(t, err, Denied)
		_, _, err = s.DialPacket(t.Context(), wire.Addr{Name: "denied.test", Port: 80})
		wantFailure(t, err, Denied)
		_, err = s.Resolve(t.Context(), wire.Addr{Name: "private.test", Port: 80})
		wantFailure(t, err, Denied)
		_, err = s.Resolve(t.Context(), wire.Addr{Name: "nowhere.test", Port: 80})
		wantFailure(t, err, DNS)
	}
	if n := asked.Load(); n > 0 {
		t.Errorf("the server was asked %d times", n)
	}
}

// TestHowAConnectionEnds tells the target's ends from the server's.
func TestHowAConnectionEnds(t *testing.T) {
	target := sstest.ServeTCP(t, func(conn *net.TCPConn) {
		word := make([]byte, 5)
		_, _ = io.ReadFull(conn, word)
		switch string(word) {
		case "reset":
			_, _ = conn.Write([]byte("x"))
			_, _ = conn.Read(word[:1])
			_ = conn.SetLinger(0)
		case "after":
			_, _ = io.Copy(io.Discard, conn)
		case "hello":
			_, _ = conn.Write(word)
		}
	})
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refusing := gone.Addr().(*net.TCPAddr).AddrPort()
	gone.Close()
	libev := sstest.StartLibev(t, shadowsocks.DefaultCipher, outlinePassword)
	s := newOutlineRig(t, nil, serverAt("one", libev.Addr)).session(t, 1)

	t.Run("the target ends", func(t *testing.T) {
		conn := mustDial(t, s, target)
		_, _ = conn.Write([]byte("hello"))
		if got, err := io.ReadAll(conn); string(got) != "hello" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("the target refuses", func(t *testing.T) {
		conn := mustDial(t, s, wire.Addr{IP: refusing.Addr(), Port: refusing.Port()})
		_, _ = conn.Write([]byte("hello"))
		_, err := conn.Read(make([]byte, 1))
		wantFailure(t, err, Refused)
	})
	t.Run("the target hears everything and says nothing", func(t *testing.T) {
		far := sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{})
		conn := mustDial(t, newOutlineRig(t, nil, serverAt("one", far.Addr)).session(t, 1), target)
		_, _ = conn.Write([]byte("after all that"))
		_ = conn.CloseWrite()
		if got, err := io.ReadAll(conn); len(got) != 0 || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	})
	for name, answer := range map[string]func(s *sstest.Server, conn *net.TCPConn, w *sstest.Writer){
		"the answer is cut in a chunk": func(_ *sstest.Server, conn *net.TCPConn, w *sstest.Writer) {
			_, _ = conn.Write(w.Chunk([]byte("x"), 1)[:60])
		},
		"the server closes behind a salt": func(s *sstest.Server, conn *net.TCPConn, _ *sstest.Writer) { _, _ = conn.Write(s.Crypt.Salt()) },
		"the answer is not under the key": func(_ *sstest.Server, conn *net.TCPConn, _ *sstest.Writer) { _, _ = conn.Write(make([]byte, 1000)) },
	} {
		t.Run(name, func(t *testing.T) {
			far := sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{Serve: func(s *sstest.Server, conn *net.TCPConn) {
				_, _ = sstest.Target(s.Crypt.NewReader(conn))
				answer(s, conn, s.Crypt.NewWriter(conn, s.Crypt.Salt()))
			}})
			conn := mustDial(t, newOutlineRig(t, nil, serverAt("one", far.Addr)).session(t, 1), target)
			_, _ = conn.Write([]byte("hello"))
			_, err := io.ReadAll(conn)
			wantFailure(t, err, EgressLost)
		})
	}
	t.Run("the target resets", func(t *testing.T) {
		far := sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{Serve: func(s *sstest.Server, conn *net.TCPConn) {
			_, _ = sstest.Target(s.Crypt.NewReader(conn))
			_, _ = s.Crypt.NewWriter(conn, s.Crypt.Salt()).Write([]byte("x"))
			_, _ = conn.Read(make([]byte, 1))
			_ = conn.SetLinger(0)
		}})
		conn := mustDial(t, newOutlineRig(t, nil, serverAt("one", far.Addr)).session(t, 1), target)
		_, _ = conn.Write([]byte("hello"))
		_, err := io.ReadFull(conn, make([]byte, 1))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Write([]byte("more"))
		_, err = conn.Read(make([]byte, 1))
		var failed *Error
		if !errors.Is(err, syscall.ECONNRESET) || errors.As(err, &failed) {
			t.Errorf("Read = %v, want a plain reset", err)
		}
	})
	t.Run("the server dies between two chunks", func(t *testing.T) {
		far := sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{})
		echo := sstest.ServeTCP(t, sstest.Echo)
		conn := mustDial(t, newOutlineRig(t, nil, serverAt("one", far.Addr)).session(t, 1), echo)
		if err := ask(conn); err != nil {
			t.Fatal(err)
		}
		far.Close()
		_, err := conn.Read(make([]byte, 1))
		wantFailure(t, err, EgressLost)
	})
}

// TestASessionGoesOverToAnotherServer when its own is killed under load: new
// streams work again within 3 s, and those that were open end with the word for it.
func TestASessionGoesOverToAnotherServer(t *testing.T) {
	one := sstest.StartLibev(t, shadowsocks.DefaultCipher, outlinePassword)
	two := sstest.StartLibev(t, shadowsocks.DefaultCipher, outlinePassword)
	var switches atomic.Int64
	r := newOutlineRig(t, func(c *OutlineConfig) { c.Switched = func() { switches.Add(1) } }, serverAt("one", one.Addr), serverAt("two", two.Addr))
	echo := sstest.ServeTCP(t, sstest.Echo)
	steady := sstest.ServeTCP(t, func(conn *net.TCPConn) { // 1.6 MB/s each: a load, and not the end of a small machine
		for range time.Tick(10 * time.Millisecond) {
			if _, err := conn.Write(make([]byte, 16<<10)); err != nil {
				return
			}
		}
	})

	const sessions, bulk = 10, 3
	type open struct {
		session *OutlineSession
		conns   []Conn
	}
	var all []open
	for i := range sessions {
		s := r.session(t, byte(i))
		o := open{session: s}
		for range bulk {
			conn := mustDial(t, s, steady)
			_, _ = conn.Write([]byte("go"))
			o.conns = append(o.conns, conn)
		}
		all = append(all, o)
	}
	var lost, other atomic.Int64
	var reading sync.WaitGroup
	for _, o := range all {
		for _, conn := range o.conns {
			reading.Go(func() {
				_, err := io.Copy(io.Discard, conn)
				var failed *Error
				if errors.As(err, &failed) && failed.Failure == EgressLost {
					lost.Add(1)
				} else {
					other.Add(1)
					t.Logf("a stream ended with %v", err)
				}
			})
		}
	}
	one.Kill()
	killed := time.Now()
	var took [sessions]time.Duration
	var asking sync.WaitGroup
	for i, o := range all {
		asking.Go(func() {
			for {
				conn, err := o.session.Dial(t.Context(), echo)
				if err == nil {
					_ = conn.SetDeadline(time.Now().Add(outlinePatience))
					err = ask(conn)
					_ = conn.Close()
				}
				if err == nil {
					break
				}
				if time.Since(killed) > outlinePatience {
					t.Errorf("session %d has no stream: %v", i, err)
					return
				}
			}
			took[i] = time.Since(killed)
		})
	}
	asking.Wait()
	slices.Sort(took[:])
	t.Logf("streams work again after %v (median), %v (the last)", took[sessions/2], took[sessions-1])
	if took[sessions-1] > 3*time.Second {
		t.Errorf("the last session took %v, want 3s at most", took[sessions-1])
	}
	if n := switches.Load(); n != sessions/2 {
		t.Errorf("%d sessions went over, want the half that left through the server", n)
	}
	two.Kill() // ends the rest
	reading.Wait()
	if n := lost.Load(); n != sessions*bulk || other.Load() != 0 {
		t.Errorf("%d streams of %d ended with egress_lost", n, sessions*bulk)
	}
}

// blackHole is a port whose system drops the first packet of every connection.
func blackHole(t *testing.T) netip.AddrPort {
	t.Helper()
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := errors.Join(syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}), syscall.Listen(fd, 0)); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(loopback(1), uint16(name.(*syscall.SockaddrInet4).Port))
	for range 10 { // until its queue is full
		conn, err := net.DialTimeout("tcp", addr.String(), 100*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { conn.Close() })
	}
	t.Skip("this system has no way to be silent")
	return addr
}

func TestAServerThatIsSilentIsReplacedInTime(t *testing.T) {
	two := sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{})
	s := newOutlineRig(t, nil, serverAt("one", blackHole(t)), serverAt("two", two.Addr)).session(t, 1)
	began := time.Now()
	if err := ask(mustDial(t, s, sstest.ServeTCP(t, sstest.Echo))); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %v, want 3s at most", took)
	}
}

// TestAServerThatDoesNotAnswerIsFoundByProbes: it takes connections, and nothing
// comes back. The streams through it end, and new ones take another way.
func TestAServerThatDoesNotAnswerIsFoundByProbes(t *testing.T) {
	for name, start := range map[string]func(t *testing.T) netip.AddrPort{
		"it is silent": func(t *testing.T) netip.AddrPort {
			t.Helper()
			return sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{
				Serve: func(_ *sstest.Server, conn *net.TCPConn) { _, _ = io.Copy(io.Discard, conn) },
			}).Addr
		},
		"it has another password": func(t *testing.T) netip.AddrPort {
			t.Helper()
			return sstest.StartLibev(t, shadowsocks.DefaultCipher, "another").Addr
		},
		"it has another cipher": func(t *testing.T) netip.AddrPort {
			t.Helper()
			return sstest.StartLibev(t, "aes-128-gcm", outlinePassword).Addr
		},
	} {
		t.Run(name, func(t *testing.T) {
			two := sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{})
			first := make(chan struct{})
			probes := make(chan Probe, 100)
			r := newOutlineRig(t, nil)
			servers := []Server{serverAt("one", start(t)), serverAt("two", two.Addr)}
			r = newOutlineRig(t, func(c *OutlineConfig) {
				c.Probe, c.ProbeInterval, c.ProbeTimeout = r.web, time.Second, 300*time.Millisecond
				c.Probed = func(p Probe) { <-first; probes <- p }
			}, servers...)
			echo := sstest.ServeTCP(t, sstest.Echo)
			s := r.session(t, 1)
			conn := mustDial(t, s, echo)
			_, _ = conn.Write([]byte("hello"))
			close(first)
			_, err := conn.Read(make([]byte, 1))
			wantFailure(t, err, EgressLost)
			if err := ask(mustDial(t, s, echo)); err != nil {
				t.Errorf("the next stream: %v", err)
			}
			seen := map[string]Probe{}
			for len(seen) < 2 {
				p := <-probes
				seen[p.Server.ID] = p
			}
			if p := seen["two"]; !p.TCP.OK || !p.UDP.OK || p.TCP.Took <= 0 {
				t.Errorf("the server that works: %+v", p)
			}
			if p := seen["one"]; p.TCP.OK || p.TCP.Why == "" || p.UDP.OK && name != "it is silent" {
				t.Errorf("the one that does not: %+v", p)
			}
			if n := len(r.Probes()); n != 2 {
				t.Errorf("%d results, want those of 2 servers", n)
			}
		})
	}
}

// fakeAssigner counts what it is asked.
type fakeAssigner struct {
	mu       sync.Mutex
	asked    []string
	released int
	answer   func(failed string) (Server, error)
	pause    time.Duration
}

func (f *fakeAssigner) Assign(_ context.Context, _ [16]byte, failed Failed) (Assignment, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.asked = append(f.asked, failed.ID)
	server, err := f.answer(failed.ID)
	return Assignment{Server: server, RetryAfter: f.pause}, err
}
func (f *fakeAssigner) Release([16]byte) { f.mu.Lock(); defer f.mu.Unlock(); f.released++ }
func (f *fakeAssigner) Probed(Probe)     {}

// TestASessionAsksNoMoreOftenThanItShould: at most one switch in 30 s, and where
// there is no other server, or none at all, one question in 3 s.
func TestASessionAsksNoMoreOftenThanItShould(t *testing.T) {
	server := func(id string) Server {
		return Server{ID: id, Host: "192.0.2.1", Port: 1, Cipher: shadowsocks.DefaultCipher, Password: "x"}
	}
	next := map[string]string{"": "a", "a": "b", "b": "c", "c": "a"}
	for name, tc := range map[string]struct {
		answer func(string) (Server, error)
		said   time.Duration // by the answer
		pause  time.Duration
		fails  Failure
	}{
		"there is always another":   {func(failed string) (Server, error) { return server(next[failed]), nil }, 0, 30 * time.Second, ""},
		"there is no other":         {func(string) (Server, error) { return server("a"), nil }, 0, 3 * time.Second, ""},
		"nor will be for a while":   {func(string) (Server, error) { return server("a"), nil }, 20 * time.Second, 20 * time.Second, ""},
		"nor for longer than it is": {func(string) (Server, error) { return server("a"), nil }, time.Hour, time.Minute, ""},
		"there is none":             {func(string) (Server, error) { return Server{}, ErrNoServer }, 0, 3 * time.Second, NoServer},
		"it is of no use": {func(string) (Server, error) {
			return Server{ID: "x", Cipher: "rc4", Password: "x"}, nil
		}, 0, 3 * time.Second, EgressLost},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				f := &fakeAssigner{answer: tc.answer, pause: tc.said}
				o, err := NewOutline(OutlineConfig{Assigner: f})
				if err != nil {
					t.Fatal(err)
				}
				s := o.ForSession([16]byte{1}, nil)
				e, _ := s.through(t.Context(), failing{})
				if tc.fails == "" {
					if e, err = s.through(t.Context(), failing{exit: e}); err != nil { // the first has failed
						t.Fatal(err)
					}
				}
				before := len(f.asked)
				began := time.Now()
				for len(f.asked) == before {
					if e, err = s.through(t.Context(), failing{exit: e}); (err != nil) != (tc.fails != "") {
						t.Fatal(err)
					}
					if tc.fails != "" {
						wantFailure(t, err, tc.fails)
					}
					<-time.After(100 * time.Millisecond)
				}
				if took := time.Since(began) - 100*time.Millisecond; took != tc.pause {
					t.Errorf("asked again after %v, want %v", took, tc.pause)
				}
				s.Close()
				if want := map[Failure]int{"": 1}[tc.fails]; f.released != want {
					t.Errorf("released %d times, want %d", f.released, want)
				}
				if used := o.used(); len(used) != 0 {
					t.Errorf("%d servers are still used", len(used))
				}
			})
		})
	}
}

// TestASessionHearsThatItsServerChanged: it asks again with its next stream, also
// soon after it was switched. Nobody there to ask: it keeps what it has. A refusal
// holds.
func TestASessionHearsThatItsServerChanged(t *testing.T) {
	server := func(id string, generation int64) Server {
		return Server{ID: id, Generation: generation, Host: "192.0.2.1", Port: 1, Cipher: shadowsocks.DefaultCipher, Password: "x"}
	}
	errAway := errors.New("nobody answers")
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAssigner{}
		answers := func(s Server, err error) { f.answer = func(string) (Server, error) { return s, err } }
		switched := 0
		o, err := NewOutline(OutlineConfig{Assigner: f, Switched: func() { switched++ }})
		if err != nil {
			t.Fatal(err)
		}
		s, other := o.ForSession([16]byte{1}, nil), o.ForSession([16]byte{2}, nil)
		defer other.Close()
		want := func(what string, asked int, id string, generation int64) {
			t.Helper()
			before := len(f.asked)
			e, err := s.through(t.Context(), failing{})
			if err != nil || e.server != server(id, generation) || len(f.asked)-before != asked {
				t.Errorf("%s: %v, %v after %d questions; want %s %d after %d", what, e, err, len(f.asked)-before, id, generation, asked)
			}
		}
		answers(server("a", 1), nil)
		want("the first stream", 1, "a", 1)
		want("the second", 0, "a", 1)
		o.Changed("b")
		want("another server has changed", 0, "a", 1)
		o.Changed("a")
		answers(server("a", 2), nil)
		want("it has another key", 1, "a", 2)
		want("that is all", 0, "a", 2)
		if switched != 0 {
			t.Error("another key counts as another server")
		}
		o.Changed("a")
		answers(server("b", 1), nil)
		want("it is disabled", 1, "b", 1)
		o.Changed("")
		answers(server("c", 1), nil)
		want("anything may have changed, soon after", 1, "c", 1)
		if switched != 2 {
			t.Errorf("switched %d times, want 2", switched)
		}

		o.Changed("c")
		answers(Server{}, errAway)
		want("nobody answers", 1, "c", 1)
		want("nor soon after", 0, "c", 1)
		<-time.After(askPause)
		want("nor later", 1, "c", 1)
		<-time.After(askPause)
		answers(Server{}, ErrNoServer)
		for range 2 {
			_, err := s.through(t.Context(), failing{})
			wantFailure(t, err, NoServer)
		}
		<-time.After(askPause)
		f.answer = func(string) (Server, error) {
			o.Changed("d") // while the answer is under way
			return server("d", 1), nil
		}
		want("there is one again", 1, "d", 1)
		answers(server("d", 2), nil)
		want("which changed meanwhile", 1, "d", 2)
		if diff := cmp.Diff(make([]string, len(f.asked)), f.asked); diff != "" {
			t.Errorf("servers were told to have failed: %s", diff)
		}
		s.Close()
		if used := o.used(); len(used) != 0 {
			t.Errorf("%d servers are still used", len(used))
		}
	})
}

// TestTheListOfWatchedServersIsReplaced: those that went or became others have
// changed, the others have not.
func TestTheListOfWatchedServersIsReplaced(t *testing.T) {
	server := func(id, password string) Server {
		return Server{ID: id, Host: "192.0.2.1", Port: 1, Cipher: shadowsocks.DefaultCipher, Password: password}
	}
	f := &fakeAssigner{}
	o, err := NewOutline(OutlineConfig{Assigner: f, Servers: []Server{server("a", "x"), server("b", "x"), server("c", "x")}})
	if err != nil {
		t.Fatal(err)
	}
	sessions := make(map[string]*OutlineSession)
	for i, id := range []string{"a", "b", "c"} {
		f.answer = func(string) (Server, error) { return server(id, "x"), nil }
		sessions[id] = o.ForSession([16]byte{byte(i)}, nil)
		defer sessions[id].Close()
		if _, err := sessions[id].through(t.Context(), failing{}); err != nil {
			t.Fatal(err)
		}
	}
	useless := server("d", "x")
	useless.Cipher = "rc4"
	if err := o.Watch([]Server{server("a", "x"), server("b", "y"), useless}, time.Minute); err == nil || !strings.Contains(err.Error(), "server d") {
		t.Errorf("Watch = %v, want a word about server d", err)
	}
	f.asked = nil
	for _, id := range []string{"a", "b", "c"} {
		f.answer = func(string) (Server, error) { f.asked = append(f.asked, id); return server(id, "z"), nil }
		if _, err := sessions[id].through(t.Context(), failing{}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]string{"", "b", "", "c"}, f.asked); diff != "" {
		t.Errorf("who asked again (-want +got): %s", diff)
	}
	var watched []string
	for _, e := range o.used() {
		watched = append(watched, e.server.ID+" "+e.server.Password)
	}
	want := map[string]int{"c": 2}
	for _, id := range []string{"a", "b", "c", "c"} { // what was said once is not said again
		asked := len(f.asked)
		if err := o.Watch([]Server{server("a", "x"), server("b", "z")}, time.Minute); err != nil {
			t.Fatal(err)
		}
		if _, err := sessions[id].through(t.Context(), failing{}); err != nil || len(f.asked)-asked != want[id] {
			t.Errorf("%s asked %d times more, %v", id, (len(f.asked)-asked)/2, err)
		}
		want[id] = 0
	}
	slices.Sort(watched)
	if diff := cmp.Diff([]string{"a x", "b y", "b z", "c z"}, watched); diff != "" {
		t.Errorf("in use (-want +got): %s", diff)
	}
	many := make([]Server, MaxWatched+10)
	for i := range many {
		many[i] = server(fmt.Sprint(i), "x")
	}
	if err := o.Watch(many, time.Minute); err != nil || len(o.watched) != MaxWatched {
		t.Errorf("Watch = %v, %d are watched", err, len(o.watched))
	}
}

// Streams that come at the same time ask once.
func TestManyStreamsAskForOneServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &fakeAssigner{}
		f.answer = func(string) (Server, error) {
			<-time.After(time.Second)
			return Server{ID: "a", Host: "192.0.2.1", Port: 1, Cipher: shadowsocks.DefaultCipher, Password: "x"}, nil
		}
		o, err := NewOutline(OutlineConfig{Assigner: f})
		if err != nil {
			t.Fatal(err)
		}
		s := o.ForSession([16]byte{1}, nil)
		defer s.Close()
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if _, err := s.through(t.Context(), failing{}); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if len(f.asked) != 1 {
			t.Errorf("asked %d times", len(f.asked))
		}
	})
}

func TestAFixedListSpreadsSessionsOverWhatWorks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var servers []Server
		for _, id := range []string{"a", "b", "c"} {
			servers = append(servers, Server{ID: id})
		}
		s := NewStatic(servers)
		id := byte(0)
		assign := func(n int) map[string]int {
			got := map[string]int{}
			for range n {
				id++
				answer, err := s.Assign(t.Context(), [16]byte{id}, Failed{})
				if err != nil {
					t.Fatal(err)
				}
				got[answer.Server.ID]++
			}
			return got
		}
		want := func(what string, got, want map[string]int) {
			t.Helper()
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s: %s", what, diff)
			}
		}
		want("at first", assign(6), map[string]int{"a": 2, "b": 2, "c": 2})
		if again, _ := s.Assign(t.Context(), [16]byte{1}, Failed{}); again.Server.ID != "a" {
			t.Errorf("the first session has %s now", again.Server)
		}
		if other, _ := s.Assign(t.Context(), [16]byte{1}, Failed{ID: "a"}); other.Server.ID == "a" {
			t.Error("the first session keeps what has failed")
		}
		want("after a failure", assign(3), map[string]int{"b": 1, "c": 2})
		<-time.After(badFor)
		want("when that is over", assign(3), map[string]int{"a": 3})
		s.Probed(Probe{Server: servers[1]})
		s.Probed(Probe{Server: servers[2]})
		want("when two fail their probes", assign(5), map[string]int{"a": 5})
		s.Probed(Probe{Server: servers[1], TCP: Seen{OK: true}})
		want("when one is back", assign(2), map[string]int{"b": 2})
		for i := range id {
			s.Release([16]byte{i + 1})
		}
		if len(s.sessions) != 0 {
			t.Errorf("%d sessions are left", len(s.sessions))
		}
		if _, err := NewStatic(nil).Assign(t.Context(), [16]byte{1}, Failed{}); !errors.Is(err, ErrNoServer) {
			t.Errorf("without servers: %v", err)
		}
	})
}

func TestServersAreNotPrinted(t *testing.T) {
	s := serverAt("one", netip.MustParseAddrPort("192.0.2.1:1"))
	s.Prefix = "POST "
	for _, format := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(format+format, s, Probe{Server: s}); strings.Contains(text, "horse") || strings.Contains(text, "192.0.2.1") {
			t.Errorf("%s: %s", format, text)
		}
	}
}

// udpEchoes answers in capitals.
func udpEchoes(t *testing.T) netip.AddrPort {
	t.Helper()
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := u.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			_, _ = u.WriteToUDPAddrPort(bytes.ToUpper(buf[:n]), from)
		}
	})
	t.Cleanup(func() { _ = u.Close(); wg.Wait() })
	return u.LocalAddr().(*net.UDPAddr).AddrPort()
}

// buffer is space for a datagram.
type buffer struct {
	p   []byte
	out int
}

func (b *buffer) Take() []byte { b.out++; return b.p }
func (b *buffer) Return(bool)  { b.out-- }

func TestDatagramsLeaveThroughAShadowsocksServer(t *testing.T) {
	libev := sstest.StartLibev(t, shadowsocks.DefaultCipher, outlinePassword)
	s := newOutlineRig(t, nil, serverAt("one", libev.Addr)).session(t, 1)
	echo := udpEchoes(t)
	exchange := func(conn PacketConn) {
		t.Helper()
		defer conn.Close()
		b := &buffer{p: make([]byte, 2000)}
		if err := conn.WriteTo([]byte("hello"), echo); err != nil {
			t.Fatal(err)
		}
		n, from, err := conn.ReadFrom(b)
		if err != nil || string(b.p[:n]) != "HELLO" || from != echo || b.out != 1 {
			t.Errorf("%q from %s, %v, %d taken", b.p[:n], from, err, b.out)
		}
		wantFailure(t, conn.WriteTo([]byte("x"), netip.MustParseAddrPort("10.0.0.1:1000")), Denied)
		wantFailure(t, conn.WriteTo([]byte("x"), netip.AddrPortFrom(loopback(1), 1900)), Denied)
	}
	for _, target := range []wire.Addr{{IP: echo.Addr(), Port: echo.Port()}, {Name: "a.test", Port: echo.Port()}} {
		conn, peer, err := s.DialPacket(t.Context(), target)
		if err != nil || peer != echo {
			t.Fatalf("to %s, %v", peer, err)
		}
		wantFailure(t, conn.WriteTo([]byte("x"), netip.AddrPortFrom(loopback(1), 1000)), Denied) // not its peer
		exchange(conn)
	}
	conn, err := s.ListenPacket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	exchange(conn)
	addrs, err := s.Resolve(t.Context(), wire.Addr{Name: "a.test", Port: 7})
	if err != nil || !slices.Equal(addrs, []netip.AddrPort{netip.AddrPortFrom(loopback(1), 7)}) {
		t.Errorf("Resolve = %v, %v", addrs, err)
	}
}

// A socket hears its server alone, and what that says under its key alone.
func TestStrangersAreNotHeardOnAPacketSocket(t *testing.T) {
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	server := u.LocalAddr().(*net.UDPAddr).AddrPort()
	s := newOutlineRig(t, nil, serverAt("one", server)).session(t, 1)
	peer := netip.AddrPortFrom(loopback(9), 99)
	conn, _, err := s.DialPacket(t.Context(), wire.Addr{IP: peer.Addr(), Port: peer.Port()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.WriteTo([]byte("question"), peer); err != nil {
		t.Fatal(err)
	}
	sent := make([]byte, 2000)
	n, client, err := u.ReadFromUDPAddrPort(sent)
	if err != nil {
		t.Fatal(err)
	}
	far := sstest.Server{Crypt: sstest.NewCrypt(shadowsocks.DefaultCipher, outlinePassword)}
	good := far.SealPacket(far.Crypt.Salt(), peer, []byte("answer"))
	flipped := bytes.Clone(good)
	flipped[40] ^= 1
	for _, p := range [][]byte{
		{},
		{1, 2, 3},
		make([]byte, 20_000), sent[:n], flipped,
		far.SealPacket(far.Crypt.Salt(), netip.AddrPortFrom(loopback(9), 98), []byte("another peer")), good,
	} {
		if _, err := u.WriteToUDPAddrPort(p, client); err != nil {
			t.Fatal(err)
		}
	}
	b := &buffer{p: make([]byte, 2000)}
	if n, from, err := conn.ReadFrom(b); err != nil || string(b.p[:n]) != "answer" || from != peer {
		t.Errorf("%q from %s, %v", b.p[:n], from, err)
	}
	_ = conn.Close()
	if _, _, err := conn.ReadFrom(b); err == nil || b.out != 1 {
		t.Errorf("after Close: %v, %d taken", err, b.out)
	}
}

// Who waits on a server that is gone is told, also where nothing says that it is.
func TestFlowsEndWithTheirServer(t *testing.T) {
	r := newOutlineRig(t, nil, serverAt("one", netip.AddrPortFrom(loopback(1), 1)))
	s := r.session(t, 1)
	conn, err := s.ListenPacket(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	e, _ := s.through(t.Context(), failing{})
	now := time.Now()
	if !e.judge(Probe{At: now}, now) || e.judge(Probe{At: now}, now) || !e.isLost() {
		t.Fatal("two probes that fail do not make a server lost")
	}
	_, _, err = conn.ReadFrom(&buffer{p: make([]byte, 100)})
	wantFailure(t, err, EgressLost)
	if e.judge(Probe{At: now, TCP: Seen{OK: true}}, now) || e.isLost() {
		t.Error("one that works does not bring it back")
	}
}

// Bytes that come from a server that is said to be lost are stronger than the word.
func TestAStreamThatMovesOutlivesTheWordThatItsServerIsLost(t *testing.T) {
	far := sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{})
	s := newOutlineRig(t, nil, serverAt("one", far.Addr)).session(t, 1)
	echo := sstest.ServeTCP(t, sstest.Echo)
	moves, waits := mustDial(t, s, echo), mustDial(t, s, echo)
	began := time.Now()
	if err := ask(moves); err != nil {
		t.Fatal(err)
	}
	e, _ := s.through(t.Context(), failing{})
	e.judge(Probe{}, began)
	e.judge(Probe{}, began)
	if err := ask(moves); err != nil {
		t.Errorf("the stream that moved: %v", err)
	}
	_, err := waits.Read(make([]byte, 1))
	wantFailure(t, err, EgressLost)
}

// TestTheQuestionWhetherAServerListensIsShared, and bounded.
func TestTheQuestionWhetherAServerListensIsShared(t *testing.T) {
	var connects atomic.Int64
	far := sstest.StartServer(t, shadowsocks.DefaultCipher, outlinePassword, sstest.Options{
		Serve: func(_ *sstest.Server, conn *net.TCPConn) { connects.Add(1); _, _ = io.Copy(io.Discard, conn) },
	})
	s := newOutlineRig(t, nil, serverAt("one", far.Addr)).session(t, 1)
	e, err := s.through(t.Context(), failing{})
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 10 * checkBurst {
		wg.Go(func() {
			for range 10 {
				if !e.listens(t.Context()) {
					t.Error("it does listen")
				}
			}
		})
	}
	began := time.Now()
	wg.Wait()
	n := connects.Load()
	if most := int64(checkBurst + 2 + time.Since(began)/checkEvery); n > most || n == 0 {
		t.Errorf("%d connections for it, want %d at most", n, most)
	}
	e.checking <- struct{}{}
	e.checks, e.checked = checkBurst, time.Now() // all of them are spent
	<-e.checking
	if !e.listens(t.Context()) || connects.Load() != n {
		t.Errorf("%d connections more", connects.Load()-n)
	}
	far.Close()
	for e.listens(t.Context()) {
		if time.Since(began) > outlinePatience {
			t.Fatal("it does not listen any more")
		}
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if !e.listens(cancelled) {
		t.Error("a question that nobody waits for was answered")
	}
}

// TestALostStreamDoesNotWaitForItsServer: Close ends the question.
func TestCloseEndsTheQuestionWhetherAServerListens(t *testing.T) {
	hole := serverAt("hole", blackHole(t))
	o := newOutlineRig(t, nil, hole)
	e := o.used()[0]
	near, _ := net.Pipe()
	conn, err := e.key.Client(struct {
		net.Conn
		halfCloser
	}{near, halfCloser{}}, wire.Addr{Name: "a.test", Port: 1})
	if err != nil {
		t.Fatal(err)
	}
	c := &exitConn{Conn: conn, exit: e, began: time.Now(), closed: make(chan struct{})}
	answered := make(chan bool)
	go func() { answered <- c.listens() }()
	began := time.Now()
	_ = c.Close()
	<-answered
	if took := time.Since(began); took > connectTimeout/2 {
		t.Errorf("it took %v", took)
	}
}

type halfCloser struct{}

func (halfCloser) CloseWrite() error { return nil }

func TestADialEndsWithItsContext(t *testing.T) {
	s := newOutlineRig(t, nil, serverAt("hole", blackHole(t))).session(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	began := time.Now()
	_, err := s.Dial(ctx, wire.Addr{IP: loopback(1), Port: 1})
	wantFailure(t, err, Cancelled)
	if took := time.Since(began); took > connectTimeout/2 {
		t.Errorf("it took %v", took)
	}
	s.Close()
	_, err = s.Dial(t.Context(), wire.Addr{IP: loopback(1), Port: 1})
	wantFailure(t, err, Cancelled)
	if !errors.Is(err, net.ErrClosed) || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after Close: %v", err)
	}
}
