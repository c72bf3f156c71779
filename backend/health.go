package backend

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/httvps/httvps/sdk/go/tlspin"
)

// Health asks the control plane that runs with the same configuration on this
// machine how it is: whether it lives, or with ready whether it can serve at
// the moment. It trusts the certificate that is kept where cfg says and no other.
// When they were renewed with another key, it may fail until the control plane
// serves the new one, at most a minute ([certfile.Interval]); when they are
// damaged, it fails although the control plane still serves the one before.
func Health(ctx context.Context, cfg Config, ready bool) error {
	return health(ctx, cfg, ready, nil)
}

// health is Health over the connections that dial makes; nil: over the network.
func health(ctx context.Context, cfg Config, ready bool, dial func(ctx context.Context, network, addr string) (net.Conn, error)) error {
	host, port, err := net.SplitHostPort(cmp.Or(cfg.AdminListen, cfg.Listen))
	if err != nil {
		return fmt.Errorf("health: listen: %w", err)
	}
	if isUnspecified(host) {
		host = "127.0.0.1"
	}
	leaf, err := leafOf(cfg)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	name, err := nameOf(leaf)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	path := "/livez"
	if ready {
		path = "/readyz"
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{ // no proxy of the environment
		DialContext:       dial,
		DisableKeepAlives: true,
		TLSClientConfig:   tlspin.Config(tlspin.Of(leaf), name),
	}}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("health: the control plane answers %s", resp.Status)
	}
	return nil
}

// leafOf is the certificate that is kept where cfg says.
func leafOf(cfg Config) (*x509.Certificate, error) {
	if cfg.Certificate.ACME.Enabled {
		return cfg.Certificate.ACME.Stored(acmeDir(cfg), cfg.NamedHosts()[0])
	}
	pair, err := tls.LoadX509KeyPair(cfg.Certificate.CertFile, cfg.Certificate.KeyFile)
	if err != nil {
		return nil, fmt.Errorf("tls.cert_file and tls.key_file: %w", err)
	}
	return pair.Leaf, nil
}

// nameOf returns one of the names that a certificate is for.
func nameOf(leaf *x509.Certificate) (string, error) {
	switch {
	case len(leaf.DNSNames) > 0:
		return leaf.DNSNames[0], nil
	case len(leaf.IPAddresses) > 0:
		return leaf.IPAddresses[0].String(), nil
	}
	return "", errors.New("tls.cert_file: the certificate has no name")
}

func isUnspecified(host string) bool {
	ip := net.ParseIP(host)
	return host == "" || ip != nil && ip.IsUnspecified()
}
