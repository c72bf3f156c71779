package config

import (
	"errors"
	"os"

	"github.com/httvps/httvps/internal/certfile"
)

// Check looks at the files that a valid configuration names. It returns every one
// that would keep the gateway from starting, and warns of what devices will object
// to.
func (c Config) Check() (warnings []string, err error) {
	var p problems
	if c.GetCertificate == nil && c.TLS.CertFile != "" {
		warnings, err = certfile.Check(certfile.Config{CertFile: c.TLS.CertFile, KeyFile: c.TLS.KeyFile, Hosts: c.Hosts()})
		if err != nil {
			p.add("tls.cert_file and tls.key_file: %w", err)
		}
	}
	if err := c.TLS.ACME.Check(); err != nil {
		p.add("tls.%w", err)
	}
	if dir := c.Masquerade.Dir; dir != "" {
		switch info, err := os.Stat(dir); {
		case err != nil:
			p.add("masquerade.dir: %w", err)
		case !info.IsDir():
			p.add("masquerade.dir: %s is not a directory", dir)
		}
	}
	if c.Upstream.Mode == Outline && c.Upstream.Outline.Source == Keys {
		if _, err := c.Upstream.Outline.Load(); err != nil {
			p.add("%w", err)
		}
	}
	return warnings, errors.Join(p...)
}

// Reloaded returns c with those settings of next that can take c's place while the
// gateway runs.
func (c Config) Reloaded(next Config) Config {
	if c.TLS.CertFile != "" && next.TLS.CertFile != "" && next.TLS.KeyFile != "" {
		c.TLS.CertFile, c.TLS.KeyFile = next.TLS.CertFile, next.TLS.KeyFile
	}
	c.Masquerade, c.Knock, c.DrainTimeout = next.Masquerade, next.Knock, next.DrainTimeout
	c.Padding = next.Padding
	if c.SetLevel != nil {
		c.LogLevel = next.LogLevel
	}
	c.Limits.Sessions = next.Limits.Sessions
	c.Limits.MaxUDP, c.Limits.OpenBurst, c.Limits.OpenRate = next.Limits.MaxUDP, next.Limits.OpenBurst, next.Limits.OpenRate
	c.Limits.EarlyWindow, c.Limits.Silence = next.Limits.EarlyWindow, next.Limits.Silence
	c.Limits.Unauthenticated, c.Limits.UnauthenticatedPerPrefix = next.Limits.Unauthenticated, next.Limits.UnauthenticatedPerPrefix
	return c
}
