// Package e2e drives the shipped binaries as their users do: an operator with
// httvpsctl, a person with httvps, and curl.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/e2e/internal/origin"
	"github.com/httvps/httvps/e2e/internal/stack"
)

// bin is the folder of the binaries.
var bin string

func TestMain(m *testing.M) {
	var err error
	if bin, err = stack.Dir(); err != nil {
		fmt.Fprintln(os.Stderr, "e2e:", err)
		os.Exit(1)
	}
	// Looked at here, so that they count for Go's test cache: a cached pass must
	// not outlive the binaries that it was made with.
	for _, name := range []string{"httvps-server", "httvps-backend", "httvps-gateway", "httvps", "httvpsctl"} {
		if _, err := os.Stat(filepath.Join(bin, name)); err != nil {
			fmt.Fprintln(os.Stderr, "e2e: run make build first:", err)
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// soak says whether the long counts are wanted.
var soak = os.Getenv("HTTVPS_SOAK") == "1"

// service is a running httvps-server --dev.
type service struct {
	t    *testing.T
	dir  string
	env  []string
	proc *stack.Process
	stack.ServerReady
}

func startService(t *testing.T, args ...string) *service {
	t.Helper()
	return startServiceIn(t, nil, args...)
}

// startServiceIn is startService with further variables in the environment.
func startServiceIn(t *testing.T, env []string, args ...string) *service {
	t.Helper()
	s := &service{t: t, dir: filepath.Join(t.TempDir(), "server"), env: env}
	s.start(args...)
	t.Cleanup(func() {
		s.proc.Kill()
		if t.Failed() {
			t.Logf("httvps-server said:\n%s", s.proc.Log())
		}
	})
	return s
}

// start starts the process, again after Kill.
func (s *service) start(args ...string) {
	s.t.Helper()
	var err error
	if s.proc, err = stack.Start(bin, "httvps-server", s.env, append([]string{"--data", s.dir, "--dev"}, args...)...); err != nil {
		s.t.Fatal(err)
	}
	if err := s.proc.Ready(s.t.Context(), &s.ServerReady); err != nil {
		s.proc.Kill()
		s.t.Fatal(err)
	}
}

// ctl runs httvpsctl with -o json and decodes its answer into v, unless nil.
func (s *service) ctl(v any, args ...string) {
	s.t.Helper()
	out, err := s.tryCtl(append(args, "-o", "json")...)
	if err != nil {
		s.t.Fatal(err)
	}
	if v == nil {
		return
	}
	if err := json.Unmarshal([]byte(out), v); err != nil {
		s.t.Fatalf("httvpsctl %s: %v:\n%s", strings.Join(args, " "), err, out)
	}
}

func (s *service) tryCtl(args ...string) (string, error) {
	r := run(s.t, "", []string{"HTTVPS_API=" + s.API, "HTTVPS_TOKEN=" + s.Token}, "httvpsctl", args...)
	if r.code != 0 {
		return "", fmt.Errorf("httvpsctl %s: exit code %d: %s", strings.Join(args, " "), r.code, r.stderr)
	}
	return r.stdout, nil
}

// object is what every answer of the API has.
type object struct {
	ID   string `json:"id"`
	Name string `json:"name"`
	Link string `json:"link"`
}

type listing struct {
	Items []object `json:"items"`
}

type result struct {
	code           int
	stdout, stderr string
}

// run runs a binary to its end, which has a bound.
func run(t *testing.T, stdin string, env []string, name string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, filepath.Join(bin, name), args...)
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + t.TempDir()}, env...)
	cmd.Stdin = strings.NewReader(stdin)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatalf("%s: %v", name, err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// device is an enrolled home and, once connected, its process.
type device struct {
	t    *testing.T
	home string
	env  []string
	args []string // of httvps connect, besides those that every device has
	proc *stack.Process
	stack.ConnectReady
}

// enroll enrols a new device with an invitation link.
func enroll(t *testing.T, link string) *device {
	t.Helper()
	d := &device{t: t, home: filepath.Join(t.TempDir(), "home")}
	if r := run(t, "", nil, "httvps", "enroll", link, "--home", d.home); r.code != 0 {
		t.Fatalf("httvps enroll: exit code %d: %s", r.code, r.stderr)
	}
	return d
}

// connect starts httvps connect and waits until it is ready.
func (d *device) connect() {
	d.t.Helper()
	d.start()
	if err := d.proc.Ready(d.t.Context(), &d.ConnectReady); err != nil {
		d.t.Fatal(err)
	}
}

func (d *device) start() {
	d.t.Helper()
	var err error
	if d.proc, err = stack.Start(bin, "httvps", d.env, append([]string{"connect", "--home", d.home, "--socks", "127.0.0.1:0"}, d.args...)...); err != nil {
		d.t.Fatal(err)
	}
	proc := d.proc
	d.t.Cleanup(func() {
		proc.Kill()
		if d.t.Failed() {
			d.t.Logf("httvps connect said:\n%s", proc.Log())
		}
	})
}

// wantExit waits for httvps connect to end with this code and this text on
// stderr.
func (d *device) wantExit(code int, text string) {
	d.t.Helper()
	select {
	case <-d.proc.Exited():
	case <-time.After(time.Minute):
		d.t.Fatalf("httvps connect goes on; it said:\n%s", d.proc.Log())
	}
	if got := d.proc.ExitCode(); got != code || !strings.Contains(d.proc.Log(), text) {
		d.t.Errorf("httvps connect ended with %d, want %d; want %q in:\n%s", got, code, text, d.proc.Log())
	}
}

// curl runs curl through the device's proxy and returns its output.
func (d *device) curl(args ...string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(d.t.Context(), 10*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "curl", append([]string{"-sS", "--fail", "-x", "socks5h://" + d.Socks}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("curl %s: %w: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out, nil
}

func startOrigin(t *testing.T) *origin.Server {
	t.Helper()
	far, err := origin.Start()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	return far
}

func mustSum(t *testing.T, size int64) string {
	t.Helper()
	sum, err := origin.Sum(t.Context(), size)
	if err != nil {
		t.Fatal(err)
	}
	return sum
}

// freePort returns a port that is free at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return l.Addr().String()
}
