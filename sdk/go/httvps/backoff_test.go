package httvps

import (
	"testing"
	"time"
)

func TestBackoffDrawsEvenlyUpToADoublingBound(t *testing.T) {
	b := backoff{min: 200 * time.Millisecond, max: 30 * time.Second}
	var bounds []int64
	b.rand = func(n int64) int64 { bounds = append(bounds, n-1); return n - 1 }
	for _, want := range []time.Duration{200, 400, 800, 1600, 3200, 6400, 12800, 25600, 30000, 30000} {
		if got := b.next(0); got != want*time.Millisecond {
			t.Errorf("at most %v, want %v", got, want*time.Millisecond)
		}
	}
	b.reset()
	if got := b.next(0); got != 200*time.Millisecond {
		t.Errorf("after a reset at most %v", got)
	}
	b.rand = func(int64) int64 { return 0 }
	if got := b.next(0); got != 0 {
		t.Errorf("at least %v, want no lower bound: the jitter is full", got)
	}
	if got := b.next(time.Minute); got != time.Minute {
		t.Errorf("asked to wait a minute, waits %v", got)
	}
	b.rand = func(n int64) int64 { return n - 1 }
	if got := b.next(1000 * time.Hour); got > 15*time.Minute {
		t.Errorf("asked to wait for weeks, waits %v", got)
	}
}

func TestEveryReasonIsExplained(t *testing.T) {
	for code, r := range reasons {
		if len(r.explain) < 20 || Explain(code) != r.explain {
			t.Errorf("%s: %q", code, r.explain)
		}
	}
	if Explain("") == "" || Explain("new_in_3") == "" {
		t.Error("an unknown code is met with silence")
	}
}
