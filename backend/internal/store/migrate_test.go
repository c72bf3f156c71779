package store

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/fstest"

	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// withStep returns our steps and a further one on both engines.
func withStep(t *testing.T, sql string) fs.FS {
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
		steps[engine+"/00900_further.sql"] = &fstest.MapFile{Data: []byte("-- why\n\n-- +goose Up\n" + sql + "\n\n-- +goose Down\nSELECT 1;\n")}
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

func TestANewerSchemaIsRefusedOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg Config) {
		t.Helper()
		newer := cfg
		newer.steps = withStep(t, furtherTable)
		openAndClose(t, newer)
		for name, open := range map[string]func() error{
			"open":    func() error { _, err := Open(t.Context(), cfg); return err },
			"migrate": func() error { _, err := Migrate(t.Context(), cfg); return err },
			"status":  func() error { _, err := Migrations(t.Context(), cfg); return err },
			"dry-run": func() error { _, err := Pending(t.Context(), cfg); return err },
		} {
			if err := open(); !errors.Is(err, ErrNewerSchema) || !strings.Contains(err.Error(), "900") {
				t.Errorf("%s: %v, want ErrNewerSchema", name, err)
			}
		}
	})
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
