package httvps

import (
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
	f.next(own)
	wants(own)
	f.learn(own, []string{
		"https://b.example/y", "wss:///y", "wss://user@b.example/y", "wss://b.example/y?q", "b.example", "", "wss://b.example/" + strings.Repeat("y", 5000),
		second, own, second, third,
	})
	wants(own, second, third)
	f.next(own)
	wants(second, third, own)
	f.learn(own, []string{second, third})
	wants(second, third, own)
	f.learn(own, []string{third})
	wants(own, third)
	f.learn(own, nil)
	wants(own)
	for i := range 3 * maxFronted {
		f.learn(own+strings.Repeat("/", i), nil)
		f.freeze(own + strings.Repeat("/", i))
	}
	if len(f.urls) > maxFronted || len(f.frozen) > maxFronted {
		t.Errorf("%d and %d gateways are remembered", len(f.urls), len(f.frozen))
	}
}
