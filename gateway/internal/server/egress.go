package server

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"strings"
	"sync"

	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/gateway/internal/metrics"
	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/gateway/internal/protocol"
	"github.com/httvps/httvps/gateway/internal/upstream"
	"github.com/httvps/httvps/sdk/go/wire"
)

// egress is how the streams and flows of one session leave this gateway.
type egress interface {
	upstream.Dialer
	upstream.PacketDialer
}

// packets is an egress as the tunnel's half of the gateway sees it.
type packets struct{ egress }

func (p packets) DialPacket(ctx context.Context, target wire.Addr) (protocol.PacketConn, netip.AddrPort, error) {
	return p.egress.DialPacket(ctx, target)
}

func (p packets) ListenPacket(ctx context.Context) (protocol.PacketConn, error) {
	return p.egress.ListenPacket(ctx)
}

// exits is how all sessions leave.
type exits struct {
	mode string // for metrics
	// forSession returns how one does, within what its plan denies; done is for its end.
	forSession func(id [16]byte, plan *upstream.Narrowing) (out egress, done func())
	// run does what has to be done meanwhile, until ctx ends. Nil: nothing.
	run func(ctx context.Context)
	// event is told what the control plane says; it is nil unless the servers are
	// the control plane's.
	event func(nodes.Event)
	// probes are what was seen of Outline servers.
	probes func() []metrics.Probe
}

// upstream is exits as the tunnel's half of the gateway sees it.
func (e *exits) upstream(id [16]byte, plan *upstream.Narrowing) protocol.Upstream {
	out, done := e.forSession(id, plan)
	return protocol.Upstream{
		Dial:    func(ctx context.Context, target wire.Addr) (protocol.Conn, error) { return out.Dial(ctx, target) },
		Packets: packets{out},
		Close:   done,
	}
}

func simple(mode string, forSession func(*upstream.Narrowing) egress) *exits {
	return &exits{
		mode:       mode,
		forSession: func(_ [16]byte, plan *upstream.Narrowing) (egress, func()) { return forSession(plan), func() {} },
		probes:     func() []metrics.Probe { return nil },
	}
}

// usesPool reports whether the control plane says which server a session leaves
// through.
func usesPool(cfg config.Upstream) bool {
	return cfg.Mode == config.Outline && cfg.Outline.Source == config.Control
}

// newExits returns how the sessions of a gateway leave. own are the listeners that
// nothing reaches; counters are asked for when something happens; held is told of the
// memory that waits for devices outside of their sessions.
func newExits(
	cfg config.Upstream, own []net.Addr, control outlineControl, log *slog.Logger, counters func() *metrics.Metrics, held func(n int),
) (*exits, error) {
	switch cfg.Mode {
	case config.Echo:
		return simple(cfg.Mode, func(*upstream.Narrowing) egress { return upstream.Echo{} }), nil
	case config.Devnull:
		return simple(cfg.Mode, func(*upstream.Narrowing) egress { return upstream.Devnull{} }), nil
	case config.Direct, config.Outline:
	default:
		return nil, fmt.Errorf("upstream mode %q", cfg.Mode)
	}
	policy, err := newPolicy(cfg, own)
	if err != nil {
		return nil, err
	}
	if cfg.Mode == config.Outline {
		return newOutline(cfg, policy, control, log, counters, held)
	}
	direct := upstream.NewDirect(upstream.DirectConfig{Policy: policy})
	return simple(cfg.Mode, func(plan *upstream.Narrowing) egress { return direct.ForSession(plan) }), nil
}

func newPolicy(cfg config.Upstream, own []net.Addr) (*upstream.Policy, error) {
	rules := upstream.Rules{
		Allow: cfg.Allow, Deny: cfg.Deny, Ports: cfg.DeniedPorts, OnlyPorts: cfg.AllowedPorts,
		DenyNames: cfg.DeniedNames, AllowNames: cfg.AllowedNames,
	}
	for _, addr := range own {
		if tcp, ok := addr.(*net.TCPAddr); ok {
			rules.Own = append(rules.Own, tcp.AddrPort())
		}
	}
	host, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("addresses of this host: %w", err)
	}
	for _, addr := range host {
		if prefix, err := netip.ParsePrefix(addr.String()); err == nil {
			rules.Host = append(rules.Host, prefix.Addr())
		}
	}
	policy, err := upstream.NewPolicy(rules)
	if err != nil {
		return nil, fmt.Errorf("egress policy: %w", err)
	}
	return policy, nil
}

// serversOf returns the servers of the configuration.
func serversOf(cfg config.OutlineServers) ([]upstream.Server, error) {
	keys, err := cfg.Load()
	if err != nil {
		return nil, err
	}
	servers := make([]upstream.Server, len(keys))
	for i, key := range keys {
		servers[i] = upstream.Server{
			ID: key.Tag, Host: key.Host, Port: key.Port, Cipher: string(key.Cipher), Password: key.Password, Prefix: string(key.Prefix),
			Managed: cfg.SendNames && key.Outline,
		}
	}
	return servers, nil
}

// newOutline leaves through Outline servers: those of the configuration, or those of
// the control plane.
func newOutline(
	up config.Upstream, policy *upstream.Policy, control outlineControl, log *slog.Logger, counters func() *metrics.Metrics, held func(n int),
) (*exits, error) {
	var (
		cfg      = up.Outline
		servers  []upstream.Server
		shared   *pool
		assigner upstream.Assigner
		probe    wire.Addr
		err      error
	)
	if usesPool(up) {
		shared = newPool(control, log)
		assigner = shared
	} else {
		if servers, err = serversOf(cfg); err != nil {
			return nil, err
		}
		assigner = upstream.NewStatic(servers)
	}
	if cfg.Probe != "" {
		if probe, err = config.ParseTarget(cfg.Probe); err != nil {
			return nil, fmt.Errorf("upstream.outline.probe: %w", err)
		}
	}
	seen := watch{log: log, down: make(map[string]bool)}
	outline, err := upstream.NewOutline(upstream.OutlineConfig{
		Policy: policy, Assigner: assigner, Servers: servers,
		Resolvers: cfg.Resolvers, Probe: probe, ProbeInterval: cfg.ProbeInterval.Std(),
		Held:     held,
		Switched: func() { counters().Switched() },
		Probed: func(p upstream.Probe) {
			for _, half := range halves(p) {
				counters().Probed(half)
			}
			seen.note(p)
		},
	})
	if err != nil {
		return nil, fmt.Errorf("upstream.outline: %w", err)
	}
	leave := &exits{
		mode: config.Outline,
		forSession: func(id [16]byte, plan *upstream.Narrowing) (egress, func()) {
			session := outline.ForSession(id, plan)
			return session, session.Close
		},
		run: outline.Run,
		probes: func() []metrics.Probe {
			var list []metrics.Probe
			for _, p := range outline.Probes() {
				list = append(list, halves(p)...)
			}
			return list
		},
	}
	if shared != nil {
		leave.event = func(e nodes.Event) {
			switch e.Kind {
			case nodes.OutlineChanged:
				outline.Changed(e.OutlineServerID)
			case nodes.EventsMissed:
				outline.Changed("")
			}
		}
		leave.run = func(ctx context.Context) {
			var beating sync.WaitGroup
			if probe != (wire.Addr{}) { // without results there is nothing to tell
				beating.Go(func() { shared.beat(ctx, outline, seen.keep) })
			}
			outline.Run(ctx)
			beating.Wait()
		}
	}
	return leave, nil
}

// halves is a probe as metrics have it.
func halves(p upstream.Probe) []metrics.Probe {
	half := func(network string, s upstream.Seen) metrics.Probe {
		return metrics.Probe{Server: p.Server.ID, Network: network, OK: s.OK, Took: s.Took, Why: s.Why}
	}
	return []metrics.Probe{half("tcp", p.TCP), half("udp", p.UDP)}
}

// keep forgets servers that are not among these.
func (w *watch) keep(servers map[string]bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	maps.DeleteFunc(w.down, func(key string, _ bool) bool {
		id, _, _ := strings.Cut(key, " ")
		return !servers[id]
	})
}

// watch logs when a server fails its probes, and when it works again.
type watch struct {
	log *slog.Logger

	mu   sync.Mutex // guards the following field
	down map[string]bool
}

func (w *watch) note(p upstream.Probe) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for network, seen := range map[string]upstream.Seen{"tcp": p.TCP, "udp": p.UDP} {
		key := p.Server.ID + " " + network
		switch {
		case !seen.OK && !w.down[key]:
			w.down[key] = true
			w.log.Warn("outline server does not answer its probe", "server", p.Server.ID, "network", network, "reason", seen.Why)
		case seen.OK && w.down[key]:
			delete(w.down, key)
			w.log.Info("outline server answers its probe again", "server", p.Server.ID, "network", network)
		}
	}
}
