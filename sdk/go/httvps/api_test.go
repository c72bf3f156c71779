package httvps

import (
	"crypto/tls"
	"testing"
)

func TestAServiceWithoutAPinIsVerifiedAsBrowsersDo(t *testing.T) {
	config, err := tlsConfigs("")
	if err != nil {
		t.Fatal(err)
	}
	c := config("vpn.test")
	if c.MinVersion != tls.VersionTLS13 || c.ServerName != "vpn.test" || c.InsecureSkipVerify || c.RootCAs != nil {
		t.Errorf("TLS from version %x for %q, skipping verification: %v", c.MinVersion, c.ServerName, c.InsecureSkipVerify)
	}
	if _, err := tlsConfigs("not a pin"); err == nil {
		t.Error("a damaged pin was accepted")
	}
}
