package store

import (
	"context"
	"database/sql"
)

// access says what may be done to a database.
type access int

const (
	look   access = iota // nothing, and others may be using it
	use                  // anything, but it must exist
	ensure               // anything
)

// engine is what differs between SQLite and PostgreSQL.
type engine interface {
	// name says which database it is, without credentials.
	name() string
	dialect() dialect
	// connect opens the database, having looked at it as far as needed to know
	// that it may be used.
	connect(ctx context.Context, a access) (pools, error)
	// steps are those of the schema, in their order.
	steps() ([]Migration, error)
	// version returns that of the schema, 0 for none, without changing anything.
	version(ctx context.Context, q queryer) (int64, error)
	// backUp copies a database before its schema is changed and returns where to,
	// or nothing where the engine has its own means.
	backUp(ctx context.Context, p pools, version int64) (string, error)
	// up applies the steps that are missing up to a version and returns them; of several
	// processes one does.
	up(ctx context.Context, p pools, version int64) ([]Migration, error)
	// apply applies a step in a unit of work, and notes that it did.
	apply(ctx context.Context, unit statements, step Migration) error
	// judge says what an error means.
	judge(err error) verdict
}

// queryer is a pool, a connection or a transaction.
type queryer interface {
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// verdict is what an engine's error means.
type verdict int

const (
	other   verdict = iota
	clash           // a rule of uniqueness or reference would be broken
	crowded         // others were in the way: the same unit of work may succeed when it runs again
	away            // the database cannot be used at the moment, whatever was asked
	moved           // the same, because the server is no longer the one that takes writes
	full            // there is no room to write; what is there can be read
	corrupt         // the database is damaged
)

// dialect is the SQL that differs.
type dialect struct {
	// fold is the name of a row in small letters, as far as ASCII has them, in the
	// order of its bytes.
	fold string
	// bytes is the type of byte strings, for casts.
	bytes string
	// hold ends the SELECT of one row that the unit of work then rests on: until
	// it ends, nobody else changes the row.
	hold string
	// skip ends the SELECT of rows that are to be changed and leaves out those that
	// somebody else is changing.
	skip string
	// turn waits for everybody else with the same number $1 and keeps them waiting
	// until the unit of work ends. Empty where all that write do that anyway.
	turn string
	// takeTime lifts the server's bound on statements until the unit of work ends.
	// Empty where there is none.
	takeTime string
	// takeRoom takes room that no table has yet, some hundred KiB, and gives it back;
	// each statement is a unit of work.
	takeRoom []string
}

// pools are an open database.
type pools struct {
	writer  pool
	reader  pool           // may be the same
	reading *sql.TxOptions // of units of work that only read
	renew   func()         // gives up idle connections, which lead nowhere any more; nil: there are none
	close   func() error
}
