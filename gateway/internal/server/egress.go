package server

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/gateway/internal/upstream"
)

// newDialer returns what makes each session its dialer: how its streams leave
// this gateway. own are the listeners that no stream reaches.
func newDialer(cfg config.Upstream, own []net.Addr) (func() upstream.Dialer, error) {
	switch cfg.Mode {
	case config.Echo:
		return func() upstream.Dialer { return upstream.Echo{} }, nil
	case config.Devnull:
		return func() upstream.Dialer { return upstream.Devnull{} }, nil
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
	return func() upstream.Dialer { return direct.ForSession() }, nil
}
