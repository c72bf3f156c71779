// Command httvps-server is a whole HTTVPS service in one process: the control
// plane and a gateway, joined over loopback with the same API that they speak
// on different machines.
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
	"golang.org/x/sync/errgroup"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/gateway"
)

// version is set by the linker.
var version = "dev"

const (
	exitFailure = 1
	exitUsage   = 2
)

// usageError is a mistake in the command line.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Environ(), os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the program without the process around it.
func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	root := newRoot(environ)
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	_, _ = fmt.Fprintf(stderr, "httvps-server: %v\n", err) // nobody is left to be told
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	return exitFailure
}

func newRoot(environ []string) *cobra.Command {
	s := &settings{environ: environ}
	root := &cobra.Command{
		Use:   "httvps-server --data DIR",
		Short: "A whole HTTVPS service in one process",
		Long: "Serve the control plane and one gateway until SIGINT or SIGTERM. Logs go to stderr as JSON. When devices\n" +
			"can connect, one line goes to stdout:\n" +
			`{"ready":true,"api":URL,"gateway":URL,"bootstrap":URL,"ca":FILE}` + "\n\n" +
			"With --dev the service has its own certificate authority, a first user with an invitation, and an operator's\n" +
			`token, which are added to that line as "invite" and "token"; and devices may reach loopback addresses.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		Args:              noArgs,
		RunE:              func(cmd *cobra.Command, _ []string) error { return serve(cmd, s) },
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	s.flags(root)
	root.AddCommand(newHealth(s), newConfig(s), &cobra.Command{
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

// readyLine is what the program says on stdout, once. Scripts depend on it.
type readyLine struct {
	Ready     bool   `json:"ready"`
	API       string `json:"api"`
	Gateway   string `json:"gateway"`
	Bootstrap string `json:"bootstrap"`
	CA        string `json:"ca"`
	Invite    string `json:"invite,omitempty"`
	Token     string `json:"token,omitempty"`
}

// serve runs both halves. The gateway joins the control plane when it has not
// yet, and follows it wherever it is.
func serve(cmd *cobra.Command, s *settings) error {
	cfg, err := s.load(cmd)
	if err != nil {
		return err
	}
	if err := cfg.validate(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if err := cfg.open(cmd.Context()); err != nil {
		return err
	}
	defer cfg.close()
	log := slog.New(slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: cfg.Gateway.LogLevel}))
	cfg.Backend.Log = log.With("part", "backend")
	cfg.Gateway.Log = log.With("part", "gateway")

	// The control plane outlives the gateway, which reports its last sessions.
	g, ctx := errgroup.WithContext(cmd.Context())
	backendCtx, stopBackend := context.WithCancel(context.WithoutCancel(ctx))
	defer stopBackend()
	started := make(chan backend.Ready, 1)
	cfg.Backend.OnReady = func(r backend.Ready) { started <- r }
	g.Go(func() error {
		if err := backend.Run(backendCtx, cfg.Backend); err != nil {
			return fmt.Errorf("backend: %w", err)
		}
		return nil
	})
	g.Go(func() error {
		defer stopBackend()
		var control backend.Ready
		select {
		case control = <-started:
		case <-ctx.Done():
			return nil // the backend says why
		}
		if err := join(ctx, cfg.Gateway, control.GatewayJoin); err != nil {
			return err
		}
		cfg.Gateway.OnReady = func(r gateway.Ready) {
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetEscapeHTML(false)  // links stay readable
			_ = enc.Encode(readyLine{ // whoever waited for it is gone
				Ready: true, API: control.Admin, Gateway: r.Gateway, Bootstrap: control.Bootstrap, CA: cfg.caFile,
				Invite: control.Invite, Token: control.Token,
			})
		}
		return gateway.Run(ctx, cfg.Gateway)
	})
	return g.Wait()
}

// join makes the gateway a member of the control plane beside it, on the first
// start.
func join(ctx context.Context, cfg gateway.Config, link string) error {
	_, err := gateway.LoadMembership(cfg.DataDir)
	if !errors.Is(err, gateway.ErrNotJoined) {
		return err
	}
	_, err = gateway.Join(ctx, gateway.JoinConfig{Link: link, DataDir: cfg.DataDir, URL: cfg.URL, Version: version})
	return err
}
