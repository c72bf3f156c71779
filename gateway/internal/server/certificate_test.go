package server

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// writeCertificate writes a certificate with this serial and its key.
func writeCertificate(t *testing.T, dir string, serial int64, modified time.Time) (certFile, keyFile string) {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"gw.example"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, public, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: der}, keyFile: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, modified, modified); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

func serial(t *testing.T, c *certificate) int64 {
	t.Helper()
	cert, err := c.get(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	return cert.Leaf.SerialNumber.Int64()
}

func TestARenewedCertificateIsServedWithoutARestart(t *testing.T) {
	dir, now := t.TempDir(), time.Now()
	var logged bytes.Buffer
	certFile, keyFile := writeCertificate(t, dir, 1, now)
	c, err := loadCertificate(certFile, keyFile, slog.New(slog.NewJSONHandler(&logged, nil)))
	if err != nil {
		t.Fatal(err)
	}
	c.now = func() time.Time { return now }
	writeCertificate(t, dir, 2, now.Add(time.Second))
	if got := serial(t, c); got != 1 {
		t.Errorf("serves number %d before the next look at the files", got)
	}
	now = now.Add(2 * certificateCheck)
	if got := serial(t, c); got != 2 {
		t.Errorf("serves number %d, want the renewed one", got)
	}

	// A renewal that went wrong leaves the old one in place, and is told.
	if err := os.WriteFile(certFile, []byte("half a file"), 0o600); err != nil {
		t.Fatal(err)
	}
	now = now.Add(2 * certificateCheck)
	if got := serial(t, c); got != 2 || !strings.Contains(logged.String(), "certificate not renewed") {
		t.Errorf("serves number %d, logged %s", got, logged.String())
	}
}

func TestAMissingCertificateIsAnErrorThatNamesTheFiles(t *testing.T) {
	dir := t.TempDir()
	_, err := loadCertificate(filepath.Join(dir, "a.crt"), filepath.Join(dir, "a.key"), slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "a.crt") || !strings.Contains(err.Error(), "a.key") {
		t.Errorf("loadCertificate = %v", err)
	}
}
