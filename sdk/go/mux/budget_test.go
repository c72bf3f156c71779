package mux

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

// loop is a carrier that reads what it is given and throws away what is
// written.
type loop struct {
	in      chan []byte
	message []byte
	closed  chan struct{}
	once    sync.Once
}

func (l *loop) Next() (int, error) {
	select {
	case l.message = <-l.in:
		return len(l.message), nil
	case <-l.closed:
		return 0, errors.New("closed")
	}
}

func (l *loop) ReadFull(p []byte) error {
	l.message = l.message[copy(p, l.message):]
	return nil
}
func (l *loop) BeforeWait(func())                {}
func (l *loop) Flush() error                     { return nil }
func (l *loop) WriteReserved([]byte) error       { return nil }
func (l *loop) SetWriteDeadline(time.Time) error { return nil }
func (l *loop) Abort() error                     { return l.Close() }
func (l *loop) Close() error                     { l.once.Do(func() { close(l.closed) }); return nil }

// However streams end, all of the budget comes back, and a session grants no
// more than its budget in between.
func TestBudgetIsNeverExceededAndComesBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget = 1 << 20
		l := &loop{in: make(chan []byte), closed: make(chan struct{})}
		limits := wire.DefaultLimits()
		limits.OpenBurst, limits.OpenRate = 1<<16, 1<<16
		s := New(l, Config{Role: Gateway, Limits: limits, Budget: budget})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = s.Run(ctx) })
		defer wg.Wait()
		defer cancel()

		reserved := func() uint64 {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.budget.reserved
		}
		target := wire.Addr{Name: "example.com", Port: 80}
		for round := range 3 {
			var streams []*Stream
			for i := range uint64(100) {
				id := uint64(round)*1000 + 2*i + 1
				l.in <- wire.AppendOpen(nil, id, wire.Open{Kind: wire.KindTCP, Target: target, Early: []byte("early")})
				synctest.Wait()
				if in, ok := s.nextIncoming(); ok { // else refused: the budget is used up
					_ = in.Stream.Confirm()
					streams = append(streams, in.Stream)
				}
				if reserved() > budget {
					t.Fatalf("%d bytes granted of %d", reserved(), budget)
				}
			}
			if len(streams) != 8 { // floors have a quarter of it
				t.Errorf("%d streams share the budget", len(streams))
			}
			for i, st := range streams {
				switch i % 6 {
				case 0:
					st.Reset(wire.CodeIdle)
				case 1:
					l.in <- wire.AppendReset(nil, st.id, wire.CodeCancelled)
				case 2: // both directions end, then the rest is read
					_ = st.CloseWrite()
					l.in <- wire.AppendFin(nil, st.id, make([]byte, 5000))
					for {
						if _, err := st.Read(make([]byte, 999)); err != nil {
							break
						}
					}
				case 3: // the same, and the rest is thrown away
					_ = st.CloseWrite()
					l.in <- wire.AppendFin(nil, st.id, make([]byte, 5000))
					_ = st.CloseRead()
				case 4: // thrown away first, and the peer goes on for a while
					_ = st.Close()
					l.in <- wire.AppendData(nil, st.id, make([]byte, 5000))
					l.in <- wire.AppendFin(nil, st.id, nil)
				case 5:
					_ = st.CloseRead()
					st.Reset(wire.CodeIdle)
				}
			}
			synctest.Wait()
			if reserved() != 0 || s.Streams() != 0 {
				t.Errorf("round %d: %d bytes and %d streams are left", round, reserved(), s.Streams())
			}
		}
	})
}

// A stream that got its bytes one at a time holds little more memory than
// bytes.
func TestQueueHoldsTinyPiecesTogether(t *testing.T) {
	var q queue
	for range 100_000 {
		b := blockFor(1)
		b.end++
		q.push(b)
	}
	if held := heldBy(&q); held > 103_000 || q.size != 100_000 {
		t.Errorf("%d bytes in %d", q.size, held)
	}
	q.drop()
}

// However a peer cuts its bytes, and whatever arrives between two waits, a stream
// that nobody reads holds little more memory than bytes.
func TestQueueHoldsLittleMoreMemoryThanBytes(t *testing.T) {
	for name, pieces := range map[string][]piece{
		"a little over half of a block for one frame": {{frameBlock, 9_300}},
		"a little over half of a small page":          {{1, 4_200}},
		"two frames and a bit in a large block":       {{bulkBlock, 33_000}},
		"a few bytes in large blocks":                 {{bulkBlock, 512}},
		"whole frames":                                {{frameBlock, 16_369}},
		"more and less by turns":                      {{bulkBlock, 58_000}, {frameBlock, 500}, {bulkBlock, 33_000}, {1, 4_200}},
	} {
		var q queue
		for i := 0; q.size < 1<<20; i++ {
			p := pieces[i%len(pieces)]
			b := newBlock(p.class)
			b.end += p.bytes
			q.push(b)
		}
		if held := heldBy(&q); held > q.size/7*8+blockSizes[bulkBlock] {
			t.Errorf("%s: %d bytes in %d", name, q.size, held)
		}
		q.drop()
		if q.size != 0 || q.held != 0 {
			t.Errorf("%s: %d bytes in %d are left", name, q.size, q.held)
		}
	}
}

// piece is what arrived between two waits.
type piece struct{ class, bytes int }

func heldBy(q *queue) (held int) {
	for b := q.head; b != nil; b = b.next {
		held += len(b.buf)
	}
	return held
}

// A stream may have no more than a floor of credit, and there may be many such.
func TestAFewBytesAloneTakeASmallBlock(t *testing.T) {
	var q queue
	b := newBlock(bulkBlock)
	b.end += 512
	q.push(b)
	if held := heldBy(&q); held > 2<<10 {
		t.Errorf("%d bytes in %d", q.size, held)
	}
	q.drop()
}

// Readers learn of what came though the carrier always has more.
func TestBytesAreDeliveredThoughTheCarrierNeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &loop{in: make(chan []byte), closed: make(chan struct{})} // never says that it waits
		s := New(l, Config{Role: Gateway, Limits: wire.DefaultLimits()})
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		wg.Go(func() { _ = s.Run(ctx) })
		defer wg.Wait()
		defer cancel()
		var streams [2]*Stream
		for i := range streams {
			l.in <- wire.AppendOpen(nil, uint64(2*i+1), wire.Open{Kind: wire.KindTCP, Target: wire.Addr{Name: "example.com", Port: 80}})
			in, err := s.Accept(ctx)
			if err != nil {
				t.Fatal(err)
			}
			streams[i] = in.Stream
			_ = in.Stream.Confirm()
		}
		l.in <- wire.AppendData(nil, 1, make([]byte, 300))
		for range keptMost / 16000 {
			l.in <- wire.AppendData(nil, 3, make([]byte, 16000))
		}
		l.in <- wire.AppendData(nil, 3, make([]byte, 16000))
		_ = streams[0].SetReadDeadline(time.Now().Add(time.Hour))
		if n, err := streams[0].Read(make([]byte, 1000)); n != 300 || err != nil {
			t.Errorf("Read = %d, %v", n, err)
		}
	})
}

// A quarter of the window, of a small one half, and at the latest 1 MiB: docs/03, part 7.
func TestCreditIsWorthAQuarterOfTheWindow(t *testing.T) {
	for window, want := range map[uint64]uint64{
		1: 0, 32 << 10: 16 << 10, 64 << 10: 32 << 10, 512 << 10: 256 << 10,
		1 << 20: 256 << 10, 2 << 20: 512 << 10, 4 << 20: 1 << 20, 22 << 20: 1 << 20,
	} {
		if got := creditStep(window); got != want {
			t.Errorf("creditStep(%d) = %d, want %d", window, got, want)
		}
	}
}

// What waits to be sent: docs/03, part 7.1.
func TestStreamsShareWhatMayWaitToBeSent(t *testing.T) {
	for name, tc := range map[string]struct {
		streams int
		grown   uint64
		history uint64
		want    uint64
	}{
		"one stream":                 {1, 0, 0, 128 << 10},
		"as many as have all":        {192, 0, 0, 128 << 10},
		"256 streams":                {256, 0, 0, 96 << 10},
		"256 beside grown windows":   {256, DefaultBudget, 0, 8 << 10},
		"1,024 beside grown windows": {1024, DefaultBudget, 0, 8 << 10},
		"256 beside a history":       {256, 0, 12 << 20, 48 << 10},
	} {
		b := budget{total: DefaultBudget, grown: tc.grown}
		if got := b.pending(tc.streams, tc.history); got != tc.want {
			t.Errorf("%s: %d bytes each, want %d", name, got, tc.want)
		}
	}
}

// The shortest round trip counts for 5 minutes: docs/03, part 7.1.
func TestTheShortestRoundTripCountsForFiveMinutes(t *testing.T) {
	const short, long = 10 * time.Millisecond, 50 * time.Millisecond
	begin := time.Now()
	var r roundTrips
	r.add(short, begin)
	r.add(long, begin.Add(5*time.Minute))
	if r.least != short {
		t.Errorf("after 5 minutes the least is %v", r.least)
	}
	r.add(long, begin.Add(5*time.Minute+1))
	if r.least != long {
		t.Errorf("after more than 5 minutes the least is %v", r.least)
	}
}
