// Package auth answers whether a device is who it says: its token, its key and
// its proof over the gateway's challenge. Whether it may connect is the control
// plane's decision and not asked here.
package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/subtle"
	"errors"
	"time"

	"github.com/google/uuid"

	"github.com/httvps/httvps/internal/ticket"
	"github.com/httvps/httvps/sdk/go/wire"
)

var (
	// ErrInvalid is every refusal before the device has proven its key,
	// whatever was wrong: the other end has not said yet who it is.
	ErrInvalid = errors.New("invalid credentials")
	// ErrExpired says that the device has proven its key and its token is over.
	ErrExpired = errors.New("token expired")
	// ErrMismatch says that a later token is not for the device that has the session,
	// with its key and generation.
	ErrMismatch = errors.New("token of another device or key")
	// ErrUnready says that nothing can be judged: the service's keys are
	// not known yet.
	ErrUnready = errors.New("no keys to verify tokens with")
)

// Tokens verifies everything in an access token but its expiry. An error is a
// refusal of the token, except one that wraps [ErrUnready].
type Tokens interface {
	Verify(ctx context.Context, token string) (ticket.Claims, error)
}

// Config is what a [Checker] needs.
type Config struct {
	Tokens Tokens
	// RequireBinding refuses proofs that are not bound to the connection.
	RequireBinding bool
	// Now is the gateway's clock; nil means time.Now.
	Now func() time.Time
}

// Checker judges HELLOs.
type Checker struct{ cfg Config }

// New returns a Checker.
func New(cfg Config) *Checker {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	return &Checker{cfg: cfg}
}

// Connection is what a proof is bound to.
type Connection struct {
	Nonce   [32]byte // of the CHALLENGE
	Host    string   // value of the upgrade's Host header
	Binding []byte   // tls-exporter; empty where this end of TLS is not ours
}

// Identity is a device that has proven who it is.
type Identity struct {
	Device     [16]byte
	Generation int64
	Key        [32]byte      // Ed25519
	Thumbprint string        // of its key
	Expires    time.Time     // when its token is over, or was
	Expired    time.Duration // for how long its token has been over; with ErrExpired
}

// Check judges a HELLO in the order of the protocol document, cheapest first:
// the token, that it is for this device and key, the proof, and only then the
// token's expiry. Its errors are ErrInvalid, ErrExpired and ErrUnready; with ErrExpired
// the device is who it says.
func (c *Checker) Check(ctx context.Context, hello wire.Hello, conn Connection) (Identity, error) {
	bound := hello.Capabilities.Has(wire.ChannelBinding)
	if !bound && c.cfg.RequireBinding || bound && len(conn.Binding) != wire.BindingSize {
		return Identity{}, ErrInvalid
	}
	claims, err := c.cfg.Tokens.Verify(ctx, hello.AccessToken)
	switch {
	case errors.Is(err, ErrUnready):
		return Identity{}, ErrUnready
	case err != nil:
		return Identity{}, ErrInvalid
	}
	key := ed25519.PublicKey(hello.DeviceKey[:])
	thumbprint := ticket.Thumbprint(key)
	if subtle.ConstantTimeCompare([]byte(thumbprint), []byte(claims.KeyThumbprint)) != 1 ||
		claims.Device != uuid.UUID(hello.DeviceID).String() {
		return Identity{}, ErrInvalid
	}
	if !ed25519.Verify(key, hello.SigningInput(conn.Nonce, conn.Host, conn.Binding), hello.Signature[:]) {
		return Identity{}, ErrInvalid
	}
	device := Identity{
		Device: hello.DeviceID, Generation: claims.Generation, Key: hello.DeviceKey, Thumbprint: thumbprint, Expires: claims.ExpiresAt,
	}
	if now := c.cfg.Now(); claims.Expired(now) {
		device.Expired = now.Sub(claims.ExpiresAt)
		return device, ErrExpired
	}
	return device, nil
}

// Renew judges a REAUTH of the session of a device that has proven itself, and returns
// when its token is over. Its errors are ErrInvalid, ErrMismatch, ErrExpired and
// ErrUnready.
func (c *Checker) Renew(ctx context.Context, again wire.Reauth, session [16]byte, device Identity) (expires time.Time, err error) {
	if !ed25519.Verify(device.Key[:], again.SigningInput(session), again.Signature[:]) {
		return time.Time{}, ErrInvalid
	}
	claims, err := c.cfg.Tokens.Verify(ctx, again.AccessToken)
	switch {
	case errors.Is(err, ErrUnready):
		return time.Time{}, ErrUnready
	case err != nil:
		return time.Time{}, ErrInvalid
	case claims.Device != uuid.UUID(device.Device).String() || claims.KeyThumbprint != device.Thumbprint || claims.Generation != device.Generation:
		return time.Time{}, ErrMismatch
	case claims.Expired(c.cfg.Now()):
		return time.Time{}, ErrExpired
	}
	return claims.ExpiresAt, nil
}
