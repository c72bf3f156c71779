package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/pressly/goose/v3"

	"github.com/httvps/httvps/backend/internal/control"
)

// Migration is a step of the schema.
type Migration struct {
	Version int64
	Name    string // of its file
	Applied bool
	SQL     string // what it runs
}

// Migrate brings the schema of the database up to date, having made it when
// there was none, and returns the steps that this took.
func Migrate(ctx context.Context, cfg Config) (applied []Migration, err error) {
	s, err := open(ctx, cfg, ensure)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	if applied, err = s.migrate(ctx); err != nil {
		return nil, s.databaseError(err)
	}
	return applied, nil
}

// Migrations returns all steps of the schema and whether the database, which must
// exist, has them; the newest of a newer program, which this one can run on, comes
// last and without its SQL. It changes nothing, and others may be using the database.
func Migrations(ctx context.Context, cfg Config) (all []Migration, err error) {
	s, err := open(ctx, cfg, look)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	version, want, err := s.versions(ctx)
	if err != nil {
		return nil, s.databaseError(err)
	}
	if all, err = s.engine.steps(); err != nil {
		return nil, err
	}
	for i := range all {
		all[i].Applied = all[i].Version <= version
	}
	if version > want {
		all = append(all, Migration{Version: version, Name: fmt.Sprintf("%05d, of a newer version of this program", version), Applied: true})
	}
	return all, nil
}

// Pending returns the steps that Migrate would apply. It changes nothing; a
// database that is not there lacks them all.
func Pending(ctx context.Context, cfg Config) ([]Migration, error) {
	all, err := Migrations(ctx, cfg)
	if errors.Is(err, fs.ErrNotExist) {
		var engine engine
		if engine, err = cfg.engine(); err == nil {
			all, err = engine.steps()
		}
	}
	if err != nil {
		return nil, err
	}
	var pending []Migration
	for _, step := range all {
		if !step.Applied {
			pending = append(pending, step)
		}
	}
	return pending, nil
}

// migrate applies the steps that are missing, after a backup if there is
// something to lose.
func (s *Store) migrate(ctx context.Context) ([]Migration, error) {
	version, want, err := s.versions(ctx)
	if err != nil || version >= want {
		return nil, err
	}
	if version > 0 {
		file, err := s.engine.backUp(ctx, s.pools, version)
		if err != nil {
			return nil, err
		}
		if file != "" {
			s.log.InfoContext(ctx, "database backed up", "file", file)
		}
	}
	begin := time.Now()
	applied, err := s.engine.up(ctx, s.pools, s.newestStep)
	if err != nil {
		return nil, fmt.Errorf("update the schema: %w", err)
	}
	if len(applied) > 0 {
		s.log.InfoContext(ctx, "database schema updated", "from", version, "to", applied[len(applied)-1].Version,
			"took_ms", time.Since(begin).Milliseconds())
	}
	// Another process may have been faster, and newer.
	_, _, err = s.versions(ctx)
	return applied, err
}

// settingOldestSchema is the oldest version of the schema whose program can run on
// this one. Each step sets it.
const settingOldestSchema = "oldest_schema"

// versions returns the version of the schema and the one that this program has,
// and refuses a newer one unless that says that this program can run on it.
func (s *Store) versions(ctx context.Context) (have, want int64, err error) {
	var oldest int64
	err = s.Read(ctx, func(ctx context.Context, t control.Tx) error {
		unit, ok := t.(*tx)
		if !ok {
			return errOtherUnit
		}
		var err error
		if have, err = s.engine.version(ctx, unit.conn); err == nil && have > s.newestStep {
			oldest, err = oldestFor(ctx, t, have)
		}
		return err
	})
	want = s.newestStep
	switch {
	case err != nil:
		return 0, 0, err
	case have <= want:
	case oldest > want:
		return 0, 0, fmt.Errorf("%w: use that one, or restore a backup from before its update (schema %d, for programs with %d or newer; this one has %d)",
			ErrNewerSchema, have, oldest, want)
	case s.ownSchema:
		return 0, 0, fmt.Errorf("%w: use that one for this (schema %d, this one has %d)", ErrNewerSchema, have, want)
	}
	return have, want, nil
}

// oldestFor returns the oldest version of the schema whose program can run on one.
// A schema that does not say is for its own program only.
func oldestFor(ctx context.Context, t control.Tx, version int64) (int64, error) {
	text, err := t.Setting(ctx, settingOldestSchema)
	if errors.Is(err, control.ErrNotFound) {
		return version, nil
	}
	if err != nil {
		return 0, err
	}
	oldest, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("setting %s: %w", settingOldestSchema, err)
	}
	return oldest, nil
}

// checkSchema refuses a schema that became too new while this program ran.
func (s *Store) checkSchema(ctx context.Context) error {
	have, want, err := s.versions(ctx)
	if err == nil && have > want && !s.toldNewer.Swap(true) {
		s.log.WarnContext(ctx, "the database's schema is newer than this program, which can run on it", "schema", have, "own", want)
	}
	return err
}

// readSteps returns the steps in dir, whose files are named NUMBER_NAME.sql.
func readSteps(dir fs.FS) ([]Migration, error) {
	names, err := fs.Glob(dir, "*.sql")
	if err != nil {
		return nil, err
	}
	var steps []Migration
	for _, name := range names {
		version, err := goose.NumericComponent(name)
		if err != nil {
			return nil, err
		}
		text, err := fs.ReadFile(dir, name)
		if err != nil {
			return nil, err
		}
		steps = append(steps, Migration{Version: version, Name: name, SQL: upPart(string(text))})
	}
	if len(steps) == 0 {
		return nil, errors.New("the schema has no steps")
	}
	return steps, nil
}

// upPart returns what a step's file runs, without the marks that say so.
func upPart(text string) string {
	_, up, _ := strings.Cut(text, "-- +goose Up\n")
	up, _, _ = strings.Cut(up, "-- +goose Down")
	var kept []string
	for line := range strings.Lines(up) {
		if !strings.HasPrefix(line, "-- +goose") {
			kept = append(kept, line)
		}
	}
	return strings.TrimSpace(strings.Join(kept, "")) + "\n"
}

// applied translates what goose did.
func applied(results []*goose.MigrationResult) []Migration {
	var steps []Migration
	for _, r := range results {
		steps = append(steps, Migration{Version: r.Source.Version, Name: r.Source.Path, Applied: true})
	}
	return steps
}

// latest returns the version that goose's table says, which must exist.
func latest(ctx context.Context, q queryer, table string) (int64, error) {
	var version sql.Null[int64]
	err := q.QueryRowContext(ctx, "SELECT MAX(version_id) FROM "+table).Scan(&version)
	return version.V, err
}

// applyStep runs a step and adds it to goose's table.
func applyStep(ctx context.Context, unit statements, step Migration, table string) error {
	if _, err := unit.ExecContext(ctx, step.SQL); err != nil {
		return err
	}
	_, err := unit.ExecContext(ctx, "INSERT INTO "+table+" (version_id, is_applied) VALUES ($1, $2)", step.Version, true)
	return err
}
