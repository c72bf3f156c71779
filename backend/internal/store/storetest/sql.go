package storetest

import (
	"database/sql"
	"testing"
)

// SQL opens a database beside the store that has it, for what no store does: the
// SQLite file at path or, when that is not empty, PostgreSQL at url.
func SQL(t *testing.T, path, url string) *sql.DB {
	t.Helper()
	driver, name := "sqlite", path
	if url != "" {
		driver, name = "pgx", url
	}
	db, err := sql.Open(driver, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	return db
}
