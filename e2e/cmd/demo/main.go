// Command demo shows HTTVPS working on this machine, with the shipped
// binaries: a service is started, a device enrols and connects, and content
// travels through the tunnel and is compared with its checksum. It then stays
// up to be tried, or ends at once with DEMO_ONCE=1.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/httvps/httvps/e2e/internal/origin"
	"github.com/httvps/httvps/e2e/internal/stack"
)

const (
	demoSize = 64 << 20
	triedBig = 1 << 30
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := demo(ctx, os.Getenv("DEMO_ONCE") == "1"); err != nil {
		fmt.Fprintf(os.Stderr, "demo: %v\n", err)
		os.Exit(1)
	}
}

func demo(ctx context.Context, once bool) (err error) {
	bin, err := stack.Dir()
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "httvps-demo-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	home := filepath.Join(dir, "device")

	far, err := origin.Start()
	if err != nil {
		return err
	}
	defer func() { _ = far.Close() }()

	server, err := stack.Start(bin, "httvps-server", nil, "--data", filepath.Join(dir, "server"), "--dev")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ended(server)) }()
	var service stack.ServerReady
	if err := server.Ready(ctx, &service); err != nil {
		return err
	}
	say("started", "API %s, gateway %s", service.API, service.Gateway)

	// The invitation goes in by standard input: a process list shows arguments.
	enroll := exec.CommandContext(ctx, filepath.Join(bin, "httvps"), "enroll", "-", "--home", home) //nolint:gosec // our own binary
	enroll.Stdin = strings.NewReader(service.Invite)
	if out, err := enroll.CombinedOutput(); err != nil {
		return fmt.Errorf("httvps enroll: %w\n%s", err, out)
	}
	say("enrolled", "the device made its key and used the invitation")

	connect, err := stack.Start(bin, "httvps", nil, "connect", "--home", home, "--socks", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, ended(connect)) }()
	var tunnel stack.ConnectReady
	if err := connect.Ready(ctx, &tunnel); err != nil {
		return err
	}
	say("connected", "session %s, SOCKS5 on %s", tunnel.Session, tunnel.Socks)

	if err := fetch(ctx, far, tunnel.Socks); err != nil {
		return err
	}
	if once {
		return nil
	}

	sum, err := origin.Sum(ctx, triedBig)
	if err != nil {
		return nil // Ctrl-C meanwhile
	}
	fmt.Printf("\nTry it (1 GiB through the tunnel; the checksum to expect is %s…):\n\n", sum[:16])
	fmt.Printf("  curl -x socks5h://%s %s/1GiB | sha256sum\n\n", tunnel.Socks, far.URL())
	fmt.Printf("Or as the operator:\n\n  export HTTVPS_API=%s HTTVPS_TOKEN=%s\n  %s device list\n\n", service.API, service.Token, filepath.Join(bin, "httvpsctl"))
	fmt.Println("Ctrl-C ends the demo.")
	select {
	case <-ctx.Done():
		return nil
	case <-server.Exited():
		return fmt.Errorf("httvps-server ended by itself:\n%s", server.Log())
	case <-connect.Exited():
		if connect.ExitCode() == 3 { // the operator tried what refusing looks like
			fmt.Print("\nThe device was refused, and httvps connect said:\n\n", connect.Log())
			return nil
		}
		return fmt.Errorf("httvps connect ended by itself:\n%s", connect.Log())
	}
}

// fetch gets content through the tunnel and compares it with what the origin
// made.
func fetch(ctx context.Context, far *origin.Server, socks string) error {
	client := &http.Client{Transport: &http.Transport{
		Proxy:             http.ProxyURL(&url.URL{Scheme: "socks5h", Host: socks}),
		DisableKeepAlives: true,
	}}
	begin := time.Now()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, far.URL()+"/64MiB", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	got := sha256.New()
	n, err := io.Copy(got, resp.Body)
	if err != nil {
		return fmt.Errorf("fetch through the tunnel: %w", err)
	}
	want, err := origin.Sum(ctx, demoSize)
	if err != nil {
		return err
	}
	if sum := hex.EncodeToString(got.Sum(nil)); n != demoSize || sum != want {
		return fmt.Errorf("%d bytes came through the tunnel with checksum %s; %d with %s were sent", n, sum, demoSize, want)
	}
	say("fetched", "%d bytes through the tunnel in %v, SHA-256 %s… equal", n, time.Since(begin).Round(time.Millisecond), want[:16])
	return nil
}

func say(step, format string, args ...any) {
	fmt.Printf("%-10s "+format+"\n", append([]any{step}, args...)...)
}

// ended stops p, which may have ended already.
func ended(p *stack.Process) error {
	select {
	case <-p.Exited():
		return nil
	default:
		_, err := p.Stop()
		return err
	}
}
