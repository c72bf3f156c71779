package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// launch runs a server until the test ends, and waits until it answers at address.
func launch(t *testing.T, account *syscall.Credential, address, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: account}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { defer close(ended); _ = cmd.Wait() }()
	t.Cleanup(func() {
		cancel()
		<-ended
		if t.Failed() {
			t.Logf("%s said:\n%s", name, &log)
		}
	})
	for deadline := time.Now().Add(30 * time.Second); ; {
		conn, err := net.DialTimeout("tcp", address, time.Second)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-ended:
			t.Fatalf("%s ended:\n%s", name, &log)
		case <-time.After(50 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not answer: %v", name, err)
		}
	}
}

// forwarded is a device with these forwards, and where they listen.
func forwarded(t *testing.T, flags ...string) []string {
	t.Helper()
	d := enroll(t, startService(t).Invite)
	for _, flag := range flags {
		d.args = append(d.args, "-L", flag)
	}
	d.connect()
	var at []string
	for _, f := range d.Forwards {
		at = append(at, f.Listen)
	}
	return at
}

func TestSSHThroughAForward(t *testing.T) {
	sshd, keygen := need(t, "sshd", "openssh-server"), need(t, "ssh-keygen", "openssh-client")
	need(t, "ssh", "openssh-client")
	who, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	if who.Uid == "0" {
		if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	for _, name := range []string{"host", "mine"} {
		if out, err := program(t, nil, keygen, "-q", "-t", "ed25519", "-N", "", "-f", filepath.Join(dir, name)); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	server := freePort(t)
	_, port, _ := net.SplitHostPort(server)
	config := writeFile(t, filepath.Join(dir, "config"), fmt.Sprintf(
		"ListenAddress %s\nHostKey %s/host\nAuthorizedKeysFile %s/mine.pub\nStrictModes no\nUsePAM no\nPidFile none\nPasswordAuthentication no\n", server, dir, dir))
	launch(t, nil, server, sshd, "-D", "-e", "-f", config)
	_, local, _ := net.SplitHostPort(forwarded(t, "tcp:0:127.0.0.1:"+port)[0])

	ssh := []string{"-F", "none", "-p", local, "-i", filepath.Join(dir, "mine"), "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "BatchMode=yes", who.Username + "@127.0.0.1"}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "ssh", append(ssh, "wc -c; head -c 2000000 /dev/zero; exit 7")...)
	cmd.Stdin = bytes.NewReader(make([]byte, 3_000_000))
	out, err := cmd.Output()
	if count, rest, _ := bytes.Cut(out, []byte("\n")); string(count) != "3000000" || len(rest) != 2_000_000 || cmd.ProcessState.ExitCode() != 7 {
		t.Errorf("ssh: %q and %d bytes, %v", count, len(rest), err)
	}
}

func TestPsqlThroughAForward(t *testing.T) {
	need(t, "psql", "postgresql-client-15")
	found, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	if len(found) == 0 {
		t.Skip("PostgreSQL is not installed (Debian: postgresql-15)")
	}
	binaries := slices.Max(found)
	dir, err := os.MkdirTemp("", "httvps-e2e-*") //nolint:usetesting // its owner is somebody else, who cannot go where tests are
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	var account *syscall.Credential
	if os.Getuid() == 0 { // the server refuses to run as root
		who, err := user.Lookup("postgres")
		if err != nil {
			t.Skipf("there is no account for PostgreSQL: %v", err)
		}
		uid, _ := strconv.Atoi(who.Uid)
		gid, _ := strconv.Atoi(who.Gid)
		account = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
		if err := os.Chown(dir, uid, gid); err != nil {
			t.Fatal(err)
		}
	}
	data := filepath.Join(dir, "data")
	initdb := exec.CommandContext(t.Context(), filepath.Join(binaries, "initdb"), "-D", data, "-U", "anna", "-A", "trust", "--no-sync")
	initdb.Dir, initdb.SysProcAttr = "/", &syscall.SysProcAttr{Credential: account}
	if out, err := initdb.CombinedOutput(); err != nil {
		t.Fatalf("initdb: %v\n%s", err, out)
	}
	server := freePort(t)
	_, port, _ := net.SplitHostPort(server)
	launch(t, account, server, filepath.Join(binaries, "postgres"), "-D", data, "-h", "127.0.0.1", "-p", port, "-k", dir, "-F")
	_, local, _ := net.SplitHostPort(forwarded(t, "tcp:127.0.0.1:0:127.0.0.1:"+port)[0])
	url := "postgres://anna@127.0.0.1:" + local + "/postgres?sslmode=disable"
	out, err := program(t, nil, "psql", "-XAtq", "-v", "ON_ERROR_STOP=1", url, "-c", "create table t as select g, repeat('x', 100) from generate_series(1, 20000) g", "-c", "select count(*), sum(length(repeat)) from t")
	if err != nil || strings.TrimSpace(out) != "20000|2000000" {
		t.Errorf("psql: %v\n%s", err, out)
	}
	if out, err = program(t, nil, "psql", "-XAtq", url, "-c", "copy t to stdout"); err != nil || strings.Count(out, "\n") != 20000 {
		t.Errorf("psql: %v, %d lines", err, strings.Count(out, "\n"))
	}
}

func TestIperf3ThroughForwards(t *testing.T) {
	iperf := need(t, "iperf3", "iperf3")
	server := freePort(t)
	_, port, _ := net.SplitHostPort(server)
	launch(t, nil, server, iperf, "-s", "-B", "127.0.0.1", "-p", port)
	// iperf3 has UDP come to the port of its TCP connection.
	_, local, _ := net.SplitHostPort(freePort(t))
	forwarded(t, "tcp:"+local+":"+server, "udp:"+local+":"+server)
	for name, args := range map[string][]string{
		"TCP":            nil,
		"TCP from there": {"-R"},
		"UDP":            {"-u", "-b", "5M", "-l", "1200"},
		"UDP from there": {"-u", "-b", "5M", "-l", "1200", "-R"},
	} {
		out, err := program(t, nil, iperf, append([]string{"-c", "127.0.0.1", "-p", local, "-t", "1", "-J"}, args...)...)
		var result struct {
			End struct {
				Received struct{ Bytes float64 } `json:"sum_received"`
				Sum      struct {
					Packets float64
					Lost    float64 `json:"lost_packets"`
				}
			}
			Error string
		}
		if jsonErr := json.Unmarshal([]byte(out), &result); err != nil || jsonErr != nil || result.Error != "" {
			t.Errorf("%s: %v, %v, %s", name, err, jsonErr, result.Error)
			continue
		}
		if slices.Contains(args, "-u") {
			if sum := result.End.Sum; sum.Packets < 300 || sum.Lost > sum.Packets/5 {
				t.Errorf("%s: %+v", name, sum)
			}
		} else if result.End.Received.Bytes < 1<<20 {
			t.Errorf("%s: %v bytes", name, result.End.Received.Bytes)
		}
	}
}

// TestAnotherClientsUDPThroughTheProxy has PySocks, which programs in Python use, ask
// a name server by address and by name, with and without a login.
func TestAnotherClientsUDPThroughTheProxy(t *testing.T) {
	const python = "/usr/bin/python3" // Debian's, for which the package is
	if err := exec.CommandContext(t.Context(), python, "-c", "import socks").Run(); err != nil {
		t.Skip("PySocks is not installed (Debian: python3-socks)")
	}
	dns := serveUDP(t, nameServer("example.test", netip.MustParseAddr("192.0.2.77")))
	script := writeFile(t, filepath.Join(t.TempDir(), "ask.py"), `
import sys, socket, socks
host, port, login = sys.argv[1], int(sys.argv[2]), sys.argv[5:]
s = socks.socksocket(socket.AF_INET, socket.SOCK_DGRAM)
s.set_proxy(socks.SOCKS5, host, port, True, *login)
s.settimeout(10)
question = b"\0\7\1\0\0\1\0\0\0\0\0\0\7example\4test\0\0\1\0\1"
for attempt in range(3):
    s.sendto(question, (sys.argv[3], int(sys.argv[4])))
    try:
        answer, peer = s.recvfrom(512)
    except socket.timeout:
        continue
    print(socket.inet_ntoa(answer[-4:]), peer[1])
    break
`)
	service := startService(t)
	login := writeFile(t, filepath.Join(t.TempDir(), "login"), "anna:secret\n")
	d := enroll(t, service.Invite)
	for _, flags := range [][]string{nil, {"--proxy-login", login}, {"--direct", "127.0.0.1"}} {
		d.args = flags
		d.connect()
		host, port, _ := net.SplitHostPort(d.Socks)
		args := []string{script, host, port, "127.0.0.1", strconv.Itoa(int(dns.Port()))}
		if slices.Contains(flags, login) {
			args = append(args, "anna", "secret")
		}
		out, err := program(t, nil, python, args...)
		if want := fmt.Sprintf("192.0.2.77 %d\n", dns.Port()); err != nil || out != want {
			t.Errorf("%v: %q, %v, want %q", flags, out, err, want)
		}
		if _, err := d.proc.Stop(); err != nil {
			t.Error(err)
		}
	}
}
