package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/base32"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/httvps/httvps/internal/devca"
)

// devState is what a development service remembers between starts, so that its
// devices find it again. Nothing in it is secret.
type devState struct {
	API     string `json:"api"`     // host:port of the control plane
	Gateway string `json:"gateway"` // host:port of the gateway
	Path    string `json:"path"`    // of the tunnel
}

// validateDev judges what --dev takes from the configuration; the rest it sets
// itself.
func (c *config) validateDev() error {
	var problems []error
	for key, address := range map[string]string{"--api": c.Backend.Listen, "--listen": c.Gateway.Listen} {
		if address == "" {
			continue
		}
		if host, _, err := net.SplitHostPort(address); err != nil || host == "" {
			problems = append(problems, fmt.Errorf("%s is %q, want HOST:PORT", key, address))
		}
	}
	return errors.Join(problems...)
}

// openDev gives the service an authority of its own and addresses on loopback
// that stay the same from start to start.
func (c *config) openDev(ctx context.Context) error {
	state, err := c.loadDev()
	if err != nil {
		return err
	}
	public, err := listen(ctx, "--listen", cmp.Or(c.Gateway.Listen, state.Gateway))
	if err != nil {
		return err
	}
	api, err := listen(ctx, "--api", cmp.Or(c.Backend.Listen, state.API))
	if err != nil {
		_ = public.Close()
		return err
	}
	c.closer = func() { // unless the halves have closed them
		_ = public.Close()
		_ = api.Close()
	}
	state.API, state.Gateway = api.Addr().String(), public.Addr().String()
	if state.Path == "" {
		state.Path = "/" + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random(10)))
	}
	if err := c.saveDev(state); err != nil {
		return err
	}

	authority, err := devca.Open(filepath.Join(c.data, "ca"))
	if err != nil {
		return fmt.Errorf("development authority: %w", err)
	}
	get := authority.GetCertificate(append(hosts(state.API, state.Gateway), c.Gateway.Hosts()...)...)
	c.caFile = authority.CertFile()
	c.Backend.Listen, c.Backend.Listener = state.API, api
	c.Backend.TLS = controlTLS(get)
	c.Backend.Pin = authority.Pin().String()
	c.Gateway.Listen, c.Gateway.Listener = state.Gateway, public
	c.Gateway.GetCertificate = get
	if c.Gateway.URL == "" {
		c.Gateway.URL = "wss://" + state.Gateway + state.Path
	}
	c.Gateway.Upstream.Allow = append(c.Gateway.Upstream.Allow,
		netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("::1/128"))
	return errors.Join(within("backend", c.Backend.Validate()), within("gateway", c.Gateway.Validate()))
}

// devFile is the file's name in the data directory.
const devFile = "dev.json"

func (c *config) devPath() string { return filepath.Join(c.data, devFile) }

func (c *config) loadDev() (devState, error) {
	state := devState{API: "127.0.0.1:0", Gateway: "127.0.0.1:0"}
	text, err := os.ReadFile(c.devPath())
	if errors.Is(err, fs.ErrNotExist) {
		return state, nil
	}
	if err != nil {
		return state, fmt.Errorf("--data: %w", err)
	}
	if err := json.Unmarshal(text, &state); err != nil {
		return state, fmt.Errorf("%s is damaged: %w; remove it to choose new addresses", c.devPath(), err)
	}
	return state, nil
}

func (c *config) saveDev(state devState) error {
	text, err := json.Marshal(state)
	if err != nil {
		return err
	}
	temporary := c.devPath() + ".new"
	if err := os.WriteFile(temporary, append(text, '\n'), 0o600); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	if err := os.Rename(temporary, c.devPath()); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	return nil
}

func listen(ctx context.Context, flag, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if errors.Is(err, syscall.EADDRINUSE) {
		return nil, fmt.Errorf("%s: %w: another program listens there, maybe this service itself: stop that, or choose another address with %s", flag, err, flag)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", flag, err)
	}
	return l, nil
}

// hosts are the names that the development certificate is for.
func hosts(addresses ...string) []string {
	names := []string{"localhost", "127.0.0.1", "::1"}
	for _, address := range addresses {
		host, _, err := net.SplitHostPort(address)
		if err == nil && host != "127.0.0.1" && host != "::1" && host != "localhost" {
			names = append(names, host)
		}
	}
	return names
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails (crypto/rand)
	return b
}
