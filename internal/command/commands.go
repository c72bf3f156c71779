package command

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"
)

// Version returns the command "version", and gives the root that it is added
// to the flag --version: both print the root's name and the version.
func Version(version string) *cobra.Command {
	return &cobra.Command{
		Use:         "version",
		Short:       "Print the version",
		Annotations: map[string]string{versionKey: version},
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), cmd.Root().Name(), version)
			return err
		},
	}
}

// versionKey annotates the command that Version made with its version.
const versionKey = "version"

// Checked is a configuration that can be judged: by itself, and by the files that
// it names, of which Check also returns what is worth a warning.
type Checked interface {
	Validate() error
	Check() (warnings []string, err error)
}

// check judges both. Files are looked at whatever else is wrong.
func check(cfg Checked) (warnings []string, err error) {
	warnings, err = cfg.Check()
	return warnings, errors.Join(cfg.Validate(), err)
}

// Config returns the command "config" with "check" and "print" below it. load
// returns the configuration in force under a command's flags, not yet judged,
// so that a configuration with mistakes can be printed. What yaml.Marshal makes
// of C is printed whole: secrets do not belong in it.
func Config[C Checked](load func(*cobra.Command) (C, error)) *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Look at the configuration in force: file, environment and flags"}
	cmd.AddCommand(
		&cobra.Command{
			Use:   "check",
			Short: "Say everything that is wrong with it, and with the files that it names",
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := load(cmd)
				if err != nil {
					return err
				}
				warnings, err := check(cfg)
				for _, warning := range warnings {
					_, _ = fmt.Fprintf(cmd.ErrOrStderr(), "warning: %s\n", warning) // there is nobody else to tell
				}
				if err != nil {
					return err
				}
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "the configuration is valid")
				return err
			},
		},
		&cobra.Command{
			Use:   "print",
			Short: "Print it as YAML, defaults included",
			RunE: func(cmd *cobra.Command, _ []string) error {
				cfg, err := load(cmd)
				if err != nil {
					return err
				}
				encoder := yaml.NewEncoder(cmd.OutOrStdout())
				encoder.SetIndent(2)
				if err := encoder.Encode(cfg); err != nil {
					return fmt.Errorf("print the configuration: %w", err)
				}
				return encoder.Close()
			},
		},
	)
	return cmd
}

// Health returns the command "health", which a container's probe runs. It asks
// the server that runs with the configuration that load returns whether it
// lives, or with --ready whether it can serve. server and able are for the help:
// who is asked, and what holds when that server can serve.
func Health[C any](
	server, able string, load func(*cobra.Command) (C, error), ask func(ctx context.Context, cfg C, ready bool) error,
) *cobra.Command {
	var ready bool
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask " + server + " how it is",
		Long:  "Ask " + server + " how it is. Exit code 0 when it lives; with --ready, when " + able + ".",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			return ask(cmd.Context(), cfg, ready)
		},
	}
	cmd.Flags().BoolVar(&ready, "ready", false, "ask whether it can serve, not only whether it lives")
	return cmd
}

// Rescue returns the command "rescue", which lets an operator back in who has
// no valid token any more. do revokes all of them in the stopped server whose
// configuration load returns, and returns the one-time link to a new one.
func Rescue[C any](load func(*cobra.Command) (C, error), do func(ctx context.Context, cfg C) (link string, err error)) *cobra.Command {
	return &cobra.Command{
		Use:   "rescue",
		Short: "Revoke all API tokens and print a one-time link to a new one (while the server is stopped)",
		Long: "Revoke the API tokens of all operators and print a one-time link that gives the owner a new one: when every\n" +
			"token has expired or is lost, or somebody else has one. The server must be stopped, and be started again\n" +
			"within the link's 15 minutes; then run httvpsctl bootstrap LINK. Devices and gateways notice nothing else.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := load(cmd)
			if err != nil {
				return err
			}
			link, err := do(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			_, _ = fmt.Fprintln(cmd.ErrOrStderr(), "All API tokens are revoked. Start the server and run httvpsctl bootstrap with this link within 15 minutes:")
			_, err = fmt.Fprintln(cmd.OutOrStdout(), link)
			return err
		},
	}
}

// PrintReady writes line to w as one line of JSON: what a server says on stdout,
// once, to whoever started it. Nobody may be reading, which is no error.
func PrintReady(w io.Writer, line any) {
	encoder := json.NewEncoder(w)
	encoder.SetEscapeHTML(false) // & is part of links
	_ = encoder.Encode(line)
}
