package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// withStep returns our steps and further ones on both engines.
func withStep(t *testing.T, sql ...string) fs.FS {
	t.Helper()
	steps := make(fstest.MapFS)
	err := fs.WalkDir(migrations, "migrations", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := fs.ReadFile(migrations, path)
		steps[strings.TrimPrefix(path, "migrations/")] = &fstest.MapFile{Data: data}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, engine := range []string{"sqlite", "postgres"} {
		for i, sql := range sql {
			steps[fmt.Sprintf("%s/%05d_further.sql", engine, 900+i)] = &fstest.MapFile{
				Data: []byte("-- why\n\n-- +goose Up\n" + sql + "\n\n-- +goose Down\nSELECT 1;\n"),
			}
		}
	}
	return steps
}

const furtherTable = "CREATE TABLE further (a TEXT);"

// onBoth runs a test on a new database of each engine.
func onBoth(t *testing.T, test func(t *testing.T, cfg Config)) {
	t.Helper()
	t.Run("SQLite", func(t *testing.T) { test(t, Config{Path: filepath.Join(t.TempDir(), "x.db")}) })
	t.Run("PostgreSQL", func(t *testing.T) { test(t, Config{URL: storetest.Database(t)}) })
}

func TestBothEnginesHaveTheSameSteps(t *testing.T) {
	var all [][]Migration
	for _, cfg := range []Config{{Path: "x"}, {URL: "postgres://localhost/x"}} {
		engine, err := cfg.engine()
		if err != nil {
			t.Fatal(err)
		}
		steps, err := engine.steps()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, steps)
	}
	if len(all[0]) != len(all[1]) {
		t.Fatalf("SQLite has %d steps, PostgreSQL %d", len(all[0]), len(all[1]))
	}
	last := int64(0) // numbers are given out to branches, so some may be missing
	for i, step := range all[0] {
		if step.Name != all[1][i].Name || step.Version <= last || step.SQL == "\n" {
			t.Errorf("step %d is %s (%d) on SQLite, %s on PostgreSQL", i+1, step.Name, step.Version, all[1][i].Name)
		}
		last = step.Version
	}
}

func TestPendingStepsAreShownAndNothingIsChangedOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg Config) {
		t.Helper()
		all, err := Pending(t.Context(), cfg)
		if err != nil || len(all) == 0 || !strings.Contains(all[0].SQL, "CREATE TABLE settings") || strings.Contains(all[0].SQL, "goose") {
			t.Fatalf("Pending of nothing = %+v, %v, want all steps with their SQL", all, err)
		}
		if again, err := Pending(t.Context(), cfg); err != nil || len(again) != len(all) {
			t.Errorf("Pending again = %d steps, %v: something was changed", len(again), err)
		}
		s, err := Open(t.Context(), cfg)
		if err != nil {
			t.Fatal(err)
		}
		closeOnce := sync.OnceValue(s.Close)
		t.Cleanup(func() { _ = closeOnce() }) // checked below
		cfg.steps = withStep(t, furtherTable)
		for _, while := range []string{"in use", "closed"} {
			pending, err := Pending(t.Context(), cfg)
			if err != nil || len(pending) != 1 || pending[0].Name != "00900_further.sql" || pending[0].SQL != furtherTable+"\n" {
				t.Errorf("%s: Pending = %+v, %v, want the further step", while, pending, err)
			}
			if err := closeOnce(); err != nil {
				t.Fatal(err)
			}
		}
		applied, err := Migrate(t.Context(), cfg)
		if err != nil || len(applied) != 1 || applied[0].Version != 900 || !applied[0].Applied {
			t.Errorf("Migrate = %+v, %v, want the further step", applied, err)
		}
		if pending, err := Pending(t.Context(), cfg); err != nil || len(pending) != 0 {
			t.Errorf("Pending after = %+v, %v", pending, err)
		}
	})
}

func TestLookingLeavesTheFilesAsTheyAre(t *testing.T) {
	dir := t.TempDir()
	cfg := Config{Path: filepath.Join(dir, "x.db")}
	if _, err := Pending(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if files := snapshot(t, dir); len(files) != 0 {
		t.Errorf("looking at nothing made %v", files)
	}
	if _, err := Migrate(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, dir)
	if _, err := Migrations(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if after := snapshot(t, dir); len(after) != len(before) || after["x.db"] != before["x.db"] {
		t.Errorf("looking changed %v into %v", before, after)
	}
}

func TestAStepThatFailsLeavesTheDatabaseAsItWasOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg Config) {
		t.Helper()
		openAndClose(t, cfg)
		cfg.steps = withStep(t, "CREATE TABLE half (a TEXT);\nINSERT INTO nowhere VALUES (1);")
		_, err := Open(t.Context(), cfg)
		var databaseErr *DatabaseError
		if !errors.As(err, &databaseErr) || !strings.Contains(err.Error(), "version:900") {
			t.Errorf("Open = %v, want a DatabaseError that names the step", err)
		}
		cfg.steps = withStep(t, "CREATE TABLE half (a TEXT);")
		openTest(t, cfg)
	})
}

func openAndClose(t *testing.T, cfg Config) {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// oldestSchema is what a step says about older programs.
func oldestSchema(version int64) string {
	return fmt.Sprintf("INSERT INTO settings (name, value) VALUES ('oldest_schema', '%d') ON CONFLICT (name) DO UPDATE SET value = excluded.value;", version)
}

// ownVersion is the version of the schema that this program has.
func ownVersion(t *testing.T) int64 {
	t.Helper()
	engine, err := Config{Path: "x"}.engine()
	if err != nil {
		t.Fatal(err)
	}
	steps, err := engine.steps()
	if err != nil {
		t.Fatal(err)
	}
	return steps[len(steps)-1].Version
}

func TestANewerSchemaThatThisProgramCannotRunOnIsRefusedOnBothEngines(t *testing.T) {
	own := strconv.FormatInt(ownVersion(t), 10)
	for name, tc := range map[string]struct{ says, want string }{
		"it says so":                 {oldestSchema(900), "schema 900, for programs with 900 or newer; this one has " + own},
		"it says so of older ones":   {oldestSchema(ownVersion(t) + 1), "or newer; this one has " + own},
		"it says nothing":            {"DELETE FROM settings WHERE name = 'oldest_schema';", "schema 900, for programs with 900 or newer"},
		"it says what is no version": {"UPDATE settings SET value = 'x' WHERE name = 'oldest_schema';", "setting oldest_schema"},
	} {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, cfg Config) {
				t.Helper()
				newer := cfg
				newer.steps = withStep(t, furtherTable+"\n"+tc.says)
				openAndClose(t, newer)
				for name, open := range openings(t, cfg) {
					err := open()
					if err == nil || !strings.Contains(err.Error(), tc.want) || errors.Is(err, ErrNewerSchema) == strings.HasPrefix(tc.want, "setting") {
						t.Errorf("%s: %v, want an error that has %q", name, err, tc.want)
					}
				}
				openTest(t, newer) // as it was
			})
		})
	}
}

// openings are all ways to come to a database.
func openings(t *testing.T, cfg Config) map[string]func() error {
	t.Helper()
	closed := func(s *Store, err error) error {
		if err == nil {
			err = s.Close()
		}
		return err
	}
	return map[string]func() error{
		"open":    func() error { return closed(Open(t.Context(), cfg)) },
		"look":    func() error { return closed(Look(t.Context(), cfg)) },
		"migrate": func() error { _, err := Migrate(t.Context(), cfg); return err },
		"status":  func() error { _, err := Migrations(t.Context(), cfg); return err },
		"dry-run": func() error { _, err := Pending(t.Context(), cfg); return err },
	}
}

func TestANewerSchemaThatThisProgramCanRunOnIsUsedAsItIsOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg Config) {
		t.Helper()
		newer := cfg
		newer.steps = withStep(t, furtherTable+"\n"+oldestSchema(ownVersion(t)))
		openAndClose(t, newer)
		for name, open := range openings(t, cfg) {
			if err := open(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		all, err := Migrations(t.Context(), cfg)
		if last := all[len(all)-1]; err != nil || last.Version != 900 || !last.Applied || last.SQL != "" || !strings.Contains(last.Name, "newer version") {
			t.Errorf("Migrations ends with %+v, %v, want the step of the newer program", last, err)
		}
		if steps, err := Migrate(t.Context(), cfg); err != nil || len(steps) != 0 {
			t.Errorf("Migrate = %v, %v, want nothing to do", steps, err)
		}
		var log bytes.Buffer
		cfg.Log = slog.New(slog.NewTextHandler(&log, nil))
		s := openTest(t, cfg)
		if err := errors.Join(putNote(t.Context(), s, "from an old one"), s.Ping(t.Context()), s.Ping(t.Context())); err != nil {
			t.Error(err)
		}
		if n := strings.Count(log.String(), "schema is newer"); n != 1 {
			t.Errorf("the log says it %d times:\n%s", n, &log)
		}
		cfg.OwnSchema = true
		if s, err := Look(t.Context(), cfg); !errors.Is(err, ErrNewerSchema) || !strings.Contains(err.Error(), "use that one for this") {
			t.Errorf("Look = %v, %v where all of the schema must be known", s, err)
		}
	})
}

func TestWhoRunsWhileTheSchemaBecomesTooNewIsNotReadyOnPostgreSQL(t *testing.T) {
	cfg := Config{URL: storetest.Database(t)}
	s := openTest(t, cfg)
	if err := s.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct {
		oldest  int64
		refused bool
	}{{ownVersion(t), false}, {900, true}} {
		cfg.steps = withStep(t, furtherTable+"\n"+oldestSchema(step.oldest))
		if step.refused {
			cfg.steps = withStep(t, furtherTable, "CREATE TABLE furthest (a TEXT);\n"+oldestSchema(step.oldest))
		}
		if _, err := Migrate(t.Context(), cfg); err != nil {
			t.Fatal(err)
		}
		if err := s.Ping(t.Context()); errors.Is(err, ErrNewerSchema) != step.refused || err != nil != step.refused {
			t.Errorf("Ping = %v on a schema for %d or newer", err, step.oldest)
		}
	}
}

// stepsOf returns the files of an engine's steps.
func stepsOf(t *testing.T, engine string) []Migration {
	t.Helper()
	dir, err := fs.Sub(migrations, "migrations/"+engine)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := readSteps(dir)
	if err != nil {
		t.Fatal(err)
	}
	return steps
}

func TestEachStepSaysWhichProgramsCanRunOnItOnBothEngines(t *testing.T) {
	// The first step that says it; there was no release with less.
	const first = 9
	said := regexp.MustCompile(`(?m)^INSERT INTO settings \(name, value\) VALUES \('oldest_schema', '(\d+)'\) ON CONFLICT \(name\) DO UPDATE SET value = excluded\.value;$`)
	for _, engine := range []string{"sqlite", "postgres"} {
		last := int64(first)
		for _, step := range stepsOf(t, engine) {
			if step.Version < first {
				continue
			}
			found := said.FindAllStringSubmatch(step.SQL, -1)
			if len(found) != 1 {
				t.Errorf("%s/%s does not say it, as %s does", engine, step.Name, oldestSchema(step.Version))
				continue
			}
			oldest, err := strconv.ParseInt(found[0][1], 10, 64)
			if err != nil || oldest < last || oldest > step.Version {
				t.Errorf("%s/%s says %d, want %d to %d", engine, step.Name, oldest, last, step.Version)
			}
			last = oldest
		}
	}
}

func TestADatabaseThatMustExistIsNotMadeOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg Config) {
		t.Helper()
		cfg.MustExist = true
		if _, err := Open(t.Context(), cfg); !errors.Is(err, ErrNoService) && !errors.Is(err, os.ErrNotExist) {
			t.Errorf("Open = %v, want ErrNoService or os.ErrNotExist", err)
		}
		cfg.MustExist = false
		openAndClose(t, cfg)
		cfg.MustExist = true
		openTest(t, cfg)
	})
}

func TestOfManyThatMigratePostgreSQLOneDoes(t *testing.T) {
	cfg := Config{URL: storetest.Database(t)}
	var (
		group   sync.WaitGroup
		mu      sync.Mutex
		applied int
	)
	for range 4 {
		group.Go(func() {
			steps, err := Migrate(context.WithoutCancel(t.Context()), cfg)
			if err != nil {
				t.Error(err)
			}
			mu.Lock()
			applied += len(steps)
			mu.Unlock()
		})
	}
	group.Wait()
	steps, err := Migrations(t.Context(), cfg)
	if err != nil || applied != len(steps) {
		t.Errorf("%d steps were applied, want each of %d once (%v)", applied, len(steps), err)
	}
}
