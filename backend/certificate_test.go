package backend_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/internal/certfile"
	"github.com/httvps/httvps/internal/devca"
	"github.com/httvps/httvps/internal/inproc"
	"github.com/httvps/httvps/sdk/go/tlspin"
)

// certificateFiles is an authority that issues certificates for 127.0.0.1 into
// two files.
type certificateFiles struct {
	t         *testing.T
	dir       string
	pin       tlspin.Pin
	cert, key string
}

func newCertificateFiles(t *testing.T) *certificateFiles {
	t.Helper()
	dir := t.TempDir()
	return &certificateFiles{t: t, dir: dir, cert: filepath.Join(dir, "tls.crt"), key: filepath.Join(dir, "tls.key")}
}

// renew writes a certificate with a key of its own and returns it.
func (f *certificateFiles) renew() *x509.Certificate {
	f.t.Helper()
	authority, err := devca.Open(f.dir) // an authority that is open issues the same again
	if err != nil {
		f.t.Fatal(err)
	}
	f.pin = authority.Pin()
	pair, err := authority.Issue("127.0.0.1")
	if err != nil {
		f.t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		f.t.Fatal(err)
	}
	var chain []byte
	for _, der := range pair.Certificate {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	}
	f.write(f.cert, chain)
	f.write(f.key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}))
	return pair.Leaf
}

func (f *certificateFiles) write(name string, text []byte) {
	f.t.Helper()
	if err := os.WriteFile(name, text, 0o600); err != nil {
		f.t.Fatal(err)
	}
}

// use makes cfg serve the files.
func (f *certificateFiles) use(cfg *backend.Config) {
	cfg.TLS = nil
	cfg.Certificate.CertFile, cfg.Certificate.KeyFile = f.cert, f.key
}

func TestARenewedCertificateIsServedAndHealthFollowsIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		files := newCertificateFiles(t)
		first := files.renew()
		listener := inproc.New()
		var cfg backend.Config
		start(t, dataDir(t), func(c *backend.Config) {
			files.use(c)
			c.Listener = listener
			cfg = *c
		})
		wantServed := func(want *x509.Certificate) {
			t.Helper()
			raw, err := listener.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			conn := tls.Client(raw, tlspin.Config(files.pin, "127.0.0.1"))
			defer conn.Close()
			if err := conn.HandshakeContext(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := conn.ConnectionState().PeerCertificates[0]; !got.Equal(want) {
				t.Errorf("the API serves certificate %x, want %x", got.SerialNumber, want.SerialNumber)
			}
		}
		health := func() error {
			return backend.HealthOver(t.Context(), cfg, true, func(ctx context.Context, _, _ string) (net.Conn, error) { return listener.Dial(ctx) })
		}
		wantServed(first)
		if err := health(); err != nil {
			t.Errorf("Health = %v", err)
		}

		second := files.renew()
		wantServed(first)
		<-time.After(certfile.Interval)
		if err := health(); err != nil {
			t.Errorf("Health a minute after the renewal = %v", err)
		}
		wantServed(second)

		files.write(files.cert, []byte("half a file"))
		<-time.After(certfile.Interval)
		wantServed(second)
	})
}

func TestTheLogWarnsOfACertificateForOtherHosts(t *testing.T) {
	files := newCertificateFiles(t)
	files.renew()
	for name, tc := range map[string]struct {
		adjust func(cfg *backend.Config)
		warned string // the hosts
	}{
		"the listener's own address": {adjust: func(*backend.Config) {}},
		"another public address": {
			adjust: func(cfg *backend.Config) { cfg.PublicURL = "https://vpn.example.net:8443" },
			warned: "vpn.example.net",
		},
		"another address for operators": {
			adjust: func(cfg *backend.Config) { cfg.AdminListen, cfg.AdminURL = "127.0.0.1:0", "https://[2001:db8::1]:9443" },
			warned: "2001:db8::1",
		},
		"another listener for operators": {
			adjust: func(cfg *backend.Config) { cfg.AdminListen = "localhost:0" },
			warned: "localhost",
		},
		"a certificate from the program": {
			adjust: func(cfg *backend.Config) { cfg.PublicURL = "https://vpn.example.net"; cfg.TLS, _ = testTLS(t) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, dataDir(t), func(cfg *backend.Config) {
				files.use(cfg)
				tc.adjust(cfg)
			})
			var warned []string
			for line := range strings.Lines(s.log.String()) {
				if strings.Contains(line, "certificate does not suit its clients") {
					_, rest, _ := strings.Cut(line, `"host":"`)
					host, _, _ := strings.Cut(rest, `"`)
					warned = append(warned, host)
				}
			}
			if got := strings.Join(warned, " "); got != tc.warned {
				t.Errorf("warned of hosts %q, want %q:\n%s", got, tc.warned, s.log)
			}
		})
	}
}
