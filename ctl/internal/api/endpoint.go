package api

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/httvps/httvps/internal/link"
	"github.com/httvps/httvps/sdk/go/tlspin"
)

const (
	connectTimeout = 15 * time.Second
	maxCAFile      = 1 << 20
	maxHeader      = 64 << 10
)

// Endpoint is the base address of a service's admin API.
type Endpoint struct {
	base string // scheme, host and path, no slash at the end
}

// ParseEndpoint reads an https URL without credentials, query or fragment.
// Plain http is accepted only for this machine's own loopback addresses.
func ParseEndpoint(raw string) (Endpoint, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return Endpoint{}, errors.New("the address of the API is not a URL")
	}
	switch {
	case u.User != nil, u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return Endpoint{}, errors.New("the address of the API must be only https://HOST:PORT[/PATH], without credentials, ? or #")
	case u.Scheme == "http" && !isLoopback(u.Hostname()):
		return Endpoint{}, fmt.Errorf("http://%s would carry the token in the clear: use https (plain http is only for loopback addresses)", u.Host)
	case u.Scheme != "https" && u.Scheme != "http", u.Hostname() == "":
		return Endpoint{}, errors.New("the address of the API must look like https://HOST:PORT[/PATH]")
	}
	return Endpoint{base: u.Scheme + "://" + strings.ToLower(u.Host) + strings.TrimRight(u.EscapedPath(), "/")}, nil
}

// String returns the address, which holds no secret.
func (e Endpoint) String() string { return e.base }

// IsZero reports whether there is no address.
func (e Endpoint) IsZero() bool { return e.base == "" }

func (e Endpoint) plain() bool { return strings.HasPrefix(e.base, "http://") }

// host is the address without scheme and path: HOST:PORT, as it is shown.
func (e Endpoint) host() string {
	_, rest, _ := strings.Cut(e.base, "://")
	host, _, _ := strings.Cut(rest, "/")
	return host
}

// hostname is what the certificate must be for.
func (e Endpoint) hostname() string { return (&url.URL{Host: e.host()}).Hostname() }

func isLoopback(host string) bool {
	if strings.EqualFold(host, "localhost") {
		return true // judged again by its address when we connect
	}
	addr, err := netip.ParseAddr(host)
	return err == nil && addr.Unmap().IsLoopback()
}

// Link is what a new service prints on its first start, and what an operator is
// invited with: where the service is, the one-time code and perhaps the pin of its
// certificate authority.
type Link struct {
	Endpoint Endpoint
	Code     string
	Pin      *tlspin.Pin
}

// ParseBootstrapLink reads {api}/bootstrap#code=CODE[,pin=PIN]. Errors do not quote the link.
func ParseBootstrapLink(raw string) (Link, error) { return parseLink(raw, "bootstrap") }

// ParseOperatorLink reads {api}/operator#code=CODE[,pin=PIN]. Errors do not quote the link.
func ParseOperatorLink(raw string) (Link, error) { return parseLink(raw, "operator") }

func parseLink(raw, kind string) (Link, error) {
	whole, fragment, _ := strings.Cut(strings.TrimSpace(raw), "#")
	base, ok := strings.CutSuffix(whole, "/"+kind)
	if !ok {
		return Link{}, fmt.Errorf("not %s URL: it looks like https://HOST:PORT/%s#code=CODE", withArticle(kind), kind)
	}
	endpoint, err := ParseEndpoint(base)
	if err != nil {
		return Link{}, err
	}
	code, text, err := link.Parse(fragment)
	if err != nil {
		return Link{}, fmt.Errorf("the %s URL is damaged: %w: copy it whole, with what follows the #", kind, err)
	}
	found := Link{Endpoint: endpoint, Code: code}
	if text != "" {
		pin, err := tlspin.Parse(text)
		if err != nil {
			return Link{}, fmt.Errorf("the %s URL is damaged: %w", kind, err)
		}
		found.Pin = &pin
	}
	return found, nil
}

func withArticle(noun string) string {
	if noun == "operator" {
		return "an " + noun
	}
	return "a " + noun
}

// Trust says how the service's certificate is judged: by the authorities in
// CAFile, else by the pin, else by those of this machine. There is no way not
// to judge it.
type Trust struct {
	CAFile string // PEM
	Pin    *tlspin.Pin
}

func (t Trust) config(host string) (*tls.Config, error) {
	switch {
	case t.CAFile != "":
		roots, err := readAuthorities(t.CAFile)
		if err != nil {
			return nil, err
		}
		return &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}, nil
	case t.Pin != nil:
		return tlspin.Config(*t.Pin, host), nil
	default:
		return &tls.Config{MinVersion: tls.VersionTLS13}, nil
	}
}

func readAuthorities(name string) (*x509.CertPool, error) {
	f, err := os.Open(name) //nolint:gosec // the operator names the file
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	pem, err := io.ReadAll(io.LimitReader(f, maxCAFile+1))
	if err != nil {
		return nil, fmt.Errorf("certificate authority: %w", err)
	}
	roots := x509.NewCertPool()
	if len(pem) > maxCAFile || !roots.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("certificate authority: %s holds no PEM certificate", name)
	}
	return roots, nil
}

// newTransport connects to endpoint as trust says, and when endpoint is plain
// HTTP to nothing but loopback, whatever a name may resolve to.
func newTransport(endpoint Endpoint, trust Trust) (*http.Transport, error) {
	dialer := &net.Dialer{Timeout: connectTimeout}
	transport := &http.Transport{
		TLSHandshakeTimeout:    connectTimeout,
		MaxResponseHeaderBytes: maxHeader,
		MaxIdleConns:           2,
		IdleConnTimeout:        time.Minute,
		DisableCompression:     true, // the bound on a body is a bound on what was sent
	}
	if endpoint.plain() {
		dialer.ControlContext = refuseOutside
	} else {
		config, err := trust.config(endpoint.hostname())
		if err != nil {
			return nil, err
		}
		transport.TLSClientConfig = config
		transport.ForceAttemptHTTP2 = true
		transport.Proxy = http.ProxyFromEnvironment
	}
	transport.DialContext = dialer.DialContext
	return transport, nil
}

var errOutside = errors.New("plain http is only for loopback addresses, and this name leads elsewhere: use https")

func refuseOutside(_ context.Context, _, address string, _ syscall.RawConn) error {
	addr, err := netip.ParseAddrPort(address)
	if err != nil || !addr.Addr().Unmap().IsLoopback() {
		return errOutside
	}
	return nil
}
