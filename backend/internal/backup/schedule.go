package backup

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"
)

const (
	// firstRetry is how long after a failure the next try is; it doubles up to maxRetry.
	firstRetry = time.Minute
	maxRetry   = time.Hour
	// lookEvery is how often the directory is looked at: somebody may have verified a
	// backup, or taken it away.
	lookEvery = 5 * time.Minute
)

// Observer is told what happens, for metrics. Labels come from fixed sets.
type Observer interface {
	// Backup counts a step and its result: "made", "verified", "not_made" or "not_verified".
	Backup(result string)
	// BackupTimes says when the newest backup that is there was made, and the newest
	// that is verified, was verified; zero: there is none.
	BackupTimes(made, verified time.Time)
}

// Schedule makes backups by the clock.
type Schedule struct {
	// Dir is where they are. It must exist: one that is not mounted is not filled
	// below its mount point.
	Dir string
	// Interval is between one and the next, also over restarts.
	Interval time.Duration
	// Keep is how many stay.
	Keep int
	// Make makes a backup of a name that there is not yet.
	Make func(ctx context.Context, path string) error
	// Verify restores one for a try; nil: nobody does that here.
	Verify   func(ctx context.Context, path string) error
	Observer Observer
	Log      *slog.Logger
}

// Run makes backups until ctx ends. It returns nil.
func (s Schedule) Run(ctx context.Context) error {
	wait := s.wait()
	for retry := firstRetry; ; {
		for wait > 0 {
			step := min(wait, lookEvery)
			if !sleep(ctx, step) {
				return nil
			}
			wait -= step
			s.look()
		}
		err := s.once(ctx)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was to end
		case err != nil:
			s.Observer.Backup("not_made")
			s.Log.ErrorContext(ctx, "backup not made", "directory", s.Dir, "error", err.Error(), "again_in_ms", retry.Milliseconds())
			wait = retry
			retry = min(2*retry, maxRetry, max(s.Interval, firstRetry))
			continue
		}
		wait, retry = s.wait(), firstRetry
	}
}

// wait returns how long the next backup is away: the newest that is there says when
// it is due, as far as its time can be.
func (s Schedule) wait() time.Duration {
	made := s.look()
	if made.IsZero() {
		return 0
	}
	return min(max(time.Until(made.Add(s.Interval)), 0), s.Interval)
}

// look says what is there, and returns when the newest was made.
func (s Schedule) look() (made time.Time) {
	var verified time.Time
	files, err := List(s.Dir)
	if err == nil && len(files) > 0 {
		made = files[0].MadeAt
	}
	for _, f := range files {
		if f.VerifiedAt.After(verified) {
			verified = f.VerifiedAt
		}
	}
	s.Observer.BackupTimes(made, verified)
	return made
}

// once makes a backup and, when that is there, verifies it and removes the oldest.
func (s Schedule) once(ctx context.Context) error {
	if err := dropPartial(s.Dir); err != nil {
		return fmt.Errorf("remove what is left of an earlier one: %w", err)
	}
	begin := time.Now()
	path := filepath.Join(s.Dir, newName(begin))
	if err := s.Make(ctx, path); err != nil {
		return err
	}
	size := int64(0)
	if info, err := os.Stat(path); err == nil {
		size = info.Size()
	}
	s.Observer.Backup("made")
	s.Log.InfoContext(ctx, "backup made", "file", path, "bytes", size, "took_ms", time.Since(begin).Milliseconds())
	if s.Verify != nil {
		err := s.Verify(ctx, path)
		if err == nil {
			err = Verified(path, time.Now())
		}
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // it was to end
		case err != nil:
			s.Observer.Backup("not_verified")
			s.Log.ErrorContext(ctx, "backup not verified", "file", path, "error", err.Error())
		default:
			s.Observer.Backup("verified")
			s.Log.InfoContext(ctx, "backup verified", "file", path)
		}
	}
	if err := drop(s.Dir, s.Keep); err != nil {
		s.Log.ErrorContext(ctx, "old backups not removed", "directory", s.Dir, "error", err.Error())
	}
	return nil
}

// sleep reports whether it slept for d, and not only until ctx ended.
func sleep(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// errNoDirectory says that the directory of the backups is not there.
var errNoDirectory = errors.New("want a directory that is there: one that is not mounted is not filled below its mount point")

// CheckDir returns what is wrong with the directory of backups.
func CheckDir(dir string) error {
	info, err := os.Stat(dir)
	if err == nil && !info.IsDir() {
		err = errNoDirectory
	}
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("%s is not there: %w", dir, errNoDirectory)
	}
	return err
}
