// Package home keeps a device's key and profile in a directory of files.
//
//	device.key   the Ed25519 key, PKCS #8 in PEM, readable by its owner only
//	device.json  the profile
//	lock         held by the process that uses the directory
//	control.sock the socket of the process that is connected
//
// A file is replaced in one step: after a crash it is the old one or the new
// one. A file that is damaged is an error that names it; nothing is repaired or
// overwritten by guessing.
package home

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"

	"github.com/httvps/httvps/sdk/go/httvps"
)

const (
	keyFile     = "device.key"
	profileFile = "device.json"
	lockFile    = "lock"

	pemType = "PRIVATE KEY"
	maxFile = 1 << 20
)

// ErrInUse says that another process holds the directory.
var ErrInUse = errors.New("another httvps is using it")

// Store is an httvps.Store in a directory.
type Store struct {
	dir  string
	lock *os.File   // nil: it only looks
	mu   sync.Mutex // one reader or writer of the files at a time
}

var _ httvps.Store = (*Store)(nil)

// Dir returns the directory that is used when none is named: httvps in the
// user's configuration directory ($XDG_CONFIG_HOME on most systems).
func Dir() (string, error) {
	base, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no configuration directory (use --home): %w", err)
	}
	return filepath.Join(base, "httvps"), nil
}

// Open makes dir when it is not there, readable by its owner only, and takes
// hold of it until Close. The error is ErrInUse when another process has it.
func Open(dir string) (*Store, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("home: %w", err)
	}
	lock, err := acquire(filepath.Join(dir, lockFile))
	if err != nil {
		return nil, fmt.Errorf("home %s: %w", dir, err)
	}
	return &Store{dir: dir, lock: lock}, nil
}

// Look returns a store for those who change nothing, beside whoever has hold of the
// directory.
func Look(dir string) *Store { return &Store{dir: dir} }

// Path is the directory.
func (s *Store) Path() string { return s.dir }

// Close lets go of the directory.
func (s *Store) Close() error {
	if s.lock == nil {
		return nil
	}
	return s.lock.Close()
}

// Remove removes key and profile, the profile first: without it, the directory is
// that of a device which is not enrolled yet. It reports whether one was there.
func (s *Store) Remove() (removed bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.lock == nil {
		return false, errLooks
	}
	for _, name := range []string{profileFile, keyFile} {
		switch err := os.Remove(filepath.Join(s.dir, name)); {
		case err == nil:
			removed = true
		case !errors.Is(err, fs.ErrNotExist):
			return removed, err
		}
	}
	return removed, syncDir(s.dir)
}

var errLooks = errors.New("the home was opened to be looked at only")

// Key reads the device key, or makes and saves one when the file is not there.
func (s *Store) Key(context.Context) (crypto.Signer, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := filepath.Join(s.dir, keyFile)
	text, err := read(path, true)
	if errors.Is(err, fs.ErrNotExist) {
		// A profile without its key is a damaged home, and a new key would
		// only be refused by the service.
		if _, err := os.Lstat(filepath.Join(s.dir, profileFile)); err == nil {
			return nil, fmt.Errorf("%s is missing, though %s is there: restore it from a backup, or remove %s and enrol again",
				path, profileFile, profileFile)
		}
		if s.lock == nil {
			return nil, httvps.ErrNotEnrolled
		}
		return makeKey(path)
	}
	if err != nil {
		return nil, err
	}
	key, err := parseKey(text)
	if err != nil {
		return nil, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return key, nil
}

func makeKey(path string) (crypto.Signer, error) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make a device key: %w", err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("encode the device key: %w", err)
	}
	if err := replace(path, pem.EncodeToMemory(&pem.Block{Type: pemType, Bytes: der})); err != nil {
		return nil, err
	}
	return key, nil
}

func parseKey(text []byte) (ed25519.PrivateKey, error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != pemType || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("want one PEM block of type " + pemType)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, errors.New("the PEM block is not a PKCS #8 key")
	}
	key, ok := parsed.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("the key is not an Ed25519 key")
	}
	return key, nil
}

// Profile reads the profile; the error is httvps.ErrNotEnrolled when the file
// is not there.
func (s *Store) Profile(context.Context) (httvps.Profile, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	path := filepath.Join(s.dir, profileFile)
	text, err := read(path, false)
	if errors.Is(err, fs.ErrNotExist) {
		return httvps.Profile{}, httvps.ErrNotEnrolled
	}
	if err != nil {
		return httvps.Profile{}, err
	}
	profile, err := parseProfile(text)
	if err != nil {
		return httvps.Profile{}, fmt.Errorf("%s is damaged: %w", path, err)
	}
	return profile, nil
}

func parseProfile(text []byte) (httvps.Profile, error) {
	var profile httvps.Profile
	if err := json.Unmarshal(text, &profile); err != nil {
		return httvps.Profile{}, err
	}
	if err := profile.Validate(); err != nil {
		return httvps.Profile{}, err
	}
	return profile, nil
}

// SaveProfile replaces the profile.
func (s *Store) SaveProfile(_ context.Context, p httvps.Profile) error {
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return fmt.Errorf("encode the profile: %w", err)
	}
	if s.lock == nil {
		return errLooks
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return replace(filepath.Join(s.dir, profileFile), append(text, '\n'))
}

// read returns a whole file of a bounded size. A secret file that others may
// read is refused, as ssh does: its owner should know.
func read(path string, secret bool) ([]byte, error) {
	f, err := os.Open(path) //nolint:gosec // the user's own directory
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	if mode := info.Mode().Perm(); secret && mode&0o077 != 0 && runtime.GOOS != "windows" {
		return nil, fmt.Errorf("%s may be read by others (mode %04o): chmod 600 it, and enrol again if somebody could have copied it", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(text) > maxFile {
		return nil, fmt.Errorf("%s is damaged: over %d bytes", path, maxFile)
	}
	return text, nil
}

// replace writes a file beside path, makes sure it is on the disk, and moves it
// into place.
func replace(path string, text []byte) (err error) {
	dir := filepath.Dir(path)
	f, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = f.Close()
			_ = os.Remove(f.Name())
		}
	}()
	if _, err := f.Write(text); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a rename durable where the system can do that.
func syncDir(dir string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	d, err := os.Open(dir) //nolint:gosec // the user's own directory
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("sync %s: %w", dir, err)
	}
	return nil
}
