package store

import (
	"context"
	"database/sql"
)

// pool has connections for so many units of work, which get them in the order in which
// they came. [sql.DB] serves any of those that wait: under load, with as many coming as
// are served, some would wait for seconds.
type pool struct {
	*sql.DB
	places chan struct{} // senders that wait are served first come, first served
}

func newPool(db *sql.DB, connections int) pool {
	db.SetMaxOpenConns(connections)
	return pool{DB: db, places: make(chan struct{}, connections)}
}

// enter waits for the turn of a unit of work and returns what ends it.
func (p pool) enter(ctx context.Context) (leave func(), err error) {
	select {
	case p.places <- struct{}{}:
		return func() { <-p.places }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}
