// Package login keeps an operator's login between commands: a small JSON file
// that only its owner can read. It holds the token in the clear, as a browser
// keeps its cookies; who can read it can do what the operator can.
package login

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

const (
	dirMode  = 0o700
	maxFile  = 64 << 10
	fileName = "ctl.json"
)

// ErrNone says that nobody is logged in here.
var ErrNone = errors.New("not logged in")

// Login is what a command needs to know to ask a service.
type Login struct {
	API    string `json:"api"`
	Token  string `json:"token"`
	CAFile string `json:"ca_file,omitempty"` // absolute
	// SignedIn says that the token is of a login, which logging out ends.
	SignedIn bool `json:"signed_in,omitempty"`
}

// Path is where the login is kept: httvps/ctl.json in $XDG_CONFIG_HOME, or in
// the system's place for configuration when that is not set.
func Path(getenv func(string) string) (string, error) {
	dir := getenv("XDG_CONFIG_HOME")
	if !filepath.IsAbs(dir) { // the XDG specification: relative ones are ignored
		var err error
		if dir, err = os.UserConfigDir(); err != nil {
			return "", fmt.Errorf("no place for the login: set XDG_CONFIG_HOME: %w", err)
		}
	}
	return filepath.Join(dir, "httvps", fileName), nil
}

// Load reads the login at path. It returns ErrNone when there is none, and
// refuses a file that others can read: they may have the token already.
func Load(path string) (Login, error) {
	var login Login
	err := read(path, &login)
	if err == nil && (login.API == "" || login.Token == "") {
		err = damaged(path)
	}
	if err != nil {
		return Login{}, err
	}
	return login, nil
}

func damaged(path string) error { return fmt.Errorf("saved login: %s is damaged: log in again", path) }

// read decodes a file that only its owner can read.
func read(path string, into any) error {
	f, err := os.Open(path) //nolint:gosec // the operator's own file
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	}
	if err != nil {
		return fmt.Errorf("saved login: %w", err)
	}
	defer f.Close() //nolint:errcheck // only read
	info, err := f.Stat()
	if err != nil {
		return fmt.Errorf("saved login: %w", err)
	}
	// Windows keeps access elsewhere and shows every file as open to all.
	if mode := info.Mode().Perm(); mode&0o077 != 0 && runtime.GOOS != "windows" {
		return fmt.Errorf("saved login: others can read %s (mode %04o): run chmod 600 on it if you trust them, else log in anew with another token", path, mode)
	}
	text, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return fmt.Errorf("saved login: %w", err)
	}
	// The decoder's error could quote the token, so it is not passed on.
	if len(text) > maxFile || json.Unmarshal(text, into) != nil {
		return damaged(path)
	}
	return nil
}

// Remove deletes the login at path. It returns ErrNone when there is none.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return ErrNone
	}
	return err
}

// Draft is a login about to be saved. Its file exists already, so whoever
// spends a one-time code knows beforehand that the outcome can be kept.
type Draft struct {
	file *os.File
	path string
}

// Prepare makes the directory of path and a file beside it, both for the owner
// alone. The caller ends the draft with Save or Discard.
func Prepare(path string) (*Draft, error) {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return nil, fmt.Errorf("save login: %w", err)
	}
	if err := os.Chmod(dir, dirMode); err != nil {
		return nil, fmt.Errorf("save login: %w", err)
	}
	f, err := os.CreateTemp(dir, fileName+".*") // mode 0600
	if err != nil {
		return nil, fmt.Errorf("save login: %w", err)
	}
	return &Draft{file: f, path: path}, nil
}

// Save puts login in place of the one before, whole or not at all.
func (d *Draft) Save(login Login) error { return d.save(login) }

func (d *Draft) save(content any) error {
	text, err := json.MarshalIndent(content, "", "  ")
	if err == nil {
		_, err = d.file.Write(append(text, '\n'))
	}
	if err == nil {
		err = d.file.Sync()
	}
	if closeErr := d.file.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Rename(d.file.Name(), d.path)
	}
	if err != nil {
		return fmt.Errorf("save login: %w", errors.Join(err, os.Remove(d.file.Name())))
	}
	return nil
}

// Discard drops a draft that was not saved.
func (d *Draft) Discard() error {
	return errors.Join(d.file.Close(), os.Remove(d.file.Name()))
}
