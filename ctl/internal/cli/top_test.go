package cli_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/httvps/httvps/ctl/internal/cli"
	"github.com/httvps/httvps/sdk/go/tlspin"
)

// screen is a terminal of 40 characters and 6 lines. drawn is called after each screen.
type screen struct {
	mu    sync.Mutex // guards shown
	shown strings.Builder
	drawn func(n int)
}

func (s *screen) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown.Write(p)
	if strings.Contains(string(p), "\x1b[H") {
		s.drawn(strings.Count(s.shown.String(), "\x1b[H"))
	}
	return len(p), nil
}

func traffic(w http.ResponseWriter, next string, rates ...int) {
	w.Header().Set("Content-Type", "application/json")
	rows := make([]string, 0, len(rates))
	for i, rate := range rates {
		rows = append(rows, fmt.Sprintf(`{"id":"s%d","user_id":"u%[1]d","user_name":"user\u001b %[1]d","device_id":"d","device_name":"phone","gateway_id":"g","gateway_name":"gw","down_bps":%d,"down":5}`, i, rate))
	}
	_, _ = fmt.Fprintf(w, `{"items":[%s],"next":%s}`, strings.Join(rows, ","), next)
}

func TestTopDrawsUntilItIsInterruptedAndLeavesTheTerminalAsItWas(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	asked := 0
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked++; asked == 2 {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		traffic(w, "null", 1_000, 5_000_000, 0, 7, 8, 9, 10)
	}))
	defer server.Close()
	terminal := &screen{drawn: func(n int) {
		if n == 2 {
			cancel()
		}
	}}
	environment := map[string]string{
		"HTTVPS_API": server.URL, "HTTVPS_TOKEN": "hvt1." + secret + "." + tlspin.Of(server.Certificate()).String(), "XDG_CONFIG_HOME": t.TempDir(),
	}
	code := cli.Run(ctx, cli.Process{
		Args: []string{"top", "--interval", "1s"}, Stdin: strings.NewReader(""), Stdout: terminal, Stderr: terminal,
		Getenv: func(name string) string { return environment[name] }, StdoutIsTerminal: true, StdoutSize: func() (int, int) { return 40, 6 },
	})
	shown := terminal.shown.String()
	if code != cli.ExitOK || !strings.HasPrefix(shown, "\x1b[?1049h\x1b[?25l") || !strings.HasSuffix(shown, "\x1b[?25h\x1b[?1049l") {
		t.Errorf("exit code %d, and the terminal was told %q", code, shown)
	}
	screens := strings.Split(shown, "\x1b[H\x1b[2J")[1:]
	if !strings.Contains(screens[1], "no answer: ") || !strings.Contains(screens[1], "5.0 Mbit/s") {
		t.Errorf("without an answer it shows %q, want that and what was seen last", screens[1])
	}
	for _, one := range screens {
		lines := strings.Split(strings.TrimSuffix(one, "\x1b[?25h\x1b[?1049l"), "\r\n")
		if len(lines) > 6 || !strings.HasPrefix(lines[len(lines)-1], "and ") {
			t.Errorf("a screen of 6 lines has %q", lines)
		}
		for _, line := range lines {
			if len([]rune(line)) > 40 || strings.Contains(line, "\x1b") {
				t.Errorf("a line of 40 characters is %q", line)
			}
		}
	}
}

func TestTopIsPrintedOnceWhereNobodyWatches(t *testing.T) {
	var queries []string
	service := func(w http.ResponseWriter, r *http.Request) {
		queries = append(queries, r.URL.RawQuery)
		if r.URL.Query().Get("cursor") == "" {
			traffic(w, `"c"`, 1_000)
			return
		}
		traffic(w, "null", 2_000, 3)
	}
	code, stdout, stderr := run(t.Context(), t, service, "top", "--sort", "name")
	if code != cli.ExitOK || stderr != "" || strings.Contains(stdout, "\x1b") || !strings.Contains(stdout, "3 sessions  down 3.0 kbit/s") || !strings.Contains(stdout, "user  0  ") {
		t.Errorf("exit code %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if len(queries) != 2 || !strings.Contains(queries[0], "limit=500") {
		t.Errorf("asked for %v", queries)
	}
	code, stdout, _ = run(t.Context(), t, service, "top", "-o", "json", "--by", "gateway", "--rows", "1")
	if code != cli.ExitOK || !strings.Contains(stdout, `"down_bps": 3003`) || !strings.Contains(stdout, `"by": "gateway"`) {
		t.Errorf("exit code %d, stdout %q", code, stdout)
	}
	for _, wrong := range []string{"--by plan", "--sort size", "--interval 10ms", "--rows -1"} {
		code, _, stderr := run(t.Context(), t, func(_ http.ResponseWriter, r *http.Request) { t.Errorf("the service got %s", r.URL) }, append([]string{"top"}, strings.Fields(wrong)...)...)
		if code != cli.ExitUsage || !strings.Contains(stderr, strings.Fields(wrong)[0]) {
			t.Errorf("%s: exit code %d, %s", wrong, code, stderr)
		}
	}
	code, _, stderr = run(t.Context(), t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusUnauthorized)
		_, _ = w.Write([]byte(`{"code":"invalid_token"}`))
	}, "top")
	if code != cli.ExitFailed || !strings.Contains(stderr, "does not accept this token") {
		t.Errorf("with a wrong token: exit code %d, %s", code, stderr)
	}
}
