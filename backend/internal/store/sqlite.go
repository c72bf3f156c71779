package store

import (
	"cmp"
	"context"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/pressly/goose/v3"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

const (
	// applicationID marks our files ("HTVP"), so that no other program's
	// database is ever migrated.
	applicationID = 0x48545650

	magic          = "SQLite format 3\x00"
	applicationPos = 68 // of the application id in the file's header
	readers        = 4
	defaultBusy    = 10 * time.Second

	sqliteVersions = "goose_db_version" // the table of the schema's versions
)

// sqliteEngine keeps everything in one file.
type sqliteEngine struct {
	path string
	dir  fs.FS
	busy time.Duration
}

func newSQLite(c Config, steps fs.FS) (*sqliteEngine, error) {
	path, err := filepath.Abs(c.Path)
	if err != nil {
		return nil, &DatabaseError{Database: c.Path, Err: err}
	}
	dir, err := fs.Sub(steps, "sqlite")
	return &sqliteEngine{path: path, dir: dir, busy: cmp.Or(c.busy, defaultBusy)}, err
}

func (e *sqliteEngine) name() string { return e.path }

// Units of work that write wait for each other, and so need nothing else.
func (e *sqliteEngine) dialect() dialect {
	return dialect{bytes: "BLOB", fold: "lower(name)", takeRoom: []string{
		"INSERT INTO settings (name, value) VALUES ('room', hex(randomblob(65536))) ON CONFLICT (name) DO UPDATE SET value = excluded.value",
		"DELETE FROM settings WHERE name = 'room'", // leaves its pages to all tables
	}}
}

func (e *sqliteEngine) steps() ([]Migration, error) { return readSteps(e.dir) }

func (e *sqliteEngine) connect(ctx context.Context, wanted access) (pools, error) {
	if wanted != ensure {
		if _, err := os.Stat(e.path); err != nil {
			return pools{}, withoutPath(err)
		}
	}
	if err := e.inspect(); err != nil {
		return pools{}, err
	}
	if wanted == look {
		return e.look(ctx)
	}
	lock, err := acquireLock(e.path+".lock", true)
	if err != nil {
		return pools{}, withoutPath(err)
	}
	p := pools{}
	// Writers queue for the one connection instead of failing in SQLite.
	if p.writer, err = e.open("rw", "immediate", 1, "journal_mode(WAL)"); err != nil {
		return pools{}, errors.Join(err, lock.release())
	}
	if p.reader, err = e.open("rw", "deferred", readers, "query_only(1)"); err != nil {
		return pools{}, errors.Join(err, p.writer.Close(), lock.release())
	}
	p.reader.SetMaxIdleConns(readers)
	p.close = func() error { return errors.Join(p.reader.Close(), p.writer.Close(), lock.release()) }
	if err := e.check(ctx, p.writer.DB); err != nil {
		return pools{}, errors.Join(err, p.close())
	}
	return p, nil
}

// look opens the file so that nothing is changed in it or beside it.
func (e *sqliteEngine) look(ctx context.Context) (pools, error) {
	lock, err := acquireLock(e.path+".lock", false)
	if err != nil && !errors.Is(err, ErrInUse) && !errors.Is(err, fs.ErrNotExist) {
		return pools{}, withoutPath(err)
	}
	mode := "ro"
	if _, err := os.Stat(e.path + "-wal"); lock != nil && errors.Is(err, fs.ErrNotExist) {
		mode = "ro&immutable=1" // or SQLite would make the files that belong to an open database
	}
	p := pools{close: func() error { return lock.release() }}
	if p.writer, err = e.open(mode, "deferred", readers, "query_only(1)"); err != nil {
		return pools{}, errors.Join(err, lock.release())
	}
	p.reader = p.writer
	p.close = func() error { return errors.Join(p.writer.Close(), lock.release()) }
	if err := quickCheck(ctx, p.reader.DB); err != nil {
		return pools{}, errors.Join(err, p.close())
	}
	return p, nil
}

// inspect reads the header of an existing file, before SQLite may touch it.
func (e *sqliteEngine) inspect() error {
	file, err := os.Open(e.path)
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

// open returns a handle whose connections all have the same settings. The mode
// is rw, or ro with what else the file's URI is to say.
func (e *sqliteEngine) open(mode, lock string, connections int, pragmas ...string) (pool, error) {
	query := url.Values{"_txlock": {lock}}
	pragmas = append([]string{fmt.Sprintf("busy_timeout(%d)", e.busy.Milliseconds())}, pragmas...)
	// What is deleted or replaced is overwritten: a copy of the file has nothing that
	// was sealed with a key from before.
	pragmas = append(pragmas, "foreign_keys(1)", "synchronous(FULL)", "trusted_schema(0)", "secure_delete(1)")
	query["_pragma"] = pragmas
	dsn := url.URL{Scheme: "file", Path: e.path, RawQuery: query.Encode() + "&mode=" + mode}
	connector, err := sqlite.NewConnector(dsn.String())
	if err != nil {
		return pool{}, err
	}
	return newPool(sql.OpenDB(preparing{connector}), connections), nil
}

// check marks a new file as ours and refuses one that is damaged.
func (e *sqliteEngine) check(ctx context.Context, db *sql.DB) error {
	info, err := os.Stat(e.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return withoutPath(err)
	}
	if err != nil || info.Size() == 0 {
		return e.create(ctx)
	}
	return quickCheck(ctx, db)
}

func quickCheck(ctx context.Context, db *sql.DB) error {
	var verdict string
	if err := db.QueryRowContext(ctx, "PRAGMA quick_check(1)").Scan(&verdict); err != nil {
		return err
	}
	if verdict != "ok" {
		return ErrCorrupt
	}
	return nil
}

// create makes the file with its mark in it before anything else is: a crash
// leaves no file that the next start would take for a stranger's.
func (e *sqliteEngine) create(ctx context.Context) error {
	file, err := os.OpenFile(e.path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return withoutPath(err)
	}
	if err := file.Close(); err != nil {
		return withoutPath(err)
	}
	plain, err := e.open("rw", "immediate", 1, "journal_mode(DELETE)")
	if err != nil {
		return err
	}
	_, err = plain.ExecContext(ctx, "PRAGMA application_id = "+strconv.Itoa(applicationID))
	return errors.Join(err, plain.Close())
}

func (e *sqliteEngine) version(ctx context.Context, q queryer) (int64, error) {
	var tables int
	const known = "SELECT COUNT(*) FROM sqlite_master WHERE type = 'table' AND name = '" + sqliteVersions + "'"
	if err := q.QueryRowContext(ctx, known).Scan(&tables); err != nil || tables == 0 {
		return 0, err
	}
	return latest(ctx, q, sqliteVersions)
}

func (e *sqliteEngine) up(ctx context.Context, p pools, version int64) ([]Migration, error) {
	provider, err := goose.NewProvider(goose.DialectSQLite3, p.writer.DB, e.dir, goose.WithDisableGlobalRegistry(true))
	if err != nil {
		return nil, err
	}
	results, err := provider.UpTo(ctx, version)
	return applied(results), err
}

func (e *sqliteEngine) apply(ctx context.Context, unit statements, step Migration) error {
	return applyStep(ctx, unit, step, sqliteVersions)
}

func (e *sqliteEngine) judge(err error) verdict {
	var failure *sqlite.Error
	if !errors.As(err, &failure) {
		return other
	}
	switch failure.Code() {
	case sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE: // the file that readers and writers share needs room, too
		return full
	case sqlite3.SQLITE_CONSTRAINT_UNIQUE, sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY, sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY,
		sqlite3.SQLITE_CONSTRAINT_TRIGGER: // how SQLite reports ON DELETE RESTRICT
		return clash
	}
	switch failure.Code() & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		return corrupt
	case sqlite3.SQLITE_IOERR, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN,
		sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED: // another program holds the file
		return away
	}
	return other
}

// withoutPath returns the operating system's own words: DatabaseError names the
// file.
func withoutPath(err error) error {
	if pathErr, ok := errors.AsType[*fs.PathError](err); ok {
		return pathErr.Err
	}
	return err
}
