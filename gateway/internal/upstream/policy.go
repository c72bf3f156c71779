package upstream

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
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
			if err := CheckPrefix(prefix); err != nil {
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

// CheckPrefix reports what is wrong with a prefix as a rule of a [Policy].
func CheckPrefix(prefix netip.Prefix) error {
	switch {
	case !prefix.IsValid():
		return errors.New("not a prefix")
	case prefix.Addr().Is4In6():
		// Addresses are judged unmapped, so such a rule would never match.
		return fmt.Errorf("%s is an IPv4-mapped prefix, want it written as IPv4", prefix)
	case prefix != prefix.Masked():
		return fmt.Errorf("%s has bits behind its length, want %s", prefix, prefix.Masked())
	default:
		return nil
	}
}

// Check returns [ErrDenied] unless target may be connected to. It takes an
// address, not a name: a name could resolve to something else by the time we
// connect. The order is: unspecified addresses, own listeners, ports, the
// operator's denials, the operator's exceptions, the built-in table.
func (p *Policy) Check(target netip.AddrPort) error {
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
	if p.CheckPort(target.Port()) != nil {
		return ErrDenied
	}
	switch {
	case contains(p.deny, addr):
		return ErrDenied
	case contains(p.allow, addr), global(addr):
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
// judged by this policy: whether the operator has denied none.
func (p *Policy) TakesNames() bool { return len(p.deny) == 0 }

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

// global reports whether an unmapped address is in the globally reachable
// unicast space.
func global(addr netip.Addr) bool {
	if addr.Is4() {
		return !contains(special4, addr)
	}
	return unicast6.Contains(addr) && !contains(special6, addr)
}

// The special-purpose blocks of RFC 6890 and its registry.
var (
	special4 = prefixes(
		"0.0.0.0/8",       // this network; connecting to 0.0.0.0 reaches loopback
		"10.0.0.0/8",      // private
		"100.64.0.0/10",   // carrier-grade NAT
		"127.0.0.0/8",     // loopback
		"169.254.0.0/16",  // link local; cloud metadata
		"172.16.0.0/12",   // private
		"192.0.0.0/24",    // protocol assignments
		"192.0.2.0/24",    // documentation
		"192.88.99.0/24",  // 6to4 relays
		"192.168.0.0/16",  // private
		"198.18.0.0/15",   // benchmarks
		"198.51.100.0/24", // documentation
		"203.0.113.0/24",  // documentation
		"224.0.0.0/4",     // multicast
		"240.0.0.0/4",     // reserved, and broadcast
	)
	// unicast6 is all that is assigned for global unicast. Outside it lie
	// loopback, unique local, link local, multicast, IPv4-compatible
	// addresses, NAT64 (64:ff9b::/96 and 64:ff9b:1::/48) and all unassigned space.
	unicast6 = netip.MustParsePrefix("2000::/3")
	special6 = prefixes(
		"2001::/23",     // protocol assignments, Teredo among them
		"2001:db8::/32", // documentation
		"2002::/16",     // 6to4: an IPv4 address inside
		"3fff::/20",     // documentation
	)
)

var (
	broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})
	// amplifiers are the UDP ports of chargen, CLDAP, SSDP and memcached.
	amplifiers = map[uint16]struct{}{19: {}, 389: {}, 1900: {}, 11211: {}}
)

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}
