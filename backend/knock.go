package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"
)

// RotateKnock makes the service's next knock key and returns when devices begin to
// get it; a key that waits for its time already is the next one. The database must
// exist. With SQLite no other process may have it open.
func RotateKnock(ctx context.Context, cfg Config) (activeFrom time.Time, err error) {
	if err := cfg.Validate(); err != nil {
		return time.Time{}, fmt.Errorf("configuration: %w", err)
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	records, err := openStore(ctx, cfg, true, nil)
	if err != nil {
		return time.Time{}, err
	}
	defer func() { err = errors.Join(err, records.Close()) }()
	authority, err := openAuthority(ctx, cfg, records, cfg.Listener, nil)
	if err != nil {
		return time.Time{}, err
	}
	if activeFrom, err = authority.RotateKnock(ctx); err != nil {
		return time.Time{}, fmt.Errorf("rotate the knock key: %w", err)
	}
	return activeFrom, nil
}
