package backend_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/backend/internal/config"
	"github.com/httvps/httvps/backend/internal/store/storetest"
	"github.com/httvps/httvps/internal/ticket"
)

// onPostgres makes a control plane keep its records at a URL.
func onPostgres(url string, more ...func(*backend.Config)) func(*backend.Config) {
	return func(cfg *backend.Config) {
		cfg.Database.URL = config.DatabaseURL(url)
		for _, adjust := range more {
			adjust(cfg)
		}
	}
}

// replica returns a data directory like the one at dir.
func replica(t *testing.T, dir string) string {
	t.Helper()
	other := t.TempDir()
	key, err := os.ReadFile(filepath.Join(dir, "kek"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(other, "kek"), key, 0o600); err != nil {
		t.Fatal(err)
	}
	return other
}

// tryValidate is gateway.validate whatever the answer is.
func (g gateway) tryValidate(session string, d device) reply {
	g.s.t.Helper()
	return g.s.post("/api/v1/auth/validate-device", g.credential(), map[string]any{
		"session_id": session, "device_id": d.id, "key_thumbprint": ticket.Thumbprint(publicOf(d.key)), "generation": 1, "boot_id": g.boot,
	})
}

func TestTwoControlPlanesOnOnePostgreSQLDatabaseAreOneService(t *testing.T) {
	url, dir, bus := storetest.Database(t), dataDir(t), startNATS(t, anyPort)
	one := start(t, dir, onPostgres(url, dev, withBus(bus)))
	two := start(t, replica(t, dir), onPostgres(url, withBus(bus)))
	two.ready.Token = one.ready.Token

	const limit, callers = 5, 64
	here := one.newGateway()
	there := here
	there.s = two
	user, _ := two.user("many", 1, limit)
	d := one.enrol(two.invite(user))
	elsewhere := d
	elsewhere.s = two
	elsewhere.tryToken().want(http.StatusOK, "")
	here.heartbeat()

	var (
		group   sync.WaitGroup
		mu      sync.Mutex
		reasons = make(map[string]int)
	)
	for i := range callers {
		asked := []gateway{here, there}[i%2]
		group.Go(func() {
			answer := asked.tryValidate(newSessionID(), d)
			var made decision
			answer.into(&made)
			mu.Lock()
			defer mu.Unlock()
			if answer.status != http.StatusOK {
				t.Errorf("answer is %d %s", answer.status, answer.text)
			}
			reasons[made.Reason]++
		})
	}
	group.Wait()
	if reasons[""] != limit || reasons["session_limit"] != callers-limit {
		t.Errorf("reasons are %v, want %d sessions and else session_limit", reasons, limit)
	}

	one.admin(http.MethodPost, "/devices/"+d.id+"/revoke", struct{}{}).want(http.StatusOK, "")
	if beat := there.heartbeat(); len(beat.Close) != limit {
		t.Errorf("the other's heartbeat closes %d sessions, want %d", len(beat.Close), limit)
	}
	if err := one.stop(); err != nil {
		t.Fatal(err)
	}
	there.heartbeat()
	elsewhere.tryToken().want(http.StatusForbidden, "device_revoked")
}

func TestWithoutPostgreSQLTheServiceSaysSoAndComesBackByItself(t *testing.T) {
	server := storetest.StartServer(t)
	s := start(t, dataDir(t), onPostgres(server.Database(t), dev))
	gw := s.newGateway()
	d := s.enrol(s.ready.Invite)
	var token struct {
		AccessToken string `json:"access_token"`
	}
	d.tryToken().want(http.StatusOK, "").into(&token)
	base := s.ready.API[:strings.LastIndex(s.ready.API, "/")]
	probe := func(path string) int { return s.call(http.MethodGet, base+path, "", nil).status }
	await(t, func() bool { return probe("/readyz") == http.StatusOK })

	server.Stop(t)
	for name, answer := range map[string]func() reply{
		"an operator": func() reply { return s.admin(http.MethodGet, "/users", nil) },
		"a gateway": func() reply {
			return s.post("/api/v1/gateway/heartbeat", gw.credential(), map[string]any{"boot_id": gw.boot})
		},
		"a session": func() reply { return gw.tryValidate(newSessionID(), d) },
		"a device":  func() reply { return s.get("/api/v1/gateways", token.AccessToken) },
		"a token":   d.tryToken,
		"an enrolment": func() reply {
			return s.tryEnrol(newKey(t), codeOf(t, s.ready.Invite))
		},
	} {
		if got := answer(); got.status != http.StatusServiceUnavailable || got.code() != "unavailable" {
			t.Errorf("%s is told %d %s, want 503 unavailable", name, got.status, got.text)
		}
	}
	await(t, func() bool { return probe("/readyz") == http.StatusServiceUnavailable })
	if status := probe("/livez"); status != http.StatusOK {
		t.Errorf("livez = %d, want that the process lives", status)
	}

	server.Start(t)
	await(t, func() bool { return probe("/readyz") == http.StatusOK })
	gw.heartbeat()
	if got := gw.validate(newSessionID(), d); !got.Allowed {
		t.Errorf("decision = %+v, want a session", got)
	}
	if strings.Contains(s.log.String(), server.Password()) {
		t.Error("the log has the database's password")
	}
}

// await waits until something holds.
func await(t *testing.T, holds func() bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	ticker := time.NewTicker(50 * time.Millisecond)
	defer ticker.Stop()
	for !holds() {
		select {
		case <-ctx.Done():
			t.Fatal("it does not happen")
		case <-ticker.C:
		}
	}
}

func TestARescueOnPostgreSQLNeedsNoStop(t *testing.T) {
	dir, url := dataDir(t), storetest.Database(t)
	s := start(t, dir, onPostgres(url, dev))
	cfg := testConfig(t, dir)
	cfg.Listen = "127.0.0.1:1"
	cfg.TLS, _ = testTLS(t)
	onPostgres(url)(&cfg)
	link, err := backend.Rescue(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.admin(http.MethodGet, "/users", nil).want(http.StatusUnauthorized, "invalid_token")
	s.ready.Token = s.call(http.MethodPost, s.ready.Admin+"/api/v1/admin/bootstrap", "", map[string]any{
		"code": codeOf(t, link), "name": "me",
	}).want(http.StatusCreated, "").field("token")
	s.admin(http.MethodGet, "/users", nil).want(http.StatusOK, "")

	onPostgres(storetest.Database(t))(&cfg)
	if _, err := backend.Rescue(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "there is no service in it") {
		t.Errorf("rescue of nothing = %v", err)
	}
}

func TestThePasswordOfPostgreSQLIsNeverShown(t *testing.T) {
	const password = "S3cret%2FPassw0rd"
	var log bytes.Buffer
	cfg := testConfig(t, dataDir(t))
	cfg.TLS, _ = testTLS(t)
	cfg.Log = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	for name, url := range map[string]string{
		"nobody there": "postgres://u:" + password + "@127.0.0.1:1/x",
		"no database":  "postgres://u:" + password + "@127.0.0.1:1",
		"no URL":       "postgres://u:" + password + "@[",
	} {
		onPostgres(url)(&cfg)
		cfg.Log.InfoContext(t.Context(), "configuration", "database", cfg.Database)
		err := backend.Run(t.Context(), cfg)
		if err == nil || strings.Contains(err.Error()+log.String(), "Passw0rd") {
			t.Errorf("%s: Run = %v, log:\n%s\nwant an error, and the password nowhere", name, err, &log)
		}
	}
	file := filepath.Join(t.TempDir(), "url")
	if err := os.WriteFile(file, []byte("postgres://u:"+password+"@127.0.0.1:1/x\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cfg.Database.URL, cfg.Database.URLFile = "", file
	if err := backend.Run(t.Context(), cfg); err == nil || strings.Contains(err.Error(), "Passw0rd") || !strings.Contains(err.Error(), "127.0.0.1:1/x") {
		t.Errorf("Run = %v, want an error that names the database without the password", err)
	}
}
