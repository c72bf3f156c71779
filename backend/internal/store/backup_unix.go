//go:build unix

package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	// keptBackups of those that updates of the schema made stay; older ones go.
	keptBackups = 3
	// spare room is left on the disk beside a backup, for the update itself.
	spare = 1 << 20
	// backupTime is in the names of backups, so that they sort.
	backupTime = "20060102T150405.000000Z"
)

// backupName is what follows the database's name in that of a backup.
var backupName = regexp.MustCompile(`^\.schema-\d+\.(\d{8}T\d{6}\.\d{6}Z)\.backup$`)

// backUp copies the database into a file beside it that is whole or not there,
// and removes the oldest of more than keptBackups.
func (e *sqliteEngine) backUp(ctx context.Context, p pools, version int64) (path string, err error) {
	size, err := e.size(ctx, p)
	if err != nil {
		return "", err
	}
	dir := filepath.Dir(e.path)
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return "", fmt.Errorf("back up to %s: %w", dir, err)
	}
	if free := disk.Bavail * uint64(disk.Bsize); free < size+spare {
		return "", fmt.Errorf("%w: %s has %d KiB free, want %d", ErrNoRoom, dir, free>>10, (size+spare)>>10)
	}
	path = fmt.Sprintf("%s.schema-%d.%s.backup", e.path, version, time.Now().UTC().Format(backupTime))
	partial := path + ".partial"
	defer func() {
		if err != nil {
			_ = os.Remove(partial) // what matters has gone wrong already
			if failure, ok := errors.AsType[*sqlite.Error](err); ok && failure.Code()&0xff == sqlite3.SQLITE_FULL {
				err = fmt.Errorf("%w: %w", ErrNoRoom, err)
			}
		}
	}()
	file, err := os.OpenFile(partial, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600) //nolint:gosec // beside the operator's database; SQLite fills a file that is empty
	if err != nil {
		return "", fmt.Errorf("back up: %w", err)
	}
	defer file.Close() //nolint:errcheck // synced below
	if _, err := p.writer.ExecContext(ctx, "VACUUM INTO $1", partial); err != nil {
		return "", fmt.Errorf("back up to %s: %w", dir, err)
	}
	if err := file.Sync(); err != nil {
		return "", fmt.Errorf("back up: %w", err)
	}
	if err := os.Rename(partial, path); err != nil {
		return "", fmt.Errorf("back up: %w", err)
	}
	if err := syncDir(dir); err != nil {
		return "", fmt.Errorf("back up: %w", err)
	}
	return path, e.dropBackups()
}

// size returns how many bytes a copy of the database takes at most.
func (e *sqliteEngine) size(ctx context.Context, p pools) (uint64, error) {
	var pages, pageSize uint64
	err := errors.Join(
		p.writer.QueryRowContext(ctx, "PRAGMA page_count").Scan(&pages),
		p.writer.QueryRowContext(ctx, "PRAGMA page_size").Scan(&pageSize),
	)
	return pages * pageSize, err
}

// dropBackups removes the oldest of more than keptBackups, and what a crash left
// of one.
func (e *sqliteEngine) dropBackups() error {
	dir, base := filepath.Split(e.path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("old backups: %w", err)
	}
	type backup struct{ name, time string }
	var backups []backup
	for _, entry := range entries {
		rest, _ := strings.CutPrefix(entry.Name(), base)
		rest, partial := strings.CutSuffix(rest, ".partial")
		parts := backupName.FindStringSubmatch(rest)
		switch {
		case parts == nil:
		case partial:
			err = errors.Join(err, os.Remove(filepath.Join(dir, entry.Name())))
		default:
			backups = append(backups, backup{entry.Name(), parts[1]})
		}
	}
	slices.SortFunc(backups, func(a, b backup) int { return cmp.Compare(b.time, a.time) })
	for _, old := range backups[min(len(backups), keptBackups):] {
		err = errors.Join(err, os.Remove(filepath.Join(dir, old.name)))
	}
	if err != nil {
		return fmt.Errorf("old backups: %w", err)
	}
	return nil
}

func syncDir(dir string) error {
	d, err := os.Open(dir) //nolint:gosec // where the operator's database is
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
