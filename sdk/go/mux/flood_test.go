package mux_test

import (
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// Floods, docs/03, parts 6 and 10.1.

const (
	floodBurst = 6000
	floodRate  = 2000
)

// empties are frames that carry nothing, for stream 1 where they need one.
var empties = map[string][]byte{
	"PING":              wire.AppendPing(nil, [8]byte{}),
	"PONG":              wire.AppendPong(nil, [8]byte{}),
	"PAD":               frame(wire.TypePad, 0),
	"a type to skip":    frame(0x9f, 7),
	"CREDIT":            wire.AppendCredit(nil, 1, 1<<20),
	"STOP":              wire.AppendStop(nil, 1, wire.CodeCancelled),
	"RESET, once again": wire.AppendReset(nil, 5, wire.CodeCancelled),
}

// flood sends n times f, in few messages. The peer's frames go nowhere.
func (c conversation) flood(f []byte, n int) error {
	per := wire.MaxMessage / len(f)
	for n > 0 {
		var msg []byte
		for range min(n, per) {
			msg = append(msg, f...)
		}
		n -= min(n, per)
		if err := c.peer.TrySend(msg); err != nil {
			return err
		}
		synctest.Wait()
		c.peer.Drain()
	}
	return nil
}

func TestFramesThatCarryNothingAreBounded(t *testing.T) {
	for name, f := range empties {
		t.Run(name, func(t *testing.T) {
			converse(t, func(c conversation) {
				t := c.T
				if c.s.Role() == mux.Gateway {
					c.peer.Send(appendOpen(5, ""), wire.AppendReset(nil, 5, wire.CodeCancelled))
				} else {
					c.s.SkipIDs(5)
				}
				if err := c.flood(f, floodBurst-10); err != nil || c.s.Err() != nil {
					t.Fatalf("within the burst: %v, %v", err, c.s.Err())
				}
				<-time.After(time.Second)
				if err := c.flood(f, floodRate); err != nil || c.s.Err() != nil {
					t.Fatalf("within the rate: %v, %v", err, c.s.Err())
				}
				_ = c.flood(f, 12) // the ten that were left, and a few of the test's own
				c.peer.WantClose(wire.CodeEnhanceCalm)
			})
		})
	}
}

// Streams that move next to nothing need three frames each, as many and as fast as
// the gateway lets the client have them.
func TestTheFloodsAllowanceGrowsWithTheLimits(t *testing.T) {
	for name, tc := range map[string]struct {
		set         func(l *wire.Limits)
		burst, rate int
	}{
		"few streams":    {func(l *wire.Limits) { l.MaxStreams, l.OpenBurst, l.OpenRate = 1, 1, 1 }, floodBurst, floodRate},
		"2,000 streams":  {func(l *wire.Limits) { l.MaxStreams, l.OpenBurst = 2000, 2000 }, floodBurst, floodRate},
		"many at once":   {func(l *wire.Limits) { l.MaxStreams = 4096 }, 3 * 4096, floodRate},
		"a large burst":  {func(l *wire.Limits) { l.OpenBurst = 5000 }, 3 * 5000, floodRate},
		"a large rate":   {func(l *wire.Limits) { l.OpenRate = 1000 }, floodBurst, 3 * 1000},
		"more than ours": {func(l *wire.Limits) { l.MaxStreams, l.OpenRate = 1<<40, 1<<40 }, 3 << 16, 3 << 16},
	} {
		t.Run(name, func(t *testing.T) {
			for _, role := range []mux.Role{mux.Client, mux.Gateway} {
				synctest.Test(t, func(t *testing.T) {
					limits := wire.DefaultLimits()
					tc.set(&limits)
					s, peer := scripted(t, role, limits)
					c := conversation{T: t, s: s, peer: peer}
					if err := c.flood(empties["PAD"], tc.burst); err != nil || s.Err() != nil {
						t.Fatalf("within the burst: %v, %v", err, s.Err())
					}
					<-time.After(time.Second)
					if err := c.flood(empties["PAD"], tc.rate); err != nil || s.Err() != nil {
						t.Fatalf("within the rate: %v, %v", err, s.Err())
					}
					_ = c.flood(empties["PAD"], 1)
					peer.WantClose(wire.CodeEnhanceCalm)
				})
			}
		})
	}
}

// All streams that the gateway allows may be opened at once and end before they
// moved a byte.
func TestAllStreamsThatAreAllowedMayComeAndGoAtOnce(t *testing.T) {
	const streams = 4096
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams, limits.OpenBurst, limits.EarlyWindow = streams, streams, mux.EarlyWindow(1<<20, 0, streams)
		client, gateway := pair(t, limits)
		go func() {
			for {
				st, err := accept(t.Context(), gateway)
				if err != nil {
					return
				}
				if st.Confirm() == nil {
					go func() { _, _ = st.Read(make([]byte, 1)) }()
				}
			}
		}()
		var opened []*mux.Stream
		for range streams {
			st, err := client.Open(t.Context(), target)
			if err != nil {
				t.Fatal(err)
			}
			opened = append(opened, st)
		}
		for _, st := range opened {
			_ = st.CloseRead()
			st.Reset(wire.CodeCancelled)
		}
		synctest.Wait()
		if client.Err() != nil || gateway.Err() != nil {
			t.Errorf("ended: %v, %v", client.Err(), gateway.Err())
		}
	})
}

// A million PINGs are judged like six thousand and one.
func TestAMillionPingsEndTheSession(t *testing.T) {
	converse(t, func(c conversation) {
		_ = c.flood(empties["PING"], 1_000_000)
		c.peer.WantClose(wire.CodeEnhanceCalm)
	})
}

// A frame for each 2 KiB of payload is no flood, whichever way that went.
func TestPayloadPaysForFrames(t *testing.T) {
	for name, move := range map[string]func(c conversation){
		"that was received": func(c conversation) {
			t := c.T
			c.peer.Send(wire.AppendData(nil, 1, make([]byte, 16<<10-1)))
			if _, err := io.ReadFull(c.st, make([]byte, 16<<10-1)); err != nil {
				t.Fatal(err)
			}
		},
		"that was sent": func(c conversation) {
			t := c.T
			if _, err := c.st.Write(make([]byte, 16<<10-1)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			converse(t, func(c conversation) {
				t := c.T
				c.peer.AnswerPings()
				c.peer.Send(wire.AppendCredit(nil, 1, 1<<40))
				if err := c.flood(empties["PAD"], floodBurst-100); err != nil {
					t.Fatal(err)
				}
				for range 1000 { // eight frames are paid for each time
					move(c)
					if err := c.flood(empties["PAD"], 7); err != nil || c.s.Err() != nil {
						t.Fatalf("%v, %v", err, c.s.Err())
					}
				}
				_ = c.flood(empties["PAD"], 2000)
				c.peer.WantClose(wire.CodeEnhanceCalm)
			})
		})
	}
}

// Data with the smallest windows, at a speed that no network has: no time passes.
func TestCreditThatComesWithDataIsNoFlood(t *testing.T) {
	bothWays(t, func(w way) {
		t, up := w.T, w.up
		memory := mux.NewMemory(100 << 20)
		memory.Use(85 << 20) // windows stay at their floors
		limits := wire.DefaultLimits()
		limits.MaxStreams, limits.EarlyWindow = 1024, mux.EarlyWindow(1<<20, 0, 1024)
		a, b := muxtest.Pipe()
		client := start(t, a, mux.Config{Role: mux.Client, Limits: limits, Memory: memory})
		gateway := start(t, b, mux.Config{Role: mux.Gateway, Limits: limits, Memory: memory})
		from, to := open(t, client, gateway)
		if !up {
			from, to = to, from
		}
		begin := time.Now()
		const size = 28 << 20 // 7,000 CREDITs
		go func() {
			_, _ = from.ReadFrom(io.LimitReader(zeros{}, size))
			_ = from.CloseWrite()
		}()
		n, err := io.Copy(io.Discard, to)
		if n != size || err != nil || to.Window() != limits.EarlyWindow {
			t.Errorf("%d bytes, %v, with a window of %d", n, err, to.Window())
		}
		if took := time.Since(begin); took > 0 {
			t.Errorf("it took %v", took)
		}
	})
}

// Programs that try many dead addresses exist.
func TestResetsThatTargetsCauseNeverEndASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, gateway := pair(t, wire.DefaultLimits())
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				st, err := accept(t.Context(), gateway)
				if err != nil {
					return
				}
				st.Reset(wire.CodeConnRefused)
			}
		})
		for range 20 {
			wg.Go(func() {
				for range 500 {
					_, err := client.Open(t.Context(), target)
					wantCode(t, err, wire.CodeConnRefused, true)
				}
			})
		}
		wg.Go(func() {
			<-time.After(10 * time.Minute)
			if client.Err() != nil || gateway.Err() != nil {
				t.Errorf("ended: %v, %v", client.Err(), gateway.Err())
			}
			client.Close(wire.CodeNoError, "")
		})
		wg.Wait()
	})
}

func TestOpensBeyondTwiceTheRateAreReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.OpenBurst, limits.OpenRate = 4, 1
		_, peer := scripted(t, mux.Gateway, limits)
		for i := range uint64(8) {
			peer.Send(appendOpen(2*i+1, ""))
		}
		peer.WantQuiet()
		peer.Send(appendOpen(17, ""))
		peer.WantReset(17, wire.CodeEnhanceCalm)
	})
}

func TestOpensThatDoNotReadTheirRefusalsEndTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams = 1
		s, peer := scripted(t, mux.Gateway, limits)
		opens := 0
		for i := uint64(0); s.Err() == nil; i++ {
			if opens++; opens > 3*1024 {
				t.Fatal("more than 1,024 refusals are queued")
			}
			if peer.TrySend(appendOpen(2*i+1, "")) != nil {
				break
			}
			synctest.Wait()
		}
		peer.WantClose(wire.CodeEnhanceCalm)
	})
}

// Opening and resetting in a loop ends the session, with no more streams open and
// queued on the way than the limits say.
func TestAHundredThousandOpensAndResetsEndTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		s, peer := scripted(t, mux.Gateway, limits)
		accepted := 0
		done := make(chan struct{})
		go func() {
			defer close(done)
			for {
				if _, err := accept(t.Context(), s); err != nil {
					return
				}
				accepted++
			}
		}()
		pairs := 0
		for i := range uint64(100_000) {
			if peer.TrySend(join(appendOpen(2*i+1, ""), wire.AppendReset(nil, 2*i+1, wire.CodeCancelled))) != nil || s.Err() != nil {
				break
			}
			pairs++
			synctest.Wait()
			peer.Drain()
		}
		peer.WantClose(wire.CodeEnhanceCalm)
		<-done
		if pairs > floodBurst/2+10 || accepted > 2*256 {
			t.Errorf("%d streams were opened and reset, %d accepted", pairs, accepted)
		}
		if held, _ := s.Reserved(); held != 0 || s.Streams() != 0 {
			t.Errorf("%d bytes and %d streams are left", held, s.Streams())
		}
	})
}
