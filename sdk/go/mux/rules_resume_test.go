package mux_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// scriptedLasting is scripted for a session that can be resumed.
func scriptedLasting(t *testing.T, role mux.Role, budget uint64) (*mux.Session, *muxtest.Peer) {
	t.Helper()
	ours, theirs := muxtest.Pipe()
	s := start(t, ours, mux.Config{Role: role, Limits: wire.DefaultLimits(), Budget: budget, Resume: mux.Resume{Within: time.Minute}})
	peer := muxtest.NewPeer(t, theirs)
	t.Cleanup(peer.Close)
	return s, peer
}

// goOn gives a session another carrier, at whose other end the test plays on.
func goOn(t *testing.T, s *mux.Session, applied uint64) (received uint64, peer *muxtest.Peer) {
	t.Helper()
	received, err := s.Park(t.Context())
	if err != nil {
		t.Fatalf("Park: %v", err)
	}
	ours, theirs := muxtest.Pipe()
	if err := s.Resume(ours, nil, applied); err != nil {
		t.Fatalf("Resume: %v", err)
	}
	peer = muxtest.NewPeer(t, theirs)
	t.Cleanup(peer.Close)
	return received, peer
}

func wantAck(t *testing.T, peer *muxtest.Peer, want uint64) {
	t.Helper()
	if rsn, err := wire.ParseAck(peer.Want(wire.TypeAck, 0)); err != nil || rsn != want {
		t.Errorf("ACK(%d), %v, want %d", rsn, err, want)
	}
}

func unhex(t *testing.T, text string) (out []byte) {
	t.Helper()
	for word := range strings.FieldsSeq(text) {
		digits, times, _ := strings.Cut(word, "*")
		b, err := hex.DecodeString(digits)
		n, _ := strconv.Atoi(times)
		if err != nil {
			t.Fatal(err)
		}
		for range max(n, 1) {
			out = append(out, b...)
		}
	}
	return out
}

// docs/03, part 8.3: counting. The traces have frames of every class.
func TestReliableFramesAreCountedAsInEveryTrace(t *testing.T) {
	text, err := os.ReadFile(filepath.Join(vectorDir, "rsn.json"))
	if err != nil {
		t.Fatal(err)
	}
	var traces []struct {
		Name, Error string
		Steps       []struct {
			Frame string
			RSN   uint64
		}
	}
	if err := json.Unmarshal(text, &traces); err != nil {
		t.Fatal(err)
	}
	for _, trace := range traces {
		t.Run(trace.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, peer := scriptedLasting(t, mux.Gateway, 0)
				for i, step := range trace.Steps {
					peer.Send(unhex(t, step.Frame))
					synctest.Wait()
					if trace.Error != "" && i == len(trace.Steps)-1 {
						code, _ := wire.ParseCode(trace.Error)
						peer.WantClose(code)
						return
					}
					if got := s.Received(); got != step.RSN {
						t.Errorf("after step %d %d frames have been applied, want %d", i+1, got, step.RSN)
					}
				}
			})
		})
	}
}

func TestAnAckComesAfter64KiBOr64FramesOr200Milliseconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scriptedLasting(t, mux.Gateway, 0)
		began := time.Now()
		peer.Send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, Target: target, RecvWindow: 1 << 20}))
		wantAck(t, peer, 1)
		if took := time.Since(began); took != 200*time.Millisecond {
			t.Errorf("the first ACK came after %v", took)
		}
		st, err := accept(t.Context(), s)
		if err != nil || st.Confirm() != nil {
			t.Fatal(err)
		}
		peer.Want(wire.TypeOpened, 1)

		began = time.Now()
		for range 63 {
			peer.Send(wire.AppendData(nil, 1, []byte("x")))
		}
		peer.WantQuiet()
		peer.Send(wire.AppendData(nil, 1, []byte("x")))
		wantAck(t, peer, 65)
		for range 4 {
			peer.WantQuiet()
			peer.Send(wire.AppendData(nil, 1, make([]byte, 16<<10-1)))
		}
		peer.WantQuiet()
		peer.Send(wire.AppendData(nil, 1, make([]byte, 4)))
		wantAck(t, peer, 70)
		if took := time.Since(began); took != 0 {
			t.Errorf("64 frames and 64 KiB were acknowledged after %v", took)
		}
		// While more is at hand it waits.
		peer.Send(bytes.Repeat(wire.AppendData(nil, 1, []byte("x")), 200))
		wantAck(t, peer, 270)
		peer.WantQuiet()
	})
}

func TestWithoutTheCapabilityAnAckIsSkippedAndNoneIsSent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
		peer.Send(frame(0x5f, 0), wire.AppendAck(nil, 7), frame(wire.TypeAck, 0, 1, 2, 3))
		<-time.After(time.Second)
		peer.WantQuiet()
	})
}

func TestALowerAckChangesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scriptedLasting(t, mux.Client, 0)
		go func() { _, _ = s.Open(t.Context(), target) }()
		peer.WantOpen(1)
		peer.Send(wire.AppendAck(nil, 1), wire.AppendAck(nil, 0), wire.AppendAck(nil, 1))
		synctest.Wait()
		if history, _ := s.Waiting(); history != 0 {
			t.Errorf("the history holds %d bytes", history)
		}
		_, peer = goOn(t, s, 1)
		peer.WantQuiet()
	})
}

// What was acknowledged comes no more, the rest once more and in its order, with what
// came meanwhile behind it.
func TestWhatWasNotAppliedIsSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scriptedLasting(t, mux.Client, 0)
		opened := make(chan *mux.Stream, 1)
		go func() {
			st, err := s.Open(t.Context(), target)
			if err != nil {
				t.Errorf("Open: %v", err)
			}
			opened <- st
		}()
		peer.WantOpen(1)
		peer.Send(wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 1 << 20}))
		st := <-opened
		payload := make([]byte, 60<<10)
		for i := range payload {
			payload[i] = byte(i >> 8)
		}
		go func() {
			for _, part := range [][]byte{payload[:3], payload[3:10], payload[10:]} { // small ones, and some that are sent in place
				if _, err := st.Write(part); err != nil {
					t.Errorf("Write: %v", err)
				}
			}
		}()
		var first [][]byte
		for n := 0; n < len(payload); {
			if f := peer.Next(); f.Type == wire.TypeData {
				first = append(first, append([]byte(nil), f.Payload...))
				n += len(f.Payload)
			}
		}
		peer.Close()
		synctest.Wait()
		if !s.Lost() {
			t.Error("the session has a carrier")
		}
		if err := st.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		received, peer := goOn(t, s, 2) // OPEN and the first DATA
		if received != 1 {
			t.Errorf("%d frames have been applied, want 1", received)
		}
		for i, want := range first[1:] {
			if s.Err() != nil {
				t.Fatal(s.Err())
			}
			if got := peer.Want(wire.TypeData, 1); string(got) != string(want) {
				t.Errorf("DATA %d has come back otherwise: %d bytes, %d before", i, len(got), len(want))
			}
		}
		if got := peer.Want(wire.TypeFin, 1); len(got) != 0 {
			t.Errorf("FIN has %d bytes", len(got))
		}
	})
}

// A frame of which a part came counts for nothing.
func TestHalfAFrameNeverCounts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := muxtest.Pipe()
		s := start(t, ours, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits(), Resume: mux.Resume{Within: time.Minute}})
		peer := muxtest.NewPeer(t, theirs)
		peer.Send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, Target: target, RecvWindow: 1 << 20}))
		st, err := accept(t.Context(), s)
		if err != nil || st.Confirm() != nil {
			t.Fatal(err)
		}
		ours.BreakAfter(5000)
		data := wire.AppendData(nil, 1, make([]byte, 10_000))
		_ = peer.TrySend(data)
		synctest.Wait()
		received, peer := goOn(t, s, 0)
		if received != 1 {
			t.Fatalf("%d frames have been applied, want 1", received)
		}
		peer.Send(data, wire.AppendFin(nil, 1, []byte("end")))
		if n, err := st.WriteTo(&counted{}); err != nil || n != 10_003 {
			t.Errorf("%d bytes, %v, want 10,003", n, err)
		}
	})
}

type counted struct{ n int }

func (c *counted) Write(p []byte) (int, error) { c.n += len(p); return len(p), nil }

// At its bound the history holds back what would be added to it, and nothing else.
func TestAFullHistoryHoldsBackAndEndsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const budget = 4 << 20
		s, peer := scriptedLasting(t, mux.Client, budget)
		opened := make(chan *mux.Stream, 1)
		go func() { st, _ := s.Open(t.Context(), target); opened <- st }()
		peer.WantOpen(1)
		peer.Send(wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 1 << 40}))
		st := <-opened
		go func() { _, _ = st.ReadFrom(zeros{}) }()
		sent, frames := 0, uint64(1)
		drain := func() {
			for synctest.Wait(); peer.Arrived(); synctest.Wait() {
				if f := peer.Next(); f.Type == wire.TypeData {
					sent += len(f.Payload)
					frames++
				}
			}
		}
		drain()
		if sent < budget/16*8 || sent > budget/16*11 {
			t.Errorf("%d bytes were sent without an acknowledgement, of a budget of %d", sent, budget)
		}
		peer.Send(wire.AppendPing(nil, [8]byte{3}))
		if got := peer.Want(wire.TypePong, 0); got[0] != 3 {
			t.Errorf("PONG %x", got)
		}
		before := sent
		peer.Send(wire.AppendAck(nil, frames))
		drain()
		if sent-before < budget/16*8 {
			t.Errorf("%d bytes were sent after the acknowledgement", sent-before)
		}
		if s.Err() != nil {
			t.Errorf("the session ended: %v", s.Err())
		}
	})
}

func TestASessionWithoutACarrierEndsAfterItsWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scriptedLasting(t, mux.Client, 0)
		peer.Close()
		began := time.Now()
		<-s.Done()
		if took := time.Since(began); took != time.Minute {
			t.Errorf("it ended after %v", took)
		}
		if _, err := s.Park(t.Context()); !errors.Is(err, mux.ErrEnded) {
			t.Errorf("Park = %v", err)
		}
	})
}

func TestASessionWithoutACarrierCanBeClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scriptedLasting(t, mux.Gateway, 0)
		peer.Close()
		synctest.Wait()
		s.Close(wire.CodeDeviceRevoked, "")
		synctest.Wait()
		select {
		case <-s.Done():
		default:
			t.Error("it goes on")
		}
	})
}

func TestNumbersThatCannotBeEndTheSession(t *testing.T) {
	for name, applied := range map[string]uint64{"more than was sent": 3, "less than was acknowledged": 0} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, peer := scriptedLasting(t, mux.Client, 0)
				for _, id := range []uint64{1, 3} {
					go func() { _, _ = s.Open(t.Context(), target) }()
					peer.WantOpen(id)
				}
				peer.Send(wire.AppendAck(nil, 1))
				synctest.Wait()
				if _, err := s.Park(t.Context()); err != nil {
					t.Fatal(err)
				}
				ours, _ := muxtest.Pipe()
				var broken *wire.Error
				if err := s.Resume(ours, nil, applied); !errors.As(err, &broken) || broken.Code != wire.CodeProtocol {
					t.Errorf("Resume = %v", err)
				}
				if s.Err() == nil {
					t.Error("the session goes on")
				}
			})
		})
	}
}

// A gateway gives a silent carrier up, and not the session.
func TestSilenceCostsTheCarrierAndNotTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scriptedLasting(t, mux.Gateway, 0)
		<-time.After(89 * time.Second)
		peer.WantQuiet()
		<-time.After(2 * time.Second)
		peer.WantHangUp()
		if !s.Lost() {
			t.Errorf("the session has a carrier, or is over: %v", s.Err())
		}
	})
}

// A client gives a silent carrier up within five seconds, and has more patience with the
// third in a row: the way may only be slow. Any progress ends the row.
func TestCarriersThatAreSilentInARowAreWaitedForLonger(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scriptedLasting(t, mux.Client, 0)
		<-time.After(time.Millisecond)
		began := time.Now()
		for id := range uint64(2) { // frames
			go func() { _, _ = s.Open(t.Context(), target) }()
			peer.WantOpen(1 + 2*id)
		}
		row := append([]time.Duration{2500, 2500, 5000, 10_000}, slices.Repeat([]time.Duration{20_000}, 70)...)
		for i, patience := range append(row, 2500, 2500, 5000) {
			patience *= time.Millisecond
			peer.Want(wire.TypePing, 0)
			peer.WantHangUp()
			if took, want := time.Since(began), 2*time.Second+patience; !s.Lost() || took < want || took > want+time.Millisecond {
				t.Errorf("carrier %d after %v, want %v: lost = %t", i+1, took, want, s.Lost())
			}
			applied := uint64(0)
			if i >= len(row)-1 {
				applied = 1
			}
			_, peer = goOn(t, s, applied)
			if applied == 0 {
				peer.WantOpen(1)
			}
			peer.WantOpen(3)
			began = time.Now()
		}
	})
}

// What came last does not tell that the other end has what was sent before it: where an
// acknowledgement is missing, the way is probed, though nothing more is sent.
func TestAMissingAcknowledgementIsAskedFor(t *testing.T) {
	for name, acknowledged := range map[string]bool{"missing": false, "there": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, peer := scriptedLasting(t, mux.Client, 0)
				go func() { _, _ = s.Open(t.Context(), target) }()
				peer.WantOpen(1)
				<-time.After(time.Second)
				if acknowledged {
					peer.Send(wire.AppendAck(nil, 1))
				} else {
					peer.Send(frame(wire.TypePad, 0))
				}
				synctest.Wait()
				began := time.Now()
				peer.Want(wire.TypePing, 0)
				took := time.Since(began)
				if acknowledged {
					if took < 20*time.Second {
						t.Errorf("PING after %v, and nothing was missing", took)
					}
					return
				}
				if took > 2*time.Second {
					t.Errorf("PING after %v", took)
				}
				peer.WantHangUp()
				if took := time.Since(began); !s.Lost() || took > 4500*time.Millisecond {
					t.Errorf("after %v: lost = %t", took, s.Lost())
				}
			})
		})
	}
}

// stuck is a carrier that takes nothing from a moment on, until it is aborted.
type stuck struct {
	*muxtest.End
	now     atomic.Bool
	once    sync.Once
	aborted chan struct{}
}

func (s *stuck) WriteReserved(buf []byte) error {
	if s.now.Load() {
		<-s.aborted
		return net.ErrClosed
	}
	return s.End.WriteReserved(buf)
}

func (s *stuck) Abort() error {
	s.once.Do(func() { close(s.aborted) })
	return s.End.Abort()
}

// A PING that waits behind a write that is stuck was wanted before the latest bytes came:
// the patience with it begins when it is wanted again.
func TestAnOldPingThatCannotBeSentKeepsNoSilentCarrier(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := muxtest.Pipe()
		carrier := &stuck{End: ours, aborted: make(chan struct{})}
		s := start(t, carrier, mux.Config{Role: mux.Client, Limits: wire.DefaultLimits(), Resume: mux.Resume{Within: time.Minute}})
		peer := muxtest.NewPeer(t, theirs)
		t.Cleanup(peer.Close)
		opened := openClient(t, s, peer)
		peer.Send(wire.AppendAck(nil, 1), wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 1 << 20}))
		st := <-opened
		carrier.now.Store(true)
		go func() { _, _ = st.Write([]byte("x")) }()
		synctest.Wait()
		go func() { _, _ = s.Ping(t.Context()) }()
		<-time.After(time.Second)
		peer.Send(frame(wire.TypePad, 0))
		began := time.Now()
		defer time.AfterFunc(time.Minute, func() { _ = carrier.Abort() }).Stop()
		peer.WantHangUp()
		if took := time.Since(began); !s.Lost() || took > 4501*time.Millisecond {
			t.Errorf("after %v: lost = %t", took, s.Lost())
		}
	})
}

// Park returns when nothing more can be applied, also where the carrier is good.
func TestParkTakesAGoodCarrierAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer := scriptedLasting(t, mux.Gateway, 0)
		peer.Send(frame(0x5f, 0), frame(0x5f, 0))
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if received, err := s.Park(ctx); err != nil || received != 2 {
			t.Errorf("Park = %d, %v", received, err)
		}
		peer.WantHangUp()
	})
}
