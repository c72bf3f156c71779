package backend_test

import (
	"bytes"
	"errors"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// recoveryKey makes a recovery key and returns its file and its public half.
func recoveryKey(t *testing.T) (file, recipient string) {
	t.Helper()
	file = filepath.Join(t.TempDir(), "recovery.key")
	recipient, err := backend.NewRecoveryKey(file)
	if err != nil {
		t.Fatal(err)
	}
	return file, recipient
}

// engines are where a test may keep its records.
var engines = map[string]func(t *testing.T) func(*backend.Config){
	"SQLite": func(*testing.T) func(*backend.Config) { return func(*backend.Config) {} },
	"PostgreSQL": func(t *testing.T) func(*backend.Config) {
		t.Helper()
		return onPostgres(storetest.Database(t))
	},
}

type pollAnswer struct {
	Version        int64 `json:"version"`
	SnapshotNeeded bool  `json:"snapshot_needed"`
}

func (g gateway) poll(after string) (answer pollAnswer) {
	g.s.t.Helper()
	g.s.get("/api/v1/gateway/events?after="+after, g.credential()).want(http.StatusOK, "").into(&answer)
	return answer
}

func TestABackupOfARunningServiceIsRestoredElsewhereAndOnEitherEngine(t *testing.T) {
	for from, source := range engines {
		for to, target := range engines {
			t.Run(from+" to "+to, func(t *testing.T) {
				dir := dataDir(t)
				keyFile, recipient := recoveryKey(t)
				on := source(t)
				s := start(t, dir, func(cfg *backend.Config) { dev(cfg); on(cfg) })
				userID, _ := s.user("anna", 2, 2)
				d := s.enrol(s.invite(userID))
				unused := codeOf(t, s.invite(userID))
				g := s.newGateway()
				g.heartbeat()
				s.admin(http.MethodPost, "/outline-servers", map[string]any{
					"region": "here", "name": "exit", "access_key": "ss://aes-256-gcm:furniture-password@203.0.113.9:8388",
				}).want(http.StatusCreated, "")
				session := newSessionID()
				if got := g.validate(session, d); !got.Allowed {
					t.Fatalf("decision: %+v", got)
				}
				s.post("/api/v1/usage/report", g.credential(), map[string]any{"reports": []usageReport{
					{BootID: g.boot, SessionID: session, Sequence: 1, Up: 100, Down: 2000, At: time.Now()},
				}}).want(http.StatusOK, "")

				cfg := testConfig(t, dir)
				on(&cfg)
				cfg.Backup.Recipient = recipient
				file := filepath.Join(t.TempDir(), "service.age")
				if said, err := backend.Backup(t.Context(), cfg, file); err != nil || !strings.Contains(said, file) {
					t.Fatalf("Backup = %q, %v", said, err)
				}
				s.user("late", 1, 1)
				s.admin(http.MethodPatch, "/users/"+userID, map[string]any{"disabled": true}).want(http.StatusOK, "")
				seen := g.poll("0").Version
				if err := s.stop(); err != nil {
					t.Fatal(err)
				}

				said, err := backend.VerifyBackup(t.Context(), file, keyFile)
				if err != nil || !strings.Contains(said, "usage: 1 reports, 1 sessions, 100 bytes up, 2000 down: every total") ||
					!strings.Contains(said, "audit: all ") || !strings.Contains(said, "devices              1\n") {
					t.Errorf("VerifyBackup = %v:\n%s", err, said)
				}
				if _, err := os.Stat(file + ".verified"); err != nil {
					t.Error(err)
				}

				there := testConfig(t, dataDir(t))
				other := target(t)
				other(&there)
				if said, err = backend.Restore(t.Context(), there, file, keyFile); err != nil || !strings.Contains(said, "The service is as it was at ") {
					t.Fatalf("Restore = %q, %v", said, err)
				}
				if _, err := backend.Restore(t.Context(), there, file, keyFile); err == nil || !strings.Contains(err.Error(), "there is a service in it already") {
					t.Errorf("a second time: %v", err)
				}
				back := start(t, there.DataDir, other)
				if back.ready.Bootstrap != "" || pathOf(back.ready.API) != pathOf(s.ready.API) {
					t.Errorf("it is %+v, was %+v", back.ready, s.ready)
				}
				back.ready.Token = s.ready.Token
				users := string(back.admin(http.MethodGet, "/users", nil).want(http.StatusOK, "").text)
				if !strings.Contains(users, userID) || strings.Contains(users, "late") {
					t.Errorf("users: %s", users)
				}
				d.s, g.s = back, back
				d.tryToken().want(http.StatusOK, "")
				back.tryEnrol(newKey(t), unused).want(http.StatusForbidden, "invalid_invitation")
				if got := g.poll(strconv.FormatInt(seen, 10)); !got.SnapshotNeeded || got.Version <= seen {
					t.Errorf("a gateway that has version %d gets %+v", seen, got)
				}
				if unwanted := g.heartbeat().Close; len(unwanted) != 1 || unwanted[0].SessionID != session {
					t.Errorf("the gateway is to close %+v, want the session of before", unwanted)
				}
				again := newSessionID()
				if got := g.validate(again, d); !got.Allowed {
					t.Errorf("a new session: %+v", got)
				}
				audit := string(back.admin(http.MethodGet, "/audit?action=service.restored", nil).want(http.StatusOK, "").text)
				if strings.Count(audit, "service.restored") != 1 || !strings.Contains(audit, `"kind":"command"`) {
					t.Errorf("audit: %s", audit)
				}
				if verdict := string(back.admin(http.MethodGet, "/audit/verify", nil).want(http.StatusOK, "").text); !strings.Contains(verdict, `"ok":true`) {
					t.Errorf("audit: %s", verdict)
				}
				if verdict := string(back.admin(http.MethodGet, "/usage/verify", nil).want(http.StatusOK, "").text); !strings.Contains(verdict, `"ok":true`) {
					t.Errorf("usage: %s", verdict)
				}
				before, after := read(t, filepath.Join(dir, "kek")), read(t, filepath.Join(there.DataDir, "kek"))
				if bytes.Equal(before, after) {
					t.Error("the machine that restored has the key of the one that was backed up")
				}
				for what, secret := range map[string][]byte{"the name of a user": []byte("anna"), "the key": bytes.TrimSpace(before)} {
					if bytes.Contains(read(t, file), secret) {
						t.Errorf("%s is in the file", what)
					}
				}
			})
		}
	}
}

// pathOf is the secret prefix of an API.
func pathOf(api string) string { return api[strings.LastIndex(api, "/"):] }

func read(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestABackupThatIsNotGoodIsRefusedBeforeAnythingIsTouched(t *testing.T) {
	dir := dataDir(t)
	keyFile, recipient := recoveryKey(t)
	otherKey, _ := recoveryKey(t)
	if err := start(t, dir, dev).stop(); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, dir)
	file := filepath.Join(t.TempDir(), "service.age")
	if _, err := backend.Backup(t.Context(), cfg, file); err == nil || !strings.Contains(err.Error(), "backup key --out FILE makes") {
		t.Errorf("a backup for nobody: %v", err)
	}
	cfg.Backup.Recipient = recipient
	if _, err := backend.Backup(t.Context(), cfg, file); err != nil {
		t.Fatal(err)
	}
	whole := read(t, file)
	if _, err := backend.Backup(t.Context(), cfg, file); !errors.Is(err, fs.ErrExist) || !bytes.Equal(read(t, file), whole) {
		t.Errorf("over a backup that is there: %v", err)
	}
	put := func(data []byte) string {
		path := filepath.Join(t.TempDir(), "bad.age")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	changed := bytes.Clone(whole)
	changed[len(changed)/2] ^= 1
	for name, tc := range map[string]struct{ file, key, want string }{
		"another key":    {file, otherKey, "made for another recovery key"},
		"no key":         {file, filepath.Join(dir, "none"), "no such file"},
		"a missing file": {filepath.Join(dir, "none"), keyFile, "no such file"},
		"cut off":        {put(whole[:len(whole)-1]), keyFile, "damaged or incomplete"},
		"changed":        {put(changed), keyFile, "damaged or incomplete"},
		"foreign":        {put(read(t, filepath.Join(dir, "backend.db"))), keyFile, "no backup of this program"},
	} {
		empty := testConfig(t, dataDir(t))
		if _, err := backend.Restore(t.Context(), empty, tc.file, tc.key); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: Restore = %v, want %q", name, err, tc.want)
		}
		if _, err := os.Stat(empty.DataDir); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: something was made: %v", name, err)
		}
		if _, err := backend.VerifyBackup(t.Context(), tc.file, tc.key); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: VerifyBackup = %v, want %q", name, err, tc.want)
		}
		if _, err := os.Stat(tc.file + ".verified"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: it was noted as verified", name)
		}
	}
	before := read(t, filepath.Join(dir, "backend.db"))
	if _, err := backend.Restore(t.Context(), cfg, file, keyFile); err == nil || !strings.Contains(err.Error(), "there is a service in it already") {
		t.Errorf("over a service: %v", err)
	}
	if !bytes.Equal(read(t, filepath.Join(dir, "backend.db")), before) {
		t.Error("the service that was there was changed")
	}
}

// What a backup says is what its service's records say, also when somebody else has
// changed these: it is whole, and not good.
func TestABackupOfRecordsThatWereChangedIsNotVerified(t *testing.T) {
	keyFile, recipient := recoveryKey(t)
	dir := dataDir(t)
	s := start(t, dir, dev)
	userID, _ := s.user("anna", 1, 1)
	d := s.enrol(s.invite(userID))
	g := s.newGateway()
	g.heartbeat()
	session := newSessionID()
	if got := g.validate(session, d); !got.Allowed {
		t.Fatalf("decision: %+v", got)
	}
	s.post("/api/v1/usage/report", g.credential(), map[string]any{"reports": []usageReport{
		{BootID: g.boot, SessionID: session, Sequence: 1, Up: 100, Down: 2000, At: time.Now()},
	}}).want(http.StatusOK, "")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, dir)
	cfg.Backup.Recipient = recipient
	db := storetest.SQL(t, filepath.Join(dir, "backend.db"), "")
	for _, tc := range []struct{ name, change, undo, want string }{
		{"as it was", "", "", ""},
		{"an entry of the audit log", "UPDATE audit SET reason = 'x' WHERE number = 3", "UPDATE audit SET reason = '' WHERE number = 3", "the audit log is broken at entry 3"},
		{"what was moved", "UPDATE usage_sessions SET up = up + 1", "UPDATE usage_sessions SET up = up - 1", "totals of the usage are not what the reports lead to"},
		{"a sum", "UPDATE usage_totals SET down = down + 1", "UPDATE usage_totals SET down = down - 1", "totals of the usage are not what the reports lead to"},
	} {
		run := func(statement string) {
			if statement == "" {
				return
			}
			if done, err := db.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			} else if n, err := done.RowsAffected(); err != nil || n == 0 {
				t.Fatalf("%s: %d rows, %v", statement, n, err)
			}
		}
		run(tc.change)
		file := filepath.Join(t.TempDir(), "service.age")
		if _, err := backend.Backup(t.Context(), cfg, file); err != nil {
			t.Fatal(err)
		}
		said, err := backend.VerifyBackup(t.Context(), file, keyFile)
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: VerifyBackup = %v, want %q:\n%s", tc.name, err, tc.want, said)
		}
		if _, err := os.Stat(file + ".verified"); (err == nil) != (tc.want == "") {
			t.Errorf("%s: whether it is noted as verified: %v", tc.name, err)
		}
		run(tc.undo)
	}
}

func TestARunningServiceMakesBackupsAndProvesThem(t *testing.T) {
	keyFile, recipient := recoveryKey(t)
	backups := t.TempDir()
	s := start(t, dataDir(t), func(cfg *backend.Config) {
		cfg.Backup.Directory, cfg.Backup.Recipient, cfg.Backup.RecoveryKeyFile = backups, recipient, keyFile
	})
	metric := func(name string) bool {
		for line := range strings.Lines(string(s.probe("/metrics").text)) {
			if value, ok := strings.CutPrefix(line, name+" "); ok && strings.TrimSpace(value) != "0" {
				return true
			}
		}
		return false
	}
	for end := time.Now().Add(time.Minute); !metric("httvps_backend_backup_verified_timestamp_seconds"); <-time.After(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no backup is verified; log: %s", s.log)
		}
	}
	if !metric("httvps_backend_backup_timestamp_seconds") || !metric(`httvps_backend_backups_total{result="made"}`) || !metric(`httvps_backend_backups_total{result="verified"}`) {
		t.Errorf("metrics: %s", s.probe("/metrics").text)
	}
	files, err := filepath.Glob(filepath.Join(backups, "httvps-*.age"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%v, %v", files, err)
	}
	if _, err := backend.VerifyBackup(t.Context(), files[0], keyFile); err != nil {
		t.Error(err)
	}
	if log := s.log.String(); !strings.Contains(log, "backup made") || strings.Contains(log, "AGE-SECRET") {
		t.Errorf("log: %s", log)
	}
}
