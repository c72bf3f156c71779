package events

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/control"
)

// book is a Log in memory.
type book struct {
	mu     sync.Mutex
	events []control.Event
	low    int64
	err    error
	reads  int
}

func (b *book) add(kind control.EventKind, gateways ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, control.Event{
		Version: int64(len(b.events) + 1), Kind: kind, At: time.Now(), All: len(gateways) == 0, Gateways: gateways,
	})
}

func (b *book) forget(low int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.low = low
}

func (b *book) fail(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err = err
}

func (b *book) Events(_ context.Context, after int64, limit int) (control.EventLog, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.reads++
	log := control.EventLog{Latest: int64(len(b.events)), Low: b.low}
	for _, e := range b.events[min(max(after, b.low, 0), log.Latest):] {
		if len(log.Events) == limit {
			break
		}
		log.Events = append(log.Events, e)
	}
	return log, b.err
}

// tally is an Observer that counts.
type tally struct {
	mu     sync.Mutex
	counts map[string]int
}

func (c *tally) count(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.counts == nil {
		c.counts = make(map[string]int)
	}
	c.counts[name]++
}

func (c *tally) of(name string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.counts[name]
}

func (c *tally) Streams(n int)                   { c.count(fmt.Sprint("streams ", n)) }
func (c *tally) StreamEnded(why string)          { c.count("ended " + why) }
func (c *tally) EventSent(string, time.Duration) { c.count("sent") }
func (c *tally) Woken(by string)                 { c.count("woken " + by) }
func (c *tally) Announced(ok bool)               { c.count(fmt.Sprint("announced ", ok)) }

type brokenBus struct{}

func (brokenBus) Announce() error { return errors.New("away") }

// bench is a running hub over a book, inside a synctest bubble.
type bench struct {
	*Hub
	t               *testing.T
	book            *book
	tally           *tally
	appended, other Signal
	stop            func()
}

func run(t *testing.T, bus Bus) *bench {
	t.Helper()
	b := &bench{t: t, book: &book{}, tally: &tally{}, appended: NewSignal(), other: NewSignal()}
	b.Hub = NewHub(Options{
		Log: b.book, Bus: bus, Observer: b.tally, Logger: slog.New(slog.DiscardHandler), Appended: b.appended, Told: b.other,
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	b.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	synctest.Wait()
	return b
}

// reader follows a stream.
type reader struct {
	cancel context.CancelFunc
	ended  chan error
	mu     sync.Mutex
	got    []string
	hold   chan struct{} // unless nil, send waits for it
}

func (r *reader) all() []string {
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.got
}

func (b *bench) read(gateway string, after int64, hold chan struct{}) *reader {
	b.t.Helper()
	begin, err := b.Begin(b.t.Context(), gateway, after)
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.t.Context())
	r := &reader{cancel: cancel, ended: make(chan error, 1), hold: hold}
	go func() {
		r.ended <- begin(ctx, func(m Message) error {
			if hold != nil {
				<-hold
			}
			text := fmt.Sprint(m.Version)
			if m.Event != nil {
				text += " " + string(m.Event.Kind)
			}
			if m.SnapshotNeeded {
				text += " snapshot"
			}
			r.mu.Lock()
			defer r.mu.Unlock()
			r.got = append(r.got, text)
			return nil
		})
	}()
	synctest.Wait()
	return r
}

func (b *bench) want(r *reader, want ...string) {
	b.t.Helper()
	if diff := cmp.Diff(want, r.all()); diff != "" {
		b.t.Errorf("messages (-want +got):\n%s", diff)
	}
}

func (b *bench) leave(r *reader, want error) {
	b.t.Helper()
	r.cancel()
	if err := <-r.ended; !errors.Is(err, want) {
		b.t.Errorf("the stream ended with %v, want %v", err, want)
	}
}

func bubble(t *testing.T, bus Bus, test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := run(t, bus)
		defer b.stop()
		test(b)
	})
}

func TestAStreamBringsWhatItsReaderMissedAndThenWhatComes(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		for range 3 {
			b.book.add("old")
		}
		b.appended.Send()
		synctest.Wait()
		r := b.read("g", 1, nil)
		b.want(r, "2 old", "3 old", "3")
		b.book.add("new")
		b.appended.Send()
		b.want(r, "2 old", "3 old", "3", "4 new")
		b.leave(r, nil)
	})
}

func TestAStreamBringsOnlyWhatConcernsItsGateway(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		r, other := b.read("g", 0, nil), b.read("h", 0, nil)
		b.book.add("theirs", "h")
		b.book.add("ours", "x", "g")
		b.book.add("all")
		b.appended.Send()
		b.want(r, "0", "2 ours", "3 all")
		b.want(other, "0", "1 theirs", "3 all")
		b.leave(r, nil)
		b.leave(other, nil)
	})
}

func TestSilenceIsBrokenByHowFarTheStreamIs(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		r := b.read("g", 0, nil)
		b.book.add("theirs", "h")
		b.appended.Send()
		synctest.Wait()
		<-time.After(KeepAlive)
		b.want(r, "0", "1")
		b.leave(r, nil)
	})
}

func TestThePollFindsWhatNobodySpokeOf(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		r := b.read("g", 0, nil)
		b.book.add("silent")
		b.want(r, "0")
		<-time.After(PollInterval)
		b.want(r, "0", "1 silent")
		if b.tally.of("woken poll") != 1 {
			t.Errorf("polled %d times", b.tally.of("woken poll"))
		}
		b.leave(r, nil)
	})
}

func TestAnotherProcessWakesTheHub(t *testing.T) {
	bubble(t, brokenBus{}, func(b *bench) {
		r := b.read("g", 0, nil)
		b.book.add("theirs")
		b.other.Send()
		b.want(r, "0", "1 theirs")
		if b.tally.of("announced false") != 0 {
			t.Error("what came from another process was announced to it")
		}
		b.book.add("ours")
		b.appended.Send()
		b.want(r, "0", "1 theirs", "2 ours") // although the bus is away
		if b.tally.of("announced false") != 1 {
			t.Error("what this process wrote was not announced")
		}
		b.leave(r, nil)
	})
}

func TestWhoMissedWhatIsNotKeptNeedsASnapshot(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		for range 5 {
			b.book.add("old")
		}
		b.appended.Send()
		synctest.Wait()
		b.book.forget(2)
		for after, want := range map[int64][]string{
			-1: {"5 snapshot"}, 1: {"5 snapshot"}, 2: {"3 old", "4 old", "5 old", "5"}, 5: {"5"},
			6: {"5 snapshot"}, // from the future: of another log
		} {
			r := b.read("g", after, nil)
			b.want(r, want...)
			b.leave(r, nil)
		}
	})
}

func TestAStreamGoesOnBehindASnapshot(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		r := b.read("g", -1, nil)
		b.book.add("new")
		b.appended.Send()
		b.want(r, "0 snapshot", "1 new")
		b.leave(r, nil)
	})
}

func TestAReaderAheadOfThisProcessGetsNothingTwice(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		b.book.add("seen elsewhere")
		r := b.read("g", 1, nil) // the hub has not read it yet
		b.want(r, "1")
		b.appended.Send()
		b.book.add("new")
		b.want(r, "1", "2 new")
		b.leave(r, nil)
	})
}

func TestAReaderWhoFallsBehindReadsTheLogAndMissesNothing(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		hold := make(chan struct{})
		held, free := b.read("held", 0, hold), b.read("free", 0, nil)
		for range 3 * buffered {
			b.book.add("e")
		}
		b.appended.Send()
		b.wantAll(free, 3*buffered)
		close(hold)
		b.wantAll(held, 3*buffered)
		b.leave(held, nil)
		b.leave(free, nil)
	})
}

// wantAll fails the test unless a reader has got events 1 to n, each once and in
// order.
func (b *bench) wantAll(r *reader, n int) {
	b.t.Helper()
	next := 1
	for _, text := range r.all() {
		version, kind, event := strings.Cut(text, " ")
		if !event {
			continue
		}
		if version != fmt.Sprint(next) {
			b.t.Fatalf("instead of event %d comes %s %s", next, version, kind)
		}
		next++
	}
	if next != n+1 {
		b.t.Errorf("the events end before %d, want all %d", next, n)
	}
}

func TestAReaderWhoIsTooSlowIsSentAway(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		hold := make(chan struct{})
		slow := b.read("slow", 0, hold)
		for range 3 * buffered {
			b.book.add("e")
		}
		b.appended.Send()
		gone := make(chan struct{})
		var taking sync.WaitGroup
		taking.Go(func() { // a message each second
			for {
				select {
				case hold <- struct{}{}:
				case <-gone:
					return
				}
				select {
				case <-time.After(time.Second):
				case <-gone:
					return
				}
			}
		})
		defer taking.Wait()
		defer close(gone)
		if err := <-slow.ended; !errors.Is(err, ErrSlow) {
			t.Errorf("the slow stream ended with %v, want ErrSlow", err)
		}
		slow.cancel()
		got := 0
		for _, text := range slow.all() {
			if strings.Contains(text, " ") {
				got++
			}
		}
		again := b.read("slow", int64(got), nil)
		if rest := len(again.all()) - 1; got+rest != 3*buffered {
			t.Errorf("its streams brought %d and then %d events, want %d in all", got, rest, 3*buffered)
		}
		b.leave(again, nil)
		if b.tally.of("ended slow") != 1 {
			t.Error("the slow one was not counted")
		}
	})
}

func TestAGatewayHasItsNewestStreams(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		first := b.read("g", 0, nil)
		second, other := b.read("g", 0, nil), b.read("h", 0, nil)
		third := b.read("g", 0, nil)
		b.leave(first, ErrReplaced)
		b.book.add("e")
		b.appended.Send()
		for _, r := range []*reader{second, third, other} {
			b.want(r, "0", "1 e")
			b.leave(r, nil)
		}
	})
}

func TestStreamsAreBounded(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		for i := range MaxStreams {
			if _, err := b.join(b.t.Context(), fmt.Sprint(i)); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := b.Begin(b.t.Context(), "one more", 0); !errors.Is(err, ErrBusy) {
			t.Errorf("Begin = %v, want ErrBusy", err)
		}
	})
}

func TestARemovedGatewayHearsNothingAfterThat(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		r := b.read("g", 0, nil)
		b.book.add(control.EventGatewayRemoved, "g")
		b.book.add("later")
		b.appended.Send()
		b.want(r, "0", "1 gateway.removed")
		if err := <-r.ended; err != nil {
			t.Errorf("the stream ended with %v", err)
		}
		r.cancel()
	})
}

func TestAStreamEndsAfterAWhileByItself(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		begin := time.Now()
		r := b.read("g", 0, nil)
		if err := <-r.ended; err != nil || time.Since(begin) != StreamLife {
			t.Errorf("it ended with %v after %v, want %v", err, time.Since(begin), StreamLife)
		}
		r.cancel()
	})
}

func TestStoppingTheHubEndsAllStreams(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		r := b.read("g", 0, nil)
		b.stop()
		b.leave(r, ErrStopped)
		if _, err := b.Begin(b.t.Context(), "g", 0); !errors.Is(err, ErrStopped) {
			t.Errorf("Begin afterwards = %v, want ErrStopped", err)
		}
	})
}

func TestALogThatCannotBeReadIsReadAgain(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		r := b.read("g", 0, nil)
		b.book.fail(errors.New("away"))
		b.book.add("e")
		b.appended.Send()
		b.want(r, "0")
		b.book.fail(nil)
		<-time.After(PollInterval)
		b.want(r, "0", "1 e")
		b.leave(r, nil)
	})
}

func TestAHubThatLostItsPlaceLetsItsStreamsBeginAgain(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		r := b.read("g", 0, nil)
		b.book.add("missed")
		b.book.add("e")
		b.book.forget(1)
		b.appended.Send()
		synctest.Wait()
		b.leave(r, ErrStopped)
		again := b.read("g", 0, nil)
		b.want(again, "2 snapshot")
		b.leave(again, nil)
	})
}

func TestManyEventsComeInOrder(t *testing.T) {
	bubble(t, nil, func(b *bench) {
		r := b.read("g", 0, nil)
		const n = 2*pageSize + 7
		for range n {
			b.book.add("e")
		}
		late := b.read("late", 0, nil)
		b.appended.Send()
		b.wantAll(r, n)
		b.wantAll(late, n)
		b.leave(r, nil)
		b.leave(late, nil)
	})
}
