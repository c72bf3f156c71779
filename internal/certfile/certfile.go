// Package certfile serves a certificate that is kept in files, and follows its
// renewals: they need no restart and end no connection.
package certfile

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"
)

const (
	// Interval is how often the files are looked at: what is in them has been
	// served for so long at the latest.
	Interval = time.Minute

	// soon is how long before its end a certificate should have been renewed.
	soon = 7 * 24 * time.Hour
)

// What is told about a certificate, as the log's field "problem".
const (
	otherHost   = "other_host"
	expired     = "expired"
	expiresSoon = "expires_soon"
)

// Config says where a certificate is and what it is for.
type Config struct {
	// CertFile and KeyFile are PEM, the chain leaf first.
	CertFile, KeyFile string
	// Hosts are the names and IP addresses, at least one, that clients connect
	// to. The log warns when the certificate does not suit one of them; it is
	// served all the same, for a proxy with another one may stand in front.
	Hosts []string
	// Log takes warnings and the fate of renewals.
	Log *slog.Logger
}

// Pair is a certificate with its key. It is safe for concurrent use. It has no
// goroutine: handshakes look at the files, at most one in an Interval.
type Pair struct {
	cfg Config

	mu      sync.Mutex // guards the following
	current *tls.Certificate
	version version
	looked  time.Time
	told    []finding // about current
}

// version tells apart what the files hold, or why they cannot be read. It is
// of their contents: a file can be completed within one tick of the clock that
// stamps it, and tools that copy files may keep older times.
type version [sha256.Size]byte

// finding is a reason why clients will refuse a certificate, now or soon.
type finding struct{ host, problem string }

// Check reads the pair and returns the reasons why clients will refuse it, now or
// soon. The error names the files that cannot be served.
func Check(cfg Config) (warnings []string, err error) {
	pair, _, err := read(cfg.CertFile, cfg.KeyFile)
	if err != nil {
		return nil, err
	}
	for _, f := range findings(pair.Leaf, hostsOf(cfg)) {
		warnings = append(warnings, fmt.Sprintf("certificate %s: %s", cfg.CertFile, f.inWords(pair.Leaf)))
	}
	return warnings, nil
}

// Open reads the pair. The error names the files.
func Open(ctx context.Context, cfg Config) (*Pair, error) {
	cfg.Hosts = hostsOf(cfg)
	p := &Pair{cfg: cfg, looked: time.Now()}
	var err error
	if p.current, p.version, err = read(cfg.CertFile, cfg.KeyFile); err != nil {
		return nil, err
	}
	p.judge(ctx)
	return p, nil
}

// GetCertificate is for the field of this name of [tls.Config]. Files that are
// damaged, half-written or gone leave the pair before them in place.
func (p *Pair) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if now := time.Now(); now.Sub(p.looked) >= Interval {
		p.looked = now
		p.look(hello.Context())
	}
	return p.current, nil
}

// Prepare reads the pair that other files hold, or the same ones now, and returns
// what has it served from then on. The error names the files; nothing has changed
// then.
func (p *Pair) Prepare(ctx context.Context, certFile, keyFile string) (commit func(), err error) {
	loaded, v, err := read(certFile, keyFile)
	if err != nil {
		return nil, err
	}
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cfg.CertFile, p.cfg.KeyFile = certFile, keyFile
		p.looked = time.Now()
		if v != p.version {
			p.take(ctx, loaded, v)
		}
		p.judge(ctx)
	}, nil
}

// take serves another pair from now on. Called with mu held.
func (p *Pair) take(ctx context.Context, loaded *tls.Certificate, v version) {
	p.version, p.current, p.told = v, loaded, nil
	p.cfg.Log.InfoContext(ctx, "certificate renewed", "not_after", loaded.Leaf.NotAfter)
}

// look takes over what the files hold, once per change of them.
func (p *Pair) look(ctx context.Context) {
	loaded, v, err := read(p.cfg.CertFile, p.cfg.KeyFile)
	switch {
	case v == p.version:
	case err != nil:
		p.version = v
		p.cfg.Log.ErrorContext(ctx, "certificate not renewed", "error", err.Error())
	default:
		p.take(ctx, loaded, v)
	}
	p.judge(ctx)
}

func read(certFile, keyFile string) (*tls.Certificate, version, error) {
	certificate, certErr := os.ReadFile(certFile) //nolint:gosec // the operator says which file
	key, keyErr := os.ReadFile(keyFile)           //nolint:gosec // likewise
	err := errors.Join(certErr, keyErr)
	v := version(sha256.Sum256(fmt.Appendf(nil, "%q %q %v", certificate, key, err)))
	if err != nil {
		return nil, v, fmt.Errorf("certificate: %w", err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return nil, v, fmt.Errorf("certificate %s with %s: %w", certFile, keyFile, err)
	}
	return &pair, v, nil
}

// judge warns of what was not found before in the current certificate.
func (p *Pair) judge(ctx context.Context) {
	leaf := p.current.Leaf
	found := findings(leaf, p.cfg.Hosts)
	for _, f := range found {
		if !slices.Contains(p.told, f) {
			p.cfg.Log.WarnContext(ctx, "certificate does not suit its clients",
				"host", f.host, "problem", f.problem, "not_after", leaf.NotAfter)
		}
	}
	p.told = found
}

func findings(leaf *x509.Certificate, hosts []string) []finding {
	var found []finding
	left := time.Until(leaf.NotAfter)
	for _, host := range hosts {
		if leaf.VerifyHostname(host) != nil {
			found = append(found, finding{host, otherHost})
		}
		switch {
		case left < 0:
			found = append(found, finding{host, expired})
		case left <= soon:
			found = append(found, finding{host, expiresSoon})
		}
	}
	return found
}

func (f finding) inWords(leaf *x509.Certificate) string {
	end := leaf.NotAfter.UTC().Format(time.RFC3339)
	switch f.problem {
	case otherHost:
		return "it is not for " + f.host
	case expired:
		return "it has ended, at " + end
	default:
		return "it ends soon, at " + end
	}
}

func hostsOf(cfg Config) []string { return slices.Compact(slices.Sorted(slices.Values(cfg.Hosts))) }
