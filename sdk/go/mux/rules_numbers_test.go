package mux_test

import (
	"os"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// Numbers of docs/03, parts 7 to 10.1, that a session must keep to exactly.

// A limit that was told once stays, part 7.
func TestALowerCreditIsIgnored(t *testing.T) {
	converse(t, func(c conversation) {
		t := c.T
		c.peer.Send(wire.AppendCredit(nil, 1, 10), wire.AppendCredit(nil, 1, 0))
		synctest.Wait()
		go func() { _, _ = c.st.Write(make([]byte, 1<<16+1)) }()
		for total := 0; total < 1<<16; {
			total += len(c.peer.Want(wire.TypeData, 1))
		}
		c.peer.Send(wire.AppendCredit(nil, 1, 1<<16+1), wire.AppendCredit(nil, 1, 1<<16))
		if n := len(c.peer.Want(wire.TypeData, 1)); n != 1 {
			t.Errorf("%d bytes on credit for one", n)
		}
	})
}

// What streams begin with, part 7.1: 16 large windows, then smaller ones as long as
// a quarter of the growth is left, then floors.
func TestStreamsBeginWithTheWindowsOfTheDocument(t *testing.T) {
	const (
		budget = 16 << 20 // floors of 16 KiB, growth of 11 MiB
		floor  = 16 << 10
	)
	var want []uint64
	want = append(want, slices.Repeat([]uint64{512 << 10}, 16)...) // 7.75 MiB above their floors
	want = append(want, slices.Repeat([]uint64{64 << 10}, 11)...)  // the half MiB up to 8.25
	want = append(want, slices.Repeat([]uint64{floor}, 5)...)
	limits := wire.DefaultLimits()
	limits.EarlyWindow = mux.EarlyWindow(1<<20, budget, limits.MaxStreams)
	t.Run("client", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := muxtest.Pipe()
			client := start(t, ours, mux.Config{Role: mux.Client, Limits: limits, Budget: budget})
			peer := muxtest.NewPeer(t, theirs)
			t.Cleanup(peer.Close)
			var got []uint64
			for i := range uint64(len(want)) {
				go func() { _, _ = client.Open(t.Context(), target) }()
				got = append(got, peer.WantOpen(2*i+1).RecvWindow)
			}
			if !slices.Equal(got, want) {
				t.Errorf("windows %d", got)
			}
			client.Close(wire.CodeNoError, "")
			synctest.Wait()
		})
	})
	t.Run("gateway", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			ours, theirs := muxtest.Pipe()
			gateway := start(t, ours, mux.Config{Role: mux.Gateway, Limits: limits, Budget: budget})
			peer := muxtest.NewPeer(t, theirs)
			t.Cleanup(peer.Close)
			var got []uint64
			for i := range uint64(len(want)) {
				peer.Send(appendOpen(2*i+1, ""))
				if err := mustAccept(t, gateway).Confirm(); err != nil {
					t.Fatal(err)
				}
				got = append(got, peer.WantOpened(2*i+1).RecvWindow)
			}
			if !slices.Equal(got, want) {
				t.Errorf("windows %d", got)
			}
		})
	})
}

func TestFloorsAreAShareOfTheBudgetAndAtMost32KiB(t *testing.T) {
	for _, tc := range []struct{ wish, budget, streams, want uint64 }{
		{1 << 40, 0, 256, 32 << 10},        // 8 MiB for 256
		{1 << 40, 0, 1024, 8 << 10},        // for 1,024
		{1 << 40, 1 << 40, 1, 32 << 10},    // never more
		{1 << 40, 4 << 20, 256, 4 << 10},   // a quarter of a small budget
		{16 << 10, 32 << 20, 16, 16 << 10}, // the operator wants less
	} {
		if got := mux.EarlyWindow(tc.wish, tc.budget, tc.streams); got != tc.want {
			t.Errorf("EarlyWindow(%d, %d, %d) = %d, want %d", tc.wish, tc.budget, tc.streams, got, tc.want)
		}
	}
}

// An endpoint that may send no more on a stream stops reading its source, part 7.1.
func TestAStreamHolds128KiBThatItMayNotSend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
		peer.Send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, RecvWindow: 0, Target: target}))
		st := mustAccept(t, s)
		if err := st.Confirm(); err != nil {
			t.Fatal(err)
		}
		_ = st.SetWriteDeadline(time.Now().Add(time.Second))
		if n, err := st.Write(make([]byte, 1<<20)); n != 128<<10 || !os.IsTimeout(err) {
			t.Errorf("Write took %d bytes, %v", n, err)
		}
	})
}

// The time for an answer begins when the PING is on its way and not when it was put
// into a batch that waits for the carrier, part 8.1.
func TestThePatienceWithAPingBeginsWhenItIsWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := muxtest.Pipe()
		client := start(t, ours, mux.Config{Role: mux.Client, Limits: wire.DefaultLimits()})
		peer := muxtest.NewPeer(t, theirs)
		t.Cleanup(peer.Close)
		opened := openClient(t, client, peer)
		peer.Send(wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 1 << 40}))
		st := <-opened
		<-time.After(time.Millisecond)
		write(st, 100) // wants an answer
		peer.Want(wire.TypeData, 1)
		write(st, 2<<20)
		<-time.After(2500 * time.Millisecond)
		for !client.PingSent() {
			peer.Next()
			synctest.Wait()
		}
		<-time.After(1800 * time.Millisecond) // what is behind it in its batch waits for the peer
		begin := time.Now()
		go func() {
			for {
				if _, err := theirs.ReadMessage(nil); err != nil {
					return
				}
			}
		}()
		<-client.Done()
		if took := time.Since(begin); took != 5*time.Second {
			t.Errorf("given up %v after the PING was written, want 5s", took)
		}
	})
}

// A stream is sparse up to 256 KiB, part 8.2.
func TestAStreamIsBulkAfter256KiB(t *testing.T) {
	for name, tc := range map[string]struct {
		sent   int
		sparse bool
	}{
		"a little less": {bulkAfter - 8<<10, true},
		"a little more": {bulkAfter + 8<<10, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newSender(t)
				st := s.open()
				for range 16 {
					endless(s.open())
				}
				s.read(16*2*bulkAfter, nil)
				write(st, tc.sent)
				total := 0
				s.read(1<<30, func(f wire.Frame) bool {
					if f.Stream == 1 {
						total += len(f.Payload)
					}
					return total == tc.sent
				})
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

// Four sparse streams have their turns, then one of the bulk streams, part 8.2.
func TestEveryFifthTurnIsOfABulkStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t)
		bulk := s.open()
		endless(bulk)
		s.read(2*bulkAfter, nil)
		var small []*mux.Stream
		for range 13 {
			small = append(small, s.open())
		}
		for _, st := range small {
			write(st, 100)
		}
		synctest.Wait()
		var runs []int // of sparse streams' turns, between two of the bulk stream
		run, seen := 0, 0
		s.read(1<<30, func(f wire.Frame) bool {
			switch {
			case f.Type != wire.TypeData:
			case f.Stream != bulk.ID():
				run++
				seen++
			case run > 0:
				runs = append(runs, run)
				run = 0
			}
			return seen == len(small) && run == 0
		})
		if !slices.Equal(runs[1:len(runs)-1], []int{4, 4}) || runs[0] > 4 {
			t.Errorf("turns of sparse streams before one of the bulk stream: %v", runs)
		}
	})
}

// A turn is worth 16 KiB, part 8.2.
func TestATurnIsWorth16KiB(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t)
		for range 4 {
			st := s.open()
			_ = st.SetWriteDeadline(time.Now().Add(time.Hour)) // its Write never sends for others
			go func() {
				for {
					if _, err := st.Write(make([]byte, 1000)); err != nil {
						return
					}
				}
			}()
		}
		s.read(4*2*bulkAfter, nil)
		var last uint64
		run, longest := 0, 0
		s.read(4<<20, func(f wire.Frame) bool {
			if f.Type != wire.TypeData {
				return false
			}
			if f.Stream != last {
				last, run = f.Stream, 0
			}
			run += len(f.Payload)
			longest = max(longest, run)
			return false
		})
		if longest < quantum-1000 || longest > 2*quantum { // what does not fit a message is taken off the next turn
			t.Errorf("a turn had up to %d bytes", longest)
		}
	})
}

// DATA, FIN and DGRAM are never counted as frames that carry nothing, part 10.1.
func TestDataFinAndDatagramsAreNoFlood(t *testing.T) {
	const n = 4 * floodBurst
	for name, f := range map[string][]byte{
		"DATA":               wire.AppendData(nil, 1, []byte("x")),
		"FIN":                wire.AppendFin(nil, 1, nil),
		"DGRAM without data": frame(wire.TypeDgram, 1),
	} {
		t.Run(name, func(t *testing.T) {
			converse(t, func(c conversation) {
				t := c.T
				c.st.Reset(wire.CodeCancelled)
				c.peer.WantReset(1, wire.CodeCancelled)
				if err := c.flood(f, n); err != nil || c.s.Err() != nil {
					t.Fatalf("%v, %v", err, c.s.Err())
				}
				c.wantAlive()
			})
		})
	}
}

func TestAThousandAnd24RefusalsMayWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams = 1
		s, peer := scripted(t, mux.Gateway, limits)
		opens := 0
		for i := uint64(0); s.Err() == nil; i++ {
			peer.Send(appendOpen(2*i+1, ""))
			opens++
			synctest.Wait()
		}
		// One is open, four refusals are in the pipe and one before it.
		if want := 1 + 4 + 1 + 1024 + 1; opens != want {
			t.Errorf("ended at OPEN %d, want %d", opens, want)
		}
		peer.WantClose(wire.CodeEnhanceCalm)
	})
}

// The gateway leaves the rate of opens a margin of two, of its gain as of its burst,
// part 6.
func TestOpensAreGainedAtTwiceTheRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.OpenBurst, limits.OpenRate = 4, 1
		_, peer := scripted(t, mux.Gateway, limits)
		id := uint64(1)
		open := func() uint64 {
			peer.Send(appendOpen(id, ""))
			id += 2
			return id - 2
		}
		for range 8 {
			open()
		}
		peer.WantReset(open(), wire.CodeEnhanceCalm)
		<-time.After(time.Second)
		for range 2 {
			open()
		}
		peer.WantQuiet()
		peer.WantReset(open(), wire.CodeEnhanceCalm)
	})
}

// Before OPENED a gateway sends nothing on a stream but RESET, part 6.
func TestNothingButResetComesBeforeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
		peer.Send(appendOpen(1, "early"), wire.AppendCredit(nil, 1, 1<<20))
		st := mustAccept(t, s)
		if _, err := st.Write([]byte("too soon")); err == nil {
			t.Error("Write before OPENED")
		}
		if err := st.CloseWrite(); err == nil {
			t.Error("FIN before OPENED")
		}
		if _, err := st.Read(make([]byte, 5)); err != nil {
			t.Errorf("early data: %v", err)
		}
		peer.Send(wire.AppendStop(nil, 1, wire.CodeCancelled)) // an empty FIN answers it, but not yet
		peer.WantQuiet()
		st.Reset(wire.CodeDNSFail)
		peer.WantReset(1, wire.CodeDNSFail)
		peer.WantQuiet()
	})
}
