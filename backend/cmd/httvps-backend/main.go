// Command httvps-backend is the control plane of HTTVPS.
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
	"syscall"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"github.com/httvps/httvps/backend"
)

// version is set by the linker.
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

const (
	exitOK      = 0
	exitFailure = 1
	exitUsage   = 2
)

// usageError is a mistake on the command line.
type usageError struct{ error }

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root := newRoot(environ)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		complain(stderr, err.Error()+"\nRun 'httvps-backend --help' for usage.")
		return exitUsage
	default:
		complain(stderr, err.Error())
		return exitFailure
	}
}

func complain(w io.Writer, message string) {
	_, _ = fmt.Fprintln(w, "httvps-backend: "+message) // there is nobody else to tell
}

// settings are where a command's configuration comes from.
type settings struct {
	environ []string
	file    string
	data    string
}

func (s *settings) load() (backend.Config, error) {
	cfg, err := backend.LoadConfig(s.file, s.environ)
	if err != nil {
		return backend.Config{}, err
	}
	if s.data != "" {
		cfg.DataDir = s.data
	}
	return cfg, nil
}

func newRoot(environ []string) *cobra.Command {
	s := &settings{environ: environ}
	root := &cobra.Command{
		Use:           "httvps-backend",
		Short:         "The control plane of HTTVPS",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          noArgs,
		RunE:          needCommand,
	}
	root.CompletionOptions.DisableDefaultCmd = true
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.PersistentFlags().StringVarP(&s.file, "config", "c", "", "YAML `file` with settings; HTTVPS_BACKEND_… variables and flags override it")
	root.PersistentFlags().StringVar(&s.data, "data", "", "data `directory` (data_dir)")
	root.AddCommand(newServe(s), newHealth(s), newMigrate(s), newConfig(s), newVersion())
	return root
}

// noArgs is cobra.NoArgs as a mistake on the command line.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usageError{fmt.Errorf("unknown argument %q", args[0])}
	}
	return nil
}

func needCommand(cmd *cobra.Command, _ []string) error {
	return usageError{fmt.Errorf("%s needs a command", cmd.CommandPath())}
}

func newServe(s *settings) *cobra.Command {
	var listen, adminListen, publicURL, logLevel string
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve until interrupted; prints one JSON line when ready, logs JSON to stderr",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			for _, flag := range []struct {
				name  string
				into  *string
				given string
			}{
				{"listen", &cfg.Listen, listen},
				{"admin-listen", &cfg.AdminListen, adminListen},
				{"public-url", &cfg.PublicURL, publicURL},
				{"log-level", &cfg.LogLevel, logLevel},
			} {
				if cmd.Flags().Changed(flag.name) {
					*flag.into = flag.given
				}
			}
			level, err := cfg.Level()
			if err != nil {
				return err
			}
			cfg.Log = slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
			cfg.OnReady = func(ready backend.Ready) { printReady(cmd.OutOrStdout(), ready) }
			return backend.Run(cmd.Context(), cfg)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", "", "`address` of the device and gateway API")
	cmd.Flags().StringVar(&adminListen, "admin-listen", "", "`address` of the admin API, health and metrics (default: the same)")
	cmd.Flags().StringVar(&publicURL, "public-url", "", "https://HOST[:PORT] `where` devices and gateways reach the API")
	cmd.Flags().StringVar(&logLevel, "log-level", "", "debug, info, warn or error")
	return cmd
}

func newHealth(s *settings) *cobra.Command {
	var ready bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask the control plane that runs here with the same configuration how it is",
		Long:  "Exit code 0 when it lives; with --ready, when it can serve: its database answers.",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := s.load()
			if err != nil {
				return err
			}
			return backend.Health(cmd.Context(), cfg, ready)
		},
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it can serve, not only whether it lives")
	return cmd
}

// printReady tells whoever started the process where it is.
func printReady(w io.Writer, ready backend.Ready) {
	line := struct {
		Ready     bool   `json:"ready"`
		API       string `json:"api"`
		Admin     string `json:"admin"`
		Bootstrap string `json:"bootstrap,omitempty"`
	}{true, ready.API, ready.Admin, ready.Bootstrap}
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false) // & is part of links
	_ = encoder.Encode(line)     // nobody may be reading
}

func newMigrate(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Look at or update the database's schema (serve updates it too)",
		Args:  noArgs,
		RunE:  needCommand,
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "status",
			Short: "List the schema's steps and whether the database has them",
			Args:  noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return s.migrations(cmd, backend.Migrations, "pending")
			},
		},
		&cobra.Command{
			Use:   "up",
			Short: "Bring the schema up to date",
			Args:  noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				return s.migrations(cmd, backend.Migrate, "")
			},
		},
	)
	return cmd
}

func (s *settings) migrations(
	cmd *cobra.Command, do func(context.Context, backend.Config) ([]backend.Migration, error), otherwise string,
) error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	steps, err := do(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	if len(steps) == 0 {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), "nothing to do")
		return err
	}
	for _, step := range steps {
		state := otherwise
		if step.Applied {
			state = "applied"
		}
		if _, err := fmt.Fprintf(cmd.OutOrStdout(), "%-8s %s\n", state, step.Name); err != nil {
			return err
		}
	}
	return nil
}

func newConfig(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "config",
		Short: "Look at the configuration that serve would use",
		Args:  noArgs,
		RunE:  needCommand,
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "check",
			Short: "Say everything that is wrong with it",
			Args:  noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := s.load()
				if err != nil {
					return err
				}
				if err := cfg.Validate(); err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "the configuration is valid")
				return err
			},
		},
		&cobra.Command{
			Use:   "print",
			Short: "Print it as YAML, defaults included",
			Args:  noArgs,
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := s.load()
				if err != nil {
					return err
				}
				encoder := yaml.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent(2)
				return errors.Join(encoder.Encode(cfg), encoder.Close())
			},
		},
	)
	return cmd
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version)
			return err
		},
	}
}
