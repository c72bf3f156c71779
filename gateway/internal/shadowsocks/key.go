package shadowsocks

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/md5" //nolint:gosec // the protocol's way from a password to a key
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the protocol's key derivation
	"errors"
	"fmt"
	"slices"

	"golang.org/x/crypto/chacha20poly1305"
)

const (
	// DefaultCipher is the one that Outline servers use.
	DefaultCipher = "chacha20-ietf-poly1305"
	// MaxPassword is the longest password in bytes.
	MaxPassword = 1024
	// minRandom is how many bytes of a salt a prefix must leave to chance.
	// Two connections with one salt would give both away.
	minRandom = 8

	tagSize   = 16 // of every cipher
	nonceSize = 12
	subkey    = "ss-subkey"
)

// suite is one cipher.
type suite struct {
	name string
	size int // of the key, and of the salt
	aead func(key []byte) (cipher.AEAD, error)
}

var suites = []suite{
	{DefaultCipher, 32, chacha20poly1305.New},
	{"aes-256-gcm", 32, newGCM},
	{"aes-192-gcm", 24, newGCM},
	{"aes-128-gcm", 16, newGCM},
}

func newGCM(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// Ciphers lists the names of the ciphers.
func Ciphers() []string {
	names := make([]string, len(suites))
	for i, s := range suites {
		names[i] = s.name
	}
	return names
}

// A Key is what a server and its clients share, with the memory of the salts
// that were used under it. It is safe for concurrent use.
type Key struct {
	// Held, unless nil, is told of the memory in which connections hold what came
	// and nobody has taken yet: n bytes more, or less. It is set before the first.
	Held func(n int)

	suite  suite
	master []byte
	prefix []byte
	// Apart, so that datagrams, which are many, do not push out connections.
	streams, packets salts
}

// NewKey returns the key of a password. Where prefix is not empty, the salt of
// each connection begins with it (and that of no datagram): on the wire it looks
// like the beginning of another protocol. No error repeats the password.
func NewKey(name, password string, prefix []byte) (*Key, error) {
	at := slices.IndexFunc(suites, func(s suite) bool { return s.name == name })
	switch {
	case at < 0:
		return nil, fmt.Errorf("the cipher is not known, want one of %q", Ciphers())
	case password == "":
		return nil, errors.New("the password is empty")
	case len(password) > MaxPassword:
		return nil, fmt.Errorf("the password has %d bytes, want at most %d", len(password), MaxPassword)
	}
	s := suites[at]
	if most := s.size - minRandom; len(prefix) > most {
		return nil, fmt.Errorf("the prefix has %d bytes, want at most %d with %s", len(prefix), most, s.name)
	}
	return &Key{suite: s, master: masterKey(password, s.size), prefix: slices.Clone(prefix)}, nil
}

// masterKey is OpenSSL's EVP_BytesToKey with MD5, one round and no salt.
func masterKey(password string, size int) []byte {
	var key, last []byte
	for len(key) < size {
		sum := md5.Sum(append(last, password...)) //nolint:gosec // see the import
		last = sum[:]
		key = append(key, last...)
	}
	return key[:size]
}

// String returns the cipher's name: a key is never printed.
func (k *Key) String() string { return "Shadowsocks key (" + k.suite.name + ")" }

// GoString returns what String does.
func (k *Key) GoString() string { return k.String() }

// newSalt fills dst, which has the cipher's size.
func (k *Key) newSalt(dst, prefix []byte) {
	_, _ = rand.Read(dst[copy(dst, prefix):]) // never fails (crypto/rand)
}

// session returns the cipher of one direction of one connection, or of a
// datagram.
func (k *Key) session(salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha1.New, k.master, salt, subkey, k.suite.size)
	if err != nil {
		return nil, err
	}
	return k.suite.aead(key)
}

// nonce counts, little-endian.
type nonce [nonceSize]byte

func (n *nonce) next() {
	for i := range n {
		n[i]++
		if n[i] != 0 {
			return
		}
	}
}
