package upstream

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/httvps/httvps/internal/egress"
)

func TestAPlanDeniesBesidesTheGatewayAndAllowsNothingMore(t *testing.T) {
	general, err := NewPolicy(Rules{
		Allow: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Deny: []netip.Prefix{netip.MustParsePrefix("10.9.0.0/16")},
		Ports: []uint16{25}, DenyNames: []string{"gateway.example"}, Own: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:443")},
	})
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		plan     egress.Rules
		target   string // an address with its port, or a name
		udp      bool
		want     error
		resolved bool // names are resolved here
	}{
		"nothing":                              {target: "203.0.114.1:443"},
		"nothing, of a name":                   {target: "plan.example"},
		"a prefix":                             {plan: egress.Rules{DeniedPrefixes: prefixes("203.0.114.0/24")}, target: "203.0.114.1:443", want: ErrDenied, resolved: true},
		"a prefix, spelled as IPv4-mapped":     {plan: egress.Rules{DeniedPrefixes: prefixes("203.0.114.0/24")}, target: "[::ffff:203.0.114.1]:443", want: ErrDenied, resolved: true},
		"a prefix that does not fit":           {plan: egress.Rules{DeniedPrefixes: prefixes("203.0.114.0/24")}, target: "203.0.115.1:443", resolved: true},
		"a prefix, of datagrams":               {plan: egress.Rules{DeniedPrefixes: prefixes("203.0.114.0/24")}, target: "203.0.114.1:443", udp: true, want: ErrDenied, resolved: true},
		"a prefix, of what the gateway allows": {plan: egress.Rules{DeniedPrefixes: prefixes("10.1.0.0/16")}, target: "10.1.0.1:443", want: ErrDenied, resolved: true},
		"what the gateway denies":              {plan: egress.Rules{DeniedPorts: []uint16{80}}, target: "10.9.0.1:443", want: ErrDenied},
		"what the table denies":                {plan: egress.Rules{DeniedPorts: []uint16{80}}, target: "169.254.169.254:443", want: ErrDenied},
		"the gateway itself":                   {plan: egress.Rules{DeniedPorts: []uint16{80}}, target: "10.0.0.1:443", want: ErrDenied},
		"a port that the gateway denies":       {plan: egress.Rules{AllowedPorts: []uint16{25, 443}}, target: "203.0.114.1:25", want: ErrDenied},
		"what the gateway allows":              {plan: egress.Rules{DeniedPorts: []uint16{80}}, target: "10.0.0.2:443"},
		"a port":                               {plan: egress.Rules{DeniedPorts: []uint16{443}}, target: "203.0.114.1:443", want: ErrDenied},
		"all ports but others":                 {plan: egress.Rules{AllowedPorts: []uint16{80}}, target: "203.0.114.1:443", want: ErrDenied},
		"all ports but this one":               {plan: egress.Rules{AllowedPorts: []uint16{443}}, target: "203.0.114.1:443"},
		"a name":                               {plan: egress.Rules{DeniedNames: []string{"plan.example"}}, target: "a.Plan.example.", want: ErrDenied},
		"a name that the gateway denies":       {plan: egress.Rules{AllowedNames: []string{"a.gateway.example"}}, target: "a.gateway.example", want: ErrDenied},
		"all names but one":                    {plan: egress.Rules{DeniedNames: []string{"."}, AllowedNames: []string{"plan.example"}}, target: "a.plan.example"},
		"all names but another one":            {plan: egress.Rules{DeniedNames: []string{"."}, AllowedNames: []string{"other.example"}}, target: "plan.example", want: ErrDenied},
		"rules that mean nothing":              {plan: egress.Rules{DeniedNames: []string{"NO NAME"}}, target: "203.0.114.1:443", want: ErrDenied, resolved: true},
	} {
		t.Run(name, func(t *testing.T) {
			var plan Narrowing
			within := general.Within(&plan)
			plan.Set(time.Now(), tc.plan) // also of a policy that is in use
			got := within.CheckName(tc.target)
			if target, err := netip.ParseAddrPort(tc.target); err == nil {
				if got = within.Check(target); tc.udp {
					got = within.CheckUDP(target)
				}
				if port := within.CheckPort(target.Port()); port != nil && got == nil {
					t.Errorf("the port is denied, but not with an address: %v", port)
				}
			}
			if !errors.Is(got, tc.want) {
				t.Errorf("%s: %v, want %v", tc.target, got, tc.want)
			}
			if general.Check(netip.MustParseAddrPort("203.0.114.1:443")) != nil {
				t.Error("it holds for other sessions, too")
			}
			if tc.resolved && within.TakesNames() {
				t.Error("names are left to a server that does not know of the rules for addresses")
			}
		})
	}
}

func TestTheLatestWordAboutAPlanHolds(t *testing.T) {
	general, err := NewPolicy(Rules{})
	if err != nil {
		t.Fatal(err)
	}
	var plan Narrowing
	within, target, now := general.Within(&plan), netip.MustParseAddrPort("203.0.114.1:443"), time.Now()
	for _, step := range []struct {
		asked time.Time
		rules egress.Rules
		want  error
	}{
		{time.Time{}, egress.Rules{DeniedPorts: []uint16{443}}, ErrDenied}, // by the gateway's own word
		{now, egress.Rules{}, nil},
		{now.Add(-time.Second), egress.Rules{DeniedPorts: []uint16{443}}, nil},
		{now.Add(time.Second), egress.Rules{DeniedPorts: []uint16{443}}, ErrDenied},
		{now, egress.Rules{}, ErrDenied},
	} {
		plan.Set(step.asked, step.rules)
		if got := within.Check(target); !errors.Is(got, step.want) {
			t.Errorf("after %+v at %v: %v, want %v", step.rules, step.asked, got, step.want)
		}
	}
}
