package mux_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// lasting is a session whose carriers break: both ends of it, and who gives them
// another one.
type lasting struct {
	client, gateway *mux.Session
	carriers        func() (a, b *muxtest.End)
	lost            chan struct{}

	mu    sync.Mutex // guards the following fields
	a, b  *muxtest.End
	times int
}

// newLasting starts both ends on a carrier that carriers makes.
func newLasting(t *testing.T, limits wire.Limits, budget uint64, memories [2]*mux.Memory, padding *wire.PaddingPolicy, carriers func() (a, b *muxtest.End)) *lasting {
	t.Helper()
	l := &lasting{carriers: carriers, lost: make(chan struct{}, 1)}
	resume := mux.Resume{Within: time.Minute, OnLost: func(error) {
		select {
		case l.lost <- struct{}{}:
		default:
		}
	}}
	l.a, l.b = carriers()
	l.client = start(t, l.a, mux.Config{Role: mux.Client, Limits: limits, Budget: budget, Memory: memories[0], Resume: resume, Padding: padding})
	l.gateway = start(t, l.b, mux.Config{Role: mux.Gateway, Limits: limits, Budget: budget, Memory: memories[1], Resume: resume, Padding: padding})
	return l
}

// another gives the session another carrier, whether it has one or not.
func (l *lasting) another(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	toClient, err := l.client.Park(ctx)
	if err != nil {
		return err
	}
	toGateway, err := l.gateway.Park(ctx)
	if err != nil {
		return err
	}
	l.a, l.b = l.carriers()
	l.times++
	return errors.Join(l.gateway.Resume(l.b, nil, toClient), l.client.Resume(l.a, nil, toGateway))
}

// keep gives the session another carrier whenever it has lost its own, after a while.
func (l *lasting) keep(ctx context.Context, after func() time.Duration) {
	for {
		select {
		case <-l.lost:
		case <-ctx.Done():
			return
		}
		<-time.After(after())
		if l.client.Lost() || l.gateway.Lost() {
			_ = l.another(ctx)
		}
	}
}

// strike breaks the carrier in some way.
func (l *lasting) strike(rng *rand.Rand) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch rng.IntN(4) {
	case 0:
		_ = l.a.Close()
	case 1:
		_ = l.b.Close()
	case 2:
		l.a.BreakAfter(rng.IntN(200_000))
	case 3:
		l.b.BreakAfter(rng.IntN(200_000))
	}
}

// pattern is a stream of bytes whose places can be told apart.
type pattern struct{ at, left int }

func (p *pattern) byteAt(i int) byte { return byte(i*31 ^ i>>8 ^ i>>16) }

func (p *pattern) Read(b []byte) (int, error) {
	if p.left == 0 {
		return 0, io.EOF
	}
	n := min(len(b), p.left)
	for i := range n {
		b[i] = p.byteAt(p.at + i)
	}
	p.at, p.left = p.at+n, p.left-n
	return n, nil
}

func (p *pattern) Write(b []byte) (int, error) {
	for i := range b {
		if b[i] != p.byteAt(p.at) {
			return i, fmt.Errorf("byte %d is %02x, want %02x", p.at, b[i], p.byteAt(p.at))
		}
		p.at++
	}
	return len(b), nil
}

// slowly reads with pauses, in which nothing of the stream is read.
type slowly struct {
	io.Writer
	rng *rand.Rand
}

func (s slowly) Write(b []byte) (int, error) {
	if s.rng.IntN(8) == 0 {
		<-time.After(time.Duration(s.rng.IntN(3000)) * time.Millisecond)
	}
	return s.Writer.Write(b)
}

// Carriers break at any time, in the middle of frames too, streams are busy both
// ways, some of their readers stall, the history fills: every byte arrives once and in
// its place, nothing gets stuck, and no budget is exceeded.
func TestStreamsGoOnOverCarriersThatBreak(t *testing.T) {
	seeds := uint64(6)
	if os.Getenv("HTTVPS_SOAK") == "1" {
		seeds = 200
	}
	for seed := range seeds {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { breakCarriers(t, seed, nil) })
		})
	}
}

func breakCarriers(t *testing.T, seed uint64, padding *wire.PaddingPolicy) {
	t.Helper()
	const budget = 2 << 20
	rng := rand.New(rand.NewPCG(seed, 0))
	limits := wire.DefaultLimits()
	limits.MaxStreams, limits.OpenBurst, limits.OpenRate = 24, 1000, 1000
	limits.EarlyWindow = mux.EarlyWindow(32<<10, budget, limits.MaxStreams)
	memories := [2]*mux.Memory{mux.NewMemory(1 << 30), mux.NewMemory(1 << 30)}
	delay := []time.Duration{0, 5 * time.Millisecond, 100 * time.Millisecond}[seed%3]
	l := newLasting(t, limits, budget, memories, padding, func() (a, b *muxtest.End) {
		if delay == 0 {
			return muxtest.Pipe()
		}
		return muxtest.DelayedPipe(delay)
	})
	ctx, cancel := context.WithCancel(t.Context())
	var keeping, talking sync.WaitGroup
	keeping.Go(func() {
		l.keep(ctx, func() time.Duration { return time.Duration(rand.IntN(2000)) * time.Millisecond })
	})
	keeping.Go(func() { // the budgets
		for ctx.Err() == nil {
			for i, s := range []*mux.Session{l.client, l.gateway} {
				all, grown := s.Reserved()
				history, pending := s.Waiting()
				// A stream may have 8 KiB pending however many there are.
				most := uint64(budget + 24*16<<10)
				if all+history+pending > most || grown+history > budget/16*11 || grown > budget/16*10 {
					t.Errorf("end %d: %d bytes of credit (%d above floors), %d in the history, %d pending", i, all, grown, history, pending)
					return
				}
			}
			<-time.After(3 * time.Millisecond)
		}
	})
	for i := range 16 {
		up, down := 1+rng.IntN(600_000), 1+rng.IntN(600_000)
		stalls := rng.IntN(3) == 0
		talking.Go(func() {
			near, err := l.client.Open(t.Context(), wire.Addr{Name: fmt.Sprintf("%d.%d.example", up, down), Port: 80})
			if err != nil {
				t.Errorf("Open: %v", err)
				return
			}
			exchangeBoth(t, fmt.Sprint("client's end of ", i), near, up, down, stalls, rand.New(rand.NewPCG(seed, uint64(i))))
		})
	}
	keeping.Go(func() {
		for {
			far, err := accept(t.Context(), l.gateway)
			if err != nil {
				return
			}
			keeping.Go(func() {
				var up, down int
				_, _ = fmt.Sscanf(far.Target().Name, "%d.%d", &up, &down)
				if err := far.Confirm(); err != nil {
					t.Errorf("Confirm: %v", err)
					return
				}
				exchangeBoth(t, "gateway's end", far, down, up, down%3 == 0, rand.New(rand.NewPCG(seed, uint64(up))))
			})
		}
	})
	for range 40 {
		<-time.After(time.Duration(rng.IntN(1500)) * time.Millisecond)
		if rng.IntN(5) == 0 {
			if err := l.another(t.Context()); err != nil { // though nothing is wrong
				t.Errorf("another carrier: %v", err)
			}
			continue
		}
		l.strike(rng)
	}
	talking.Wait()
	<-time.After(time.Minute) // for the last answers
	for i, s := range []*mux.Session{l.client, l.gateway} {
		all, _ := s.Reserved()
		history, pending := s.Waiting()
		if all != 0 || history != 0 || pending != 0 || memories[i].Used() != 0 || s.Streams() != 0 || s.Err() != nil {
			t.Errorf("end %d: %d bytes of credit, %d in the history, %d pending, %d in all and %d streams are left; %v",
				i, all, history, pending, memories[i].Used(), s.Streams(), s.Err())
		}
	}
	if l.times < 10 {
		t.Errorf("only %d carriers", l.times)
	}
	cancel()
	l.client.Close(wire.CodeNoError, "")
	keeping.Wait()
}

// converse sends so many bytes and wants so many others.
func exchangeBoth(t *testing.T, who string, st *mux.Stream, send, want int, stalls bool, rng *rand.Rand) {
	t.Helper()
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := io.Copy(st, &pattern{left: send}); err != nil {
			t.Errorf("%s: send: %v", who, err)
		}
		_ = st.CloseWrite()
	})
	got := &pattern{}
	var to io.Writer = got
	if stalls {
		to = slowly{got, rng}
	}
	if _, err := io.Copy(to, st); err != nil || got.at != want {
		t.Errorf("%s: %d bytes of %d: %v", who, got.at, want, err)
	}
	sending.Wait()
	_ = st.Close()
}
