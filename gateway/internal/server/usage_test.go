package server

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/gateway/internal/ledger"
	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/gateway/internal/sessions"
)

// booked is a gateway that keeps books, and the control plane that it tells.
type booked struct {
	*usage
	registry *sessions.Registry
	stop     func()

	mu      sync.Mutex // guards the following fields
	reports [][]nodes.Usage
	account map[[16]byte]nodes.Usage
	away    error
	refuse  bool
	refusal []string
	turned  int
}

func newBooked(t *testing.T, rows int) *booked {
	t.Helper()
	l, _, err := ledger.Open(filepath.Join(t.TempDir(), "usage.db"), rows)
	if err != nil {
		t.Fatal(err)
	}
	b := &booked{registry: sessions.New(1000, sessions.Leaving{}, nil), account: make(map[[16]byte]nodes.Usage)}
	b.usage = &usage{
		ledger: l, boot: [16]byte{7}, live: b.registry.All, report: b.take, interval: 5 * time.Second, pace: 15 * time.Second,
		refused:    func(code string) { b.refusal = append(b.refusal, code) },
		turnedAway: func() { b.turned++ },
		log:        slog.New(slog.DiscardHandler), wake: make(chan struct{}, 1),
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { b.run(ctx) })
	b.stop = func() { cancel(); running.Wait() }
	t.Cleanup(func() { _ = l.Close() })
	return b
}

// take is the control plane.
func (b *booked) take(_ context.Context, list []nodes.Usage) (nodes.UsageAnswer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reports = append(b.reports, list)
	if b.away != nil {
		return nodes.UsageAnswer{}, b.away
	}
	answer := nodes.UsageAnswer{Refused: make(map[int]string)}
	for i, u := range list {
		answer.Settled = append(answer.Settled, i)
		if b.refuse {
			answer.Refused[i] = "foreign_session"
			continue
		}
		if u.Sequence > b.account[u.Session].Sequence {
			b.account[u.Session] = u
		}
	}
	return answer, nil
}

func (b *booked) set(change func(*booked)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	change(b)
}

func (b *booked) begin(t *testing.T, id byte) *sessions.Session {
	t.Helper()
	if err := b.enter(t.Context()); err != nil {
		t.Fatal(err)
	}
	live, err := b.registry.Add(sessions.ID{id}, sessions.Device{}, sessions.Term{})
	if err != nil {
		t.Fatal(err)
	}
	return live
}

func (b *booked) finish(live *sessions.Session) {
	b.registry.Remove(live)
	b.end(live)
}

// wantRows waits for the writers and looks at how much is not acknowledged.
func (b *booked) wantRows(t *testing.T, want int) {
	t.Helper()
	synctest.Wait()
	if got := b.ledger.Stats().Rows; got != want {
		t.Errorf("%d rows are in the ledger, want %d", got, want)
	}
}

func (b *booked) wantTold(t *testing.T, id byte, up, down int64) {
	t.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	got := b.account[[16]byte{id}]
	if got.Up != up || got.Down != down || up+down > 0 && got.Boot != [16]byte{7} {
		t.Errorf("session %d: told %d up and %d down, want %d and %d", id, got.Up, got.Down, up, down)
	}
}

func TestUsageIsWrittenAtEachIntervalAndToldUntilItIsAcknowledged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooked(t, 100)
		live, idle := b.begin(t, 1), b.begin(t, 2)
		live.AddUp(3)
		live.AddDown(4)
		<-time.After(4999 * time.Millisecond)
		b.wantRows(t, 0)
		<-time.After(time.Millisecond)
		b.wantRows(t, 1)
		b.wantTold(t, 1, 0, 0)
		<-time.After(10 * time.Second)
		b.wantTold(t, 1, 3, 4)
		b.wantRows(t, 0)
		live.AddUp(1)
		<-time.After(time.Hour)
		b.wantTold(t, 1, 4, 4)
		b.wantRows(t, 0)
		b.mu.Lock()
		if len(b.reports) != 2 {
			t.Errorf("%d reports, want those that have something to say", len(b.reports))
		}
		b.mu.Unlock()
		b.finish(live)
		b.finish(idle)
		b.stop()
	})
}

func TestTheEndOfASessionIsWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooked(t, 3)
		for range 10 { // each has its place back
			one, two := b.begin(t, 1), b.begin(t, 2)
			one.AddUp(1)
			two.AddUp(1)
			b.finish(one)
			b.wantRows(t, 1)
			b.finish(two)
			b.wantRows(t, 2)
			<-time.After(20 * time.Second)
			b.wantTold(t, 1, 1, 0)
			b.wantTold(t, 2, 1, 0)
		}
		b.stop()
	})
}

func TestUsageWaitsForAControlPlaneThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooked(t, 10_000)
		b.away = errors.New("away")
		long := b.begin(t, 200)
		for id := range byte(100) {
			live := b.begin(t, id)
			live.AddDown(int(id))
			long.AddDown(1000)
			<-time.After(10 * time.Minute)
			b.finish(live)
		}
		synctest.Wait()
		rows := b.ledger.Stats().Rows
		if rows < 99+60 || rows > 99+70 {
			t.Errorf("%d rows, want one for each session that moved something, and of the long one for each quarter of an hour", rows)
		}
		if lag := time.Since(b.ledger.Stats().Oldest); lag < 16*time.Hour {
			t.Errorf("the oldest row is %v old", lag)
		}
		b.mu.Lock()
		if n := len(b.reports); n > 1100 || n < 900 {
			t.Errorf("it was tried %d times in 1000 minutes", n)
		}
		b.away = nil
		b.mu.Unlock()
		<-time.After(usageRetryLast)
		b.wantRows(t, 0)
		for id := range byte(100) {
			b.wantTold(t, id, 0, int64(id))
		}
		b.wantTold(t, 200, 0, 100_000)
		b.finish(long)
		b.stop()
	})
}

func TestTheLastReportIsMadeWhenTheGatewayStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooked(t, 100)
		live, ended := b.begin(t, 1), b.begin(t, 2)
		live.AddUp(1)
		ended.AddUp(2)
		b.finish(ended)
		b.stop()
		b.wantTold(t, 1, 1, 0)
		b.wantTold(t, 2, 2, 0)
		b.wantRows(t, 0)
	})
}

// What another start of the gateway has left is told under its own name.
func TestWhatAnEarlierStartHasLeftIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooked(t, 100)
		if err := b.ledger.Put([]ledger.Row{{Boot: [16]byte{6}, Session: [16]byte{9}, Up: 5, Down: 6, At: time.Now()}}); err != nil {
			t.Fatal(err)
		}
		<-time.After(15 * time.Second)
		b.wantRows(t, 0)
		b.set(func(b *booked) {
			if got := b.account[[16]byte{9}]; got.Boot != [16]byte{6} || got.Up != 5 || got.Down != 6 {
				t.Errorf("told %+v", got)
			}
		})
		b.stop()
	})
}

func TestWhatTheControlPlaneNeverTakesIsCountedAndDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooked(t, 100)
		b.refuse = true
		live := b.begin(t, 1)
		live.AddUp(1)
		b.finish(live)
		<-time.After(15 * time.Second)
		b.wantRows(t, 0)
		if !slices.Equal(b.refusal, []string{"foreign_session"}) {
			t.Errorf("refused %v", b.refusal)
		}
		b.stop()
	})
}

func TestWithoutAPlaceInTheLedgerNoSessionBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBooked(t, 2)
		b.away = errors.New("away")
		for id := range byte(2) {
			live := b.begin(t, id)
			live.AddUp(1)
			b.finish(live)
			b.wantRows(t, int(id)+1)
		}
		if err := b.enter(t.Context()); !errors.Is(err, ledger.ErrFull) || b.turned != 1 {
			t.Errorf("enter = %v, and %d sessions were turned away", err, b.turned)
		}
		b.set(func(b *booked) { b.away = nil })
		<-time.After(time.Minute)
		b.wantRows(t, 0)
		if err := b.enter(t.Context()); err != nil {
			t.Errorf("with room again: %v", err)
		}
		b.leave()
		b.stop()
	})
}
