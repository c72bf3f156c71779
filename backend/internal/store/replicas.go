package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"
)

// ErrNotAlone says that processes serve from the same database of which one at
// least cannot hear of what the others write.
var ErrNotAlone = errors.New("another process serves from the same database and one of the two has no wake-up bus: set nats.url for all of them")

const (
	// presenceLock is the number of the advisory lock that all who serve hold: shared
	// with a bus, alone without. ("HTVPsrvd")
	presenceLock = 0x4854565073727664
	// presenceWait is how long a process waits for another one to end: the server
	// notices within it that a machine is gone.
	presenceWait  = 40 * time.Second
	presenceRetry = 500 * time.Millisecond
	presenceCheck = 5 * time.Second
)

// Presence says that a process serves from a database. The database's server
// itself knows how long: the lock goes with the connection, and no clock and no
// leftover of a crash can be wrong about it.
type Presence struct {
	db    *sql.DB // nil: the file's own lock is enough
	take  string
	taken *sql.Conn
	held  atomic.Bool
	log   *slog.Logger
}

// Attend returns the presence of a process that serves: beside others with a bus,
// else alone. It waits for up to 40 s while another process is in the way, as one
// that is being replaced, and then is ErrNotAlone.
func (s *Store) Attend(ctx context.Context, withBus bool) (*Presence, error) {
	p := &Presence{log: s.log}
	server, ok := s.engine.(*postgresEngine)
	if !ok {
		p.held.Store(true)
		return p, nil
	}
	p.db = server.presence()
	p.take = "SELECT pg_try_advisory_lock($1)"
	if withBus {
		p.take = "SELECT pg_try_advisory_lock_shared($1)"
	}
	waiting := false
	for begin := time.Now(); ; {
		err := p.try(ctx)
		if err == nil {
			return p, nil
		}
		if errors.Is(err, ErrNotAlone) && !waiting {
			waiting = true
			s.log.WarnContext(ctx, "waiting for another process to end", "error", err.Error())
		}
		if waiting && ctx.Err() != nil {
			err = ErrNotAlone // what ended the try says nothing
		}
		if !errors.Is(err, ErrNotAlone) || time.Since(begin) > presenceWait || !sleep(ctx, presenceRetry) {
			return nil, errors.Join(s.databaseError(err), p.Close())
		}
	}
}

// try takes the lock on a connection that is kept.
func (p *Presence) try(ctx context.Context) error {
	conn, err := p.db.Conn(ctx)
	if err != nil {
		return err
	}
	var taken bool
	if err = conn.QueryRowContext(ctx, p.take, int64(presenceLock)).Scan(&taken); err == nil && !taken {
		err = ErrNotAlone
	}
	if err != nil {
		return errors.Join(err, conn.Close())
	}
	p.taken = conn
	p.held.Store(true)
	return nil
}

// Keep looks after the presence until ctx ends: after the server was away it is
// taken again. It returns nil.
func (p *Presence) Keep(ctx context.Context) error {
	for p.db != nil && sleep(ctx, presenceCheck) {
		p.check(ctx)
	}
	<-ctx.Done()
	return nil
}

func (p *Presence) check(ctx context.Context) {
	bound, cancel := context.WithTimeout(ctx, presenceCheck)
	defer cancel()
	if p.taken != nil {
		var one int
		if p.taken.QueryRowContext(bound, "SELECT 1").Scan(&one) == nil {
			return
		}
		_ = p.taken.Close() // it is broken
		p.taken = nil
	}
	err := p.try(bound)
	if errors.Is(err, ErrNotAlone) && p.held.Swap(false) {
		p.log.ErrorContext(ctx, "not ready to serve", "error", err.Error())
	}
}

// Check returns ErrNotAlone while the process must not serve.
func (p *Presence) Check() error {
	if !p.held.Load() {
		return ErrNotAlone
	}
	return nil
}

// Close gives the presence up.
func (p *Presence) Close() error {
	if p.db == nil {
		return nil
	}
	var err error
	if p.taken != nil {
		err = p.taken.Close()
	}
	if err := errors.Join(err, p.db.Close()); err != nil {
		return fmt.Errorf("end presence: %w", err)
	}
	return nil
}
