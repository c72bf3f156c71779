package store

import (
	"database/sql"
	"fmt"
	"path/filepath"
	"testing"

	"modernc.org/sqlite"
)

// openPrepared returns the only connection of a new database, and how many
// statements it keeps.
func openPrepared(t *testing.T) (conn *sql.Conn, kept func() int) {
	t.Helper()
	connector, err := sqlite.NewConnector(filepath.Join(t.TempDir(), "db"))
	if err != nil {
		t.Fatal(err)
	}
	db := sql.OpenDB(preparing{connector})
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	db.SetMaxOpenConns(1)
	conn, err = db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() }) // gives it back
	return conn, func() (n int) {
		t.Helper()
		if err := conn.Raw(func(c any) error {
			p := c.(*preparedConn) //nolint:forcetypeassert // a panic is a failure, too
			if n = p.order.Len(); n != len(p.idle) {
				t.Errorf("%d statements in order, %d by their query", n, len(p.idle))
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		return n
	}
}

func mustExec(t *testing.T, conn *sql.Conn, query string, args ...any) {
	t.Helper()
	if _, err := conn.ExecContext(t.Context(), query, args...); err != nil {
		t.Fatal(err)
	}
}

func wantKept(t *testing.T, kept func() int, want int) {
	t.Helper()
	if got := kept(); got != want {
		t.Errorf("%d statements are kept, want %d", got, want)
	}
}

func TestAStatementIsPreparedOnce(t *testing.T) {
	conn, kept := openPrepared(t)
	mustExec(t, conn, "CREATE TABLE t (n INTEGER UNIQUE) STRICT")
	for n := range 3 {
		mustExec(t, conn, "INSERT INTO t VALUES ($1)", n)
	}
	for n := range 3 {
		var got int
		if err := conn.QueryRowContext(t.Context(), "SELECT n FROM t WHERE n = $1", n).Scan(&got); err != nil || got != n {
			t.Errorf("row %d: %d, %v", n, got, err)
		}
	}
	wantKept(t, kept, 3)
	if _, err := conn.ExecContext(t.Context(), "INSERT INTO t VALUES ($1)", 1); err == nil {
		t.Error("1 is there twice")
	}
	wantKept(t, kept, 2) // one that failed is not
	mustExec(t, conn, "INSERT INTO t VALUES ($1)", 3)
}

func TestAStatementIsNotSharedWhileItsRowsAreRead(t *testing.T) {
	conn, kept := openPrepared(t)
	mustExec(t, conn, "CREATE TABLE t (n INTEGER) STRICT")
	mustExec(t, conn, "INSERT INTO t VALUES (1), (2), (3)")
	const query = "SELECT n FROM t WHERE n > $1 ORDER BY n"
	read := func(above int, each func(n int)) {
		rows, err := conn.QueryContext(t.Context(), query, above)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		for rows.Next() {
			var n int
			if err := rows.Scan(&n); err != nil {
				t.Fatal(err)
			}
			each(n)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
	}
	var pairs []string
	read(0, func(n int) {
		read(n, func(m int) { pairs = append(pairs, fmt.Sprint(n, m)) })
	})
	if got := fmt.Sprint(pairs); got != "[1 2 1 3 2 3]" {
		t.Errorf("pairs %s", got)
	}
	wantKept(t, kept, 3)
}

func TestAPreparedStatementSeesAnotherSchema(t *testing.T) {
	conn, _ := openPrepared(t)
	mustExec(t, conn, "CREATE TABLE t (n INTEGER) STRICT")
	const query = "SELECT * FROM t"
	columns := func() int {
		rows, err := conn.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		names, err := rows.Columns()
		if err != nil || rows.Err() != nil {
			t.Fatal(err, rows.Err())
		}
		return len(names)
	}
	if n := columns(); n != 1 {
		t.Errorf("%d columns, want 1", n)
	}
	mustExec(t, conn, "ALTER TABLE t ADD COLUMN m INTEGER")
	if n := columns(); n != 2 {
		t.Errorf("%d columns after another was added, want 2", n)
	}
}

func TestAConnectionKeepsABoundedNumberOfStatements(t *testing.T) {
	conn, kept := openPrepared(t)
	for n := range maxPrepared + 10 {
		var got int
		if err := conn.QueryRowContext(t.Context(), fmt.Sprint("SELECT ", n)).Scan(&got); err != nil || got != n {
			t.Fatalf("%d, %v", got, err)
		}
	}
	wantKept(t, kept, maxPrepared)
}
