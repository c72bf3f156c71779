package linkem_test

import (
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/httvps/httvps/test/linkem"
)

const mbit = 1_000_000

func TestLinkIsNeverFasterThanItsRateNorMuchSlower(t *testing.T) {
	for _, rate := range []int64{50 * mbit, 100 * mbit, 200 * mbit} {
		t.Run(fmt.Sprintf("%d Mbit/s", rate/mbit), func(t *testing.T) {
			link := linkem.New(t, linkem.Config{Rate: rate, Delay: time.Millisecond})
			size := rate / 8 / 2 // half a second

			// One side is exact. The other is wide and has several tries, because a
			// machine that does something else slows TCP down: linkem-check is what
			// measures.
			const atLeast, tries = 0.4, 5
			var best float64
			for try := 0; try < tries && best < atLeast; try++ {
				before := link.Stats(linkem.Down).PassedBytes
				took := transfer(t, link, size)
				// What the link carried, headers and all, over the time from before
				// the first to after the last packet.
				carried := link.Stats(linkem.Down).PassedBytes - before
				ratio := float64(carried) * 8 / took.Seconds() / float64(rate)
				best = max(best, ratio)
				// A queue that TCP left full is sent meanwhile, too.
				if ratio > 1.05 {
					t.Errorf("the link passed %.1f %% of its rate", 100*ratio)
				}
			}
			s := link.Stats(linkem.Down)
			t.Logf("%.1f %% of the rate, %d packets late, at most %v", 100*best, s.Late, s.MaxLate)
			if best < atLeast {
				t.Errorf("the link passed %.1f %% of its rate, want it nearly full", 100*best)
			}
		})
	}
}

// transfer sends size bytes from server to client and returns how long they
// took.
func transfer(t *testing.T, link *linkem.Link, size int64) time.Duration {
	t.Helper()
	listener, err := link.Server.Listen(t.Context(), "tcp", address(link, 9000))
	if err != nil {
		t.Fatal(err)
	}
	var server sync.WaitGroup
	defer server.Wait()
	defer listener.Close()
	server.Go(func() {
		conn, err := listener.Accept()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		if _, err := io.CopyN(conn, zeros{}, size); err != nil {
			t.Error(err)
		}
	})
	conn := dial(t, link, "tcp", 9000)
	began := time.Now()
	n, err := io.Copy(io.Discard, conn)
	if err != nil || n != size {
		t.Fatalf("received %d of %d bytes, then %v", n, size, err)
	}
	return time.Since(began)
}

func TestRoundTripTakesTwiceTheDelay(t *testing.T) {
	for _, delay := range []time.Duration{0, 10 * time.Millisecond, 150 * time.Millisecond} {
		t.Run(delay.String(), func(t *testing.T) {
			link := linkem.New(t, linkem.Config{Rate: 100 * mbit, Delay: delay})

			limit := 2*delay + 5*time.Millisecond
			shortest := roundTrip(t, link, limit)

			if shortest < 2*delay || shortest > limit {
				t.Errorf("shortest round trip %v, want little more than %v", shortest, 2*delay)
			}
		})
	}
}

func TestDirectionsAreIndependent(t *testing.T) {
	link := linkem.New(t, linkem.Config{
		Delay: time.Millisecond,
		Down:  &linkem.Path{Delay: 60 * time.Millisecond},
	})
	shortest := roundTrip(t, link, 70*time.Millisecond)
	if shortest < 61*time.Millisecond || shortest > 70*time.Millisecond {
		t.Errorf("round trip %v, want little more than 61ms", shortest)
	}

	link = linkem.New(t, linkem.Config{Down: &linkem.Path{Loss: 1}})
	server := echoServer(t, link)
	conn := dial(t, link, "udp", 7)
	send(t, conn, 10)
	server.wait(t, 10)
	eventually(t, "all answers are lost", func() bool { return link.Stats(linkem.Down).DroppedLoss == 10 })
	if up := link.Stats(linkem.Up); up.Passed != 10 || up.DroppedLoss != 0 {
		t.Errorf("on the way up %d passed and %d were lost, want 10 and 0", up.Passed, up.DroppedLoss)
	}
}

func TestBurstOverflowsTheQueue(t *testing.T) {
	const packets, payload, queue = 200, 1000, 20_000
	link := linkem.New(t, linkem.Config{Rate: 200_000, QueueBytes: queue}) // a packet takes 41 ms
	send(t, toSink(t, link), packets, payload)

	var s linkem.Stats
	eventually(t, "all packets are accounted for", func() bool {
		s = link.Stats(linkem.Up)
		return s.Passed+s.DroppedQueue+s.InFlight == packets
	})
	// 19 fit the queue; some more, if this machine was slow to send.
	if s.DroppedQueue < packets/2 || s.DroppedQueue > packets-queue/(payload+28) {
		t.Errorf("%d packets of %d found the queue full, want most", s.DroppedQueue, packets)
	}
	if s.MaxQueueBytes > queue || s.MaxQueueBytes < queue-(payload+28) {
		t.Errorf("the queue held %d bytes, want it full with %d", s.MaxQueueBytes, queue)
	}
}

func TestShareOfPacketsIsLost(t *testing.T) {
	const packets = 20_000
	lost := func(seed uint64) int64 {
		link := linkem.New(t, linkem.Config{Loss: 0.01, Seed: seed})
		send(t, toSink(t, link), packets)
		var s linkem.Stats
		eventually(t, "all packets are accounted for", func() bool {
			s = link.Stats(linkem.Up)
			return s.Passed+s.DroppedLoss >= packets
		})
		if s.Passed+s.DroppedLoss != packets || s.DroppedQueue != 0 {
			t.Errorf("%+v, want %d packets passed or lost: nobody else sends", s, packets)
		}
		return s.DroppedLoss
	}
	first := lost(1)
	if within := 5 * math.Sqrt(packets*0.01*0.99); math.Abs(float64(first)-packets*0.01) > within {
		t.Errorf("%d packets of %d lost, want 200 ± %.0f", first, packets, within)
	}
	if again := lost(1); again != first {
		t.Errorf("the same seed lost %d packets, then %d", first, again)
	}
}

func TestConnectionSurvivesACut(t *testing.T) {
	link := linkem.New(t, linkem.Config{Delay: 5 * time.Millisecond})
	echoServer(t, link)
	conn := dial(t, link, "tcp", 7)
	exchange(t, conn, "before")

	link.Cut()
	passed := [2]int64{link.Stats(linkem.Up).Passed, link.Stats(linkem.Down).Passed}
	if _, err := io.WriteString(conn, "during"); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the packet meets the cut", func() bool { return link.Stats(linkem.Up).DroppedCut > 0 })
	if now := [2]int64{link.Stats(linkem.Up).Passed, link.Stats(linkem.Down).Passed}; now != passed {
		t.Errorf("%v packets passed after the cut, %v before", now, passed)
	}

	back, err := link.Server.Dial(t.Context(), "udp", netip.AddrPortFrom(link.Client.Addr(), 9).String())
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	send(t, back, 1)
	eventually(t, "the way back is cut, too", func() bool { return link.Stats(linkem.Down).DroppedCut > 0 })

	link.Restore()
	expect(t, conn, "during") // sent again by TCP
	exchange(t, conn, "after")
}

func TestBlackholeSwallowsOneDirection(t *testing.T) {
	link := linkem.New(t, linkem.Config{})
	server := echoServer(t, link)
	conn := dial(t, link, "udp", 7)

	link.Blackhole(linkem.Down)
	send(t, conn, 5)
	server.wait(t, 5)
	eventually(t, "the answers meet the blackhole", func() bool { return link.Stats(linkem.Down).DroppedCut == 5 })
	if up := link.Stats(linkem.Up); up.DroppedCut != 0 {
		t.Errorf("%d packets dropped on the way up, want 0", up.DroppedCut)
	}

	link.Restore()
	exchange(t, conn, "after")
}

func TestChangedAddressKillsOldConnectionsInSilence(t *testing.T) {
	link := linkem.New(t, linkem.Config{Delay: time.Millisecond, CongestionControl: "reno"})
	echoServer(t, link)
	for name, tc := range map[string]struct {
		addr, old, server netip.Addr
	}{
		"IPv4": {netip.MustParseAddr("203.0.113.77"), link.Client.Addr(), link.Server.Addr()},
		"IPv6": {netip.MustParseAddr("2001:db8:77::1"), link.Client.Addr6(), link.Server.Addr6()},
	} {
		t.Run(name, func(t *testing.T) {
			if !tc.old.IsValid() {
				t.Skip("the kernel has no IPv6")
			}
			to := netip.AddrPortFrom(tc.server, 7).String()
			old := dialTo(t, link, "tcp", to)
			exchange(t, old, "before")
			if got := netip.MustParseAddrPort(old.LocalAddr().String()).Addr(); got != tc.old {
				t.Errorf("connected from %v, want %v", got, tc.old)
			}

			if err := link.ChangeAddress(tc.addr); err != nil {
				t.Fatal(err)
			}
			if got := map[bool]netip.Addr{true: link.Client.Addr(), false: link.Client.Addr6()}[tc.addr.Is4()]; got != tc.addr {
				t.Errorf("the client's address is %v, want %v", got, tc.addr)
			}

			fresh := dialTo(t, link, "tcp", to)
			exchange(t, fresh, "new")
			if got := netip.MustParseAddrPort(fresh.LocalAddr().String()).Addr(); got != tc.addr {
				t.Errorf("connected from %v, want %v", got, tc.addr)
			}
			if got := congestionOf(t, fresh); got != "reno" {
				t.Errorf("congestion control %q after the change, want reno", got)
			}
			_, _ = io.WriteString(old, "lost") // the kernel may take it
			if err := old.SetReadDeadline(time.Now().Add(500 * time.Millisecond)); err != nil {
				t.Fatal(err)
			}
			if n, err := old.Read(make([]byte, 8)); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("the old connection read %d bytes and %v, want silence", n, err)
			}
		})
	}
	for _, addr := range []netip.Addr{{}, netip.MustParseAddr("224.0.0.1"), netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("::ffff:192.0.2.9")} {
		if err := link.ChangeAddress(addr); err == nil {
			t.Errorf("ChangeAddress(%v) = nil", addr)
		}
	}
}

func TestCongestionControlIsAsConfigured(t *testing.T) {
	for _, want := range []string{"reno", "cubic", "bbr"} {
		t.Run(want, func(t *testing.T) {
			linkem.Require(t)
			link, err := linkem.Open(linkem.Config{CongestionControl: want})
			if err != nil {
				t.Skipf("not in this kernel: %v", err)
			}
			defer func() {
				if err := link.Close(); err != nil {
					t.Error(err)
				}
			}()
			listener, err := link.Server.Listen(t.Context(), "tcp", address(link, 0))
			if err != nil {
				t.Fatal(err)
			}
			defer listener.Close()
			conn, err := link.Client.Dial(t.Context(), "tcp", listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			accepted, err := listener.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer accepted.Close()
			if client, server := congestionOf(t, conn), congestionOf(t, accepted); client != want || server != want {
				t.Errorf("client uses %q, server %q; want %q", client, server, want)
			}
		})
	}
}

func congestionOf(t *testing.T, conn net.Conn) (name string) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if controlErr := raw.Control(func(fd uintptr) {
		name, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	}); controlErr != nil || err != nil {
		t.Fatal(controlErr, err)
	}
	return name
}

func TestMTUIsAsConfigured(t *testing.T) {
	for config, want := range map[linkem.Config]int{{}: 1500, {MTU: 1280}: 1280, {MTU: 9000}: 9000} {
		link := linkem.New(t, config)
		for _, ns := range []*linkem.Namespace{link.Client, link.Server} {
			var device *net.Interface
			if err := ns.Do(func() (err error) {
				device, err = net.InterfaceByName("link0")
				return err
			}); err != nil {
				t.Fatal(err)
			}
			if device.MTU != want {
				t.Errorf("MTU of the %s is %d, want %d", ns.Name(), device.MTU, want)
			}
		}
	}
}

func TestCommandRunsInItsNamespace(t *testing.T) {
	link := linkem.New(t, linkem.Config{})
	out, err := link.Client.Command(t.Context(), "cat", "/proc/thread-self/net/dev", "/proc/thread-self/net/fib_trie").Output()
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"link0:", "lo:", link.Client.Addr().String()} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the process does not see %q", want)
		}
	}
	if strings.Contains(string(out), link.Server.Addr().String()) {
		t.Error("the client's process sees the server's address as its own")
	}

	cmd := link.Client.Command(t.Context(), "sh", "-c", "echo $$; exit 3")
	out, err = cmd.Output()
	if cmd.ProcessState.ExitCode() != 3 {
		t.Errorf("exit code %d (%v), want 3", cmd.ProcessState.ExitCode(), err)
	}
	if got, want := strings.TrimSpace(string(out)), fmt.Sprint(cmd.Process.Pid); got != want {
		t.Errorf("process %s, want the one that was started: %s", got, want)
	}
	if err := link.Client.Command(t.Context(), "no-such-program").Run(); err == nil || !strings.Contains(err.Error(), "no-such-program") {
		t.Errorf("Run = %v, want it to name the program that is missing", err)
	}
}

func TestDoKeepsOtherGoroutinesOut(t *testing.T) {
	link := linkem.New(t, linkem.Config{})
	host := namespaceOf(t)
	var inside string
	if err := link.Server.Do(func() (err error) {
		inside, err = os.Readlink("/proc/thread-self/ns/net")
		return err
	}); err != nil {
		t.Fatal(err)
	}
	if inside == host {
		t.Error("Do ran outside of the namespace")
	}
	broken := errors.New("broken")
	if err := link.Server.Do(func() error { return broken }); !errors.Is(err, broken) {
		t.Errorf("Do = %v, want the function's error", err)
	}
	if err := link.Server.Do(func() error { runtime.Goexit(); return nil }); err == nil {
		t.Error("Do = nil although its function did not return")
	}
	var all sync.WaitGroup
	for range 50 { // on every thread there is
		all.Go(func() {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			if now, err := os.Readlink("/proc/thread-self/ns/net"); err != nil || now != host {
				t.Errorf("a goroutine is in %s (%v), want %s", now, err, host)
			}
		})
	}
	all.Wait()
	if self, err := os.Readlink("/proc/self/ns/net"); err != nil || self != host {
		t.Errorf("the process is in %s (%v), want %s", self, err, host)
	}
}

func TestSettingsAreTheNamespacesOwn(t *testing.T) {
	link := linkem.New(t, linkem.Config{})
	const name = "net.ipv4.tcp_slow_start_after_idle"
	host, err := os.ReadFile("/proc/sys/net/ipv4/tcp_slow_start_after_idle")
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []string{"0", "1"} {
		if err := link.Client.SetSysctl(name, value); err != nil {
			t.Fatal(err)
		}
		if got, err := link.Client.Sysctl(name); err != nil || got != value {
			t.Errorf("Sysctl = %q, %v; want %q", got, err, value)
		}
		if now, err := os.ReadFile("/proc/sys/net/ipv4/tcp_slow_start_after_idle"); err != nil || string(now) != string(host) {
			t.Errorf("the machine's setting became %q (%v)", now, err)
		}
	}
}

func TestLinksDoNotSeeEachOther(t *testing.T) {
	first, second := linkem.New(t, linkem.Config{}), linkem.New(t, linkem.Config{})
	echoServer(t, first)
	exchange(t, dial(t, first, "tcp", 7), "here")
	if conn, err := second.Client.Dial(t.Context(), "tcp", address(second, 7)); err == nil {
		conn.Close()
		t.Error("the other link's server answered")
	}
}

func TestDialWantsAnAddress(t *testing.T) {
	link := linkem.New(t, linkem.Config{})
	for to, want := range map[string]string{
		"localhost:80":    "want an IP address", // names would be looked up outside
		"example.test:80": "want an IP address",
		"192.0.2.1":       "missing port",
	} {
		conn, err := link.Client.Dial(t.Context(), "tcp", to)
		if err == nil {
			conn.Close()
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Dial(%q) = %v, want %q", to, err, want)
		}
	}
}

func TestNothingIsLeftAfterClose(t *testing.T) {
	linkem.Require(t)
	descriptors := countDescriptors(t)
	link, err := linkem.Open(linkem.Config{Delay: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, ns := range []*linkem.Namespace{link.Client, link.Server} {
		name, err := os.Readlink(ns.Path())
		if err != nil {
			t.Fatal(err)
		}
		names = append(names, name)
	}
	conn := dial(t, link, "udp", 9)
	send(t, conn, 100) // under way when it ends
	conn.Close()
	if err := link.Close(); err != nil {
		t.Errorf("Close = %v", err)
	}
	if err := link.Close(); err != nil {
		t.Errorf("second Close = %v", err)
	}
	if now := countDescriptors(t); now != descriptors {
		t.Errorf("%d descriptors are open, %d before", now, descriptors)
	}
	// Threads end after their goroutines.
	eventually(t, "the namespaces are gone", func() bool {
		threads, err := filepath.Glob("/proc/[0-9]*/task/[0-9]*/ns/net")
		if err != nil {
			t.Fatal(err)
		}
		for _, thread := range threads {
			if at, err := os.Readlink(thread); err == nil && (at == names[0] || at == names[1]) {
				return false
			}
		}
		return true
	})
}
