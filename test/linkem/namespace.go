package linkem

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path"
	"runtime"
	"strings"
	"sync"
)

// Namespace is one end of a link: a network namespace with a loopback
// interface, the link, addresses and default routes over the link. Nothing else
// can be reached from it, and there is no name resolution.
type Namespace struct {
	name string
	ns   *os.File // keeps the namespace alive; no name of it is left anywhere
	tun  *tun

	congestion string // see Config

	mu    sync.Mutex // guards the following
	addr4 netip.Addr
	addr6 netip.Addr // invalid where the kernel has no IPv6
}

// errExited is what Do returns when its function ended its goroutine, as t.Fatal
// does.
var errExited = errors.New("function called runtime.Goexit")

// Name returns "client" or "server".
func (n *Namespace) Name() string { return n.name }

// Addr returns the IPv4 address: 192.0.2.1 for the client until ChangeAddress,
// 198.51.100.1 for the server.
func (n *Namespace) Addr() netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.addr4
}

// Addr6 returns the IPv6 address: 2001:db8:c::1 for the client until
// ChangeAddress, 2001:db8:5::1 for the server. It is invalid where the kernel
// has no IPv6.
func (n *Namespace) Addr6() netip.Addr {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.addr6
}

// Path names the namespace for tools such as nsenter, as long as the link and
// this process live.
func (n *Namespace) Path() string {
	return fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), n.ns.Fd())
}

// Do runs fn in the namespace and waits for it. fn has an operating system
// thread of its own, which ends with it: sockets that fn makes belong to the
// namespace for good, but goroutines that it starts run outside.
func (n *Namespace) Do(fn func() error) error {
	return onOwnThread(func() error {
		leave, err := enter(n.ns)
		if err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.name, err)
		}
		defer leave()
		return fn()
	})
}

// onOwnThread runs fn on a thread that ends afterwards, so that whatever fn did
// to it cannot reach other goroutines.
func onOwnThread(fn func() error) error {
	err := errExited
	var wg sync.WaitGroup
	wg.Go(func() {
		runtime.LockOSThread()
		err = fn()
	})
	wg.Wait()
	return err
}

// Command is exec.CommandContext for a process in the namespace. The process
// starts as nsenter, from Debian's util-linux, and becomes the program: its id,
// descriptors, signals and exit code are the program's.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	program, err := exec.LookPath(name)
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + n.Path(), "--", program}, args...)...) //nolint:gosec // G204: running what the caller names is its purpose
	if err != nil && cmd.Err == nil {
		cmd.Err = err
	}
	return cmd
}

// Dial is net.Dialer.DialContext in the namespace; the host in address must be
// an IP address. The connection can be used from any goroutine.
func (n *Namespace) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, fmt.Errorf("dial from %s: %w", n.name, err)
	}
	if _, err := netip.ParseAddr(host); err != nil {
		return nil, fmt.Errorf("dial %s from %s: want an IP address", address, n.name)
	}
	var conn net.Conn
	err = n.Do(func() (err error) {
		conn, err = (&net.Dialer{}).DialContext(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// Listen is net.ListenConfig.Listen in the namespace; the host in address must
// be an IP address or empty.
func (n *Namespace) Listen(ctx context.Context, network, address string) (net.Listener, error) {
	var listener net.Listener
	err := n.Do(func() (err error) {
		listener, err = (&net.ListenConfig{}).Listen(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, err
	}
	return listener, nil
}

// ListenPacket is net.ListenConfig.ListenPacket in the namespace; the host in
// address must be an IP address or empty.
func (n *Namespace) ListenPacket(ctx context.Context, network, address string) (net.PacketConn, error) {
	var conn net.PacketConn
	err := n.Do(func() (err error) {
		conn, err = (&net.ListenConfig{}).ListenPacket(ctx, network, address)
		return err
	})
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// Sysctl returns a setting of the namespace, such as
// "net.ipv4.tcp_congestion_control".
func (n *Namespace) Sysctl(name string) (string, error) {
	var value []byte
	err := n.Do(func() (err error) {
		value, err = os.ReadFile(sysctlFile(name))
		return err
	})
	return strings.TrimSpace(string(value)), err
}

// SetSysctl changes a setting of the namespace. Only settings that each
// namespace has for itself can be changed; others cannot be reached from it.
func (n *Namespace) SetSysctl(name, value string) error {
	return n.Do(func() error { return writeSysctl(name, value) })
}

func writeSysctl(name, value string) error {
	if err := os.WriteFile(sysctlFile(name), []byte(value), 0o644); err != nil { //nolint:gosec // G306: the file is there already
		return fmt.Errorf("set %s to %q: %w", name, value, err)
	}
	return nil
}

// sysctlFile is below net/ whatever the name, which has no dots left to climb with:
// settings that the whole machine shares stay out of reach.
func sysctlFile(name string) string {
	return path.Join("/proc/sys/net", strings.ReplaceAll(strings.TrimPrefix(name, "net."), ".", "/"))
}
