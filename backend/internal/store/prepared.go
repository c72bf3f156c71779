package store

import (
	"container/list"
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
)

// maxPrepared bounds the statements that a connection keeps. The service has about
// 200, lists and their filters included; one takes a few KiB.
const maxPrepared = 256

// preparing opens connections that keep their statements prepared. SQLite takes as
// long to compile a statement as to run it, where that touches a few rows.
//
// [database/sql] can only prepare on a connection that is free, and the one that
// writes never is when a unit of work finds out what it has to say. So the driver's
// side does.
type preparing struct{ driver.Connector }

func (p preparing) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := p.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	whole, ok := conn.(sqliteConn)
	if !ok {
		return nil, errors.Join(fmt.Errorf("%T cannot all that a connection has to", conn), conn.Close())
	}
	return &preparedConn{sqliteConn: whole, idle: map[string]*list.Element{}}, nil
}

// sqliteConn is what the driver's connections can, and [database/sql] makes use of.
type sqliteConn interface {
	driver.Conn
	driver.ConnBeginTx
	driver.ConnPrepareContext
	driver.ExecerContext
	driver.QueryerContext
	driver.Pinger
	driver.SessionResetter
	driver.Validator
}

// sqliteStmt is what the driver's statements can.
type sqliteStmt interface {
	driver.Stmt
	driver.StmtExecContext
	driver.StmtQueryContext
}

// preparedConn is a connection with the statements that nobody runs at the moment,
// the one that was used last first. Like every connection it is used by one
// goroutine at a time.
type preparedConn struct {
	sqliteConn
	order list.List // of preparedStmt
	idle  map[string]*list.Element
}

type preparedStmt struct {
	query string
	stmt  sqliteStmt
}

func (c *preparedConn) ExecContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Result, error) {
	s, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	result, err := s.stmt.ExecContext(ctx, args)
	return result, errors.Join(err, c.giveBack(s, err))
}

func (c *preparedConn) QueryContext(ctx context.Context, query string, args []driver.NamedValue) (driver.Rows, error) {
	s, err := c.take(ctx, query)
	if err != nil {
		return nil, err
	}
	rows, err := s.stmt.QueryContext(ctx, args)
	if err != nil {
		return nil, errors.Join(err, c.giveBack(s, err))
	}
	return &preparedRows{Rows: rows, conn: c, stmt: s}, nil
}

// take returns a statement that nobody else has: a query that is run while the rows
// of the same one are read gets a second.
func (c *preparedConn) take(ctx context.Context, query string) (preparedStmt, error) {
	if e := c.idle[query]; e != nil {
		return c.forget(e), nil
	}
	stmt, err := c.PrepareContext(ctx, query)
	if err != nil {
		return preparedStmt{}, err
	}
	whole, ok := stmt.(sqliteStmt)
	if !ok {
		return preparedStmt{}, errors.Join(fmt.Errorf("%T cannot all that a statement has to", stmt), stmt.Close())
	}
	return preparedStmt{query, whole}, nil
}

// giveBack keeps a statement for the next time unless it failed with err.
func (c *preparedConn) giveBack(s preparedStmt, err error) error {
	if err != nil || c.idle[s.query] != nil {
		return s.stmt.Close()
	}
	c.idle[s.query] = c.order.PushFront(s)
	if c.order.Len() <= maxPrepared {
		return nil
	}
	return c.forget(c.order.Back()).stmt.Close()
}

func (c *preparedConn) forget(e *list.Element) preparedStmt {
	s := c.order.Remove(e).(preparedStmt) //nolint:errcheck,forcetypeassert // nothing else is in the list
	delete(c.idle, s.query)
	return s
}

func (c *preparedConn) Close() error {
	var errs []error
	for c.order.Len() > 0 {
		errs = append(errs, c.forget(c.order.Front()).stmt.Close())
	}
	return errors.Join(append(errs, c.sqliteConn.Close())...)
}

// preparedRows gives its statement back at the end.
type preparedRows struct {
	driver.Rows
	conn *preparedConn
	stmt preparedStmt
}

func (r *preparedRows) Close() error {
	if r.conn == nil {
		return nil
	}
	err := r.Rows.Close()
	err = errors.Join(err, r.conn.giveBack(r.stmt, err))
	r.conn = nil
	return err
}
