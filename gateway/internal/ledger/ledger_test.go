package ledger

import (
	"cmp"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon begins a slot.
var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func openAt(t *testing.T, path string, limit int) *Ledger {
	t.Helper()
	l, aside, err := Open(path, limit)
	if err != nil || aside != "" {
		t.Fatalf("Open = %q, %v", aside, err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func newLedger(t *testing.T) (*Ledger, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "usage.db")
	return openAt(t, path, 1000), path
}

// row is one of session id, which has moved up and down.
func row(id byte, up, down int64, at time.Time) Row {
	return Row{Boot: [16]byte{0xb0}, Session: [16]byte{id}, Up: up, Down: down, At: at.Local()}
}

func mustPut(t *testing.T, l *Ledger, rows ...Row) {
	t.Helper()
	if err := l.Put(rows); err != nil {
		t.Fatal(err)
	}
}

// all returns every row in parts of n.
func all(t *testing.T, l *Ledger, n int) (rows []Row) {
	t.Helper()
	for at := (Place{}); ; {
		part, last, err := l.Batch(at, n)
		if err != nil {
			t.Fatal(err)
		}
		if len(part) == 0 {
			return rows
		}
		rows, at = append(rows, part...), last
	}
}

// wantRows compares what the ledger has with rows as session:up+down.
func wantRows(t *testing.T, l *Ledger, want ...string) {
	t.Helper()
	for _, n := range []int{1, 2, 1000} {
		var got []string
		for _, r := range all(t, l, n) {
			got = append(got, fmt.Sprintf("%d:%d+%d", r.Session[0], r.Up, r.Down))
		}
		if diff := gocmp.Diff(want, got); diff != "" {
			t.Fatalf("rows, %d at a time (-want +got):\n%s", n, diff)
		}
	}
	if got := l.Stats().Rows; got != len(want) {
		t.Errorf("it says that it has %d rows", got)
	}
}

func TestASessionHasARowForEachQuarterOfAnHour(t *testing.T) {
	l, _ := newLedger(t)
	mustPut(t, l, row(1, 1, 1, noon), row(2, 5, 0, noon))
	mustPut(t, l, row(1, 1, 7, noon.Add(slot-time.Second)))
	mustPut(t, l, row(1, 2, 9, noon.Add(slot)))
	mustPut(t, l, row(1, 1, 8, noon.Add(slot+time.Second))) // overtaken
	wantRows(t, l, "1:1+7", "1:2+9", "2:5+0")
	got := all(t, l, 10)
	if r := got[0]; !r.At.Equal(noon.Add(slot-time.Second)) || !r.Since.Equal(noon) || r.Sequence() != 8 {
		t.Errorf("%+v", r)
	}
	if got := l.Stats().Oldest; !got.Equal(noon) {
		t.Errorf("the oldest is of %v", got)
	}
}

func TestRowsOutliveTheProcess(t *testing.T) {
	l, path := newLedger(t)
	mustPut(t, l, row(1, 1, 2, noon), row(2, 3, 4, noon.Add(time.Minute)))
	// As after a kill: the file is not closed, and nobody has it any more.
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	path += "2"
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	l = openAt(t, path, 1000)
	wantRows(t, l, "1:1+2", "2:3+4")
	if got := l.Stats().Oldest; !got.Equal(noon) {
		t.Errorf("the oldest is of %v", got)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
}

func TestWhatWasMovedSinceAReportIsNotDroppedWithIt(t *testing.T) {
	l, _ := newLedger(t)
	mustPut(t, l, row(1, 1, 1, noon), row(2, 1, 1, noon), row(3, 1, 1, noon))
	reported := all(t, l, 10)
	mustPut(t, l, row(2, 2, 1, noon.Add(time.Minute)), row(4, 1, 1, noon.Add(time.Hour)))
	if err := l.Drop(reported); err != nil {
		t.Fatal(err)
	}
	wantRows(t, l, "2:2+1", "4:1+1")
	if r := all(t, l, 1)[0]; !r.Since.Equal(noon) {
		t.Errorf("since %v, want when what was reported was counted", r.Since)
	}
	if got := l.Stats().Oldest; !got.Equal(noon) {
		t.Errorf("the oldest is of %v", got)
	}
	if err := l.Drop(all(t, l, 10)); err != nil {
		t.Fatal(err)
	}
	wantRows(t, l)
	if got := l.Stats().Oldest; !got.IsZero() {
		t.Errorf("without rows the oldest is of %v", got)
	}
	mustPut(t, l, row(2, 2, 2, noon.Add(2*time.Minute)))
	if got := l.Stats().Oldest; !got.Equal(noon.Add(2 * time.Minute)) {
		t.Errorf("then the oldest is of %v", got)
	}
}

func TestAFullLedgerTakesRowsAndNoSessions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.db")
	l := openAt(t, path, 10)
	for range 4 {
		if err := l.Enter(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range byte(3) {
		mustPut(t, l, row(1, int64(i)+1, 0, noon.Add(time.Duration(i)*slot)), row(2, 0, int64(i)+1, noon.Add(time.Duration(i)*slot)))
	}
	// There would have been no place for another session: those of each became one.
	wantRows(t, l, "1:3+0", "2:0+3")
	if r := all(t, l, 1)[0]; !r.Since.Equal(noon) || !r.At.Equal(noon.Add(2*slot)) {
		t.Errorf("%+v", r)
	}
	mustPut(t, l, row(3, 7, 7, noon))
	for n := 0; ; n++ {
		err := l.Enter()
		if n == 3 {
			if !errors.Is(err, ErrFull) {
				t.Errorf("Enter = %v", err)
			}
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	// Those that have a place go on.
	for id := byte(10); id < 20; id++ {
		mustPut(t, l, row(id, 1, 1, noon))
	}
	if got := l.Stats().Rows; got != 13 {
		t.Errorf("%d rows", got)
	}
	if err := l.Drop(all(t, l, 100)); err != nil {
		t.Fatal(err)
	}
	if err := l.Enter(); err != nil {
		t.Errorf("with room again: %v", err)
	}
	l.Leave()
}

// The clock may go back: the row with the most bytes is the one that covers all.
func TestMergedRowsAreTheLatestAlsoWhenTheClockWentBack(t *testing.T) {
	path := filepath.Join(t.TempDir(), "usage.db")
	l := openAt(t, path, 4)
	mustPut(t, l, row(1, 10, 0, noon.Add(slot)), row(1, 30, 0, noon), row(2, 1, 0, noon), row(2, 2, 0, noon.Add(-slot)), row(2, 3, 0, noon.Add(slot)))
	wantRows(t, l, "1:30+0", "2:3+0")
	for _, r := range all(t, l, 10) {
		if want := map[byte]time.Time{1: noon, 2: noon.Add(-slot)}[r.Session[0]]; !r.Since.Equal(want) {
			t.Errorf("session %d: since %v, want %v", r.Session[0], r.Since, want)
		}
	}
}

func TestAFileThatIsDamagedIsPutAside(t *testing.T) {
	for name, damage := range map[string]func([]byte) []byte{
		"no ledger":   func([]byte) []byte { return []byte(strings.Repeat("hello ", 10_000)) },
		"short":       func(b []byte) []byte { return b[:100] },
		"cut off":     func(b []byte) []byte { return b[:2*os.Getpagesize()] },
		"half of it":  func(b []byte) []byte { return b[:len(b)/2] },
		"overwritten": func(b []byte) []byte { copy(b[2*os.Getpagesize():], make([]byte, len(b))); return b },
		"noise": func(b []byte) []byte {
			random := rand.New(rand.NewPCG(1, 2))
			for i := 2 * os.Getpagesize(); i < len(b); i++ {
				b[i] = byte(random.Uint32())
			}
			return b
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "usage.db")
			l, _, err := Open(path, 10_000)
			if err != nil {
				t.Fatal(err)
			}
			var rows []Row
			for i := range 2000 {
				r := row(1, 1, 1, noon)
				r.Session[1], r.Session[2] = byte(i), byte(i>>8)
				rows = append(rows, r)
			}
			mustPut(t, l, rows...)
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			text = damage(text)
			if err := os.WriteFile(path, text, 0o600); err != nil {
				t.Fatal(err)
			}
			l, aside, err := Open(path, 10)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			kept, err := os.ReadFile(aside)
			if err != nil || !slices.Equal(kept, text) {
				t.Errorf("put aside as %q: %v, %d bytes of %d", aside, err, len(kept), len(text))
			}
			mustPut(t, l, row(1, 1, 1, noon))
			wantRows(t, l, "1:1+1")
		})
	}
}

func TestAFileThatAnotherHasIsLeftAlone(t *testing.T) {
	_, path := newLedger(t)
	if _, aside, err := Open(path, 10); err == nil || aside != "" || !strings.Contains(err.Error(), "another process") {
		t.Errorf("Open = %q, %v", aside, err)
	}
	if _, _, err := Open(filepath.Join(t.TempDir(), "missing", "usage.db"), 10); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Errorf("Open = %v", err)
	}
	if _, aside, err := Open(t.TempDir(), 10); err == nil || aside != "" {
		t.Errorf("a directory: Open = %q, %v", aside, err)
	}
}

// Of many sessions that move, are reported and end at the same time, the last row
// of each is kept until it has been dropped, and nothing else.
func TestNothingIsLostBetweenWritesAndReports(t *testing.T) {
	l, _ := newLedger(t)
	var (
		moved    [50]int64
		told     = make(map[byte]int64)
		finished = make(chan struct{})
		running  sync.WaitGroup
	)
	running.Go(func() {
		defer close(finished)
		for i := range 200 {
			var rows []Row
			for id := range moved {
				if rand.IntN(3) > 0 {
					continue
				}
				moved[id] += 1 + rand.Int64N(100)
				rows = append(rows, row(byte(id), moved[id], 0, noon.Add(time.Duration(i)*time.Minute)))
			}
			if err := l.Put(rows); err != nil {
				t.Error(err)
			}
		}
	})
	report := func() {
		rows := all(t, l, 7)
		for _, r := range rows {
			told[r.Session[0]] = max(told[r.Session[0]], r.Up)
		}
		slices.SortFunc(rows, func(a, b Row) int { return cmp.Compare(a.Up, b.Up) })
		if err := l.Drop(rows); err != nil {
			t.Error(err)
		}
	}
	for done := false; !done; report() {
		select {
		case <-finished:
			done = true
		default:
		}
	}
	running.Wait()
	report()
	for id, n := range moved {
		if told[byte(id)] != n {
			t.Errorf("session %d: %d of %d bytes were told", id, told[byte(id)], n)
		}
	}
	wantRows(t, l)
}

func BenchmarkPut(b *testing.B) {
	for _, sessions := range []int{100, 10_000} {
		b.Run(fmt.Sprint(sessions), func(b *testing.B) {
			l, _, err := Open(filepath.Join(b.TempDir(), "usage.db"), 1<<20)
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			rows := make([]Row, sessions)
			for i := range rows {
				rows[i] = Row{Session: [16]byte{byte(rand.Uint32()), byte(i), byte(i >> 8)}, At: noon}
			}
			for b.Loop() {
				for i := range rows {
					rows[i].Up++
				}
				if err := l.Put(rows); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(l.Stats().Bytes)/float64(sessions), "bytes/row")
		})
	}
}
