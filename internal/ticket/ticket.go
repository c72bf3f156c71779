// Package ticket makes and checks the signed statements that the control
// plane, gateways and devices show each other: access tokens (what a device
// presents to a gateway), gateway assertions (what a gateway presents to the
// control plane) and the key sets that verify access tokens.
//
// Every token is a compact JWS over Ed25519 and nothing else. Parsing is
// stricter than the JOSE standards ask: a header may hold alg, typ and kid
// only, so a token can never bring or point to the key that verifies it, and
// a name that occurs twice is refused rather than resolved.
package ticket

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// MaxTokenSize is the longest token, in bytes, that is looked at.
	MaxTokenSize = 4096
	// MaxLifetime is the longest time between a token's issue and its expiry.
	MaxLifetime = 24 * time.Hour
	// Leeway is the clock error that Claims.Expired forgives.
	Leeway = 60 * time.Second

	typAccess = "at+jwt"
	maxText   = 256 // bytes in an identifier claim
)

var (
	// ErrInvalid is wrapped by every refusal of a token.
	ErrInvalid = errors.New("invalid token")
	// ErrUnknownKey is wrapped, together with ErrInvalid, when a well-formed
	// token names a key that is not in the key set: the set may be out of date.
	ErrUnknownKey = errors.New("unknown key")
)

// Claims is what an access token says about a device.
type Claims struct {
	ID            string    // unique id of the token (jti)
	Device        string    // device id (sub)
	Generation    int64     // the device's generation, at least 1
	KeyThumbprint string    // Thumbprint of the device's key (cnf.jkt)
	IssuedAt      time.Time // second precision
	ExpiresAt     time.Time // second precision
}

// Expired reports whether the token's time is over at now, with Leeway. Verify
// leaves this to its caller, who answers differently once the device has
// proved its key.
func (c Claims) Expired(now time.Time) bool {
	return now.After(c.ExpiresAt.Add(Leeway))
}

func (c Claims) validate() error {
	switch {
	case c.ID == "" || len(c.ID) > maxText:
		return errors.New("jti is missing or too long")
	case c.Device == "" || len(c.Device) > maxText:
		return errors.New("sub is missing or too long")
	case c.Generation < 1:
		return errors.New("gen is less than 1")
	case !validThumbprint(c.KeyThumbprint):
		return errors.New("cnf.jkt is not a key thumbprint")
	}
	return validatePeriod(c.IssuedAt, c.ExpiresAt, MaxLifetime)
}

func validatePeriod(issued, expires time.Time, longest time.Duration) error {
	switch lifetime := expires.Sub(issued); {
	case issued.Unix() <= 0:
		return errors.New("iat is not a time after 1970")
	case lifetime <= 0:
		return errors.New("exp is not after iat")
	case lifetime > longest:
		return fmt.Errorf("valid for longer than %v", longest)
	}
	return nil
}

// Signer issues access tokens.
type Signer struct {
	key      ed25519.PrivateKey
	keyID    string
	issuer   string
	audience string
}

// NewSigner returns a Signer whose tokens name issuer as iss and audience (the
// service id) as aud. The key's thumbprint becomes the key id.
func NewSigner(key ed25519.PrivateKey, issuer, audience string) *Signer {
	public, _ := key.Public().(ed25519.PublicKey)
	return &Signer{key: key, keyID: Thumbprint(public), issuer: issuer, audience: audience}
}

// Sign returns the token for claims. It refuses claims that Verify would refuse.
func (s *Signer) Sign(claims Claims) (string, error) {
	if err := claims.validate(); err != nil {
		return "", fmt.Errorf("sign access token: %w", err)
	}
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": s.issuer,
		"aud": s.audience,
		"jti": claims.ID,
		"sub": claims.Device,
		"gen": claims.Generation,
		"iat": claims.IssuedAt.Unix(),
		"exp": claims.ExpiresAt.Unix(),
		"cnf": map[string]string{"jkt": claims.KeyThumbprint},
	})
	token.Header["typ"] = typAccess
	token.Header["kid"] = s.keyID
	signed, err := token.SignedString(s.key)
	if err != nil {
		return "", fmt.Errorf("sign access token: %w", err)
	}
	if len(signed) > MaxTokenSize {
		return "", fmt.Errorf("sign access token: %d bytes, want at most %d", len(signed), MaxTokenSize)
	}
	return signed, nil
}

// Verifier checks access tokens. It is safe for concurrent use and never
// changes: make a new one when the key set changes.
type Verifier struct {
	issuer   string
	audience string
	keys     map[string]ed25519.PublicKey
}

// NewVerifier returns a Verifier for tokens of issuer meant for audience and
// signed with one of keys.
func NewVerifier(issuer, audience string, keys JWKS) *Verifier {
	byID := make(map[string]ed25519.PublicKey, len(keys.Keys))
	for _, key := range keys.Keys {
		byID[key.ID] = key.Public
	}
	return &Verifier{issuer: issuer, audience: audience, keys: byID}
}

// Verify returns what token says after checking everything but its expiry. Any
// error wraps ErrInvalid; one about a key that is not in the key set wraps
// ErrUnknownKey as well.
func (v *Verifier) Verify(token string) (Claims, error) {
	header, err := parseHeader(token)
	if err != nil {
		return Claims{}, err
	}
	if header.typ != typAccess {
		return Claims{}, fmt.Errorf("%w: not an access token", ErrInvalid)
	}
	if header.kid == "" {
		return Claims{}, fmt.Errorf("%w: no key id", ErrInvalid)
	}
	key, ok := v.keys[header.kid]
	if !ok {
		return Claims{}, fmt.Errorf("%w: %w", ErrInvalid, ErrUnknownKey)
	}
	var said accessClaims
	if err := verify(token, &said, func(*jwt.Token) (any, error) { return key, nil }); err != nil {
		return Claims{}, err
	}
	switch {
	case said.issuer != v.issuer:
		return Claims{}, fmt.Errorf("%w: foreign issuer", ErrInvalid)
	case said.audience != v.audience:
		return Claims{}, fmt.Errorf("%w: meant for another service", ErrInvalid)
	}
	return said.Claims, nil
}

// verify checks token's signature with the key that lookup returns and fills
// claims from its payload.
func verify(token string, claims jwt.Claims, lookup jwt.Keyfunc) error {
	parser := jwt.NewParser(
		jwt.WithValidMethods([]string{algEdDSA}),
		jwt.WithStrictDecoding(),
		jwt.WithoutClaimsValidation(), // accessClaims and assertionClaims judge themselves
	)
	if _, err := parser.ParseWithClaims(token, claims, lookup); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return nil
}
