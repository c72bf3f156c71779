// Package direct is about the targets that a person wants reached without the
// tunnel: the rules that say which, and the connections to them.
package direct

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// maxRules bounds the rules of one program.
const maxRules = 10_000

// private is what the rule of that name stands for: networks of homes and offices.
// This machine is not among them, as a proxy may have clients elsewhere.
var private = []netip.Prefix{
	netip.MustParsePrefix("10.0.0.0/8"),
	netip.MustParsePrefix("172.16.0.0/12"),
	netip.MustParsePrefix("192.168.0.0/16"),
	netip.MustParsePrefix("169.254.0.0/16"),
	netip.MustParsePrefix("fc00::/7"),
	netip.MustParsePrefix("fe80::/10"),
}

// Rules say which targets are reached without the tunnel. The zero value names none.
type Rules struct {
	domains  map[string]struct{}
	prefixes map[netip.Prefix]struct{}
	lengths  [2][]int // of the prefixes of IPv4 and of IPv6
}

// Form is how people write a rule.
const Form = "a domain, an address, a prefix or private"

// Parse reads rules: a domain stands for itself and all below it, a prefix or an
// address for targets that are written as addresses, private for the prefixes of
// private networks.
func Parse(texts []string) (*Rules, error) {
	if len(texts) > maxRules {
		return nil, fmt.Errorf("%d rules, want at most %d", len(texts), maxRules)
	}
	r := &Rules{domains: make(map[string]struct{}), prefixes: make(map[netip.Prefix]struct{})}
	for _, text := range texts {
		if err := r.add(strings.TrimSpace(text)); err != nil {
			return nil, fmt.Errorf("%q: %w", text, err)
		}
	}
	for p := range r.prefixes {
		lengths := &r.lengths[family(p.Addr())]
		if !slices.Contains(*lengths, p.Bits()) {
			*lengths = append(*lengths, p.Bits())
		}
	}
	return r, nil
}

func family(a netip.Addr) int {
	if a.Is4() {
		return 0
	}
	return 1
}

func (r *Rules) add(text string) error {
	if text == "private" {
		for _, p := range private {
			r.prefixes[p] = struct{}{}
		}
		return nil
	}
	bare := strings.TrimSuffix(strings.TrimPrefix(text, "["), "]")
	if addr, err := netip.ParseAddr(bare); err == nil {
		if addr.Zone() != "" {
			return errors.New("an address with a zone is of one machine only")
		}
		addr = addr.Unmap()
		r.prefixes[netip.PrefixFrom(addr, addr.BitLen())] = struct{}{}
		return nil
	}
	if strings.Contains(text, "/") {
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() {
			return errors.New("want a prefix like 192.0.2.0/24 or 2001:db8::/32")
		}
		if p != p.Masked() {
			return fmt.Errorf("the prefix has bits behind its length; did you mean %s?", p.Masked())
		}
		r.prefixes[p] = struct{}{}
		return nil
	}
	name := plain(strings.TrimPrefix(strings.TrimPrefix(text, "*"), "."))
	if err := checkName(name); err != nil {
		return err
	}
	r.domains[name] = struct{}{}
	return nil
}

// checkName takes the names that resolvers do.
func checkName(name string) error {
	if name == "" || len(name) > 253 {
		return errors.New("want " + Form)
	}
	numeric := true
	for label := range strings.SplitSeq(name, ".") {
		if label == "" || len(label) > 63 {
			return errors.New("a domain has an empty or too long part")
		}
		numeric = strings.Trim(label, "0123456789") == ""
		for _, c := range []byte(label) {
			switch {
			case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '-', c == '_':
			case c >= 0x80:
				return errors.New("write the domain as it is in DNS, with xn--")
			default:
				return errors.New("want " + Form)
			}
		}
	}
	if numeric { // the last part of a name is not a number
		return errors.New("neither an address nor a domain")
	}
	return nil
}

// plain is how names are compared.
func plain(name string) string { return strings.ToLower(strings.TrimSuffix(name, ".")) }

// Empty reports whether everything goes through the tunnel.
func (r *Rules) Empty() bool { return r == nil || len(r.domains) == 0 && len(r.prefixes) == 0 }

// Host reports whether a host as a program wrote it, a name or an address without
// brackets, is reached without the tunnel. Nothing is resolved for that.
func (r *Rules) Host(host string) bool {
	if r.Empty() {
		return false
	}
	if addr, err := netip.ParseAddr(host); err == nil {
		return r.Addr(addr)
	}
	if len(host) > 254 {
		return false
	}
	for name := plain(host); name != ""; {
		if _, ok := r.domains[name]; ok {
			return true
		}
		_, name, _ = strings.Cut(name, ".")
	}
	return false
}

// Addr is Host for an address.
func (r *Rules) Addr(addr netip.Addr) bool {
	if r.Empty() {
		return false
	}
	addr = addr.Unmap().WithZone("")
	for _, bits := range r.lengths[family(addr)] {
		p, err := addr.Prefix(bits)
		if err != nil {
			return false
		}
		if _, ok := r.prefixes[p]; ok {
			return true
		}
	}
	return false
}
