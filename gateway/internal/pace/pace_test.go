package pace

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

const (
	mbit   = 1_000_000
	window = 10 * time.Second
)

// mover moves bytes as fast as its share lets it: n at once, where it can.
type mover struct {
	*Share
	moved atomic.Int64
}

// moveUp is how bytes go to targets: pieces are there, and wait.
func (m *mover) moveUp(piece int) {
	for {
		for left := piece; left > 0; {
			n := m.Take(left)
			if n == 0 {
				return
			}
			m.moved.Add(int64(n))
			left -= n
		}
	}
}

// moveDown is how bytes come from targets: nobody knows how many will be there.
func (m *mover) moveDown(piece int) {
	for {
		most := m.Reserve()
		if most == 0 {
			return
		}
		n := min(most, piece)
		m.Settle(n)
		m.moved.Add(int64(n))
	}
}

// crowd is many movers at one limit.
type crowd struct {
	movers  []*mover
	running sync.WaitGroup
}

func (c *crowd) start(limit *Limit, n int, move func(*mover)) {
	for range n {
		m := &mover{Share: limit.NewShare()}
		c.movers = append(c.movers, m)
		c.running.Go(func() { move(m) })
	}
}

// during returns what each one moves in d.
func (c *crowd) during(d time.Duration) []float64 {
	moved := make([]float64, len(c.movers))
	for i, m := range c.movers {
		moved[i] = -float64(m.moved.Load())
	}
	<-time.After(d)
	synctest.Wait()
	for i, m := range c.movers {
		moved[i] += float64(m.moved.Load())
	}
	return moved
}

func (c *crowd) end() {
	for _, m := range c.movers {
		m.Close()
	}
	c.running.Wait()
}

func sum(moved []float64) (total float64) {
	for _, n := range moved {
		total += n
	}
	return total
}

// jain is 1 where all have the same, and 1/n where one has everything.
func jain(moved []float64) float64 {
	squares := 0.0
	for _, n := range moved {
		squares += n * n
	}
	return sum(moved) * sum(moved) / (float64(len(moved)) * squares)
}

// wantSpeed checks what was moved in d against bits per second, ±5 %.
func wantSpeed(t *testing.T, moved []float64, d time.Duration, bits float64) {
	t.Helper()
	want := bits / 8 * d.Seconds()
	if off := sum(moved)/want - 1; math.Abs(off) > 0.05 {
		t.Errorf("%.0f bytes moved, want %.0f: off by %.1f %%", sum(moved), want, 100*off)
	}
}

func wantFair(t *testing.T, moved []float64) {
	t.Helper()
	if j := jain(moved); j < 0.95 {
		t.Errorf("shared with Jain's index %.3f: %.0f", j, moved)
	}
}

func TestASpeedIsKeptAndSharedFairly(t *testing.T) {
	for name, bits := range map[string]int64{"the least": 64_000, "a slow one": mbit, "a usual one": 20 * mbit, "a fast one": 1000 * mbit} {
		for way, move := range map[string]func(*mover, int){"up": (*mover).moveUp, "down": (*mover).moveDown} {
			for _, streams := range []int{1, 2, 50} {
				if streams == 50 && bits < mbit {
					continue // their first probes would be more than 5 % of it
				}
				t.Run(name+" "+way, func(t *testing.T) {
					synctest.Test(t, func(t *testing.T) {
						var speeds Speeds
						speeds.Set(time.Now(), bits, bits)
						limit := map[string]*Limit{"up": &speeds.Up, "down": &speeds.Down}[way]
						var c crowd
						c.start(limit, streams, func(m *mover) { move(m, 1<<30) })
						moved := c.during(window)
						wantSpeed(t, moved, window, float64(bits))
						wantFair(t, moved)
						c.end()
					})
				})
			}
		}
	}
}

// A stream that moves little at once has as many bytes as one that moves much, and
// not as many turns.
func TestTheSizeOfPiecesDoesNotMatter(t *testing.T) {
	for way, move := range map[string]func(*mover, int){"up": (*mover).moveUp, "down": (*mover).moveDown} {
		t.Run(way, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var l Limit
				l.set(20 * mbit)
				var c crowd
				for _, piece := range []int{1000, 1 << 20, 20_000, 100} {
					c.start(&l, 1, func(m *mover) { move(m, piece) })
				}
				moved := c.during(window)
				wantSpeed(t, moved, window, 20*mbit)
				wantFair(t, moved)
				c.end()
			})
		})
	}
}

func TestASpeedChangesWhileBytesMove(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		l.set(8000) // turns that take long, which are waited for when it changes
		var c crowd
		c.start(&l, 2, func(m *mover) { m.moveUp(1 << 20) })
		c.start(&l, 1, func(m *mover) { m.moveDown(1 << 20) })
		_ = c.during(time.Second)
		for _, bits := range []int64{100 * mbit, 20 * mbit, 2 * mbit} {
			l.set(bits)
			moved := c.during(window)
			wantSpeed(t, moved, window, float64(bits))
			wantFair(t, moved)
		}
		c.end()
	})
}

func TestWhoWaitsGoesOnWhenTheLimitIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		l.set(8000)
		began := time.Now()
		a, b := l.NewShare(), l.NewShare()
		for a.Take(1000) == leastTurn && time.Since(began) == 0 { // uses up what is there
		}
		done := make(chan int, 1)
		go func() { done <- b.Take(1000) }()
		synctest.Wait()
		changed := time.Now()
		l.set(0)
		if n := <-done; n < leastTurn || time.Since(changed) != 0 || l.Limited() || a.Take(1<<30) != 1<<30 {
			t.Errorf("%d bytes may move after %v", n, time.Since(changed))
		}
	})
}

// A turn that was asked for at a high speed may be more than all that a low speed
// has at once.
func TestATurnShrinksWithTheSpeed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		l.set(1000 * mbit)
		s := l.NewShare()
		l.mu.Lock()
		l.tokens = 0
		l.mu.Unlock()
		done := make(chan int, 1)
		go func() { done <- s.Take(mostTurn) }()
		synctest.Wait()
		l.set(8000)
		if n := <-done; n != leastTurn {
			t.Errorf("%d bytes may move", n)
		}
	})
}

func TestWhoWasIdleHasNothingInStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		l.set(20 * mbit)
		late := l.NewShare()
		var c crowd
		c.start(&l, 3, func(m *mover) { m.moveUp(1 << 20) })
		_ = c.during(time.Minute)
		m := &mover{Share: late}
		c.movers = append(c.movers, m)
		c.running.Go(func() { m.moveUp(1 << 20) })
		moved := c.during(window)
		wantSpeed(t, moved, window, 20*mbit)
		wantFair(t, moved)
		c.end()
	})
}

func TestATargetThatSaysNothingHoldsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		l.set(20 * mbit)
		began := time.Now()
		for range 1000 { // each has moved something, and waits for its target
			s := l.NewShare()
			if s.Reserve() == 0 {
				t.Fatal("closed")
			}
			s.Settle(100)
			if s.Reserve() == 0 {
				t.Fatal("closed")
			}
		}
		if took := time.Since(began); took != 0 || l.tokens < l.burst-1000*100 {
			t.Errorf("they waited for %v and left %.0f bytes", took, l.tokens)
		}
	})
}

// Streams that come new all the time go before one that had much, but not for ever.
func TestNobodyStarvesBehindNewStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		l.set(mbit)
		var c crowd
		c.start(&l, 1, func(m *mover) { m.moveUp(1 << 20) })
		_ = c.during(time.Second)
		stop := make(chan struct{})
		var comers sync.WaitGroup
		for range 4 {
			comers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						l.NewShare().Take(mostTurn)
					}
				}
			})
		}
		if moved := c.during(window)[0]; moved < mbit/8*10/8 { // a fifth, nearly
			t.Errorf("%.0f bytes moved beside streams that come new", moved)
		}
		close(stop)
		comers.Wait()
		c.end()
	})
}

func TestAClosedShareWaitsNoLongerAndMakesRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		l.set(8000)
		first := l.NewShare()
		for first.Take(leastTurn); ; {
			l.mu.Lock()
			left := l.tokens
			l.mu.Unlock()
			if left < leastTurn {
				break
			}
			first.Take(leastTurn)
		}
		shares := make([]*Share, 50)
		results := make(chan int, len(shares))
		for i := range shares {
			shares[i] = l.NewShare()
			go func() { results <- shares[i].Take(leastTurn) }()
			synctest.Wait()
		}
		began := time.Now()
		for _, s := range shares[:49] {
			s.Close()
			if n := <-results; n != 0 || time.Since(began) != 0 {
				t.Fatalf("a closed share may move %d bytes after %v", n, time.Since(began))
			}
		}
		if n := <-results; n != leastTurn || time.Since(began) > leastTurn*time.Millisecond {
			t.Errorf("the one that is left may move %d bytes after %v", n, time.Since(began))
		}
		if shares[0].Take(1) != 0 || shares[0].Reserve() != 0 || len(l.waiting) != 0 {
			t.Error("a closed share goes on")
		}
	})
}

func TestWhoWantsLittleGoesOnWhenOneBeforeHimIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		l.set(8000)
		l.tokens = 10
		large, small := l.NewShare(), l.NewShare()
		results := make(chan int, 2)
		go func() { results <- large.Take(leastTurn) }()
		synctest.Wait()
		go func() { results <- small.Take(10) }()
		synctest.Wait()
		began := time.Now()
		large.Close()
		if closed, moved := <-results, <-results; closed+moved != 10 || time.Since(began) != 0 {
			t.Errorf("%d bytes may move after %v", closed+moved, time.Since(began))
		}
	})
}

func TestDatagramsBeyondTheSpeedAreDroppedAtOnce(t *testing.T) {
	for name, size := range map[string]int{"small": 100, "usual": 1200, "the largest": 16_000} {
		for bits, d := range map[int64]time.Duration{64_000: 10 * window, 20 * mbit: window / 2} {
			t.Run(name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					var l Limit
					l.set(bits)
					s := l.NewShare()
					passed, dropped := 0.0, 0
					for began := time.Now(); time.Since(began) < d; {
						if s.Pass(size) {
							passed += float64(size)
						} else {
							dropped++
						}
						<-time.After(time.Duration(float64(size) / float64(bits) * 4 * float64(time.Second))) // twice too fast
					}
					wantSpeed(t, []float64{passed}, d, float64(bits))
					if dropped == 0 {
						t.Error("none was dropped")
					}
				})
			})
		}
	}
}

func TestDatagramsAndStreamsShareFairly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l Limit
		l.set(20 * mbit)
		var c crowd
		c.start(&l, 3, func(m *mover) { m.moveUp(1 << 20) })
		c.start(&l, 1, func(m *mover) {
			for began := time.Now(); time.Since(began) < window; <-time.After(200 * time.Microsecond) { // 48 Mbit/s
				if m.Pass(1200) {
					m.moved.Add(1200)
				}
			}
		})
		moved := c.during(window)
		wantSpeed(t, moved, window, 20*mbit)
		wantFair(t, moved)
		c.end()
	})
}

func TestWithoutALimitNothingIsCountedOrWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var speeds Speeds
		s := speeds.Up.NewShare()
		began := time.Now()
		cost := testing.AllocsPerRun(1000, func() {
			if s.Limited() || !s.Pass(16_000) {
				t.Error("there is a limit")
			}
		})
		if cost != 0 || time.Since(began) != 0 || speeds.Up.served != 0 || speeds.Up.timer != nil {
			t.Errorf("%v allocations, %v", cost, time.Since(began))
		}
	})
}

func TestTheAnswerToTheLatestQuestionCounts(t *testing.T) {
	var speeds Speeds
	now := time.Now()
	speeds.Set(now, 16_000, 0)
	speeds.Set(now.Add(-time.Second), 8000, 8000)
	if up := speeds.Up.rate.Load(); up != 2000 || speeds.Down.Limited() {
		t.Errorf("an older answer counts: %d bytes up", up)
	}
	speeds.Set(now.Add(time.Second), 0, 7)
	if speeds.Up.Limited() || speeds.Down.rate.Load() != 1 {
		t.Error("a newer answer does not count")
	}
}

func BenchmarkLimited(b *testing.B) {
	var l Limit
	s := l.NewShare()
	b.ReportAllocs()
	for b.Loop() {
		if s.Limited() {
			b.Fatal("limited")
		}
	}
}

func TestTheSlowestReasonCountsForAsLongAsItIsThere(t *testing.T) {
	var s Speeds
	want := func(what string, up, down int64) {
		t.Helper()
		if gotUp, gotDown := 8*s.Up.rate.Load(), 8*s.Down.rate.Load(); gotUp != up || gotDown != down {
			t.Errorf("%s: %d up and %d down, want %d and %d", what, gotUp, gotDown, up, down)
		}
	}
	s.Slow("one", mbit)
	want("without a speed of the plan", mbit, mbit)
	s.Set(time.Now(), mbit/2, 4*mbit)
	want("with them", mbit/2, mbit)
	s.Slow("another", mbit/4)
	want("with another reason", mbit/4, mbit/4)
	s.Slow("one", 0)
	want("without the first", mbit/4, mbit/4)
	s.Set(time.Now(), 0, 8*mbit)
	want("with other speeds of the plan", mbit/4, mbit/4)
	s.Slow("another", 0)
	want("without any", 0, 8*mbit)
	if len(s.slowed) != 0 {
		t.Errorf("%v is remembered", s.slowed)
	}
}
