package store

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"math"
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
// exist, has them; those of a newer program that this one can run with come last,
// without their SQL. It changes nothing, and others may be using the database.
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
	newer, err := s.engine.newer(ctx, s.pools, want)
	if err != nil {
		return nil, s.databaseError(err)
	}
	for _, version := range newer {
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
	applied, err := s.engine.up(ctx, s.pools)
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
	want = s.newestStep
	if have, err = s.engine.version(ctx, s.pools); err != nil || have <= want {
		return have, want, err
	}
	oldest, err := s.oldest(ctx)
	switch {
	case err != nil:
		return 0, 0, err
	case oldest > want:
		return 0, 0, fmt.Errorf("%w: use that one, or restore a backup from before its update (schema %d, for programs with %s; this one has %d)",
			ErrNewerSchema, have, orNewer(oldest, have), want)
	case s.ownSchema:
		return 0, 0, fmt.Errorf("%w: use that one for this (schema %d, this one has %d)", ErrNewerSchema, have, want)
	}
	return have, want, nil
}

// orNewer says from which version of the schema on programs can run on version have.
func orNewer(oldest, have int64) string {
	return strconv.FormatInt(min(oldest, have), 10) + " or newer"
}

// oldest returns the oldest version of the schema whose program can run on what is
// there. A schema that does not say is for its own program only.
func (s *Store) oldest(ctx context.Context) (int64, error) {
	var text string
	err := s.Read(ctx, func(ctx context.Context, t control.Tx) error {
		var err error
		text, err = t.Setting(ctx, settingOldestSchema)
		return err
	})
	if errors.Is(err, control.ErrNotFound) {
		return math.MaxInt64, nil
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

// newer returns the versions in goose's table after one.
func newer(ctx context.Context, db *sql.DB, table string, after int64) (versions []int64, err error) {
	rows, err := db.QueryContext(ctx, "SELECT DISTINCT version_id FROM "+table+" WHERE version_id > $1 ORDER BY 1", after)
	if err != nil {
		return nil, err
	}
	defer rows.Close() //nolint:errcheck // Err below says what went wrong
	for rows.Next() {
		var version int64
		if err := rows.Scan(&version); err != nil {
			return nil, err
		}
		versions = append(versions, version)
	}
	return versions, rows.Err()
}

// latest returns the version that goose's table says, which must exist.
func latest(ctx context.Context, db *sql.DB, table string) (int64, error) {
	var version sql.Null[int64]
	err := db.QueryRowContext(ctx, "SELECT MAX(version_id) FROM "+table).Scan(&version)
	return version.V, err
}
