// Package seal keeps secrets unreadable in the database: AES-256-GCM under a
// key that lives in a file of its own, so that a copied database alone gives
// nothing away.
package seal

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	keyFile = "kek"
	keySize = 32
)

var (
	// ErrNoKey says that the key file is missing although it must exist.
	ErrNoKey = errors.New("the key-encryption key is missing")
	// ErrDamaged says that sealed data was changed, moved or sealed with another key.
	ErrDamaged = errors.New("sealed data does not open with this key")
)

// Key seals and opens secrets. It prints as nothing.
type Key struct {
	aead cipher.AEAD
}

// Load returns the key in dir's file "kek". If there is none it makes one,
// readable by its owner only, when create is true; otherwise the error is ErrNoKey.
func Load(dir string, create bool) (*Key, error) {
	path := filepath.Join(dir, keyFile)
	text, err := os.ReadFile(path) //nolint:gosec // the operator's own data directory
	switch {
	case errors.Is(err, fs.ErrNotExist) && !create:
		return nil, fmt.Errorf("%w: %s (restore it from the backup that the database is from)", ErrNoKey, path)
	case errors.Is(err, fs.ErrNotExist):
		if text, err = makeKey(dir, path); err != nil {
			return nil, fmt.Errorf("make key-encryption key: %w", err)
		}
	case err != nil:
		return nil, fmt.Errorf("read key-encryption key: %w", err)
	}
	raw := make([]byte, keySize)
	n, err := base64.RawURLEncoding.Strict().Decode(raw, text[:min(len(text), base64.RawURLEncoding.EncodedLen(keySize))])
	if err != nil || n != keySize {
		return nil, fmt.Errorf("read key-encryption key: %s does not hold a key", path)
	}
	block, err := aes.NewCipher(raw)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key: %w", err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("key-encryption key: %w", err)
	}
	return &Key{aead: aead}, nil
}

// makeKey writes a new key so that the file is never there half: a crash leaves
// either none or all of it.
func makeKey(dir, path string) ([]byte, error) {
	raw := make([]byte, keySize)
	_, _ = rand.Read(raw) // never fails
	text := []byte(base64.RawURLEncoding.EncodeToString(raw) + "\n")
	file, err := os.CreateTemp(dir, keyFile+".*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(file.Name()) //nolint:errcheck // gone after the rename
	_, err = file.Write(text)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return nil, err
	}
	if err := os.Rename(file.Name(), path); err != nil {
		return nil, err
	}
	return text, syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the operator's own data directory
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// Seal encrypts plain. aad says where the result will lie, as "table|row|field".
func (k *Key) Seal(plain []byte, aad string) ([]byte, error) {
	return k.aead.Seal(nil, nil, plain, []byte(aad)), nil //nolint:gosec // the AEAD adds a random nonce itself
}

// Open decrypts what Seal made with the same aad.
func (k *Key) Open(sealed []byte, aad string) ([]byte, error) {
	plain, err := k.aead.Open(nil, nil, sealed, []byte(aad))
	if err != nil {
		return nil, ErrDamaged
	}
	return plain, nil
}
