package server

import (
	"context"
	"fmt"
	"net"
	"net/netip"

	"github.com/httvps/httvps/gateway/internal/config"
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

// newEgress returns what makes each session its egress. own are the listeners
// that nothing reaches.
func newEgress(cfg config.Upstream, own []net.Addr) (func() egress, error) {
	switch cfg.Mode {
	case config.Echo:
		return func() egress { return upstream.Echo{} }, nil
	case config.Devnull:
		return func() egress { return upstream.Devnull{} }, nil
	case config.Direct:
	default:
		return nil, fmt.Errorf("upstream mode %q", cfg.Mode)
	}
	rules := upstream.Rules{Allow: cfg.Allow, Deny: cfg.Deny, Ports: cfg.DeniedPorts}
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
	direct := upstream.NewDirect(upstream.DirectConfig{Policy: policy})
	return func() egress { return direct.ForSession() }, nil
}
