package main

import (
	"context"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/internal/command"
)

// keys are the commands about the control plane's key-encryption keys.
var keys = command.KEKSteps[*config]{
	Generate: backend.NewKEK, Status: onBackend(backend.KEKStatus), Rotate: onBackend(backend.RotateKEK),
	Add: onBackend(backend.AddKEK), Reseal: onBackend(backend.Reseal), Drop: onBackend(backend.DropKEKs),
}

// onBackend makes what works on the control plane's records a command of the whole
// service.
func onBackend(do func(context.Context, backend.Config) (string, error)) func(context.Context, *config) (string, error) {
	return func(ctx context.Context, cfg *config) (string, error) {
		if err := cfg.needData(); err != nil {
			return "", err
		}
		return do(ctx, cfg.Backend)
	}
}
