package egress_test

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/internal/egress"
)

func prefixes(texts ...string) (list []netip.Prefix) {
	for _, text := range texts {
		list = append(list, netip.MustParsePrefix(text))
	}
	return list
}

func TestEveryMistakeInRulesIsNamed(t *testing.T) {
	for name, tc := range map[string]struct {
		rules egress.Rules
		want  []string // lists
	}{
		"none": {egress.Rules{}, nil},
		"good ones": {egress.Rules{
			DeniedPrefixes: prefixes("203.0.113.0/24", "2001:db8::/32", "0.0.0.0/0"), DeniedPorts: []uint16{1, 65535}, AllowedPorts: []uint16{443},
			DeniedNames: []string{".", "example.com", "xn--bcher-kva.example"}, AllowedNames: []string{"a.example.com"},
		}, nil},
		"bits behind the length":    {egress.Rules{DeniedPrefixes: prefixes("203.0.113.1/24")}, []string{"denied_prefixes"}},
		"an IPv4-mapped prefix":     {egress.Rules{DeniedPrefixes: prefixes("::ffff:203.0.113.0/120")}, []string{"denied_prefixes"}},
		"no prefix":                 {egress.Rules{DeniedPrefixes: []netip.Prefix{{}}}, []string{"denied_prefixes"}},
		"port 0":                    {egress.Rules{DeniedPorts: []uint16{0}, AllowedPorts: []uint16{0}}, []string{"denied_ports", "allowed_ports"}},
		"a name in capitals":        {egress.Rules{DeniedNames: []string{"Example.com"}}, []string{"denied_names"}},
		"a name with a star":        {egress.Rules{DeniedNames: []string{"*.example.com"}}, []string{"denied_names"}},
		"a name with dots at ends":  {egress.Rules{DeniedNames: []string{".example.com"}, AllowedNames: []string{"example.com."}}, []string{"denied_names", "allowed_names"}},
		"an address as a name":      {egress.Rules{DeniedNames: []string{"203.0.113.1"}}, []string{"denied_names"}},
		"no name":                   {egress.Rules{AllowedNames: []string{""}}, []string{"allowed_names"}},
		"as many as there may be":   {egress.Rules{DeniedPorts: slices.Repeat([]uint16{1}, egress.MaxRules)}, nil},
		"more than there may be":    {egress.Rules{DeniedPorts: slices.Repeat([]uint16{1}, egress.MaxRules+1)}, []string{"denied_ports"}},
		"the first of many is told": {egress.Rules{DeniedNames: []string{"A", "B", "C"}}, []string{"denied_names"}},
	} {
		t.Run(name, func(t *testing.T) {
			var lists []string
			for _, p := range tc.rules.Problems() {
				lists = append(lists, p.List)
			}
			if diff := cmp.Diff(tc.want, lists); diff != "" {
				t.Errorf("wrong are (-want +got):\n%s", diff)
			}
			err := tc.rules.Check()
			if (err != nil) != (len(tc.want) > 0) {
				t.Errorf("Check = %v", err)
			}
			for _, list := range tc.want {
				if !strings.Contains(err.Error(), list+": ") {
					t.Errorf("%v does not name %s", err, list)
				}
			}
		})
	}
}

func TestRulesAreSortedAndTravelAsTheyAre(t *testing.T) {
	rules := egress.Rules{
		DeniedPrefixes: prefixes("203.0.113.0/24", "203.0.0.0/16", "203.0.113.0/24", "203.0.113.0/25"),
		DeniedPorts:    []uint16{465, 25, 465}, AllowedPorts: []uint16{443, 80}, DeniedNames: []string{"b", "a", "b"}, AllowedNames: []string{"d.b", "c.b"},
	}
	want := egress.Rules{
		DeniedPrefixes: prefixes("203.0.0.0/16", "203.0.113.0/24", "203.0.113.0/25"),
		DeniedPorts:    []uint16{25, 465}, AllowedPorts: []uint16{80, 443}, DeniedNames: []string{"a", "b"}, AllowedNames: []string{"c.b", "d.b"},
	}
	sorted := rules.Sorted()
	text, err := json.Marshal(sorted)
	if err != nil {
		t.Fatal(err)
	}
	var back egress.Rules
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	byText := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
	if diff := cmp.Diff([]egress.Rules{want, want}, []egress.Rules{sorted, back}, byText); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if rules.Empty() || !(egress.Rules{AllowedNames: []string{"a"}}).Empty() || (egress.Rules{AllowedPorts: []uint16{1}}).Empty() {
		t.Error("what denies nothing is empty, and nothing else")
	}
	if text, err := json.Marshal(egress.Rules{}); err != nil || string(text) != "{}" {
		t.Errorf("none are %s, %v", text, err)
	}
}
