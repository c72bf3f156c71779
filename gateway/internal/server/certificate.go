package server

import (
	"context"
	"crypto/tls"

	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/internal/certfile"
)

// certificate returns the source of the certificate for the URL's host.
func certificate(ctx context.Context, cfg config.Config) (func(*tls.ClientHelloInfo) (*tls.Certificate, error), error) {
	if cfg.GetCertificate != nil {
		return cfg.GetCertificate, nil
	}
	u, err := config.ParseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	pair, err := certfile.Open(ctx, certfile.Config{
		CertFile: cfg.TLS.CertFile, KeyFile: cfg.TLS.KeyFile, Hosts: []string{u.Hostname()}, Log: cfg.Log,
	})
	if err != nil {
		return nil, err
	}
	return pair.GetCertificate, nil
}
