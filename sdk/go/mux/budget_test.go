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
	in     chan []byte
	closed chan struct{}
	once   sync.Once
}

func (l *loop) ReadMessage([]byte) ([]byte, error) {
	select {
	case m := <-l.in:
		return m, nil
	case <-l.closed:
		return nil, errors.New("closed")
	}
}
func (l *loop) WriteReserved([]byte) error       { return nil }
func (l *loop) SetWriteDeadline(time.Time) error { return nil }
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
			return s.reserved
		}
		target := wire.Addr{Name: "example.com", Port: 80}
		for round := range 3 {
			var streams []*Stream
			for i := range uint64(100) {
				id := uint64(round)*1000 + 2*i + 1
				l.in <- wire.AppendOpen(nil, id, wire.Open{Kind: wire.KindTCP, Target: target, Early: []byte("early")})
				synctest.Wait()
				select {
				case st := <-s.accepted:
					_ = st.Confirm()
					streams = append(streams, st)
				default: // refused: the budget is used up
				}
				if reserved() > budget {
					t.Fatalf("%d bytes granted of %d", reserved(), budget)
				}
			}
			if len(streams) < 16 || len(streams) > 32 {
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
		c := newChunk()
		c.end = 1
		q.push(c)
	}
	chunks := 0
	for c := q.head; c != nil; c = c.next {
		chunks++
	}
	if want := 100_000/chunkSize + 1; chunks != want || q.size != 100_000 {
		t.Errorf("%d bytes in %d chunks, want %d", q.size, chunks, want)
	}
	q.drop()
}
