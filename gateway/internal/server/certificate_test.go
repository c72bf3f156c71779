package server

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
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
