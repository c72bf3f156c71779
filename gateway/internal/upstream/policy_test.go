package upstream

import (
	"errors"
	"math/rand/v2"
	"net/netip"
	"strconv"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func newPolicy(tb testing.TB, rules Rules) *Policy {
	tb.Helper()
	p, err := NewPolicy(rules)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func prefixes(texts ...string) []netip.Prefix {
	list := make([]netip.Prefix, len(texts))
	for i, text := range texts {
		list[i] = netip.MustParsePrefix(text)
	}
	return list
}

func TestPolicyByDefaultAllowsPublicAddressesOnly(t *testing.T) {
	p := newPolicy(t, Rules{Ports: []uint16{25, 465, 587}})
	for name, tc := range map[string]struct {
		addr    string
		allowed bool
	}{
		"a public address":                       {"93.184.216.34:443", true},
		"a public IPv6 address":                  {"[2606:2800:220:1::1]:443", true},
		"public, written as IPv4-mapped":         {"[::ffff:93.184.216.34]:443", true},
		"last address before private 10/8":       {"9.255.255.255:80", true},
		"first address after private 10/8":       {"11.0.0.0:80", true},
		"just below carrier NAT":                 {"100.63.255.255:80", true},
		"just above carrier NAT":                 {"100.128.0.0:80", true},
		"just above 172.16/12":                   {"172.32.0.0:80", true},
		"just below multicast":                   {"223.255.255.255:80", true},
		"just above protocol assignments":        {"[2001:200::1]:80", true},
		"just above documentation":               {"[2001:db9::1]:80", true},
		"this network":                           {"0.0.0.0:80", false},
		"this network, not zero":                 {"0.1.2.3:80", false},
		"private 10/8":                           {"10.0.0.1:80", false},
		"carrier NAT":                            {"100.64.0.1:80", false},
		"loopback":                               {"127.0.0.1:80", false},
		"loopback, another":                      {"127.255.255.254:80", false},
		"cloud metadata":                         {"169.254.169.254:80", false},
		"private 172.16/12":                      {"172.31.255.255:80", false},
		"protocol assignments":                   {"192.0.0.192:80", false},
		"documentation 1":                        {"192.0.2.1:80", false},
		"documentation 2":                        {"198.51.100.1:80", false},
		"documentation 3":                        {"203.0.113.1:80", false},
		"6to4 relay":                             {"192.88.99.1:80", false},
		"private 192.168/16":                     {"192.168.1.1:80", false},
		"benchmarks":                             {"198.19.255.255:80", false},
		"multicast":                              {"239.1.2.3:80", false},
		"reserved":                               {"240.0.0.1:80", false},
		"broadcast":                              {"255.255.255.255:80", false},
		"unspecified IPv6":                       {"[::]:80", false},
		"loopback IPv6":                          {"[::1]:80", false},
		"loopback, IPv4-mapped":                  {"[::ffff:127.0.0.1]:80", false},
		"private, IPv4-mapped":                   {"[::ffff:10.0.0.1]:80", false},
		"loopback, IPv4-compatible":              {"[::7f00:1]:80", false},
		"loopback behind NAT64":                  {"[64:ff9b::7f00:1]:80", false},
		"metadata behind local NAT64":            {"[64:ff9b:1::a9fe:a9fe]:80", false},
		"discard only":                           {"[100::1]:80", false},
		"Teredo":                                 {"[2001:0:4136:e378:8000:63bf:3fff:fdd2]:80", false},
		"ORCHID":                                 {"[2001:20::1]:80", false},
		"documentation IPv6":                     {"[2001:db8::1]:80", false},
		"loopback in 6to4":                       {"[2002:7f00:1::1]:80", false},
		"documentation IPv6, new":                {"[3fff::1]:80", false},
		"unique local":                           {"[fd00::1]:80", false},
		"AWS metadata over IPv6":                 {"[fd00:ec2::254]:80", false},
		"link local":                             {"[fe80::1]:80", false},
		"public, with a zone":                    {"[2606:2800:220:1::1%eth0]:80", false},
		"site local":                             {"[fec0::1]:80", false},
		"multicast IPv6":                         {"[ff02::1]:80", false},
		"segment routing":                        {"[5f00::1]:80", false},
		"unassigned":                             {"[4000::1]:80", false},
		"mail":                                   {"93.184.216.34:25", false},
		"mail submission over TLS":               {"93.184.216.34:465", false},
		"mail submission":                        {"[2606:2800:220:1::1]:587", false},
		"port 0, which is none":                  {"93.184.216.34:0", false},
		"mail port on a loopback, doubly denied": {"127.0.0.1:25", false},
	} {
		t.Run(name, func(t *testing.T) {
			err := p.Check(netip.MustParseAddrPort(tc.addr))
			if tc.allowed != (err == nil) || (err != nil && !errors.Is(err, ErrDenied)) {
				t.Errorf("Check(%s) = %v, want allowed %v", tc.addr, err, tc.allowed)
			}
		})
	}
	if err := p.Check(netip.AddrPort{}); !errors.Is(err, ErrDenied) {
		t.Errorf("Check of no address = %v", err)
	}
}

func TestPolicyFollowsTheOperator(t *testing.T) {
	p := newPolicy(t, Rules{
		Allow: prefixes("127.0.0.0/8", "::1/128", "10.0.0.0/8"),
		Deny:  prefixes("10.9.0.0/16", "93.184.216.0/24"),
		Ports: []uint16{25},
		Own: []netip.AddrPort{
			netip.MustParseAddrPort("127.0.0.1:9101"), netip.MustParseAddrPort("[::]:8443"), netip.MustParseAddrPort("[::ffff:127.0.0.3]:77"),
		},
		Host: []netip.Addr{netip.MustParseAddr("10.0.0.7"), netip.MustParseAddr("2606:2800::7")},
	})
	for addr, allowed := range map[string]bool{
		"127.0.0.1:80":            true,
		"[::1]:80":                true,
		"[::ffff:127.0.0.1]:80":   true,
		"[::2]:80":                false,
		"10.8.0.1:80":             true,
		"10.9.0.1:80":             false, // denied, though allowed
		"10.8.0.1:25":             false,
		"93.184.216.34:80":        false,
		"127.0.0.1:9101":          false, // own
		"[::ffff:127.0.0.1]:9101": false,
		"127.0.0.2:9101":          true,
		"127.0.0.3:77":            false,
		"127.0.0.1:8443":          false, // own, on all addresses
		"127.9.9.9:8443":          false,
		"[::1]:8443":              false,
		"10.0.0.7:8443":           false,
		"[2606:2800::7]:8443":     false,
		"10.0.0.8:8443":           true,
		"192.168.0.1:80":          false,
	} {
		if err := p.Check(netip.MustParseAddrPort(addr)); allowed != (err == nil) {
			t.Errorf("Check(%s) = %v, want allowed %v", addr, err, allowed)
		}
	}
}

func TestPolicyMayAllowSomePortsOnly(t *testing.T) {
	p := newPolicy(t, Rules{OnlyPorts: []uint16{80, 443}, Ports: []uint16{443}})
	for port, allowed := range map[uint16]bool{80: true, 443: false, 22: false, 0: false} {
		for what, err := range map[string]error{
			"Check": p.Check(netip.AddrPortFrom(netip.MustParseAddr("93.184.216.34"), port)), "CheckPort": p.CheckPort(port),
			"CheckUDP": p.CheckUDP(netip.AddrPortFrom(netip.MustParseAddr("93.184.216.34"), port)),
		} {
			if allowed != (err == nil) {
				t.Errorf("%s of port %d: %v, want allowed %v", what, port, err, allowed)
			}
		}
	}
}

func TestTheLongestNameDecides(t *testing.T) {
	rules := Rules{
		DenyNames:  []string{"example.com", "both.test", "deep.good.example.com", "internal"},
		AllowNames: []string{"good.example.com", "both.test", "only.elsewhere.test"},
	}
	everything := rules
	everything.DenyNames = append(everything.DenyNames, ".")
	for name, want := range map[string]struct{ denied, deniedOfAll bool }{
		"example.com":                {true, true},
		"a.b.example.com":            {true, true},
		"EXAMPLE.com":                {true, true},
		"example.com.":               {true, true},
		"good.example.com":           {false, false},
		"very.good.example.com":      {false, false},
		"deep.good.example.com":      {true, true},
		"x.deep.good.example.com":    {true, true},
		"both.test":                  {true, true}, // the denial of two that are the same
		"badexample.com":             {false, true},
		"example.com.org":            {false, true},
		"com":                        {false, true},
		"internal":                   {true, true},
		"metadata.internal":          {true, true},
		"only.elsewhere.test":        {false, false},
		"www.only.elsewhere.test":    {false, false},
		"elsewhere.test":             {false, true},
		"notonly.elsewhere.test":     {false, true},
		"localhost":                  {false, true},
		"_dmarc.good.example.com":    {false, false},
		"xn--80ak6aa92e.example.com": {true, true},
	} {
		if err := newPolicy(t, rules).CheckName(name); want.denied != errors.Is(err, ErrDenied) {
			t.Errorf("CheckName(%s) = %v, want denied %v", name, err, want.denied)
		}
		if err := newPolicy(t, everything).CheckName(name); want.deniedOfAll != errors.Is(err, ErrDenied) {
			t.Errorf("where every name is denied: CheckName(%s) = %v, want denied %v", name, err, want.deniedOfAll)
		}
	}
	if err := newPolicy(t, Rules{}).CheckName("anything.test"); err != nil {
		t.Errorf("without rules: %v", err)
	}
}

func TestNewPolicyTellsEveryBadName(t *testing.T) {
	bad := []string{"*.example.com", ".example.com", "example.com.", "Example.com", "exämple.com", "127.0.0.1", "0x7f", "", "a..b"}
	_, err := NewPolicy(Rules{DenyNames: bad[:5], AllowNames: bad[5:]})
	if err == nil {
		t.Fatal("no error")
	}
	for _, name := range bad {
		if !strings.Contains(err.Error(), strconv.Quote(name)) {
			t.Errorf("no word about %q in:\n%v", name, err)
		}
	}
}

// Connecting to the unspecified address reaches this host, so no exception of
// the operator's lets a device at the gateway's own listeners that way.
func TestUnspecifiedAddressesAreAlwaysDenied(t *testing.T) {
	p := newPolicy(t, Rules{Allow: prefixes("0.0.0.0/0", "::/0"), Own: []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9101")}})
	for addr, allowed := range map[string]bool{
		"0.0.0.0:9101":        false,
		"[::]:9101":           false,
		"[::ffff:0.0.0.0]:80": false,
		"0.0.0.0:80":          false,
		"127.0.0.1:9101":      false,
		"127.0.0.1:80":        true,
		"[::1]:80":            true,
	} {
		if err := p.Check(netip.MustParseAddrPort(addr)); allowed != (err == nil) {
			t.Errorf("Check(%s) = %v, want allowed %v", addr, err, allowed)
		}
	}
}

func TestNewPolicyTellsEveryBadPrefix(t *testing.T) {
	_, err := NewPolicy(Rules{
		Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.1/8"), {}},
		Deny:  []netip.Prefix{netip.MustParsePrefix("::ffff:10.0.0.0/104")},
	})
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok || len(joined.Unwrap()) != 3 {
		t.Errorf("NewPolicy = %v, want three problems", err)
	}
}

// nonGlobal is the space that must never be reached, written down apart from
// the policy's table: IANA's special-purpose registries, entries whose
// "globally reachable" is not true, and what is not unicast.
var nonGlobal = prefixes(
	"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
	"192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
	"224.0.0.0/4", "240.0.0.0/4", "255.255.255.255/32",
	"::/128", "::1/128", "::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "100:0:0:1::/64", "2001::/32", "2001:2::/48",
	"2001:db8::/32", "2001:10::/28", "2002::/16", "3fff::/20", "5f00::/16", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8",
)

func TestPolicyDeniesAllOfTheNonGlobalSpace(t *testing.T) {
	p := newPolicy(t, Rules{})
	rapid.Check(t, func(t *rapid.T) {
		block := rapid.SampledFrom(nonGlobal).Draw(t, "block")
		addr := within(block, rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "bits"))
		port := rapid.Uint16().Draw(t, "port")
		if p.Check(netip.AddrPortFrom(addr, port)) == nil {
			t.Fatalf("%s in %s is allowed", addr, block)
		}
		if addr.Is4() {
			mapped := netip.AddrFrom16(addr.As16())
			if p.Check(netip.AddrPortFrom(mapped, port)) == nil {
				t.Fatalf("%s in %s is allowed", mapped, block)
			}
		}
	})
}

// within returns the address in block whose free bits are those given.
func within(block netip.Prefix, bits []byte) netip.Addr {
	addr := block.Addr().AsSlice()
	for i := block.Bits(); i < len(addr)*8; i++ {
		addr[i/8] |= bits[i/8] & (0x80 >> (i % 8))
	}
	made, _ := netip.AddrFromSlice(addr)
	return made
}

func TestPolicyAllowsOnlyWhatTheStandardLibraryCallsGlobalUnicast(t *testing.T) {
	p := newPolicy(t, Rules{})
	rapid.Check(t, func(t *rapid.T) {
		bits := rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "address")
		for _, addr := range []netip.Addr{netip.AddrFrom4([4]byte(bits)), netip.AddrFrom16([16]byte(bits))} {
			if p.Check(netip.AddrPortFrom(addr, 443)) != nil {
				continue
			}
			addr = addr.Unmap()
			if !addr.IsGlobalUnicast() || addr.IsPrivate() || addr.IsLinkLocalUnicast() || addr.IsLoopback() {
				t.Fatalf("%s is allowed", addr)
			}
		}
	})
}

func BenchmarkPolicyCheck(b *testing.B) {
	p := newPolicy(b, Rules{Ports: []uint16{25, 465, 587}})
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{93, 184, byte(rand.N(256)), 34}), 443)
	for b.Loop() {
		_ = p.Check(addr)
	}
}
