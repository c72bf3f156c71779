package mux_test

import (
	"errors"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// The windows of docs/03, part 7.1.
const (
	startWindow = 512 << 10             // what the first streams begin with
	floor       = smallBudget / 4 / 256 // what each stream has from its open on
	smallBudget = 8 << 20               // of the tests' sessions
	growthShare = smallBudget / 16 * 11 // what all may have above their floors
)

// distant runs a client and a gateway a round trip apart.
func distant(t *testing.T, rtt time.Duration, memory *mux.Memory) (client, gateway *mux.Session) {
	t.Helper()
	a, b := muxtest.DelayedPipe(rtt / 2)
	limits := wire.DefaultLimits()
	limits.EarlyWindow = floor
	client = start(t, a, mux.Config{Role: mux.Client, Limits: limits, Budget: smallBudget, Memory: memory})
	gateway = start(t, b, mux.Config{Role: mux.Gateway, Limits: limits, Budget: smallBudget, Memory: memory})
	return client, gateway
}

// counter is a writer that counts.
type counter struct{ n atomic.Int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// way is in which direction a test sends.
type way struct {
	*testing.T
	up bool
}

// bothWays runs f for a stream from the gateway to the client, and back.
func bothWays(t *testing.T, f func(w way)) {
	t.Helper()
	for name, up := range map[string]bool{"down": false, "up": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(way{t, up}) })
		})
	}
}

func TestWindowGrowsToItsShareOnALongPath(t *testing.T) {
	bothWays(t, func(w way) {
		t, up := w.T, w.up
		const rtt = 300 * time.Millisecond
		client, gateway := distant(t, rtt, nil)
		from, to := open(t, client, gateway)
		if !up {
			from, to = to, from
		}
		var got counter
		go func() { _, _ = from.ReadFrom(zeros{}) }()
		go func() { _, _ = to.WriteTo(&got) }()
		begin := time.Now()
		for to.Window() < growthShare {
			if time.Since(begin) > 5*time.Second {
				t.Fatalf("the window is %d after %v", to.Window(), time.Since(begin))
			}
			<-time.After(rtt / 2)
		}
		<-time.After(rtt)
		before := got.n.Load()
		const trips = 8 // bytes come in bursts, of which one more or less must not matter
		<-time.After(trips * rtt)
		perTrip := uint64(got.n.Load()-before) / trips
		// A quarter of the window may be consumed before the sender hears of it.
		if w := to.Window(); perTrip < w*6/10 || perTrip > w*12/10 {
			t.Errorf("%d bytes a round trip, the window is %d", perTrip, w)
		}
	})
}

// The path carries much more than the reader takes: what waits is no reason to
// grant more.
func TestWindowOfASlowReaderDoesNotGrow(t *testing.T) {
	bothWays(t, func(w way) {
		t, up := w.T, w.up
		client, gateway := distant(t, 100*time.Millisecond, nil)
		from, to := open(t, client, gateway)
		if !up {
			from, to = to, from
		}
		go func() { _, _ = from.ReadFrom(zeros{}) }()
		buf := make([]byte, 16<<10)
		for range 600 { // 160 KiB in a second: 16 KiB in a round trip
			if _, err := io.ReadFull(to, buf); err != nil {
				t.Fatal(err)
			}
			<-time.After(100 * time.Millisecond)
		}
		if w := to.Window(); w != startWindow {
			t.Errorf("the window is %d, want the %d of the beginning", w, startWindow)
		}
	})
}

func TestWindowOfAStalledReaderDoesNotGrow(t *testing.T) {
	bothWays(t, func(w way) {
		t, up := w.T, w.up
		client, gateway := distant(t, 100*time.Millisecond, nil)
		from, to := open(t, client, gateway)
		if !up {
			from, to = to, from
		}
		go func() { _, _ = from.ReadFrom(zeros{}) }()
		<-time.After(10 * time.Minute)
		if w := to.Window(); w != startWindow {
			t.Errorf("the window is %d, want the %d of the beginning", w, startWindow)
		}
	})
}

// 20 sessions of a process may not grow at the cost of all others.
func TestWindowsStayWhenMemoryIsTight(t *testing.T) {
	bothWays(t, func(w way) {
		t, up := w.T, w.up
		memory := mux.NewMemory(100 << 20)
		memory.Use(80 << 20)
		client, gateway := distant(t, 20*time.Millisecond, memory)
		from, to := open(t, client, gateway)
		if !up {
			from, to = to, from
		}
		before := to.Window()
		if before != floor {
			t.Errorf("a stream begins with %d, want its floor", before)
		}
		var got counter
		go func() { _, _ = from.ReadFrom(zeros{}) }()
		go func() { _, _ = to.WriteTo(&got) }()
		<-time.After(3 * time.Second)
		if w := to.Window(); w != before || got.n.Load() < 1<<20 {
			t.Errorf("the window went from %d to %d, %d bytes came", before, w, got.n.Load())
		}
	})
}

// Credit counts whether it is used or not: sessions that only have many streams open
// must not keep all others from opening any.
func TestSessionsThatHoldMuchLeaveMemoryForThoseThatHoldLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const limit = 8 << 20
		memory := mux.NewMemory(limit)
		opened := func(streams uint64) (refused uint64) {
			ours, theirs := muxtest.Pipe()
			s := start(t, ours, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits(), Memory: memory})
			peer := muxtest.NewPeer(t, theirs)
			t.Cleanup(peer.Close)
			for i := range streams {
				peer.Send(appendOpen(2*i+1, ""))
			}
			synctest.Wait()
			return streams - uint64(s.Streams())
		}
		if refused := opened(256); refused == 0 {
			t.Error("one session may hold all memory")
		}
		if refused := opened(16); refused != 0 {
			t.Errorf("of 16 streams of a session that holds little, %d were refused", refused)
		}
		for range 8 {
			opened(256)
		}
		if used := memory.Used(); used > limit+32<<10 {
			t.Errorf("%d bytes are held, of %d", used, limit)
		}
	})
}

func TestOpensAreRefusedWhenMemoryIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := muxtest.Pipe()
		memory := mux.NewMemory(100 << 20)
		memory.Use(100<<20 + 1)
		start(t, ours, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits(), Memory: memory})
		peer := muxtest.NewPeer(t, theirs)
		t.Cleanup(peer.Close)
		peer.Send(appendOpen(1, ""))
		peer.WantReset(1, wire.CodeLimit)
		memory.Use(-2 << 20)
		peer.Send(appendOpen(3, ""))
		peer.WantQuiet()
	})
}

func TestClientDoesNotOpenWhenMemoryIsFull(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := muxtest.Pipe()
		memory := mux.NewMemory(100 << 20)
		memory.Use(101 << 20)
		client := start(t, ours, mux.Config{Role: mux.Client, Limits: wire.DefaultLimits(), Memory: memory})
		peer := muxtest.NewPeer(t, theirs)
		t.Cleanup(peer.Close)
		_, err := client.Open(t.Context(), target)
		wantCode(t, err, wire.CodeLimit, false)
		peer.WantQuiet()
		if client.Streams() != 0 || errors.Is(err, mux.ErrEnded) {
			t.Errorf("%d streams, %v", client.Streams(), client.Err())
		}
	})
}
