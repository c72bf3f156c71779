package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/httvps/httvps/backend"
)

// rescue lets the owner of a stopped service back in.
func rescue(ctx context.Context, cfg *config) (link string, err error) {
	if err := cfg.needData(); err != nil {
		return "", err
	}
	if err := cfg.Validate(); err != nil {
		return "", fmt.Errorf("configuration: %w", err)
	}
	if _, err := os.Stat(cfg.Backend.DataDir); errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("--data: there is no service in %s", cfg.data) // and none is made
	}
	if err := cfg.open(ctx); err != nil {
		return "", err
	}
	defer cfg.close()
	return backend.Rescue(ctx, cfg.Backend)
}
