package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/internal/devca"
)

// TestScriptsAgainstTheRealService plays the scripts in testdata/service, each
// against a control plane of its own that nobody owns yet. BOOTSTRAP is its link.
func TestScriptsAgainstTheRealService(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "service"),
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Cmds:                commands,
		Setup: func(env *testscript.Env) error {
			t, ok := env.T().(testing.TB)
			if !ok {
				return fmt.Errorf("%T is no testing.TB", env.T())
			}
			ready := serviceOf(t)
			env.Setenv("API", ready.Admin)
			env.Setenv("BOOTSTRAP", ready.Bootstrap)
			env.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
			env.Setenv("XDG_CONFIG_HOME", filepath.Join(env.WorkDir, "config"))
			return nil
		},
	})
}

// serviceOf starts a control plane with a certificate authority of its own. It
// is gone when the test ends.
func serviceOf(tb testing.TB) backend.Ready {
	tb.Helper()
	authority, err := devca.Open(tb.TempDir())
	if err != nil {
		tb.Fatal(err)
	}
	certificate, err := authority.Issue("127.0.0.1")
	if err != nil {
		tb.Fatal(err)
	}
	ready := make(chan backend.Ready, 1)
	cfg := backend.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.DataDir = tb.TempDir()
	cfg.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}, MinVersion: tls.VersionTLS13}
	cfg.Pin = authority.Pin().String()
	cfg.OnReady = func(r backend.Ready) { ready <- r }

	ctx, stop := context.WithCancel(tb.Context())
	ended := make(chan error, 1)
	go func() { ended <- backend.Run(ctx, cfg) }()
	tb.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			tb.Errorf("backend: %v", err)
		}
	})
	select {
	case r := <-ready:
		return r
	case err := <-ended:
		ended <- nil
		tb.Fatalf("backend: %v", err)
		return backend.Ready{}
	}
}
