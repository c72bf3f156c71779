package nodes

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
)

var countedAt = time.Date(2026, 3, 1, 12, 0, 0, 123000, time.UTC)

func TestUsageIsReportedAndWhatIsSettledIsKnown(t *testing.T) {
	c := newControl(t)
	boot := uuid.MustParse("0190c0de-0000-4000-8000-00000000000b")
	const earlier = "0190c0de-0000-4000-8000-00000000000a"
	report := func(session byte, sequence int64) Usage {
		return Usage{Boot: boot, Session: [16]byte{session}, Sequence: sequence, Up: sequence - 1, Down: 1, At: countedAt}
	}
	old := report(1, 9)
	old.Boot = uuid.MustParse(earlier)
	var asked any
	c.handle["/api/v1/usage/report"] = func(body map[string]any) (int, any) {
		asked = body["reports"]
		ack := func(boot, session string, sequence int) map[string]any {
			return map[string]any{"boot_id": boot, "session_id": session, "sequence": sequence}
		}
		return 200, map[string]any{
			"acknowledged": []any{
				ack(boot.String(), "01000000000000000000000000000000", 7), // more than was told
				ack(boot.String(), "02000000000000000000000000000000", 4), // less
				ack(boot.String(), "05000000000000000000000000000000", 5), // with a fault
				ack(boot.String(), "ff000000000000000000000000000000", 5), // of nobody
			},
			"problems": []any{
				map[string]any{"index": 3, "code": "foreign_session", "taken": false},
				map[string]any{"index": 4, "code": "decreased", "taken": true},
				map[string]any{"index": 99, "code": "too_large", "taken": false},
				map[string]any{"index": -1, "code": "too_large", "taken": false},
			},
		}
	}
	got, err := c.node(t, nil).ReportUsage(t.Context(), []Usage{report(1, 5), report(2, 5), report(3, 5), report(4, 5), report(5, 5), old})
	if err != nil {
		t.Fatal(err)
	}
	want := UsageAnswer{Settled: []int{0, 3, 4}, Refused: map[int]string{3: "foreign_session"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("answer (-want +got):\n%s", diff)
	}
	first := map[string]any{
		"boot_id": boot.String(), "session_id": "01000000000000000000000000000000", "sequence": 5.0, "up": 4.0, "down": 1.0, "at": "2026-03-01T12:00:00.000123Z",
	}
	if list, ok := asked.([]any); !ok || len(list) != 6 || !cmp.Equal(list[0], any(first)) {
		t.Errorf("reported %v, want first %v", asked, first)
	}
}

func TestUsageWithoutAnAnswerIsAnError(t *testing.T) {
	for name, answer := range map[string]struct {
		status int
		body   any
	}{
		"the control plane is away": {503, map[string]any{"code": "unavailable"}},
		"it does not know the call": {404, nil},
		"it says something else":    {200, []byte("<html>")},
	} {
		t.Run(name, func(t *testing.T) {
			c := newControl(t)
			c.handle["/api/v1/usage/report"] = func(map[string]any) (int, any) { return answer.status, answer.body }
			if got, err := c.node(t, nil).ReportUsage(t.Context(), []Usage{{At: countedAt}}); err == nil || len(got.Settled) != 0 {
				t.Errorf("ReportUsage = %v, %v", got, err)
			}
		})
	}
}
