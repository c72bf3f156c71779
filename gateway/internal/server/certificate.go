package server

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"path/filepath"

	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/internal/acme"
	"github.com/httvps/httvps/internal/certfile"
	"github.com/httvps/httvps/internal/redirect"
)

// certificate is what the public listener serves for the URLs' hosts, and where it
// is from.
type certificate struct {
	get   func(*tls.ClientHelloInfo) (*tls.Certificate, error)
	files *certfile.Pair // nil: it is not from files
	acme  *acme.Source   // nil: no authority makes it
	ours  bool           // acme was opened here
}

func openCertificate(ctx context.Context, cfg config.Config) (*certificate, error) {
	if cfg.GetCertificate != nil {
		return &certificate{get: cfg.GetCertificate}, nil
	}
	if cfg.ACME != nil {
		return &certificate{get: cfg.ACME.GetCertificate, acme: cfg.ACME}, nil
	}
	if cfg.TLS.ACME.Enabled {
		source, err := acme.Open(acme.Config{
			Settings: cfg.TLS.ACME, Hosts: cfg.Hosts(), Reach: cfg.Reach(), Dir: filepath.Join(cfg.DataDir, "acme"),
			TLSListen: address(cfg.Listener, cfg.Listen), HTTPListen: cfg.HTTPListen, Log: cfg.Log,
		})
		if err != nil {
			return nil, fmt.Errorf("tls: %w", err)
		}
		return &certificate{get: source.GetCertificate, acme: source, ours: true}, nil
	}
	files, err := certfile.Open(ctx, certfile.Config{
		CertFile: cfg.TLS.CertFile, KeyFile: cfg.TLS.KeyFile, Hosts: cfg.Hosts(), Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	return &certificate{get: files.GetCertificate, files: files}, nil
}

// address is that of a listener, or the one that is configured.
func address(l net.Listener, configured string) string {
	if l != nil {
		return l.Addr().String()
	}
	return configured
}

// apply has a listener serve the certificate.
func (c *certificate) apply(to *tls.Config) {
	if c.acme != nil {
		c.acme.Apply(to)
		return
	}
	to.GetCertificate = c.get
}

// run has an authority make certificates until ctx ends. The listeners that it looks
// at must be there.
func (c *certificate) run(ctx context.Context) {
	if c.acme != nil {
		c.acme.Run(ctx)
	}
}

// missing are the hosts for which there is no certificate yet.
func (c *certificate) missing() []string {
	if c.acme == nil {
		return nil
	}
	return c.acme.Missing()
}

var always = func() <-chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// ready is closed when there is a certificate.
func (c *certificate) ready() <-chan struct{} {
	if c.acme == nil {
		return always
	}
	return c.acme.Ready()
}

// redirect is what plain HTTP does for the site at u.
func (c *certificate) redirect(cfg config.Config, u *url.URL) redirect.Config {
	to := redirect.Config{Host: u.Hostname(), Port: u.Port(), Log: cfg.Log}
	if c.acme != nil {
		to.Answer = c.acme.Answer
	}
	return to
}

// close frees what openCertificate made, after run has returned.
func (c *certificate) close() {
	if c.ours {
		c.acme.Close()
	}
}
