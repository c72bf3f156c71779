package store

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
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

// Who has the key from before a rotation, and gets a copy of the file from after it,
// is to find nothing in it that this key opens.
func TestAnSQLiteFileKeepsNothingOfWhatWasSealedBefore(t *testing.T) {
	cfg := Config{Path: filepath.Join(t.TempDir(), "x.db")}
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	const secrets = 20
	before := func(n int) []byte { return fmt.Appendf(nil, "sealed with the old key, %04d", n) }
	err = s.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
		var err error
		for n := range secrets {
			err = errors.Join(err, tx.InsertSecret(ctx, control.SealedSecret{
				ID: fmt.Sprint(n), Kind: "test", Sealed: before(n), CreatedAt: time.UnixMicro(1),
			}))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	err = s.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
		values, err := tx.SealedValues(ctx)
		for n, v := range values {
			if n%2 == 0 { // it grows, and may not fit in its place
				err = errors.Join(err, tx.ReplaceSealed(ctx, v, fmt.Appendf(nil, "sealed with the next key, and longer than before, %04d", n)))
			} else {
				err = errors.Join(err, tx.DeleteSecret(ctx, strings.TrimPrefix(v.Row, "test/")))
			}
		}
		return err
	})
	if err := errors.Join(err, s.Close()); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(cfg.Path + "*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if n := bytes.Count(text, []byte("sealed with the old key")); n > 0 {
			t.Errorf("%s has %d secrets as they were sealed before", filepath.Base(file), n)
		}
	}
}
