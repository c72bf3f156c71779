package ticket

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
)

const (
	// MaxKeys is the largest number of keys in a key set.
	MaxKeys = 16
	// MaxKeySetSize is the longest JSON form, in bytes, of a key set.
	MaxKeySetSize = 64 << 10
)

// Thumbprint is the RFC 7638 thumbprint of an Ed25519 key: SHA-256 over its
// canonical JWK, in base64url without padding (43 characters).
func Thumbprint(key ed25519.PublicKey) string {
	canonical := `{"crv":"Ed25519","kty":"OKP","x":"` + rawURL.EncodeToString(key) + `"}`
	sum := sha256.Sum256([]byte(canonical))
	return rawURL.EncodeToString(sum[:])
}

func validThumbprint(s string) bool {
	raw, err := rawURL.DecodeString(s)
	return err == nil && len(s) == 43 && len(raw) == sha256.Size
}

// Key is one verification key of a key set.
type Key struct {
	ID     string
	Public ed25519.PublicKey
}

// JWKS is a JSON Web Key Set of Ed25519 keys. Its JSON form is bounded by
// MaxKeys and MaxKeySetSize.
type JWKS struct {
	Keys []Key
}

// NewJWKS returns the set of keys, each named by its thumbprint.
func NewJWKS(keys ...ed25519.PublicKey) JWKS {
	var set JWKS
	for _, key := range keys {
		set.Keys = append(set.Keys, Key{ID: Thumbprint(key), Public: key})
	}
	return set
}

type jwk struct {
	KeyType   string `json:"kty"`
	Curve     string `json:"crv"`
	X         string `json:"x"`
	KeyID     string `json:"kid"`
	Algorithm string `json:"alg"`
	Use       string `json:"use"`
}

// MarshalJSON returns the set as RFC 7517 describes it.
func (s JWKS) MarshalJSON() ([]byte, error) {
	if len(s.Keys) > MaxKeys {
		return nil, fmt.Errorf("key set of %d keys, want at most %d", len(s.Keys), MaxKeys)
	}
	keys := make([]jwk, 0, len(s.Keys))
	for _, key := range s.Keys {
		keys = append(keys, jwk{
			KeyType: "OKP", Curve: "Ed25519", X: rawURL.EncodeToString(key.Public),
			KeyID: key.ID, Algorithm: algEdDSA, Use: "sig",
		})
	}
	return json.Marshal(map[string][]jwk{"keys": keys})
}

// UnmarshalJSON is ParseJWKS.
func (s *JWKS) UnmarshalJSON(data []byte) error {
	set, err := ParseJWKS(data)
	if err != nil {
		return err
	}
	*s = set
	return nil
}

// ParseJWKS reads a key set. Keys of other kinds than Ed25519 signature keys
// are skipped, as RFC 7517 asks; a damaged Ed25519 key, a private key or a
// repeated key id makes the whole set invalid.
func ParseJWKS(data []byte) (JWKS, error) {
	if len(data) > MaxKeySetSize {
		return JWKS{}, fmt.Errorf("key set of %d bytes, want at most %d", len(data), MaxKeySetSize)
	}
	outer, err := parseObject(data)
	if err != nil {
		return JWKS{}, fmt.Errorf("key set: %w", err)
	}
	var raw []json.RawMessage
	if len(outer["keys"]) == 0 || outer["keys"][0] != '[' || json.Unmarshal(outer["keys"], &raw) != nil {
		return JWKS{}, errors.New("key set: keys is not an array")
	}
	if len(raw) > MaxKeys {
		return JWKS{}, fmt.Errorf("key set of %d keys, want at most %d", len(raw), MaxKeys)
	}
	var set JWKS
	seen := make(map[string]bool, len(raw))
	for i, member := range raw {
		key, skip, err := parseKey(member)
		switch {
		case err != nil:
			return JWKS{}, fmt.Errorf("key set: key %d: %w", i, err)
		case skip:
			continue
		case seen[key.ID]:
			return JWKS{}, fmt.Errorf("key set: key %d: its id occurs twice", i)
		}
		seen[key.ID] = true
		set.Keys = append(set.Keys, key)
	}
	return set, nil
}

func parseKey(data []byte) (key Key, skip bool, err error) {
	o, err := parseObject(data)
	if err != nil {
		return Key{}, false, err
	}
	if _, private := o["d"]; private {
		return Key{}, false, errors.New("a private key")
	}
	if kty, err := o.text("kty"); err != nil || kty != "OKP" {
		return Key{}, true, err
	}
	if crv, err := o.text("crv"); err != nil || crv != "Ed25519" {
		return Key{}, true, err
	}
	for name, want := range map[string]string{"use": "sig", "alg": algEdDSA} {
		if _, present := o[name]; !present {
			continue
		}
		if got, err := o.text(name); err != nil || got != want {
			return Key{}, true, err
		}
	}
	if key.ID, err = o.text("kid"); err != nil {
		return Key{}, false, err
	}
	x, err := o.text("x")
	if err != nil {
		return Key{}, false, err
	}
	public, err := rawURL.DecodeString(x)
	if err != nil || len(public) != ed25519.PublicKeySize {
		return Key{}, false, errors.New("x is not an Ed25519 public key")
	}
	key.Public = public
	return key, false, nil
}
