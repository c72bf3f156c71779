// Command httvps-gateway is the data plane of HTTVPS.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/internal/command"
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
	key                                 string
}

func (s *settings) flags(cmd *cobra.Command) {
	f := cmd.PersistentFlags()
	f.StringVar(&s.file, "config", "", "configuration file (YAML)")
	f.StringVar(&s.data, "data", "", "data directory (data_dir)")
	f.StringVar(&s.listen, "listen", "", "address of the tunnel's listener (listen)")
	f.StringVar(&s.admin, "admin-listen", "", "address of health and metrics (admin_listen)")
	f.StringVar(&s.url, "url", "", "where devices reach the tunnel, wss://host[:port]/path (url)")
	f.StringVar(&s.tls, "tls-cert", "", "certificate file (tls.cert_file)")
	f.StringVar(&s.key, "tls-key", "", "its key file (tls.key_file)")
}

// load returns the file under the environment under the flags.
func (s *settings) load(cmd *cobra.Command) (gateway.Config, error) {
	cfg, err := gateway.LoadConfig(s.file, s.environ)
	if err != nil {
		return gateway.Config{}, err
	}
	for name, field := range map[string]struct {
		from string
		to   *string
	}{
		"data": {s.data, &cfg.DataDir}, "listen": {s.listen, &cfg.Listen}, "admin-listen": {s.admin, &cfg.AdminListen},
		"url": {s.url, &cfg.URL}, "tls-cert": {s.tls, &cfg.TLS.CertFile}, "tls-key": {s.key, &cfg.TLS.KeyFile},
	} {
		if cmd.Flags().Changed(name) {
			*field.to = field.from
		}
	}
	cfg.Version = version
	return cfg, nil
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
		Long: "Serve devices until SIGINT or SIGTERM. Logs go to stderr as JSON. When devices can connect,\n" +
			`one line goes to stdout: {"ready":true,"gateway":URL}`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			cfg.Log = slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: cfg.LogLevel}))
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

func newJoin(s *settings) *cobra.Command {
	return &cobra.Command{
		Use:   "join LINK|-",
		Short: "Make this gateway a member of a service",
		Long: "Make this gateway a member of the service that the link is from. The link is made by\n" +
			"`httvpsctl gateway create` and works once; - reads it from stdin, where no process list shows it.\n" +
			"After a lost answer, run the same command again.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return command.Misuse("join wants one join link, or - for stdin")
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			link := args[0]
			if link == "-" {
				text, err := io.ReadAll(io.LimitReader(cmd.InOrStdin(), 4096))
				if err != nil {
					return fmt.Errorf("read the join link: %w", err)
				}
				link = strings.TrimSpace(string(text))
			}
			if cfg.DataDir == "" || cfg.URL == "" {
				return command.Misuse("join needs --data and --url, or --config with data_dir and url")
			}
			joined, err := gateway.Join(cmd.Context(), gateway.JoinConfig{
				Link: link, DataDir: cfg.DataDir, URL: cfg.URL, Version: version,
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "joined as gateway %s in region %s\n", joined.GatewayID, joined.Region)
			return err
		},
	}
}
