package mux_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// Rules of docs/03, part 6.1.

var resolver = wire.Addr{IP: netip.MustParseAddr("192.0.2.53"), Port: 53}

func appendFlow(id uint64, kind wire.Kind) []byte {
	o := wire.Open{Kind: kind}
	if kind == wire.KindUDP {
		o.Target = resolver
	}
	return wire.AppendOpen(nil, id, o)
}

// appendDgram appends a DGRAM of a flow with one peer.
func appendDgram(id uint64, data string) []byte {
	return wire.AppendDgram(nil, id, wire.KindUDP, wire.Dgram{Data: []byte(data)})
}

// flowing is a session, one confirmed flow in it, with id 1, and the other end.
type flowing struct {
	conversation // without a stream
	f            *mux.Flow
}

// flow runs test against both ends of a flow of that kind.
func flow(t *testing.T, kind wire.Kind, test func(c flowing)) {
	t.Helper()
	flowWith(t, kind, mux.Config{Limits: wire.DefaultLimits()}, test)
}

func flowWith(t *testing.T, kind wire.Kind, cfg mux.Config, test func(c flowing)) {
	t.Helper()
	for name, role := range map[string]mux.Role{"client": mux.Client, "gateway": mux.Gateway} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := muxtest.Pipe()
				cfg := cfg
				cfg.Role = role
				c := flowing{conversation: conversation{T: t, s: start(t, ours, cfg), peer: muxtest.NewPeer(t, theirs)}}
				t.Cleanup(c.peer.Close)
				c.f = c.another(1, kind)
				test(c)
			})
		})
	}
}

// another opens and confirms one more flow.
func (c flowing) another(id uint64, kind wire.Kind) *mux.Flow {
	c.Helper()
	if c.s.Role() == mux.Gateway {
		c.peer.Send(appendFlow(id, kind))
		f := mustAcceptFlow(c.T, c.s)
		if err := f.Confirm(); err != nil {
			c.Fatal(err)
		}
		if o := c.peer.WantOpened(id); o.RecvWindow != 0 {
			c.Errorf("OPENED with a window of %d", o.RecvWindow)
		}
		return f
	}
	f := mustOpenFlow(c.T, c.s, kind)
	if o := c.peer.WantOpen(id); o.Kind != kind || o.RecvWindow != 0 || len(o.Early) != 0 || o.Target != f.Target() {
		c.Errorf("OPEN %+v", o)
	}
	c.peer.Send(wire.AppendOpened(nil, id, wire.Opened{}))
	if err := f.WaitOpened(c.Context()); err != nil {
		c.Fatal(err)
	}
	return f
}

func mustOpenFlow(t *testing.T, s *mux.Session, kind wire.Kind) *mux.Flow {
	t.Helper()
	var to wire.Addr
	if kind == wire.KindUDP {
		to = resolver
	}
	f, err := s.OpenFlow(t.Context(), kind, to)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func mustAcceptFlow(t *testing.T, s *mux.Session) *mux.Flow {
	t.Helper()
	in, err := s.Accept(t.Context())
	if err != nil || in.Flow == nil || in.Stream != nil {
		t.Fatalf("Accept = %+v, %v", in, err)
	}
	return in.Flow
}

func wantDgram(t *testing.T, peer *muxtest.Peer, id uint64, want string) {
	t.Helper()
	if got := string(peer.Want(wire.TypeDgram, id)); got != want {
		t.Fatalf("datagram %.20q of %d bytes, want %.20q of %d", got, len(got), want, len(want))
	}
}

// received takes what the flow has, without waiting.
func received(t *testing.T, f *mux.Flow) (all []string) {
	t.Helper()
	synctest.Wait()
	f.SetReadDeadline(time.Unix(1, 0))
	defer f.SetReadDeadline(time.Time{})
	buf := make([]byte, wire.MaxDatagram)
	for {
		n, _, err := f.Receive(buf)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return all
		}
		if err != nil {
			t.Fatalf("Receive: %v", err)
		}
		all = append(all, string(buf[:n]))
	}
}

// numbers are datagrams that tell which they are.
func numbers(from, to int) (all []string) {
	for i := from; i < to; i++ {
		all = append(all, fmt.Sprint(i))
	}
	return all
}

func TestDatagramsStayWholeBothWays(t *testing.T) {
	flow(t, wire.KindUDP, func(c flowing) {
		sizes := []int{1, 0, 1200, wire.MaxDatagram, 2}
		for _, size := range sizes {
			want := strings.Repeat("x", size)
			if err := c.f.Send(wire.Addr{}, []byte(want)); err != nil {
				c.Fatal(err)
			}
			wantDgram(c.T, c.peer, 1, want)
			c.peer.Send(appendDgram(1, want))
			if got := received(c.T, c.f); !cmp.Equal(got, []string{want}) {
				c.Fatalf("%d datagrams came, want one of %d bytes", len(got), size)
			}
		}
		if n := c.f.Dropped(); n != 0 {
			c.Errorf("%d were dropped", n)
		}
	})
}

func TestShortBufferCutsOneDatagramAndNotTheNext(t *testing.T) {
	flow(t, wire.KindUDP, func(c flowing) {
		c.peer.Send(appendDgram(1, "first"), appendDgram(1, "second"))
		for _, want := range []string{"fir", "sec"} {
			buf := make([]byte, 3)
			if n, _, err := c.f.Receive(buf); err != nil || string(buf[:n]) != want {
				c.Errorf("received %q, %v", buf[:n], err)
			}
		}
	})
}

func TestFlowWithAnyPeerNamesItInEachDatagram(t *testing.T) {
	flow(t, wire.KindUDPAny, func(c flowing) {
		for _, peer := range []wire.Addr{resolver, {Name: "example.com", Port: 1}, {IP: netip.MustParseAddr("2001:db8::1"), Port: 65535}} {
			data := make([]byte, wire.MaxDatagram)
			if err := c.f.Send(peer, data); err != nil {
				c.Fatal(err)
			}
			d, err := wire.ParseDgram(wire.KindUDPAny, c.peer.Want(wire.TypeDgram, 1))
			if err != nil || d.Peer != peer || len(d.Data) != len(data) {
				c.Errorf("sent to %v: %d bytes to %v, %v", peer, len(d.Data), d.Peer, err)
			}
			c.peer.Send(wire.AppendDgram(nil, 1, wire.KindUDPAny, wire.Dgram{Peer: peer, Data: []byte("answer")}))
			buf := make([]byte, 100)
			n, from, err := c.f.Receive(buf)
			if err != nil || from != peer || string(buf[:n]) != "answer" {
				c.Errorf("from %v: %q from %v, %v", peer, buf[:n], from, err)
			}
		}
	})
}

func TestDatagramFromAnUnacceptableAddressIsDroppedAlone(t *testing.T) {
	flow(t, wire.KindUDPAny, func(c flowing) {
		c.peer.Send(
			frame(wire.TypeDgram, 1, 1, 192, 0, 2, 1, 0, 0, 'x'), // port 0
			frame(wire.TypeDgram, 1, 3, 1, 'A', 0, 53, 'x'),
			wire.AppendDgram(nil, 1, wire.KindUDPAny, wire.Dgram{Peer: resolver, Data: []byte("good")}))
		if got := received(c.T, c.f); !cmp.Equal(got, []string{"good"}) || c.f.Dropped() != 2 {
			c.Errorf("received %q, %d dropped", got, c.f.Dropped())
		}
		c.peer.Send(frame(wire.TypeDgram, 1, 1, 192, 0)) // cut off
		c.peer.WantClose(wire.CodeProtocol)
	})
}

func TestOpenOfAFlowWithAnyPeerHasNoOtherAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
		peer.Send(
			frame(wire.TypeOpen, 1, 3, 0, 0, 1, 192, 0, 2, 1, 0, 53, 0),
			frame(wire.TypeOpen, 3, 3, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0),
			frame(wire.TypeOpen, 5, 3, 0, 0, 3, 1, 'a', 0, 0, 0))
		for _, id := range []uint64{1, 3, 5} {
			peer.WantReset(id, wire.CodeRefused)
		}
	})
}

func TestFlowsHaveNoWindowAndNoEarlyData(t *testing.T) {
	for name, f := range map[string][]byte{
		"OPEN with a window":           frame(wire.TypeOpen, 1, 2, 0, 1, 1, 192, 0, 2, 1, 0, 53, 0),
		"OPEN with early data":         frame(wire.TypeOpen, 1, 2, 0, 0, 1, 192, 0, 2, 1, 0, 53, 0, 'x'),
		"OPEN with a window, any peer": frame(wire.TypeOpen, 1, 3, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0),
		"OPEN with data, any peer":     frame(wire.TypeOpen, 1, 3, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 'x'),
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
				peer.Send(f)
				peer.WantClose(wire.CodeProtocol)
			})
		})
	}
	t.Run("OPENED with a window", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, peer := scripted(t, mux.Client, wire.DefaultLimits())
			mustOpenFlow(t, s, wire.KindUDP)
			peer.WantOpen(1)
			peer.Send(wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 1}))
			peer.WantClose(wire.CodeProtocol)
		})
	})
}

func TestFramesOfStreamsAreErrorsOnAFlow(t *testing.T) {
	for name, f := range map[string][]byte{
		"DATA":            wire.AppendData(nil, 1, []byte("x")),
		"FIN":             wire.AppendFin(nil, 1, nil),
		"CREDIT":          wire.AppendCredit(nil, 1, 1<<20),
		"STOP":            wire.AppendStop(nil, 1, wire.CodeCancelled),
		"one OPENED more": wire.AppendOpened(nil, 1, wire.Opened{}),
	} {
		t.Run(name, func(t *testing.T) {
			flow(t, wire.KindUDP, func(c flowing) {
				c.peer.Send(f)
				c.peer.WantClose(wire.CodeProtocol)
			})
		})
	}
}

func TestDatagramOnAStreamIsAnError(t *testing.T) {
	converse(t, func(c conversation) {
		c.peer.Send(appendDgram(1, "x"))
		c.peer.WantClose(wire.CodeProtocol)
	})
}

func TestDatagramsMayComeRightBehindOpenAndOfThose32AreHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
		peer.Send(appendFlow(1, wire.KindUDP), appendDgram(1, "0"))
		f := mustAcceptFlow(t, s)
		if f.ID() != 1 || f.Kind() != wire.KindUDP || f.Target() != resolver {
			t.Errorf("accepted flow %d of kind %v to %v", f.ID(), f.Kind(), f.Target())
		}
		for _, d := range numbers(1, 40) {
			peer.Send(appendDgram(1, d))
		}
		if got := received(t, f); !cmp.Equal(got, numbers(8, 40)) || f.Dropped() != 8 {
			t.Errorf("held %v, %d dropped", got, f.Dropped())
		}
	})
	synctest.Test(t, func(t *testing.T) {
		s, peer := scripted(t, mux.Client, wire.DefaultLimits())
		f := mustOpenFlow(t, s, wire.KindUDP)
		if err := f.Send(wire.Addr{}, []byte("early")); err != nil {
			t.Fatal(err)
		}
		peer.WantOpen(1)
		wantDgram(t, peer, 1, "early")
	})
}

func TestGatewaySendsNoDatagramBeforeOpened(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
		peer.Send(appendFlow(1, wire.KindUDP))
		f := mustAcceptFlow(t, s)
		if err := f.Send(wire.Addr{}, []byte("x")); err == nil {
			t.Error("Send before Confirm went well")
		}
		peer.WantQuiet()
		if err := errors.Join(f.Confirm(), f.Send(wire.Addr{}, []byte("y")), f.Confirm()); err != nil {
			t.Fatal(err)
		}
		peer.WantOpened(1)
		wantDgram(t, peer, 1, "y")
		peer.WantQuiet()
	})
	synctest.Test(t, func(t *testing.T) {
		s, peer := scripted(t, mux.Client, wire.DefaultLimits())
		mustOpenFlow(t, s, wire.KindUDP)
		peer.WantOpen(1)
		peer.Send(appendDgram(1, "x"))
		peer.WantClose(wire.CodeProtocol)
	})
}

// stuff fills the carrier, so that nothing more is sent until the peer reads, with
// a flow that is then done: each datagram has a turn of its own, and the last one is stuck
// in it. With several in a turn it would be the scheduler's choice how many are left for
// the next one, behind what the session says meanwhile.
func (c flowing) stuff() {
	c.Helper()
	f := c.another(3, wire.KindUDP)
	for range muxtest.PipeMessages + 1 {
		_ = f.Send(wire.Addr{}, make([]byte, wire.MaxDatagram))
		synctest.Wait()
	}
}

// rest reads all that the peer was sent on flow 1.
func (c flowing) rest() (all []string) {
	c.peer.TrySend(wire.AppendPing(nil, [8]byte{1})) //nolint:errcheck // Next tells
	ponged := false
	for !ponged {
		switch f := c.peer.Next(); {
		case f.Type == wire.TypePong:
			ponged = true
		case f.Type == wire.TypeDgram && f.Stream == 1:
			all = append(all, string(f.Payload))
		}
	}
	return all
}

func TestSenderHolds64DatagramsAndDropsTheOldest(t *testing.T) {
	flow(t, wire.KindUDP, func(c flowing) {
		c.stuff()
		for _, d := range numbers(0, 100) {
			if err := c.f.Send(wire.Addr{}, []byte(d)); err != nil {
				c.Fatal(err)
			}
		}
		got := c.rest()
		got = append(got, c.rest()...) // the first may overtake them
		if !cmp.Equal(got, numbers(36, 100)) || c.f.Dropped() != 36 {
			c.Errorf("sent %v, %d dropped", got, c.f.Dropped())
		}
	})
}

func TestSenderDropsWhatWaitedLongerThan100Milliseconds(t *testing.T) {
	for wait, want := range map[time.Duration][]string{
		100 * time.Millisecond: {"old", "new"},
		101 * time.Millisecond: {"new"},
	} {
		flow(t, wire.KindUDP, func(c flowing) {
			c.stuff()
			_ = c.f.Send(wire.Addr{}, []byte("old"))
			<-time.After(wait)
			_ = c.f.Send(wire.Addr{}, []byte("new"))
			got := c.rest()
			got = append(got, c.rest()...)
			if !cmp.Equal(got, want) || c.f.Dropped() != uint64(2-len(want)) {
				c.Errorf("after %v: sent %v, %d dropped", wait, got, c.f.Dropped())
			}
		})
	}
}

// A turn that the carrier stops in the middle is no shorter wait.
func TestSenderDropsWhatGotOldDuringItsTurn(t *testing.T) {
	flow(t, wire.KindUDP, func(c flowing) {
		for range 14 {
			_ = c.f.Send(wire.Addr{}, make([]byte, wire.MaxDatagram))
		}
		synctest.Wait() // stuck
		_ = c.f.Send(wire.Addr{}, []byte("old"))
		<-time.After(101 * time.Millisecond)
		_ = c.f.Send(wire.Addr{}, []byte("new"))
		got := c.rest()
		got = append(got, c.rest()...)
		small := got[:0]
		for _, d := range got {
			if len(d) < 10 {
				small = append(small, d)
			}
		}
		if !cmp.Equal(small, []string{"new"}) {
			c.Errorf("sent %v", small)
		}
	})
}

func TestReceiverHolds64DatagramsAndDropsTheOldest(t *testing.T) {
	flow(t, wire.KindUDP, func(c flowing) {
		for _, d := range numbers(0, 100) {
			c.peer.Send(appendDgram(1, d))
		}
		if got := received(c.T, c.f); !cmp.Equal(got, numbers(36, 100)) || c.f.Dropped() != 36 {
			c.Errorf("received %v, %d dropped", got, c.f.Dropped())
		}
		c.peer.Send(appendDgram(1, "more"))
		if got := received(c.T, c.f); !cmp.Equal(got, []string{"more"}) {
			c.Errorf("then %v", got)
		}
	})
}

func TestDatagramOver16000BytesIsNeverSentAndDroppedByItsReceiver(t *testing.T) {
	for _, kind := range []wire.Kind{wire.KindUDP, wire.KindUDPAny} {
		flow(t, kind, func(c flowing) {
			long := make([]byte, wire.MaxDatagram+1)
			if err := c.f.Send(resolver, long); !errors.Is(err, mux.ErrDatagramSize) {
				c.Errorf("Send = %v", err)
			}
			c.peer.WantQuiet()
			c.peer.Send(wire.AppendDgram(nil, 1, kind, wire.Dgram{Peer: resolver, Data: long}))
			if got := received(c.T, c.f); got != nil || c.f.Dropped() != 2 {
				c.Errorf("received %d, %d dropped", len(got), c.f.Dropped())
			}
			c.wantAlive()
		})
	}
}

func TestFlowEndsByResetFromHere(t *testing.T) {
	flow(t, wire.KindUDP, func(c flowing) {
		c.peer.Send(appendDgram(1, "unread"))
		synctest.Wait()
		c.f.Reset(wire.CodeIdle)
		c.f.Reset(wire.CodeNoError) // the first counts
		c.peer.WantReset(1, wire.CodeIdle)
		<-c.f.Done()
		_, _, err := c.f.Receive(make([]byte, 9))
		wantCode(c.T, err, wire.CodeIdle, false)
		wantCode(c.T, c.f.Send(wire.Addr{}, []byte("x")), wire.CodeIdle, false)
		wantCode(c.T, c.f.Err(), wire.CodeIdle, false)
		c.peer.Send(appendDgram(1, "late"), wire.AppendReset(nil, 1, wire.CodeNoError), wire.AppendData(nil, 1, []byte("whatever")))
		c.wantAlive()
		if n := c.s.Streams(); n != 0 {
			c.Errorf("%d streams are left", n)
		}
	})
}

func TestFlowEndsByResetFromThereBehindWhatCameBefore(t *testing.T) {
	flow(t, wire.KindUDP, func(c flowing) {
		c.peer.Send(appendDgram(1, "last"), wire.AppendReset(nil, 1, wire.CodeNoError), appendDgram(1, "late"))
		<-c.f.Done()
		if n := c.s.Streams(); n != 0 {
			c.Errorf("%d streams are left", n)
		}
		buf := make([]byte, 9)
		if n, _, err := c.f.Receive(buf); err != nil || string(buf[:n]) != "last" {
			c.Errorf("received %q, %v", buf[:n], err)
		}
		_, _, err := c.f.Receive(buf)
		wantCode(c.T, err, wire.CodeNoError, true)
		wantCode(c.T, c.f.Send(wire.Addr{}, nil), wire.CodeNoError, true)
		c.f.Reset(wire.CodeNoError)
		c.wantAlive() // and says nothing more of the flow
	})
}

func TestNothingFollowsResetOnAFlow(t *testing.T) {
	flow(t, wire.KindUDP, func(c flowing) {
		c.stuff()
		for range 10 {
			_ = c.f.Send(wire.Addr{}, []byte("x"))
		}
		c.f.Reset(wire.CodeNoError)
		for f := c.peer.Next(); f.Stream != 1; f = c.peer.Next() {
			if f.Stream != 3 {
				c.Fatalf("%s for %d", f.Type, f.Stream)
			}
		}
		if got := c.rest(); got != nil {
			c.Errorf("%d datagrams behind RESET", len(got))
		}
	})
}

func TestRefusalOfAFlowReachesWhoeverWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
		peer.Send(appendFlow(1, wire.KindUDP), appendDgram(1, "early"))
		f := mustAcceptFlow(t, s)
		f.Reset(wire.CodePolicyDenied)
		peer.WantReset(1, wire.CodePolicyDenied) // and no OPENED before
		wantCode(t, f.Confirm(), wire.CodePolicyDenied, false)
		peer.WantQuiet()
	})
	synctest.Test(t, func(t *testing.T) {
		s, peer := scripted(t, mux.Client, wire.DefaultLimits())
		f := mustOpenFlow(t, s, wire.KindUDP)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := f.WaitOpened(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("WaitOpened = %v", err)
		}
		peer.WantOpen(1)
		peer.Send(wire.AppendReset(nil, 1, wire.CodePolicyDenied))
		wantCode(t, f.WaitOpened(t.Context()), wire.CodePolicyDenied, true)
		_, _, err := f.Receive(nil)
		wantCode(t, err, wire.CodePolicyDenied, true)
	})
}

func TestFlowsCountTowardsMaxUDPAndMaxStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams, limits.MaxUDP = 3, 2
		s, peer := scripted(t, mux.Gateway, limits)
		peer.Send(appendFlow(1, wire.KindUDP), appendFlow(3, wire.KindUDPAny), appendFlow(5, wire.KindUDP))
		peer.WantReset(5, wire.CodeLimit)
		peer.Send(appendOpen(7, ""), appendOpen(9, ""))
		peer.WantReset(9, wire.CodeLimit)
		peer.Send(wire.AppendReset(nil, 3, wire.CodeNoError), appendFlow(11, wire.KindUDP), appendFlow(13, wire.KindUDP))
		peer.WantReset(13, wire.CodeLimit)
		f := mustAcceptFlow(t, s)
		f.Reset(wire.CodeIdle)
		peer.WantReset(1, wire.CodeIdle)
		peer.Send(appendFlow(15, wire.KindUDP))
		peer.WantQuiet()
	})
}

func TestClientWaitsForAPlaceAmongMaxUDP(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxUDP = 2
		s, peer := scripted(t, mux.Client, limits)
		peer.AnswerPings()
		first, second := mustOpenFlow(t, s, wire.KindUDP), mustOpenFlow(t, s, wire.KindUDPAny)
		peer.WantOpen(1)
		peer.WantOpen(3)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := s.OpenFlow(ctx, wire.KindUDP, resolver); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("OpenFlow beyond max_udp = %v", err)
		}
		for id, end := range map[uint64]func(){
			1: func() { first.Reset(wire.CodeNoError); peer.WantReset(1, wire.CodeNoError) },
			3: func() { peer.Send(wire.AppendReset(nil, 3, wire.CodeIdle)); <-second.Done() },
		} {
			end()
			mustOpenFlow(t, s, wire.KindUDP)
			if f := peer.Next(); f.Type != wire.TypeOpen {
				t.Errorf("%s behind the end of %d", f.Type, id)
			}
		}
	})
}

func TestWhereNoUDPIsServedTheClientDoesNotAsk(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxUDP = 0
		s, peer := scripted(t, mux.Client, limits)
		_, err := s.OpenFlow(t.Context(), wire.KindUDP, resolver)
		wantCode(t, err, wire.CodeUnsupported, false)
		peer.WantQuiet()
	})
}

// What nobody will read must not take the place of what somebody will.
func TestUnreadDatagramsOfFlowsThatHaveEndedHoldNoMemory(t *testing.T) {
	for name, end := range map[string]func(c flowing, id uint64, f *mux.Flow){
		"from here": func(c flowing, id uint64, f *mux.Flow) {
			f.Reset(wire.CodeNoError)
			c.peer.WantReset(id, wire.CodeNoError)
		},
		"from there": func(c flowing, id uint64, f *mux.Flow) {
			c.peer.Send(wire.AppendReset(nil, id, wire.CodeIdle))
			<-f.Done()
			f.Reset(wire.CodeNoError) // whoever has it is done, too
		},
	} {
		t.Run(name, func(t *testing.T) {
			flowWith(t, wire.KindUDP, mux.Config{Limits: wire.DefaultLimits(), Budget: 4 << 20}, func(c flowing) {
				for i := range uint64(20) {
					f := c.another(2*i+3, wire.KindUDP)
					for range 64 {
						c.peer.Send(appendDgram(2*i+3, strings.Repeat("x", 1000)))
					}
					end(c, 2*i+3, f)
				}
				c.peer.Send(appendDgram(1, "read"))
				if got := received(c.T, c.f); !cmp.Equal(got, []string{"read"}) {
					c.Errorf("received %v", got)
				}
			})
		})
	}
}

func TestUnsentDatagramsOfFlowsThatHaveEndedHoldNoMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := muxtest.Pipe()
		s := start(t, ours, mux.Config{Role: mux.Client, Limits: wire.DefaultLimits(), Budget: 4 << 20})
		c := flowing{conversation: conversation{T: t, s: s, peer: muxtest.NewPeer(t, theirs)}}
		t.Cleanup(c.peer.Close)
		c.f = c.another(1, wire.KindUDP)
		c.stuff()
		for range 20 {
			f := mustOpenFlow(t, s, wire.KindUDP)
			for range 64 {
				_ = f.Send(wire.Addr{}, make([]byte, 1000))
			}
			f.Reset(wire.CodeNoError)
		}
		_ = c.f.Send(wire.Addr{}, []byte("sent"))
		got := c.rest()
		got = append(got, c.rest()...)
		if !cmp.Equal(got, []string{"sent"}) {
			t.Errorf("sent %v", got)
		}
	})
}

// All flows of a session together hold an eighth of its budget.
func TestDatagramsThatWaitAreBoundedInBytes(t *testing.T) {
	const budget = 1 << 20
	flowWith(t, wire.KindUDP, mux.Config{Limits: wire.DefaultLimits(), Budget: budget}, func(c flowing) {
		flows := []*mux.Flow{c.f}
		for i := range uint64(7) {
			flows = append(flows, c.another(2*i+3, wire.KindUDP))
		}
		for i := range uint64(8) {
			for range 64 {
				c.peer.Send(appendDgram(2*i+1, strings.Repeat("x", 8000)))
			}
		}
		held := 0
		for _, f := range flows {
			for _, d := range received(c.T, f) {
				held += len(d)
			}
		}
		if held > budget/8 || held < budget/16 {
			c.Errorf("%d bytes were held", held)
		}
	})
}

func TestTheEndOfTheSessionEndsItsFlows(t *testing.T) {
	flow(t, wire.KindUDP, func(c flowing) {
		done := make(chan error)
		go func() {
			_, _, err := c.f.Receive(nil)
			done <- err
		}()
		synctest.Wait()
		c.peer.Send(wire.AppendClose(nil, wire.Close{Code: wire.CodeShutdown}))
		if err := <-done; !errors.Is(err, mux.ErrEnded) {
			c.Errorf("Receive = %v", err)
		}
		if err := c.f.Send(wire.Addr{}, nil); !errors.Is(err, mux.ErrEnded) {
			c.Errorf("Send = %v", err)
		}
		<-c.f.Done()
		c.f.Reset(wire.CodeNoError)
	})
}

func TestReadDeadlineOfAFlow(t *testing.T) {
	flow(t, wire.KindUDP, func(c flowing) {
		from := time.Now()
		c.f.SetReadDeadline(from.Add(time.Second))
		_, _, err := c.f.Receive(nil)
		if !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(from) != time.Second {
			c.Errorf("Receive = %v after %v", err, time.Since(from))
		}
		c.f.SetReadDeadline(time.Time{})
		c.peer.Send(appendDgram(1, "x"))
		if n, _, err := c.f.Receive(make([]byte, 9)); n != 1 || err != nil {
			c.Errorf("then Receive = %d, %v", n, err)
		}
	})
}

// What is done before its OPEN was sent was never heard of.
func TestFlowThatEndsBeforeItsOpenIsNeverMentioned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scripted(t, mux.Client, wire.DefaultLimits())
		c := flowing{conversation: conversation{T: t, s: s, peer: peer}}
		c.f = c.another(1, wire.KindUDP)
		c.stuff()
		f := mustOpenFlow(t, s, wire.KindUDP)
		_ = f.Send(wire.Addr{}, []byte("x"))
		before := s.Streams()
		f.Reset(wire.CodeNoError)
		if n := s.Streams(); n != before-1 {
			t.Errorf("%d streams count, want %d", n, before-1)
		}
		peer.Send(wire.AppendPing(nil, [8]byte{}))
		for {
			fr := peer.Next()
			if fr.Stream == 5 {
				t.Fatalf("%s for the flow", fr.Type)
			}
			if fr.Type == wire.TypePong {
				break
			}
		}
		peer.WantQuiet()
	})
}
