// Package sstest has Shadowsocks servers for tests: Debian's shadowsocks-libev as a
// process, and a small one in the test's own process that was written from the
// specification (SIP004, SIP007) and shares no code with the client.
package sstest

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"
)

// startTimeout bounds the wait for a server to listen.
const startTimeout = 20 * time.Second

// Libev is a running ss-server.
type Libev struct {
	Addr             netip.AddrPort
	Cipher, Password string

	cmd  *exec.Cmd
	once sync.Once
}

// Required reports whether a test must fail rather than skip where ss-server is
// missing: in CI as root, which may install it, and where that is said.
func Required() bool {
	return os.Getenv("CI") == "true" && os.Geteuid() == 0 || os.Getenv("HTTVPS_TEST_SHADOWSOCKS") == "required"
}

// StartLibev runs ss-server on a free port of loopback, for TCP and UDP, until
// the test ends. It skips the test where ss-server is missing.
func StartLibev(t *testing.T, cipher, password string) *Libev {
	t.Helper()
	program, err := exec.LookPath("ss-server")
	if err != nil {
		if Required() {
			t.Fatal("ss-server is not installed (Debian: shadowsocks-libev)")
		}
		t.Skip("ss-server is not installed (Debian: shadowsocks-libev)")
	}
	for range 5 {
		s, err := startLibev(t, program, freePort(t), cipher, password)
		if err == nil {
			t.Cleanup(s.Kill)
			return s
		}
		t.Log(err) // somebody took the port
	}
	t.Fatal("ss-server does not start")
	return nil
}

func startLibev(t *testing.T, program string, addr netip.AddrPort, cipher, password string) (*Libev, error) {
	t.Helper()
	config, err := json.Marshal(map[string]any{
		"server": addr.Addr().String(), "server_port": addr.Port(), "password": password, "method": cipher,
		"mode": "tcp_and_udp", "timeout": 120,
	})
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "ss-"+strconv.Itoa(int(addr.Port()))+".json")
	if err := os.WriteFile(file, config, 0o600); err != nil {
		t.Fatal(err)
	}
	s := &Libev{Addr: addr, Cipher: cipher, Password: password}
	s.cmd = exec.Command(program, "-c", file) //nolint:gosec,noctx // ended by Kill
	s.cmd.SysProcAttr = attributes()
	if err := s.cmd.Start(); err != nil {
		return nil, err
	}
	for deadline := time.Now().Add(startTimeout); time.Now().Before(deadline); {
		conn, err := net.DialTimeout("tcp", addr.String(), time.Second) //nolint:noctx // it has a bound
		if err == nil {
			_ = conn.Close()
		}
		if err == nil && takesDatagrams(t, addr) {
			return s, nil
		}
		if s.cmd.Process.Signal(syscall.Signal(0)) != nil {
			break
		}
		pause()
	}
	s.Kill()
	return nil, errors.New("ss-server does not listen on " + addr.String())
}

// takesDatagrams reports whether somebody listens for datagrams, which ss-server does a
// moment after it listens for connections: where nobody does, loopback says so at once.
func takesDatagrams(t *testing.T, addr netip.AddrPort) bool {
	t.Helper()
	conn, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(addr))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write([]byte{0}) // the server drops it
	_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
	_, err = conn.Read(make([]byte, 1))
	return !errors.Is(err, syscall.ECONNREFUSED)
}

// Kill ends the server at once (SIGKILL), and waits for that.
func (s *Libev) Kill() {
	s.once.Do(func() {
		_ = s.cmd.Process.Kill()
		_ = s.cmd.Wait()
	})
}

// freePort returns an address on loopback whose port is free at the moment, for TCP
// and UDP. On Linux it is one that nobody else asks for: a server that was too late
// for its port would otherwise be taken for the one that has it.
func freePort(t *testing.T) netip.AddrPort {
	t.Helper()
	host := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if runtime.GOOS == "linux" {
		var b [2]byte
		_, _ = rand.Read(b[:]) // never fails (crypto/rand)
		host = netip.AddrFrom4([4]byte{127, 1 + b[0]/2, b[1], 1})
	}
	for range 20 {
		l, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(host, 0)))
		if err != nil {
			t.Fatal(err)
		}
		addr := l.Addr().(*net.TCPAddr).AddrPort() //nolint:errcheck // what was asked for
		u, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(addr))
		_ = l.Close()
		if err == nil {
			_ = u.Close()
			return addr
		}
	}
	t.Fatal("no free port")
	return netip.AddrPort{}
}

// pause waits between two looks at another process, which tells nobody that it is
// ready.
func pause() { <-time.After(10 * time.Millisecond) }
