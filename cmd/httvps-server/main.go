// Command httvps-server is a whole HTTVPS service in one process: the control
// plane and a gateway, which speak the same API in memory that they speak
// between machines.
package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/internal/command"
	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/internal/inproc"
	"github.com/httvps/httvps/internal/memlimit"
)

// version is set by the linker.
var version = "dev"

func main() {
	environ := os.Environ()
	configfile.Forget(backend.SecretVariables()...)
	os.Exit(command.Main(newRoot(environ)))
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
		RunE: func(cmd *cobra.Command, _ []string) error { return serve(cmd, s) },
	}
	s.flags(root)
	root.AddCommand(
		command.Health("the service that runs here with the same configuration", "devices can connect", s.load,
			func(ctx context.Context, cfg *config, ready bool) error {
				return gateway.Health(ctx, cfg.Gateway.AdminListen, ready)
			}),
		command.Rescue(s.load, rescue), command.KEK(s.load, keys), command.Backup(s.load, backups), command.Restore(s.load, backups), command.Config(s.load), command.Version(version),
	)
	return root
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
	if err := cfg.needData(); err != nil {
		return err
	}
	if err := cfg.Validate(); err != nil {
		if s.file == "" && !s.dev {
			err = fmt.Errorf("%w\nGive it in --config FILE; or only try it, with --dev", err)
		}
		return fmt.Errorf("configuration: %w", err)
	}
	if err := cfg.open(cmd.Context()); err != nil {
		return err
	}
	defer cfg.close()
	var ofBackend, ofGateway slog.LevelVar
	ofGateway.Set(cfg.Gateway.LogLevel) // which is that of the process, too
	own, err := cfg.Backend.Level()
	if err != nil {
		return err
	}
	ofBackend.Set(own)
	everything := slog.NewJSONHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: slog.Level(math.MinInt)})
	log := slog.New(leveled{everything, &ofGateway})
	cfg.Backend.Log = slog.New(leveled{everything, &ofBackend}).With("part", "backend")
	cfg.Gateway.Log = log.With("part", "gateway")
	limit, from := memlimit.Set(cfg.Gateway.MemoryLimit)
	log.InfoContext(cmd.Context(), "memory limit", "bytes", limit, "from", from)
	if err := cfg.openACME(log); err != nil {
		return err
	}

	hurry, calm := command.Hurry()
	defer calm()
	cfg.Gateway.Hurry = hurry
	within := inproc.New()
	cfg.Backend.Local, cfg.Gateway.ControlDial = within, within.Dial

	// The control plane outlives the gateway, which reports its last sessions.
	g, ctx := errgroup.WithContext(cmd.Context())
	if cfg.acme != nil {
		defer cfg.acme.Close() // the gateway runs it
	}
	if !s.dev {
		cfg.Backend.SetLevel, cfg.Gateway.SetLevel = ofBackend.Set, ofGateway.Set
		reloads, stop := command.Reloads(ctx, log, func() (*config, error) { return s.load(cmd) })
		defer stop()
		toBackend, toGateway := make(chan backend.Config), make(chan gateway.Config)
		cfg.Backend.Reload, cfg.Gateway.Reload = toBackend, toGateway
		g.Go(func() error { share(ctx, reloads, toBackend, toGateway); return nil })
	}
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
		cfg.Gateway.Own = control.Listeners
		cfg.Gateway.OnReady = func(r gateway.Ready) {
			command.PrintReady(cmd.OutOrStdout(), readyLine{
				Ready: true, API: control.Admin, Gateway: r.Gateway, Bootstrap: control.Bootstrap, CA: cfg.caFile,
				Invite: control.Invite, Token: control.Token,
			})
		}
		return gateway.Run(ctx, cfg.Gateway)
	})
	return g.Wait()
}

// share gives each half its part of the configurations, until ctx ends.
func share(ctx context.Context, reloads <-chan *config, ofBackend chan<- backend.Config, ofGateway chan<- gateway.Config) {
	for {
		select {
		case <-ctx.Done():
			return
		case next := <-reloads:
			give(ctx, ofBackend, next.Backend)
			give(ctx, ofGateway, next.Gateway)
		}
	}
}

func give[C any](ctx context.Context, to chan<- C, cfg C) {
	select {
	case <-ctx.Done():
	case to <- cfg:
	}
}

// join makes the gateway a member of the control plane beside it, on the first
// start.
func join(ctx context.Context, cfg gateway.Config, link string) error {
	_, err := gateway.LoadMembership(cfg.DataDir)
	if !errors.Is(err, gateway.ErrNotJoined) {
		return err
	}
	_, err = gateway.Join(ctx, gateway.JoinConfig{
		Link: link, DataDir: cfg.DataDir, URL: cfg.URL, Version: version, ControlDial: cfg.ControlDial,
	})
	return err
}
