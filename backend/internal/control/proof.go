package control

import (
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
)

var (
	codeText = base32.StdEncoding.WithPadding(base32.NoPadding)
	rawURL   = base64.RawURLEncoding.Strict()
)

const (
	codeLen     = 26 // characters of 128 bits in base32
	prefixBytes = 15 // 20 characters of base64url, 120 bits

	tokenVersion = "hvt1."
	tokenSecret  = 43 // characters of 32 bytes in base64url
)

// newCode returns a single-use code and what is stored of it.
func newCode() (code string, hash []byte) {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	code = codeText.EncodeToString(raw[:])
	return code, hashCode(code)
}

// hashCode is SHA-256 over the 26 upper-case characters of a code.
func hashCode(code string) []byte {
	sum := sha256.Sum256([]byte(code))
	return sum[:]
}

// canonicalCode returns a code as it was made, however a person typed its
// letters, and whether it has a code's shape at all.
func canonicalCode(typed string) (string, bool) {
	if len(typed) != codeLen {
		return "", false
	}
	code := strings.ToUpper(typed)
	_, err := codeText.DecodeString(code)
	return code, err == nil
}

func newPrefix() string {
	var raw [prefixBytes]byte
	_, _ = rand.Read(raw[:]) // never fails
	return rawURL.EncodeToString(raw[:])
}

// newAPIToken returns an operator's secret and what is stored of it.
func newAPIToken() (token string, hash []byte) {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails
	token = tokenVersion + rawURL.EncodeToString(raw[:])
	return token, hashCode(token)
}

// hashAPIToken returns what is stored of a token. The pin that may follow the
// secret is for the client and says nothing here.
func hashAPIToken(token string) ([]byte, bool) {
	const length = len(tokenVersion) + tokenSecret
	if !strings.HasPrefix(token, tokenVersion) || len(token) < length {
		return nil, false
	}
	secret, pin := token[:length], token[length:]
	if pin != "" && (pin[0] != '.' || len(pin) != 1+tokenSecret) {
		return nil, false
	}
	return hashCode(secret), true
}

// nonceMint makes nonces that it recognises later without remembering them.
// A nonce is its time in unix microseconds (8 bytes), 16 random bytes and the
// first 16 bytes of their HMAC-SHA256.
type nonceMint struct {
	key []byte
}

const (
	nonceSigned = 24
	nonceLen    = nonceSigned + 16
	// nonceAhead is how far this machine's clock may have stepped back.
	nonceAhead = 10 * time.Second
)

func (m nonceMint) mint(now time.Time) []byte {
	nonce := make([]byte, nonceSigned, nonceLen)
	binary.BigEndian.PutUint64(nonce, uint64(now.UnixMicro()))
	_, _ = rand.Read(nonce[8:]) // never fails
	return append(nonce, m.tag(nonce)...)
}

func (m nonceMint) valid(nonce []byte, now time.Time) bool {
	if len(nonce) != nonceLen || !hmac.Equal(nonce[nonceSigned:], m.tag(nonce[:nonceSigned])) {
		return false
	}
	age := now.Sub(time.UnixMicro(int64(binary.BigEndian.Uint64(nonce))))
	return age <= NonceTTL && age >= -nonceAhead
}

func (m nonceMint) tag(signed []byte) []byte {
	mac := hmac.New(sha256.New, m.key)
	mac.Write(signed)
	return mac.Sum(nil)[:nonceLen-nonceSigned]
}

// Challenge returns a nonce to be signed within NonceTTL.
func (a *Authority) Challenge() []byte { return a.nonces.mint(a.now()) }

// Proof shows that its sender holds a key: Signature covers the purpose, what
// is asked for and Nonce.
type Proof struct {
	Nonce     []byte
	Signature []byte
}

// The purposes keep a proof for one call from serving another.
const (
	purposeEnrol = "HTTVPS1 enrol"
	purposeJoin  = "HTTVPS1 join"
	purposeToken = "HTTVPS1 token" //nolint:gosec // a label
)

func proofMessage(purpose string, parts ...[]byte) []byte {
	message := append([]byte(purpose), 0)
	for _, part := range parts { // all but the last have a fixed length
		message = append(message, part...)
	}
	return message
}

// checkCodeProof checks a proof of the key that a code is redeemed for.
func (a *Authority) checkCodeProof(purpose, code string, key ed25519.PublicKey, proof Proof) error {
	if len(key) != ed25519.PublicKeySize || !a.nonces.valid(proof.Nonce, a.now()) {
		return ErrInvalidProof
	}
	if !ed25519.Verify(key, proofMessage(purpose, hashCode(code), key, proof.Nonce), proof.Signature) {
		return ErrInvalidProof
	}
	return nil
}

// decoy stands in for the key of a device that does not exist, so that the
// answer takes the same work.
var decoy = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey) //nolint:errcheck,forcetypeassert // its documented type

func (a *Authority) tokenProofHolds(deviceID string, key ed25519.PublicKey, proof Proof) bool {
	id, err := uuid.Parse(deviceID)
	if err != nil || !a.nonces.valid(proof.Nonce, a.now()) {
		return false
	}
	return ed25519.Verify(key, proofMessage(purposeToken, id[:], proof.Nonce), proof.Signature)
}

// The kinds of the service's secrets, each of which is 32 bytes.
const (
	kindSigning = "token_signing_key"
	kindNonce   = "nonce_key"
)

// openNonceKey returns the key that marks nonces, after making it if there is none.
func (a *Authority) openNonceKey(ctx context.Context, tx Tx) ([]byte, error) {
	sealed, err := tx.Secrets(ctx, kindNonce)
	if err != nil {
		return nil, err
	}
	if len(sealed) == 0 {
		secret := make([]byte, 32)
		_, _ = rand.Read(secret) // never fails
		s := SealedSecret{ID: newID(), Kind: kindNonce, CreatedAt: a.now()}
		if s.Sealed, err = a.seal(ctx, tx, secret, s.place()); err != nil {
			return nil, fmt.Errorf("seal %s: %w", kindNonce, err)
		}
		return secret, tx.InsertSecret(ctx, s)
	}
	secret, err := a.opts.Sealer.Open(sealed[0].Sealed, sealed[0].place())
	if err == nil && len(secret) != 32 {
		err = errors.New("wrong length")
	}
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", kindNonce, err)
	}
	return secret, nil
}

func (s SealedSecret) place() string { return sealedPlace("secrets", s.Kind+"/"+s.ID, "sealed") }
