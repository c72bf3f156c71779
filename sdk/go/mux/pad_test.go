package mux_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// tape is a carrier that keeps what was written to it.
type tape struct {
	*muxtest.End
	mu       sync.Mutex
	messages [][]byte
}

func (c *tape) WriteReserved(buf []byte) error {
	c.mu.Lock()
	c.messages = append(c.messages, bytes.Clone(buf[mux.Headroom:]))
	c.mu.Unlock()
	return c.End.WriteReserved(buf)
}

// take returns what has been written since it was called last.
func (c *tape) take() [][]byte {
	synctest.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	defer func() { c.messages = nil }()
	return c.messages
}

// padded looks at a message: whether a PAD is its last frame, and how long it is without.
// A PAD that is anywhere else, or alone, fails the test.
func padded(t *testing.T, msg []byte) (bare int, pad bool) {
	t.Helper()
	var frames []wire.Frame
	for f, err := range wire.Frames(msg) {
		if err != nil {
			t.Fatalf("%x: %v", msg, err)
		}
		frames = append(frames, f)
	}
	last := frames[len(frames)-1]
	for _, f := range frames[:len(frames)-1] {
		if f.Type == wire.TypePad {
			t.Errorf("a PAD in the middle of %x", msg)
		}
	}
	if last.Type != wire.TypePad {
		return len(msg), false
	}
	if len(frames) == 1 {
		t.Errorf("a message with nothing but a PAD: %d bytes", len(msg))
	}
	return len(msg) - len(wire.AppendFrame(nil, wire.TypePad, 0, last.Payload)), true
}

// wantPadded checks that a message has the length that the policy says, if it is to be
// padded at all.
func wantPadded(t *testing.T, msg []byte, policy wire.PaddingPolicy) {
	t.Helper()
	bare, _ := padded(t, msg)
	for _, size := range policy.Sizes {
		if bare <= size {
			if len(msg) < size || len(msg) > size+policy.Spread+1 {
				t.Errorf("%d bytes became %d, want %d to %d", bare, len(msg), size, size+policy.Spread)
			}
			return
		}
	}
	if len(msg) != bare {
		t.Errorf("%d bytes became %d", bare, len(msg))
	}
}

func wantBare(t *testing.T, msg []byte) {
	t.Helper()
	if bare, pad := padded(t, msg); pad {
		t.Errorf("%d bytes became %d", bare, len(msg))
	}
}

// taped runs a session with padding against a peer that the test plays.
func taped(t *testing.T, role mux.Role, limits wire.Limits, policy *wire.PaddingPolicy) (*mux.Session, *muxtest.Peer, *tape) {
	t.Helper()
	ours, theirs := muxtest.Pipe()
	c := &tape{End: ours}
	s := mux.New(c, mux.Config{Role: role, Limits: limits, Padding: policy, Resume: mux.Resume{Within: time.Minute}})
	ended := run(t, s)
	peer := muxtest.NewPeer(t, theirs)
	peer.IgnorePadding()
	t.Cleanup(func() {
		s.Close(wire.CodeNoError, "")
		peer.Close()
		<-ended
	})
	return s, peer, c
}

func defaultPadding() *wire.PaddingPolicy {
	p := wire.DefaultPadding()
	return &p
}

// ask has a session send one message: the PONG to a PING.
func ask(peer *muxtest.Peer, c *tape) [][]byte {
	peer.Send(wire.AppendPing(nil, [8]byte{1}))
	messages := c.take()
	peer.Drain()
	return messages
}

// spend has the messages sent that are padded because they are a carrier's first.
func spend(peer *muxtest.Peer, c *tape, policy wire.PaddingPolicy) {
	for range policy.Messages {
		ask(peer, c)
	}
}

func TestTheFirstMessagesOfACarrierArePadded(t *testing.T) {
	for name, role := range map[string]mux.Role{"client": mux.Client, "gateway": mux.Gateway} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				policy := defaultPadding()
				s, peer, c := taped(t, role, wire.DefaultLimits(), policy)
				drawn := map[int]bool{}
				for range 20 { // on the next carriers, too
					n := 0
					for i := range 20 {
						messages := ask(peer, c)
						if len(messages) != 1 {
							t.Fatalf("%d messages", len(messages))
						}
						if _, pad := padded(t, messages[0]); pad && n == i {
							wantPadded(t, messages[0], *policy)
							n++
							continue
						}
						wantBare(t, messages[0])
					}
					if n < policy.Messages/2 || n > policy.Messages {
						t.Errorf("%d messages were padded", n)
					}
					drawn[n] = true
					if _, err := s.Park(t.Context()); err != nil {
						t.Fatal(err)
					}
					ours, theirs := muxtest.Pipe()
					c = &tape{End: ours}
					if err := s.Resume(c, nil, 0); err != nil {
						t.Fatal(err)
					}
					peer.Close()
					peer = muxtest.NewPeer(t, theirs)
				}
				defer peer.Close()
				if len(drawn) < 3 {
					t.Errorf("on all carriers as many messages were padded: %v", drawn)
				}
			})
		})
	}
}

func TestWithoutThePolicyNothingIsPadded(t *testing.T) {
	for name, role := range map[string]mux.Role{"client": mux.Client, "gateway": mux.Gateway} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, peer, c := taped(t, role, wire.DefaultLimits(), nil)
				for range 10 {
					for _, msg := range ask(peer, c) {
						wantBare(t, msg)
					}
				}
				st := openAs(t, s, peer, 1)
				for range 10 {
					if _, err := st.Write([]byte("hello")); err != nil {
						t.Fatal(err)
					}
					for _, msg := range c.take() {
						wantBare(t, msg)
					}
					peer.Drain()
				}
			})
		})
	}
}

// Of each stream, as many of the first frames as were drawn for it; and of flows.
func TestTheFirstFramesOfEachStreamArePadded(t *testing.T) {
	for name, role := range map[string]mux.Role{"client": mux.Client, "gateway": mux.Gateway} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				policy := defaultPadding()
				s, peer, c := taped(t, role, wire.DefaultLimits(), policy)
				spend(peer, c, *policy)
				drawn := map[int]bool{}
				for i := range uint64(60) {
					var write func([]byte) error
					if i%2 == 0 {
						st := openAs(t, s, peer, 2*i+1)
						defer st.Reset(wire.CodeCancelled)
						write = func(b []byte) error { _, err := st.Write(b); return err }
					} else {
						f := openFlowAs(t, s, peer, 2*i+1)
						defer f.Reset(wire.CodeNoError)
						write = func(b []byte) error { return f.Send(wire.Addr{}, b) }
					}
					n := 0 // messages of the stream that were padded
					over := false
					look := func() {
						for _, msg := range c.take() {
							if bare, pad := padded(t, msg); pad {
								wantPadded(t, msg, *policy)
								if n++; over {
									t.Errorf("stream %d: a message of %d bytes behind one that was not padded", 2*i+1, bare)
								}
							} else if of(t, msg, 2*i+1) {
								over = true
							}
						}
						peer.Drain()
					}
					look()
					for j := range 20 {
						if err := write(make([]byte, 1+j*37)); err != nil {
							t.Fatal(err)
						}
						look()
					}
					if n < policy.Messages/2 || n > policy.Messages {
						t.Errorf("stream %d: %d messages were padded", 2*i+1, n)
					}
					drawn[n] = true
				}
				if len(drawn) < 3 {
					t.Errorf("of all streams as many messages were padded: %v", drawn)
				}
			})
		})
	}
}

// of says whether a message has a frame of that stream.
func of(t *testing.T, msg []byte, id uint64) bool {
	t.Helper()
	for f, err := range wire.Frames(msg) {
		if err != nil {
			t.Fatal(err)
		}
		if f.Stream == id {
			return true
		}
	}
	return false
}

// openFlowAs is openAs for a flow.
func openFlowAs(t *testing.T, s *mux.Session, peer *muxtest.Peer, id uint64) *mux.Flow {
	t.Helper()
	if s.Role() == mux.Gateway {
		peer.Send(wire.AppendOpen(nil, id, wire.Open{Kind: wire.KindUDP, Target: target}))
		in, err := s.Accept(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if err := in.Flow.Confirm(); err != nil {
			t.Fatal(err)
		}
		return in.Flow
	}
	s.SkipIDs(id - 2)
	f, err := s.OpenFlow(t.Context(), wire.KindUDP, target)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	peer.Drain()
	peer.Send(wire.AppendOpened(nil, id, wire.Opened{}))
	return f
}

// A TLS server's first words are longer than a packet. Up to the largest size they are
// padded, too; beyond it they fill records as they are.
func TestLongerPiecesArePaddedUpToTheLargestSize(t *testing.T) {
	for name, role := range map[string]mux.Role{"client": mux.Client, "gateway": mux.Gateway} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				policy := defaultPadding()
				s, peer, c := taped(t, role, wire.DefaultLimits(), policy)
				id := uint64(1)
				for _, n := range []int{1, 500, 1390, 1400, 2000, 2040, 2100, 3000, 4500, 4590, 4600, 4700, 5000, 9000, 16000, 30000} {
					st := openAs(t, s, peer, id)
					id += 2
					c.take()
					peer.Drain()
					if _, err := st.Write(make([]byte, n)); err != nil {
						t.Fatal(err)
					}
					sent := 0
					for _, msg := range c.take() {
						wantPadded(t, msg, *policy)
						bare, _ := padded(t, msg)
						sent += bare
					}
					if sent < n {
						t.Errorf("%d of %d bytes were sent", sent, n)
					}
					peer.Drain()
					st.Reset(wire.CodeCancelled)
					peer.Drain()
				}
			})
		})
	}
}

// However large the sizes are, a message fits a TLS record.
func TestPaddedMessagesFitTLSRecords(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := wire.PaddingPolicy{Messages: 64, Sizes: []int{10_000, 16_000}, Spread: 4096, Share: 100}
		s, peer, c := taped(t, mux.Client, wire.DefaultLimits(), &policy)
		longest := 0
		for i := range uint64(20) {
			st := openAs(t, s, peer, 2*i+1)
			for _, n := range []int{1, 5000, 9000, 12_000, 15_000, 15_990, 30_000} {
				if _, err := st.Write(make([]byte, n)); err != nil {
					t.Fatal(err)
				}
				for _, msg := range c.take() {
					longest = max(longest, len(msg))
				}
				peer.Drain()
			}
		}
		if longest+8 > 16<<10 || longest < 16_000 {
			t.Errorf("the longest message has %d bytes", longest)
		}
	})
}

// Padding takes no credit and is not counted: behind a gap the other end is told of the
// reliable frames alone, and what is sent again has no PAD from before.
func TestPaddingIsNeitherCountedNorSentAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := defaultPadding()
		s, peer, c := taped(t, mux.Client, wire.DefaultLimits(), policy)
		st := openAs(t, s, peer, 1)
		for i := range 12 {
			if _, err := st.Write([]byte{byte(i)}); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			peer.Drain()
		}
		pads, bare := 0, 0
		for _, msg := range c.take() {
			n, pad := padded(t, msg)
			bare += n
			if pad {
				pads++
			}
		}
		if pads < policy.Messages/2 {
			t.Fatalf("%d messages were padded", pads)
		}
		// 13 reliable frames were sent: OPEN and 12 times DATA. More cannot have come.
		if err := s.Judge(13); err != nil {
			t.Errorf("13 frames: %v", err)
		}
		_, next := goOn(t, s, 0)
		next.IgnorePadding()
		for n := range 13 {
			f := next.Next()
			if n == 0 && f.Type != wire.TypeOpen || n > 0 && (f.Type != wire.TypeData || !bytes.Equal(f.Payload, []byte{byte(n - 1)})) {
				t.Fatalf("frame %d that was sent again is %v(%x)", n+1, f.Type, f.Payload)
			}
		}
		if history, _ := s.Waiting(); history > uint64(4*bare)+4<<10 {
			t.Errorf("the history holds %d bytes for %d", history, bare)
		}
		if err := s.Judge(14); err == nil {
			t.Error("14 frames were taken for sent")
		}
	})
}

func TestNothingComesBehindCloseNotEvenPadding(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, peer, c := taped(t, mux.Gateway, wire.DefaultLimits(), defaultPadding())
		peer.WantQuiet() // padding is no reason to send anything
		s.Close(wire.CodeShutdown, "")
		messages := c.take()
		if len(messages) != 1 {
			t.Fatalf("%d messages", len(messages))
		}
		wantBare(t, messages[0])
		peer.WantClose(wire.CodeShutdown)
	})
}

func TestPaddingStopsAtItsShareOfThePayload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := defaultPadding()
		limits := wire.DefaultLimits()
		limits.OpenBurst, limits.OpenRate = 10_000, 10_000
		s, peer, c := taped(t, mux.Gateway, limits, policy)
		id := uint64(1)
		added := 0 // bytes of PAD
		stream := func() (more int) {
			st := openAs(t, s, peer, id)
			id += 2
			for range policy.Messages {
				if _, err := st.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				for _, msg := range c.take() {
					bare, _ := padded(t, msg)
					more += len(msg) - bare
				}
				peer.Drain()
			}
			st.Reset(wire.CodeCancelled)
			c.take()
			peer.Drain()
			added += more
			return more
		}
		for range 200 { // half of them are enough
			stream()
		}
		most := wire.FreePadding + 200*policy.Messages*policy.Share/100 // of the bytes of these streams, too
		if added > most || added < most-1000 {
			t.Fatalf("%d bytes of padding, want nearly %d", added, most)
		}
		for range 64 { // 1 MiB from the other end
			peer.Send(appendOpen(id, ""), wire.AppendData(nil, id, make([]byte, 16<<10-1)), wire.AppendReset(nil, id, wire.CodeCancelled))
			id += 2
			mustAccept(t, s)
			c.take()
			peer.Drain()
		}
		before := added
		for range 40 {
			stream()
		}
		if more := added - before; more > 55_000 || more < 50_000 {
			t.Errorf("%d bytes of padding for a MiB of payload", more)
		}
	})
}

// As many streams as the limits allow, each with all the PADs that the policy allows.
func TestPaddingThatWasAgreedOnIsNoFlood(t *testing.T) {
	for name, tc := range map[string]struct {
		policy *wire.PaddingPolicy
		flood  bool
	}{
		"agreed on":     {policy: defaultPadding()},
		"not agreed on": {flood: true},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				limits := wire.DefaultLimits()
				limits.MaxStreams, limits.OpenBurst, limits.OpenRate = 4000, 4000, 4000
				s, peer, _ := taped(t, mux.Gateway, limits, tc.policy)
				pad := wire.AppendPad(nil, 300)
				for i := range uint64(4000) {
					id := 2*i + 1
					if peer.TrySend(append(appendOpen(id, ""), pad...)) != nil {
						break
					}
					for range 7 {
						_ = peer.TrySend(append(wire.AppendData(nil, id, []byte("x")), pad...))
					}
					_ = peer.TrySend(wire.AppendReset(nil, id, wire.CodeCancelled))
					if in, err := s.Accept(t.Context()); err == nil {
						in.Stream.Reset(wire.CodeCancelled)
					}
					synctest.Wait()
					peer.Drain()
				}
				if flood := s.Err() != nil; flood != tc.flood {
					t.Errorf("the session ended: %v", s.Err())
				}
			})
		})
	}
}

// Carriers that break, padded: as TestStreamsGoOnOverCarriersThatBreak.
func TestPaddedStreamsGoOnOverCarriersThatBreak(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for seed := range uint64(4) {
		policy := wire.DefaultPadding()
		if seed%2 == 1 { // whatever a gateway may say
			policy = wire.PaddingPolicy{Messages: wire.MaxPadMessages, Sizes: []int{64, 2000 + rng.IntN(3000), 16_000}, Spread: rng.IntN(4096), Share: 100}
		}
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { breakCarriers(t, seed, &policy) })
		})
	}
}
