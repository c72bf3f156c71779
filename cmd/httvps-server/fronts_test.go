package main

import (
	"crypto/tls"
	"log/slog"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/gateway"
)

// withFronts is a configuration whose gateway has a front.
func withFronts(t *testing.T) *config {
	t.Helper()
	c := &config{Backend: backend.DefaultConfig(), Gateway: gateway.DefaultConfig(), data: t.TempDir(), closer: func() {}}
	c.Backend.DataDir, c.Gateway.DataDir = c.data, c.data
	c.Gateway.Fronts = []string{"wss://front.example/t"}
	return c
}

func TestAnAuthorityMakesCertificatesForFronts(t *testing.T) {
	c := withFronts(t)
	c.Gateway.URL, c.Backend.PublicURL = "wss://gw.example/t", "https://api.example"
	c.Gateway.TLS.ACME.Enabled, c.Backend.Certificate.ACME.Enabled = true, true
	if err := c.openACME(slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	defer c.acme.Close()
	if diff := cmp.Diff([]string{"gw.example", "front.example", "api.example"}, c.acme.Missing()); diff != "" {
		t.Errorf("the hosts of certificates (-want +got):\n%s", diff)
	}
}

func TestTheDevelopmentCertificateIsForFronts(t *testing.T) {
	for _, fronts := range [][]string{nil, {"wss://front.example/t"}} {
		c := withFronts(t)
		c.dev, c.Backend.Dev, c.Gateway.Fronts = true, true, fronts
		c.Backend.Listen, c.Gateway.Listen, c.Gateway.AdminListen = "", "", ""
		if err := c.openDev(t.Context()); err != nil {
			t.Fatal(err)
		}
		defer c.close()
		shown, err := c.Gateway.GetCertificate(&tls.ClientHelloInfo{})
		if err != nil {
			t.Fatal(err)
		}
		for host, want := range map[string]bool{"front.example": fronts != nil, "localhost": true, "127.0.0.1": true} {
			if err := shown.Leaf.VerifyHostname(host); (err == nil) != want {
				t.Errorf("with the fronts %q, %s: %v", fronts, host, err)
			}
		}
	}
}
