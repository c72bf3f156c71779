package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/httvps/httvps/backend/internal/store/storetest"
	"github.com/httvps/httvps/internal/command"
)

func TestMain(m *testing.M) { storetest.Main(m) }

func run(ctx context.Context, args, environ []string, stdout, stderr io.Writer) int {
	return command.Run(ctx, newRoot(environ), args, strings.NewReader(""), stdout, stderr)
}

func TestCommandLines(t *testing.T) {
	dir := t.TempDir()
	bad := filepath.Join(dir, "bad.yaml")
	if err := os.WriteFile(bad, []byte("listem: x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken")
	if err := os.MkdirAll(broken, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(broken, "backend.db"), []byte("no database"), 0o600); err != nil {
		t.Fatal(err)
	}
	certFile, keyFile, _ := writeCertificate(t)
	valid := []string{"HTTVPS_BACKEND_TLS_CERT_FILE=" + certFile, "HTTVPS_BACKEND_TLS_KEY_FILE=" + keyFile}
	for name, tc := range map[string]struct {
		args           []string
		environ        []string
		code           int
		stdout, stderr string
	}{
		"nothing":                {code: 2, stderr: "needs a command"},
		"an unknown command":     {args: []string{"sevre"}, code: 2, stderr: "sevre"},
		"an unknown flag":        {args: []string{"serve", "--prot", "1"}, code: 2, stderr: "--prot"},
		"an argument too many":   {args: []string{"serve", "now"}, code: 2, stderr: "now"},
		"help":                   {args: []string{"--help"}, stdout: "serve"},
		"version":                {args: []string{"version"}, stdout: "httvps-backend dev"},
		"half a command":         {args: []string{"migrate"}, code: 2, stderr: "migrate needs a command"},
		"no certificate":         {args: []string{"serve", "--data", filepath.Join(dir, "x")}, code: 1, stderr: "tls.cert_file"},
		"a misspelt key":         {args: []string{"config", "check", "-c", bad}, code: 1, stderr: "bad.yaml:1: listem"},
		"a misspelt variable":    {args: []string{"config", "check"}, environ: []string{"HTTVPS_BACKEND_X=1"}, code: 1, stderr: "HTTVPS_BACKEND_X"},
		"an invalid setting":     {args: []string{"config", "check"}, environ: []string{"HTTVPS_BACKEND_LOG_LEVEL=loud"}, code: 1, stderr: "log_level"},
		"a loud level":           {args: []string{"serve", "--log-level", "loud"}, code: 1, stderr: "log_level"},
		"a valid configuration":  {args: []string{"config", "check"}, environ: valid, stdout: "the configuration is valid\n"},
		"missing certificates":   {args: []string{"config", "check"}, environ: []string{"HTTVPS_BACKEND_TLS_CERT_FILE=c", "HTTVPS_BACKEND_TLS_KEY_FILE=k"}, code: 1, stderr: "open c: no such file"},
		"a configuration":        {args: []string{"config", "print", "--data", "/srv"}, stdout: "data_dir: /srv\n"},
		"defaults as text":       {args: []string{"config", "print"}, stdout: "gateway_heartbeat: 5s\n"},
		"no database":            {args: []string{"migrate", "status", "--data", dir}, code: 1, stderr: "backend.db: no such file"},
		"a rescue of nothing":    {args: []string{"rescue", "--data", dir}, environ: valid, code: 1, stderr: "backend.db: no such file"},
		"signing of nothing":     {args: []string{"signing", "rotate", "--data", dir}, environ: valid, code: 1, stderr: "backend.db: no such file"},
		"a knock of nothing":     {args: []string{"knock", "rotate", "--data", dir}, environ: valid, code: 1, stderr: "backend.db: no such file"},
		"a rescue somewhere":     {args: []string{"rescue", "--data", dir, "--listen", ":1"}, environ: valid, code: 1, stderr: "public_url is empty"},
		"a dry run of nothing":   {args: []string{"migrate", "dry-run", "--data", filepath.Join(dir, "x")}, stdout: "-- 00001_initial.sql\nCREATE TABLE settings ("},
		"a configured database":  {args: []string{"config", "print"}, environ: []string{"HTTVPS_BACKEND_DATABASE_URL=postgres://u:p@h/x"}, stdout: "url: postgres://(secret)@h/x\n"},
		"a URL of no use":        {args: []string{"migrate", "status"}, environ: []string{"HTTVPS_BACKEND_DATABASE_URL=postgres://u:p@["}, code: 1, stderr: "database.url is not a URL"},
		"a broken database":      {args: []string{"migrate", "up", "--data", broken}, code: 1, stderr: "not a database of this service"},
		"a file that is missing": {args: []string{"config", "check", "-c", filepath.Join(dir, "none.yaml")}, code: 1, stderr: "none.yaml"},
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			code := run(t.Context(), tc.args, tc.environ, &stdout, &stderr)
			if code != tc.code || !strings.Contains(stdout.String(), tc.stdout) || !strings.Contains(stderr.String(), tc.stderr) {
				t.Errorf("run = %d, want %d\nstdout: %s\nstderr: %s", code, tc.code, &stdout, &stderr)
			}
			if tc.code != 0 && stdout.Len() > 0 {
				t.Errorf("a failure writes to stdout: %s", &stdout)
			}
		})
	}
}

func TestMigrateMakesAndListsTheSchemaOnBothEngines(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { testMigrate(t, nil) })
	t.Run("PostgreSQL", func(t *testing.T) { testMigrate(t, []string{"HTTVPS_BACKEND_DATABASE_URL=" + storetest.Database(t)}) })
}

func testMigrate(t *testing.T, environ []string) {
	t.Helper()
	dir := t.TempDir()
	migrate := func(verb string) string {
		var out, errs bytes.Buffer
		if code := run(t.Context(), []string{"migrate", verb, "--data", dir}, environ, &out, &errs); code != 0 {
			t.Errorf("migrate %s = %d: %s", verb, code, &errs)
		}
		return out.String()
	}
	const first = "00001_initial.sql\n"
	planned := migrate("dry-run")
	if !strings.HasPrefix(planned, "-- "+first+"CREATE TABLE settings (") {
		t.Errorf("migrate dry-run of nothing says:\n%s", planned)
	}
	if again := migrate("dry-run"); again != planned {
		t.Error("migrate dry-run changed something")
	}
	applied := migrate("up")
	if !strings.HasPrefix(applied, "applied  "+first) {
		t.Errorf("migrate up says %q", applied)
	}
	for verb, want := range map[string]string{"up": "nothing to do\n", "status": applied, "dry-run": "-- nothing to do\n"} {
		if got := migrate(verb); got != want {
			t.Errorf("migrate %s says %q, want %q", verb, got, want)
		}
	}
}

func TestServePrintsOneLineWhenItAnswers(t *testing.T) {
	certFile, keyFile, client := writeCertificate(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	read, write := io.Pipe()
	ended := make(chan int, 1)
	go func() {
		ended <- run(ctx, []string{"serve", "--data", filepath.Join(t.TempDir(), "d"), "--listen", "127.0.0.1:0"}, []string{
			"HTTVPS_BACKEND_TLS_CERT_FILE=" + certFile, "HTTVPS_BACKEND_TLS_KEY_FILE=" + keyFile,
		}, write, io.Discard)
	}()
	var ready struct {
		Ready          bool
		API, Bootstrap string
	}
	if err := json.NewDecoder(read).Decode(&ready); err != nil {
		t.Fatal(err)
	}
	if !ready.Ready || !strings.HasPrefix(ready.Bootstrap, ready.API+"/bootstrap#code=") {
		t.Errorf("ready line is %+v", ready)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, ready.API+"/api/v1/health", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Errorf("health = %d", resp.StatusCode)
	}
	client.CloseIdleConnections()
	cancel()
	if code := <-ended; code != 0 {
		t.Errorf("interrupted serve = %d, want 0", code)
	}
}

// writeCertificate writes a certificate for 127.0.0.1 and returns a client that
// trusts it.
func writeCertificate(t *testing.T) (certFile, keyFile string, client *http.Client) {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "c.pem"), filepath.Join(dir, "k.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile, server.Client()
}
