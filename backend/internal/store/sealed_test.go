package store

import (
	"slices"
	"testing"
)

// A rotation of keys seals again what sealedColumns names. A column that holds
// sealed secrets is called "sealed…"; one that is not in the list would be lost with
// the old key.
func TestAllColumnsThatHoldSealedSecretsAreKnownOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, cfg Config) {
		t.Helper()
		query := "SELECT m.name || '.' || c.name FROM sqlite_master m, pragma_table_info(m.name) c WHERE m.type = 'table' AND c.name LIKE '%sealed%'"
		if cfg.URL != "" {
			query = "SELECT table_name || '.' || column_name FROM information_schema.columns WHERE table_schema = current_schema() AND column_name LIKE '%sealed%'"
		}
		s := openTest(t, cfg)
		rows, err := s.reader.QueryContext(t.Context(), query)
		if err != nil {
			t.Fatal(err)
		}
		defer rows.Close()
		var got, want []string
		for rows.Next() {
			var name string
			if err := rows.Scan(&name); err != nil {
				t.Fatal(err)
			}
			got = append(got, name)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		for _, c := range sealedColumns {
			want = append(want, c.table+"."+c.column)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("the database has the columns %v, sealedColumns names %v", got, want)
		}
	})
}
