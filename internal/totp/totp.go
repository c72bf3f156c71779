// Package totp is the second factor of operators: codes of six digits that follow
// from a shared secret and the time (RFC 6238 with HMAC-SHA-1 and 30 seconds, which
// is what all authenticator apps speak).
package totp

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // apps know no other; HMAC does not rest on collisions
	"crypto/subtle"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"time"
)

const (
	// SecretBytes is the length of a secret, as RFC 4226 recommends.
	SecretBytes = 20
	// Digits is the length of a code.
	Digits = 6

	period = 30 // seconds
	// leeway is how many steps a clock may be behind or ahead.
	leeway = 1
)

var text = base32.StdEncoding.WithPadding(base32.NoPadding)

// ErrSecret says that a text is not a secret. It never quotes the text.
var ErrSecret = fmt.Errorf("not a secret: want %d characters of base32", text.EncodedLen(SecretBytes))

// NewSecret returns a new secret.
func NewSecret() []byte {
	secret := make([]byte, SecretBytes)
	_, _ = rand.Read(secret) // never fails
	return secret
}

// FormatSecret writes a secret as people type it into their app.
func FormatSecret(secret []byte) string { return text.EncodeToString(secret) }

// ParseSecret reads what FormatSecret writes. The error is ErrSecret.
func ParseSecret(s string) ([]byte, error) {
	secret, err := text.DecodeString(s)
	if err != nil || len(secret) != SecretBytes || FormatSecret(secret) != s {
		return nil, ErrSecret
	}
	return secret, nil
}

// URI is the secret as apps read it from a QR code. Service and account are what the
// app shows.
func URI(secret []byte, service, account string) string {
	return (&url.URL{
		Scheme: "otpauth", Host: "totp", Path: "/" + strings.ReplaceAll(service, ":", " ") + ":" + account,
		RawQuery: "secret=" + FormatSecret(secret) + "&issuer=" + url.QueryEscape(service),
	}).String()
}

// Step is the number of the period that a moment is in.
func Step(at time.Time) int64 { return at.Unix() / period }

// Code is the code of a step.
func Code(secret []byte, step int64) string {
	mac := hmac.New(sha1.New, secret)
	mac.Write(binary.BigEndian.AppendUint64(nil, uint64(step)))
	sum := mac.Sum(nil)
	number := binary.BigEndian.Uint32(sum[sum[len(sum)-1]&0x0f:]) & 0x7fffffff
	return fmt.Sprintf("%0*d", Digits, number%1_000_000)
}

// errNone says that a code belongs to no step.
var errNone = errors.New("not a code of now")

// Match returns the step whose code this is: that of now, or the one before or after,
// for clocks that differ. It takes the same time for every code. Whether the step was
// used before, its caller knows.
func Match(secret []byte, code string, now time.Time) (step int64, err error) {
	err = errNone
	for s := Step(now) - leeway; s <= Step(now)+leeway; s++ {
		if subtle.ConstantTimeCompare([]byte(Code(secret, s)), []byte(code)) == 1 {
			step, err = s, nil
		}
	}
	return step, err
}
