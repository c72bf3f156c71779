// Package store keeps the control plane's records in SQL. It implements
// control.Store on SQLite, where one process has one writing connection and
// several reading ones, and on PostgreSQL, which several processes may use.
//
// Statements use numbered placeholders and only what both engines understand;
// what differs is in engine.go and in a file for each engine. A unit of work that
// writes may rest on what it read: SQLite lets one run at a time, and on
// PostgreSQL looking an object up by its key holds it.
package store

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync/atomic"
	"time"
	"unicode/utf8"

	"github.com/httvps/httvps/backend/internal/control"
)

// Store is an open database. It is safe for concurrent use.
type Store struct {
	pools
	engine   engine
	log      *slog.Logger
	appended func() // called when there are new events; may be nil

	newestStep int64       // the version of the schema that this program has
	ownSchema  bool        // it cannot run on another one
	toldNewer  atomic.Bool // the log knows that there is a newer one
	noRoom     atomic.Bool // a writer found no room, or it is not known yet: Ping takes some

	overhear func(statements) statements // stands between units of work and the database; nil: nobody
}

var _ control.Store = (*Store)(nil)

// Read implements control.Store.
func (s *Store) Read(ctx context.Context, fn func(context.Context, control.Tx) error) error {
	d := s.engine.dialect()
	return s.run(ctx, s.reader, s.reading, dialect{bytes: d.bytes, fold: d.fold, takeTime: d.takeTime}, fn)
}

// Write implements control.Store.
func (s *Store) Write(ctx context.Context, fn func(context.Context, control.Tx) error) error {
	return s.run(ctx, s.writer, nil, s.engine.dialect(), fn)
}

const (
	// maxRuns of a unit of work that others are in the way of; the pauses between
	// them add up to a second or two.
	maxRuns    = 10
	firstPause = 5 * time.Millisecond
	maxPause   = 400 * time.Millisecond
)

// run runs a unit of work, again when others were in its way. An error that says
// that the database is out of reach is control.ErrUnavailable, or ErrStorageFull.
func (s *Store) run(
	ctx context.Context, db pool, opts *sql.TxOptions, d dialect, fn func(context.Context, control.Tx) error,
) error {
	for runs, pause := 1, firstPause; ; runs, pause = runs+1, min(2*pause, maxPause) {
		err := s.runOnce(ctx, db, opts, d, fn)
		if err == nil || ctx.Err() != nil {
			return err
		}
		switch s.engine.judge(err) {
		case moved:
			s.renew()
			return fmt.Errorf("%w: %w", control.ErrUnavailable, err)
		case away:
			return fmt.Errorf("%w: %w", control.ErrUnavailable, err)
		case full:
			s.noRoom.Store(true)
			return fmt.Errorf("%w: %w", control.ErrStorageFull, err)
		case crowded:
			if runs == maxRuns {
				return fmt.Errorf("%w: given up after %d runs: %w", control.ErrUnavailable, runs, err)
			}
		default:
			if !errors.Is(err, errOvertaken) || runs == maxRuns {
				return err
			}
		}
		if !sleep(ctx, pause/2+rand.N(pause)) { //nolint:gosec // only spreads callers
			return err
		}
	}
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

func (s *Store) runOnce(
	ctx context.Context, db pool, opts *sql.TxOptions, d dialect, fn func(context.Context, control.Tx) error,
) (err error) {
	leave, err := db.enter(ctx)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer leave()
	conn, err := s.begin(ctx, db, opts)
	if err != nil {
		return fmt.Errorf("begin transaction: %w", err)
	}
	defer func() {
		// After a commit this does nothing; after an error or a panic it undoes.
		if undo := conn.Rollback(); undo != nil && !errors.Is(undo, sql.ErrTxDone) {
			err = errors.Join(err, fmt.Errorf("roll back: %w", undo))
		}
	}()
	unit := &tx{conn: conn, sql: d, engine: s.engine}
	if s.overhear != nil {
		unit.conn = s.overhear(conn)
	}
	if err := fn(ctx, unit); err != nil {
		return err
	}
	if err := unit.writeEvents(ctx); err != nil {
		return err
	}
	if err := conn.Commit(); err != nil {
		return fmt.Errorf("commit: %w", err)
	}
	if len(unit.events) > 0 && s.appended != nil {
		s.appended()
	}
	return nil
}

// begin begins a transaction. A connection that broke unnoticed, as all do when
// the server starts again, is no reason to fail: nothing has been asked for yet.
func (s *Store) begin(ctx context.Context, db pool, opts *sql.TxOptions) (*sql.Tx, error) {
	conn, err := db.BeginTx(ctx, opts)
	if err == nil || s.renew == nil || ctx.Err() != nil || s.engine.judge(err) != away {
		return conn, err
	}
	s.renew()
	return db.BeginTx(ctx, opts)
}

// Ping reports whether the records can be read and written now, and still are what
// this program knows. It writes: a full disk lets everything else pass.
func (s *Store) Ping(ctx context.Context) error {
	if err := s.checkSchema(ctx); err != nil {
		return err
	}
	err := s.Write(ctx, func(ctx context.Context, t control.Tx) error {
		return t.PutSetting(ctx, settingPing, time.Now().UTC().Format(time.RFC3339Nano))
	})
	if err != nil || !s.noRoom.Load() {
		return err
	}
	// That may find room where others find none: now it takes some.
	for _, statement := range s.engine.dialect().takeRoom {
		err := s.run(ctx, s.writer, nil, dialect{}, func(ctx context.Context, t control.Tx) error {
			unit, ok := t.(*tx)
			if !ok {
				return errOtherUnit
			}
			_, err := unit.exec(ctx, "", statement)
			return err
		})
		if errors.Is(err, control.ErrUnavailable) {
			return err
		}
	}
	s.noRoom.Store(false)
	return nil
}

// settingPing is when Ping last wrote.
const settingPing = "last_ping"

// errOtherUnit says that a unit of work is not one of this package.
var errOtherUnit = errors.New("another unit of work")

// Close waits for what is running, and closes the database.
func (s *Store) Close() error { return s.close() }

// statements runs SQL: a transaction does.
type statements interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// tx implements control.Tx.
type tx struct {
	conn   statements
	sql    dialect // without what holds when the unit of work only reads
	engine engine
	events []control.Event // not written yet
}

var _ control.Tx = (*tx)(nil)

// held ends the SELECT of a row of table that the unit of work then rests on.
func (t *tx) held(table string) string {
	if t.sql.hold == "" {
		return ""
	}
	return t.sql.hold + table
}

// unheld ends the SELECT of rows of table that are to be changed.
func (t *tx) unheld(table string) string {
	return strings.ReplaceAll(t.sql.skip, "%s", table)
}

// turn waits until no other unit of work has the turn called name, and takes it.
func (t *tx) turn(ctx context.Context, name string) error {
	if t.sql.turn == "" {
		return nil
	}
	sum := sha256.Sum256([]byte(name))
	number := int64(binary.BigEndian.Uint64(sum[:]))
	if _, err := t.conn.ExecContext(ctx, t.sql.turn, number); err != nil {
		return fmt.Errorf("take turn: %w", err)
	}
	return nil
}

// TakeTime implements control.Tx.
func (t *tx) TakeTime(ctx context.Context) error {
	if t.sql.takeTime == "" {
		return nil
	}
	_, err := t.exec(ctx, "", t.sql.takeTime)
	return err
}

// LockService implements control.Tx.
func (t *tx) LockService(ctx context.Context) error { return t.turn(ctx, "service") }

// errOvertaken says that a row appeared after the unit of work had looked for
// it. When it runs again, it finds it.
var errOvertaken = errors.New("overtaken by another")

// errNoText says that a text cannot be kept, nor be found: PostgreSQL knows no
// zero bytes and nothing but UTF-8, and so neither do we.
var errNoText = errors.New("not a text")

func keepable(args []any) bool {
	for _, arg := range args {
		if text, ok := arg.(string); ok && (strings.ContainsRune(text, 0) || !utf8.ValidString(text)) {
			return false
		}
	}
	return true
}

// row is what a scan function reads: *sql.Row or *sql.Rows.
type row interface {
	Scan(dest ...any) error
}

// one returns the single row of query; none is control.ErrNotFound.
func one[T any](ctx context.Context, t *tx, scan func(row) (T, error), query string, args ...any) (T, error) {
	var none T
	if !keepable(args) {
		return none, control.ErrNotFound
	}
	object, err := scan(t.conn.QueryRowContext(ctx, query, args...))
	if errors.Is(err, sql.ErrNoRows) {
		return none, control.ErrNotFound
	}
	if err != nil {
		return object, fmt.Errorf("query: %w", err)
	}
	return object, nil
}

// many returns the rows of query.
func many[T any](ctx context.Context, t *tx, scan func(row) (T, error), query string, args ...any) ([]T, error) {
	if !keepable(args) {
		return nil, nil
	}
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

// part returns the rows of a part of a list.
func part[T any](ctx context.Context, t *tx, scan func(row) (T, error), l *listing, page control.Page) ([]T, error) {
	query, args := l.query(page.Limit)
	return many(ctx, t, scan, query, args...)
}

// exec runs a statement and returns how many rows it changed. A broken rule of
// uniqueness or reference is a *control.ConflictError that says conflict.
func (t *tx) exec(ctx context.Context, conflict, query string, args ...any) (int, error) {
	if !keepable(args) {
		return 0, fmt.Errorf("execute: %w", errNoText)
	}
	result, err := t.conn.ExecContext(ctx, query, args...)
	switch {
	case err == nil:
	case t.engine.judge(err) != clash:
		return 0, fmt.Errorf("execute: %w", err)
	case conflict != "":
		return 0, &control.ConflictError{Detail: conflict}
	default:
		return 0, fmt.Errorf("execute: %w: %w", errOvertaken, err)
	}
	n, err := result.RowsAffected()
	if err != nil {
		return 0, fmt.Errorf("execute: %w", err)
	}
	return int(n), nil
}

// execOne is exec for a statement about one object, which must exist.
func (t *tx) execOne(ctx context.Context, conflict, query string, args ...any) error {
	n, err := t.exec(ctx, conflict, query, args...)
	if err == nil && n == 0 || errors.Is(err, errNoText) {
		return control.ErrNotFound
	}
	return err
}

// execIf is exec for a guarded statement about one object: it reports whether
// the guard held.
func (t *tx) execIf(ctx context.Context, conflict, query string, args ...any) (bool, error) {
	n, err := t.exec(ctx, conflict, query, args...)
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
