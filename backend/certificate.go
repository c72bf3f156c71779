package backend

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/url"
	"path/filepath"

	"github.com/httvps/httvps/internal/acme"
	"github.com/httvps/httvps/internal/certfile"
	"github.com/httvps/httvps/internal/redirect"
)

// certificate is what the listeners serve, and where it is from.
type certificate struct {
	tls   *tls.Config
	files *certfile.Pair // nil: it is not from files
	acme  *acme.Source   // nil: no authority makes it for us
	log   *slog.Logger
}

// acmeDir is where certificates that an authority made are kept.
func acmeDir(cfg Config) string { return filepath.Join(cfg.DataDir, "acme") }

func openCertificate(ctx context.Context, cfg Config) (*certificate, error) {
	c := &certificate{tls: &tls.Config{MinVersion: tls.VersionTLS13}, log: cfg.Log}
	var err error
	switch {
	case cfg.TLS != nil:
		c.tls = cfg.TLS.Clone()
	case cfg.Certificate.ACME.Enabled:
		c.acme, err = acme.Open(acme.Config{
			Settings: cfg.Certificate.ACME, Hosts: cfg.NamedHosts(), Reach: cfg.Reach(), Dir: acmeDir(cfg),
			TLSListen: cfg.Listen, HTTPListen: cfg.HTTPListen, Log: cfg.Log,
		})
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		c.acme.Apply(c.tls)
	default:
		c.files, err = certfile.Open(ctx, certfile.Config{
			CertFile: cfg.Certificate.CertFile, KeyFile: cfg.Certificate.KeyFile, Hosts: cfg.Hosts(), Log: cfg.Log,
		})
		if err != nil {
			return nil, fmt.Errorf("tls.cert_file and tls.key_file: %w", err)
		}
		c.tls.GetCertificate = c.files.GetCertificate
	}
	return c, nil
}

// run has the authority make certificates until ctx ends.
func (c *certificate) run(ctx context.Context) {
	if c.acme != nil {
		c.acme.Run(ctx)
	}
}

// wait returns when there is a certificate, or false when ctx ends before.
func (c *certificate) wait(ctx context.Context) bool {
	if c.acme == nil {
		return true
	}
	select {
	case <-c.acme.Ready():
		return true
	default:
	}
	c.log.InfoContext(ctx, "waiting for a certificate", "hosts", c.acme.Missing())
	select {
	case <-c.acme.Ready():
		return true
	case <-ctx.Done():
		return false
	}
}

// redirect is what plain HTTP does for the API at base.
func (c *certificate) redirect(base string) redirect.Config {
	cfg := redirect.Config{Log: c.log}
	if u, err := url.Parse(base); err == nil {
		cfg.Host, cfg.Port = u.Hostname(), u.Port()
	}
	if c.acme != nil {
		cfg.Answer = c.acme.Answer
	}
	return cfg
}

// close frees what openCertificate made, after run has returned.
func (c *certificate) close() error {
	if c.acme != nil {
		c.acme.Close()
	}
	return nil
}
