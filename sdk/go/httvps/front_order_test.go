package httvps

import (
	"maps"
	"slices"
	"strings"
	"testing"
)

// Of what a gateway names, only what can be a URL of one is tried; what is in use stays so
// for as long as it is named.
func TestFrontsAreURLsOfGateways(t *testing.T) {
	const own, second, third = "wss://a.example/x", "wss://b.example:8443/y", "wss://[2001:db8::1]/z"
	var f fronts
	wants := func(urls ...string) {
		t.Helper()
		if got := f.of(own); !slices.Equal(got, urls) || f.first(own) != urls[0] {
			t.Errorf("%q, the first is %q, want %q", got, f.first(own), urls)
		}
	}
	wants(own)
	f.past(own, own)
	wants(own)
	f.learn(own, own, []string{
		"https://b.example/y", "wss:///y", "wss://user@b.example/y", "wss://b.example/y?q", "b.example", "", "wss://b.example/" + strings.Repeat("y", 5000),
		second, own, second, third,
	})
	wants(own, second, third)
	f.past(own, second) // which is not in use
	wants(own, second, third)
	f.past(own, own)
	f.past(own, own) // another session's connection
	wants(second, third, own)
	f.learn(own, second, []string{second, third})
	wants(second, third, own)
	f.learn(own, own, []string{second, third})
	wants(own, second, third)
	f.learn(own, second, []string{third})
	wants(own, third)
	f.learn(own, own, nil)
	wants(own)
	for i := range 3 * maxFronted {
		f.learn(own+strings.Repeat("/", i), own, nil)
		f.freeze(own + strings.Repeat("/", i))
	}
	if len(f.urls) > maxFronted || len(f.frozen) > maxFronted {
		t.Errorf("%d and %d gateways are remembered", len(f.urls), len(f.frozen))
	}
}

// A profile takes as many fronts as can be told, and nothing that is none; they go with
// their gateway.
func TestAProfileHoldsFrontsOfItsGateways(t *testing.T) {
	const own, other, front = "wss://a.example/x", "wss://b.example/x", "wss://c.example/x"
	good := Profile{DeviceID: "00000000-0000-4000-8000-000000000000", API: []string{"https://a.example/k"}}
	with := func(fronts map[string][]string) Profile {
		p := good
		p.Fronts = fronts
		return p
	}
	many := make(map[string][]string)
	for i := range maxGateways {
		many[own+strings.Repeat("/", i)] = slices.Repeat([]string{front}, 8)
	}
	if err := with(many).Validate(); err != nil {
		t.Fatal(err)
	}
	for name, p := range map[string]Profile{
		"nine fronts":      with(map[string][]string{own: slices.Repeat([]string{front}, 9)}),
		"no URL":           with(map[string][]string{own: {"c.example"}}),
		"of no gateway":    with(map[string][]string{"": {front}}),
		"too many of them": with(maps.Collect(func(yield func(string, []string) bool) { _ = yield(other, nil); maps.All(many)(yield) })),
	} {
		if err := p.Validate(); err == nil || !strings.HasPrefix(err.Error(), "fronts: ") {
			t.Errorf("%s: %v", name, err)
		}
	}

	p := good
	if nameFronts(&p, own, []string{front}) {
		t.Error("fronts of a gateway that is none of the service's")
	}
	for _, step := range []struct {
		name  string
		did   bool
		saved bool
	}{
		{"gateways", nameGateways(&p, []Gateway{{URL: own}, {URL: other}}), true},
		{"fronts", nameFronts(&p, own, []string{front}), true},
		{"the same fronts", nameFronts(&p, own, []string{front}), false},
		{"fronts of the other", nameFronts(&p, other, []string{front}), true},
		{"the same gateways", nameGateways(&p, []Gateway{{URL: other}, {URL: own}}), false},
		{"one gateway", nameGateways(&p, []Gateway{{URL: other}}), true},
	} {
		if step.did != step.saved {
			t.Errorf("%s: %t", step.name, step.did)
		}
	}
	if len(p.Fronts) != 1 || !slices.Equal(p.Fronts[other], []string{front}) {
		t.Errorf("the profile has %v", p.Fronts)
	}
}
