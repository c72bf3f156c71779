// Command httvps-gateway is the data plane of HTTVPS.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/internal/command"
	"github.com/httvps/httvps/internal/memlimit"
)

// version is set by the linker.
var version = "dev"

func main() { os.Exit(command.Main(newRoot(os.Environ()))) }

func newRoot(environ []string) *cobra.Command {
	s := &settings{environ: environ}
	root := &cobra.Command{Use: "httvps-gateway", Short: "The data plane of HTTVPS"}
	health := command.Health("the gateway on this host", "devices can connect, for which the control plane must answer", s.load,
		func(ctx context.Context, cfg gateway.Config, ready bool) error {
			return gateway.Health(ctx, cfg.AdminListen, ready)
		})
	for _, configured := range []*cobra.Command{newServe(s), newJoin(s), health, command.Config(s.load)} {
		s.flags(configured)
		root.AddCommand(configured)
	}
	root.AddCommand(command.Version(version))
	return root
}

// settings are the flags that change the configuration.
type settings struct {
	environ                             []string
	file, data, listen, admin, url, tls string
	key, email                          string
	acme                                bool
}

func (s *settings) flags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVarP(&s.file, "config", "c", "", "configuration `file` (YAML)")
	f.StringVar(&s.data, "data", "", "data directory (data_dir)")
	f.StringVar(&s.listen, "listen", "", "address of the tunnel's listener (listen)")
	f.StringVar(&s.admin, "admin-listen", "", "address of health and metrics (admin_listen)")
	f.StringVar(&s.url, "url", "", "where devices reach the tunnel, wss://host[:port]/path (url)")
	f.StringVar(&s.tls, "tls-cert", "", "certificate file (tls.cert_file)")
	f.StringVar(&s.key, "tls-key", "", "its key file (tls.key_file)")
	f.BoolVar(&s.acme, "acme", false, "have Let's Encrypt make the certificate, and agree to its terms (tls.acme.enabled)")
	f.StringVar(&s.email, "email", "", "for the authority's messages (tls.acme.email)")
}

// load returns the file under the environment under the flags.
func (s *settings) load(cmd *cobra.Command) (gateway.Config, error) {
	cfg, err := gateway.LoadConfig(s.file, s.environ)
	if err != nil {
		return gateway.Config{}, err
	}
	s.apply(cmd, &cfg)
	cfg.Version = version
	return cfg, nil
}

// apply sets what the flags say.
func (s *settings) apply(cmd *cobra.Command, cfg *gateway.Config) {
	for name, field := range map[string]struct {
		from string
		to   *string
	}{
		"data": {s.data, &cfg.DataDir}, "listen": {s.listen, &cfg.Listen}, "admin-listen": {s.admin, &cfg.AdminListen},
		"url": {s.url, &cfg.URL}, "tls-cert": {s.tls, &cfg.TLS.CertFile}, "tls-key": {s.key, &cfg.TLS.KeyFile},
		"email": {s.email, &cfg.TLS.ACME.Email},
	} {
		if cmd.Flags().Changed(name) {
			*field.to = field.from
		}
	}
	if cmd.Flags().Changed("acme") {
		cfg.TLS.ACME.Enabled = s.acme
	}
}

// readyLine is what the program says on stdout, once. Scripts depend on it.
type readyLine struct {
	Ready   bool   `json:"ready"`
	Gateway string `json:"gateway"`
}

func newServe(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "serve",
		Short: "Serve devices until told to stop",
		Long: "Serve devices until SIGINT or SIGTERM; SIGHUP reads the configuration again. Devices have drain_timeout to turn to other\n" +
			"gateways; a second signal ends that. Logs go to stderr as JSON. When devices can connect,\n" +
			`one line goes to stdout: {"ready":true,"gateway":URL}`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			var level slog.LevelVar
			level.Set(cfg.LogLevel)
			cfg.Log, cfg.SetLevel = slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: &level})), level.Set
			reloads, stop := command.Reloads(cmd.Context(), cfg.Log, func() (gateway.Config, error) { return s.load(cmd) })
			defer stop()
			cfg.Reload = reloads
			hurry, calm := command.Hurry()
			defer calm()
			cfg.Hurry = hurry
			limit, from := memlimit.Set(cfg.MemoryLimit)
			cfg.Log.InfoContext(cmd.Context(), "memory limit", "bytes", limit, "from", from)
			cfg.OnReady = func(ready gateway.Ready) {
				command.PrintReady(cmd.OutOrStdout(), readyLine{Ready: true, Gateway: ready.Gateway})
			}
			err = gateway.Run(cmd.Context(), cfg)
			if errors.Is(err, gateway.ErrNotJoined) {
				return fmt.Errorf("%w\nmake a join link with `httvpsctl gateway create` and run `httvps-gateway join LINK` with the same configuration", err)
			}
			return err
		},
	}
}
