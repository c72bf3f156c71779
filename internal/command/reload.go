package command

import (
	"context"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// Reloads returns a channel that has, for each SIGHUP, the configuration that load
// returns then. One that cannot be read or is wrong is told to log, and nothing
// comes. stop ends it; until then SIGHUP does not end the process.
func Reloads[C Checked](ctx context.Context, log *slog.Logger, load func() (C, error)) (reloads <-chan C, stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	loaded := make(chan C)
	var running sync.WaitGroup
	running.Go(func() {
		defer signal.Stop(hangups)
		for {
			select {
			case <-ctx.Done():
				return
			case <-hangups:
			}
			cfg, err := load()
			if err == nil {
				_, err = check(cfg)
			}
			if err != nil {
				log.ErrorContext(ctx, "configuration not reloaded", "error", err.Error())
				continue
			}
			select {
			case <-ctx.Done():
				return
			case loaded <- cfg:
			}
		}
	})
	return loaded, func() {
		cancel()
		running.Wait()
	}
}
