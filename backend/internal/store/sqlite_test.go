package store

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

// putNote keeps a text in the records.
func putNote(ctx context.Context, s *Store, text string) error {
	return s.Write(ctx, func(ctx context.Context, tx control.Tx) error { return tx.PutSetting(ctx, "note", text) })
}

// note returns the text that putNote kept.
func note(ctx context.Context, s *Store) (text string, err error) {
	err = s.Read(ctx, func(ctx context.Context, tx control.Tx) error {
		text, err = tx.Setting(ctx, "note")
		return err
	})
	return text, err
}

func wantNote(t *testing.T, s *Store, want string) {
	t.Helper()
	if got, err := note(t.Context(), s); err != nil || got != want {
		t.Errorf("the records say %q, %v, want %q", got, err, want)
	}
}

// backups returns the names of the backups beside a database.
func backups(t *testing.T, cfg Config) []string {
	t.Helper()
	found, err := filepath.Glob(cfg.Path + ".schema-*")
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func TestABackupPrecedesAnUpdateOfTheSchema(t *testing.T) {
	var log strings.Builder
	cfg := Config{Path: filepath.Join(t.TempDir(), "x.db"), Log: slog.New(slog.NewTextHandler(&log, nil))}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(putNote(t.Context(), s, "before"), s.Close()); err != nil {
		t.Fatal(err)
	}
	openAndClose(t, cfg) // nothing to update
	if found := backups(t, cfg); len(found) != 0 {
		t.Errorf("there are backups %v although nothing was lost", found)
	}

	newer := cfg
	newer.steps = withStep(t, furtherTable+"\nDELETE FROM settings;")
	updated := openTest(t, newer)
	if _, err := note(t.Context(), updated); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("the step did not run: %v", err)
	}
	found := backups(t, cfg)
	shape := regexp.MustCompile(`x\.db\.schema-\d+\.\d{8}T\d{6}\.\d{6}Z\.backup$`)
	if len(found) != 1 || !shape.MatchString(found[0]) || !strings.Contains(log.String(), found[0]) {
		t.Fatalf("backups are %v, want one with the version and the time that the log tells:\n%s", found, &log)
	}
	if info, err := os.Stat(found[0]); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup is %v, %v, want it to be the owner's only", info.Mode(), err)
	}
	restored := openTest(t, Config{Path: found[0]})
	wantNote(t, restored, "before")
}

func TestOldBackupsGo(t *testing.T) {
	cfg := Config{Path: filepath.Join(t.TempDir(), "x.db")}
	openAndClose(t, cfg)
	foreign := cfg.Path + ".schema-1.by-hand.backup"
	for _, name := range []string{
		foreign,
		cfg.Path + ".schema-9.20200101T000000.000000Z.backup",
		cfg.Path + ".schema-1.20200102T000000.000000Z.backup",
		cfg.Path + ".schema-1.20200103T000000.000000Z.backup",
		cfg.Path + ".schema-1.20200104T000000.000000Z.backup",
		cfg.Path + ".schema-1.20200105T000000.000000Z.backup.partial",
	} {
		if err := os.WriteFile(name, []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cfg.steps = withStep(t, furtherTable)
	openAndClose(t, cfg)
	var left []string
	for _, path := range backups(t, cfg) {
		left = append(left, strings.TrimPrefix(path, cfg.Path))
	}
	text := strings.Join(left, " ")
	if len(left) != keptBackups+1 || !strings.Contains(text, "by-hand") || !strings.Contains(text, "20200104") ||
		!strings.Contains(text, "20200103") || strings.Contains(text, "partial") {
		t.Errorf("left are %v, want the %d newest and what is not ours", left, keptBackups)
	}
}

func TestAFileThatAnotherProgramHoldsIsOutOfReachForAsLong(t *testing.T) {
	cfg := Config{Path: filepath.Join(t.TempDir(), "x.db"), busy: 50 * time.Millisecond}
	s := openTest(t, cfg)
	other, err := sql.Open("sqlite", cfg.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	other.SetMaxOpenConns(1)
	if _, err := other.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	if err := putNote(t.Context(), s, "now"); !errors.Is(err, control.ErrUnavailable) || !strings.Contains(err.Error(), "locked") {
		t.Errorf("Write = %v, want ErrUnavailable that says why", err)
	}
	if _, err := other.ExecContext(t.Context(), "COMMIT"); err != nil {
		t.Fatal(err)
	}
	if err := putNote(t.Context(), s, "after"); err != nil {
		t.Error(err)
	}
	wantNote(t, s, "after")
}
