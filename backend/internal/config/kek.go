package config

import (
	"fmt"
	"path/filepath"

	"github.com/httvps/httvps/backend/internal/seal"
)

const (
	keyEnv = EnvPrefix + "KEK"
	// keyFile is in the data directory.
	keyFile = "kek"
)

// SecretVariables are the environment variables that hold secrets. Who has read
// them should not leave them to others.
func SecretVariables() []string {
	return []string{keyEnv, EnvPrefix + "DATABASE_URL", EnvPrefix + "NATS_URL"}
}

// KEK is one or more key-encryption keys with commas between them, the newest last.
// It shows itself as nothing; Reveal returns it.
type KEK string

// Reveal returns the keys.
func (k KEK) Reveal() string { return string(k) }

func (k KEK) String() string {
	if k == "" {
		return ""
	}
	return "(secret)"
}

// GoString keeps %#v from showing the secret.
func (k KEK) GoString() string { return k.String() }

// MarshalText keeps encoders from showing the secret.
func (k KEK) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// Keys says where the key-encryption keys come from. A file of the operator's own
// is never made: it may lie where nothing lasts.
func (c Config) Keys() seal.Source {
	switch {
	case c.KEK != "":
		return seal.Source{Text: c.KEK.Reveal(), Name: keyEnv}
	case c.KEKFile != "":
		return seal.Source{File: c.KEKFile}
	default:
		return seal.Source{File: filepath.Join(c.DataDir, keyFile), Make: true}
	}
}

// keyProblems returns what can be said of the keys without the file.
func (c Config) keyProblems() []error {
	switch {
	case c.KEK != "" && c.KEKFile != "":
		return []error{fmt.Errorf("kek_file and %s exclude each other", keyEnv)}
	case c.KEK != "":
		if err := c.Keys().Check(); err != nil {
			return []error{err}
		}
	}
	return nil
}
