// Package store keeps the control plane's records in SQL. It implements
// control.Store on SQLite: one writing connection, several reading ones, and
// a lock beside the file so that one process at a time has it.
//
// Statements use numbered placeholders and only what PostgreSQL understands as
// well; what differs between engines stays in open.go and engine.go.
package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

// Store is an open database. It is safe for concurrent use.
type Store struct {
	path   string
	writer *sql.DB // one connection: writers queue here instead of failing in SQLite
	reader *sql.DB
	lock   *fileLock
}

var _ control.Store = (*Store)(nil)

// Read implements control.Store.
func (s *Store) Read(ctx context.Context, fn func(context.Context, control.Tx) error) error {
	return s.run(ctx, s.reader, fn)
}

// Write implements control.Store.
func (s *Store) Write(ctx context.Context, fn func(context.Context, control.Tx) error) error {
	return s.run(ctx, s.writer, fn)
}

func (s *Store) run(ctx context.Context, db *sql.DB, fn func(context.Context, control.Tx) error) (err error) {
	conn, err := db.BeginTx(ctx, nil)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer func() {
		// After a commit this does nothing; after an error or a panic it undoes.
		if undo := conn.Rollback(); undo != nil && !errors.Is(undo, sql.ErrTxDone) {
			err = errors.Join(err, fmt.Errorf("roll back: %w", undo))
		}
	}()
	if err := fn(ctx, &tx{conn: conn}); err != nil {
		return err
	}
	if err := conn.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	return nil
}

// Ping reports whether the records can be read and written now.
func (s *Store) Ping(ctx context.Context) error {
	return s.Write(ctx, func(ctx context.Context, t control.Tx) error {
		_, err := t.CountOperators(ctx)
		return err
	})
}

// Close waits for what is running, closes the database and gives up its lock.
func (s *Store) Close() error {
	return errors.Join(s.reader.Close(), s.writer.Close(), s.lock.release())
}

// tx implements control.Tx.
type tx struct {
	conn *sql.Tx
}

var _ control.Tx = (*tx)(nil)

// row is what a scan function reads: *sql.Row or *sql.Rows.
type row interface {
	Scan(dest ...any) error
}

// one returns the single row of query; none is control.ErrNotFound.
func one[T any](ctx context.Context, t *tx, scan func(row) (T, error), query string, args ...any) (T, error) {
	object, err := scan(t.conn.QueryRowContext(ctx, query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return object, control.ErrNotFound
	}
	if err != nil {
		return object, fmt.Errorf("query: %w", err)
	}
	return object, nil
}

// many returns the rows of query.
func many[T any](ctx context.Context, t *tx, scan func(row) (T, error), query string, args ...any) ([]T, error) {
	rows, err := t.conn.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	defer rows.Close() //nolint:errcheck // Err below says what went wrong
	var objects []T
	for rows.Next() {
		object, err := scan(rows)
		if err != nil {
			return nil, fmt.Errorf("query: %w", err)
		}
		objects = append(objects, object)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("query: %w", err)
	}
	return objects, nil
}

// exec runs a statement and returns how many rows it changed. A broken rule of
// uniqueness or reference is a *control.ConflictError that says clash.
func (t *tx) exec(ctx context.Context, clash, query string, args ...any) (int, error) {
	result, err := t.conn.ExecContext(ctx, query, args...)
	if err != nil {
		if clash != "" && isClash(err) {
			return 0, &control.ConflictError{Detail: clash}
		}
		return 0, fmt.Errorf("execute: %w", err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("execute: %w", err)
	}
	return int(n), nil
}

// execOne is exec for a statement about one object, which must exist.
func (t *tx) execOne(ctx context.Context, clash, query string, args ...any) error {
	n, err := t.exec(ctx, clash, query, args...)
	if err == nil && n == 0 {
		return control.ErrNotFound
	}
	return err
}

// execIf is exec for a guarded statement about one object: it reports whether
// the guard held.
func (t *tx) execIf(ctx context.Context, clash, query string, args ...any) (bool, error) {
	n, err := t.exec(ctx, clash, query, args...)
	return n > 0, err
}

// Times are unix microseconds in the database, on every engine.

func micros(t time.Time) int64 { return t.UnixMicro() }

func nullMicros(t *time.Time) sql.Null[int64] {
	if t == nil {
		return sql.Null[int64]{}
	}
	return sql.Null[int64]{V: t.UnixMicro(), Valid: true}
}

// moment scans a column into a time.
type moment struct{ into *time.Time }

// Scan implements sql.Scanner.
func (m moment) Scan(src any) error {
	n, ok := src.(int64)
	if !ok {
		return fmt.Errorf("%T is not a time", src)
	}
	*m.into = time.UnixMicro(n).UTC()
	return nil
}

// maybeMoment scans a column that may be NULL into a time.
type maybeMoment struct{ into **time.Time }

// Scan implements sql.Scanner.
func (m maybeMoment) Scan(src any) error {
	if src == nil {
		*m.into = nil
		return nil
	}
	var t time.Time
	if err := (moment{&t}).Scan(src); err != nil {
		return err
	}
	*m.into = &t
	return nil
}
