// Command httvps-backend is the control plane of HTTVPS.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/internal/command"
	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/internal/memlimit"
)

// version is set by the linker.
var version = "dev"

func main() {
	environ := os.Environ()
	configfile.Forget(backend.SecretVariables()...)
	os.Exit(command.Main(newRoot(environ)))
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
	root := &cobra.Command{Use: "httvps-backend", Short: "The control plane of HTTVPS"}
	root.PersistentFlags().StringVarP(&s.file, "config", "c", "", "YAML `file` with settings; HTTVPS_BACKEND_… variables and flags override it")
	root.PersistentFlags().StringVar(&s.data, "data", "", "data `directory` (data_dir)")
	load := func(*cobra.Command) (backend.Config, error) { return s.load() }
	root.AddCommand(
		newServe(s),
		command.Health("the control plane that runs here with the same configuration", "it can serve: its database answers", load, backend.Health),
		newMigrate(s), newRescue(s), newKnock(s), newSigning(s), command.KEK(load, keys), command.Backup(load, backups), command.Restore(load, backups), command.Config(load), command.Version(version),
	)
	return root
}

// keys are the commands about key-encryption keys.
var keys = command.KEKSteps[backend.Config]{
	Generate: backend.NewKEK, Status: backend.KEKStatus, Rotate: backend.RotateKEK,
	Add: backend.AddKEK, Reseal: backend.Reseal, Drop: backend.DropKEKs,
}

// backups are the commands about backups.
var backups = command.BackupSteps[backend.Config]{
	Key: backend.NewRecoveryKey, Backup: backend.Backup, Restore: backend.Restore, Verify: backend.VerifyBackup,
	To: func(cfg backend.Config, recipient string) backend.Config {
		cfg.Backup.Recipient = recipient
		return cfg
	},
}

// readyLine is what the program says on stdout, once. Scripts depend on it.
type readyLine struct {
	Ready     bool   `json:"ready"`
	API       string `json:"api"`
	Admin     string `json:"admin"`
	Bootstrap string `json:"bootstrap,omitempty"`
}

// addresses adds the flags that say where the API is, for all that make links;
// the function applies those that were given.
func addresses(cmd *cobra.Command) func(*backend.Config) {
	var given backend.Config
	flags := []struct {
		name, usage string
		text        *string
		field       func(*backend.Config) *string
	}{
		{"listen", "`address` of the device and gateway API", &given.Listen, func(c *backend.Config) *string { return &c.Listen }},
		{"admin-listen", "`address` of the admin API, health and metrics (default: the same)", &given.AdminListen, func(c *backend.Config) *string { return &c.AdminListen }},
		{"public-url", "https://HOST[:PORT] `where` devices and gateways reach the API", &given.PublicURL, func(c *backend.Config) *string { return &c.PublicURL }},
	}
	for _, f := range flags {
		cmd.Flags().StringVar(f.text, f.name, "", f.usage)
	}
	return func(cfg *backend.Config) {
		for _, f := range flags {
			if cmd.Flags().Changed(f.name) {
				*f.field(cfg) = *f.text
			}
		}
	}
}

func newServe(s *settings) *cobra.Command {
	var logLevel string
	var apply func(*backend.Config)
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve until interrupted; prints one JSON line when ready, logs JSON to stderr",
		Long:  "Serve until SIGINT or SIGTERM; SIGHUP reads the configuration again.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			load := func() (backend.Config, error) {
				cfg, err := s.load()
				if err != nil {
					return backend.Config{}, err
				}
				apply(&cfg)
				if cmd.Flags().Changed("log-level") {
					cfg.LogLevel = logLevel
				}
				return cfg, nil
			}
			cfg, err := load()
			if err != nil {
				return err
			}
			first, err := cfg.Level()
			if err != nil {
				return err
			}
			var level slog.LevelVar
			level.Set(first)
			cfg.Log, cfg.SetLevel = slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: &level})), level.Set
			reloads, stop := command.Reloads(cmd.Context(), cfg.Log, load)
			defer stop()
			cfg.Reload = reloads
			limit, from := memlimit.Set(0)
			cfg.Log.InfoContext(cmd.Context(), "memory limit", "bytes", limit, "from", from)
			cfg.OnReady = func(ready backend.Ready) {
				command.PrintReady(cmd.OutOrStdout(), readyLine{
					Ready: true, API: ready.API, Admin: ready.Admin, Bootstrap: ready.Bootstrap,
				})
			}
			return backend.Run(cmd.Context(), cfg)
		},
	}
	apply = addresses(cmd)
	cmd.Flags().StringVar(&logLevel, "log-level", "", "debug, info, warn or error")
	return cmd
}

func newRescue(s *settings) *cobra.Command {
	var apply func(*backend.Config)
	cmd := command.Rescue(func(*cobra.Command) (backend.Config, error) {
		cfg, err := s.load()
		if err == nil {
			apply(&cfg)
		}
		return cfg, err
	}, backend.Rescue)
	apply = addresses(cmd)
	return cmd
}

func newMigrate(s *settings) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "migrate",
		Short: "Look at or update the database's schema (serve updates it too)",
	}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "status",
			Short: "List the schema's steps and whether the database has them",
			RunE: func(cmd *cobra.Command, _ []string) error {
				return s.migrations(cmd, backend.Migrations, "pending")
			},
		},
		&cobra.Command{
			Use:   "up",
			Short: "Bring the schema up to date",
			RunE: func(cmd *cobra.Command, _ []string) error {
				return s.migrations(cmd, backend.Migrate, "")
			},
		},
		&cobra.Command{
			Use:   "dry-run",
			Short: "Print the SQL that up would run, and change nothing",
			RunE:  func(cmd *cobra.Command, _ []string) error { return s.dryRun(cmd) },
		},
	)
	return cmd
}

// nothingToDo is what a command says that found the schema up to date.
const nothingToDo = "nothing to do"

func (s *settings) dryRun(cmd *cobra.Command) error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	steps, err := backend.PendingMigrations(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	out := cmd.OutOrStdout()
	if len(steps) == 0 {
		_, err := fmt.Fprintln(out, "-- "+nothingToDo)
		return err
	}
	for _, step := range steps {
		if _, err := fmt.Fprintf(out, "-- %s\n%s\n", step.Name, step.SQL); err != nil {
			return err
		}
	}
	return nil
}

func (s *settings) migrations(
	cmd *cobra.Command, do func(context.Context, backend.Config) ([]backend.Migration, error), otherwise string,
) error {
	cfg, err := s.load()
	if err != nil {
		return err
	}
	cfg.Log = slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), nil)) // where the backup is
	steps, err := do(cmd.Context(), cfg)
	if err != nil {
		return err
	}
	if len(steps) == 0 {
		_, err := fmt.Fprintln(cmd.OutOrStdout(), nothingToDo)
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
