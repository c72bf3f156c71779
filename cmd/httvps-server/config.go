package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/internal/acme"
	"github.com/httvps/httvps/internal/command"
	"github.com/httvps/httvps/internal/configfile"
)

// settings are the flags.
type settings struct {
	environ                 []string
	file, data, api, listen string
	dev                     bool
}

func (s *settings) flags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVarP(&s.file, "config", "c", "", `configuration file (YAML) with the sections "backend" and "gateway"`)
	f.StringVar(&s.data, "data", "", "data directory; made when missing")
	f.StringVar(&s.api, "api", "", "address of the control plane's API (backend.listen)")
	f.StringVar(&s.listen, "listen", "", "address of the gateway's listener (gateway.listen)")
	f.BoolVar(&s.dev, "dev", false, "own certificate authority, first user, loopback targets: to try and to develop")
}

// config is the configuration of both halves.
type config struct {
	Backend backend.Config `yaml:"backend"`
	Gateway gateway.Config `yaml:"gateway"`

	dev    bool
	data   string
	caFile string
	acme   *acme.Source // of both halves; nil: no authority makes certificates
	closer func()
}

// load returns the file under the environment under the flags. The variables
// are those of the two halves, HTTVPS_BACKEND_… and HTTVPS_GATEWAY_….
func (s *settings) load(cmd *cobra.Command) (*config, error) {
	cfg := &config{
		Backend: backend.DefaultConfig(), Gateway: gateway.DefaultConfig(),
		dev: s.dev, data: s.data, closer: func() {},
	}
	cfg.Backend.LogLevel = ""    // the gateway's, unless it has one of its own
	cfg.Gateway.DrainTimeout = 0 // mostly there is no other gateway, and everybody would wait for this one
	cfg.Backend.DataDir = filepath.Join(s.data, "backend")
	cfg.Gateway.DataDir = filepath.Join(s.data, "gateway")
	if s.dev {
		cfg.Backend.Listen, cfg.Gateway.Listen, cfg.Gateway.AdminListen = "", "", ""
	}
	if err := errors.Join(
		configfile.Load(s.file, "HTTVPS_SERVER_", cfg, nil),
		configfile.Load("", "HTTVPS_BACKEND_", &cfg.Backend, s.environ),
		configfile.Load("", "HTTVPS_GATEWAY_", &cfg.Gateway, s.environ),
	); err != nil {
		return nil, err
	}
	if cfg.Backend.LogLevel == "" {
		cfg.Backend.LogLevel = asBackend(cfg.Gateway.LogLevel)
	}
	if cmd.Flags().Changed("api") {
		cfg.Backend.Listen = s.api
	}
	if cmd.Flags().Changed("listen") {
		cfg.Gateway.Listen = s.listen
	}
	if !s.dev && cfg.Backend.Certificate.Absent() { // said once, for both
		cfg.Backend.Certificate = backend.Certificate(cfg.Gateway.TLS)
	}
	cfg.Backend.Dev = s.dev
	cfg.Gateway.Version = version
	return cfg, nil
}

// needData refuses a command line without the data directory.
func (c *config) needData() error {
	if c.data == "" {
		return command.Misuse("--data DIR is needed: where the service keeps its database and keys")
	}
	return nil
}

// Validate judges everything that does not need the data directory.
func (c *config) Validate() error {
	if c.dev {
		return c.validateDev()
	}
	own := c.Backend
	if own.Certificate.ACME.Enabled {
		// One account and one set of challenges: the gateway's listeners answer for both.
		if !reflect.DeepEqual(own.Certificate.ACME, c.Gateway.TLS.ACME) {
			return errors.New("backend.tls.acme and gateway.tls.acme differ: want it in gateway alone, for both")
		}
		own.TLS = new(tls.Config)
	}
	return errors.Join(within("backend", own.Validate()), within("gateway", c.Gateway.Validate()))
}

// Check looks at the files that both halves name.
func (c *config) Check() (warnings []string, err error) {
	if c.dev {
		return nil, nil
	}
	ofBackend, err1 := c.Backend.Check()
	ofGateway, err2 := c.Gateway.Check()
	return append(ofBackend, ofGateway...), errors.Join(within("backend", err1), within("gateway", err2))
}

// openACME has both halves serve certificates that one authority makes.
func (c *config) openACME(log *slog.Logger) error {
	if c.dev || !c.Gateway.TLS.ACME.Enabled {
		return nil
	}
	hosts := c.Gateway.Hosts()
	if c.Backend.Certificate.ACME.Enabled {
		hosts = append(hosts, c.Backend.NamedHosts()...)
	}
	var err error
	c.acme, err = acme.Open(acme.Config{
		Settings: c.Gateway.TLS.ACME, Hosts: hosts, Reach: c.Gateway.Reach(), Dir: filepath.Join(c.data, "acme"),
		TLSListen: c.Gateway.Listen, HTTPListen: c.Gateway.HTTPListen, Log: log,
	})
	if err != nil {
		return fmt.Errorf("gateway.tls: %w", err)
	}
	c.Gateway.ACME = c.acme
	if c.Backend.Certificate.ACME.Enabled {
		c.Backend.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
		c.acme.Apply(c.Backend.TLS)
	}
	return nil
}

func within(section string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s:\n%w", section, err)
}

// open makes the data directory, and for --dev what stands in it.
func (c *config) open(ctx context.Context) error {
	if err := os.MkdirAll(c.data, 0o700); err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	if err := c.checkKind(); err != nil {
		return err
	}
	if c.dev {
		if err := c.openDev(ctx); err != nil {
			return err
		}
	}
	if _, err := gateway.LoadMembership(c.Gateway.DataDir); errors.Is(err, gateway.ErrNotJoined) {
		c.Backend.LocalGateway = c.Gateway.URL // it will need a join link
	}
	return nil
}

// checkKind keeps the first user, the token and the loopback targets of --dev
// out of a service that is meant, and the other way round.
func (c *config) checkKind() error {
	has := func(name string) (bool, error) {
		_, err := os.Stat(filepath.Join(c.data, name))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}
	isDev, err := has(devFile)
	if err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	exists, err := has("backend")
	if err != nil {
		return fmt.Errorf("--data: %w", err)
	}
	switch {
	case c.dev && exists && !isDev:
		return fmt.Errorf("--dev: %s holds a service that was made without --dev; choose another directory", c.data)
	case !c.dev && isDev:
		return fmt.Errorf("--data: %s was made with --dev, which is for trying; choose another directory, or say --dev again", c.data)
	}
	return nil
}

func (c *config) close() { c.closer() }

// controlTLS is the API's TLS under the development authority.
func controlTLS(get func(*tls.ClientHelloInfo) (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: get}
}
