package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/internal/devca"
)

// withCertificate returns a configuration with files that hold a certificate for
// gw.example, and that certificate.
func withCertificate(t *testing.T, logged *bytes.Buffer) (config.Config, tls.Certificate) {
	t.Helper()
	dir := t.TempDir()
	authority, err := devca.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	pair, err := authority.Issue("gw.example")
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	cfg := config.Default()
	cfg.TLS = config.TLS{CertFile: filepath.Join(dir, "tls.crt"), KeyFile: filepath.Join(dir, "tls.key")}
	cfg.Log = slog.New(slog.NewJSONHandler(logged, nil))
	for file, block := range map[string]*pem.Block{
		cfg.TLS.CertFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]},
		cfg.TLS.KeyFile:  {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return cfg, pair
}

func TestTheCertificateOfTheFilesIsServedAndJudgedByTheURLsHost(t *testing.T) {
	for url, warned := range map[string]bool{"wss://gw.example:4443/x": false, "wss://other.example:4443/x": true} {
		var logged bytes.Buffer
		cfg, want := withCertificate(t, &logged)
		cfg.URL = url
		source, err := openCertificate(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := source.get(&tls.ClientHelloInfo{}); err != nil || !got.Leaf.Equal(want.Leaf) {
			t.Errorf("%s: serves %+v, %v; want what the files hold", url, got, err)
		}
		if got := strings.Contains(logged.String(), `"host":"other.example"`); got != warned || !warned && logged.Len() > 0 {
			t.Errorf("%s: logged %q", url, &logged)
		}
	}
}

// The certificate is for the host of each front, too, and a host that there is twice is
// judged once.
func TestTheCertificateIsJudgedByTheHostsOfFronts(t *testing.T) {
	var logged bytes.Buffer
	cfg, _ := withCertificate(t, &logged)
	cfg.URL = "wss://gw.example/x"
	cfg.Fronts = []string{"wss://gw.example:4443/x", "wss://front.example/x", "wss://Front.example:4443/x"}
	if _, err := openCertificate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if text := logged.String(); strings.Count(text, "certificate does not suit its clients") != 1 || !strings.Contains(text, `"host":"front.example"`) {
		t.Errorf("logged %q", text)
	}
	warnings, err := cfg.Check()
	if err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], "it is not for front.example") {
		t.Errorf("Check = %q, %v", warnings, err)
	}
}

func TestAnAuthorityMakesACertificateForEachFront(t *testing.T) {
	cfg := config.Default()
	cfg.DataDir, cfg.Log = t.TempDir(), slog.New(slog.DiscardHandler)
	cfg.URL, cfg.Fronts = "wss://gw.example/x", []string{"wss://gw.example:4443/x", "wss://front.example/x"}
	cfg.TLS.ACME.Enabled = true
	source, err := openCertificate(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	defer source.close()
	if got := source.missing(); !slices.Equal(got, []string{"gw.example", "front.example"}) {
		t.Errorf("certificates will be made for %q", got)
	}
}

func TestACertificateFromTheProgramReplacesTheFiles(t *testing.T) {
	var logged bytes.Buffer
	cfg, _ := withCertificate(t, &logged)
	cfg.URL = "wss://other.example/x"
	own := &tls.Certificate{}
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own, nil }
	source, err := openCertificate(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := source.get(&tls.ClientHelloInfo{}); err != nil || got != own || logged.Len() > 0 {
		t.Errorf("serves %p, %v and logs %q; want the program's own and nothing", got, err, &logged)
	}
}
