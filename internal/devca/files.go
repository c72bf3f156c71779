package devca

import (
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
)

// createFile writes a PEM file, mode 0600, that appears whole or not at all and
// never replaces another: then the error is fs.ErrExist.
func createFile(path, kind string, der []byte) error {
	return write(path, kind, der, 0o600, func(temporary string) error { return os.Link(temporary, path) })
}

// replaceFile writes a PEM file that appears whole, in place of an older one.
func replaceFile(path, kind string, der []byte, mode os.FileMode) error {
	return write(path, kind, der, mode, func(temporary string) error { return os.Rename(temporary, path) })
}

// write puts the file beside path under a name of its own and lets place move
// it there; file and folder are on the disk when it returns.
func write(path, kind string, der []byte, mode os.FileMode, place func(temporary string) error) (err error) {
	dir := filepath.Dir(path)
	file, err := os.CreateTemp(dir, "."+filepath.Base(path)+"-*") // mode 0600
	if err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	defer func() {
		// After a rename the name is gone already; a second Close is harmless.
		_ = file.Close()
		_ = os.Remove(file.Name())
	}()
	err = errors.Join(
		pem.Encode(file, &pem.Block{Type: kind, Bytes: der}),
		file.Chmod(mode),
		file.Sync(),
		file.Close(),
	)
	if err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	if err := place(file.Name()); err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	folder, err := os.Open(dir) //nolint:gosec // the directory that the operator named
	if err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	defer folder.Close()
	if err := folder.Sync(); err != nil {
		return fmt.Errorf("certificate authority: %w", err)
	}
	return nil
}
