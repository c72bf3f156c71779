package store

import (
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// before returns the steps of both engines before a version.
func before(t *testing.T, version string) fs.FS {
	t.Helper()
	steps := make(fstest.MapFS)
	for _, engine := range []string{"sqlite", "postgres"} {
		files, err := fs.Glob(migrations, "migrations/"+engine+"/*.sql")
		if err != nil {
			t.Fatal(err)
		}
		for _, path := range files {
			if filepath.Base(path) >= version {
				continue
			}
			data, err := fs.ReadFile(migrations, path)
			if err != nil {
				t.Fatal(err)
			}
			steps[strings.TrimPrefix(path, "migrations/")] = &fstest.MapFile{Data: data}
		}
	}
	return steps
}

func TestTheTotalsOfWhatWasThereFollowFromItOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg Config) {
		t.Helper()
		older := cfg
		older.steps = before(t, "00015")
		openAndClose(t, older)
		db := storetest.SQL(t, cfg.Path, cfg.URL)
		for _, statement := range []string{
			"INSERT INTO users (id, name, note, created_at) VALUES ('u', 'u', '', 0)",
			"INSERT INTO plans (id, name, max_devices, max_sessions, max_streams, max_udp, created_at) VALUES ('p', 'p', 1, 1, 1, 1, 0), ('q', 'q', 1, 1, 1, 1, 0)",
			"INSERT INTO subscriptions (id, user_id, plan_id, starts_at, created_at) VALUES ('s', 'u', 'p', 0, 0), ('t', 'u', 'p', 0, 0), ('v', 'u', 'q', 0, 0)",
			"INSERT INTO regions (id, code, name, created_at) VALUES ('r', 'r', 'r', 0)",
			`INSERT INTO usage_buckets (subscription_id, bucket, gateway_id, up, down) VALUES ('s', 1, 'g', 1, 10), ('t', 1, 'g', 2, 20), ('v', 1, 'g', 4, 40),
				('s', 2, 'g', 8, 80), ('s', 2, 'gone', 16, 160), ('', 2, 'g', 32, 320), ('gone', 2, 'g', 64, 640),
				('l', 3, 'g', 4611686018427387904, 1), ('m', 3, 'g', 4611686018427387904, 2), ('n', 3, 'g', 4611686018427387904, 4)`,
		} {
			if _, err := db.ExecContext(t.Context(), statement); err != nil {
				t.Fatal(statement, err)
			}
		}
		if _, err := db.ExecContext(t.Context(), `INSERT INTO gateways (id, name, region_id, join_code_hash, join_expires_at, url, version, boot_id, sessions, streams, created_at)
			VALUES ('g', 'g', 'r', $1, 0, '', '', '', 0, 0, 0)`, []byte("code")); err != nil {
			t.Fatal(err)
		}
		openAndClose(t, cfg)
		rows, err := db.QueryContext(t.Context(), "SELECT bucket, gateway_id, plan_id, region_id, up, down FROM usage_totals ORDER BY 1, 2, 3")
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		type total struct {
			bucket                int64
			gateway, plan, region string
			up, down              int64
		}
		want := []total{
			{1, "g", "p", "r", 3, 30},
			{1, "g", "q", "r", 4, 40},
			{2, "g", "", "r", 96, 960},
			{2, "g", "p", "r", 8, 80},
			{2, "gone", "p", "", 16, 160},
			{3, "g", "", "r", 1 << 62, 7}, // beyond measure
		}
		for rows.Next() {
			var got total
			if err := rows.Scan(&got.bucket, &got.gateway, &got.plan, &got.region, &got.up, &got.down); err != nil {
				t.Fatal(err)
			}
			if len(want) == 0 || got != want[0] {
				t.Fatalf("a total is %+v, want the first of %+v", got, want)
			}
			want = want[1:]
		}
		if err := rows.Err(); err != nil || len(want) > 0 {
			t.Errorf("%v; missing %+v", err, want)
		}
	})
}
