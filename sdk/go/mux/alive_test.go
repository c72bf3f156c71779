package mux_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// Keep-alive, docs/03, part 8.1.

// run runs s and returns where its end comes.
func run(t *testing.T, s *mux.Session) <-chan error {
	t.Helper()
	ended := make(chan error, 1)
	go func() { ended <- s.Run(t.Context()) }()
	return ended
}

// watched is a client whose end the test waits for, with a peer that answers
// nothing by itself.
func watched(t *testing.T, oneWay time.Duration) (*mux.Session, *muxtest.Peer, <-chan error) {
	t.Helper()
	ours, theirs := muxtest.DelayedPipe(oneWay)
	client := mux.New(ours, mux.Config{Role: mux.Client, Limits: wire.DefaultLimits()})
	peer := muxtest.NewPeer(t, theirs)
	t.Cleanup(peer.Close)
	return client, peer, run(t, client)
}

func TestSilentClientPingsAfterTwoToThreeNinths(t *testing.T) {
	for _, silence := range []time.Duration{5 * time.Second, 90 * time.Second, time.Hour} {
		synctest.Test(t, func(t *testing.T) {
			limits := wire.DefaultLimits()
			limits.Silence = silence
			_, peer := scripted(t, mux.Client, limits)
			seen := make(map[time.Duration]bool)
			last := time.Now()
			for i := range 20 {
				peer.Want(wire.TypePing, 0)
				quiet := time.Since(last)
				if quiet < silence*2/9 || quiet > silence*3/9 {
					t.Errorf("PING after %v, silence is %v", quiet, silence)
				}
				seen[quiet] = true
				<-time.After(time.Second)
				if i%2 == 0 { // any byte is an answer
					peer.Send(frame(wire.TypePad, 0))
				} else {
					peer.Send(frame(0x1f, 0, 1))
				}
				synctest.Wait()
				last = time.Now()
			}
			if len(seen) < 10 {
				t.Errorf("20 PINGs after only %d different times", len(seen))
			}
		})
	}
}

// Nothing comes back for what a client has sent: a PING after two seconds, and
// five seconds for anything.
func TestClientFindsOutWithinSevenSecondsThatTheOtherEndIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer, ended := watched(t, 0)
		<-time.After(10 * time.Second)
		go func() { _, _ = client.Open(t.Context(), target) }()
		peer.WantOpen(1)
		begin := time.Now()
		peer.Want(wire.TypePing, 0)
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("PING after %v, want 2s", took)
		}
		if err := <-ended; !errors.Is(err, mux.ErrSilent) {
			t.Errorf("Run = %v", err)
		}
		if took := time.Since(begin); took != 7*time.Second {
			t.Errorf("given up after %v, want 7s", took)
		}
	})
}

func TestFastProbeWaitsForRoundTrips(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rtt = 2 * time.Second
		client, peer, ended := watched(t, rtt/2)
		var wg sync.WaitGroup
		wg.Go(func() { peer.Send(wire.AppendFrame(nil, wire.TypePong, 0, peer.Want(wire.TypePing, 0))) })
		if got, err := client.Ping(t.Context()); err != nil || got != rtt {
			t.Fatalf("Ping = %v, %v", got, err)
		}
		wg.Wait()
		begin := time.Now()
		<-time.After(time.Millisecond)
		go func() { _, _ = client.Open(t.Context(), target) }()
		peer.WantOpen(1)
		peer.Want(wire.TypePing, 0)
		if took := time.Since(begin) - rtt/2; took != 3*rtt {
			t.Errorf("PING after %v of silence, want %v", took, 3*rtt)
		}
		if err := <-ended; !errors.Is(err, mux.ErrSilent) {
			t.Errorf("Run = %v", err)
		}
		if took := time.Since(begin); took != 3*rtt+4*rtt {
			t.Errorf("given up after %v, want %v", took, 7*rtt)
		}
	})
}

func TestAnyByteAnswersAProbe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer, ended := watched(t, time.Millisecond)
		go func() { _, _ = client.Open(t.Context(), target) }()
		peer.WantOpen(1)
		for range 10 {
			peer.Want(wire.TypePing, 0)
			<-time.After(4 * time.Second)
			peer.Send(frame(wire.TypePad, 0))
		}
		select {
		case err := <-ended:
			t.Fatalf("Run = %v", err)
		default:
		}
		begin := time.Now()
		<-ended
		if took := time.Since(begin); took > 30*time.Second+7*time.Second {
			t.Errorf("given up after %v", took)
		}
	})
}

// A PING that something else has answered is no proof for later.
func TestADeadPathIsFoundThoughAnOlderPingIsUnanswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer, ended := watched(t, time.Millisecond)
		go func() { _, _ = client.Ping(t.Context()) }()
		peer.Want(wire.TypePing, 0)
		peer.Send(frame(wire.TypePad, 0))
		<-time.After(time.Second)
		begin := time.Now()
		go func() { _, _ = client.Open(t.Context(), target) }()
		if err := <-ended; !errors.Is(err, mux.ErrSilent) {
			t.Errorf("Run = %v", err)
		}
		if took := time.Since(begin); took > 7*time.Second+time.Millisecond {
			t.Errorf("given up after %v, want 7s", took)
		}
	})
}

// Sending on and on must not put off the end.
func TestAClientThatGoesOnSendingFindsOutAsSoon(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer, ended := watched(t, time.Millisecond)
		peer.AnswerPings()
		begin := time.Now()
		done := make(chan struct{})
		go func() {
			defer close(done)
			for client.Err() == nil {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
				_, _ = client.Open(ctx, target)
				cancel()
				<-time.After(300 * time.Millisecond)
			}
		}()
		if err := <-ended; !errors.Is(err, mux.ErrSilent) {
			t.Errorf("Run = %v", err)
		}
		if took := time.Since(begin); took > 7*time.Second+500*time.Millisecond {
			t.Errorf("given up after %v, want 7s", took)
		}
		<-done
	})
}

// slow is a carrier on a path that takes its time with every message.
type slow struct {
	*muxtest.End
	wait func()
}

func (s *slow) BeforeWait(f func()) {
	s.wait = f
	s.End.BeforeWait(f)
}

// ReadFull brings 500 bytes a second.
func (s *slow) ReadFull(p []byte) error {
	for len(p) > 0 {
		n := min(len(p), 500)
		if err := s.End.ReadFull(p[:n]); err != nil {
			return err
		}
		p = p[n:]
		s.wait()
		<-time.After(time.Second)
	}
	return nil
}

// A message of which some bytes come every second is a sign of life all along.
func TestBytesOfALongMessageCountAsTheyCome(t *testing.T) {
	for name, role := range map[string]mux.Role{"client": mux.Client, "gateway": mux.Gateway} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := muxtest.DelayedPipe(0)
				limits := wire.DefaultLimits()
				limits.Silence = 10 * time.Second
				s := mux.New(&slow{End: ours}, mux.Config{Role: role, Limits: limits})
				ended := run(t, s)
				peer := muxtest.NewPeer(t, theirs)
				defer peer.Close()
				peer.Send(frame(wire.TypePad, 0, make([]byte, 15_000)...)) // half a minute
				for range 9 {
					go func() { _, _ = s.Ping(t.Context()) }()
					<-time.After(3 * time.Second)
				}
				if err := s.Err(); err != nil {
					t.Errorf("the session has ended: %v", err)
				}
				s.Close(wire.CodeNoError, "")
				<-ended
			})
		})
	}
}

func TestGatewayClosesAfterSilence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		_, peer := scripted(t, mux.Gateway, limits)
		<-time.After(limits.Silence - time.Second)
		peer.Send(frame(wire.TypePad, 0))
		begin := time.Now()
		peer.WantClose(wire.CodeIdle)
		// The carrier stays for a second, for CLOSE to be read.
		if took := time.Since(begin); took != limits.Silence+time.Second {
			t.Errorf("the end came after %v, want %v and a second", took, limits.Silence)
		}
	})
}

// The peer is alive and takes nothing: 20 seconds, at both ends.
func TestWriteWithoutProgressEndsTheSession(t *testing.T) {
	for name, role := range map[string]mux.Role{"client": mux.Client, "gateway": mux.Gateway} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ours, theirs := muxtest.Pipe()
				s := mux.New(ours, mux.Config{Role: role, Limits: wire.DefaultLimits()})
				ended := run(t, s)
				peer := muxtest.NewPeer(t, theirs)
				defer peer.Close()
				var st *mux.Stream
				if role == mux.Client {
					opened := openClient(t, s, peer)
					peer.Send(wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 1 << 40}))
					st = <-opened
				} else {
					peer.Send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, RecvWindow: 1 << 40, Target: target}))
					st = mustAccept(t, s)
					_ = st.Confirm()
				}
				begin := time.Now()
				endless(st)
				var err error
				for err == nil {
					select {
					case err = <-ended:
					case <-time.After(500 * time.Millisecond):
						_ = peer.TrySend(frame(wire.TypePad, 0))
					}
				}
				if took := time.Since(begin); took != 20*time.Second || !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("Run = %v after %v, want 20s", err, took)
				}
			})
		})
	}
}

// All who ask at once share one PING, and who gives up takes nothing from others.
func TestPingsAreShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer, ended := watched(t, 100*time.Millisecond)
		var wg sync.WaitGroup
		for i := range 10 {
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if i < 3 {
					time.AfterFunc(50*time.Millisecond, cancel)
				}
				switch rtt, err := client.Ping(ctx); {
				case i < 3 && !errors.Is(err, context.Canceled):
					t.Errorf("cancelled Ping = %v, %v", rtt, err)
				case i >= 3 && (err != nil || rtt != 200*time.Millisecond):
					t.Errorf("Ping = %v, %v", rtt, err)
				}
			})
		}
		synctest.Wait()
		if n := client.Waiters(); n != 10 {
			t.Errorf("%d wait", n)
		}
		token := peer.Want(wire.TypePing, 0)
		if n := client.Waiters(); n != 7 {
			t.Errorf("%d wait when three have given up", n)
		}
		peer.Send(wire.AppendFrame(nil, wire.TypePong, 0, token))
		wg.Wait()
		peer.WantQuiet()
		client.Close(wire.CodeNoError, "")
		<-ended
		if _, err := client.Ping(t.Context()); !errors.Is(err, mux.ErrEnded) {
			t.Errorf("Ping afterwards = %v", err)
		}
	})
}
