package backend

import (
	"context"

	"github.com/httvps/httvps/backend/internal/store"
)

// Migration is a step of the database's schema.
type Migration = store.Migration

// Migrations returns all steps of the schema and whether the database has them.
// It changes nothing. No other process may have the database open.
func Migrations(ctx context.Context, cfg Config) ([]Migration, error) {
	return store.Migrations(ctx, cfg.DatabasePath())
}

// Migrate brings the database's schema up to date and returns the steps that
// this took. No other process may have the database open.
func Migrate(ctx context.Context, cfg Config) ([]Migration, error) {
	return store.Migrate(ctx, cfg.DatabasePath())
}
