package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

func TestMain(m *testing.M) { storetest.Main(m) }

func openTest(t *testing.T, cfg Config) *Store {
	t.Helper()
	s, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestSQLite(t *testing.T) {
	storetest.Run(t, func(t *testing.T) control.Store {
		t.Helper()
		return openTest(t, Config{Path: filepath.Join(t.TempDir(), "a ?#%20b.db")})
	})
}

func TestASecondProcessIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	openTest(t, Config{Path: path})
	_, err := Open(t.Context(), Config{Path: path})
	if !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("Open = %v, want ErrInUse that names the file", err)
	}
}

// snapshot is everything in a directory.
func snapshot(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	files := make(map[string][32]byte)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, entry := range entries {
		data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[entry.Name()] = sha256.Sum256(data)
	}
	return files
}

// goodFile returns the bytes of a database that was closed.
func goodFile(t *testing.T) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "good.db")
	s, err := Open(t.Context(), Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestAFileThatIsNoSoundDatabaseIsRefusedAndNotTouched(t *testing.T) {
	good := goodFile(t)
	damage := func(at, n int) []byte {
		data := bytes.Clone(good)
		copy(data[at:], bytes.Repeat([]byte{0xa5}, n))
		return data
	}
	foreign := bytes.Clone(good)
	copy(foreign[applicationPos:], []byte{0, 0, 0, 0})
	for name, tc := range map[string]struct {
		data []byte
		want error
	}{
		"a text":                     {[]byte("hello\n"), ErrForeign},
		"a long text":                {bytes.Repeat([]byte("hello\n"), 1000), ErrForeign},
		"another program's database": {foreign, ErrForeign},
		"a damaged beginning":        {damage(0, 50), ErrForeign},
		"a header cut short":         {good[:60], ErrForeign},
		"damaged pages":              {damage(4096, len(good)-4096), ErrCorrupt},
		"a damaged last page":        {damage(len(good)-4096, 4096), ErrCorrupt},
		"a damaged first page":       {damage(100, 3996), ErrCorrupt},
		"a file cut in half":         {good[:len(good)/2], ErrCorrupt},
		"a file cut in mid-page":     {good[:len(good)/2+100], ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, "x.db")
			if err := os.WriteFile(path, tc.data, 0o600); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), Config{Path: path})
			var databaseErr *DatabaseError
			if !errors.As(err, &databaseErr) || !errors.Is(err, tc.want) || databaseErr.Database != path {
				t.Errorf("Open = %v, want a DatabaseError of %s about: %v", err, path, tc.want)
			}
			after := snapshot(t, dir)
			if after["x.db"] != sha256.Sum256(tc.data) {
				t.Error("the file was changed")
			}
			delete(after, "x.db")
			delete(after, "x.db.lock")
			if len(after) != 0 {
				t.Errorf("something was left beside it: %v", after)
			}
		})
	}
}

func TestADirectoryThatCannotBeWrittenIsNamed(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"it does not exist":  filepath.Join(dir, "nowhere", "x.db"),
		"it is a file":       filepath.Join(file, "x.db"),
		"it takes no files":  "/proc/x.db",
		"it is the database": dir,
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Open(t.Context(), Config{Path: path})
			var databaseErr *DatabaseError
			if !errors.As(err, &databaseErr) || !strings.Contains(err.Error(), path) {
				t.Errorf("Open = %v, want a DatabaseError of %s", err, path)
			}
		})
	}
}

func TestACrashWhileTheFileIsMadeIsNoHarm(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil { // made, nothing written yet
		t.Fatal(err)
	}
	s, err := open(t.Context(), Config{Path: path}, ensure) // marked as ours, not migrated yet
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openTest(t, Config{Path: path})
}

func TestMigrationsAreListedAndApplied(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	if _, err := Migrations(t.Context(), Config{Path: path}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Migrations of nothing = %v, want os.ErrNotExist", err)
	}
	s, err := open(t.Context(), Config{Path: path}, ensure)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	before, err := Migrations(t.Context(), Config{Path: path})
	if err != nil || len(before) == 0 || before[0].Applied {
		t.Errorf("Migrations of a new file = %+v, %v, want pending ones", before, err)
	}
	applied, err := Migrate(t.Context(), Config{Path: path})
	if err != nil || len(applied) != len(before) {
		t.Errorf("Migrate = %+v, %v, want %d", applied, err, len(before))
	}
	again, err := Migrate(t.Context(), Config{Path: path})
	if err != nil || len(again) != 0 {
		t.Errorf("Migrate again = %+v, %v, want nothing", again, err)
	}
	after, err := Migrations(t.Context(), Config{Path: path})
	if err != nil || !after[len(after)-1].Applied {
		t.Errorf("Migrations after = %+v, %v", after, err)
	}
}

func TestPingTellsTheTruth(t *testing.T) {
	s, err := Open(t.Context(), Config{Path: filepath.Join(t.TempDir(), "x.db")})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); err != nil {
		t.Errorf("Ping = %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := s.Ping(t.Context()); err == nil {
		t.Error("Ping of a closed store says it is fine")
	}
}

func TestReadersCannotWrite(t *testing.T) {
	s := openTest(t, Config{Path: filepath.Join(t.TempDir(), "x.db")})
	err := s.Read(t.Context(), func(ctx context.Context, tx control.Tx) error { return tx.PutSetting(ctx, "a", "b") })
	if err == nil {
		t.Error("Read wrote")
	}
}

func TestTheFileIsTheOwnersOnly(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.db")
	openTest(t, Config{Path: path})
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if mode := info.Mode().Perm(); mode != 0o600 {
		t.Errorf("mode is %o, want 600", mode)
	}
}
