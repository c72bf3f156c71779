package quota

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// session is what uses a subscription.
type session struct {
	*Use
	bytes atomic.Int64
	slow  atomic.Int64
}

// move moves up to n bytes that are to be had now.
func (s *session) move(n int) int {
	got := s.Reserve(n)
	s.bytes.Add(int64(got))
	return got
}

func begin(t *testing.T, b *Book, subscription string, grant *Grant) *session {
	t.Helper()
	s := new(session)
	var err error
	s.Use, err = b.Begin(subscription, grant, time.Now(), s.bytes.Load, func(bps int64) { s.slow.Store(bps) })
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func open(version, allowance int64) *Grant {
	return &Grant{Subscription: "s", State: Open, Version: version, Allowance: allowance}
}

// told has the book take a grant that is asked for now.
func told(b *Book, g *Grant) { b.Apply([]Grant{*g}, time.Now()) }

func wantDue(t *testing.T, got, want Due) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("due (-want +got):\n%s", diff)
	}
}

// due is a request of subscription s alone.
func due(used, version int64, giveBack bool) Due {
	return Due{Grants: []Request{{Subscription: "s", Used: used, Version: version, GiveBack: giveBack}}}
}

func TestAllSessionsOfASubscriptionMoveItsAllowanceAndNoMore(t *testing.T) {
	b := NewBook()
	one, two := begin(t, b, "s", open(1, 1000)), begin(t, b, "s", open(1, 1000))
	other := begin(t, b, "other", nil)
	if n := one.move(700); n != 700 {
		t.Errorf("moved %d of 700", n)
	}
	if n := two.Reserve(700); n != 300 || one.Left() {
		t.Errorf("%d bytes are reserved, want what is left", n)
	}
	two.Return(100)
	if n := one.move(700); n != 100 {
		t.Errorf("moved %d, want what was returned", n)
	}
	if n := other.move(1 << 40); n != 1<<40 {
		t.Errorf("without a quota %d bytes were moved", n)
	}
	one.Overdraw(10)
	told(b, open(2, 1010))
	if n := one.move(1); n != 0 {
		t.Errorf("moved %d bytes that were overdrawn before", n)
	}
}

func TestManyMoveAtOnceToTheByte(t *testing.T) {
	b := NewBook()
	var (
		sessions []*session
		running  sync.WaitGroup
		done     = make(chan struct{})
	)
	for range 5 {
		sessions = append(sessions, begin(t, b, "s", open(1, 0)))
	}
	for i := range 20 {
		s := sessions[i%len(sessions)]
		running.Go(func() {
			for s.Wait(done) {
				got := s.Reserve(1 + rand.IntN(5000))
				back := rand.IntN(got + 1)
				s.bytes.Add(int64(got - back))
				s.Return(back)
			}
		})
	}
	const quota = 20_000_000
	for allowed := int64(0); allowed < quota; {
		<-b.Wake()
		b.Wanted(time.Now())
		allowed += 1 + rand.Int64N(1_000_000)
		told(b, open(1+allowed, min(allowed, quota)))
	}
	for sessions[0].account.taken.Load() < quota || moved(sessions) < quota {
		<-time.After(time.Millisecond)
	}
	close(done)
	running.Wait()
	if n := moved(sessions); n != quota {
		t.Errorf("%d bytes were moved, want %d", n, quota)
	}
}

func moved(sessions []*session) (n int64) {
	for _, s := range sessions {
		n += s.bytes.Load()
	}
	return n
}

func TestMoreIsAskedForWhenHalfIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook()
		s := begin(t, b, "s", open(1, 1000))
		s.move(499)
		wantDue(t, b.Wanted(time.Now()), Due{})
		s.move(1)
		<-b.Wake()
		wantDue(t, b.Wanted(time.Now()), due(500, 1, false))
		s.move(100)
		wantDue(t, b.Wanted(time.Now()), Due{})
		told(b, open(2, 1600)) // 1000 in advance
		s.move(499)
		wantDue(t, b.Wanted(time.Now()), Due{})
		s.move(1)
		wantDue(t, b.Wanted(time.Now()), due(1100, 2, false))

		// What got no answer is asked for again.
		b.Again([]Request{{Subscription: "s"}})
		wantDue(t, b.All(time.Now()), due(1100, 2, false))
		wantDue(t, b.All(time.Now()), Due{})
	})
}

func TestWithNothingLeftItIsAskedEachSecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook()
		s := begin(t, b, "s", open(1, 1000))
		s.move(1000)
		wantDue(t, b.All(time.Now()), due(1000, 1, false))
		told(b, open(1, 1000))
		var waits sync.WaitGroup
		waits.Go(func() { s.Wait(nil) })
		synctest.Wait()
		for range 3 {
			<-time.After(999 * time.Millisecond)
			wantDue(t, b.All(time.Now()), Due{})
			<-time.After(time.Millisecond)
			wantDue(t, b.All(time.Now()), due(1000, 1, false))
			told(b, open(1, 1000))
		}
		told(b, open(2, 1001))
		waits.Wait()
	})
}

func TestALeaseIsRenewedAlsoWhenNothingMoves(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook()
		begin(t, b, "s", open(3, 1000))
		begin(t, b, "free", nil)
		if diff := cmp.Diff(due(0, 3, false).Grants, b.Held(10)); diff != "" {
			t.Errorf("for a heartbeat (-want +got):\n%s", diff)
		}
		<-time.After(renewAfter)
		wantDue(t, b.All(time.Now()), due(0, 3, false))
		told(b, open(4, 1000))
		wantDue(t, b.All(time.Now()), Due{})
		if got := b.Stats(); got != (Stats{Leases: 1}) {
			t.Errorf("%+v", got)
		}
	})
}

func TestHeartbeatsRenewFirstWhatWasRenewedLast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook()
		for i := range 5 {
			begin(t, b, fmt.Sprint(i), &Grant{State: Open, Version: 1})
			<-time.After(time.Second)
		}
		for round := range 10 {
			held := b.Held(2)
			if len(held) != 2 || held[0].Subscription != fmt.Sprint(2*round%5) || held[1].Subscription != fmt.Sprint((2*round+1)%5) {
				t.Errorf("round %d: %v", round, held)
			}
			for _, r := range held {
				b.Apply([]Grant{{Subscription: r.Subscription, State: Open, Version: 1}}, time.Now())
				<-time.After(time.Second)
			}
		}
	})
}

func TestTheLastSessionGivesBackWhatIsNotUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook()
		one, two := begin(t, b, "s", open(1, 1000)), begin(t, b, "s", open(1, 1000))
		one.move(100)
		one.End()
		wantDue(t, b.Wanted(time.Now()), Due{})
		two.move(10)
		two.End()
		wantDue(t, b.Wanted(time.Now()), due(110, 1, true))
		wantDue(t, b.All(time.Now()), due(110, 1, true)) // until it is answered
		told(b, open(2, 110))
		wantDue(t, b.All(time.Now()), Due{})

		// Who comes back goes on counting.
		s := begin(t, b, "s", open(3, 300))
		if n := s.move(1000); n != 190 {
			t.Errorf("%d bytes were moved, want 190", n)
		}
		wantDue(t, b.Wanted(time.Now()), due(300, 3, false))
		s.End()
		<-time.After(giveUp)
		wantDue(t, b.All(time.Now()), Due{}) // the lease has ended by itself
		if len(b.accounts) != 0 || b.past["s"] != 300 {
			t.Errorf("%d subscriptions are there, and %v", len(b.accounts), b.past)
		}
	})
}

func TestASessionThatBeginsKeepsWhatIsAboutToBeGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook()
		begin(t, b, "s", open(1, 1000)).End()
		wantDue(t, b.Wanted(time.Now()), due(0, 1, true))
		s := begin(t, b, "s", open(3, 1000)) // decided on after it was given back
		told(b, open(2, 0))                  // which is heard of late
		if n := s.move(2000); n != 1000 {
			t.Errorf("%d bytes were moved, want what the later word says", n)
		}
		if len(b.accounts) != 1 {
			t.Error("the subscription is forgotten")
		}
	})
}

func TestOfTwoGrantsTheLaterOneCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook()
		s := begin(t, b, "s", open(5, 1000))
		before := time.Now()
		<-time.After(time.Second)
		want := func(what string, want int64) {
			t.Helper()
			if got := s.account.allowance.Load(); got != want {
				t.Errorf("%s: %d bytes are allowed, want %d", what, got, want)
			}
		}
		told(b, open(4, 2000))
		want("an older version", 1000)
		told(b, open(6, 500))
		want("a newer version", 500)
		b.Apply([]Grant{*open(7, 700)}, before)
		want("a newer version that was asked for earlier", 700)
		b.Apply([]Grant{{Subscription: "s", State: Unlimited}}, before)
		want("without a version, asked for earlier", 700)
		told(b, &Grant{Subscription: "s", State: Unlimited})
		want("no quota any more", endless)
		b.Apply([]Grant{*open(8, 800)}, before)
		want("what was asked for before that", endless)
		told(b, open(1, 900))
		want("a lease that is a new one", 900)
	})
}

func TestExhaustedSessionsAreAskedAboutWhenNothingIsLeft(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook()
		s := begin(t, b, "s", open(1, 1000))
		told(b, &Grant{Subscription: "s", State: Exhausted, Version: 2, Allowance: 1000})
		wantDue(t, b.All(time.Now()), Due{})
		s.move(1000)
		review := Due{Review: []string{"s"}}
		b.Wanted(time.Now())
		<-time.After(reviewAgain)
		got := b.All(time.Now())
		got.Grants = nil
		wantDue(t, got, review)
		told(b, &Grant{Subscription: "s", State: Exhausted, Version: 2, Allowance: 1000})
		wantDue(t, b.All(time.Now()), Due{})
		<-time.After(reviewAgain)
		got = b.All(time.Now())
		got.Grants = nil
		wantDue(t, got, review)
		told(b, &Grant{Subscription: "s", State: Unknown})
		<-time.After(reviewAgain)
		got = b.All(time.Now())
		got.Grants = nil
		wantDue(t, got, review)
	})
}

func TestAThrottledSubscriptionIsSlowedAndNotStopped(t *testing.T) {
	b := NewBook()
	s := begin(t, b, "s", open(1, 1000))
	s.move(1000)
	throttled := &Grant{Subscription: "s", State: Throttled, Version: 2, Allowance: 1000, ThrottleBPS: 64_000}
	told(b, throttled)
	late := begin(t, b, "s", throttled)
	if n := s.move(5000); n != 5000 || s.slow.Load() != 64_000 || late.slow.Load() != 64_000 {
		t.Errorf("%d bytes were moved at %d and %d bits per second", n, s.slow.Load(), late.slow.Load())
	}
	told(b, &Grant{Subscription: "s", State: Unknown})
	if s.slow.Load() != 64_000 {
		t.Error("without a lease it is not slow any more")
	}
	told(b, open(3, 7000))
	if n := s.move(5000); n != 1000 || s.slow.Load() != 0 || late.slow.Load() != 0 {
		t.Errorf("in the next period %d bytes were moved at %d and %d bits per second, want 1000", n, s.slow.Load(), late.slow.Load())
	}
	told(b, &Grant{Subscription: "s", State: Throttled, Version: 4, ThrottleBPS: 64_000})
	late.End()
	if late.slow.Load() != 0 || s.slow.Load() != 64_000 {
		t.Error("a session that has ended slows its device")
	}
}

func TestASessionThatAnotherSubscriptionCarriesIsCountedAndNotStopped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := NewBook()
		s, second := begin(t, b, "s", open(1, 1000)), begin(t, b, "s", open(1, 1000))
		s.move(1000)
		var waits sync.WaitGroup
		waits.Go(func() { s.Wait(nil) })
		synctest.Wait()
		s.Rest("another", nil, time.Now())
		waits.Wait()
		if n := s.move(500); n != 500 || second.Left() {
			t.Errorf("moved %d of 500; the other session has something left: %v", n, second.Left())
		}
		wantDue(t, b.Wanted(time.Now()), due(1500, 1, false))
		s.Rest("s", open(2, 1600), time.Now())
		if n := s.move(500); n != 100 {
			t.Errorf("moved %d, want what is left of its own", n)
		}
	})
}

func TestTheSubscriptionsThatAProcessKnowsAreBounded(t *testing.T) {
	b := NewBook()
	b.limit = 10
	for i := range 10 {
		begin(t, b, fmt.Sprint(i), nil).End()
	}
	if _, err := b.Begin("one more", nil, time.Now(), func() int64 { return 0 }, func(int64) {}); !errors.Is(err, ErrFull) {
		t.Errorf("one more: %v", err)
	}
	begin(t, b, "7", open(1, 10))
}

func BenchmarkReserve(b *testing.B) {
	u, err := NewBook().Begin("s", open(1, endless), time.Now(), func() int64 { return 0 }, func(int64) {})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if !u.Wait(nil) {
			b.Fatal("waits")
		}
		u.Return(u.Reserve(64<<10) - 60<<10)
	}
}
