package linkem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// threadNet is the network namespace of the calling thread.
	threadNet = "/proc/thread-self/ns/net"

	// tunQueue is how many packets wait in the kernel until the emulator takes
	// them. It takes them at once, unless the machine holds it up; then they
	// shall wait and not be dropped: dropping is the emulator's decision.
	tunQueue = 20_000

	// tcpBuffer is the most that TCP may hold per socket and direction, in
	// bytes: several bandwidth-delay products of the longest links.
	tcpBuffer = 64 << 20
)

// Supported returns nil when links can be opened here, and otherwise why not.
func Supported() error {
	if uid := os.Geteuid(); uid != 0 {
		return fmt.Errorf("needs root, this is user %d", uid)
	}
	return onOwnThread(func() error {
		leave, err := unshare()
		if err != nil {
			return err
		}
		defer leave()
		t, err := openTUN("probe0")
		if err != nil {
			return err
		}
		return t.close()
	})
}

// unshare moves the calling thread, which must be locked, into a new network
// namespace until leave is called.
func unshare() (leave func(), err error) {
	home, err := os.Open(threadNet)
	if err != nil {
		return nil, err
	}
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		_ = home.Close() // it was only read
		return nil, fmt.Errorf("make a network namespace: %w", err)
	}
	return leaveTo(home), nil
}

// enter moves the calling thread, which must be locked, into ns until leave is
// called.
func enter(ns *os.File) (leave func(), err error) {
	home, err := os.Open(threadNet)
	if err != nil {
		return nil, err
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err != nil {
		_ = home.Close() // it was only read
		return nil, err
	}
	return leaveTo(home), nil
}

// leaveTo brings the thread home, although it is about to end: the process's
// first thread only parks, and what /proc/self says is said of that one.
func leaveTo(home *os.File) func() {
	return func() {
		_ = unix.Setns(int(home.Fd()), unix.CLONE_NEWNET) // if not, the thread ends with it
		_ = home.Close()                                  // it was only read
	}
}

func newNamespace(name string, addr4, addr6 netip.Addr, config Config) (*Namespace, error) {
	n := &Namespace{name: name, congestion: config.CongestionControl, addr4: addr4}
	err := onOwnThread(func() error {
		leave, err := unshare()
		if err != nil {
			return err
		}
		defer leave()
		if n.ns, err = os.Open(threadNet); err != nil {
			return err
		}
		if n.tun, err = openTUN(device); err != nil {
			return err
		}
		if _, err := os.Stat("/proc/sys/net/ipv6"); err == nil {
			n.addr6 = addr6
		}
		return n.configure(config)
	})
	if err != nil {
		return nil, fmt.Errorf("namespace %s: %w", name, errors.Join(err, n.close()))
	}
	return n, nil
}

// configure runs on a thread in the namespace.
func (n *Namespace) configure(config Config) error {
	buffers := fmt.Sprintf("4096 131072 %d", tcpBuffer)
	settings := [][2]string{
		{"net.ipv4.tcp_rmem", buffers},
		{"net.ipv4.tcp_wmem", buffers},
		// What one connection learned about the path shall not help the next:
		// each measurement starts alike.
		{"net.ipv4.tcp_no_metrics_save", "1"},
	}
	if n.addr6.IsValid() {
		settings = append(
			settings,
			[2]string{"net.ipv6.conf." + device + ".disable_ipv6", "0"},
			// Nobody but those who use the link shall send packets over it.
			[2]string{"net.ipv6.conf." + device + ".accept_ra", "0"},
			[2]string{"net.ipv6.conf." + device + ".addr_gen_mode", "1"},
		)
	}
	for _, s := range settings {
		if err := writeSysctl(s[0], s[1]); err != nil {
			return err
		}
	}
	nl, err := openNetlink()
	if err != nil {
		return err
	}
	defer nl.close()
	lo, err := nl.index("lo")
	if err != nil {
		return err
	}
	if n.tun.index, err = nl.index(device); err != nil {
		return err
	}
	if err := nl.up(lo, 0, 0); err != nil {
		return err
	}
	if err := nl.up(n.tun.index, config.mtu(), tunQueue); err != nil {
		return err
	}
	if err := nl.address(n.tun.index, n.addr4); err != nil {
		return err
	}
	if err := nl.defaultRoute(n.tun.index, n.addr4, n.congestion); err != nil {
		return err
	}
	if !n.addr6.IsValid() {
		return nil
	}
	if err := nl.address(n.tun.index, n.addr6); err != nil {
		return err
	}
	return nl.defaultRoute(n.tun.index, n.addr6, n.congestion)
}

func (n *Namespace) changeAddress(to netip.Addr) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	current := &n.addr4
	if to.Is6() {
		current = &n.addr6
	}
	switch {
	case !to.IsGlobalUnicast() || to.Is4In6() || to.Zone() != "":
		return errors.New("want a plain unicast address")
	case !current.IsValid():
		return errors.New("the kernel has no IPv6")
	case *current == to:
		return nil
	}
	return n.Do(func() error {
		nl, err := openNetlink()
		if err != nil {
			return err
		}
		defer nl.close()
		if err := nl.address(n.tun.index, to); err != nil {
			return err
		}
		if err := nl.defaultRoute(n.tun.index, to, n.congestion); err != nil {
			return err
		}
		if err := nl.removeAddress(n.tun.index, *current); err != nil {
			return err
		}
		*current = to
		return nil
	})
}

func (n *Namespace) close() error {
	var problems []error
	if n.tun != nil {
		problems = append(problems, n.tun.close())
	}
	if n.ns != nil {
		problems = append(problems, n.ns.Close())
	}
	return errors.Join(problems...)
}

// tun is a TUN device, which lives as long as its descriptor is open. The
// descriptor is not given to Go's poller: its timers are good for a millisecond.
type tun struct {
	fd    int
	index int // of the interface in its namespace
}

// openTUN makes a device in the calling thread's namespace.
func openTUN(name string) (*tun, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	t := &tun{fd: fd}
	request, err := unix.NewIfreq(name)
	if err == nil {
		request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, request)
	}
	if err != nil {
		return nil, fmt.Errorf("make a TUN device: %w", errors.Join(err, t.close()))
	}
	return t, nil
}

func (t *tun) send(packet []byte) error {
	for {
		_, err := unix.Write(t.fd, packet)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, unix.EINTR):
		default:
			return fmt.Errorf("deliver a packet: %w", err)
		}
	}
}

// receive returns 0 when no packet waits.
func (t *tun) receive(buf []byte) (int, error) {
	for {
		n, err := unix.Read(t.fd, buf)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		case errors.Is(err, unix.EINTR):
		default:
			return 0, fmt.Errorf("take a packet: %w", err)
		}
	}
}

func (t *tun) close() error { return unix.Close(t.fd) }

// wakeup tells all pumps of a link that it is over.
type wakeup struct{ fd int }

func newWakeup() (*wakeup, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	return &wakeup{fd: fd}, nil
}

// all wakes for good: nobody reads the value.
func (w *wakeup) all() error {
	_, err := unix.Write(w.fd, binary.NativeEndian.AppendUint64(nil, 1))
	return err
}

func (w *wakeup) close() error { return unix.Close(w.fd) }

const (
	// pause is how long a pump sleeps after it moved packets, whatever comes
	// meanwhile. Waking for each packet would cost twice the processor time, which
	// those who are measured on the link need themselves.
	pause = 200 * time.Microsecond

	// batch is how many packets a pump takes in before it looks which are due.
	batch = 32

	// forever is how long a pump waits when nothing is under way.
	forever = time.Hour
)

// pump moves packets from a device over w until wake.
func pump(w *way, from *tun, wake *wakeup) error {
	runtime.LockOSThread() // never unlocked: the thread is changed, and ends with the goroutine
	stayPrecise()
	start := time.Now()
	buf := make([]byte, maxMTU)
	for {
		next, waiting, err := w.deliver(time.Since(start))
		if err != nil {
			return err
		}
		taken := 0
		for ; taken < batch; taken++ {
			n, err := from.receive(buf)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			w.enter(buf[:n], time.Since(start))
		}
		idle := pause
		if taken == batch || waiting && next <= time.Since(start) {
			idle = 0 // there is more to do
		}
		if over, err := wake.wait(idle, nil); over || err != nil {
			return err
		}
		if taken > 0 {
			continue // they may be due by now
		}
		idle = forever
		if waiting {
			idle = max(0, next-time.Since(start))
		}
		if over, err := wake.wait(idle, from); over || err != nil {
			return err
		}
	}
}

// wait returns after timeout, when there is something to receive, or with true
// when it is over.
func (w *wakeup) wait(timeout time.Duration, from *tun) (over bool, err error) {
	fds := [2]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLIN}}
	watched := fds[:1]
	if from != nil {
		fds[1] = unix.PollFd{Fd: int32(from.fd), Events: unix.POLLIN}
		watched = fds[:]
	}
	ts := unix.NsecToTimespec(int64(timeout))
	if _, err := unix.Ppoll(watched, &ts, nil); err != nil && !errors.Is(err, unix.EINTR) {
		return false, fmt.Errorf("wait for packets: %w", err)
	}
	return fds[0].Revents != 0, nil
}

// stayPrecise makes the calling thread wake when it asked to. Both are best
// effort: without them the link is right, only less even.
func stayPrecise() {
	// By default the kernel joins wake-ups that are within 50 µs of each other.
	_ = unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)
	// Ahead of others that would run, and in short turns, which newer kernels
	// take as a wish to run soon. Not a real-time class: the Go runtime makes a
	// thread spin now and then for another one, which such a thread would keep
	// from running; that stopped the link for most of a second.
	_ = unix.SchedSetAttr(0, &unix.SchedAttr{
		Size:    unix.SizeofSchedAttr,
		Policy:  unix.SCHED_NORMAL,
		Nice:    -20,
		Runtime: uint64(pause),
		Flags:   unix.SCHED_FLAG_RESET_ON_FORK,
	}, 0)
}
