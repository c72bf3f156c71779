package top_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/ctl/internal/top"
)

var sessions = []top.Session{
	{ID: "s1", UserID: "u1", User: "anna", DeviceID: "d1", Device: "phone", GatewayID: "g1", Gateway: "gw-1", Region: "eu", UpBPS: 1_000, DownBPS: 20_000_000, Up: 100, Down: 5 << 20},
	{ID: "s2", UserID: "u1", User: "anna", DeviceID: "d2", Device: "laptop", GatewayID: "g2", Gateway: "gw-2", Region: "eu", UpBPS: 5, DownBPS: 6, Up: 7, Down: 8},
	{ID: "s3", UserID: "u2", User: "bob", DeviceID: "d3", Device: "phone", GatewayID: "g1", Gateway: "gw-1", Region: "eu", UpBPS: 2_000_000, DownBPS: 500, Up: 9 << 30, Down: 1},
}

func TestSessionsAreSummedAndOrdered(t *testing.T) {
	for _, tc := range []struct {
		by, order string
		want      []string
	}{
		{"user", "rate", []string{"anna 2", "bob 1"}},
		{"user", "up", []string{"bob 1", "anna 2"}},
		{"user", "total", []string{"bob 1", "anna 2"}},
		{"user", "down", []string{"anna 2", "bob 1"}},
		{"device", "name", []string{"laptop 1", "phone 1", "phone 1"}},
		{"gateway", "sessions", []string{"gw-1 2", "gw-2 1"}},
		{"region", "rate", []string{"eu 3"}},
		{"session", "rate", []string{"phone 1", "phone 1", "laptop 1"}},
	} {
		rows, total := top.Group(sessions, tc.by, tc.order)
		var got []string
		for _, r := range rows {
			got = append(got, r.Name+" "+string(rune('0'+r.Sessions)))
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("by %s, by %s (-want +got):\n%s", tc.by, tc.order, diff)
		}
		if total.Sessions != 3 || total.UpBPS != 2_001_005 || total.DownBPS != 20_000_506 || total.Down != 5<<20+9 {
			t.Errorf("in all %+v", total)
		}
	}
}

func TestATableFitsItsTerminal(t *testing.T) {
	rows, _ := top.Group(append(sessions, top.Session{ID: "s4", UserID: "u3", User: "a name that has no end \x1b[31m", Device: "x", DeviceID: "d4", Gateway: "gw-1"}), "session", "rate")
	clean := func(text string) string { return strings.ReplaceAll(text, "\x1b", " ") }
	for width := 1; width < 120; width++ {
		for _, line := range top.Table(rows, "session", width, 0, clean) {
			if got := len([]rune(line)); got > width {
				t.Fatalf("with %d characters a line has %d: %q", width, got, line)
			}
			if strings.Contains(line, "\x1b") {
				t.Fatalf("a name moves the cursor: %q", line)
			}
		}
	}
	whole := top.Table(rows, "session", 0, 0, clean)
	if !strings.Contains(whole[0], "DEVICE") || !strings.Contains(whole[0], "UP/S") || !strings.Contains(whole[1], "20.0 Mbit/s") || !strings.Contains(whole[1], "5.0 MiB") {
		t.Errorf("the whole table is\n%s", strings.Join(whole, "\n"))
	}
	narrow := top.Table(rows, "session", 40, 0, clean)
	if strings.Contains(narrow[0], "GATEWAY") || !strings.Contains(narrow[0], "DOWN/S") {
		t.Errorf("in 40 characters it is\n%s", strings.Join(narrow, "\n"))
	}
	if low := top.Table(rows, "session", 80, 4, clean); len(low) != 4 || low[3] != "and 2 more" {
		t.Errorf("in four lines it is\n%s", strings.Join(low, "\n"))
	}
}

func TestAServiceThatDoesNotAnswerIsAskedLessOften(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		var asked []time.Duration
		away := errors.New("away")
		shown := 0
		err := top.Repeat(ctx, 2*time.Second, func(context.Context) (int, error) {
			asked = append(asked, time.Since(began))
			if len(asked) == 9 {
				cancel()
			}
			time.Sleep(time.Second) //nolint:forbidigo // the answer's own time, which is virtual
			if len(asked) > 2 && len(asked) < 7 {
				return 0, away
			}
			return len(asked), nil
		}, func(_ int, err error) error {
			if err == nil {
				shown++
			}
			return nil
		}, func(error) bool { return false })
		want := []time.Duration{0, 3, 6, 11, 20, 37, 70, 73, 76}
		for i := range want {
			want[i] *= time.Second
		}
		if diff := cmp.Diff(want, asked); err != nil || diff != "" || shown != 4 {
			t.Errorf("%v, shown %d times, asked (-want +got):\n%s", err, shown, diff)
		}
	})
}

func TestWhatWillBeNoBetterEndsIt(t *testing.T) {
	refused := errors.New("refused")
	looked := 0
	err := top.Repeat(t.Context(), time.Hour, func(context.Context) (int, error) { looked++; return 0, refused },
		func(int, error) error { t.Error("it was shown"); return nil }, func(err error) bool { return errors.Is(err, refused) })
	if !errors.Is(err, refused) || looked != 1 {
		t.Errorf("%v after %d looks", err, looked)
	}
	closed := errors.New("closed")
	if err := top.Repeat(t.Context(), time.Hour, func(context.Context) (int, error) { return 0, nil }, func(int, error) error { return closed }, func(error) bool { return false }); !errors.Is(err, closed) {
		t.Errorf("when nothing can be shown: %v", err)
	}
}
