package store

import (
	"context"
	"database/sql"
	"embed"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"

	"github.com/pressly/goose/v3"
)

//go:embed migrations
var migrations embed.FS

const (
	// applicationID marks our files ("HTVP"), so that no other program's
	// database is ever migrated.
	applicationID = 0x48545650

	magic          = "SQLite format 3\x00"
	applicationPos = 68 // of the application id in the file's header
	readers        = 4
)

var (
	// ErrInUse says that another process has the database open.
	ErrInUse = errors.New("another process is using it")
	// ErrCorrupt says that a file is damaged.
	ErrCorrupt = errors.New("the database is damaged: restore a backup")
	// ErrForeign says that a file is not a database of this program.
	ErrForeign = errors.New("not a database of this service")
	// ErrNewerSchema says that a newer version of this program wrote the database.
	ErrNewerSchema = errors.New("the database is from a newer version of this program")
)

// FileError says which database file cannot be used and why: it wraps one
// of the errors above or the operating system's.
type FileError struct {
	Path string
	Err  error
}

func (e *FileError) Error() string { return "database " + e.Path + ": " + e.Err.Error() }

// Unwrap returns why.
func (e *FileError) Unwrap() error { return e.Err }

// Migration is a step of the schema.
type Migration struct {
	Version int64
	Name    string
	Applied bool
}

// Open opens the database file at path, creating it when there is none, and
// brings its schema up to date. A file that cannot be used is left as it is,
// and the error is a *FileError.
func Open(ctx context.Context, path string) (*Store, error) {
	s, err := open(ctx, path)
	if err != nil {
		return nil, err
	}
	if _, err := s.migrate(ctx); err != nil {
		return nil, errors.Join(s.fileError(err), s.Close())
	}
	return s, nil
}

// Migrate brings the schema of the database at path up to date and returns
// the steps that this took.
func Migrate(ctx context.Context, path string) (applied []Migration, err error) {
	s, err := open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if applied, err = s.migrate(ctx); err != nil {
		return nil, s.fileError(err)
	}
	return applied, nil
}

// Migrations returns all steps of the schema and whether the database at path,
// which must exist, has them. It changes nothing.
func Migrations(ctx context.Context, path string) (all []Migration, err error) {
	if _, err := os.Stat(path); err != nil {
		return nil, &FileError{Path: path, Err: withoutPath(err)}
	}
	s, err := open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	version, err := s.version(ctx)
	if err != nil {
		return nil, s.fileError(err)
	}
	provider, err := s.provider()
	if err != nil {
		return nil, err
	}
	for _, source := range provider.ListSources() {
		all = append(all, Migration{Version: source.Version, Name: filepath.Base(source.Path), Applied: source.Version <= version})
	}
	return all, nil
}

func open(ctx context.Context, path string) (*Store, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, &FileError{Path: path, Err: err}
	}
	if err := inspect(path); err != nil {
		return nil, &FileError{Path: path, Err: err}
	}
	lock, err := acquireLock(path + ".lock")
	if err != nil {
		return nil, &FileError{Path: path, Err: withoutPath(err)}
	}
	s := &Store{path: path, lock: lock}
	if s.writer, err = connect(path, "immediate", "journal_mode(WAL)"); err != nil {
		return nil, errors.Join(s.fileError(err), lock.release())
	}
	if s.reader, err = connect(path, "deferred", "query_only(1)"); err != nil {
		return nil, errors.Join(s.fileError(err), s.writer.Close(), lock.release())
	}
	s.writer.SetMaxOpenConns(1)
	s.reader.SetMaxOpenConns(readers)
	s.reader.SetMaxIdleConns(readers)
	if err := s.check(ctx); err != nil {
		return nil, errors.Join(s.fileError(err), s.Close())
	}
	return s, nil
}

// inspect reads the header of an existing file, before SQLite may touch it.
func inspect(path string) error {
	file, err := os.Open(path) //nolint:gosec // the operator says which file
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return withoutPath(err)
	}
	defer file.Close() //nolint:errcheck // only read
	var header [100]byte
	n, err := io.ReadFull(file, header[:])
	switch {
	case errors.Is(err, io.EOF):
		return nil // empty: SQLite makes it a database
	case err != nil && !errors.Is(err, io.ErrUnexpectedEOF):
		return withoutPath(err)
	case n < len(header) || string(header[:len(magic)]) != magic:
		return fmt.Errorf("%w: it is no SQLite file, or its beginning is damaged", ErrForeign)
	case binary.BigEndian.Uint32(header[applicationPos:]) != applicationID:
		return fmt.Errorf("%w: another program made it", ErrForeign)
	}
	return nil
}

// connect returns a handle whose connections all have the same settings.
func connect(path, lock string, pragmas ...string) (*sql.DB, error) {
	query := url.Values{"_txlock": {lock}}
	pragmas = append([]string{"busy_timeout(10000)"}, pragmas...)
	pragmas = append(pragmas, "foreign_keys(1)", "synchronous(FULL)", "trusted_schema(0)")
	query["_pragma"] = pragmas
	dsn := url.URL{Scheme: "file", Path: path, RawQuery: query.Encode()}
	return sql.Open("sqlite", dsn.String())
}

// check marks a new file as ours and refuses one that is damaged or too new.
func (s *Store) check(ctx context.Context) error {
	info, err := os.Stat(s.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return withoutPath(err)
	}
	if err != nil || info.Size() == 0 {
		return s.create(ctx)
	}
	var verdict string
	if err := s.writer.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return ErrCorrupt
	}
	have, err := s.version(ctx)
	if err != nil {
		return err
	}
	provider, err := s.provider()
	if err != nil {
		return err
	}
	sources := provider.ListSources()
	if want := sources[len(sources)-1].Version; have > want {
		return fmt.Errorf("%w (schema %d, this one knows up to %d)", ErrNewerSchema, have, want)
	}
	return nil
}

// create makes the file with its mark in it before anything else is: a crash
// leaves no file that the next start would take for a stranger's.
func (s *Store) create(ctx context.Context) error {
	file, err := os.OpenFile(s.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return withoutPath(err)
	}
	if err := file.Close(); err != nil {
		return withoutPath(err)
	}
	plain, err := connect(s.path, "immediate", "journal_mode(DELETE)")
	if err != nil {
		return err
	}
	_, err = plain.ExecContext(ctx, "PRAGMA application_id = "+strconv.Itoa(applicationID))
	return errors.Join(err, plain.Close())
}

// version returns the version of the schema, 0 for none, without changing
// anything.
func (s *Store) version(ctx context.Context) (int64, error) {
	var tables int
	const known = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = 'goose_db_version'"
	if err := s.writer.QueryRowContext(ctx, known).Scan(&tables); err != nil || tables == 0 {
		return 0, err
	}
	var version sql.Null[int64]
	err := s.writer.QueryRowContext(ctx, "SELECT MAX(version_id) FROM goose_db_version").Scan(&version)
	return version.V, err
}

func (s *Store) provider() (*goose.Provider, error) {
	dir, err := fs.Sub(migrations, "migrations/sqlite")
	if err != nil {
		return nil, err
	}
	return goose.NewProvider(goose.DialectSQLite3, s.writer, dir, goose.WithDisableGlobalRegistry(true))
}

func (s *Store) migrate(ctx context.Context) ([]Migration, error) {
	provider, err := s.provider()
	if err != nil {
		return nil, err
	}
	results, err := provider.Up(ctx)
	if err != nil {
		return nil, fmt.Errorf("migrate: %w", err)
	}
	var applied []Migration
	for _, r := range results {
		applied = append(applied, Migration{Version: r.Source.Version, Name: filepath.Base(r.Source.Path), Applied: true})
	}
	return applied, nil
}

func (s *Store) fileError(err error) error {
	if isCorrupt(err) {
		err = fmt.Errorf("%w (%w)", ErrCorrupt, err)
	}
	return &FileError{Path: s.path, Err: err}
}

// withoutPath returns the operating system's own words: FileError names the file.
func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
