// Package backup is the file that a service is backed up to, and the directory of
// those that are made by the clock.
//
// A file is lines of JSON, compressed with gzip and encrypted with age to the public
// half of a recovery key (age-encryption.org/v1, X25519): the machine that makes
// backups cannot read them. Without this program it opens with
//
//	age --decrypt --identity recovery.key FILE | gunzip
//
// The first line is the Header, the last one says how many rows each table has; in
// between each table is a line with its name and columns, and each of its rows an
// array: null, numbers, texts, and byte strings as {"b":"base64"}. age
// authenticates every 64 KiB and the end, so what was changed or cut off is found.
package backup

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
)

const (
	maxKeyFile = 4096
	// prefix of the secret half, as age-keygen writes it.
	secretPrefix = "AGE-SECRET-KEY-1"
)

// NewKeyFile makes a recovery key in a new file for its owner alone, and returns the
// public half. A file that is there stays, and the error is fs.ErrExist.
func NewKeyFile(path string, now time.Time) (recipient string, err error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return "", err
	}
	recipient = identity.Recipient().String()
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // the operator says where
	if err != nil {
		return "", fmt.Errorf("recovery key: %w", err)
	}
	_, err = fmt.Fprintf(file, "# HTTVPS recovery key, made %s. Who has it can read every backup made for\n# %s\n%s\n",
		now.UTC().Format(time.RFC3339), recipient, identity)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return "", errors.Join(fmt.Errorf("recovery key: %w", err), os.Remove(path))
	}
	return recipient, syncDir(filepath.Dir(path))
}

// ReadKeyFile returns the secret half of a recovery key from its file, in which lines
// that are empty or begin with # count for nothing. Errors do not repeat it.
func ReadKeyFile(path string) (*age.X25519Identity, error) {
	file, err := os.Open(path) //nolint:gosec // the operator says which file
	if err != nil {
		return nil, fmt.Errorf("recovery key: %w", err)
	}
	defer file.Close() //nolint:errcheck // only read
	text, err := io.ReadAll(io.LimitReader(file, maxKeyFile))
	if err != nil {
		return nil, fmt.Errorf("recovery key: %w", err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		identity, err := age.ParseX25519Identity(line)
		if err != nil { // which may repeat a part of the line
			break
		}
		return identity, nil
	}
	return nil, fmt.Errorf("recovery key: %s holds none: want a line that begins with %s, as backup key makes it", path, secretPrefix)
}

// CheckRecipient returns what is wrong with the public half of a recovery key. The
// error does not repeat it: it might be the secret half.
func CheckRecipient(recipient string) error {
	if _, err := age.ParseX25519Recipient(recipient); err != nil {
		return errors.New("it is no public half of a recovery key: want age1… as backup key prints it")
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // the operator's
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
