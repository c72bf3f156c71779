package password

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/httvps/httvps/backend/internal/control"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// cheap is for tests that are not about the cost.
var cheap = Cost{Passes: 1, Memory: 8}

func TestAPasswordIsKnownByItsHashAlone(t *testing.T) {
	h := New(cheap)
	stored, err := h.Hash(t.Context(), "correct horse")
	if err != nil || !strings.HasPrefix(stored, "$argon2id$v=19$m=8,t=1,p=1$") {
		t.Fatalf("Hash = %q, %v", stored, err)
	}
	again, err := h.Hash(t.Context(), "correct horse")
	if err != nil || again == stored {
		t.Errorf("the same password has the same hash again: %q, %v", again, err)
	}
	for password, want := range map[string]bool{"correct horse": true, "correct horse ": false, "": false} {
		if got, err := New(Recommended()).Check(t.Context(), stored, password); got != want || err != nil {
			t.Errorf("Check(%q) = %v, %v", password, got, err)
		}
	}
}

// One that was made once, to see that those that are stored stay good.
func TestAHashOfAnEarlierVersionIsStillKnown(t *testing.T) {
	const stored = "$argon2id$v=19$m=64,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MjZP1+1U9JUbDWvDvtLyEsZiNXOKEUxfi6O2oe46uxA"
	h := hash{cost: Cost{Passes: 1, Memory: 64}, salt: []byte("0123456789abcdef")}
	h.sum = h.cost.sum("correct horse", h.salt)
	if got := h.String(); got != stored {
		t.Errorf("the hash is %s, was %s", got, stored)
	}
}

func TestDamagedHashesAreRefusedWithoutWork(t *testing.T) {
	h := New(cheap)
	stored, err := h.Hash(t.Context(), "x")
	if err != nil {
		t.Fatal(err)
	}
	for name, damaged := range map[string]string{
		"nothing": "", "another kind": strings.Replace(stored, "argon2id", "argon2i", 1), "too much memory": strings.Replace(stored, "m=8", "m=4194304", 1),
		"too many passes": strings.Replace(stored, "t=1", "t=100", 1), "none": strings.Replace(stored, "t=1", "t=0", 1),
		"more processors": strings.Replace(stored, "p=1", "p=2", 1), "cut off": stored[:len(stored)-1], "longer": stored + "AA",
	} {
		if same, err := h.Check(t.Context(), damaged, "x"); same || !errors.Is(err, errHash) {
			t.Errorf("%s: %v, %v", name, same, err)
		}
	}
	if h.Checked() != 0 {
		t.Errorf("%d were checked", h.Checked())
	}
}

func TestOnlySoManyAreComputedAtOnceAndSoManyWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(cheap)
		var running, most atomic.Int64
		release := make(chan struct{})
		var all sync.WaitGroup
		for range atOnce + maxWaiting {
			all.Go(func() {
				err := h.inTurn(t.Context(), func() {
					if n := running.Add(1); n > most.Load() {
						most.Store(n)
					}
					<-release
					running.Add(-1)
				})
				if err != nil {
					t.Errorf("one within the bound: %v", err)
				}
			})
		}
		synctest.Wait()
		if running.Load() != atOnce {
			t.Errorf("%d are computed, want %d", running.Load(), atOnce)
		}
		err := h.inTurn(t.Context(), func() { t.Error("computed beyond the bound") })
		if _, limited := errors.AsType[*control.RateLimitedError](err); !limited {
			t.Errorf("one more: %v, want to be told to wait", err)
		}
		close(release)
		all.Wait()
		if most.Load() > atOnce {
			t.Errorf("%d at once, want at most %d", most.Load(), atOnce)
		}
	})
}

func TestWhoGoesDoesNotKeepHisPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(cheap)
		for range atOnce {
			h.places <- struct{}{}
		}
		ctx, cancel := context.WithCancel(t.Context())
		var waits sync.WaitGroup
		waits.Go(func() {
			if _, err := h.Hash(ctx, "x"); !errors.Is(err, context.Canceled) {
				t.Errorf("Hash = %v", err)
			}
		})
		synctest.Wait()
		cancel()
		waits.Wait()
		if h.waiting.Load() != 0 {
			t.Errorf("%d wait", h.waiting.Load())
		}
	})
}

func FuzzHash(f *testing.F) {
	f.Add("$argon2id$v=19$m=19456,t=2,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY")
	f.Add("$argon2id$v=19$m=+8,t=1,p=1$$")
	f.Fuzz(func(t *testing.T, encoded string) {
		h, err := parse(encoded)
		if err == nil && (h.String() != encoded || h.cost.Memory > maxMemory || h.cost.Passes > maxPasses) {
			t.Errorf("parse(%q) = %+v", encoded, h)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	h := New(Recommended())
	stored, err := h.Hash(b.Context(), "correct horse")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if same, err := h.Check(b.Context(), stored, "wrong"); same || err != nil {
			b.Fatal(same, err)
		}
	}
}
