// Package backend is the control plane of HTTVPS: the service that knows users,
// devices, plans and gateways and decides who may connect.
package backend

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/httvps/httvps/backend/internal/config"
	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/events"
	"github.com/httvps/httvps/backend/internal/httpapi"
	"github.com/httvps/httvps/backend/internal/metrics"
	"github.com/httvps/httvps/backend/internal/password"
	"github.com/httvps/httvps/backend/internal/seal"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/webhooks"
	"github.com/httvps/httvps/internal/anonym"
	"github.com/httvps/httvps/internal/gate"
	"github.com/httvps/httvps/internal/redirect"
)

// Config is how a control plane is set up. Start from DefaultConfig or LoadConfig.
type Config = config.Config

// Certificate says where the certificate of the listeners is from.
type Certificate = config.Certificate

// Ready says where a started control plane is.
type Ready = config.Ready

// DefaultConfig returns the settings that hold unless said otherwise.
func DefaultConfig() Config { return config.Default() }

// LoadConfig returns the settings of the YAML file at path (empty: none) and
// the HTTVPS_BACKEND_ variables of environ. Run judges them.
func LoadConfig(path string, environ []string) (Config, error) { return config.Load(path, environ) }

const (
	shutdownTimeout = 10 * time.Second
	pruneInterval   = 5 * time.Minute
	maxHeader       = 32 << 10
	// strangerLife is what a connection has in all until a gateway's or an
	// operator's credential has come on it.
	strangerLife = 30 * time.Second
)

// Run serves the control plane until ctx ends, and then lets running requests
// finish for at most 10 s. It returns nil when ctx ended it.
func Run(ctx context.Context, cfg Config) (err error) {
	if err := cfg.Validate(); err != nil {
		return fmt.Errorf("configuration: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	var closers []func() error
	defer func() {
		for _, closer := range slices.Backward(closers) {
			err = errors.Join(err, closer())
		}
	}()
	certified, err := openCertificate(ctx, cfg)
	if err != nil {
		return err
	}
	closers = append(closers, certified.close)
	// Addresses first: a port in use must leave nothing behind.
	public := cfg.Listener
	if public == nil {
		if public, err = listen(ctx, "listen", cfg.Listen); err != nil {
			return err
		}
	}
	closers = append(closers, closeQuietly(public))
	var admin net.Listener
	if cfg.AdminListen != "" {
		if admin, err = listen(ctx, "admin_listen", cfg.AdminListen); err != nil {
			return err
		}
		closers = append(closers, closeQuietly(admin))
	}
	var plain net.Listener
	if cfg.HTTPListen != "" {
		if plain, err = listen(ctx, "http_listen", cfg.HTTPListen); err != nil {
			return err
		}
		closers = append(closers, closeQuietly(plain))
	}

	appended := events.NewSignal()
	records, err := openStore(ctx, cfg, false, appended.Send)
	if err != nil {
		return err
	}
	closers = append(closers, records.Close)
	presence, err := records.Attend(ctx, cfg.NATS.URL != "")
	if err != nil {
		return err
	}
	closers = append(closers, presence.Close)
	sends := &sending{}
	authority, err := openAuthority(ctx, cfg, records, public, admin, sends.wake)
	if err != nil {
		return err
	}
	measured := metrics.New()
	sender := webhooks.New(authority, webhooks.NewClient(policyOf(cfg).Guarded(), nil), measured, cfg.Log)
	sends.sender.Store(sender)
	told := events.NewSignal()
	bus, err := openBus(ctx, cfg, authority.Identity().ServiceID, told, measured)
	if err != nil {
		return err
	}
	if bus != nil {
		closers = append(closers, func() error { bus.Close(); return nil })
	}
	hub := newHub(cfg, authority, bus, appended, told, measured)
	ping := func(ctx context.Context) error { return errors.Join(presence.Check(), records.Ping(ctx)) }
	handlers, err := httpapi.New(httpapi.Options{
		Authority: authority, Hub: hub, Log: cfg.Log, Observer: measured, Metrics: measured.Handler(),
		Ready: (&readiness{check: ping, tell: measured.Ready}).Ready, Bus: func() string { return stateOf(bus) },
		AdminApart: admin != nil, Diagnostics: isLoopback(public), RefusalsPerMinute: cfg.RefusalsPerMinute,
	})
	if err != nil {
		return err
	}
	ready, err := announce(ctx, cfg, authority)
	if err != nil {
		return err
	}
	ready.Listeners = append(ready.Listeners, public.Addr())
	if admin != nil {
		ready.Listeners = append(ready.Listeners, admin.Addr())
	}

	g, gctx := errgroup.WithContext(ctx)
	serve := func(l net.Listener, handler http.Handler, tlsConfig *tls.Config) {
		server := newServer(handler, tlsConfig, cfg.Log)
		g.Go(func() error { return serveUntil(gctx, server, l) })
	}
	running := reloader{inForce: cfg, certificate: certified}
	tell := gate.Tell(measured.TurnedAway, cfg.Log)
	guard := func(l net.Listener) net.Listener {
		guarded := gate.New(l, gate.Limits{
			Total: cfg.Limits.Unauthenticated, PerPrefix: cfg.Limits.UnauthenticatedPerPrefix, Life: strangerLife,
		}, tell)
		running.gates = append(running.gates, guarded)
		return guarded
	}
	serve(guard(public), handlers.Public, certified.tls)
	if admin != nil {
		serve(guard(admin), handlers.Admin, certified.tls)
	}
	if plain != nil {
		guarded := guard(plain)
		g.Go(func() error { return redirect.Serve(gctx, guarded, certified.redirect(authority.APIBase())) })
	}
	g.Go(func() error { certified.run(gctx); return nil })
	g.Go(func() error { running.run(gctx); return nil })
	if cfg.Local != nil {
		serve(cfg.Local, handlers.Public, nil)
	}
	g.Go(func() error { return hub.Run(gctx) })
	g.Go(func() error { return presence.Keep(gctx) })
	g.Go(func() error { return prune(gctx, authority, measured, cfg.Log) })
	g.Go(func() error { return measureOutline(gctx, authority, measured, cfg.Log) })
	g.Go(func() error { return watch(gctx, authority, cfg.Log) })
	g.Go(func() error { return sender.Run(gctx) })
	g.Go(func() error { return measureWebhooks(gctx, authority, measured) })
	g.Go(func() error {
		return keepBackups(gctx, cfg, backupNews{measured, backupFailed(gctx, authority, cfg.Log)})
	})
	if ready.Bootstrap != "" {
		cfg.Log.WarnContext(ctx, "there is no operator yet: run httvpsctl bootstrap with the one-time link within 15 minutes",
			"bootstrap", ready.Bootstrap)
	}
	g.Go(func() error {
		if certified.wait(gctx) {
			cfg.Log.InfoContext(gctx, "control plane ready", "listen", public.Addr().String())
			if cfg.OnReady != nil {
				cfg.OnReady(ready)
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil && ctx.Err() == nil {
		return err
	}
	cfg.Log.Info("control plane stopped") //nolint:sloglint // ctx is over
	return nil
}

func listen(ctx context.Context, key, address string) (net.Listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", address)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	return l, nil
}

// closeQuietly closes a listener that its server has most likely closed already.
func closeQuietly(l net.Listener) func() error {
	return func() error {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			return err
		}
		return nil
	}
}

func openAuthority(ctx context.Context, cfg Config, records *store.Store, public, admin net.Listener, posted func()) (*control.Authority, error) {
	sealed, err := records.HasSecrets(ctx)
	if err != nil {
		return nil, err
	}
	source := cfg.Keys()
	source.Make = source.Make && !sealed // a new key would open nothing
	keys, err := seal.Open(source)
	if err != nil {
		return nil, err
	}
	if keys.Exposed() {
		cfg.Log.WarnContext(ctx, "everybody on this machine can read the key-encryption key", "file", keys.Name())
	}
	opts := control.Options{
		Store: records, Sealer: keys, Passwords: password.New(password.Recommended()), Now: time.Now, ServiceName: cfg.ServiceName, PublicURL: cfg.PublicURL, AdminURL: cfg.AdminURL,
		Pin: cfg.Pin, Heartbeat: time.Duration(cfg.GatewayHeartbeat),
		KnockCookie: cfg.KnockCookie, KnockRotation: time.Duration(cfg.KnockRotation),
		CheckWebhookURL: policyOf(cfg).CheckURL, Posted: posted,
	}
	if opts.PublicURL == "" {
		opts.PublicURL = addressOf(cfg.Listen, public)
	}
	if cfg.AdminListen != "" && opts.AdminURL == "" {
		opts.AdminURL = addressOf(cfg.AdminListen, admin)
	}
	return control.Open(ctx, opts)
}

// addressOf is the URL of a listener, under the name it was configured with. It
// is nil when nobody listens now.
func addressOf(configured string, l net.Listener) string {
	host, port, _ := net.SplitHostPort(configured)
	if l != nil {
		_, port, _ = net.SplitHostPort(l.Addr().String())
	}
	return "https://" + net.JoinHostPort(host, port)
}

func isLoopback(l net.Listener) bool {
	addr, ok := l.Addr().(*net.TCPAddr)
	return ok && addr.IP.IsLoopback()
}

// announce makes what the ready line carries.
func announce(ctx context.Context, cfg Config, authority *control.Authority) (Ready, error) {
	ready := Ready{API: authority.APIBase(), Admin: authority.AdminBase()}
	if cfg.Dev {
		access, err := authority.OpenDev(ctx)
		if err != nil {
			return Ready{}, err
		}
		ready.Invite, ready.Token = access.Invite, access.Token
	}
	if cfg.LocalGateway != "" {
		var err error
		if ready.GatewayJoin, err = authority.OpenLocalGateway(ctx); err != nil {
			return Ready{}, err
		}
	}
	var err error
	ready.Bootstrap, err = authority.OpenBootstrap(ctx)
	return ready, err
}

func newServer(handler http.Handler, tlsConfig *tls.Config, log *slog.Logger) *http.Server {
	return &http.Server{
		Handler:           handler,
		TLSConfig:         tlsConfig.Clone(), // the server adds to it
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       30 * time.Second,
		WriteTimeout:      30 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxHeader,
		ConnContext:       gate.ConnContext,
		ErrorLog:          slog.NewLogLogger(anonym.Handler(log.Handler()), slog.LevelDebug), // strangers' broken handshakes
	}
}

// serveUntil serves until ctx ends and then lets running requests finish.
func serveUntil(ctx context.Context, server *http.Server, l net.Listener) error {
	drained := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		bound, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
		defer cancel()
		err := server.Shutdown(bound)
		if err != nil {
			err = errors.Join(err, server.Close())
		}
		drained <- err
	})
	var err error
	if server.TLSConfig == nil { // within the process
		err = server.Serve(l)
	} else {
		err = server.ServeTLS(l, "", "")
	}
	if stop() { // ctx has not ended: serving failed by itself
		return fmt.Errorf("serve %s: %w", l.Addr(), err)
	}
	return <-drained
}

// prune removes what is over and replaces what is old, at the start and then
// every few minutes.
func prune(ctx context.Context, authority *control.Authority, measured *metrics.Metrics, log *slog.Logger) error {
	ticker := time.NewTicker(pruneInterval)
	defer ticker.Stop()
	for {
		pruned, err := authority.Prune(ctx)
		for kind, n := range map[string]int{
			"invitation": pruned.Invitations, "session": pruned.Sessions, "lost_session": pruned.LostSessions,
			"idempotency_key": pruned.OnceResults, "api_token": pruned.APITokens, "event": pruned.Events,
			"usage_report": pruned.UsageReports, "quota_lease": pruned.QuotaLeases, "login": pruned.Logins, "bulk": pruned.BulkJobs,
			"webhook_delivery": pruned.Deliveries,
		} {
			measured.Pruned(kind, n)
		}
		if err != nil && ctx.Err() == nil {
			log.ErrorContext(ctx, "clean-up failed", "error", err.Error())
		}
		switch made, err := authority.KeepKnock(ctx); {
		case err != nil && ctx.Err() == nil:
			log.ErrorContext(ctx, "knock key not replaced", "error", err.Error())
		case made:
			log.InfoContext(ctx, "next knock key made")
		}
		switch forgotten, err := authority.KeepSigning(ctx); {
		case err != nil && ctx.Err() == nil:
			log.ErrorContext(ctx, "signing keys not looked after", "error", err.Error())
		case forgotten > 0:
			log.InfoContext(ctx, "old signing key forgotten")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}
