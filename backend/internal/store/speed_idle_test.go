package store

import (
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// BenchmarkIdle is the memory of the shipped program with 100,000 users and nothing
// to do, after each of them has been listed once.
func BenchmarkIdle(b *testing.B) {
	for engine, open := range speedEngines {
		b.Run(engine, func(b *testing.B) {
			place := open(b)
			where, world := place.populate(b, manyUsers)
			environ := []string{"HTTVPS_BACKEND_KEK_FILE=" + filepath.Join(place.dir, "kek")}
			if where.URL != "" {
				environ = append(environ, "HTTVPS_BACKEND_DATABASE_URL="+where.URL)
			} else {
				environ = append(environ, "HTTVPS_BACKEND_DATABASE_PATH="+where.Path)
			}
			program := startProgram(b, environ)
			program.list(b, world)
			const settle = 5 * time.Second
			<-time.After(settle)
			b.ReportMetric(program.resident(b), "MiB")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// program is a running httvps-backend.
type program struct {
	pid    int
	admin  string
	client *http.Client
}

// startProgram builds httvps-backend and runs it until the benchmark ends.
func startProgram(b *testing.B, environ []string) program {
	b.Helper()
	dir := b.TempDir()
	executable := filepath.Join(dir, "httvps-backend")
	build := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", executable, "github.com/httvps/httvps/backend/cmd/httvps-backend")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		b.Fatalf("build: %v: %s", err, out)
	}
	donor := httptest.NewTLSServer(http.NotFoundHandler()) // has a certificate for 127.0.0.1
	donor.Close()
	identity := donor.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(identity.PrivateKey)
	if err != nil {
		b.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{
		"cert.pem": {Type: "CERTIFICATE", Bytes: identity.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			b.Fatal(err)
		}
	}
	serve := exec.CommandContext(b.Context(), executable, "serve", "--listen", "127.0.0.1:0", "--data", filepath.Join(dir, "data"))
	serve.Env = append(environ, "HTTVPS_BACKEND_TLS_CERT_FILE="+filepath.Join(dir, "cert.pem"), "HTTVPS_BACKEND_TLS_KEY_FILE="+filepath.Join(dir, "key.pem"))
	var log strings.Builder
	serve.Stderr = &log
	out, err := serve.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := serve.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = serve.Process.Kill() // or it is over
		_ = serve.Wait()
	})
	var ready struct {
		Admin string `json:"admin"`
	}
	if err := json.NewDecoder(out).Decode(&ready); err != nil {
		_ = serve.Process.Kill() // or its log never ends
		_ = serve.Wait()
		b.Fatalf("httvps-backend does not start: %v: %s", err, log.String())
	}
	return program{pid: serve.Process.Pid, admin: ready.Admin, client: donor.Client()}
}

// list reads every user once.
func (p program) list(b *testing.B, world speedWorld) {
	b.Helper()
	seen := 0
	for cursor := ""; ; {
		req, err := http.NewRequestWithContext(b.Context(), http.MethodGet, p.admin+"/api/v1/admin/users?limit=500"+cursor, http.NoBody)
		if err != nil {
			b.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+world.token)
		resp, err := p.client.Do(req)
		if err != nil {
			b.Fatal(err)
		}
		var page struct {
			Items []json.RawMessage `json:"items"`
			Next  string            `json:"next"`
		}
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			b.Fatalf("answer is %d: %v", resp.StatusCode, err)
		}
		if seen += len(page.Items); page.Next == "" {
			break
		}
		cursor = "&cursor=" + url.QueryEscape(page.Next)
	}
	if seen < world.users {
		b.Fatalf("%d users are listed, want %d", seen, world.users)
	}
}

// resident returns the memory that the kernel counts as the program's, in MiB.
func (p program) resident(b *testing.B) float64 {
	b.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.pid))
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		var kib float64
		if n, _ := fmt.Sscanf(line, "VmRSS: %f kB", &kib); n == 1 {
			return kib / 1024
		}
	}
	b.Fatalf("no VmRSS in %s", status)
	return 0
}
