package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// levels runs the service until devices can connect, and returns which levels each of its
// parts has logged at.
func levels(t *testing.T, environ ...string) map[string]bool {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read, write := io.Pipe()
	var stderr bytes.Buffer
	ended := make(chan int, 1)
	go func() {
		code := run(ctx, []string{"--data", filepath.Join(t.TempDir(), "data"), "--dev"}, append(environ, "HTTVPS_GATEWAY_ADMIN_LISTEN="), write, &stderr)
		_ = write.Close()
		ended <- code
	}()
	stdout := bufio.NewReader(read)
	_, err := stdout.ReadString('\n')
	cancel()
	_, _ = io.Copy(io.Discard, stdout)
	if code := <-ended; err != nil || code != 0 {
		t.Fatalf("ended with %d, %v:\n%s", code, err, &stderr)
	}
	found := make(map[string]bool)
	for line := range bytes.Lines(stderr.Bytes()) {
		var entry struct{ Part, Level string }
		if json.Unmarshal(line, &entry) == nil {
			found[entry.Part+" "+entry.Level] = true
		}
	}
	return found
}

func TestEachHalfLogsAtItsOwnLevel(t *testing.T) {
	for name, tc := range map[string]struct {
		environ []string
		want    map[string]bool
	}{
		"as it is":            {nil, map[string]bool{"backend INFO": true, "gateway INFO": true}},
		"the gateway's alone": {[]string{"HTTVPS_GATEWAY_LOG_LEVEL=debug"}, map[string]bool{"backend DEBUG": true, "backend INFO": true, "gateway INFO": true}},
		"the backend's alone": {[]string{"HTTVPS_BACKEND_LOG_LEVEL=debug"}, map[string]bool{"backend DEBUG": true, "backend INFO": true, "gateway INFO": true}},
		"the backend is quiet": {
			[]string{"HTTVPS_BACKEND_LOG_LEVEL=error", "HTTVPS_GATEWAY_LOG_LEVEL=info"}, map[string]bool{"gateway INFO": true},
		},
		"the gateway is quiet": {
			[]string{"HTTVPS_BACKEND_LOG_LEVEL=info", "HTTVPS_GATEWAY_LOG_LEVEL=error"}, map[string]bool{"backend INFO": true},
		},
	} {
		got := levels(t, tc.environ...)
		for _, some := range []string{"gateway DEBUG", " INFO", "backend WARN", "gateway WARN", "backend ERROR", "gateway ERROR"} {
			delete(got, some) // the gateway has little to say at it; lines of neither; of an end in the middle of something
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestAPartOfTheLogKeepsItsLevelWithItsAttributes(t *testing.T) {
	var out bytes.Buffer
	var level slog.LevelVar
	level.Set(slog.LevelWarn)
	log := slog.New(leveled{slog.NewJSONHandler(&out, &slog.HandlerOptions{Level: slog.LevelDebug}), &level}).With("a", 1).WithGroup("g").With("b", 2)
	log.Info("not this")
	level.Set(slog.LevelInfo)
	log.Info("this", "c", 3)
	if got := out.String(); !bytes.Contains(out.Bytes(), []byte(`"msg":"this","a":1,"g":{"b":2,"c":3}`)) || bytes.Contains(out.Bytes(), []byte("not this")) {
		t.Errorf("logged %s", got)
	}
	for level, want := range map[slog.Level]string{slog.LevelDebug - 4: "debug", slog.LevelInfo: "info", slog.LevelInfo + 2: "info", slog.LevelWarn: "warn", slog.LevelError + 4: "error"} {
		if got := asBackend(level); got != want {
			t.Errorf("%v is %s, want %s", level, got, want)
		}
	}
}
