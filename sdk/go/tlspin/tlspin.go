// Package tlspin lets a client trust a service that has its own certificate
// authority, by a pin instead of an installed root.
//
// A [Pin] is the hash of a public key, short enough to travel in an
// invitation. The server sends its leaf together with the authority's
// certificate; [Config] finds the pinned certificate in what was sent and then
// verifies the leaf against it as Go would against a system root: name, dates,
// usage and signatures. The pin only answers which root, so nothing else about
// TLS gets weaker.
package tlspin

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
)

// Pin is the SHA-256 of a certificate's SubjectPublicKeyInfo. It names a key,
// so a certificate that is renewed with the same key keeps its pin.
type Pin [sha256.Size]byte

// textLen is the length of a pin's text: 32 bytes in base64url, no padding.
const textLen = 43

var (
	// ErrSyntax is what [Parse] returns for anything that is not a pin's text.
	ErrSyntax = errors.New("pin: want 43 characters of base64url")

	// ErrNotSent says that no certificate the server sent has the pinned key:
	// this is another server, or the service has changed its authority.
	ErrNotSent = errors.New("the server's certificates do not include the pinned key")

	// ErrNoHost says that [Config] was given no name to verify.
	ErrNoHost = errors.New("no host name to verify the certificate for")
)

// encoding is strict so that every pin has one text only.
var encoding = base64.RawURLEncoding.Strict()

// Of returns the pin of cert.
func Of(cert *x509.Certificate) Pin {
	return sha256.Sum256(cert.RawSubjectPublicKeyInfo)
}

// Parse reads the text that [Pin.String] makes. Its only error is [ErrSyntax],
// which does not repeat s.
func Parse(s string) (Pin, error) {
	var p Pin
	if len(s) != textLen {
		return Pin{}, ErrSyntax
	}
	if n, err := encoding.Decode(p[:], []byte(s)); err != nil || n != len(p) {
		return Pin{}, ErrSyntax
	}
	return p, nil
}

// String returns the pin as 43 characters of base64url without padding.
func (p Pin) String() string { return encoding.EncodeToString(p[:]) }

// MarshalText is [Pin.String] for encoders.
func (p Pin) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText is [Parse] for decoders.
func (p *Pin) UnmarshalText(text []byte) error {
	parsed, err := Parse(string(text))
	if err != nil {
		return err
	}
	*p = parsed
	return nil
}

// Config returns a TLS 1.3 client configuration for connections to host, a
// name or an IP address without a port. A handshake succeeds only when the
// server's leaf verifies for host up to a certificate with the pinned key that
// the server sent; the leaf itself may be that certificate.
//
// host is a parameter because a connection does not know it: when an address
// is dialled, TLS sends no server name and [tls.ConnectionState] has none. One
// configuration therefore serves one host.
//
// A failed handshake returns [ErrNotSent], [ErrNoHost] or an error of
// [x509.Certificate.Verify].
func Config(pin Pin, host string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: host,
		// The documented way to replace the verification by one's own:
		// VerifyConnection below runs in every handshake, resumed ones too.
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection verifies the chain, the name and the pin
		VerifyConnection: func(state tls.ConnectionState) error {
			return verify(state.PeerCertificates, pin, host)
		},
	}
}

// verify reports why chain, leaf first, does not lead from host to pin.
func verify(chain []*x509.Certificate, pin Pin, host string) error {
	if host == "" {
		return ErrNoHost // Verify would take it for "any name will do"
	}
	roots, others := x509.NewCertPool(), x509.NewCertPool()
	found := false
	for _, cert := range chain {
		if Of(cert) == pin {
			roots.AddCert(cert)
			found = true
		} else {
			others.AddCert(cert)
		}
	}
	if !found {
		return ErrNotSent
	}
	_, err := chain[0].Verify(x509.VerifyOptions{
		DNSName:       host,
		Roots:         roots,
		Intermediates: others,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	})
	if err != nil {
		return fmt.Errorf("verify the pinned server: %w", err)
	}
	return nil
}
