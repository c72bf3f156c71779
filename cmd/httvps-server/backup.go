package main

import (
	"context"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/internal/command"
)

// backups are the commands about backups of the control plane. A gateway needs none.
var backups = command.BackupSteps[*config]{
	Key: backend.NewRecoveryKey,
	To: func(cfg *config, recipient string) *config {
		cfg.Backend.Backup.Recipient = recipient
		return cfg
	},
	Backup: func(ctx context.Context, cfg *config, path string) (string, error) {
		if err := cfg.needData(); err != nil {
			return "", err
		}
		return backend.Backup(ctx, cfg.Backend, path)
	},
	Restore: func(ctx context.Context, cfg *config, path, keyFile string) (string, error) {
		if err := cfg.needData(); err != nil {
			return "", err
		}
		return backend.Restore(ctx, cfg.Backend, path, keyFile)
	},
	Verify: backend.VerifyBackup,
}
