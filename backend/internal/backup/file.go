package backup

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"
)

const (
	// nameTime is in the names of files, so that they sort.
	nameTime = "20060102T150405.000000Z"
	// partialSuffix is what the name of a file ends with that is not whole, and
	// verifiedSuffix that of a note that it was restored for a try.
	partialSuffix  = ".partial"
	verifiedSuffix = ".verified"
	// maxVerified is the size in bytes of the largest note that is read.
	maxVerified = 4096
)

// name is that of a scheduled backup.
var name = regexp.MustCompile(`^httvps-(\d{8}T\d{6}\.\d{6}Z)\.age(\.partial|\.verified)?$`)

// Create has write fill a new file for its owner alone, which appears under its name
// only when all of it is on the disk. One that is there stays, and the error is
// fs.ErrExist.
func Create(path string, write func(io.Writer) error) (err error) {
	if _, err := os.Lstat(path); err == nil {
		return &fs.PathError{Op: "create", Path: path, Err: fs.ErrExist}
	}
	partial := path + partialSuffix
	file, err := os.OpenFile(partial, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // the operator says where
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			_ = os.Remove(partial) // what matters has gone wrong already
		}
	}()
	err = write(file)
	if err := errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := os.Rename(partial, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// Verified notes beside a backup that it was restored for a try at a time.
func Verified(path string, at time.Time) error {
	text, err := json.Marshal(verifiedNote{at.UTC()})
	if err != nil {
		return err
	}
	note := path + verifiedSuffix
	for _, old := range []string{note, note + partialSuffix} { // from an earlier time
		if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("note that it is verified: %w", err)
		}
	}
	err = Create(note, func(w io.Writer) error {
		_, err := w.Write(append(text, '\n'))
		return err
	})
	if err != nil {
		return fmt.Errorf("note that it is verified: %w", err)
	}
	return nil
}

type verifiedNote struct {
	At time.Time `json:"verified_at"`
}

// File is a whole backup in a directory.
type File struct {
	Path       string
	MadeAt     time.Time
	VerifiedAt time.Time // zero: never
}

// List returns the backups in a directory that were made by the clock, newest first.
func List(dir string) ([]File, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	verified := make(map[string]time.Time)
	var files []File
	for _, entry := range entries {
		parts := name.FindStringSubmatch(entry.Name())
		if parts == nil {
			continue
		}
		at, err := time.Parse(nameTime, parts[1])
		switch {
		case err != nil:
		case parts[2] == "":
			files = append(files, File{Path: filepath.Join(dir, entry.Name()), MadeAt: at})
		case parts[2] == verifiedSuffix:
			verified[parts[1]] = readVerified(filepath.Join(dir, entry.Name()))
		}
	}
	for i := range files {
		files[i].VerifiedAt = verified[files[i].MadeAt.Format(nameTime)]
	}
	slices.SortFunc(files, func(a, b File) int { return cmp.Compare(b.MadeAt.UnixMicro(), a.MadeAt.UnixMicro()) })
	return files, nil
}

// readVerified returns the time in a note; one that cannot be read says nothing.
func readVerified(path string) time.Time {
	file, err := os.Open(path) //nolint:gosec // of the backups' directory
	if err != nil {
		return time.Time{}
	}
	defer file.Close() //nolint:errcheck // only read
	var note verifiedNote
	if json.NewDecoder(io.LimitReader(file, maxVerified)).Decode(&note) != nil {
		return time.Time{}
	}
	return note.At
}

// newName is that of a backup that is made at a time.
func newName(at time.Time) string { return "httvps-" + at.UTC().Format(nameTime) + ".age" }

// drop removes the oldest of more than keep backups, but never the newest that is
// verified.
func drop(dir string, keep int) error {
	files, err := List(dir)
	if err != nil {
		return err
	}
	proven := slices.IndexFunc(files, func(f File) bool { return !f.VerifiedAt.IsZero() })
	for i, old := range files {
		if i < keep || i == proven {
			continue
		}
		if remove := os.Remove(old.Path + verifiedSuffix); remove != nil && !errors.Is(remove, fs.ErrNotExist) {
			err = errors.Join(err, remove)
		}
		err = errors.Join(err, os.Remove(old.Path))
	}
	return err
}

// dropPartial removes what a crash left of backups.
func dropPartial(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if parts := name.FindStringSubmatch(entry.Name()); parts != nil && parts[2] == partialSuffix {
			err = errors.Join(err, os.Remove(filepath.Join(dir, entry.Name())))
		}
	}
	return err
}
