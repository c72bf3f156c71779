package store

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"time"
)

//go:embed migrations
var migrations embed.FS

var (
	// ErrInUse says that another process has the database open.
	ErrInUse = errors.New("another process is using it: stop that first")
	// ErrCorrupt says that a database is damaged.
	ErrCorrupt = errors.New("the database is damaged: restore a backup")
	// ErrForeign says that something is not a database of this program.
	ErrForeign = errors.New("not a database of this service")
	// ErrNewerSchema says that a newer version of this program changed the database
	// so that this one cannot use it.
	ErrNewerSchema = errors.New("the database is from a newer version of this program")
	// ErrNoService says that a database is empty where a service was expected.
	ErrNoService = errors.New("there is no service in it")
	// ErrNoRoom says that the disk cannot take the backup that precedes an update
	// of the schema.
	ErrNoRoom = errors.New("no room for a backup before the schema is updated")
	// ErrUnsuitable says that a server, or an account on it, cannot be used.
	ErrUnsuitable = errors.New("not usable")
)

// DatabaseError says which database cannot be used and why: it wraps one of the
// errors above, the operating system's or the server's.
type DatabaseError struct {
	Database string // a file's path, or a server's address without credentials
	Err      error
}

func (e *DatabaseError) Error() string { return "database " + e.Database + ": " + e.Err.Error() }

// Unwrap returns why.
func (e *DatabaseError) Unwrap() error { return e.Err }

// Config says where a database is: one of Path and URL is set.
type Config struct {
	// Path is that of an SQLite file.
	Path string
	// URL is that of a PostgreSQL database (postgres://…). It is a secret that no
	// error repeats.
	URL string
	// MaxConnections bounds the connections to PostgreSQL; 0 means 10. SQLite
	// leaves no choice.
	MaxConnections int
	// MustExist makes Open refuse a database without a service (ErrNoService,
	// fs.ErrNotExist) instead of making one.
	MustExist bool
	// OwnSchema refuses a newer schema even when it says that this program can run
	// on it: for work that must know all that the database holds.
	OwnSchema bool
	// Appended is called after each unit of work that wrote events, by whoever ran
	// it: it must not block. nil: nobody wants to know.
	Appended func()
	// Log learns when the schema was updated and where the backup is; nil
	// discards it.
	Log *slog.Logger

	steps fs.FS         // of the schema, in a folder for each engine; nil: ours
	busy  time.Duration // how long SQLite waits for another program's lock; 0: 10 s
}

// engine returns what knows the configured database.
func (c Config) engine() (engine, error) {
	steps := c.steps
	if steps == nil {
		var err error
		if steps, err = fs.Sub(migrations, "migrations"); err != nil {
			return nil, err
		}
	}
	if c.URL != "" {
		return newPostgres(c, steps)
	}
	return newSQLite(c, steps)
}

// Open opens the database, makes it when there is none, and brings its schema
// up to date; an SQLite file is backed up before that. A newer schema that this
// program can run on stays as it is. A database that cannot be used is left as it
// is, and the error is a *DatabaseError.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	wanted := ensure
	if cfg.MustExist {
		wanted = use
	}
	s, err := open(ctx, cfg, wanted)
	if err != nil {
		return nil, err
	}
	if _, err = s.migrate(ctx); err == nil {
		err = s.checkSchema(ctx)
	}
	if err != nil {
		return nil, errors.Join(s.databaseError(err), s.Close())
	}
	return s, nil
}

// Look opens the database, which must have a service in it, only to read it.
// Others may be using it, and its schema may be another version's.
func Look(ctx context.Context, cfg Config) (*Store, error) {
	s, err := open(ctx, cfg, look)
	if err != nil {
		return nil, err
	}
	have, err := s.engine.version(ctx, s.reader)
	if err == nil && have == 0 {
		err = ErrNoService
	}
	if err != nil {
		return nil, errors.Join(s.databaseError(err), s.Close())
	}
	return s, nil
}

// open opens a database that this program may use; its schema may be behind.
func open(ctx context.Context, cfg Config, wanted access) (*Store, error) {
	engine, err := cfg.engine()
	if err != nil {
		return nil, err
	}
	s := &Store{engine: engine, log: cfg.Log, appended: cfg.Appended, ownSchema: cfg.OwnSchema}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	steps, err := engine.steps()
	if err != nil {
		return nil, err
	}
	s.noRoom.Store(true)
	s.newestStep = steps[len(steps)-1].Version
	if s.pools, err = engine.connect(ctx, wanted); err != nil {
		return nil, s.databaseError(err)
	}
	have, _, err := s.versions(ctx)
	if err == nil && have == 0 && wanted == use {
		err = ErrNoService
	}
	if err != nil {
		return nil, errors.Join(s.databaseError(err), s.Close())
	}
	return s, nil
}

func (s *Store) databaseError(err error) error {
	if s.engine.judge(err) == corrupt {
		err = fmt.Errorf("%w (%w)", ErrCorrupt, err)
	}
	return &DatabaseError{Database: s.engine.name(), Err: err}
}
