//go:build unix

package backend_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// root is that of the repository.
const root = ".."

// git runs a command of git in the repository.
func git(ctx context.Context, args ...string) (string, error) {
	// In CI the files may be another account's.
	cmd := exec.CommandContext(ctx, "git", append([]string{"-c", "safe.directory=*", "-C", root}, args...)...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		err = fmt.Errorf("git %s: %w: %s", args[0], err, bytes.TrimSpace(out))
	}
	return strings.TrimSpace(string(out)), err
}

// lastRelease returns the commit that the file RELEASE names. While there has been
// no release, the newest commit stands in for one. A clone without its history is
// enough for all other tests, so there this one is left out, unless
// HTTVPS_TEST_RELEASE=required.
func lastRelease(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "RELEASE"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		commit := strings.TrimSpace(line)
		if commit == "" || strings.HasPrefix(commit, "#") {
			continue
		}
		if !regexp.MustCompile(`^[0-9a-f]{40}$`).MatchString(commit) {
			t.Fatalf("RELEASE names %q, want a commit in full", commit)
		}
		if _, err := git(t.Context(), "cat-file", "-e", commit+"^{commit}"); err != nil {
			const missing = "the commit of the last release is not here; get the whole history (git fetch --unshallow): %v"
			if os.Getenv("HTTVPS_TEST_RELEASE") == "required" || !withoutHistory(t) {
				t.Fatalf(missing, err)
			}
			t.Skipf(missing, err)
		}
		return commit
	}
	commit, err := git(t.Context(), "rev-parse", "--verify", "HEAD")
	if err != nil {
		t.Skipf("there has been no release, and no commit can stand in for one: %v", err)
	}
	t.Logf("there has been no release: %s, the newest commit, stands in for it", commit)
	return commit
}

// withoutHistory says whether this is a shallow clone, or files that git does not know.
func withoutHistory(t *testing.T) bool {
	t.Helper()
	shallow, err := git(t.Context(), "rev-parse", "--is-shallow-repository")
	return err != nil || shallow == "true"
}

// buildRelease returns the backend of a commit.
func buildRelease(t *testing.T, commit string) string {
	t.Helper()
	dir := t.TempDir()
	tree, archive := filepath.Join(dir, "tree"), filepath.Join(dir, "tree.tar")
	if err := os.Mkdir(tree, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := git(t.Context(), "archive", "--format=tar", "--output="+archive, commit); err != nil {
		t.Fatal(err)
	}
	binary := filepath.Join(dir, "httvps-backend")
	for _, command := range [][]string{
		{"tar", "-xf", archive, "-C", tree},
		// As "make build" does, so that most of it is in the cache.
		{"go", "build", "-trimpath", "-ldflags", "-s -w -X main.version=release", "-o", binary, "./backend/cmd/httvps-backend"},
	} {
		cmd := exec.CommandContext(t.Context(), command[0], command[1:]...)
		cmd.Dir = tree
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s of %s: %v\n%s", command[0], commit, err, out)
		}
	}
	return binary
}

// startRelease runs a backend from a file until the test ends or stop is called.
func startRelease(t *testing.T, binary, dir string, environ ...string) *service {
	t.Helper()
	files := t.TempDir()
	tlsConfig, client := testTLS(t)
	pair := tlsConfig.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile := filepath.Join(files, "cert.pem"), filepath.Join(files, "key.pem")
	for file, block := range map[string]*pem.Block{
		certFile: {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, keyFile: {Type: "PRIVATE KEY", Bytes: key},
	} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s := &service{t: t, client: client, log: &logBuffer{}}
	cmd := exec.CommandContext(context.WithoutCancel(t.Context()), binary, "serve", "--data", dir, "--listen", "127.0.0.1:0")
	cmd.Env = append(environ, "HTTVPS_BACKEND_TLS_CERT_FILE="+certFile, "HTTVPS_BACKEND_TLS_KEY_FILE="+keyFile)
	cmd.Stderr = s.log
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.pid = cmd.Process.Pid
	s.ended = func() {
		client.CloseIdleConnections()
		_ = cmd.Wait() // said in the log
	}
	s.stop = func() error {
		client.CloseIdleConnections()
		if cmd.ProcessState != nil {
			return nil
		}
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			return err
		}
		return cmd.Wait()
	}
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("the backend of the last release: %v\n%s", err, s.log)
		}
	})
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &s.ready)
	}
	if err != nil {
		_ = cmd.Wait() // said in the log
		t.Fatalf("the backend of the last release does not start: %v\n%s", err, s.log)
	}
	return s
}

// takeOver makes an operator and a gateway ask this program, which has the same
// records as theirs before.
func (s *service) takeOver(before *service, gw *gateway) *service {
	s.ready.Token, gw.s = before.ready.Token, s
	return s
}

// use does with a service what its callers do, and returns a device that has a
// session.
func (s *service) use(name string, gw *gateway) (device, string) {
	s.t.Helper()
	user, _ := s.user(name, 2, 2)
	d := s.enrol(s.invite(user))
	session := newSessionID()
	s.useDevice(d, gw, session)
	s.post("/api/v1/usage/report", gw.credential(), map[string]any{"reports": []map[string]any{{
		"boot_id": gw.boot, "session_id": session, "sequence": 1, "up": 10, "down": 20, "at": time.Now().UTC().Format(time.RFC3339Nano),
	}}}).want(http.StatusOK, "")
	gone := s.enrol(s.invite(user))
	s.admin(http.MethodPost, "/devices/"+gone.id+"/revoke", struct{}{}).want(http.StatusOK, "")
	gone.tryToken().want(http.StatusForbidden, "device_revoked")
	for _, path := range []string{
		"/users", "/users?q=" + name, "/plans", "/subscriptions?user_id=" + user, "/devices", "/regions", "/gateways", "/sessions", "/tokens",
		"/usage/verify",
	} {
		s.admin(http.MethodGet, path, nil).want(http.StatusOK, "")
	}
	return d, session
}

// useDevice does what a device with a session, and the gateway that carries it, do
// all the time.
func (s *service) useDevice(d device, gw *gateway, session string) {
	s.t.Helper()
	d.s = s
	access := d.tryToken().want(http.StatusOK, "").field("access_token")
	gw.heartbeat()
	if got := gw.validate(session, d); !got.Allowed {
		s.t.Fatalf("the session is refused: %+v", got)
	}
	s.get("/api/v1/gateways", access).want(http.StatusOK, "")
	s.get("/api/v1/gateway/config", gw.credential()).want(http.StatusOK, "")
	s.get("/api/v1/gateway/events?after=0", gw.credential()).want(http.StatusOK, "")
	s.get("/api/v1/gateway/snapshot", gw.credential()).want(http.StatusOK, "")
	s.admin(http.MethodGet, "/devices/"+d.id, nil).want(http.StatusOK, "")
}

func TestTheLastReleaseRunsOnThePresentSchemaOnBothEngines(t *testing.T) {
	commit := lastRelease(t)
	binary := buildRelease(t, commit)
	t.Run("SQLite, one after the other", func(t *testing.T) {
		dir := dataDir(t)
		present := start(t, dir, dev)
		made := present.newGateway()
		gw := &made
		d, session := present.use("first", gw)
		if err := present.stop(); err != nil {
			t.Fatal(err)
		}
		past := startRelease(t, binary, dir).takeOver(present, gw)
		past.useDevice(d, gw, session)
		d2, session2 := past.use("second", gw)
		if err := past.stop(); err != nil {
			t.Fatal(err)
		}
		present = start(t, dir, nil).takeOver(past, gw)
		present.useDevice(d, gw, session)
		present.useDevice(d2, gw, session2)
		present.use("third", gw)
	})
	t.Run("PostgreSQL, both at once", func(t *testing.T) {
		dir, url, bus := dataDir(t), storetest.Database(t), startNATS(t, anyPort)
		present := start(t, dir, onPostgres(url, dev, withBus(bus)))
		made := present.newGateway()
		gw := &made
		d, session := present.use("first", gw)
		past := startRelease(t, binary, replica(t, dir), "HTTVPS_BACKEND_DATABASE_URL="+url, fmt.Sprintf("HTTVPS_BACKEND_NATS_URL=nats://127.0.0.1:%d", bus.port), "HTTVPS_BACKEND_REPLICAS=2").takeOver(present, gw)
		past.useDevice(d, gw, session)
		d2, session2 := past.use("second", gw)
		present.takeOver(past, gw)
		present.useDevice(d2, gw, session2)
		present.use("third", gw)
		status := past.call(http.MethodGet, past.ready.API[:strings.LastIndex(past.ready.API, "/")]+"/readyz", "", nil).status
		if status != http.StatusOK {
			t.Errorf("readyz of the last release = %d", status)
		}
	})
}
