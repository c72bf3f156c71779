// Package devca is a certificate authority for one service: made on first
// start, kept in a directory, trusted by its pin (see tlspin) and nowhere else.
// It lets development and single-machine installations use real, verified TLS
// without a public certificate.
package devca

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/tlspin"
)

const (
	certName = "ca.pem"
	keyName  = "ca.key"

	authorityLife = 10 * 365 * 24 * time.Hour
	leafLife      = 90 * 24 * time.Hour

	// skew is how far a client's clock may be behind ours.
	skew = time.Hour

	// maxCached bounds the certificates kept for reuse; a service has a few names.
	maxCached = 16

	// maxFile bounds what is read as a certificate or key, in bytes.
	maxFile = 64 << 10
)

var (
	// ErrKeyMissing says that a directory holds the authority's certificate but
	// not its key. A new authority would lock out everyone who holds the pin,
	// so that is for a person to decide.
	ErrKeyMissing = errors.New("the authority's certificate is here but its key is not")

	// ErrKeyExposed says that others than its owner may read the authority's key.
	ErrKeyExposed = errors.New("the authority's key must be readable by its owner only (chmod 600)")

	// ErrMismatch says that the authority's certificate does not belong to its key.
	ErrMismatch = errors.New("the authority's certificate does not belong to its key")

	// ErrHost says that a certificate was asked for something that is neither a
	// host name nor an IP address, or for nothing.
	ErrHost = errors.New("not a host name or IP address")
)

// Authority issues certificates for the hosts of one service. It is safe for
// concurrent use.
type Authority struct {
	dir string
	key *ecdsa.PrivateKey
	pin tlspin.Pin

	mu     sync.Mutex // guards the following
	cert   *x509.Certificate
	issued map[string]*tls.Certificate // by sorted hosts
}

// Open loads the authority kept in dir, or makes one, and dir, on first use:
// ca.pem for everyone and ca.key, mode 0600. Several processes may open the
// same directory at once and get the same authority.
//
// The key is written first, in one step, and alone decides the pin: an
// authority whose certificate is missing or past two thirds of its life gets a
// new certificate for the same key.
func Open(dir string) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	a := &Authority{dir: dir, issued: make(map[string]*tls.Certificate)}
	var err error
	if a.key, err = openKey(dir); err != nil {
		return nil, err
	}
	if _, err := a.current(); err != nil {
		return nil, err
	}
	a.pin = tlspin.Of(a.cert)
	return a, nil
}

// Pin returns what clients need to trust the authority.
func (a *Authority) Pin() tlspin.Pin { return a.pin }

// CertFile returns the path of the authority's certificate in PEM, for clients
// that want a file (curl --cacert).
func (a *Authority) CertFile() string { return filepath.Join(a.dir, certName) }

// Issue returns a certificate for hosts, names or IP addresses, with the
// authority's own behind it in the chain. It returns the same certificate
// until less than a third of its life of 90 days remains, so a server may call
// it for every handshake and always serves a valid one.
func (a *Authority) Issue(hosts ...string) (tls.Certificate, error) {
	cert, err := a.leaf(hosts)
	if err != nil {
		return tls.Certificate{}, err
	}
	return *cert, nil
}

// GetCertificate returns what [tls.Config.GetCertificate] takes: it serves the
// certificate of [Authority.Issue] for hosts, whatever name the client asks for.
func (a *Authority) GetCertificate(hosts ...string) func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	hosts = slices.Clone(hosts)
	return func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.leaf(hosts) }
}

func (a *Authority) leaf(hosts []string) (*tls.Certificate, error) {
	hosts = slices.Sorted(slices.Values(hosts))
	hosts = slices.Compact(hosts)
	if len(hosts) == 0 {
		return nil, fmt.Errorf("certificate for no host: %w", ErrHost)
	}
	template := &x509.Certificate{
		Subject:     pkix.Name{CommonName: hosts[0]},
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, host := range hosts {
		if ip := net.ParseIP(host); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else if isName(host) {
			template.DNSNames = append(template.DNSNames, host)
		} else {
			return nil, fmt.Errorf("certificate for %q: %w", host, ErrHost)
		}
	}
	cacheKey := strings.Join(hosts, " ") // no host has a space

	a.mu.Lock()
	defer a.mu.Unlock()
	if cert := a.issued[cacheKey]; cert != nil && !aging(cert.Leaf) {
		return cert, nil
	}
	authority, err := a.currentLocked()
	if err != nil {
		return nil, err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", hosts[0], err)
	}
	leaf, err := sign(template, leafLife, authority, &key.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate for %s: %w", hosts[0], err)
	}
	if len(a.issued) >= maxCached {
		clear(a.issued)
	}
	cert := &tls.Certificate{
		Certificate: [][]byte{leaf.Raw, authority.Raw},
		PrivateKey:  key,
		Leaf:        leaf,
	}
	a.issued[cacheKey] = cert
	return cert, nil
}

// isName accepts what a DNS name of a certificate may be, wildcards excluded.
func isName(host string) bool {
	if len(host) > 253 {
		return false
	}
	for label := range strings.SplitSeq(host, ".") {
		if label == "" || len(label) > 63 || strings.HasPrefix(label, "-") || strings.HasSuffix(label, "-") {
			return false
		}
		for _, r := range label {
			if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '-' {
				return false
			}
		}
	}
	return true
}

// aging reports whether less than a third of cert's life remains.
func aging(cert *x509.Certificate) bool {
	life := cert.NotAfter.Sub(cert.NotBefore)
	return time.Until(cert.NotAfter) < life/3
}

// current returns the authority's certificate, renewed when needed.
func (a *Authority) current() (*x509.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.currentLocked()
}

func (a *Authority) currentLocked() (*x509.Certificate, error) {
	if a.cert == nil {
		cert, err := readCert(a.CertFile())
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			return nil, err
		case !a.key.PublicKey.Equal(cert.PublicKey):
			return nil, fmt.Errorf("%s: %w", a.CertFile(), ErrMismatch)
		default:
			a.cert = cert
		}
	}
	if a.cert != nil && !aging(a.cert) {
		return a.cert, nil
	}
	// No product name: whoever probes the port sees this certificate.
	cert, err := sign(&x509.Certificate{
		Subject:        pkix.Name{CommonName: "Local CA"},
		KeyUsage:       x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		IsCA:           true,
		MaxPathLenZero: true, // it signs leaves only
	}, authorityLife, nil, &a.key.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if err := replaceFile(a.CertFile(), "CERTIFICATE", cert.Raw, 0o644); err != nil {
		return nil, err
	}
	a.cert = cert
	return cert, nil
}

// sign completes template and signs it; a nil parent means self-signed.
func sign(template *x509.Certificate, life time.Duration, parent *x509.Certificate, public *ecdsa.PublicKey, key *ecdsa.PrivateKey) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template.SerialNumber = serial
	template.NotBefore = now.Add(-skew)
	template.NotAfter = now.Add(life)
	template.BasicConstraintsValid = true
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// openKey loads the authority's key, or makes it unless a certificate says that
// there should be one.
func openKey(dir string) (*ecdsa.PrivateKey, error) {
	path := filepath.Join(dir, keyName)
	key, err := readKey(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return key, err
	}
	// The certificate is looked for after the key was not found: of two
	// processes on a fresh directory, the second may see the first's files
	// appear in between, and the key always appears first.
	if _, err := os.Lstat(filepath.Join(dir, certName)); err == nil {
		if key, err := readKey(path); !errors.Is(err, fs.ErrNotExist) {
			return key, err
		}
		return nil, fmt.Errorf("%s: %w", dir, ErrKeyMissing)
	}
	key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	switch err := createFile(path, "PRIVATE KEY", der); {
	case errors.Is(err, fs.ErrExist):
		return readKey(path) // another process was faster
	case err != nil:
		return nil, err
	}
	return key, nil
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%s: %w", path, ErrKeyExposed)
	}
	der, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%s: want an ECDSA P-256 key", path)
	}
	return key, nil
}

func readCert(path string) (*x509.Certificate, error) {
	der, err := readPEM(path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("%s: not an authority's certificate", path)
	}
	return cert, nil
}

// readPEM returns the only block of the file at path.
func readPEM(path, kind string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("%s: larger than %d bytes", path, maxFile)
	}
	text, err := os.ReadFile(path) //nolint:gosec // inside the directory that the operator named
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	block, rest := pem.Decode(text)
	if block == nil || block.Type != kind || len(strings.TrimSpace(string(rest))) > 0 {
		return nil, fmt.Errorf("%s: want one PEM block of type %s and nothing else", path, kind)
	}
	return block.Bytes, nil
}
