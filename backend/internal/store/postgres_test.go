package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/seal"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// migrated returns the URL of a database with today's schema.
var migrated = storetest.Template(func(ctx context.Context, url string) error {
	_, err := Migrate(ctx, Config{URL: url})
	return err
})

func TestPostgreSQL(t *testing.T) {
	storetest.Run(t, func(t *testing.T) control.Store {
		t.Helper()
		return openTest(t, Config{URL: migrated(t)})
	})
}

// execute runs statements in a database, each by itself.
func execute(t *testing.T, address string, statements ...string) {
	t.Helper()
	db, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	for _, statement := range statements {
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}

// with returns an address with another account, database or parameters.
func with(t *testing.T, address string, change func(*url.URL)) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatal(err)
	}
	change(u)
	return u.String()
}

func TestAPostgreSQLDatabaseThatIsOutOfReachComesBackByItself(t *testing.T) {
	server := storetest.StartServer(t)
	s := openTest(t, Config{URL: server.Database(t)})
	if err := putNote(t.Context(), s, "before"); err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(testing.TB){"stopped": server.Stop, "crashed": server.Crash} {
		end(t)
		_, readErr := note(t.Context(), s)
		for what, err := range map[string]error{"Read": readErr, "Write": putNote(t.Context(), s, "during"), "Ping": s.Ping(t.Context())} {
			if !errors.Is(err, control.ErrUnavailable) || strings.Contains(err.Error(), server.Password()) {
				t.Errorf("%s: %s = %v, want ErrUnavailable without the password", name, what, err)
			}
		}
		server.Start(t)
		wantNote(t, s, "before")
		if err := errors.Join(s.Ping(t.Context()), putNote(t.Context(), s, "before")); err != nil {
			t.Errorf("%s and back: %v", name, err)
		}
	}
}

func TestPostgreSQLConnectionsThatBrokeUnnoticedAreReplaced(t *testing.T) {
	address := migrated(t)
	s := openTest(t, Config{URL: address})
	other, err := sql.Open("pgx", address)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	for range 3 {
		var group sync.WaitGroup
		for range 64 {
			group.Go(func() {
				if err := s.Ping(t.Context()); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()
		// The driver looks after connections that were idle for a second; these were not.
		if _, err := other.ExecContext(t.Context(), `SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity
			WHERE datname = current_database() AND pid <> pg_backend_pid()`); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestAPostgreSQLServerThatEndsInMidWorkUndoesIt(t *testing.T) {
	server := storetest.StartServer(t)
	s := openTest(t, Config{URL: server.Database(t)})
	runs := 0
	err := s.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
		runs++
		if err := tx.PutSetting(ctx, "note", "half"); err != nil {
			return err
		}
		server.Crash(t)
		return tx.PutSetting(ctx, "note", "whole")
	})
	if !errors.Is(err, control.ErrUnavailable) || runs != 1 {
		t.Errorf("Write = %v after %d runs, want ErrUnavailable after 1", err, runs)
	}
	server.Start(t)
	if _, err := note(t.Context(), s); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("half of the work is there: %v", err)
	}
}

func TestWhatPostgreSQLHasToldSurvivesACrash(t *testing.T) {
	server := storetest.StartServer(t)
	s := openTest(t, Config{URL: server.Database(t)})
	var (
		group  sync.WaitGroup
		mu     sync.Mutex
		told   []string
		enough = make(chan struct{})
		once   sync.Once
	)
	for caller := range 8 {
		group.Go(func() {
			for n := 0; ; n++ {
				name := fmt.Sprintf("%d-%d", caller, n)
				if err := s.Write(t.Context(), func(ctx context.Context, tx control.Tx) error { return tx.PutSetting(ctx, name, "x") }); err != nil {
					if !errors.Is(err, control.ErrUnavailable) {
						t.Error(err)
					}
					return
				}
				mu.Lock()
				told = append(told, name)
				if len(told) == 200 {
					once.Do(func() { close(enough) })
				}
				mu.Unlock()
			}
		})
	}
	<-enough
	server.Crash(t)
	group.Wait()
	server.Start(t)
	err := s.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
		for _, name := range told {
			if _, err := tx.Setting(ctx, name); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		t.Errorf("something that was told is lost: %v", err)
	}
}

func TestPostgreSQLUnitsOfWorkThatBlockEachOtherRunAgain(t *testing.T) {
	s := openTest(t, Config{URL: migrated(t)})
	ids := []string{"a", "b"}
	err := s.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
		for _, id := range ids {
			if err := tx.InsertUser(ctx, control.User{ID: id, Name: id, CreatedAt: time.Now()}); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	var (
		group sync.WaitGroup
		both  sync.WaitGroup // have locked their first user
		mu    sync.Mutex
		runs  int
	)
	both.Add(2)
	for i := range 2 {
		group.Go(func() {
			first := true
			err := s.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
				mu.Lock()
				runs++
				mu.Unlock()
				if _, err := tx.LockUser(ctx, ids[i]); err != nil {
					return err
				}
				if first {
					first = false
					both.Done()
					both.Wait()
				}
				_, err := tx.LockUser(ctx, ids[1-i])
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if runs != 3 {
		t.Errorf("%d runs, want 3: one of the two again", runs)
	}
}

func TestAPostgreSQLServerThatTakesNoWritesAnyMoreIsLeft(t *testing.T) {
	s := openTest(t, Config{URL: migrated(t), MaxConnections: 1})
	if _, err := s.writer.ExecContext(t.Context(), "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY"); err != nil { // as after a fail-over
		t.Fatal(err)
	}
	if err := putNote(t.Context(), s, "x"); !errors.Is(err, control.ErrUnavailable) {
		t.Errorf("Write = %v, want ErrUnavailable", err)
	}
	if err := putNote(t.Context(), s, "y"); err != nil {
		t.Errorf("Write on a new connection: %v", err)
	}
}

func TestTwoProcessesShareAPostgreSQLDatabase(t *testing.T) {
	cfg := Config{URL: migrated(t)}
	one, other := openTest(t, cfg), openTest(t, cfg)
	if err := putNote(t.Context(), one, "from the first"); err != nil {
		t.Fatal(err)
	}
	wantNote(t, other, "from the first")
}

func TestConnectionsToPostgreSQLAreBounded(t *testing.T) {
	cfg := Config{URL: migrated(t), MaxConnections: 3}
	s := openTest(t, cfg)
	var group sync.WaitGroup
	for range 64 {
		group.Go(func() {
			if err := s.Ping(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if got := s.writer.Stats().MaxOpenConnections; got != 3 {
		t.Errorf("the pool takes %d connections, want 3", got)
	}
	var connections int
	err := s.reader.QueryRowContext(t.Context(), "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = current_database()").Scan(&connections)
	if err != nil || connections > 3 {
		t.Errorf("%d connections, %v, want at most 3", connections, err)
	}
	for setting, want := range map[string]string{
		"application_name": "httvps-backend", "statement_timeout": "15s", "idle_in_transaction_session_timeout": "30s",
	} {
		var got string
		if err := s.reader.QueryRowContext(t.Context(), "SELECT current_setting($1)", setting).Scan(&got); err != nil || got != want {
			t.Errorf("%s is %q, %v, want %q", setting, got, err, want)
		}
	}
}

func TestAPostgreSQLStatementThatTakesTooLongIsGivenUp(t *testing.T) {
	address := with(t, migrated(t), func(u *url.URL) { u.RawQuery += "&statement_timeout=1s" }) // the URL's own counts
	s := openTest(t, Config{URL: address})
	if err := putNote(t.Context(), s, "x"); err != nil {
		t.Fatal(err)
	}
	err := s.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
		if _, err := tx.Setting(ctx, "note"); err != nil { // holds it
			return err
		}
		if err := putNote(ctx, s, "y"); !errors.Is(err, control.ErrUnavailable) {
			t.Errorf("Write of what another holds = %v, want ErrUnavailable", err)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// A recomputation of the account takes time with the number of reports. What stands in
// its way here is a lock, which the server counts as a statement's time as well.
func TestARecomputationOnPostgreSQLMayTakeLongerThanOtherStatements(t *testing.T) {
	address := migrated(t)
	keys, err := seal.Open(seal.Source{File: filepath.Join(t.TempDir(), "kek"), Make: true})
	if err != nil {
		t.Fatal(err)
	}
	authority, err := control.Open(t.Context(), control.Options{
		Store:  openTest(t, Config{URL: with(t, address, func(u *url.URL) { u.RawQuery += "&statement_timeout=500ms" })}),
		Sealer: keys, Now: time.Now, PublicURL: "https://vpn.example.net", Heartbeat: time.Second, KnockCookie: "sid", KnockRotation: 24 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	s := openTest(t, Config{URL: address})
	other, err := s.writer.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Rollback() //nolint:errcheck // gives the table back
	if _, err := other.ExecContext(t.Context(), "LOCK TABLE usage_reports IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	verified := make(chan error, 1)
	go func() {
		_, err := authority.VerifyUsage(t.Context())
		verified <- err
	}()
	awaitBlocked(t, s)
	if _, err := other.ExecContext(t.Context(), "SELECT pg_sleep(1)"); err != nil { // twice what others may take
		t.Fatal(err)
	}
	if err := other.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-verified; err != nil {
		t.Error(err)
	}
}

func TestWhatCannotBeUsedOnPostgreSQLIsSaidWithoutThePassword(t *testing.T) {
	address := storetest.Database(t)
	secret, _ := func() (string, bool) { u, _ := url.Parse(address); return u.User.Password() }()
	foreign, pending := storetest.Database(t), storetest.Database(t)
	execute(t, foreign, "CREATE TABLE theirs (a TEXT)")
	name := strings.TrimPrefix(must(url.Parse(pending)).Path, "/")
	execute(t, pending, // the server goes with all that
		"CREATE ROLE "+name+" LOGIN PASSWORD '"+secret+"'", "CREATE DATABASE latin_"+name+" ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
	for name, tc := range map[string]struct {
		url  string
		want error
		says string
	}{
		"tables of another program": {foreign, ErrForeign, "database of its own"},
		"another encoding":          {with(t, address, func(u *url.URL) { u.Path = "/latin_" + name }), ErrUnsuitable, "UTF8"},
		"no right to make tables":   {with(t, pending, func(u *url.URL) { u.User = url.UserPassword(name, secret) }), ErrUnsuitable, "may not make tables"},
		"no schema":                 {with(t, address, func(u *url.URL) { u.RawQuery += "&search_path=nowhere" }), ErrUnsuitable, "search_path"},
		"a wrong password":          {with(t, address, func(u *url.URL) { u.User = url.UserPassword("httvps", "Wr0ng"+secret) }), nil, "password authentication failed"},
		"no such database":          {with(t, address, func(u *url.URL) { u.Path = "/nowhere" }), nil, "does not exist"},
		"nobody there":              {with(t, address, func(u *url.URL) { u.Host = "127.0.0.1:1" }), nil, "refused"},
		"no host of this name":      {with(t, address, func(u *url.URL) { u.Host = "nowhere.invalid" }), nil, "nowhere.invalid"},
		"no URL":                    {"postgres://a:" + secret + "@[b", nil, "database.url"},
		"no port":                   {"postgres://a:" + secret + "@b:c/d", nil, "database.url"},
		"a file that is missing":    {with(t, address, func(u *url.URL) { u.RawQuery = "sslmode=verify-full&sslrootcert=/nowhere" }), nil, "files"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(t.Context(), Config{URL: tc.url})
			var databaseErr *DatabaseError
			if !errors.As(err, &databaseErr) || tc.want != nil && !errors.Is(err, tc.want) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Open = %v, want a DatabaseError that says %q", err, tc.says)
			}
			if text := fmt.Sprintf("%v %+v %s", err, err, databaseErr.Database); strings.Contains(text, secret) {
				t.Errorf("the error has the password: %s", text)
			}
		})
	}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func TestStatesOfPostgreSQLAreJudged(t *testing.T) {
	for state, want := range map[string]verdict{
		"23505": clash, "40P01": crowded, "40001": crowded, "57P01": away, "53100": full, "08006": away, "25006": moved,
		"57014": away, "58030": away, "XX001": corrupt, "42P01": other, "22021": other, "": other,
	} {
		if got := judgeState(state); got != want {
			t.Errorf("%s is judged %d, want %d", state, got, want)
		}
	}
}
