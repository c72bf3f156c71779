package ticket

import (
	"crypto/ed25519"
	"errors"
	"fmt"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const (
	// AssertionLifetime is how long a gateway assertion is valid.
	AssertionLifetime = 15 * time.Minute
	// AssertionLeeway is the error of a gateway's clock that is forgiven.
	AssertionLeeway = 10 * time.Minute

	typAssertion      = "gw+jwt"
	assertionAudience = "httvps-control"
)

// SignAssertion returns a statement, signed by the gateway's own key, that its
// bearer is gateway id. It is valid for AssertionLifetime from now.
func SignAssertion(key ed25519.PrivateKey, id string, now time.Time) (string, error) {
	if id == "" || len(id) > maxText {
		return "", errors.New("sign gateway assertion: the gateway id is empty or too long")
	}
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, jwt.MapClaims{
		"iss": id,
		"sub": id,
		"aud": assertionAudience,
		"iat": now.Unix(),
		"exp": now.Add(AssertionLifetime).Unix(),
	})
	token.Header["typ"] = typAssertion
	signed, err := token.SignedString(key)
	if err != nil {
		return "", fmt.Errorf("sign gateway assertion: %w", err)
	}
	return signed, nil
}

// VerifyAssertion returns the id of the gateway that signed token. It asks
// lookup for that gateway's key; an error of lookup is wrapped as it is, any
// other error wraps ErrInvalid.
func VerifyAssertion(token string, now time.Time, lookup func(id string) (ed25519.PublicKey, error)) (string, error) {
	header, err := parseHeader(token)
	if err != nil {
		return "", err
	}
	if header.typ != typAssertion || header.kid != "" {
		return "", fmt.Errorf("%w: not a gateway assertion", ErrInvalid)
	}
	var (
		said      assertionClaims
		lookupErr error
	)
	err = verify(token, &said, func(*jwt.Token) (any, error) {
		// The times are signed too, but a stale token need not cost a lookup.
		if now.Before(said.issuedAt.Add(-AssertionLeeway)) || now.After(said.expiresAt.Add(AssertionLeeway)) {
			return nil, errors.New("not valid at this time")
		}
		var key ed25519.PublicKey
		if key, lookupErr = lookup(said.gateway); lookupErr != nil {
			return nil, lookupErr
		}
		return key, nil
	})
	switch {
	case lookupErr != nil:
		return "", fmt.Errorf("key of gateway: %w", lookupErr)
	case err != nil:
		return "", err
	}
	return said.gateway, nil
}

// assertionClaims is the payload of a gateway assertion.
type assertionClaims struct {
	unread
	gateway   string
	issuedAt  time.Time
	expiresAt time.Time
}

// UnmarshalJSON reads the payload strictly; unknown claims are allowed.
func (c *assertionClaims) UnmarshalJSON(data []byte) error {
	o, err := parseObject(data)
	if err != nil {
		return err
	}
	issuer, err1 := o.text("iss")
	subject, err2 := o.text("sub")
	audience, err3 := o.text("aud")
	issued, err4 := o.second("iat")
	expires, err5 := o.second("exp")
	if err := errors.Join(err1, err2, err3, err4, err5, o.startsBy(issued)); err != nil {
		return err
	}
	if issuer != subject {
		return errors.New("iss is not sub")
	}
	if audience != assertionAudience {
		return errors.New("not meant for the control plane")
	}
	c.gateway, c.issuedAt, c.expiresAt = subject, issued, expires
	return validatePeriod(issued, expires, AssertionLifetime)
}
