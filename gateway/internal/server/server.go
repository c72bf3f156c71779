// Package server joins the parts of a gateway: it listens, lets devices in and
// takes the gateway down again.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"

	"github.com/httvps/httvps/gateway/internal/auth"
	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/gateway/internal/ledger"
	"github.com/httvps/httvps/gateway/internal/masquerade"
	"github.com/httvps/httvps/gateway/internal/metrics"
	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/gateway/internal/pace"
	"github.com/httvps/httvps/gateway/internal/protocol"
	"github.com/httvps/httvps/gateway/internal/quota"
	"github.com/httvps/httvps/gateway/internal/sessions"
	"github.com/httvps/httvps/gateway/internal/upstream"
	"github.com/httvps/httvps/internal/gate"
	"github.com/httvps/httvps/internal/redirect"
	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// halfClosedIdle ends a stream of which one direction has ended and the
	// other does not move.
	halfClosedIdle = 5 * time.Minute
	// shutdownTimeout is what requests that are no tunnels have to finish.
	shutdownTimeout = 5 * time.Second
	// dialShare of the dials at once one session may have, so that targets that
	// never answer cost the session that asks for them, and nobody else.
	dialShare = 8
	// drainPoll is how often a draining gateway looks whether it is empty.
	drainPoll = 100 * time.Millisecond
	// leaveTimeout bounds the word to the control plane that this gateway is about to stop.
	leaveTimeout = 2 * time.Second
	// usageFile is the ledger's, in the data directory.
	usageFile = "usage.db"
)

// errStopping ends handshakes under way when the gateway stops.
var errStopping = errors.New("the gateway is stopping")

// Run serves as the member that cfg.DataDir says until ctx ends, and returns
// when every session, connection and goroutine is over. The error is nil when
// ctx was the reason.
func Run(ctx context.Context, cfg config.Config) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	state, key, err := nodes.LoadState(cfg.DataDir)
	if err != nil {
		return err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	certified, err := openCertificate(ctx, cfg)
	if err != nil {
		return err
	}
	defer certified.close()
	listeners, err := listen(ctx, cfg)
	if err != nil {
		return err
	}
	defer listeners.close()
	g := &gateway{cfg: cfg, certificate: certified, listeners: listeners}
	g.inForce.Store(&cfg)
	first, err := g.newSite(cfg.Masquerade)
	if err != nil {
		return err
	}
	g.site.replace(first)
	if g.ledger, err = openLedger(ctx, cfg); err != nil {
		return errors.Join(err, g.site.Close())
	}
	err = g.build(nodes.Config{State: state, Key: key, Local: cfg.ControlDial})
	if err == nil {
		err = g.run(ctx)
	}
	return errors.Join(err, g.ledger.Close(), g.site.Close())
}

// openLedger opens the ledger of usage in the data directory.
func openLedger(ctx context.Context, cfg config.Config) (*ledger.Ledger, error) {
	l, aside, err := ledger.Open(filepath.Join(cfg.DataDir, usageFile), cfg.Usage.MaxRows)
	if aside != "" {
		cfg.Log.ErrorContext(ctx, "ledger of usage was damaged, and is put aside: what was not reported is only there", "file", aside)
	}
	return l, err
}

// listeners are the addresses that the gateway is reached at.
type listeners struct {
	public net.Listener
	plain  net.Listener // nil: none
	admin  net.Listener // nil: none
	pprof  net.Listener // nil: none
}

func listen(ctx context.Context, cfg config.Config) (listeners, error) {
	var (
		l   listeners
		lc  net.ListenConfig
		err error
	)
	if l.public = cfg.Listener; l.public == nil {
		if l.public, err = lc.Listen(ctx, "tcp", cfg.Listen); err != nil {
			return listeners{}, fmt.Errorf("listen: %w", err)
		}
	}
	for _, further := range []struct {
		key, address string
		to           *net.Listener
	}{{"http_listen", cfg.HTTPListen, &l.plain}, {"admin_listen", cfg.AdminListen, &l.admin}, {"pprof_listen", cfg.PprofListen, &l.pprof}} {
		if further.address == "" {
			continue
		}
		if *further.to, err = lc.Listen(ctx, "tcp", further.address); err != nil {
			l.close()
			return listeners{}, fmt.Errorf("%s: %w", further.key, err)
		}
	}
	return l, nil
}

func (l listeners) all() []net.Listener {
	return slices.DeleteFunc([]net.Listener{l.public, l.plain, l.admin, l.pprof}, func(l net.Listener) bool { return l == nil })
}

func (l listeners) close() {
	for _, listener := range l.all() {
		_ = listener.Close() // closed already when all went well
	}
}

func (l listeners) addrs() []net.Addr {
	var addrs []net.Addr
	for _, listener := range l.all() {
		addrs = append(addrs, listener.Addr())
	}
	return addrs
}

// gateway is one start of the gateway.
type gateway struct {
	cfg         config.Config                 // of the start
	inForce     atomic.Pointer[config.Config] // with what was reloaded since
	certificate *certificate
	listeners   listeners
	gate        *gate.Gate
	plain       *gate.Gate // nil: there is no plain HTTP
	prom        *prometheus.Registry
	metrics     *metrics.Metrics
	registry    *sessions.Registry
	reviews     *reviews
	ledger      *ledger.Ledger
	usage       *usage
	quotas      *quotas
	resumes     *resumes
	drain       *drain
	node        *nodes.Node
	knocks      *knocks
	exits       *exits
	tunnels     *tunnels
	site        site
}

// build makes the parts. It starts nothing.
func (g *gateway) build(member nodes.Config) error {
	var err error
	limits := g.cfg.Limits
	g.registry = sessions.New(limits.Sessions, sessions.Leaving{Bytes: uint64(limits.SessionBudget), Streams: targetsOf(limits)},
		pace.NewUplink(limits.UplinkUp, limits.UplinkDown))
	guard := func(l net.Listener, life time.Duration) *gate.Gate {
		return gate.New(l, gate.Limits{Total: limits.Unauthenticated, PerPrefix: limits.UnauthenticatedPerPrefix, Life: life},
			gate.Tell(func(limit string) { g.metrics.TurnedAway(limit) }, g.cfg.Log))
	}
	g.gate = guard(g.listeners.public, masquerade.Life+limits.HandshakeTimeout.Std())
	if g.listeners.plain != nil {
		g.plain = guard(g.listeners.plain, redirect.Life)
	}

	member.URL, member.Version, member.Log = g.cfg.URL, g.cfg.Version, g.cfg.Log
	member.MaxEnded = 2 * limits.Sessions
	member.Load = func() nodes.Load {
		return nodes.Load{Sessions: g.registry.Len(), Streams: g.registry.Streams()}
	}
	member.Dir, member.Grace = g.cfg.DataDir, g.cfg.OutageGrace.Std()
	member.Live = g.registry.Devices
	member.Sessions = func(user string) int {
		return len(g.registry.Those(func(of sessions.Terms) bool { return of.User == user }))
	}
	member.Recognized = func(user string) { g.reviews.add(sessions.Terms{User: user}) }
	member.StoodIn = func(result string) { g.metrics.StoodIn(result) }
	member.Close = func(c nodes.Closing) {
		if !g.registry.End(c.Session, c.Reason.Wire()) {
			g.reviews.changed() // it may be about to begin
		}
	}
	member.Observe = func(call string, err error) { g.metrics.Control(call, err) }
	g.reviews = newReviews(g.registry)
	g.quotas = &quotas{book: quota.NewBook(), review: g.reviews.add, log: g.cfg.Log}
	member.Leases, member.Granted = g.quotas.held, g.quotas.granted
	g.resumes = newResumes(limits)
	g.drain = newDrain(func() time.Duration { return g.inForce.Load().DrainTimeout.Std() }, g.cfg.Log)
	member.Drain = g.drain.told
	member.Event = func(e nodes.Event) {
		revoke(g.registry, e)
		g.reviews.event(e)
		if g.exits.event != nil {
			g.exits.event(e)
		}
	}
	if g.node, err = nodes.New(member); err != nil {
		return err
	}
	g.quotas.renew = g.node.RenewQuotas
	memory := mux.NewMemory(memoryFor(limits.Memory))
	g.exits, err = newExits(g.cfg.Upstream, append(g.listeners.addrs(), g.cfg.Own...), g.node, g.cfg.Log, func() *metrics.Metrics { return g.metrics }, memory.Hold)
	if err != nil {
		return err
	}
	g.knocks = newKnocks(g.cfg.Knock, g.node.Knock)
	if err := g.buildMetrics(); err != nil {
		return err
	}
	g.usage = &usage{
		ledger: g.ledger, boot: g.node.Boot(), live: g.registry.All, report: g.node.ReportUsage,
		interval: g.cfg.Usage.Interval.Std(), pace: g.cfg.Usage.ReportInterval.Std(),
		refused: g.metrics.UsageRefused, turnedAway: g.metrics.NoLedger, log: g.cfg.Log, wake: make(chan struct{}, 1),
	}
	g.tunnels = &tunnels{
		handshake: protocol.Handshake{Timeout: limits.HandshakeTimeout.Std(), Offer: g.offered(), Fronts: g.cfg.Fronts},
		resumes:   g.resumes,
		drain:     g.drain,
		checker:   auth.New(auth.Config{Tokens: tokens{g.node}, RequireBinding: g.cfg.RequireChannelBinding}),
		node:      g.node,
		grace:     g.cfg.OutageGrace.Std(),
		registry:  g.registry,
		reviews:   g.reviews,
		usage:     g.usage,
		quotas:    g.quotas.book,
		streams:   newStreams(limits, g.exits, g.registry, g.metrics),
		metrics:   g.metrics,
		memory:    memory,
		log:       g.cfg.Log,
		site:      &g.site,
	}
	g.tunnels.limits.Store(&limits)
	g.tunnels.padding.Store(g.cfg.Padding.Policy())
	return nil
}

// offered are the capabilities of every handshake.
func (g *gateway) offered() wire.Capabilities {
	offered := g.resumes.offered().With(wire.Terms).With(wire.Drain)
	if g.cfg.RequireChannelBinding { // otherwise somebody may end TLS in between, and no binding would hold
		offered = offered.With(wire.ChannelBinding)
	}
	return offered
}

// newSite opens what strangers meet.
func (g *gateway) newSite(want config.Masquerade) (*masquerade.Site, error) {
	cfg := masquerade.Config{
		Dir: want.Dir, HSTS: want.HSTS.Std(), Log: g.cfg.Log,
		Hide: func(name string) bool { return g.knocks.hides(name) },
	}
	if text := want.URL; text != "" {
		var err error
		if cfg.URL, err = config.ParseSite(text); err != nil {
			return nil, fmt.Errorf("masquerade.url: %w", err)
		}
	}
	return masquerade.New(cfg)
}

// targetsOf is how many connections to targets one session may have.
func targetsOf(limits config.Limits) int { return 2 * limits.MaxStreams }

func newStreams(limits config.Limits, leave *exits, registry *sessions.Registry, counters *metrics.Metrics) *protocol.Streams {
	return &protocol.Streams{
		NewUpstream: func(id [16]byte) protocol.Upstream {
			var plan *upstream.Narrowing
			if live, ok := registry.Find(id); ok { // as long as it is served
				plan = &live.Egress
			}
			return leave.upstream(id, plan)
		},
		Slots:          make(chan struct{}, limits.Dials),
		SessionDials:   max(1, min(limits.MaxStreams, limits.Dials/dialShare)),
		SessionTargets: targetsOf(limits),
		Idle:           limits.IdleTimeout.Std(),
		HalfClosedIdle: halfClosedIdle,
		Observe:        func(result string, took time.Duration) { counters.Opened(leave.mode, result, took) },
		ObserveFlow:    counters.FlowOpened,
		Dropped:        counters.Dropped,
	}
}

func (g *gateway) buildMetrics() error {
	g.prom = prometheus.NewRegistry()
	g.prom.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	total := g.registry.Total()
	var err error
	g.metrics, err = metrics.New(g.prom, g.cfg.Version, g.exits.mode, metrics.Gauges{
		Sessions:        func() float64 { return float64(g.registry.Len()) },
		Lost:            func() float64 { return float64(g.resumes.count()) },
		Streams:         func() float64 { return float64(g.registry.Streams()) },
		Flows:           func() float64 { return float64(g.tunnels.streams.Flows()) },
		Up:              func() float64 { return float64(total.Up()) },
		Down:            func() float64 { return float64(total.Down()) },
		Unauthenticated: func() float64 { return float64(g.gate.Strangers()) },
		Joined:          func() float64 { return indicate(g.node.Joined()) },
		Draining:        func() float64 { return indicate(g.drain.draining() || g.registry.Stopping()) },
		Probes:          g.exits.probes,
		Memory:          func() float64 { return float64(g.tunnels.memory.Used()) },
		MemoryLimit:     func() float64 { return float64(memoryFor(g.cfg.Limits.Memory)) },
		StandsIn:        func() float64 { return indicate(g.node.StandsIn()) },
		Breaker:         func() string { return breakerNames[g.node.Breaker()] },
		Untold:          func() float64 { return float64(g.node.Untold()) },
		Ledger: func() metrics.Ledger {
			stats := g.ledger.Stats()
			return metrics.Ledger{Rows: stats.Rows, Bytes: stats.Bytes, Oldest: stats.Oldest, Written: g.usage.writtenUntil()}
		},
		Quotas: func() metrics.Quotas { return metrics.Quotas(g.quotas.book.Stats()) },
	})
	return err
}

// breakerNames are the breaker's states in metrics.
var breakerNames = map[nodes.BreakerState]string{
	nodes.BreakerClosed: metrics.BreakerClosed, nodes.BreakerOpen: metrics.BreakerOpen, nodes.BreakerHalfOpen: metrics.BreakerHalfOpen,
}

// indicate is a yes as a metric has it.
func indicate(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// run serves until ctx ends or a listener fails.
func (g *gateway) run(ctx context.Context) error {
	u, err := config.ParseURL(g.cfg.URL)
	if err != nil {
		return err
	}
	handshakes, stopHandshakes := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopHandshakes(nil)
	passing, err := g.node.Relay()
	if err != nil {
		return err
	}
	public := newPublic(handshakes, newFront(g.cfg.URLs(), g.knocks, g.tunnels, passing, &g.site), g.certificate.apply, g.cfg.Log)
	failed := make(chan error, 4)
	serving := 1
	go func() { failed <- serve("listen", public.ServeTLS(carrier.Listener(g.gate), "", "")) }()

	plainly, stopPlain := context.WithCancel(context.WithoutCancel(ctx))
	defer stopPlain()
	if g.plain != nil {
		serving++
		go func() {
			failed <- serve("http_listen", redirect.Serve(plainly, g.plain, g.certificate.redirect(g.cfg, u)))
		}()
	}
	var admin []*http.Server
	for _, further := range []struct {
		key    string
		l      net.Listener
		server *http.Server
	}{{"admin_listen", g.listeners.admin, newAdmin(g.prom, g.unready)}, {"pprof_listen", g.listeners.pprof, newPprof()}} {
		if further.l == nil {
			continue
		}
		admin = append(admin, further.server)
		serving++
		go func() { failed <- serve(further.key, further.server.Serve(further.l)) }()
	}
	membership, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	var left sync.WaitGroup
	left.Go(func() { g.node.Run(membership) })
	left.Go(func() { g.reviews.run(membership) })
	left.Go(func() { g.usage.run(membership) })
	left.Go(func() { g.quotas.run(membership) })
	left.Go(func() { g.certificate.run(membership) })
	left.Go(func() { g.follow(membership) })
	left.Go(func() { g.drain.run(membership) })
	if g.exits.run != nil {
		left.Go(func() { g.exits.run(membership) })
	}

	err = g.wait(ctx, failed, &serving)

	g.cfg.Log.InfoContext(ctx, "gateway stopping", "sessions", g.registry.Len())
	g.sendAway(ctx)
	stopHandshakes(errStopping)
	stopPlain()
	shutdown(ctx, public)
	g.registry.EndAll(wire.CodeShutdown)
	g.tunnels.wait()
	leave() // the control plane hears of the sessions that ended
	left.Wait()
	for _, server := range admin {
		shutdown(ctx, server)
	}
	for range serving {
		err = errors.Join(err, <-failed)
	}
	return err
}

// wait tells when the gateway is ready, and returns when it has to stop.
func (g *gateway) wait(ctx context.Context, failed <-chan error, serving *int) error {
	if missing := g.certificate.missing(); len(missing) > 0 {
		g.cfg.Log.InfoContext(ctx, "waiting for a certificate", "hosts", missing)
	}
	for _, needed := range []<-chan struct{}{g.node.Ready(), g.certificate.ready()} {
		select {
		case <-needed:
		case <-ctx.Done():
			return nil
		case err := <-failed:
			*serving--
			return err
		}
	}
	g.cfg.Log.InfoContext(ctx, "gateway ready", "url", g.cfg.URL)
	if g.cfg.OnReady != nil {
		g.cfg.OnReady(g.ready())
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-failed:
		*serving--
		return err
	}
}

func (g *gateway) ready() config.Ready {
	ready := config.Ready{Gateway: g.cfg.URL}
	if g.listeners.admin != nil {
		ready.Admin = g.listeners.admin.Addr().String()
	}
	return ready
}

// unready lists what keeps devices from being served.
func (g *gateway) unready() []string {
	var missing []string
	select {
	case <-g.node.Ready():
		if !g.node.Joined() {
			missing = append(missing, "the control plane does not answer")
		}
	default:
		missing = append(missing, "the control plane has not answered yet")
	}
	for _, host := range g.certificate.missing() {
		missing = append(missing, "there is no certificate for "+host+" yet")
	}
	if g.knocks.none() {
		missing = append(missing, "no knock key is known: nobody is let in")
	}
	switch {
	case g.registry.Stopping():
		missing = append(missing, "stopping")
	case g.drain.draining():
		missing = append(missing, "drained by an operator")
	}
	return missing
}

// sendAway has no session begin any more, and gives those that live the time to end by
// themselves: their devices turn to other gateways. Those that have lost their connection
// may still come back to it.
func (g *gateway) sendAway(ctx context.Context) {
	g.registry.Stop()
	within := g.inForce.Load().DrainTimeout.Std()
	_, settled := settling(within)
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout+settled+within)
	defer cancel()
	if within == 0 || g.registry.Len() == 0 {
		return
	}
	telling, told := context.WithTimeout(ctx, leaveTimeout)
	defer told()
	g.node.Leave(telling)
	g.drain.stop(within)
	ticker := time.NewTicker(drainPoll)
	defer ticker.Stop()
	for g.registry.Len() > 0 {
		select {
		case <-ticker.C:
		case <-g.cfg.Hurry:
			return
		case <-ctx.Done():
			return
		}
	}
}

// serve turns the end that was asked for into no error.
func serve(which string, err error) error {
	if err == nil || errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("%s: %w", which, err)
}

func shutdown(ctx context.Context, server *http.Server) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownTimeout)
	defer cancel()
	if err := server.Shutdown(ctx); err != nil {
		_ = server.Close() // whoever is still there had his time
	}
}
