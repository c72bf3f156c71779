package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

// RotateKnock makes the service's next knock key and returns when devices begin to
// get it; a key that waits for its time already is the next one. The database must
// exist. With SQLite no other process may have it open.
func RotateKnock(ctx context.Context, cfg Config) (activeFrom time.Time, err error) {
	return rotate(ctx, cfg, "rotate the knock key", (*control.Authority).RotateKnock)
}

// RotateSigning makes the next key that access tokens are signed with and returns
// when it begins to sign. All else is as with RotateKnock.
func RotateSigning(ctx context.Context, cfg Config) (signs time.Time, err error) {
	return rotate(ctx, cfg, "rotate the signing key", (*control.Authority).RotateSigning)
}

func rotate(
	ctx context.Context, cfg Config, what string, next func(*control.Authority, context.Context) (time.Time, error),
) (at time.Time, err error) {
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
	authority, err := openAuthority(ctx, cfg, records, cfg.Listener, nil, nil)
	if err != nil {
		return time.Time{}, err
	}
	if at, err = next(authority, byCommand(ctx, what)); err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", what, err)
	}
	return at, nil
}
