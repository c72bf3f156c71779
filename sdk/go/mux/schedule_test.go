package mux_test

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// The order of sending, docs/03, part 8.2.

const (
	block     = 64 << 10     // what a stream sends in a turn, at most
	quantum   = 16 << 10     // what a turn is worth
	bulkAfter = 256 << 10    // bytes that make a stream bulk
	underWay  = 4 * 16 << 10 // what the pipe holds
	oneBatch  = 2 * block    // a batch is begun when less than a block is in it
)

// sender is a gateway whose carrier the test reads, so that it sends no faster
// than the test wants.
type sender struct {
	*testing.T
	s      *mux.Session
	peer   *muxtest.Peer
	opened uint64
}

func newSender(t *testing.T) *sender {
	t.Helper()
	s, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
	return &sender{T: t, s: s, peer: peer}
}

// open opens the next stream, without any bound on what may be sent to it.
func (s *sender) open() *mux.Stream {
	s.Helper()
	id := 2*s.opened + 1
	s.opened++
	s.peer.Send(wire.AppendOpen(nil, id, wire.Open{Kind: wire.KindTCP, RecvWindow: 1 << 40, Target: target}))
	st := mustAccept(s.T, s.s)
	if err := st.Confirm(); err != nil {
		s.Fatal(err)
	}
	return st
}

// endless has a stream send from now on.
func endless(st *mux.Stream) { go func() { _, _ = st.ReadFrom(zeros{}) }() }

// write has a stream send n bytes in the background.
func write(st *mux.Stream, n int) { go func() { _, _ = st.Write(make([]byte, n)) }() }

// read reads up to this many bytes of streams, or until stop says so, and
// returns how many came for each.
func (s *sender) read(most int, stop func(wire.Frame) bool) map[uint64]int {
	s.Helper()
	got := make(map[uint64]int)
	for total := 0; total < most; {
		f := s.peer.Next()
		if stop != nil && stop(f) {
			return got
		}
		if f.Type == wire.TypeData {
			got[f.Stream] += len(f.Payload)
			total += len(f.Payload)
		}
		synctest.Wait() // those who write may write again
	}
	return got
}

// until stops at the first frame of this type, for this stream.
func until(kind wire.FrameType, stream uint64) func(wire.Frame) bool {
	return func(f wire.Frame) bool { return f.Type == kind && f.Stream == stream }
}

func TestControlComesBeforeData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t)
		for range 3 {
			endless(s.open())
		}
		s.read(1<<20, nil)
		late := s.open() // its OPENED waits now
		late.Reset(wire.CodeIdle)
		s.peer.Send(wire.AppendPing(nil, [8]byte{}), appendOpen(101, ""))
		mustAccept(t, s.s).Reset(wire.CodePolicyDenied)
		synctest.Wait()
		var seen []wire.FrameType
		got := s.read(2*underWay, func(f wire.Frame) bool {
			if f.Type != wire.TypeData {
				seen = append(seen, f.Type)
			}
			return len(seen) == 3
		})
		if bytes := got[1] + got[3] + got[5]; len(seen) != 3 || bytes > underWay+quantum+block {
			t.Errorf("%v came behind %d bytes", seen, bytes)
		}
	})
}

func TestSparseStreamsGetFourTurnsForOneOfTheBulk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t)
		endless(s.open())
		s.read(2*bulkAfter, nil)
		const each = 2 * block
		for range 8 {
			write(s.open(), each)
		}
		synctest.Wait()
		sparse, bulk := 0, 0
		s.read(1<<30, func(f wire.Frame) bool {
			switch {
			case f.Type != wire.TypeData:
			case f.Stream != 1:
				sparse += len(f.Payload)
			case sparse > 0: // before it is what was under way
				bulk += len(f.Payload)
			}
			return sparse == 8*each
		})
		// 16 blocks, and after four of them one of the bulk stream.
		if bulk < 2*block || bulk > 5*block {
			t.Errorf("the bulk stream sent %d bytes beside the %d of sparse ones", bulk, sparse)
		}
	})
}

// Without a pause of 50 ms a stream stays bulk.
func TestAPauseMakesABulkStreamSparse(t *testing.T) {
	for name, tc := range map[string]struct {
		pause  time.Duration
		sparse bool
	}{
		"a short one": {40 * time.Millisecond, false},
		"a long one":  {60 * time.Millisecond, true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSender(t)
				st := s.open()
				write(st, 2*bulkAfter)
				s.read(2*bulkAfter, nil)
				for range 16 {
					endless(s.open())
				}
				s.read(16*2*bulkAfter, nil)
				<-time.After(tc.pause)
				write(st, 100)
				synctest.Wait()
				ahead := 0
				for _, n := range s.read(64*block, until(wire.TypeData, 1)) {
					ahead += n
				}
				if sparse := ahead <= underWay+oneBatch; sparse != tc.sparse {
					t.Errorf("%d bytes went ahead", ahead)
				}
			})
		})
	}
}

// Bulk streams share alike, however large the pieces are that they get.
func TestBulkStreamsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t)
		for _, size := range []int{1000, 5000, 16 << 10, 40_000} {
			st := s.open()
			_ = st.SetWriteDeadline(time.Now().Add(time.Hour)) // its Write never sends for others
			go func() {
				p := make([]byte, size)
				for {
					if _, err := st.Write(p); err != nil {
						return
					}
				}
			}()
		}
		for range 4 {
			endless(s.open())
		}
		s.read(8*2*bulkAfter, nil) // by now all are bulk
		total := make(map[uint64]int)
		for round := range 8 {
			for id, n := range s.read(1<<20, nil) {
				total[id] += n
			}
			least, most := 1<<62, 0
			for id := uint64(1); id < 16; id += 2 {
				least, most = min(least, total[id]), max(most, total[id])
			}
			if most-least > quantum+4*block { // the same after a megabyte as after eight
				t.Errorf("round %d: from %d to %d bytes: %v", round, least, most, total)
			}
		}
	})
}

// What a stream sent while it was alone is no debt.
func TestAStreamThatWasAloneGetsItsTurnBesideANewOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t)
		endless(s.open())
		s.read(8<<20, nil)
		endless(s.open())
		s.read(bulkAfter+oneBatch, nil) // the new one is bulk soon
		got := s.read(2<<20, nil)
		if d := got[1] - got[3]; max(d, -d) > bulkAfter+oneBatch {
			t.Errorf("the old one sent %d bytes, the new one %d", got[1], got[3])
		}
	})
}

func TestASmallStreamBesideBulkIsInTheNextBatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t)
		small := s.open()
		for range 8 {
			endless(s.open())
		}
		s.read(4<<20, nil)
		for range 50 {
			write(small, 100)
			synctest.Wait()
			ahead := 0
			for _, n := range s.read(4*oneBatch, until(wire.TypeData, small.ID())) {
				ahead += n
			}
			if ahead > underWay+oneBatch {
				t.Errorf("%d bytes went ahead of 100", ahead)
			}
		}
	})
}

// Datagrams that never end leave streams their turns.
func TestFlowsDoNotStarveStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t)
		st := s.open()
		s.peer.WantOpened(1)
		write(st, 4*block) // blocks the writer
		synctest.Wait()
		const flows, datagrams = 32, 64
		var frames []byte
		for i := range uint64(flows) {
			frames = wire.AppendOpen(frames, 2*i+3, wire.Open{Kind: wire.KindUDP, Target: target})
		}
		s.peer.Send(frames)
		for range flows {
			in, err := s.s.Accept(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if err := in.Flow.Confirm(); err != nil {
				t.Fatal(err)
			}
			for range datagrams {
				_ = in.Flow.Send(wire.Addr{}, make([]byte, 1000))
			}
		}
		between, most := 0, 0
		s.read(4*block, func(f wire.Frame) bool {
			if f.Type == wire.TypeDgram {
				between++
				most = max(most, between)
			}
			if f.Type == wire.TypeData {
				between = 0
			}
			return false
		})
		if most == 0 || most > 5*16 {
			t.Errorf("up to %d datagrams came between two turns of the stream", most)
		}
	})
}

func TestDataNeverOvertakesOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t)
		bulk := s.open()
		endless(bulk)
		s.read(1<<20, nil)
		for range 20 {
			st := s.open()
			write(st, 5000)
			_ = st
		}
		opened := map[uint64]bool{1: true}
		done := 0
		s.read(1<<30, func(f wire.Frame) bool {
			switch {
			case f.Type == wire.TypeOpened:
				opened[f.Stream] = true
			case !opened[f.Stream]:
				t.Errorf("%s before OPENED on %d", f.Type, f.Stream)
			case f.Stream != 1:
				done += len(f.Payload)
			}
			return done == 20*5000 || t.Failed()
		})
	})
}

func TestOpensGoOutInTheOrderOfTheirIDs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer := scripted(t, mux.Client, wire.DefaultLimits())
		var wg sync.WaitGroup
		for i := range 60 {
			wg.Go(func() {
				if i%3 == 0 {
					if f, err := client.OpenFlow(t.Context(), wire.KindUDP, target); err == nil {
						_ = f.Send(wire.Addr{}, []byte("x"))
					}
					return
				}
				_, _ = client.Open(t.Context(), target)
			})
		}
		var ids []uint64
		for len(ids) < 60 {
			f := peer.Next()
			switch {
			case f.Type == wire.TypeOpen:
				ids = append(ids, f.Stream)
			case !slices.Contains(ids, f.Stream):
				t.Fatalf("%s for %d before its OPEN", f.Type, f.Stream)
			}
		}
		if ids[0] != 1 || !slices.IsSorted(ids) || len(slices.Compact(ids)) != 60 {
			t.Errorf("OPENs in the order %v", ids)
		}
		client.Close(wire.CodeNoError, "")
		wg.Wait()
	})
}
