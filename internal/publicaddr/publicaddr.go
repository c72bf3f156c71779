// Package publicaddr tells addresses that everybody can reach from those that are
// private, local, reserved or another coat of such: nobody who is asked to connect
// somewhere by others is to be led there.
package publicaddr

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
)

// CheckPrefix reports what is wrong with a prefix as a rule about addresses.
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

// Global reports whether an address is in the globally reachable unicast space.
func Global(addr netip.Addr) bool {
	addr = addr.Unmap()
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

func contains(prefixes []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(addr) })
}

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}
