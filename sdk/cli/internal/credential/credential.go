// Package credential is the user name and the password that programs show to the
// proxies, where the person asked for that.
package credential

import (
	"bytes"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"unicode/utf8"
)

// maxPart is how long SOCKS5 (RFC 1929) lets each of the two be.
const maxPart = 255

// Pair is a user name and its password. It keeps neither, only what is needed to
// know them again.
type Pair struct{ user, password [sha256.Size]byte }

// New returns the pair of these two.
func New(user, password string) *Pair {
	return &Pair{user: sha256.Sum256([]byte(user)), password: sha256.Sum256([]byte(password))}
}

// Parse reads USER:PASSWORD, with or without the end of a line behind it. Errors do
// not repeat any of it.
func Parse(text []byte) (*Pair, error) {
	text = bytes.TrimSuffix(bytes.TrimSuffix(text, []byte("\n")), []byte("\r"))
	user, password, ok := bytes.Cut(text, []byte(":"))
	switch {
	case !ok || len(user) == 0 || len(password) == 0:
		return nil, errors.New("want one line USER:PASSWORD")
	case len(user) > maxPart || len(password) > maxPart:
		return nil, fmt.Errorf("user name and password may have %d bytes each", maxPart)
	case !utf8.Valid(text) || bytes.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return nil, errors.New("want one line of text, USER:PASSWORD")
	}
	return New(string(user), string(password)), nil
}

// Read reads a file that only its owner may read, as Parse does.
func Read(path string) (*Pair, error) {
	f, err := os.Open(path) //nolint:gosec // named by the user
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if mode := info.Mode(); mode.IsRegular() && mode.Perm()&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s may be read by others (mode %04o): chmod 600 it", path, mode.Perm())
	}
	text, err := io.ReadAll(io.LimitReader(f, 4*maxPart))
	if err != nil {
		return nil, err
	}
	p, err := Parse(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return p, nil
}

// Is reports whether these are the two. How long that takes says nothing about
// them.
func (p *Pair) Is(user, password []byte) bool {
	u, w := sha256.Sum256(user), sha256.Sum256(password)
	return subtle.ConstantTimeCompare(u[:], p.user[:])&subtle.ConstantTimeCompare(w[:], p.password[:]) == 1
}
