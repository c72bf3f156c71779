package mux_test

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// Rules of docs/03, part 8.4.

var leaving = wire.GoAway{
	Code: wire.CodeShutdown, Drain: 30 * time.Second, ReconnectMin: time.Second, ReconnectMax: 10 * time.Second,
	Gateways: []string{"wss://b.example/x"},
}

// draining is scriptedLasting for a session whose gateway may go away. said has, at a
// client, what the gateway said.
func draining(t *testing.T, role mux.Role) (s *mux.Session, peer *muxtest.Peer, said chan wire.GoAway) {
	t.Helper()
	said = make(chan wire.GoAway, 8)
	ours, theirs := muxtest.Pipe()
	s = start(t, ours, mux.Config{
		Role: role, Limits: wire.DefaultLimits(), Resume: mux.Resume{Within: time.Minute},
		Drain: mux.Drain{Agreed: true, OnGoAway: func(g wire.GoAway) { said <- g }},
	})
	peer = muxtest.NewPeer(t, theirs)
	t.Cleanup(peer.Close)
	return s, peer, said
}

// goesAway is a GOAWAY behind an id.
func goesAway(last uint64) []byte {
	g := leaving
	g.Last = last
	return wire.AppendGoAway(nil, g)
}

// want is peer.Want over ACKs that come before it.
func want(t *testing.T, peer *muxtest.Peer, kind wire.FrameType, stream uint64) []byte {
	t.Helper()
	for {
		f := peer.Next()
		if f.Type == kind && f.Stream == stream {
			return f.Payload
		}
		if f.Type != wire.TypeAck {
			t.Fatalf("got %s for stream %d, want %s for %d", f.Type, f.Stream, kind, stream)
		}
	}
}

// wantNoMore wants nothing but ACKs, by which n reliable frames have been applied.
func wantNoMore(t *testing.T, s *mux.Session, peer *muxtest.Peer, n uint64) {
	t.Helper()
	<-time.After(time.Second)
	synctest.Wait()
	for peer.Arrived() {
		if f := peer.Next(); f.Type != wire.TypeAck {
			t.Errorf("got %s for stream %d, want nothing", f.Type, f.Stream)
		}
	}
	if got := s.Received(); got != n {
		t.Errorf("%d frames were applied, want %d", got, n)
	}
}

func wantGoAway(t *testing.T, peer *muxtest.Peer, last uint64) {
	t.Helper()
	want, got := leaving, want(t, peer, wire.TypeGoAway, 0)
	want.Last = last
	said, err := wire.ParseGoAway(got)
	if diff := cmp.Diff(want, said); diff != "" || err != nil {
		t.Errorf("GOAWAY, %v (-want +got):\n%s", err, diff)
	}
}

// opening has a client open a stream; the error comes when it is known.
func opening(t *testing.T, s *mux.Session) <-chan error {
	t.Helper()
	done := make(chan error, 1)
	go func() {
		_, err := s.Open(t.Context(), target)
		done <- err
	}()
	return done
}

func TestAGatewayThatGoesAwayTakesOpensUpToTheLastAndNoneAboveIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer, _ := draining(t, mux.Gateway)
		peer.Send(appendOpen(1, ""))
		s.Announce(leaving)
		wantGoAway(t, peer, wire.AllOpens)
		peer.Send(appendOpen(3, ""))
		for _, id := range []uint64{1, 3} {
			if st := mustAccept(t, s); st.ID() != id || st.Confirm() != nil {
				t.Errorf("stream %d, want %d", st.ID(), id)
			}
			want(t, peer, wire.TypeOpened, id)
		}
		s.GoAway(leaving)
		wantGoAway(t, peer, 3)
		wantNoMore(t, s, peer, 2)
		// What comes now and what follows on it is nothing, but counted.
		peer.Send(appendOpen(5, "early"), wire.AppendData(nil, 5, []byte("more")), wire.AppendFin(nil, 5, nil), wire.AppendReset(nil, 5, 0))
		peer.Send(appendFlow(7, wire.KindUDP), appendDgram(7, "lost"))
		wantNoMore(t, s, peer, 7)
		if got := s.Streams(); got != 2 {
			t.Errorf("%d streams count, want 2", got)
		}
		// The streams below go on.
		peer.Send(wire.AppendFin(nil, 1, []byte("still here")))
		wantNoMore(t, s, peer, 8)
		// And what is malformed is so above it, too.
		peer.Send(frame(wire.TypeOpen, 9, 1, 1, 0, 1, 192, 0, 2, 1, 0, 80, 0))
		peer.WantClose(wire.CodeProtocol)
	})
}

func TestAnOpenThatIsSentAgainAfterResumingStaysIgnored(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer, _ := draining(t, mux.Gateway)
		peer.Send(appendOpen(1, ""))
		synctest.Wait()
		peer.Close() // GOAWAY is said while there is no carrier
		s.GoAway(leaving)
		received, peer := goOn(t, s, 0)
		if received != 1 {
			t.Errorf("%d frames were applied", received)
		}
		wantGoAway(t, peer, 1)
		peer.Send(appendOpen(3, "again"))
		wantNoMore(t, s, peer, 2)
		if got := s.Streams(); got != 1 {
			t.Errorf("%d streams count, want 1", got)
		}
		// GOAWAY was not acknowledged: it is sent again, before anything else.
		_, peer = goOn(t, s, 0)
		wantGoAway(t, peer, 1)
	})
}

func TestWhatTheGatewayHasNotLookedAtIsToldApart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer, said := draining(t, mux.Client)
		first := opening(t, s)
		peer.WantOpen(1)
		second := opening(t, s)
		peer.WantOpen(3)
		flow, err := s.OpenFlow(t.Context(), wire.KindUDP, target)
		if err != nil {
			t.Fatal(err)
		}
		peer.WantOpen(5)
		peer.Send(goesAway(wire.AllOpens))
		if g := <-said; g.Last != wire.AllOpens || g.Drain != leaving.Drain || len(g.Gateways) != 1 {
			t.Errorf("said: %+v", g)
		}
		third := opening(t, s)
		want(t, peer, wire.TypeOpen, 7)
		peer.Send(goesAway(1))
		for name, done := range map[string]<-chan error{"second": second, "third": third} {
			if err := <-done; !errors.Is(err, mux.ErrUnprocessed) || errors.Is(err, mux.ErrEnded) {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, _, err := flow.Receive(nil); !errors.Is(err, mux.ErrUnprocessed) {
			t.Errorf("flow: %v", err)
		}
		if err := <-opening(t, s); !errors.Is(err, mux.ErrUnprocessed) {
			t.Errorf("an open behind it: %v", err)
		}
		if _, err := s.OpenFlow(t.Context(), wire.KindUDP, target); !errors.Is(err, mux.ErrUnprocessed) {
			t.Errorf("a flow behind it: %v", err)
		}
		if got := s.Streams(); got != 1 {
			t.Errorf("%d streams count, want 1", got)
		}
		// The gateway is told nothing of it, and the first stream goes on.
		peer.Send(wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 1 << 16}), wire.AppendFin(nil, 1, nil))
		if err := <-first; err != nil {
			t.Errorf("first: %v", err)
		}
		wantNoMore(t, s, peer, 4)
	})
}

func TestOpensThatWaitAreToldThatTheGatewayGoesAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams, limits.MaxUDP, limits.OpenBurst, limits.OpenRate = 2, 1, 1, 1
		for name, prepare := range map[string]func(s *mux.Session, peer *muxtest.Peer){
			"for a place": func(s *mux.Session, peer *muxtest.Peer) {
				for id := range uint64(2) {
					opening(t, s)
					peer.WantOpen(2*id + 1)
				}
			},
			"for the rate": func(s *mux.Session, peer *muxtest.Peer) {
				opening(t, s)
				peer.WantOpen(1)
			},
		} {
			ours, theirs := muxtest.Pipe()
			s := start(t, ours, mux.Config{Role: mux.Client, Limits: limits, Drain: mux.Drain{Agreed: true}})
			peer := muxtest.NewPeer(t, theirs)
			prepare(s, peer)
			waits := opening(t, s)
			synctest.Wait()
			began := time.Now()
			peer.Send(goesAway(3))
			if err := <-waits; !errors.Is(err, mux.ErrUnprocessed) || time.Since(began) > 0 {
				t.Errorf("an open that waits %s: %v, after %v", name, err, time.Since(began))
			}
			s.Close(wire.CodeNoError, "")
			peer.Close()
		}
	})
}

func TestGoAwaysThatCannotBeEndTheSession(t *testing.T) {
	for name, tc := range map[string]struct {
		role mux.Role
		send [][]byte
		want wire.Code
	}{
		"a higher id than before": {mux.Client, [][]byte{goesAway(3), goesAway(5)}, wire.CodeProtocol},
		"all opens behind some":   {mux.Client, [][]byte{goesAway(3), goesAway(wire.AllOpens)}, wire.CodeProtocol},
		"from the client":         {mux.Gateway, [][]byte{goesAway(3)}, wire.CodeProtocol},
		"an even id":              {mux.Client, [][]byte{goesAway(3), goesAway(1), goesAway(2)}, wire.CodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, peer, _ := draining(t, tc.role)
				for _, frame := range tc.send {
					peer.Send(frame)
				}
				peer.WantClose(tc.want)
			})
		})
	}
	for _, v := range muxtest.MalformedVectors(t, vectorDir, "goaway.json") {
		t.Run(v.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				_, peer, _ := draining(t, mux.Client)
				peer.Send(v.Bytes)
				peer.WantClose(v.Code)
			})
		})
	}
}

func TestGoAwayIsUnknownWhereNobodyAgreedOnIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, peer := scripted(t, mux.Client, wire.DefaultLimits())
		peer.Send(goesAway(1))
		peer.WantClose(wire.CodeUnsupported)

		s, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
		s.Announce(leaving)
		s.GoAway(leaving)
		peer.Send(appendOpen(1, ""))
		if st := mustAccept(t, s); st.Confirm() != nil {
			t.Error("the stream is not there")
		}
		peer.WantOpened(1)
	})
}

// The longest GOAWAY goes out whatever else waits.
func TestALongGoAwayComesBesideEverythingElse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := muxtest.Pipe()
		said := make(chan wire.GoAway, 1)
		client := start(t, a, mux.Config{Role: mux.Client, Limits: wire.DefaultLimits(), Drain: mux.Drain{Agreed: true, OnGoAway: func(g wire.GoAway) { said <- g }}})
		gateway := start(t, b, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits(), Drain: mux.Drain{Agreed: true}})
		near, far := open(t, client, gateway)
		go func() { _, _ = far.ReadFrom(io.LimitReader(zeros{}, 1<<20)); _ = far.CloseWrite() }()
		g := leaving
		g.Gateways = nil
		for range wire.MaxURLs {
			g.Gateways = append(g.Gateways, "wss://"+strings.Repeat("x", wire.MaxURL-len("wss://")))
		}
		gateway.GoAway(g)
		if n, err := io.Copy(io.Discard, near); n != 1<<20 || err != nil {
			t.Errorf("%d bytes: %v", n, err)
		}
		if got := <-said; len(got.Gateways) != wire.MaxURLs || got.Last != 1 {
			t.Errorf("said: %d gateways, behind %d", len(got.Gateways), got.Last)
		}
	})
}
