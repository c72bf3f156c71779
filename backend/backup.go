package backend

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/httvps/httvps/backend/internal/backup"
	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/seal"
	"github.com/httvps/httvps/backend/internal/store"
)

// NewRecoveryKey makes a recovery key in a new file for its owner alone, and returns
// the public half, which backups are made for. A file that is there stays.
func NewRecoveryKey(path string) (recipient string, err error) {
	return backup.NewKeyFile(path, time.Now())
}

// Backup writes all records, and the keys that their secrets are sealed with, to a new
// file, encrypted for the recovery key that cfg.Backup.Recipient is the public half of.
// The control plane may be running. It returns what there is to say.
func Backup(ctx context.Context, cfg Config, path string) (said string, err error) {
	rows, err := makeBackup(ctx, cfg, path)
	if err != nil {
		return "", fmt.Errorf("backup: %w", err)
	}
	return fmt.Sprintf("%s: %d records\n", path, rows), nil
}

// errNoRecipient says that there is nobody to make backups for.
var errNoRecipient = errors.New("backup.recipient is empty, want age1…: backup key --out FILE makes a recovery key and prints it")

func makeBackup(ctx context.Context, cfg Config, path string) (rows int64, err error) {
	if cfg.Backup.Recipient == "" {
		return 0, errNoRecipient
	}
	source, err := databaseOf(cfg)
	if err != nil {
		return 0, err
	}
	source.OwnSchema = true // a newer one may have records that this program knows nothing of
	records, err := store.Look(ctx, source)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	keys := cfg.Keys()
	keys.Make = false // what exists has its key
	ring, err := seal.Open(keys)
	if err != nil {
		return 0, err
	}
	err = backup.Create(path, func(w io.Writer) error {
		out, err := backup.NewWriter(w, cfg.Backup.Recipient)
		if err != nil {
			return err
		}
		err = records.Dump(ctx, func(ctx context.Context, tx control.Tx, schema int64) error {
			header := backup.Header{Schema: schema, MadeAt: time.Now().UTC()}
			var err error
			header.ServiceID, err = control.ServiceIDOf(ctx, tx)
			if errors.Is(err, control.ErrNotFound) {
				return store.ErrNoService
			}
			if err != nil {
				return err
			}
			// What cannot be opened here cannot be anywhere else.
			if header.Keys, err = keysFor(ctx, tx, ring); err != nil {
				return err
			}
			return out.Header(header)
		}, out)
		rows = out.Rows()
		if err != nil {
			return err
		}
		return out.Close()
	})
	return rows, err
}

// keysFor returns the texts of all keys, after each sealed secret was opened with them.
func keysFor(ctx context.Context, tx control.Tx, ring *seal.Ring) ([]string, error) {
	if err := control.CheckSealed(ctx, tx, ring); err != nil {
		return nil, err
	}
	return ring.Reveal(), nil
}

// maxBackupTime is how long making a backup, or trying one, may take.
const maxBackupTime = 6 * time.Hour

// dropScratch removes what a crash left of backups that were tried.
func dropScratch(dir string) error {
	left, err := filepath.Glob(filepath.Join(dir, scratchName))
	for _, old := range left {
		err = errors.Join(err, os.RemoveAll(old))
	}
	return err
}

// keepBackups makes backups by the clock until ctx ends, if the configuration says so.
func keepBackups(ctx context.Context, cfg Config, news backup.Observer) error {
	if cfg.Backup.Directory == "" {
		return nil
	}
	schedule := backup.Schedule{
		Dir: cfg.Backup.Directory, Interval: time.Duration(cfg.Backup.Interval), Keep: cfg.Backup.Keep, Observer: news, Log: cfg.Log,
		Make: func(ctx context.Context, path string) error {
			ctx, cancel := context.WithTimeout(ctx, maxBackupTime)
			defer cancel()
			quiet := cfg
			quiet.Log = slog.New(slog.DiscardHandler)
			_, err := makeBackup(ctx, quiet, path)
			return err
		},
	}
	if cfg.Backup.RecoveryKeyFile != "" {
		schedule.Verify = func(ctx context.Context, path string) error {
			ctx, cancel := context.WithTimeout(ctx, maxBackupTime)
			defer cancel()
			if err := dropScratch(cfg.DataDir); err != nil {
				return err
			}
			_, err := verify(ctx, path, cfg.Backup.RecoveryKeyFile, cfg.DataDir)
			return err
		}
	}
	return schedule.Run(ctx)
}
