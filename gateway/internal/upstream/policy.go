package upstream

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/httvps/httvps/internal/publicaddr"
)

// ErrDenied is what [Policy.Check] returns. It never says which rule spoke:
// that would let a device map what the gateway can see.
var ErrDenied = errors.New("denied by the egress policy")

// Rules are the operator's part of a [Policy].
type Rules struct {
	Allow []netip.Prefix // exceptions from the built-in table
	Deny  []netip.Prefix // denied whatever Allow says
	Ports []uint16       // denied on every address
	// OnlyPorts, unless empty, are the only ones that are not denied.
	OnlyPorts []uint16
	// DenyNames are names that devices may not ask for, each with everything below
	// it; "." is every name. AllowNames are exceptions: the longest name decides.
	DenyNames, AllowNames []string
	// Own are the listeners of the gateway's process. They are denied whatever
	// Allow says. An unspecified address stands for every address of this
	// host that Host lists, and for loopback.
	Own  []netip.AddrPort
	Host []netip.Addr
}

// Policy decides which addresses a device may reach. It is immutable and safe
// for concurrent use.
type Policy struct {
	allow, deny []netip.Prefix
	ports       map[uint16]struct{}
	onlyPorts   map[uint16]struct{} // empty: all
	names       nameRules
	own         map[netip.AddrPort]struct{}
	ownPorts    map[uint16]struct{} // listeners on all addresses
	host        map[netip.Addr]struct{}
	narrowing   *Narrowing // of one session; nil: none
}

// NewPolicy returns the policy of the rules over the built-in table: IPv4
// outside the special-purpose registry, IPv6 inside 2000::/3 without its
// special-purpose parts, so nothing that is private, local, multicast,
// reserved, or an IPv4 address in another coat (mapped, compatible, NAT64,
// 6to4, Teredo).
func NewPolicy(rules Rules) (*Policy, error) {
	p := &Policy{
		ports:     portSet(rules.Ports),
		onlyPorts: portSet(rules.OnlyPorts),
		own:       make(map[netip.AddrPort]struct{}, len(rules.Own)),
		ownPorts:  make(map[uint16]struct{}),
		host:      make(map[netip.Addr]struct{}, len(rules.Host)),
	}
	var problems []error
	names, err := newNameRules(rules.AllowNames, rules.DenyNames)
	if err != nil {
		problems = append(problems, err)
	}
	p.names = names
	keep := func(list string, prefixes []netip.Prefix) []netip.Prefix {
		kept := make([]netip.Prefix, 0, len(prefixes))
		for _, prefix := range prefixes {
			if err := publicaddr.CheckPrefix(prefix); err != nil {
				problems = append(problems, fmt.Errorf("%s: %w", list, err))
				continue
			}
			kept = append(kept, prefix)
		}
		return kept
	}
	p.allow, p.deny = keep("allow", rules.Allow), keep("deny", rules.Deny)
	for _, own := range rules.Own {
		if own.Addr().IsUnspecified() {
			p.ownPorts[own.Port()] = struct{}{}
			continue
		}
		p.own[netip.AddrPortFrom(own.Addr().Unmap().WithZone(""), own.Port())] = struct{}{}
	}
	for _, host := range rules.Host {
		p.host[host.Unmap().WithZone("")] = struct{}{}
	}
	return p, errors.Join(problems...)
}

// Check returns [ErrDenied] unless target may be connected to. It takes an
// address, not a name: a name could resolve to something else by the time we
// connect. The order is: unspecified addresses, own listeners, ports, the
// operator's denials, the operator's exceptions, the built-in table; and then what
// the session's plan denies.
func (p *Policy) Check(target netip.AddrPort) error {
	if err := p.check(target); err != nil {
		return err
	}
	if plan := p.narrower(); plan != nil {
		return plan.check(target)
	}
	return nil
}

func (p *Policy) check(target netip.AddrPort) error {
	addr := target.Addr()
	if !addr.IsValid() || addr.Zone() != "" || target.Port() == 0 {
		return ErrDenied
	}
	addr = addr.Unmap()
	if addr.IsUnspecified() { // connecting to it reaches this host: its own listeners, too
		return ErrDenied
	}
	if p.isOwn(netip.AddrPortFrom(addr, target.Port())) {
		return ErrDenied
	}
	if p.checkPort(target.Port()) != nil {
		return ErrDenied
	}
	switch {
	case contains(p.deny, addr):
		return ErrDenied
	case contains(p.allow, addr), publicaddr.Global(addr):
		return nil
	default:
		return ErrDenied
	}
}

// CheckUDP returns [ErrDenied] unless datagrams may be sent to target: what
// [Policy.Check] denies, and whatever the operator allows multicast, broadcast,
// and the ports of services that answer a stranger with many times what he sent.
func (p *Policy) CheckUDP(target netip.AddrPort) error {
	if _, denied := amplifiers[target.Port()]; denied {
		return ErrDenied
	}
	if addr := target.Addr().Unmap(); addr.IsMulticast() || addr == broadcast {
		return ErrDenied
	}
	return p.Check(target)
}

// CheckPort returns [ErrDenied] unless that port may be connected to somewhere.
func (p *Policy) CheckPort(port uint16) error {
	if err := p.checkPort(port); err != nil {
		return err
	}
	if plan := p.narrower(); plan != nil {
		return plan.checkPort(port)
	}
	return nil
}

func (p *Policy) checkPort(port uint16) error {
	_, denied := p.ports[port]
	_, listed := p.onlyPorts[port]
	if denied || !listed && len(p.onlyPorts) > 0 || port == 0 {
		return ErrDenied
	}
	return nil
}

func portSet(ports []uint16) map[uint16]struct{} {
	set := make(map[uint16]struct{}, len(ports))
	for _, port := range ports {
		set[port] = struct{}{}
	}
	return set
}

// TakesNames reports whether a name may be resolved where addresses cannot be
// judged by this policy: whether neither the operator nor the plan has denied any.
func (p *Policy) TakesNames() bool {
	plan := p.narrower()
	return len(p.deny) == 0 && (plan == nil || len(plan.deny) == 0)
}

func (p *Policy) isOwn(target netip.AddrPort) bool {
	if _, own := p.own[target]; own {
		return true
	}
	if _, own := p.ownPorts[target.Port()]; !own {
		return false
	}
	_, host := p.host[target.Addr()]
	return host || target.Addr().IsLoopback()
}

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

var (
	broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	// amplifiers are the UDP ports of chargen, CLDAP, SSDP and memcached.
	amplifiers = map[uint16]struct{}{19: {}, 389: {}, 1900: {}, 11211: {}}
)
