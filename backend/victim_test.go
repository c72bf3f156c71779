//go:build unix

package backend_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/backend/internal/config"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// The test binary is a control plane in a process of its own when these say where
// its data are.
const (
	victimDir = "HTTVPS_TEST_VICTIM_DIR"
	victimURL = "HTTVPS_TEST_VICTIM_DATABASE"
)

// TestVictim serves until it is killed.
func TestVictim(t *testing.T) {
	dir := os.Getenv(victimDir)
	if dir == "" {
		t.Skip("only as a process of its own")
	}
	cfg := testConfig(t, dir)
	cfg.TLS, _ = testTLS(t)
	cfg.Log = slog.New(slog.DiscardHandler)
	cfg.Dev = true
	cfg.Database.URL = config.DatabaseURL(os.Getenv(victimURL))
	cfg.OnReady = func(r backend.Ready) {
		r.Listeners = nil                        // an interface does not come back out of JSON
		_ = json.NewEncoder(os.Stdout).Encode(r) // its reader may be gone
	}
	if err := backend.Run(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
}

// victim is a control plane in a process of its own, which is killed and started.
type victim struct {
	t      *testing.T
	dir    string
	url    string
	client *http.Client

	process *exec.Cmd
	where   atomic.Pointer[backend.Ready]
}

// newVictim returns one that has its data in dir, and its records on a new database
// of server unless that is nil. It does not run yet.
func newVictim(t *testing.T, dir string, server *storetest.Server) *victim {
	t.Helper()
	v := &victim{t: t, dir: dir}
	if server != nil {
		v.url = server.Database(t)
	}
	_, v.client = testTLS(t)
	t.Cleanup(func() {
		if v.process != nil && v.process.ProcessState == nil {
			v.kill()
		}
		v.client.CloseIdleConnections()
	})
	return v
}

// records says where the records are.
func (v *victim) records() store.Config {
	if v.url != "" {
		return store.Config{URL: v.url}
	}
	return store.Config{Path: filepath.Join(v.dir, "backend.db")}
}

// start starts the process and waits until it serves.
func (v *victim) start() {
	v.t.Helper()
	if err := v.tryStart(); err != nil {
		v.t.Fatal(err)
	}
}

// tryStart is start for a process that may end instead: the error has what it said.
func (v *victim) tryStart() error {
	v.t.Helper()
	v.process = exec.CommandContext(context.WithoutCancel(v.t.Context()), os.Args[0], "-test.run=^TestVictim$")
	v.process.Env = append(os.Environ(), victimDir+"="+v.dir, victimURL+"="+v.url)
	out, err := v.process.StdoutPipe()
	if err != nil {
		return err
	}
	if err := v.process.Start(); err != nil {
		return err
	}
	lines := bufio.NewReader(out)
	line, err := lines.ReadBytes('\n')
	var ready backend.Ready
	if err == nil {
		err = json.Unmarshal(line, &ready)
	}
	if err != nil {
		// It ends by itself; else its output never would.
		bound := time.AfterFunc(10*time.Second, func() { _ = v.process.Process.Kill() })
		rest, _ := io.ReadAll(lines)
		bound.Stop()
		return fmt.Errorf("the control plane did not start: %w: %s%s", errors.Join(err, v.process.Wait()), line, rest)
	}
	v.where.Store(&ready)
	return nil
}

func (v *victim) kill() {
	v.t.Helper()
	if err := v.process.Process.Kill(); err != nil {
		v.t.Fatal(err)
	}
	_ = v.process.Wait() // killed
}

// service returns the process as its callers see it.
func (v *victim) service() *service {
	return &service{t: v.t, ready: *v.where.Load(), client: v.client}
}
