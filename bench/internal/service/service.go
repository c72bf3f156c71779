// Package service runs HTTVPS for measurements, from the shipped binaries and
// as an operator would: a control plane, a gateway that has joined it, and
// devices, each a process of its own.
package service

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/httvps/httvps/bench/internal/process"
	"github.com/httvps/httvps/internal/devca"
)

const (
	readyTimeout = 60 * time.Second
	loopback     = "127.0.0.1"
)

// Command makes the command of a program that is to run somewhere: here, or in
// a network namespace.
type Command func(name string, args ...string) *exec.Cmd

// Options say how a service is set up.
type Options struct {
	Bin string // folder of the binaries
	Dir string // for its files; made when missing

	// Limits is the section "limits" of the gateway's configuration, in the
	// form that YAML gives to it in one line; empty: the defaults.
	Limits string
	// Padding is the section "padding", likewise.
	Padding string

	// Upstream returns the fields of the section "upstream" of the gateway's
	// configuration, likewise, beside those that let it reach Host. It is told the
	// address of a web server. Nil: the defaults.
	Upstream func(web string) string

	// Where makes the commands of gateway and control plane, Host is their
	// address, and Dial connects to it from here. Without them it is here, on
	// loopback.
	Where Command
	Host  string
	Dial  func(ctx context.Context, network, address string) (net.Conn, error)

	// MaxStreams of the plan; 0: the default.
	MaxStreams int
	// Speed of the plan in each direction, in bits per second; 0: no limit.
	Speed int64
}

// Service is a running control plane with one gateway.
type Service struct {
	opts    Options
	env     []string
	trust   *tls.Config
	admin   *admin
	devices int

	backend, gateway *process.Process
	metrics          string // address of the gateway's admin listener
}

// Here makes commands that run on this machine as it is.
func Here(name string, args ...string) *exec.Cmd {
	return exec.Command(name, args...) //nolint:gosec,noctx // our own binaries, ended by Stop
}

// Start starts a service. It must be ended with Stop.
func Start(ctx context.Context, opts Options) (s *Service, err error) {
	if opts.Where == nil {
		opts.Where = Here
	}
	if opts.Host == "" {
		opts.Host = loopback
	}
	if opts.Dial == nil {
		opts.Dial = (&net.Dialer{}).DialContext
	}
	s = &Service{opts: opts}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Stop())
		}
	}()
	if err := os.MkdirAll(opts.Dir, 0o700); err != nil {
		return s, err
	}
	tlsSection, err := s.certificate()
	if err != nil {
		return s, err
	}
	bootstrap, err := s.startBackend(ctx, tlsSection)
	if err != nil {
		return s, err
	}
	join, err := s.admin.setUp(ctx, bootstrap, opts)
	if err != nil {
		return s, err
	}
	return s, s.startGateway(ctx, tlsSection, join)
}

// certificate makes an authority and a certificate for all addresses in use,
// and returns the section of a configuration that names it.
func (s *Service) certificate() (section string, err error) {
	authority, err := devca.Open(s.Authority())
	if err != nil {
		return "", err
	}
	cert, err := authority.Issue(s.opts.Host)
	if err != nil {
		return "", err
	}
	key, err := x509.MarshalPKCS8PrivateKey(cert.PrivateKey)
	if err != nil {
		return "", err
	}
	var chain []byte
	for _, der := range cert.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	certFile, keyFile := filepath.Join(s.opts.Dir, "cert.pem"), filepath.Join(s.opts.Dir, "key.pem")
	if err := os.WriteFile(certFile, chain, 0o600); err != nil {
		return "", err
	}
	if err := os.WriteFile(keyFile, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), 0o600); err != nil {
		return "", err
	}
	roots := x509.NewCertPool()
	pemText, err := os.ReadFile(authority.CertFile())
	if err != nil {
		return "", err
	}
	roots.AppendCertsFromPEM(pemText)
	s.trust = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	s.env = []string{"SSL_CERT_FILE=" + authority.CertFile(), "HOME=" + s.opts.Dir, "XDG_CONFIG_HOME=" + s.opts.Dir}
	return fmt.Sprintf("tls: {cert_file: %s, key_file: %s}\n", certFile, keyFile), nil
}

func (s *Service) startBackend(ctx context.Context, tlsSection string) (bootstrap string, err error) {
	listen, err := s.freePort(ctx)
	if err != nil {
		return "", err
	}
	config := filepath.Join(s.opts.Dir, "backend.yaml")
	text := tlsSection + fmt.Sprintf("listen: %s\ndata_dir: %s\nlog_level: warn\nlimits: {unauthenticated: 100000, unauthenticated_per_prefix: 100000}\n",
		listen, filepath.Join(s.opts.Dir, "backend"))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return "", err
	}
	if s.backend, err = s.start(s.opts.Where, "httvps-backend", "serve", "--config", config); err != nil {
		return "", err
	}
	var ready struct {
		Admin     string `json:"admin"`
		Bootstrap string `json:"bootstrap"`
	}
	if err := receive(ctx, s.backend, &ready); err != nil {
		return "", err
	}
	s.admin = newAdmin(ready.Admin, s.trust, s.opts.Dial)
	return ready.Bootstrap, nil
}

func (s *Service) startGateway(ctx context.Context, tlsSection, join string) error {
	listen, err := s.freePort(ctx)
	if err != nil {
		return err
	}
	if s.metrics, err = s.freePort(ctx); err != nil {
		return err
	}
	upstream := ""
	if s.opts.Upstream != nil {
		upstream = ", " + s.opts.Upstream(s.metrics)
	}
	config := filepath.Join(s.opts.Dir, "gateway.yaml")
	text := tlsSection + fmt.Sprintf("listen: %s\nurl: wss://%s/tunnel\ndata_dir: %s\nadmin_listen: %s\nlog_level: warn\nupstream: {allow: [%s/32]%s}\n",
		listen, listen, filepath.Join(s.opts.Dir, "gateway"), s.metrics, s.opts.Host, upstream)
	if s.opts.Limits != "" {
		text += "limits: " + s.opts.Limits + "\n"
	}
	if s.opts.Padding != "" {
		text += "padding: " + s.opts.Padding + "\n"
	}
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return err
	}
	joining := s.command(s.opts.Where, "httvps-gateway", "join", "-", "--config", config)
	joining.Stdin = strings.NewReader(join + "\n") // an argument would be in the process list
	if out, err := joining.CombinedOutput(); err != nil {
		return fmt.Errorf("httvps-gateway join: %w\n%s", err, out)
	}
	if s.gateway, err = s.start(s.opts.Where, "httvps-gateway", "serve", "--config", config); err != nil {
		return err
	}
	var ready struct{}
	return receive(ctx, s.gateway, &ready)
}

func (s *Service) command(where Command, name string, args ...string) *exec.Cmd {
	cmd := where(filepath.Join(s.opts.Bin, name), args...)
	cmd.Env = append(append(cmd.Env, "PATH="+os.Getenv("PATH")), s.env...)
	return cmd
}

func (s *Service) start(where Command, name string, args ...string) (*process.Process, error) {
	return process.Start(name, s.command(where, name, args...))
}

func receive(ctx context.Context, p *process.Process, v any) error {
	ctx, cancel := context.WithTimeout(ctx, readyTimeout)
	defer cancel()
	return p.Receive(ctx, v)
}

// Authority is the directory of the service's certificate authority.
func (s *Service) Authority() string { return filepath.Join(s.opts.Dir, "ca") }

// Self runs this very program in a role, as a client that trusts the service.
func (s *Service) Self(role string) (*process.Process, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := Here(exe, role)
	cmd.Env = append(os.Environ(), s.env...)
	return process.Start(role, cmd)
}

// GatewayPID is the id of the gateway's process.
func (s *Service) GatewayPID() int { return s.gateway.PID() }

// Device is a running httvps connect.
type Device struct {
	Socks string
	proc  *process.Process
}

// Connect enrols a device and starts httvps connect, which must be ended with
// Stop before the service.
func (s *Service) Connect(ctx context.Context, where Command) (*Device, error) {
	link, err := s.Invite(ctx)
	if err != nil {
		return nil, err
	}
	s.devices++
	home := filepath.Join(s.opts.Dir, fmt.Sprintf("device%d", s.devices))
	enroll := s.command(where, "httvps", "enroll", "-", "--home", home)
	enroll.Stdin = strings.NewReader(link)
	if out, err := enroll.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("httvps enroll: %w\n%s", err, out)
	}
	proc, err := s.start(where, "httvps", "connect", "--home", home, "--socks", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	var ready struct {
		Socks string `json:"socks"`
	}
	if err := receive(ctx, proc, &ready); err != nil {
		return nil, errors.Join(err, proc.Stop())
	}
	return &Device{Socks: ready.Socks, proc: proc}, nil
}

// PID is the id of the device's process.
func (d *Device) PID() int { return d.proc.PID() }

// Stop ends the device.
func (d *Device) Stop() error { return d.proc.Stop() }

// Stop ends gateway and control plane.
func (s *Service) Stop() error {
	if s.admin != nil {
		s.admin.close()
	}
	return process.StopAll(s.gateway, s.backend)
}

// freePort returns an address with a port that is free at the moment on loopback,
// and most likely elsewhere.
func (s *Service) freePort(ctx context.Context) (string, error) {
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", net.JoinHostPort(loopback, "0"))
	if err != nil {
		return "", err
	}
	defer ln.Close()
	_, port, err := net.SplitHostPort(ln.Addr().String())
	return net.JoinHostPort(s.opts.Host, port), err
}
