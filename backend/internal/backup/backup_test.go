package backup

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// kept are rows in memory.
type kept struct {
	tables []string
	rows   [][]any
	fail   error
}

func (k *kept) Begin(table string, columns []string) error {
	k.tables = append(k.tables, table+" "+strings.Join(columns, ","))
	return k.fail
}

func (k *kept) Row(values []any) error {
	k.rows = append(k.rows, values)
	return k.fail
}

func newKey(t *testing.T) (*age.X25519Identity, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "recovery.key")
	recipient, err := NewKeyFile(path, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	key, err := ReadKeyFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return key, recipient
}

var header = Header{Format: 1, Schema: 11, ServiceID: "id", MadeAt: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), Keys: Keys{"secret"}}

var someRows = [][]any{
	{int64(math.MaxInt64), "text with \n and \" and <&> ☃", []byte{0, 1, 255}, nil},
	{int64(math.MinInt64), "", []byte{}, nil},
}

// written is a backup of two tables.
func written(t *testing.T, recipient string, rows int) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := NewWriter(&file, recipient)
	if err != nil {
		t.Fatal(err)
	}
	err = errors.Join(w.Header(header), w.Begin("first", []string{"a", "b", "c", "d"}), w.Row(someRows[0]), w.Row(someRows[1]), w.Begin("second", []string{"a"}))
	for n := range rows {
		err = errors.Join(err, w.Row([]any{fmt.Sprintf("row %d %x", n, n*n)}))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	if w.Rows() != int64(rows+2) {
		t.Errorf("%d rows were written, want %d", w.Rows(), rows+2)
	}
	return file.Bytes()
}

func read(file []byte, key *age.X25519Identity) (*kept, Header, error) {
	k := &kept{}
	r, err := Open(bytes.NewReader(file), key)
	if err != nil {
		return k, Header{}, err
	}
	_, err = r.Read(k)
	return k, r.Header, err
}

func TestABackupReadsBackAsWritten(t *testing.T) {
	key, recipient := newKey(t)
	k, h, err := read(written(t, recipient, 3), key)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(header, h); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"first a,b,c,d", "second a"}, k.tables); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(someRows, k.rows[:2]); diff != "" {
		t.Error(diff)
	}
	if text := fmt.Sprintf("%v %+v %#v", h, h, h); strings.Contains(text, "secret\"") || strings.Contains(text, "[secret]") {
		t.Errorf("a header prints its keys: %s", text)
	}
}

func TestWhoeverHasAnotherKeyReadsNothing(t *testing.T) {
	key, _ := newKey(t)
	_, other := newKey(t)
	if _, _, err := read(written(t, other, 1), key); !errors.Is(err, ErrOtherKey) {
		t.Errorf("%v, want %v", err, ErrOtherKey)
	}
}

func TestABackupThatIsCutOffOrChangedIsRefused(t *testing.T) {
	key, recipient := newKey(t)
	file := written(t, recipient, 20_000) // several of age's chunks
	for _, size := range []int{0, 1, 20, 150, 250, 1000, 1<<16 + 200, len(file) / 2, len(file) - 17, len(file) - 1} {
		if _, _, err := read(file[:size], key); !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrForeign) {
			t.Errorf("cut off after %d of %d bytes: %v", size, len(file), err)
		}
	}
	for _, at := range []int{100, 250, 300, len(file) / 2, len(file) - 1} {
		changed := bytes.Clone(file)
		changed[at] ^= 1
		if _, _, err := read(changed, key); err == nil {
			t.Errorf("a changed byte %d is not noticed", at)
		}
	}
	if _, _, err := read(append(bytes.Clone(file), 0), key); !errors.Is(err, ErrDamaged) {
		t.Errorf("with a byte more: %v", err)
	}
	for name, text := range map[string]string{"a database": "SQLite format 3\x00" + strings.Repeat("x", 4096), "a text": "hello\n"} {
		if _, _, err := read([]byte(text), key); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v, want %v", name, err, ErrForeign)
		}
	}
}

// packed is what an encrypted file holds.
func packed(lines string) io.Reader {
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	_, _ = io.WriteString(w, lines) // into memory
	_ = w.Close()
	return &out
}

// Whoever has the public half can encrypt what he likes.
func TestLinesThatAreNoBackupAreRefused(t *testing.T) {
	const begin, end = `{"httvps_backup":1,"schema":1}` + "\n", `{"end":true,"rows":{}}` + "\n"
	table, one := `{"table":"a","columns":["x","y"]}`+"\n", `{"end":true,"rows":{"a":1}}`+"\n"
	for name, tc := range map[string]struct {
		lines string
		want  error
	}{
		"another program's":         {"{}\n" + end, ErrForeign},
		"no JSON":                   {"hello\n", ErrForeign},
		"of a newer version":        {`{"httvps_backup":2}` + "\n" + end, ErrNewerFormat},
		"no end":                    {begin + table, ErrDamaged},
		"an empty line":             {begin + "\n" + end, ErrDamaged},
		"something behind the end":  {begin + end + "x", ErrDamaged},
		"another number of rows":    {begin + table + `{"end":true,"rows":{"a":1}}` + "\n", ErrDamaged},
		"a table that is not named": {begin + table + `["x",1]` + "\n" + end, ErrDamaged},
		"a row of no table":         {begin + "[1]\n" + one, ErrDamaged},
		"too few values":            {begin + table + "[1]\n" + one, ErrDamaged},
		"a number that is none":     {begin + table + "[1.5,2]\n" + one, ErrDamaged},
		"a truth":                   {begin + table + "[true,2]\n" + one, ErrDamaged},
		"an object":                 {begin + table + `[{"c":1},2]` + "\n" + one, ErrDamaged},
		"a table twice":             {begin + table + table + end, ErrDamaged},
		"a table without columns":   {begin + `{"table":"a","columns":[]}` + "\n" + end, ErrDamaged},
		"a line without an end":     {begin + `["` + strings.Repeat("x", 2*maxLine), ErrDamaged},
	} {
		r, err := open(packed(tc.lines))
		if err == nil {
			_, err = r.Read(&kept{})
		}
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: %v, want %v", name, err, tc.want)
		}
	}
}

func TestWhatTheRowsSayEndsTheReading(t *testing.T) {
	key, recipient := newKey(t)
	r, err := Open(bytes.NewReader(written(t, recipient, 1)), key)
	if err != nil {
		t.Fatal(err)
	}
	full := errors.New("full")
	if _, err := r.Read(&kept{fail: full}); !errors.Is(err, full) {
		t.Errorf("%v, want %v", err, full)
	}
}

func TestWhatIsNoRowIsNotWritten(t *testing.T) {
	_, recipient := newKey(t)
	w, err := NewWriter(io.Discard, recipient)
	if err != nil {
		t.Fatal(err)
	}
	for _, value := range []any{1.5, true, time.Now(), "\xff"} {
		if err := w.Row([]any{value}); err == nil {
			t.Errorf("a %T was written", value)
		}
	}
}

func TestARecoveryKeyIsForItsOwnerAndNeverReplaced(t *testing.T) {
	path := filepath.Join(t.TempDir(), "recovery.key")
	recipient, err := NewKeyFile(path, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewKeyFile(path, time.Now()); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second key: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Error("the key was replaced")
	}
	if err := CheckRecipient(recipient); err != nil {
		t.Error(err)
	}
	secret := string(before[bytes.Index(before, []byte(secretPrefix)):])
	if err := CheckRecipient(strings.TrimSpace(secret)); err == nil || strings.Contains(err.Error(), secret[len(secretPrefix):30]) {
		t.Errorf("the secret half as a recipient: %v", err)
	}
	for name, text := range map[string]string{"nothing": "", "a note": "# note\n", "the public half": recipient, "damaged": "AGE-SECRET-KEY-1QQQQ"} {
		other := filepath.Join(t.TempDir(), "key")
		if err := os.WriteFile(other, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadKeyFile(other); err == nil || strings.Contains(err.Error(), "QQQQ") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAFileIsWholeOrNotThere(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "file")
	broken := errors.New("broken")
	err := Create(path, func(w io.Writer) error {
		if _, err := io.WriteString(w, "half"); err != nil {
			return err
		}
		if _, err := os.Stat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Error("the file is there before it is whole")
		}
		return broken
	})
	if entries, _ := os.ReadDir(dir); !errors.Is(err, broken) || len(entries) > 0 {
		t.Errorf("%v, and %v is left", err, entries)
	}
	whole := func(text string) error {
		return Create(path, func(w io.Writer) error { _, err := io.WriteString(w, text); return err })
	}
	if err := whole("whole"); err != nil {
		t.Fatal(err)
	}
	if err := whole("another"); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a second time: %v", err)
	}
	if text, err := os.ReadFile(path); err != nil || string(text) != "whole" {
		t.Errorf("%q, %v", text, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

// FuzzRead reads what somebody encrypted for us.
func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"httvps_backup":1,"schema":1}` + "\n" + `{"table":"a","columns":["x","y","z"]}` + "\n" + `["x",1,null]` + "\n" + `[{"b":"AA=="},-1,""]` + "\n" + `{"end":true,"rows":{"a":2}}` + "\n"))
	f.Add([]byte("{}\n"))
	f.Fuzz(func(t *testing.T, lines []byte) {
		r, err := open(packed(string(lines)))
		if err != nil {
			return
		}
		k := &kept{}
		counts, err := r.Read(k)
		if err != nil {
			return
		}
		total := int64(0)
		for _, n := range counts {
			total += n
		}
		if len(counts) != len(k.tables) || total != int64(len(k.rows)) {
			t.Errorf("%d tables and %d rows were said, there were %d and %d", len(counts), total, len(k.tables), len(k.rows))
		}
	})
}
