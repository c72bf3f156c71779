package nodes

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	sealedMagic = "HTTVPS sealed 1\n"
	maxSealed   = 64 << 20 // bytes of such a file
)

// sealedFile is a file of the data directory that only this gateway can read and
// nobody else can write: it is sealed with a key that comes from the gateway's own.
// Who has the file alone learns its size and age.
type sealedFile struct {
	dir, name string
	aead      cipher.AEAD
}

func newSealedFile(dir, name string, key ed25519.PrivateKey) (*sealedFile, error) {
	secret, err := hkdf.Key(sha256.New, key.Seed(), nil, "HTTVPS gateway "+name, 32)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	block, err := aes.NewCipher(secret)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	aead, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return &sealedFile{dir, name, aead}, nil
}

// save replaces the file.
func (f *sealedFile) save(v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode %s: %w", f.name, err)
	}
	sealed := f.aead.Seal([]byte(sealedMagic), nil, text, []byte(sealedMagic)) //nolint:gosec // it makes the nonce itself
	return writeFile(f.dir, f.name, sealed)
}

// load reads the file into v and reports whether there is one.
func (f *sealedFile) load(v any) (bool, error) {
	path := filepath.Join(f.dir, f.name)
	file, err := os.Open(path) //nolint:gosec // the operator says which directory
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer file.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(file, maxSealed+1))
	if err != nil {
		return false, err
	}
	if len(text) < len(sealedMagic) || len(text) > maxSealed || string(text[:len(sealedMagic)]) != sealedMagic {
		return false, fmt.Errorf("%s is damaged", path)
	}
	plain, err := f.aead.Open(nil, nil, text[len(sealedMagic):], []byte(sealedMagic))
	if err != nil {
		return false, fmt.Errorf("%s is damaged, or of another gateway", path)
	}
	if err := json.Unmarshal(plain, v); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return true, nil
}
