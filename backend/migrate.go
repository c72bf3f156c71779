package backend

import (
	"context"
	"fmt"
	"os"

	"github.com/httvps/httvps/backend/internal/store"
)

// Migration is a step of the database's schema.
type Migration = store.Migration

// Migrations returns all steps of the schema and whether the database, which must
// exist, has them. It changes nothing and may run beside the control plane.
func Migrations(ctx context.Context, cfg Config) ([]Migration, error) {
	source, err := databaseOf(cfg)
	if err != nil {
		return nil, err
	}
	return store.Migrations(ctx, source)
}

// PendingMigrations returns the steps that Migrate would apply, which are all when
// there is no database yet. It changes nothing and may run beside the control plane.
func PendingMigrations(ctx context.Context, cfg Config) ([]Migration, error) {
	source, err := databaseOf(cfg)
	if err != nil {
		return nil, err
	}
	return store.Pending(ctx, source)
}

// Migrate brings the database's schema up to date, after a backup when it is an
// SQLite file, and returns the steps that this took. No other process may have an
// SQLite file open; of several that migrate PostgreSQL, one does it.
func Migrate(ctx context.Context, cfg Config) ([]Migration, error) {
	source, err := databaseOf(cfg)
	if err != nil {
		return nil, err
	}
	return store.Migrate(ctx, source)
}

// databaseOf says where the records are.
func databaseOf(cfg Config) (store.Config, error) {
	path, url, err := cfg.Source()
	if err != nil {
		return store.Config{}, err
	}
	return store.Config{Path: path, URL: url.Reveal(), MaxConnections: cfg.Database.MaxConnections, Log: cfg.Log}, nil
}

// openStore opens the records for a service, and makes them when there are none
// unless they must exist. appended, unless nil, is called when it wrote events.
func openStore(ctx context.Context, cfg Config, mustExist bool, appended func()) (*store.Store, error) {
	source, err := databaseOf(cfg)
	if err != nil {
		return nil, err
	}
	if !mustExist {
		if err := os.MkdirAll(cfg.DataDir, 0o700); err != nil {
			return nil, fmt.Errorf("data_dir: %w", err)
		}
	}
	source.MustExist, source.Appended = mustExist, appended
	return store.Open(ctx, source)
}
