package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/httvps/httvps/e2e/internal/stack"
	"github.com/httvps/httvps/test/linkem"
)

// capture writes down what leaves a namespace by its link.
type capture struct {
	mu    sync.Mutex // guards the following fields
	to    map[string]int
	asked map[string]bool // names, of questions to name servers
}

// startCapture captures until the test ends.
func startCapture(t *testing.T, ns *linkem.Namespace) *capture {
	t.Helper()
	c := &capture{to: map[string]int{}, asked: map[string]bool{}}
	fd := -1
	if err := ns.Do(func() (err error) {
		link, err := net.InterfaceByName("link0")
		if err != nil {
			return err
		}
		all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(all)); err != nil {
			return err
		}
		wait := unix.NsecToTimeval(int64(100 * time.Millisecond))
		return errors.Join(
			unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}),
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait))
	}); err != nil {
		t.Fatal(err)
	}
	over := make(chan struct{})
	var running sync.WaitGroup
	running.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			select {
			case <-over:
				return
			default:
			}
			n, from, err := unix.Recvfrom(fd, buf, 0)
			if err == nil {
				if at, ok := from.(*unix.SockaddrLinklayer); ok && at.Pkttype == unix.PACKET_OUTGOING {
					c.take(buf[:n])
				}
			}
		}
	})
	t.Cleanup(func() { close(over); running.Wait(); _ = unix.Close(fd) })
	return c
}

// take notes where a packet goes. The kernel's own housekeeping of IPv6 is no one's
// traffic.
func (c *capture) take(packet []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(packet) < 40 || packet[0]>>4 != 4 {
		if len(packet) >= 40 && packet[0]>>4 == 6 && (packet[6] == syscall.IPPROTO_TCP || packet[6] == syscall.IPPROTO_UDP) {
			c.to["IPv6 "+netip.AddrFrom16([16]byte(packet[24:40])).String()]++
		}
		return
	}
	to := netip.AddrPortFrom(netip.AddrFrom4([4]byte(packet[16:20])), 0)
	payload := packet[4*int(packet[0]&15):]
	switch packet[9] {
	case syscall.IPPROTO_TCP:
		c.to[fmt.Sprint("tcp ", netip.AddrPortFrom(to.Addr(), binary.BigEndian.Uint16(payload[2:])))]++
	case syscall.IPPROTO_UDP:
		port := binary.BigEndian.Uint16(payload[2:])
		c.to[fmt.Sprint("udp ", netip.AddrPortFrom(to.Addr(), port))]++
		if question := payload[8:]; port == 53 && len(question) > 12 {
			name, _, _ := bytes.Cut(question[12:], []byte{0})
			c.asked[strings.Map(func(r rune) rune {
				if r < ' ' {
					return '.'
				}
				return r
			}, string(name))] = true
		}
	default:
		c.to[fmt.Sprintf("protocol %d %s", packet[9], to.Addr())]++
	}
}

// seen returns what was captured since the last call.
func (c *capture) seen() (to, asked []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	to, asked = slices.Sorted(maps.Keys(c.to)), slices.Sorted(maps.Keys(c.asked))
	clear(c.to)
	clear(c.asked)
	return to, asked
}

// world is a service and its targets at one end of a link, and a device at the other.
type world struct {
	t          *testing.T
	link       *linkem.Link
	dir        string
	ready      stack.ServerReady
	nameServer string // that the device's own system has
}

// begin runs a program in a namespace, where names are looked up at a name server, and
// decodes its first line of output into ready.
func (w *world) begin(ns *linkem.Namespace, nameServer string, ready any, name string, args ...string) {
	w.t.Helper()
	cmd := w.command(ns, nameServer, name, args...)
	var log bytes.Buffer
	cmd.Stderr = &log
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait()
		if w.t.Failed() {
			w.t.Logf("%s said:\n%s", name, log.String())
		}
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, ready)
	}
	if err != nil {
		w.t.Fatalf("%s: %v\n%s", name, err, log.String())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
}

func (w *world) command(ns *linkem.Namespace, nameServer, name string, args ...string) *exec.Cmd {
	w.t.Helper()
	resolv := writeFile(w.t, filepath.Join(w.t.TempDir(), "resolv.conf"), "nameserver "+nameServer+"\noptions timeout:1 attempts:1\n")
	cmd := ns.Command(context.WithoutCancel(w.t.Context()), "unshare",
		append([]string{"--mount", "sh", "-c", `mount --bind "$0" /etc/resolv.conf && exec "$@"`, resolv, name}, args...)...)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + w.dir}
	return cmd
}

// program runs a program of the device's to its end.
func (w *world) program(name string, args ...string) string {
	w.t.Helper()
	out, err := w.command(w.link.Client, w.nameServer, name, args...).CombinedOutput()
	if err != nil {
		w.t.Errorf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

func newWorld(t *testing.T, link linkem.Config) *world {
	t.Helper()
	w := &world{t: t, link: linkem.New(t, link), dir: t.TempDir(), nameServer: "203.0.113.53"}
	if err := w.command(w.link.Client, w.nameServer, "true").Run(); err != nil {
		t.Skipf("no mount namespaces here: %v", err)
	}
	far, err := w.link.Server.ListenPacket(t.Context(), "udp", "127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() { serveNames(far) })
	t.Cleanup(func() { _ = far.Close(); serving.Wait() })
	host := w.link.Server.Addr().String()
	w.begin(w.link.Server, "127.0.0.1", &w.ready, filepath.Join(bin, "httvps-server"), "--data", filepath.Join(w.dir, "server"), "--dev", "--listen", host+":0", "--api", host+":0")
	return w
}

// serveNames answers for far.test, which is at the far end's loopback address.
func serveNames(conn net.PacketConn) {
	answer := nameServer("far.test", netip.MustParseAddr("127.0.0.1"))
	buf := make([]byte, 512)
	for {
		n, from, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if p := answer(buf[:n]); p != nil {
			_, _ = conn.WriteTo(p, from)
		}
	}
}

// serve has a web server listen at the far end.
func (w *world) serve(address string) (port string) {
	w.t.Helper()
	ln, err := w.link.Server.Listen(w.t.Context(), "tcp", address)
	if err != nil {
		w.t.Fatal(err)
	}
	server := &http.Server{
		ReadHeaderTimeout: time.Minute, ErrorLog: slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello from "+r.Host) }),
	}
	go func() { _ = server.Serve(ln) }()
	w.t.Cleanup(func() { _ = server.Close() })
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port
}

// TestNothingLeavesTheDeviceBesideTheTunnel has programs use every way in, in a network
// where every packet that leaves is looked at: names are resolved at the far end, and
// what leaves goes to the service, unless a rule says otherwise, and then exactly that.
func TestNothingLeavesTheDeviceBesideTheTunnel(t *testing.T) {
	need(t, "dig", "dnsutils")
	w := newWorld(t, linkem.Config{})
	inside, outside := w.serve("127.0.0.1:0"), w.serve(w.link.Server.Addr().String()+":0")
	home := filepath.Join(w.dir, "home")
	w.program(filepath.Join(bin, "httvps"), "enroll", w.ready.Invite, "--home", home)
	seen := startCapture(t, w.link.Client)

	var d stack.ConnectReady
	direct := net.JoinHostPort(w.link.Server.Addr().String(), outside)
	w.begin(w.link.Client, w.nameServer, &d, filepath.Join(bin, "httvps"), "connect", "--home", home, "--socks", "127.0.0.1:0", "--http", "127.0.0.1:0",
		"-L", "udp:0:127.0.0.1:53", "-L", "udp:0:far.test:53", "-L", "tcp:0:far.test:"+inside, "--direct", "intranet.test")
	page := "http://far.test:" + inside + "/"
	for _, proxy := range []string{"socks5h://" + d.Socks, "http://" + d.HTTP} {
		for _, flags := range [][]string{nil, {"--proxytunnel"}} {
			if proxy[0] == 's' && flags != nil {
				continue
			}
			out := w.program("curl", append([]string{"-sS", "--fail", "--noproxy", "", "-x", proxy, page}, flags...)...)
			if out != "hello from far.test:"+inside {
				t.Errorf("by way of %s: %s", proxy, out)
			}
		}
		// What has no address is looked up there, too.
		if out, err := w.command(w.link.Client, w.nameServer, "curl", "-sS", "--noproxy", "", "-x", proxy, "http://secret-name.test/", "-o", os.DevNull, "--fail").CombinedOutput(); err == nil {
			t.Errorf("a name that is none: %s", out)
		}
	}
	for _, f := range d.Forwards[:2] {
		_, port, _ := net.SplitHostPort(f.Listen)
		if out := w.program("dig", "@127.0.0.1", "-p", port, "far.test", "+tries=3", "+time=5", "+short"); out != "127.0.0.1\n" {
			t.Errorf("dig: %s", out)
		}
	}
	if out := w.program("curl", "-sS", "--fail", "--noproxy", "*", "http://"+d.Forwards[2].Listen+"/"); !strings.HasPrefix(out, "hello") {
		t.Errorf("a forward: %s", out)
	}
	w.program(filepath.Join(bin, "httvps"), "status", "--home", home)
	w.program(filepath.Join(bin, "httvps"), "speedtest", page, "--home", home, "--time", "200ms")
	want := []string{"tcp " + hostOf(d.Gateway), "tcp " + hostOf(w.ready.API)}
	slices.Sort(want)
	if to, asked := seen.seen(); !slices.Equal(to, want) || len(asked) > 0 {
		t.Errorf("%v left the device, want %v; names %v", to, want, asked)
	}

	// A name that a rule has is looked up here, and no other one.
	if out, err := w.command(w.link.Client, w.nameServer, "curl", "-sS", "--fail", "--max-time", "5", "--noproxy", "", "-x", "socks5h://"+d.Socks, "http://host.intranet.test/").CombinedOutput(); err == nil {
		t.Errorf("a name server that is none: %s", out)
	}
	to, asked := seen.seen()
	if to = slices.DeleteFunc(to, func(s string) bool { return slices.Contains(want, s) }); !slices.Equal(to, []string{"udp " + w.nameServer + ":53"}) ||
		slices.ContainsFunc(asked, func(name string) bool { return !strings.HasPrefix(strings.TrimPrefix(name, "."), "host.intranet.test") }) || len(asked) == 0 {
		t.Errorf("for a name of a rule, %v left the device beside the tunnel, and names %v", to, asked)
	}

	// And an address that a rule has, alone.
	var second stack.ConnectReady
	other := filepath.Join(w.dir, "other")
	w.program("cp", "-r", home, other)
	_ = os.Remove(filepath.Join(other, "control.sock"))
	w.begin(w.link.Client, w.nameServer, &second, filepath.Join(bin, "httvps"), "connect", "--home", other, "--socks", "127.0.0.1:0", "--direct", w.link.Server.Addr().String())
	seen.seen()
	if out := w.program("curl", "-sS", "--fail", "--noproxy", "", "-x", "socks5h://"+second.Socks, "http://"+direct+"/", page); !strings.HasPrefix(out, "hello from "+direct) {
		t.Errorf("direct: %s", out)
	}
	to, asked = seen.seen()
	if to = slices.DeleteFunc(to, func(s string) bool { return slices.Contains(want, s) }); !slices.Equal(to, []string{"tcp " + direct}) || len(asked) > 0 {
		t.Errorf("for an address of a rule, %v left the device beside the tunnel, and names %v", to, asked)
	}
}
