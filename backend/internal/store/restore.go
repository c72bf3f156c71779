package store

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

// ErrNotEmpty says that a backup was to be restored where there are records already.
var ErrNotEmpty = errors.New("there is a service in it already: a backup is restored into an empty database")

// errOtherSchema says that tables that are there, and empty, are not those of the backup.
var errOtherSchema = errors.New("its tables are there, of another version than the backup's: want a database without tables")

// CheckEmpty returns ErrNotEmpty, or why else the database cannot take a backup with
// a version of the schema. It changes nothing; one that is not there is empty.
func CheckEmpty(ctx context.Context, cfg Config, schema int64) (err error) {
	s, err := open(ctx, cfg, look)
	if errors.Is(err, fs.ErrNotExist) {
		engine, err := cfg.engine()
		if err != nil {
			return err
		}
		return knowsSchema(engine, schema)
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.checkEmpty(ctx, schema); err != nil {
		return s.databaseError(err)
	}
	return nil
}

// knowsSchema refuses a schema that the program has never had.
func knowsSchema(e engine, schema int64) error {
	steps, err := e.steps()
	if err != nil {
		return err
	}
	newest := steps[len(steps)-1].Version
	switch {
	case schema > newest:
		return fmt.Errorf("%w: restore it with that one (schema %d, this one has %d)", ErrNewerSchema, schema, newest)
	case !slices.ContainsFunc(steps, func(m Migration) bool { return m.Version == schema }):
		return fmt.Errorf("schema %d is none of this program's", schema)
	}
	return nil
}

func (s *Store) checkEmpty(ctx context.Context, schema int64) error {
	if err := knowsSchema(s.engine, schema); err != nil {
		return err
	}
	return s.Read(ctx, func(ctx context.Context, t control.Tx) error {
		unit, ok := t.(*tx)
		if !ok {
			return errOtherUnit
		}
		have, err := s.engine.version(ctx, unit.conn)
		if err != nil || have == 0 {
			return err
		}
		if err := unit.checkEmpty(ctx, have); err != nil {
			return err
		}
		if have != schema {
			return errOtherSchema
		}
		return nil
	})
}

// checkEmpty refuses tables that have more than the schema's own rows.
func (t *tx) checkEmpty(ctx context.Context, schema int64) error {
	counts, err := t.counts(ctx, schema)
	if err != nil {
		return err
	}
	for _, table := range dumpedTables {
		if !table.seeded && counts[table.name] > 0 {
			return ErrNotEmpty
		}
	}
	_, err = t.Setting(ctx, settingServiceID)
	switch {
	case err == nil:
		return ErrNotEmpty
	case errors.Is(err, control.ErrNotFound):
		return nil
	default:
		return err
	}
}

// settingServiceID is what every service has from its first start.
const settingServiceID = "service_id"

// Restore fills the database, which must be empty, with rows of a version of the schema,
// brings that up to date, and calls finish: all of that is one unit of work, after
// which everything is there or, on an error, nothing. load gives the rows, in the order
// in which Dump gave them.
func Restore(
	ctx context.Context, cfg Config, schema int64, load func(ctx context.Context, rows Rows) error, finish func(ctx context.Context, t control.Tx) error,
) (err error) {
	s, err := open(ctx, cfg, ensure)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if err := s.restore(ctx, schema, load, finish); err != nil {
		return s.databaseError(err)
	}
	return nil
}

func (s *Store) restore(
	ctx context.Context, schema int64, load func(ctx context.Context, rows Rows) error, finish func(ctx context.Context, t control.Tx) error,
) error {
	if err := s.checkEmpty(ctx, schema); err != nil {
		return err
	}
	if _, err := s.engine.up(ctx, s.pools, schema); err != nil { // empty tables
		return fmt.Errorf("make the schema: %w", err)
	}
	steps, err := s.engine.steps()
	if err != nil {
		return err
	}
	return s.runOnce(ctx, s.writer, nil, s.engine.dialect(), func(ctx context.Context, t control.Tx) error {
		unit, ok := t.(*tx)
		if !ok {
			return errOtherUnit
		}
		if err := unit.TakeTime(ctx); err != nil {
			return err
		}
		if err := unit.LockService(ctx); err != nil {
			return err
		}
		if err := unit.checkEmpty(ctx, schema); err != nil { // somebody may have been faster
			return err
		}
		for _, table := range slices.Backward(dumpedTables) { // the schema's own rows
			if table.since <= schema {
				if _, err := unit.exec(ctx, "", "DELETE FROM "+table.name); err != nil {
					return err
				}
			}
		}
		rows := &filling{ctx: ctx, unit: unit, schema: schema, put: make(map[string]int64)}
		if err := load(ctx, rows); err != nil {
			return err
		}
		if err := rows.end(); err != nil {
			return err
		}
		for _, step := range steps {
			if step.Version > schema {
				if err := s.engine.apply(ctx, unit.conn, step); err != nil {
					return fmt.Errorf("update the schema: %s: %w", step.Name, err)
				}
			}
		}
		return finish(ctx, t)
	})
}

// fillBatch is how many rows go in one statement.
const fillBatch = 100

// filling puts rows into tables.
type filling struct {
	ctx    context.Context //nolint:containedctx // of the unit of work, which ends with it
	unit   *tx
	schema int64

	table   string
	into    string // up to VALUES
	columns int
	values  []any            // of rows that are not written yet
	put     map[string]int64 // how many rows were put into each table
}

// Begin implements Rows. Names become part of statements, so they are looked up.
func (f *filling) Begin(table string, columns []string) error {
	if err := f.flush(); err != nil {
		return err
	}
	known := slices.ContainsFunc(dumpedTables, func(d dumped) bool { return d.name == table && d.since <= f.schema })
	if !known {
		return fmt.Errorf("table %q: %w", table, errUnknownColumn)
	}
	found, err := f.unit.conn.QueryContext(f.ctx, "SELECT * FROM "+table+" WHERE 1 = 0")
	if err != nil {
		return err
	}
	there, err := found.Columns()
	if err := errors.Join(err, found.Err(), found.Close()); err != nil { //nolint:sqlclosecheck // the next statement needs the connection
		return err
	}
	for i, column := range columns {
		if !slices.Contains(there, column) || slices.Contains(columns[:i], column) {
			return fmt.Errorf("column %q of table %s: %w", column, table, errUnknownColumn)
		}
	}
	if len(columns) != len(there) {
		return fmt.Errorf("table %s has %d columns, the backup %d", table, len(there), len(columns))
	}
	f.table = table
	f.into = "INSERT INTO " + table + " (" + strings.Join(columns, ", ") + ") VALUES "
	f.columns = len(columns)
	return nil
}

// Row implements Rows.
func (f *filling) Row(values []any) error {
	if f.columns == 0 || len(values) != f.columns {
		return fmt.Errorf("a row has %d values, want %d", len(values), f.columns)
	}
	f.put[f.table]++
	f.values = append(f.values, values...)
	if len(f.values) < fillBatch*f.columns {
		return nil
	}
	return f.flush()
}

func (f *filling) flush() error {
	if len(f.values) == 0 {
		return nil
	}
	var text strings.Builder
	text.WriteString(f.into)
	for i := range f.values {
		switch {
		case i == 0:
			text.WriteString("(")
		case i%f.columns == 0:
			text.WriteString("), (")
		default:
			text.WriteString(", ")
		}
		fmt.Fprintf(&text, "$%d", i+1)
	}
	text.WriteString(")")
	_, err := f.unit.exec(f.ctx, "the backup contradicts itself: rows clash, or refer to others that it lacks", text.String(), f.values...)
	f.values = f.values[:0]
	return err
}

// end writes what is left, and looks whether each table has the rows that were put into
// it and no others.
func (f *filling) end() error {
	if err := f.flush(); err != nil {
		return err
	}
	counts, err := f.unit.counts(f.ctx, f.schema)
	if err != nil {
		return err
	}
	for table, have := range counts {
		if have != f.put[table] {
			return fmt.Errorf("table %s has %d rows after %d were put into it", table, have, f.put[table])
		}
	}
	return nil
}

// SettleRestored implements control.Tx.
func (t *tx) SettleRestored(ctx context.Context, madeAt, now time.Time) error {
	const eventJump = 1 << 20 // more than any log gives out within a clock's error
	for _, change := range []struct {
		query string
		args  []any
	}{
		{"UPDATE sessions SET ended_at = $1, end_reason = 'gateway_lost' WHERE ended_at IS NULL", []any{micros(madeAt)}},
		{"UPDATE gateways SET lease_until = NULL, sessions = 0, streams = 0, leaving = 0", nil},
		{"UPDATE gateways SET join_expires_at = $1 WHERE joined_at IS NULL AND join_expires_at > $1", []any{micros(madeAt)}},
		{"DELETE FROM invitations WHERE used_at IS NULL", nil},
		{"UPDATE event_log SET latest = CASE WHEN latest + $1 > $2 THEN latest + $1 ELSE $2 END", []any{int64(eventJump), micros(now)}},
		{"UPDATE event_log SET low = latest", nil},
	} {
		if _, err := t.exec(ctx, "", change.query, change.args...); err != nil {
			return err
		}
	}
	return nil
}
