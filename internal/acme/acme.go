// Package acme has an authority make the certificates of this process (RFC 8555),
// proves on the process's own listeners that their hosts are ours, keeps them in a
// directory and renews them.
//
// Nothing of it shows at a listener but while the authority looks: to everybody
// else it is a listener with a certificate, and not one that was made by ACME.
package acme

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3"
	protocol "github.com/mholt/acmez/v3/acme"
)

// ErrNone says that there is no certificate yet.
var ErrNone = errors.New("there is no certificate yet")

// Config says which certificates and how.
type Config struct {
	Settings
	// Hosts are the names and IP addresses, at least one; each gets a certificate.
	// Who connects without a name is shown that of the address that he has reached, if
	// that is one of them; otherwise, with another name, and where that has none yet, the
	// first.
	Hosts []string
	// Reach is of the first host.
	Reach Reach
	// Dir holds certificates, keys and the account. It is made, for this user alone.
	Dir string
	// TLSListen and HTTPListen are the addresses (host:port) of the listeners that
	// answer challenges: with [Source.Apply] and [Source.Answer]. Empty: there is none.
	TLSListen, HTTPListen string
	// Log takes what becomes of certificates.
	Log *slog.Logger
}

// Source has the certificates. It is safe for concurrent use.
type Source struct {
	hosts  []string
	magic  *certmagic.Config
	issuer *certmagic.ACMEIssuer
	cache  *certmagic.Cache
	log    *slog.Logger

	ready chan struct{} // closed when there is one for each host

	mu      sync.Mutex // guards the following field
	missing map[string]bool
}

// Open prepares the certificates: no authority is asked yet. The source must be
// closed.
func Open(cfg Config) (*Source, error) {
	hosts := make([]string, 0, len(cfg.Hosts))
	for _, host := range cfg.Hosts {
		if host = strings.ToLower(host); !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("certificates: %w", err)
	}
	if err := os.Chmod(cfg.Dir, 0o700); err != nil { //nolint:gosec // a directory; whoever made it
		return nil, fmt.Errorf("certificates: %w", err)
	}
	roots, err := cfg.roots()
	if err != nil {
		return nil, err
	}
	s := &Source{hosts: hosts, log: cfg.Log, ready: make(chan struct{}), missing: make(map[string]bool)}
	for _, host := range hosts {
		s.missing[host] = true
	}
	log := quiet(cfg.Log)
	s.cache = certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return s.magic, nil },
		Logger:           log,
	})
	s.magic = certmagic.New(s.cache, certmagic.Config{
		Storage: &certmagic.FileStorage{Path: cfg.Dir},
		OCSP:    certmagic.OCSPConfig{DisableStapling: true}, // and no questions about it
		OnEvent: s.event,
		Logger:  log,
	})
	used := cfg.challenges(cfg.Reach)
	template := certmagic.ACMEIssuer{
		CA: cfg.directory(), Email: cfg.Email, Agreed: true, TrustedRoots: roots, Profile: cfg.profile(hosts),
		DisableHTTPChallenge:      !slices.Contains(used, HTTP01),
		DisableTLSALPNChallenge:   !slices.Contains(used, TLSALPN01),
		DisableDistributedSolvers: true, // this process alone answers
		Logger:                    log,
	}
	// The library listens by itself where nobody does. We do.
	template.ListenHost, template.AltTLSALPNPort = split(cfg.TLSListen)
	if host, port := split(cfg.HTTPListen); port != 0 {
		template.AltHTTPPort = port
		if template.DisableTLSALPNChallenge {
			template.ListenHost = host
		}
	}
	s.issuer = certmagic.NewACMEIssuer(s.magic, template)
	s.magic.Issuers = []certmagic.Issuer{s.issuer}
	return s, nil
}

func split(address string) (host string, port int) {
	host, text, _ := net.SplitHostPort(address)
	port, _ = strconv.Atoi(text)
	return host, port
}

func (s Settings) roots() (*x509.CertPool, error) {
	if s.CAFile == "" {
		return nil, nil //nolint:nilnil // the system's
	}
	text, err := os.ReadFile(s.CAFile)
	if err != nil {
		return nil, fmt.Errorf("acme.ca_file: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(text) {
		return nil, fmt.Errorf("acme.ca_file: %s holds no certificate", s.CAFile)
	}
	return roots, nil
}

// Check says what would keep Open from succeeding, as far as files do.
func (s Settings) Check() error {
	if !s.Enabled {
		return nil
	}
	_, err := s.roots()
	return err
}

// Run gets what is missing and renews what ends, until ctx ends. The listeners must
// be there before: where nobody listens, the library does. The authority is asked
// again after a minute, then less and less often.
func (s *Source) Run(ctx context.Context) {
	var running sync.WaitGroup
	for _, host := range s.hosts {
		running.Go(func() {
			if err := s.get(ctx, host); err != nil && ctx.Err() == nil {
				s.log.ErrorContext(ctx, "certificate given up", "host", host, "error", err.Error())
			}
		})
	}
	running.Wait()
	<-ctx.Done()
}

// get has a certificate for host in memory: a kept one or a new one. What is in
// memory the library renews by itself.
func (s *Source) get(ctx context.Context, host string) error {
	kept, err := s.magic.CacheManagedCertificate(ctx, host)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		if err := s.magic.ObtainCertAsync(ctx, host); err != nil { // and does so again and again
			return err
		}
		_, err = s.magic.CacheManagedCertificate(ctx, host)
	case err == nil && kept.NeedsRenewal(s.magic):
		s.have(host) // better an old one than none
		if err := s.magic.RenewCertAsync(ctx, host, false); err != nil {
			return err
		}
		s.cache.Remove([]string{kept.Hash()})
		_, err = s.magic.CacheManagedCertificate(ctx, host)
	}
	if err != nil {
		return err
	}
	s.have(host)
	return nil
}

// have notes that there is a certificate for host.
func (s *Source) have(host string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.missing[host] {
		return
	}
	delete(s.missing, host)
	if len(s.missing) == 0 {
		close(s.ready)
	}
}

// Ready is closed when there is a certificate for each host.
func (s *Source) Ready() <-chan struct{} { return s.ready }

// Missing are the hosts without a certificate.
func (s *Source) Missing() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var hosts []string
	for _, host := range s.hosts {
		if s.missing[host] {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// Close ends the care for what is in memory, after Run has ended.
func (s *Source) Close() { s.cache.Stop() }

// GetCertificate is for the field of this name of [tls.Config].
func (s *Source) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	host := strings.ToLower(hello.ServerName)
	if host == "" && hello.Conn != nil { // an address is never named
		host, _ = split(hello.Conn.LocalAddr().String())
	}
	known := s.cache.AllMatchingCertificates(host)
	if !slices.Contains(s.hosts, host) || len(known) == 0 { // a host that waits for its own looks like nobody's
		known = s.cache.AllMatchingCertificates(s.hosts[0])
	}
	best, err := certmagic.DefaultCertificateSelector(hello, known)
	if err != nil {
		return nil, ErrNone
	}
	return &best.Certificate, nil
}

// Apply has a listener serve the certificates, and answer the authority.
func (s *Source) Apply(config *tls.Config) {
	config.GetCertificate = s.GetCertificate
	config.GetConfigForClient = s.challenged
}

// challenged returns how to answer an authority that looks now; for everybody
// else, nil. A listener that always had the protocol's name would stand out.
func (s *Source) challenged(hello *tls.ClientHelloInfo) (*tls.Config, error) {
	if !slices.Equal(hello.SupportedProtos, []string{acmez.ACMETLS1Protocol}) {
		return nil, nil //nolint:nilnil // as the listener has it
	}
	if challenge, ok := certmagic.GetACMEChallenge(hello.ServerName); !ok || challenge.Type != protocol.ChallengeTypeTLSALPN01 {
		return nil, nil //nolint:nilnil // as the listener has it
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS12, // RFC 8737, part 3
		NextProtos: []string{acmez.ACMETLS1Protocol}, GetCertificate: s.magic.GetCertificate,
	}, nil
}

// Answer has a plain HTTP listener answer an authority that looks now; everything
// else goes to next.
func (s *Source) Answer(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if certmagic.LooksLikeHTTPChallenge(r) {
			challenge, ok := certmagic.GetACMEChallenge(r.Host)
			if ok && challenge.Type == protocol.ChallengeTypeHTTP01 && s.issuer.HandleHTTPChallenge(w, r) {
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// event tells what became of a certificate.
func (s *Source) event(ctx context.Context, event string, data map[string]any) error {
	host, _ := data["identifier"].(string)
	renewal, _ := data["renewal"].(bool)
	switch event {
	case "cert_obtained":
		s.log.InfoContext(ctx, "certificate obtained", "host", host, "renewal", renewal)
	case "cert_failed":
		err, _ := data["error"].(error)
		s.log.WarnContext(ctx, "certificate not obtained", "host", host, "renewal", renewal, "error", fmt.Sprint(err))
	}
	return nil
}

// Stored is the certificate for host that a process with these settings keeps in
// dir.
func (s Settings) Stored(dir, host string) (*x509.Certificate, error) {
	host = strings.ToLower(host)
	issuer := (&certmagic.ACMEIssuer{CA: s.directory()}).IssuerKey()
	storage := &certmagic.FileStorage{Path: dir}
	name := storage.Filename(certmagic.StorageKeys.SiteCert(issuer, host))
	key := storage.Filename(certmagic.StorageKeys.SitePrivateKey(issuer, host))
	pair, err := tls.LoadX509KeyPair(name, key)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: %w", host, ErrNone)
	case err != nil:
		return nil, fmt.Errorf("certificate in %s: %w", filepath.Dir(name), err)
	}
	return pair.Leaf, nil
}
