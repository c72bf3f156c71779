package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/internal/acme"
	"github.com/httvps/httvps/sdk/go/wire"
)

// manyFronts are n that are right.
func manyFronts(n int) (fronts []string) {
	for i := range n {
		fronts = append(fronts, fmt.Sprintf("wss://front%d.example/t", i))
	}
	return fronts
}

func valid() Config {
	cfg := Default()
	cfg.URL, cfg.DataDir, cfg.TLS = "wss://gw.example.org/x", "/d", TLS{CertFile: "c", KeyFile: "k"}
	return cfg
}

func TestFrontsAreAsManyAndAsLongAsADeviceTakes(t *testing.T) {
	cfg := valid()
	cfg.Fronts = manyFronts(wire.MaxURLs)
	cfg.Fronts[0] = "wss://a.example/" + strings.Repeat("p", wire.MaxURL-len("wss://a.example/"))
	cfg.Fronts[1] = "wss://gw.example.org:8443/x" // the URL's host
	cfg.Fronts[2] = "wss://gw.example.org/y"      // there, too
	if err := cfg.Validate(); err != nil {
		t.Fatal(err)
	}
	ready, _, err := wire.ConsumeFrame(wire.AppendReady(nil, wire.Ready{Fronts: cfg.Fronts, Limits: wire.DefaultLimits()}))
	if err != nil {
		t.Fatal(err)
	}
	told, err := wire.ParseReady(ready.Payload)
	if diff := cmp.Diff(cfg.Fronts, told.Fronts); diff != "" || err != nil {
		t.Errorf("what is valid is not what a device hears (-valid +heard): %v\n%s", err, diff)
	}
}

func TestAnEmptyVariableIsNoFront(t *testing.T) {
	cfg, err := Load("", []string{"HTTVPS_GATEWAY_FRONTS="}) // of docker-compose.yml
	if err != nil || len(cfg.Fronts) != 0 {
		t.Errorf("fronts are %q, %v", cfg.Fronts, err)
	}
}

// A path is a secret of the devices.
func TestMistakesInFrontsAreToldWithoutThem(t *testing.T) {
	cfg := valid()
	cfg.Fronts = []string{
		"ws://a.example/secret", "wss://u@a.example/secret", "wss://a.example/secret\x7f", "wss://a.example:0/secret", "wss://ä.example/secret",
		"wss://a.example/secret " + strings.Repeat("x", wire.MaxURL),
	}
	err := cfg.Validate()
	if err == nil || strings.Contains(err.Error(), "secret") {
		t.Errorf("Validate = %v", err)
	}
	for i := range cfg.Fronts {
		if entry := fmt.Sprintf("fronts[%d]", i); err == nil || strings.Count(err.Error(), entry) != 1 {
			t.Errorf("not one word about %s in:\n%v", entry, err)
		}
	}
}

func TestEachHostIsReachedOnce(t *testing.T) {
	cfg := valid()
	cfg.Fronts = []string{"wss://GW.example.org:8443/x", "wss://front.example:4443/x", "wss://[2001:db8::1]/x", "wss://front.example/y", "wss://[2001:DB8:0::0:1]:8443/y", "nonsense"}
	want := []acme.Reach{{Host: "gw.example.org", Port443: true}, {Host: "front.example", Port443: true}, {Host: "2001:db8::1", Port443: true}}
	if diff := cmp.Diff(want, cfg.Reaches()); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"gw.example.org", "front.example", "2001:db8::1"}, cfg.Hosts()); diff != "" {
		t.Error(diff)
	}
	if hosts := Default().Hosts(); hosts != nil {
		t.Errorf("without a URL there are the hosts %q", hosts)
	}
}
