// Command httvps-gateway is the data plane of HTTVPS.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/gateway"
)

// version is set by the linker.
var version = "dev"

// Exit codes.
const (
	exitFailure = 1
	exitUsage   = 2
)

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program without the process around it.
func run(ctx context.Context, args, environ []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := newRoot(environ)
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintf(stderr, "httvps-gateway: %v\n", err) // nobody is left to be told
	if _, usage := errors.AsType[usageError](err); usage {
		return exitUsage
	}
	return exitFailure
}

func newRoot(environ []string) *cobra.Command {
	root := &cobra.Command{
		Use:           "httvps-gateway",
		Short:         "The data plane of HTTVPS",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usageError{errors.New("what shall it do? See httvps-gateway --help")}
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	s := &settings{environ: environ}
	root.AddCommand(newServe(s), newJoin(s), newHealth(s), newConfig(s), &cobra.Command{
		Use: "version", Short: "Print the version", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version)
			return err
		},
	})
	return root
}

func noArgs(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unknown argument %q for %q", args[0], cmd.CommandPath())}
	}
	return nil
}

// settings are the flags that change the configuration.
type settings struct {
	environ                             []string
	file, data, listen, admin, url, tls string
	key                                 string
}

func (s *settings) flags(cmd *cobra.Command) {
	f := cmd.Flags()
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

func newServe(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve devices until told to stop",
		Long: "Serve devices until SIGINT or SIGTERM. Logs go to stderr as JSON. When devices can connect,\n" +
			`one line goes to stdout: {"ready":true,"gateway":URL}`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			cfg.Log = slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: cfg.LogLevel}))
			cfg.OnReady = func(ready gateway.Ready) {
				line := struct {
					Ready   bool   `json:"ready"`
					Gateway string `json:"gateway"`
				}{true, ready.Gateway}
				_ = json.NewEncoder(cmd.OutOrStdout()).Encode(line) // whoever waited for it is gone
			}
			err = gateway.Run(cmd.Context(), cfg)
			if errors.Is(err, gateway.ErrNotJoined) {
				return fmt.Errorf("%w\nmake a join link with `httvpsctl gateway create` and run `httvps-gateway join LINK`", err)
			}
			return err
		},
	}
	s.flags(cmd)
	return cmd
}

func newJoin(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "join LINK|-",
		Short: "Make this gateway a member of a service",
		Long: "Make this gateway a member of the service that the link is from. The link is made by\n" +
			"`httvpsctl gateway create` and works once; - reads it from stdin, where no process list shows it.\n" +
			"After a lost answer, run the same command again.",
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 {
				return usageError{errors.New("join wants one join link, or - for stdin")}
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
				return usageError{errors.New("join needs --data and --url, or --config with data_dir and url")}
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
	s.flags(cmd)
	return cmd
}

func newHealth(s *settings) *cobra.Command {
	var ready bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask the gateway on this host how it is",
		Long:  "Ask the admin listener of the gateway on this host. Exits with 0 when it lives.",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			return gateway.Health(cmd.Context(), cfg.AdminListen, ready)
		},
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether devices can connect: not so while the control plane does not answer")
	return cmd
}

func newConfig(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use: "config", Short: "Look at the configuration", Args: noArgs,
		RunE: func(*cobra.Command, []string) error {
			return usageError{errors.New("config wants check or print")}
		},
	}
	check := &cobra.Command{
		Use: "check", Short: "Tell every mistake in the configuration", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			if err := cfg.Validate(); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), "the configuration is valid")
			return err
		},
	}
	show := &cobra.Command{
		Use: "print", Short: "Print the configuration in force: file, environment and flags", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load(cmd)
			if err != nil {
				return err
			}
			return cfg.Print(cmd.OutOrStdout())
		},
	}
	s.flags(check)
	s.flags(show)
	cmd.AddCommand(check, show)
	return cmd
}
