package apidocs

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"
)

// A browser says best whether the policy lets the page work. HTTVPS_TEST_BROWSER=required
// makes it a failure that there is none.
func TestABrowserShowsTheDocument(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		if os.Getenv("HTTVPS_TEST_BROWSER") == "required" {
			t.Fatal(err)
		}
		t.Skip("there is no chromium")
	}
	page, err := New()
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../../../docs/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	var (
		mu    sync.Mutex
		asked []string
	)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.Path)
		mu.Unlock()
		if r.URL.Path == "/openapi.json" {
			_, _ = w.Write(document) // the browser may have gone
			return
		}
		page.ServeHTTP(w, r)
	}))
	defer server.Close()

	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	// No name resolves: whatever the page asks of others fails, and is in the log.
	cmd := exec.CommandContext(ctx, browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
		"--user-data-dir="+t.TempDir(), "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--enable-logging=stderr",
		"--virtual-time-budget=15000", "--dump-dom", server.URL+Path)
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	var log bytes.Buffer
	cmd.Stderr = &log
	cmd.WaitDelay = 5 * time.Second
	shown, err := cmd.Output()
	if err != nil {
		t.Fatalf("chromium: %v\n%s", err, log.String())
	}
	for _, want := range []string{"HTTVPS control plane", "/api/v1/devices/enroll", "/api/v1/admin/users", "opblock-summary"} {
		if !strings.Contains(string(shown), want) {
			t.Errorf("the page does not show %q", want)
		}
	}
	for _, part := range []string{"try-out__btn", "authorize", "authorization__btn"} {
		if strings.Contains(string(shown), part) {
			t.Errorf("the page offers %q: it is for reading", part)
		}
	}
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "CONSOLE") {
			t.Errorf("the browser complains: %s", line)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if got := strings.Join(asked, " "); !strings.Contains(got, "/openapi.json") || !strings.Contains(got, "swagger-ui-bundle.js") {
		t.Errorf("the browser asked for %s", got)
	}
}
