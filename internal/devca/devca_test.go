package devca_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/internal/devca"
	"github.com/httvps/httvps/sdk/go/tlspin"
)

func open(t *testing.T, dir string) *devca.Authority {
	t.Helper()
	authority, err := devca.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	return authority
}

func issue(t *testing.T, authority *devca.Authority, hosts ...string) tls.Certificate {
	t.Helper()
	cert, err := authority.Issue(hosts...)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func TestClientsWithThePinReachTheServer(t *testing.T) {
	t.Parallel()
	authority := open(t, filepath.Join(t.TempDir(), "new", "tls"))
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "hello")
	}))
	ours := &tls.Config{GetCertificate: authority.GetCertificate("127.0.0.1", "api.example")}
	server.TLS = &tls.Config{ // httptest would add a certificate of its own to ours
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return ours, nil },
	}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	defer server.Close()
	roots := x509.NewCertPool()
	text, err := os.ReadFile(authority.CertFile())
	if err != nil || !roots.AppendCertsFromPEM(text) {
		t.Fatalf("%s: %v", authority.CertFile(), err)
	}

	for name, tc := range map[string]struct {
		config *tls.Config
		fails  bool
	}{
		"by pin and address":     {config: tlspin.Config(authority.Pin(), "127.0.0.1")},
		"by pin and name":        {config: tlspin.Config(authority.Pin(), "api.example")},
		"by certificate file":    {config: &tls.Config{RootCAs: roots}},
		"by pin, another name":   {config: tlspin.Config(authority.Pin(), "other.example"), fails: true},
		"by another's pin":       {config: tlspin.Config(open(t, t.TempDir()).Pin(), "127.0.0.1"), fails: true},
		"with the system's root": {config: &tls.Config{}, fails: true},
	} {
		t.Run(name, func(t *testing.T) {
			client := &http.Client{Transport: &http.Transport{TLSClientConfig: tc.config, DisableKeepAlives: true}}
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL, http.NoBody)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err == nil {
				resp.Body.Close()
			}
			if (err != nil) != tc.fails {
				t.Errorf("request: %v", err)
			}
		})
	}
}

func TestAuthorityOutlivesItsProcess(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	first, second := open(t, dir), open(t, dir)
	if first.Pin() != second.Pin() {
		t.Errorf("pins %v and %v differ", first.Pin(), second.Pin())
	}
	for name, mode := range map[string]os.FileMode{"ca.key": 0o600, "ca.pem": 0o644} {
		info, err := os.Stat(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode().Perm() != mode {
			t.Errorf("%s has mode %v, want %v", name, info.Mode().Perm(), mode)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 2 {
		t.Errorf("%d files are left in the directory, want 2 (%v)", len(entries), err)
	}
}

func TestProcessesThatStartTogetherShareOneAuthority(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pins := make([]tlspin.Pin, 16)
	errs := make([]error, len(pins))
	var wait sync.WaitGroup
	for i := range pins {
		wait.Go(func() {
			authority, err := devca.Open(dir)
			if errs[i] = err; err == nil {
				pins[i] = authority.Pin()
			}
		})
	}
	wait.Wait()
	for i, pin := range pins {
		if errs[i] != nil || pin != pins[0] {
			t.Errorf("process %d: pin %v, %v; want %v", i, pin, errs[i], pins[0])
		}
	}
}

func TestLostCertificateIsMadeAgainForTheSameKey(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	pin := open(t, dir).Pin()
	if err := os.Remove(filepath.Join(dir, "ca.pem")); err != nil {
		t.Fatal(err)
	}
	if got := open(t, dir).Pin(); got != pin {
		t.Errorf("pin changed from %v to %v", pin, got)
	}
}

func TestDamagedAuthorityIsRefusedAndLeftAlone(t *testing.T) {
	t.Parallel()
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	edDER, err := x509.MarshalPKCS8PrivateKey(edKey)
	if err != nil {
		t.Fatal(err)
	}
	leafPEM := pem.EncodeToMemory(&pem.Block{
		Type: "CERTIFICATE", Bytes: issue(t, open(t, t.TempDir()), "x.example").Certificate[0],
	})
	foreignPEM, err := os.ReadFile(open(t, t.TempDir()).CertFile())
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		file    string
		content []byte // nil removes the file
		mode    os.FileMode
		want    error
		names   string // what the message must name
	}{
		"key lost":                  {file: "ca.key", want: devca.ErrKeyMissing},
		"key readable by others":    {file: "ca.key", mode: 0o640, want: devca.ErrKeyExposed, names: "ca.key"},
		"key empty":                 {file: "ca.key", content: []byte{}, names: "ca.key"},
		"key is noise":              {file: "ca.key", content: []byte("noise"), names: "ca.key"},
		"key of another kind":       {file: "ca.key", content: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: edDER}), names: "P-256"},
		"key not PKCS 8":            {file: "ca.key", content: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}), names: "ca.key"},
		"certificate is noise":      {file: "ca.pem", content: []byte("noise"), names: "ca.pem"},
		"certificate damaged":       {file: "ca.pem", content: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), names: "ca.pem"},
		"certificate of a leaf":     {file: "ca.pem", content: leafPEM, names: "ca.pem"},
		"certificate of another":    {file: "ca.pem", content: foreignPEM, want: devca.ErrMismatch, names: "ca.pem"},
		"two certificates":          {file: "ca.pem", content: slices.Concat(foreignPEM, foreignPEM), names: "ca.pem"},
		"certificate is very large": {file: "ca.pem", content: make([]byte, 1<<20), names: "larger"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			open(t, dir)
			path := filepath.Join(dir, tc.file)
			var err error
			switch {
			case tc.mode != 0:
				err = os.Chmod(path, tc.mode)
			case tc.content == nil:
				err = os.Remove(path)
			default:
				err = os.WriteFile(path, tc.content, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			before := snapshot(t, dir)

			_, err = devca.Open(dir)

			if err == nil || tc.want != nil && !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.names) {
				t.Errorf("Open = %v", err)
			}
			if after := snapshot(t, dir); after != before {
				t.Errorf("the directory changed:\n%s\n%s", before, after)
			}
		})
	}
}

func snapshot(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		all.WriteString(entry.Name() + "\n" + string(text))
	}
	return all.String()
}

func TestUnusableDirectoryIsAnError(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := devca.Open(file); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Open = %v", err)
	}
}

func TestOnlyHostsGetCertificates(t *testing.T) {
	t.Parallel()
	authority := open(t, t.TempDir())
	for name, hosts := range map[string][]string{
		"none":              nil,
		"empty":             {""},
		"one empty of two":  {"a.example", ""},
		"name with a port":  {"a.example:443"},
		"address in square": {"[::1]"},
		"a URL":             {"https://a.example"},
		"a wildcard":        {"*.example"},
		"with a space":      {"a b"},
		"a trailing dot":    {"a.example."},
		"a label too long":  {strings.Repeat("a", 64) + ".example"},
		"a name too long":   {strings.Repeat("a.", 127) + "aa"},
		"a leading hyphen":  {"-a.example"},
		"not ASCII":         {"bücher.example"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := authority.Issue(hosts...); !errors.Is(err, devca.ErrHost) {
				t.Errorf("Issue(%q) = %v, want ErrHost", hosts, err)
			}
		})
	}
}

func TestCertificatesCannotSignOthers(t *testing.T) {
	t.Parallel()
	cert := issue(t, open(t, t.TempDir()), "a.example", "::1", "a.example")
	if cert.Leaf.IsCA || len(cert.Certificate) != 2 {
		t.Errorf("IsCA %t, %d certificates in the chain", cert.Leaf.IsCA, len(cert.Certificate))
	}
	if len(cert.Leaf.DNSNames) != 1 || len(cert.Leaf.IPAddresses) != 1 || !cert.Leaf.IPAddresses[0].Equal(net.IPv6loopback) {
		t.Errorf("names %v, addresses %v", cert.Leaf.DNSNames, cert.Leaf.IPAddresses)
	}
}

func TestCertificateIsRenewedInItsLastThird(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const day = 24 * time.Hour
		authority := open(t, dir)
		first := issue(t, authority, "a.example", "b.example")
		<-time.After(59 * day)
		if same := issue(t, authority, "b.example", "a.example"); !same.Leaf.Equal(first.Leaf) {
			t.Error("renewed after 59 of 90 days")
		}
		<-time.After(2 * day)
		next := issue(t, authority, "a.example", "b.example")
		if next.Leaf.Equal(first.Leaf) {
			t.Error("not renewed after 61 of 90 days")
		}
		if left := time.Until(next.Leaf.NotAfter); left != 90*day {
			t.Errorf("the new one lasts %v, want 90 days", left)
		}
	})
}

func TestAuthorityIsRenewedWithItsPin(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		const year = 365 * 24 * time.Hour
		authority := open(t, dir)
		pin := authority.Pin()
		<-time.After(9 * year)
		for name, a := range map[string]*devca.Authority{"running since": authority, "started again": open(t, dir)} {
			if a.Pin() != pin {
				t.Errorf("%s: pin changed", name)
			}
			chain := issue(t, a, "a.example").Certificate
			ca, err := x509.ParseCertificate(chain[1])
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(ca.NotAfter); left != 10*year {
				t.Errorf("%s: authority lasts %v, want 10 years", name, left)
			}
			if tlspin.Of(ca) != pin {
				t.Errorf("%s: the chain has another pin", name)
			}
		}
	})
}
