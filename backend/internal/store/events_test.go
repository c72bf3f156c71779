package store

import (
	"context"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

func appendEvent(ctx context.Context, s *Store, user string) error {
	return s.Write(ctx, func(_ context.Context, tx control.Tx) error {
		tx.AppendEvent(control.Event{Kind: control.EventUserDisabled, At: time.Now(), UserID: user, All: true})
		return nil
	})
}

func eventLog(t *testing.T, s *Store) (log control.EventLog) {
	t.Helper()
	err := s.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
		var err error
		log, err = tx.Events(ctx, 0, 100)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return log
}

// wantUsers fails the test unless the log has the events of these users, in this
// order and without a gap.
func wantUsers(t *testing.T, s *Store, users ...string) {
	t.Helper()
	log := eventLog(t, s)
	if len(log.Events) != len(users) || log.Latest != int64(len(users)) {
		t.Fatalf("the log is %+v, want the events of %v", log, users)
	}
	for i, e := range log.Events {
		if e.UserID != users[i] || e.Version != int64(i+1) {
			t.Errorf("event %d is of %s with version %d, want %s", i+1, e.UserID, e.Version, users[i])
		}
	}
}

func TestOnPostgreSQLAUnitOfWorkHeldOpenHidesNoLaterEvent(t *testing.T) {
	s := openTest(t, Config{URL: migrated(t)})
	appended, release, held := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		held <- s.Write(t.Context(), func(_ context.Context, tx control.Tx) error {
			tx.AppendEvent(control.Event{Kind: control.EventUserDisabled, At: time.Now(), UserID: "first to begin", All: true})
			close(appended)
			<-release
			return nil
		})
	}()
	<-appended
	if err := appendEvent(t.Context(), s, "first to end"); err != nil {
		t.Fatal(err)
	}
	wantUsers(t, s, "first to end")
	close(release)
	if err := <-held; err != nil {
		t.Fatal(err)
	}
	wantUsers(t, s, "first to end", "first to begin")
}

func TestOnPostgreSQLAVersionIsVisibleOnlyAfterAllBeforeIt(t *testing.T) {
	s := openTest(t, Config{URL: migrated(t)})
	for _, end := range []string{"ROLLBACK", "COMMIT"} {
		conn, err := s.writer.Conn(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		before := eventLog(t, s)
		// One that has taken its version and not ended yet.
		for _, statement := range []string{
			"BEGIN", "UPDATE event_log SET latest = latest + 1",
			`INSERT INTO events SELECT latest, 'user.disabled', NULL, '', 'held', '', '', '', '', '', 0 FROM event_log`,
		} {
			if _, err := conn.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(err)
			}
		}
		var overtook atomic.Bool
		ended := make(chan error, 1)
		go func() {
			err := appendEvent(t.Context(), s, "waiting")
			overtook.Store(true)
			ended <- err
		}()
		awaitBlocked(t, s)
		if log := eventLog(t, s); log.Latest != before.Latest || len(log.Events) != len(before.Events) || overtook.Load() {
			t.Errorf("somebody sees %+v behind one that has not ended, overtook=%v", log, overtook.Load())
		}
		if _, err := conn.ExecContext(t.Context(), end); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
		if err := conn.Close(); err != nil {
			t.Fatal(err)
		}
	}
	wantUsers(t, s, "waiting", "held", "waiting")
}

// awaitBlocked waits until a connection waits for a lock.
func awaitBlocked(t *testing.T, s *Store) {
	t.Helper()
	for {
		var n int
		err := s.reader.QueryRowContext(t.Context(), `SELECT COUNT(*) FROM pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
			WHERE NOT l.granted AND a.datname = current_database()`).Scan(&n)
		if err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			return
		}
	}
}

func TestWhoeverWantsToKnowIsToldOfEventsOnceTheyAreThere(t *testing.T) {
	var (
		told atomic.Int64
		s    *Store
	)
	s = openTest(t, Config{Path: filepath.Join(t.TempDir(), "x.db"), Appended: func() {
		if told.Add(1); eventLog(t, s).Latest != told.Load() {
			t.Error("told before it can be seen")
		}
	}})
	if err := putNote(t.Context(), s, "no event"); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := appendEvent(t.Context(), s, "x"); err != nil {
			t.Fatal(err)
		}
	}
	if told.Load() != 2 {
		t.Errorf("told %d times, want 2", told.Load())
	}
}

func TestOnPostgreSQLOnlyThoseServeTogetherWhoHearOfEachOther(t *testing.T) {
	cfg := Config{URL: migrated(t), MaxConnections: 1}
	attend := func(withBus bool) (*Presence, error) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second) // and not 40 s
		defer cancel()
		return openTest(t, cfg).Attend(ctx, withBus)
	}
	want := func(withBus, allowed bool) *Presence {
		t.Helper()
		p, err := attend(withBus)
		if (err == nil) != allowed {
			t.Fatalf("Attend(bus: %v) = %v, want allowed=%v", withBus, err, allowed)
		}
		return p
	}
	leave := func(ps ...*Presence) {
		t.Helper()
		for _, p := range ps {
			if err := p.Close(); err != nil {
				t.Error(err)
			}
		}
	}
	alone := want(false, true)
	want(false, false)
	want(true, false)
	leave(alone)
	one, two := want(true, true), want(true, true)
	want(false, false)
	leave(one)
	want(false, false)
	leave(two)
	leave(want(false, true))
}

func TestOnPostgreSQLAPresenceIsTakenAgainAfterTheServerWasAway(t *testing.T) {
	s := openTest(t, Config{URL: migrated(t)})
	p, err := s.Attend(t.Context(), false)
	if err != nil {
		t.Fatal(err)
	}
	cut := func() {
		t.Helper()
		if _, err := s.writer.ExecContext(t.Context(), `SELECT pg_terminate_backend(l.pid, 10000) FROM pg_locks l
			WHERE l.locktype = 'advisory' AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())`); err != nil {
			t.Fatal(err)
		}
	}
	cut()
	p.check(t.Context())
	if err := p.Check(); err != nil {
		t.Errorf("Check = %v", err)
	}
	if _, err := s.Attend(expired(t), false); err == nil {
		t.Error("the lock was not taken again")
	}
	cut()
	other, err := s.Attend(t.Context(), false) // was faster
	if err != nil {
		t.Fatal(err)
	}
	p.check(t.Context())
	if err := p.Check(); err == nil {
		t.Error("two serve alone")
	}
	if err := other.Close(); err != nil {
		t.Error(err)
	}
	p.check(t.Context())
	if err := p.Check(); err != nil {
		t.Errorf("Check after the other has gone = %v", err)
	}
	if err := p.Close(); err != nil {
		t.Error(err)
	}
}

// expired is time enough for one attempt, and not for waiting.
func expired(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 400*time.Millisecond)
	t.Cleanup(cancel)
	return ctx
}
