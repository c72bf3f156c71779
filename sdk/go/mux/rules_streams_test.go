package mux_test

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// Rules of docs/03, parts 6 and 8, about streams and the session's end.

func TestBrokenOpensEndOnlyTheirStream(t *testing.T) {
	limits := wire.DefaultLimits()
	limits.MaxStreams, limits.MaxUDP = 3, 0
	for name, tc := range map[string]struct {
		payload []byte
		want    wire.Code
	}{
		"port 0":                         {[]byte{1, 0, 0, 1, 192, 0, 2, 1, 0, 0, 0}, wire.CodeRefused},
		"IPv4 mapped into IPv6":          {append(append([]byte{1, 0, 0, 4}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1), 0, 80, 0), wire.CodeRefused},
		"a name that reads as a number":  {append(append([]byte{1, 0, 0, 3, 6}, "127.01"...), 0, 80, 0), wire.CodeRefused},
		"a name with an upper-case byte": {append(append([]byte{1, 0, 0, 3, 1}, "A"...), 0, 80, 0), wire.CodeRefused},
		"UDP where none is served":       {[]byte{2, 0, 0, 1, 192, 0, 2, 1, 0, 80, 0}, wire.CodeUnsupported},
		"UDP with any peer, likewise":    {[]byte{3, 0, 0, 1, 192, 0, 2, 1, 0, 80, 0}, wire.CodeUnsupported},
		"a kind that nobody knows":       {[]byte{9, 0, 0, 1, 192, 0, 2, 1, 0, 80, 0}, wire.CodeUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, peer := scripted(t, mux.Gateway, limits)
				peer.Send(frame(wire.TypeOpen, 1, tc.payload...))
				peer.WantReset(1, tc.want)
				peer.Send(appendOpen(3, ""))
				st, err := accept(t.Context(), s)
				if err != nil || st.ID() != 3 {
					t.Errorf("the next OPEN: %v", err)
				}
			})
		})
	}
}

func TestOpenBeyondMaxStreamsIsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams = 2
		_, peer := scripted(t, mux.Gateway, limits)
		peer.Send(appendOpen(1, ""), appendOpen(3, ""), appendOpen(5, ""))
		peer.WantReset(5, wire.CodeLimit)
		peer.Send(wire.AppendReset(nil, 1, wire.CodeCancelled), appendOpen(7, ""))
		peer.WantQuiet()
	})
}

func TestOpenIsPaidUntilTheStreamHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams = 1
		s, peer := scripted(t, mux.Gateway, limits)
		peer.Send(appendOpen(1, ""))
		st := mustAccept(t, s)
		if err := st.Confirm(); err != nil {
			t.Fatal(err)
		}
		peer.WantOpened(1)
		peer.Send(wire.AppendFin(nil, 1, []byte("last")), appendOpen(3, ""))
		peer.WantReset(3, wire.CodeLimit) // one direction is not both
		_ = st.CloseWrite()
		peer.Want(wire.TypeFin, 1)
		peer.Send(appendOpen(5, ""))
		if st := mustAccept(t, s); st.ID() != 5 {
			t.Errorf("accepted %d", st.ID())
		}
		if got, err := io.ReadAll(st); err != nil || string(got) != "last" {
			t.Errorf("read %q, %v, of the stream that has ended", got, err)
		}
	})
}

// The reader must not wait for whoever accepts streams.
func TestReadingGoesOnThoughNobodyAcceptsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams, limits.OpenBurst = 2, 100
		_, peer := scripted(t, mux.Gateway, limits)
		for i := range uint64(20) {
			peer.Send(appendOpen(2*i+1, ""), wire.AppendReset(nil, 2*i+1, wire.CodeCancelled))
		}
		peer.Send(wire.AppendPing(nil, [8]byte{42}))
		pongs := 0
		for range 1 + 16 { // what nobody accepts is bounded
			f := peer.Next()
			if f.Type == wire.TypePong {
				pongs++
				continue
			}
			if code, err := wire.ParseReset(f.Payload); f.Type != wire.TypeReset || code != wire.CodeEnhanceCalm || err != nil {
				t.Fatalf("%s(%s) %v", f.Type, code, err)
			}
		}
		if pongs != 1 {
			t.Errorf("%d PONGs", pongs)
		}
		peer.WantQuiet()
	})
}

// A frame for a stream that has ended may have crossed the end on its way.
func TestFramesForAnEndedStreamAreIgnored(t *testing.T) {
	late := map[string][]byte{
		"DATA":   wire.AppendData(nil, 1, []byte("late")),
		"FIN":    wire.AppendFin(nil, 1, nil),
		"CREDIT": wire.AppendCredit(nil, 1, 1<<30),
		"RESET":  wire.AppendReset(nil, 1, wire.CodeIdle),
		"STOP":   wire.AppendStop(nil, 1, wire.CodeCancelled),
		"DGRAM":  frame(wire.TypeDgram, 1, 1, 2, 3),
	}
	for how, end := range map[string]func(c conversation){
		"by a reset from here": func(c conversation) {
			c.st.Reset(wire.CodeIdle)
			c.peer.WantReset(1, wire.CodeIdle)
		},
		"by a reset from there": func(c conversation) {
			c.peer.Send(wire.AppendReset(nil, 1, wire.CodeTargetReset))
			synctest.Wait()
		},
		"by a FIN each way": func(c conversation) {
			_ = c.st.CloseWrite()
			c.peer.Want(wire.TypeFin, 1)
			c.peer.Send(wire.AppendFin(nil, 1, nil))
			synctest.Wait()
		},
	} {
		for name, f := range late {
			t.Run(name+" after the end "+how, func(t *testing.T) {
				converse(t, func(c conversation) {
					t := c.T
					end(c)
					if n := c.s.Streams(); n != 0 {
						t.Errorf("%d streams are left", n)
					}
					c.peer.Send(f, f)
					c.wantAlive()
				})
			})
		}
	}
}

// A direction ends with what was written before, then FIN, then nothing.
func TestFinComesBehindAllDataAndNothingBehindIt(t *testing.T) {
	for _, size := range []int{0, 1, 3000, 40_000, 60_000} {
		converse(t, func(c conversation) {
			t := c.T
			if size > 0 {
				if _, err := c.st.Write(make([]byte, size)); err != nil {
					t.Fatal(err)
				}
			}
			_ = c.st.CloseWrite()
			total, fin := 0, false
			for !fin {
				f := c.peer.Next()
				total += len(f.Payload)
				fin = f.Type == wire.TypeFin
				if f.Type != wire.TypeData && !fin {
					t.Fatalf("%s among the data", f.Type)
				}
			}
			if total != size {
				t.Errorf("%d bytes up to FIN, want %d", total, size)
			}
			c.peer.Send(wire.AppendCredit(nil, 1, 1<<30), wire.AppendStop(nil, 1, wire.CodeCancelled))
			c.peer.WantQuiet()
			c.peer.Send(wire.AppendFin(nil, 1, []byte("on it goes"))) // the other direction
			if got, err := io.ReadAll(c.st); err != nil || string(got) != "on it goes" {
				t.Errorf("read %q, %v", got, err)
			}
		})
	}
}

// FIN needs no credit when it carries no bytes.
func TestEmptyFinNeedsNoCredit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
		peer.Send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, RecvWindow: 0, Target: target}))
		st := mustAccept(t, s)
		_ = st.Confirm()
		_ = st.CloseWrite()
		peer.WantOpened(1)
		if p := peer.Want(wire.TypeFin, 1); len(p) != 0 {
			t.Errorf("FIN with %d bytes", len(p))
		}
	})
}

func TestStopIsAnsweredWithAnEmptyFinAndTheWriterLearnsTheCode(t *testing.T) {
	converse(t, func(c conversation) {
		t := c.T
		_ = c.st.SetWriteDeadline(time.Now().Add(time.Second))
		for { // more than the peer lets it send
			if _, err := c.st.Write(make([]byte, 50_000)); err != nil {
				break
			}
		}
		_ = c.st.SetWriteDeadline(time.Time{})
		for total := 0; total < 1<<16; {
			total += len(c.peer.Want(wire.TypeData, 1))
		}
		c.peer.Send(wire.AppendStop(nil, 1, wire.CodeIdle))
		if p := c.peer.Want(wire.TypeFin, 1); len(p) != 0 {
			t.Errorf("FIN with %d bytes", len(p))
		}
		_, err := c.st.Write([]byte("x"))
		wantCode(t, err, wire.CodeIdle, true)
		_, err = c.st.ReadFrom(zeros{})
		wantCode(t, err, wire.CodeIdle, true)
		c.peer.Send(wire.AppendFin(nil, 1, []byte("the other direction")))
		if got, err := io.ReadAll(c.st); err != nil || string(got) != "the other direction" {
			t.Errorf("read %q, %v", got, err)
		}
		c.peer.WantQuiet()
	})
}

func TestStopBeforeOpenedIsAnsweredBehindIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
		peer.Send(appendOpen(1, ""), wire.AppendStop(nil, 1, wire.CodeCancelled))
		st := mustAccept(t, s)
		peer.WantQuiet()
		_ = st.Confirm()
		peer.WantOpened(1)
		if p := peer.Want(wire.TypeFin, 1); len(p) != 0 {
			t.Errorf("FIN with %d bytes", len(p))
		}
	})
}

// Nothing follows RESET from its sender, and what waited is lost.
func TestNothingFollowsReset(t *testing.T) {
	converse(t, func(c conversation) {
		t := c.T
		_ = c.st.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = c.st.Write(make([]byte, 1<<18))
		for total := 0; total < 1<<16; {
			total += len(c.peer.Want(wire.TypeData, 1))
		}
		_ = c.st.CloseRead()
		c.st.Reset(wire.CodeIdle)
		for f := c.peer.Next(); f.Type != wire.TypeReset; f = c.peer.Next() {
			if f.Type != wire.TypeStop {
				t.Fatalf("%s", f.Type)
			}
		}
		c.peer.Send(wire.AppendCredit(nil, 1, 1<<30))
		c.wantAlive()
		_, err := c.st.Read(make([]byte, 1))
		wantCode(t, err, wire.CodeIdle, false)
		if _, err := c.st.Write([]byte("x")); err == nil || errors.Is(err, net.ErrClosed) {
			t.Errorf("Write = %v", err)
		}
	})
}

// RESET goes before what waits to be sent, of which nothing comes any more then: not
// its FIN either.
func TestNothingFollowsResetThatOvertakesItsData(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t)
		st, other := s.open(), s.open()
		endless(other)
		synctest.Wait() // the writer waits for the peer
		_ = st.SetWriteDeadline(time.Now().Add(time.Hour))
		if _, err := st.Write([]byte("too late")); err != nil {
			t.Fatal(err)
		}
		_ = st.CloseWrite()
		st.Reset(wire.CodeIdle)
		reset := false
		s.read(1<<20, func(f wire.Frame) bool {
			if f.Stream == st.ID() {
				reset = reset || f.Type == wire.TypeReset
				if f.Type != wire.TypeReset && f.Type != wire.TypeOpened {
					t.Errorf("%s, RESET came before it: %t", f.Type, reset)
				}
			}
			return false
		})
		if !reset {
			t.Error("no RESET came")
		}
	})
}

func TestResetFromThereEndsBothDirections(t *testing.T) {
	converse(t, func(c conversation) {
		t := c.T
		c.peer.Send(wire.AppendReset(nil, 1, 9999)) // nobody knows it: like internal
		_, err := c.st.Read(make([]byte, 1))
		wantCode(t, err, 9999, true)
		_, err = c.st.Write([]byte("x"))
		wantCode(t, err, 9999, true)
		if got := wire.Code(9999).Meaning(); got != wire.CodeInternal {
			t.Errorf("an unknown code means %s", got)
		}
		c.wantAlive()
	})
}

// CLOSE ends all streams with its code, and is answered by closing the carrier.
func TestCloseIsAnsweredByNothing(t *testing.T) {
	converse(t, func(c conversation) {
		t := c.T
		c.peer.Send(wire.AppendClose(nil, wire.Close{Code: wire.CodeSubscriptionExpired, Reason: "ask support"}), wire.AppendPing(nil, [8]byte{}))
		_, err := c.st.Read(make([]byte, 1))
		closed, ok := errors.AsType[*mux.CloseError](err)
		if !ok || closed.Code != wire.CodeSubscriptionExpired || closed.Reason != "ask support" || !closed.Remote {
			t.Errorf("Read = %v", err)
		}
		c.peer.WantHangUp()
	})
}

// A carrier that closes without CLOSE ends the session too.
func TestCarrierThatClosesEndsTheSession(t *testing.T) {
	converse(t, func(c conversation) {
		t := c.T
		c.peer.Close()
		<-c.s.Done()
		if _, err := c.st.Read(make([]byte, 1)); !errors.Is(err, mux.ErrEnded) || !errors.Is(err, io.EOF) {
			t.Errorf("Read = %v", err)
		}
	})
}

// What came whole, its FIN included, can be read after the session's end, and is
// paid from the budget until then.
func TestWhatCameWholeIsReadAfterTheSessionsEnd(t *testing.T) {
	for name, end := range map[string]func(c conversation){
		"the carrier closes":   func(c conversation) { c.peer.Close() },
		"the peer says CLOSE":  func(c conversation) { c.peer.Send(wire.AppendClose(nil, wire.Close{})) },
		"this end says CLOSE":  func(c conversation) { c.s.Close(wire.CodeShutdown, "") },
		"the peer breaks rule": func(c conversation) { c.peer.Send(wire.AppendFin(nil, 1, nil)) },
	} {
		t.Run(name, func(t *testing.T) {
			converse(t, func(c conversation) {
				t := c.T
				said := strings.Repeat("0123456789", 2000)
				c.peer.Send(wire.AppendData(nil, 1, []byte(said[:10_000])), wire.AppendFin(nil, 1, []byte(said[10_000:])))
				synctest.Wait()
				if c.st.Whole() != true {
					t.Error("not whole before the end")
				}
				end(c)
				<-c.s.Done()
				synctest.Wait()
				if !c.st.Whole() || !errors.Is(c.st.Err(), mux.ErrEnded) {
					t.Errorf("after the end: whole %t, %v", c.st.Whole(), c.st.Err())
				}
				if _, err := c.st.Write([]byte("x")); !errors.Is(err, mux.ErrEnded) {
					t.Errorf("Write = %v", err)
				}
				if held, _ := c.s.Reserved(); held != uint64(len(said)) {
					t.Errorf("%d bytes are set aside for %d", held, len(said))
				}
				got := make([]byte, 5000)
				if _, err := io.ReadFull(c.st, got); err != nil || string(got) != said[:5000] {
					t.Errorf("read %d bytes, %v", len(got), err)
				}
				var rest strings.Builder
				if _, err := io.Copy(&rest, c.st); err != nil || rest.String() != said[5000:] {
					t.Errorf("read %d bytes more, %v", rest.Len(), err)
				}
				if held, _ := c.s.Reserved(); held != 0 {
					t.Errorf("%d bytes are set aside for nothing", held)
				}
			})
		})
	}
}

func TestWhatCameInPartIsLostWithTheSession(t *testing.T) {
	converse(t, func(c conversation) {
		t := c.T
		c.peer.Send(wire.AppendData(nil, 1, []byte("a beginn")))
		synctest.Wait()
		c.peer.Close()
		<-c.s.Done()
		synctest.Wait()
		if n, err := c.st.Read(make([]byte, 10)); n != 0 || !errors.Is(err, mux.ErrEnded) || c.st.Whole() {
			t.Errorf("read %d bytes, %v, whole %t", n, err, c.st.Whole())
		}
	})
}

// What is left of a session goes with whoever no longer wants it, and where there
// is nobody yet, at once.
func TestWhatIsLeftOfASessionIsThrownAway(t *testing.T) {
	for name, drop := range map[string]func(st *mux.Stream){
		"by Close":     func(st *mux.Stream) { _ = st.Close() },
		"by CloseRead": func(st *mux.Stream) { _ = st.CloseRead() },
		"by Reset":     func(st *mux.Stream) { st.Reset(wire.CodeCancelled) },
	} {
		t.Run(name, func(t *testing.T) {
			converse(t, func(c conversation) {
				t := c.T
				c.peer.Send(wire.AppendFin(nil, 1, []byte("the last words")))
				synctest.Wait()
				c.peer.Close()
				<-c.s.Done()
				synctest.Wait()
				drop(c.st)
				if n, err := c.st.Read(make([]byte, 10)); n != 0 || err == nil || c.st.Whole() {
					t.Errorf("read %d bytes, %v, whole %t", n, err, c.st.Whole())
				}
				if held, _ := c.s.Reserved(); held != 0 {
					t.Errorf("%d bytes are set aside for nothing", held)
				}
			})
		})
	}
	t.Run("before it is confirmed", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
			peer.Send(appendOpen(1, "early"), wire.AppendFin(nil, 1, nil))
			synctest.Wait()
			peer.Close()
			<-s.Done()
			synctest.Wait()
			if held, _ := s.Reserved(); held != 0 {
				t.Errorf("%d bytes are set aside for nothing", held)
			}
		})
	})
}

// A reason is cut where a character ends: the other end must take it.
func TestReasonOfCloseIsCutToWhatThePeerTakes(t *testing.T) {
	for name, reason := range map[string]string{
		"long":      "a" + strings.Repeat("é", 100),
		"not UTF-8": "a\xffb",
	} {
		t.Run(name, func(t *testing.T) {
			converse(t, func(c conversation) {
				c.s.Close(wire.CodeShutdown, reason)
				c.peer.WantClose(wire.CodeShutdown)
			})
		})
	}
}

// Reading never waits, for this end's own writes neither: the peer takes nothing
// while it sends.
func TestReadingGoesOnWhileWritingIsStuck(t *testing.T) {
	converse(t, func(c conversation) {
		t := c.T
		c.peer.Send(wire.AppendCredit(nil, 1, 1<<30))
		endless(c.st)
		synctest.Wait()
		begin := time.Now()
		_ = c.st.SetReadDeadline(begin.Add(time.Second))
		for range 20 { // more than the pipe holds
			c.peer.Send(wire.AppendData(nil, 1, make([]byte, 1000)))
		}
		c.peer.Send(wire.AppendFin(nil, 1, nil))
		got, err := io.ReadAll(c.st)
		if err != nil || len(got) != 20_000 || !time.Now().Equal(begin) {
			t.Errorf("read %d bytes, %v, in %v", len(got), err, time.Since(begin))
		}
	})
}

// Likewise wherever the writer is stuck: in a message that is put together of many
// streams' small pieces, too.
func TestReadingGoesOnWhileAMessageOfManyStreamsIsStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newSender(t)
		var streams []*mux.Stream
		for range 8 {
			st := s.open()
			streams = append(streams, st)
			_ = st.SetWriteDeadline(time.Now().Add(time.Hour)) // its Write never waits for the carrier
			go func() {
				for {
					if _, err := st.Write(make([]byte, 1000)); err != nil {
						return
					}
				}
			}()
		}
		for range 60 {
			s.read(1, nil) // the writer gets one message further
			for _, st := range streams {
				s.peer.Send(wire.AppendData(nil, st.ID(), []byte("x")))
			}
			for _, st := range streams {
				if _, err := io.ReadFull(st, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
