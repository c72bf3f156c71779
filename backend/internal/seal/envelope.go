// Package seal keeps secrets unreadable in the database: AES-256-GCM under a
// key-encryption key that is not in it, so that a copied database alone gives
// nothing away.
//
// A sealed value, an envelope, says which key sealed it:
//
//	"HKE1" | id of the key (8 bytes) | nonce (12 bytes) | ciphertext and tag
//
// Its place in the database and the first twelve bytes are authenticated. An
// envelope of the time before keys had ids is nonce, ciphertext and tag alone; it
// opens with whichever key of the ring it was sealed with.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
)

const (
	keySize = 32
	idSize  = 8

	magic      = "HKE1"
	headerSize = len(magic) + idSize
)

// ErrDamaged says that a sealed value was changed, or moved from the place that
// it was sealed for.
var ErrDamaged = errors.New("sealed data does not open: it was changed or moved, or sealed with another key")

// UnknownKeyError says that something was sealed with a key that is not there.
type UnknownKeyError struct {
	ID     string   // of the key that is needed
	Have   []string // ids of those that are there
	Source string   // where they come from
	Old    string   // the file beside it that holds the needed key; empty: there is none
}

func (e *UnknownKeyError) Error() string {
	remedy := "restore the key that belongs to this database"
	if e.Old != "" {
		remedy = "add the line of " + e.Old
	}
	return fmt.Sprintf("this database was sealed with key %s, but %s holds %s: %s", e.ID, e.Source, strings.Join(e.Have, ", "), remedy)
}

var keyText = base64.RawURLEncoding.Strict()

// NewKey returns a new key as files and variables hold it: 43 characters.
func NewKey() string {
	raw := make([]byte, keySize)
	_, _ = rand.Read(raw) // never fails
	return keyText.EncodeToString(raw)
}

// key is one key of a ring.
type key struct {
	id   string
	text string
	aead cipher.AEAD
}

// parseKey reads what NewKey returns. Errors do not repeat it.
func parseKey(text string) (key, error) {
	raw, err := keyText.DecodeString(text)
	if err != nil || len(raw) != keySize {
		return key{}, fmt.Errorf("want %d characters of base64url, which are %d bytes, without padding", keyText.EncodedLen(keySize), keySize)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return key{}, err
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	return key{id: idOf(raw), text: text, aead: aead}, err
}

// idOf names a key and gives nothing of it away.
func idOf(raw []byte) string {
	sum := sha256.Sum256(append([]byte("HTTVPS key-encryption key id\x00"), raw...))
	return hex.EncodeToString(sum[:idSize])
}

func (k key) seal(plain []byte, place string) ([]byte, error) {
	id, err := hex.DecodeString(k.id)
	if err != nil {
		return nil, err
	}
	header := append([]byte(magic), id...)
	return k.aead.Seal(header, nil, plain, bound(header, place)), nil //nolint:gosec // the AEAD adds a random nonce itself
}

// open opens an envelope with an id.
func (k key) open(sealed []byte, place string) ([]byte, error) {
	plain, err := k.aead.Open(nil, nil, sealed[headerSize:], bound(sealed[:headerSize], place))
	if err != nil {
		return nil, ErrDamaged
	}
	return plain, nil
}

// bound is what is authenticated beside the secret.
func bound(header []byte, place string) []byte {
	return append(append([]byte(nil), header...), place...)
}

// KeyOf returns the id of the key that sealed a value; an envelope without one
// gives an empty id.
func KeyOf(sealed []byte) string {
	if len(sealed) < headerSize || string(sealed[:len(magic)]) != magic {
		return ""
	}
	return hex.EncodeToString(sealed[len(magic):headerSize])
}

// String returns the id, so that no key is printed.
func (k key) String() string { return k.id }

// GoString is String.
func (k key) GoString() string { return k.id }
