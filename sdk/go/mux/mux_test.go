package mux_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

var target = wire.Addr{Name: "example.com", Port: 80}

// pair runs a client and a gateway over a carrier in memory until the test
// ends.
func pair(t *testing.T, limits wire.Limits) (client, gateway *mux.Session) {
	t.Helper()
	a, b := muxtest.Pipe()
	client = start(t, a, mux.Config{Role: mux.Client, Limits: limits})
	gateway = start(t, b, mux.Config{Role: mux.Gateway, Limits: limits})
	return client, gateway
}

func start(t *testing.T, end mux.Messages, cfg mux.Config) *mux.Session {
	t.Helper()
	s := mux.New(end, cfg)
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // ends in Cleanup, in this bubble
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return s
}

// scripted runs one session against a peer that the test plays.
func scripted(t *testing.T, role mux.Role, limits wire.Limits) (*mux.Session, *muxtest.Peer) {
	t.Helper()
	ours, theirs := muxtest.Pipe()
	s := start(t, ours, mux.Config{Role: role, Limits: limits})
	peer := muxtest.NewPeer(t, theirs)
	t.Cleanup(peer.Close)
	return s, peer
}

// accept accepts what the test knows to be a stream.
func accept(ctx context.Context, s *mux.Session) (*mux.Stream, error) {
	in, err := s.Accept(ctx)
	return in.Stream, err
}

// open opens a stream and accepts and confirms it at the other end.
func open(t *testing.T, client, gateway *mux.Session) (near, far *mux.Stream) {
	t.Helper()
	var wg sync.WaitGroup
	wg.Go(func() {
		var err error
		if far, err = accept(t.Context(), gateway); err != nil {
			t.Errorf("Accept: %v", err)
			return
		}
		if err := far.Confirm(); err != nil {
			t.Errorf("Confirm: %v", err)
		}
	})
	near, err := client.Open(t.Context(), target)
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	wg.Wait()
	return near, far
}

func appendOpen(id uint64, early string) []byte {
	return wire.AppendOpen(nil, id, wire.Open{Kind: wire.KindTCP, RecvWindow: 1 << 16, Target: target, Early: []byte(early)})
}

func wantCode(t *testing.T, err error, want wire.Code, remote bool) {
	t.Helper()
	var e *mux.StreamError
	if !errors.As(err, &e) || e.Code != want || e.Remote != remote {
		t.Errorf("error = %v, want stream error %v (remote %v)", err, want, remote)
	}
}

func TestBytesGoBothWaysAndEachDirectionEndsByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, gateway := pair(t, wire.DefaultLimits())
		near, far := open(t, client, gateway)
		if far.Target() != target || far.ID() != 1 {
			t.Errorf("accepted stream %d to %v", far.ID(), far.Target())
		}
		if _, err := near.Write([]byte("question")); err != nil {
			t.Fatal(err)
		}
		if err := near.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		question, err := io.ReadAll(far)
		if err != nil || string(question) != "question" {
			t.Fatalf("gateway read %q, %v", question, err)
		}
		if _, err := far.Write([]byte("answer")); err != nil {
			t.Fatalf("write after the peer's half-close: %v", err)
		}
		if err := far.CloseWrite(); err != nil {
			t.Fatal(err)
		}
		answer, err := io.ReadAll(near)
		if err != nil || string(answer) != "answer" {
			t.Fatalf("client read %q, %v", answer, err)
		}
		synctest.Wait()
		if client.Streams() != 0 || gateway.Streams() != 0 {
			t.Errorf("streams left: client %d, gateway %d", client.Streams(), gateway.Streams())
		}
		if _, err := near.Write([]byte("x")); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Write after CloseWrite = %v", err)
		}
	})
}

// copyFuncs are the ways in which programs move bytes through a stream.
var copyFuncs = map[string]func(dst io.Writer, src io.Reader) (int64, error){
	"ReadFrom and WriteTo": io.Copy,
	"Read and Write with odd sizes": func(dst io.Writer, src io.Reader) (int64, error) {
		return io.CopyBuffer(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, make([]byte, 1237))
	},
}

func TestEveryByteArrivesInOrderOnManyStreams(t *testing.T) {
	const streams, size = 16, 512 << 10
	for name, copyAll := range copyFuncs {
		t.Run(name, func(t *testing.T) {
			client, gateway := pair(t, wire.DefaultLimits())
			var wg sync.WaitGroup
			defer wg.Wait()
			wg.Go(func() { // the gateway echoes
				for {
					st, err := accept(t.Context(), gateway)
					if err != nil {
						return
					}
					wg.Go(func() {
						if st.Confirm() != nil {
							return
						}
						if _, err := copyAll(st, st); err != nil {
							t.Errorf("echo: %v", err)
						}
						_ = st.CloseWrite()
					})
				}
			})
			var done sync.WaitGroup
			for i := range streams {
				done.Go(func() {
					data := make([]byte, size+i)
					_, _ = rand.NewChaCha8([32]byte{byte(i)}).Read(data)
					st, err := client.Open(t.Context(), target)
					if err != nil {
						t.Errorf("Open: %v", err)
						return
					}
					var writer sync.WaitGroup
					writer.Go(func() {
						if _, err := copyAll(st, bytes.NewReader(data)); err != nil {
							t.Errorf("write: %v", err)
						}
						_ = st.CloseWrite()
					})
					sum := sha256.New()
					n, err := copyAll(sum, st)
					writer.Wait()
					if err != nil || n != int64(len(data)) || [32]byte(sum.Sum(nil)) != sha256.Sum256(data) {
						t.Errorf("stream %d: %d of %d bytes back, %v, or changed", i, n, len(data), err)
					}
				})
			}
			done.Wait()
			client.Close(wire.CodeNoError, "")
		})
	}
}

func TestReadersThatNeverReadDoNotStopAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, gateway := pair(t, wire.DefaultLimits())
		for range 80 {
			near, far := open(t, client, gateway)
			for _, st := range []*mux.Stream{near, far} {
				_ = st.SetWriteDeadline(time.Now().Add(time.Second))
				junk := make([]byte, 64<<10)
				for {
					if _, err := st.Write(junk); err != nil {
						break // its window and its queue are full
					}
				}
			}
		}
		near, far := open(t, client, gateway)
		const size = 8 << 20
		for _, way := range []struct{ from, to *mux.Stream }{{near, far}, {far, near}} {
			var wg sync.WaitGroup
			wg.Go(func() {
				_, _ = way.from.ReadFrom(io.LimitReader(zeros{}, size))
				_ = way.from.CloseWrite()
			})
			n, err := io.Copy(io.Discard, way.to)
			wg.Wait()
			if n != size || err != nil {
				t.Errorf("the live stream moved %d bytes, %v", n, err)
			}
		}
	})
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }

func TestOpensWaitForTheirRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.OpenBurst, limits.OpenRate = 10, 5
		client, gateway := pair(t, limits)
		begin := time.Now()
		for range 20 {
			near, far := open(t, client, gateway)
			near.Reset(wire.CodeCancelled)
			far.Reset(wire.CodeCancelled)
		}
		if took := time.Since(begin); took != 2*time.Second {
			t.Errorf("20 opens with a burst of 10 and 5 a second took %v, want 2s", took)
		}
	})
}

// A program that goes on asking and giving up, as a page in a browser can have it
// do, must not keep others waiting for what was never sent.
func TestOpensThatWereGivenUpCostNoRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.OpenBurst, limits.OpenRate = 10, 5
		client, gateway := pair(t, limits)
		for range 10 {
			near, far := open(t, client, gateway)
			near.Reset(wire.CodeCancelled)
			far.Reset(wire.CodeCancelled)
		}
		for range 1000 {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Microsecond)
			if _, err := client.Open(ctx, target); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("Open = %v, want it to wait", err)
			}
			cancel()
		}
		begin := time.Now()
		open(t, client, gateway)
		if took := time.Since(begin); took > time.Second/5 {
			t.Errorf("an open behind 1000 that were given up took %v, want %v", took, time.Second/5)
		}
	})
}

func TestOpensWaitForAFreePlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams = 2
		client, gateway := pair(t, limits)
		first, _ := open(t, client, gateway)
		open(t, client, gateway)

		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := client.Open(ctx, target); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("third Open = %v, want it to wait", err)
		}
		first.Reset(wire.CodeCancelled)
		open(t, client, gateway)
	})
}

func TestStreamsOpenedAndResetAtFullSpeedNeverExceedTheLimit(t *testing.T) {
	limits := wire.DefaultLimits()
	limits.MaxStreams, limits.OpenBurst, limits.OpenRate = 4, 1<<16, 1<<16
	client, gateway := pair(t, limits)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			st, err := accept(t.Context(), gateway)
			if err != nil {
				return
			}
			wg.Go(func() {
				_ = st.Confirm()
				_, _ = io.Copy(io.Discard, st)
				_ = st.Close()
			})
		}
	})
	var openers sync.WaitGroup
	for i := range 8 {
		openers.Go(func() {
			for j := range 300 {
				st, err := client.Open(t.Context(), target)
				if err != nil {
					t.Errorf("Open: %v", err) // RESET(limit) would mean that the place was freed too early
					return
				}
				if _, err := st.Write([]byte("x")); err != nil {
					t.Errorf("Write: %v", err)
				}
				if (i+j)%2 == 0 {
					st.Reset(wire.CodeCancelled)
				} else {
					_ = st.Close()
				}
			}
		})
	}
	openers.Wait()
	client.Close(wire.CodeNoError, "")
	wg.Wait()
}

func TestCancelledOpenTellsTheGateway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer := scripted(t, mux.Client, wire.DefaultLimits())
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err := client.Open(ctx, target)
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Open = %v", err)
		}
		peer.WantOpen(1)
		peer.WantReset(1, wire.CodeCancelled)
		// Frames that crossed the RESET are ignored.
		peer.Send(wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 1 << 16}), wire.AppendData(nil, 1, []byte("late")))
		peer.Send(wire.AppendPing(nil, [8]byte{1}))
		peer.Want(wire.TypePong, 0)
	})
}

func TestRefusedOpenTellsWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, gateway := pair(t, wire.DefaultLimits())
		var wg sync.WaitGroup
		wg.Go(func() {
			st, err := accept(t.Context(), gateway)
			if err != nil {
				t.Error(err)
				return
			}
			st.Reset(wire.CodeConnRefused)
		})
		_, err := client.Open(t.Context(), target)
		wantCode(t, err, wire.CodeConnRefused, true)
		wg.Wait()
	})
}

func TestConfirmFailsAfterAReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gateway, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
		peer.Send(appendOpen(1, ""))
		st, err := accept(t.Context(), gateway)
		if err != nil {
			t.Fatal(err)
		}
		peer.Send(wire.AppendReset(nil, 1, wire.CodeCancelled))
		synctest.Wait()
		wantCode(t, st.Confirm(), wire.CodeCancelled, true)
	})
}

func TestStopFailsTheWriterAndEndsOnlyItsDirection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, gateway := pair(t, wire.DefaultLimits())
		near, far := open(t, client, gateway)
		if err := far.CloseRead(); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		_, err := near.Write([]byte("x"))
		wantCode(t, err, wire.CodeCancelled, true)
		if _, err := far.Write([]byte("still here")); err != nil {
			t.Fatal(err)
		}
		_ = far.CloseWrite()
		got, err := io.ReadAll(near)
		if err != nil || string(got) != "still here" {
			t.Errorf("read %q, %v", got, err)
		}
		synctest.Wait()
		if client.Streams() != 0 || gateway.Streams() != 0 {
			t.Errorf("streams left: client %d, gateway %d", client.Streams(), gateway.Streams())
		}
	})
}

func TestOnStopTellsWhenThePeerReadsNoMore(t *testing.T) {
	for name, stop := range map[string]func(far *mux.Stream, gateway *mux.Session){
		"STOP":              func(far *mux.Stream, _ *mux.Session) { _ = far.CloseRead() },
		"a reset":           func(far *mux.Stream, _ *mux.Session) { far.Reset(wire.CodeIdle) },
		"the session's end": func(_ *mux.Stream, gateway *mux.Session) { gateway.Close(wire.CodeShutdown, "") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				client, gateway := pair(t, wire.DefaultLimits())
				near, far := open(t, client, gateway)
				calls := 0
				near.OnStop(func() { calls++ })
				_ = far.CloseWrite() // its other direction does not matter
				synctest.Wait()
				if calls != 0 {
					t.Fatal("called although the peer reads on")
				}
				stop(far, gateway)
				synctest.Wait()
				near.Reset(wire.CodeCancelled)
				if calls != 1 {
					t.Errorf("called %d times", calls)
				}
				late := false
				near.OnStop(func() { late = true })
				if !late {
					t.Error("not called although it has happened")
				}
			})
		})
	}
}

func TestCloseStillSendsWhatWasWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, gateway := pair(t, wire.DefaultLimits())
		near, far := open(t, client, gateway)
		want := bytes.Repeat([]byte("0123456789"), 5000)
		if _, err := near.Write(want); err != nil {
			t.Fatal(err)
		}
		_ = near.Close()
		got, err := io.ReadAll(far)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d of %d bytes, %v", len(got), len(want), err)
		}
	})
}

func TestClosedStreamWithoutCreditIsResetAfterHalfAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gateway, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
		peer.Send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, RecvWindow: 0, Target: target}))
		st, err := accept(t.Context(), gateway)
		if err != nil {
			t.Fatal(err)
		}
		if err := st.Confirm(); err != nil {
			t.Fatal(err)
		}
		_, _ = st.Write([]byte("nobody lets me"))
		_ = st.Close()
		peer.WantOpened(1)
		peer.WantStop(1, wire.CodeCancelled)
		begin := time.Now()
		peer.WantReset(1, wire.CodeCancelled)
		if took := time.Since(begin); took != 30*time.Second {
			t.Errorf("reset after %v, want 30s", took)
		}
	})
}

func TestDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, gateway := pair(t, wire.DefaultLimits())
		near, _ := open(t, client, gateway)
		begin := time.Now()
		_ = near.SetReadDeadline(begin.Add(time.Hour))
		if _, err := near.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Read = %v", err)
		}
		if took := time.Since(begin); took != time.Hour {
			t.Errorf("Read gave up after %v", took)
		}
		_ = near.SetDeadline(time.Now().Add(time.Minute))
		n, err := near.ReadFrom(zeros{})
		if !errors.Is(err, os.ErrDeadlineExceeded) || n == 0 {
			t.Errorf("ReadFrom = %d, %v", n, err)
		}
	})
}

func TestContextEndsTheSessionPolitely(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := muxtest.Pipe()
		s := mux.New(ours, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits()})
		peer := muxtest.NewPeer(t, theirs)
		why := errors.New("the operator said so")
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Minute, func() { cancel(why) })
		var wg sync.WaitGroup
		wg.Go(func() {
			peer.WantClose(wire.CodeNoError)
			peer.Close()
		})
		if err := s.Run(ctx); !errors.Is(err, why) {
			t.Errorf("Run = %v, want the cause", err)
		}
		wg.Wait()
		if _, err := accept(t.Context(), s); !errors.Is(err, mux.ErrEnded) || !errors.Is(err, why) {
			t.Errorf("Accept afterwards = %v", err)
		}
	})
}

func TestPeersCloseEndsTheSessionAndItsStreams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, gateway := pair(t, wire.DefaultLimits())
		near, _ := open(t, client, gateway)
		gateway.Close(wire.CodeDeviceRevoked, "")
		_, err := near.Read(make([]byte, 1))
		var closed *mux.CloseError
		if !errors.Is(err, mux.ErrEnded) || !errors.As(err, &closed) || closed.Code != wire.CodeDeviceRevoked || !closed.Remote {
			t.Errorf("Read = %v", err)
		}
		<-client.Done()
		if _, err := client.Open(t.Context(), target); !errors.Is(err, mux.ErrEnded) {
			t.Errorf("Open = %v", err)
		}
	})
}

func TestPeerThatDoesNotReadIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := muxtest.Pipe()
		defer func() { _ = theirs.Close() }()
		s := mux.New(ours, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits()})
		peer := muxtest.NewPeer(t, theirs)
		var wg sync.WaitGroup
		wg.Go(func() {
			for {
				st, err := accept(t.Context(), s)
				if err != nil {
					return
				}
				_ = st.Confirm()
				wg.Go(func() { _, _ = st.ReadFrom(zeros{}) })
			}
		})
		peer.Send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, RecvWindow: 1 << 30, Target: target}))
		begin := time.Now()
		err := s.Run(t.Context())
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("Run = %v", err)
		}
		if took := time.Since(begin); took != 20*time.Second {
			t.Errorf("given up after %v, want 20s", took)
		}
		wg.Wait()
	})
}

func TestPing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer := scripted(t, mux.Client, wire.DefaultLimits())
		var wg sync.WaitGroup
		wg.Go(func() {
			token, err := wire.ParsePing(peer.Want(wire.TypePing, 0))
			if err != nil {
				t.Error(err)
			}
			<-time.After(300 * time.Millisecond)
			peer.Send(wire.AppendPong(nil, [8]byte{9, 9, 9})) // not the answer
			peer.Send(wire.AppendPong(nil, token), wire.AppendPong(nil, token))
		})
		rtt, err := client.Ping(t.Context())
		if err != nil || rtt != 300*time.Millisecond {
			t.Errorf("Ping = %v, %v", rtt, err)
		}
		wg.Wait()
	})
}

func TestFramesBehindTheHandshakeAreRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ours, theirs := muxtest.Pipe()
		s := start(t, ours, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits(), First: appendOpen(1, "early")})
		peer := muxtest.NewPeer(t, theirs)
		t.Cleanup(peer.Close)
		st, err := accept(t.Context(), s)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 16)
		n, err := st.Read(buf)
		if err != nil || string(buf[:n]) != "early" {
			t.Errorf("Read = %q, %v", buf[:n], err)
		}
		peer.WantQuiet() // no CREDIT before OPENED
		if err := st.Confirm(); err != nil {
			t.Fatal(err)
		}
		if o := peer.WantOpened(1); o.RecvWindow <= wire.DefaultLimits().EarlyWindow {
			t.Errorf("OPENED grants %d", o.RecvWindow)
		}
	})
}
