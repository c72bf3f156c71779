package mux_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// user does to streams what programs do, in any order.
type user struct {
	*rand.Rand
	check func()
}

// use does this many things to a stream, and then ends it in some way.
func (u *user) use(st *mux.Stream, things int) {
	for range things {
		switch u.IntN(12) {
		case 0, 1, 2:
			_ = st.SetWriteDeadline(time.Now().Add(time.Duration(u.IntN(200)) * time.Millisecond))
			_, _ = st.Write(make([]byte, 1+u.IntN(100_000)))
		case 3:
			_ = st.SetWriteDeadline(time.Now().Add(time.Duration(u.IntN(5000)) * time.Millisecond))
			_, _ = st.ReadFrom(io.LimitReader(zeros{}, u.Int64N(50_000)))
		case 4, 5, 6:
			_ = st.SetReadDeadline(time.Now().Add(time.Duration(u.IntN(200)) * time.Millisecond))
			_, _ = io.ReadFull(st, make([]byte, 1+u.IntN(100_000)))
		case 7:
			_ = st.SetReadDeadline(time.Now().Add(time.Duration(u.IntN(200)) * time.Millisecond))
			_, _ = st.WriteTo(io.Discard)
		case 8:
			<-time.After(time.Duration(u.IntN(100)) * time.Millisecond)
		case 9:
			if u.IntN(4) == 0 {
				_ = st.CloseWrite()
			}
		case 10:
			if u.IntN(4) == 0 {
				_ = st.CloseRead()
			}
		case 11:
			if u.IntN(8) == 0 {
				st.Reset(wire.CodeCancelled)
			}
		}
		u.check()
	}
	switch u.IntN(3) {
	case 0:
		st.Reset(wire.CodeIdle)
	case 1:
		_ = st.Close()
	case 2:
		_ = st.CloseWrite()
		_ = st.SetReadDeadline(time.Now().Add(5 * time.Second))
		_, _ = io.Copy(io.Discard, st)
		_ = st.Close()
	}
	u.check()
}

// However streams are used at both ends, no session grants more than its budget,
// nothing gets stuck, and all of it comes back.
func TestBudgetHoldsWhateverStreamsDo(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { useSessions(t, seed) })
		})
	}
}

func useSessions(t *testing.T, seed uint64) {
	t.Helper()
	const budget = 2 << 20
	limits := wire.DefaultLimits()
	limits.MaxStreams, limits.OpenBurst, limits.OpenRate = 24, 1000, 1000
	limits.EarlyWindow = mux.EarlyWindow(32<<10, budget, limits.MaxStreams)
	memories := [2]*mux.Memory{mux.NewMemory(3 << 20), mux.NewMemory(3 << 20)}
	var ends [2]*muxtest.End
	ends[0], ends[1] = muxtest.Pipe()
	if seed%2 == 1 {
		ends[0], ends[1] = muxtest.DelayedPipe(20 * time.Millisecond)
	}
	var sessions [2]*mux.Session
	for i, role := range []mux.Role{mux.Client, mux.Gateway} {
		sessions[i] = start(t, ends[i], mux.Config{Role: role, Limits: limits, Budget: budget, Memory: memories[i]})
	}
	check := func() {
		for i, s := range sessions {
			// What waits to be sent is the rest of the budget, or more for a while
			// when windows grow.
			if all, grown := s.Reserved(); all > budget/16*15 || grown > budget/16*11 || memories[i].Used() > budget*5/4 {
				t.Errorf("end %d: %d bytes set aside, %d of them above floors, of %d; %d in all", i, all, grown, budget, memories[i].Used())
			}
		}
	}
	client, gateway := sessions[0], sessions[1]
	var users sync.WaitGroup
	users.Go(func() {
		for i := uint64(0); ; i++ {
			st, err := accept(t.Context(), gateway)
			if err != nil {
				return
			}
			users.Go(func() {
				u := user{rand.New(rand.NewPCG(seed, 1000+i)), check}
				if u.IntN(8) > 0 && st.Confirm() == nil {
					u.use(st, u.IntN(12))
				} else {
					st.Reset(wire.CodeConnRefused)
				}
			})
		}
	})
	var openers sync.WaitGroup
	for i := range uint64(32) {
		openers.Go(func() {
			u := user{rand.New(rand.NewPCG(seed, i)), check}
			for range 4 {
				if st, err := client.Open(t.Context(), target); err == nil {
					u.use(st, u.IntN(12))
				}
			}
		})
	}
	openers.Wait()
	<-time.After(time.Minute) // closed streams have half of it for their last bytes
	for i, s := range sessions {
		if all, grown := s.Reserved(); all != 0 || grown != 0 || memories[i].Used() != 0 || s.Streams() != 0 || s.Err() != nil {
			t.Errorf("end %d: %d and %d bytes, %d in all, and %d streams are left; %v", i, all, grown, memories[i].Used(), s.Streams(), s.Err())
		}
	}
	client.Close(wire.CodeNoError, "")
	users.Wait()
}

// A session that ends in the middle of everything gives all of it back, too.
func TestAllMemoryComesBackWithTheSessionsEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := mux.NewMemory(1 << 30)
		a, b := muxtest.DelayedPipe(10 * time.Millisecond)
		client := start(t, a, mux.Config{Role: mux.Client, Limits: wire.DefaultLimits(), Memory: memory})
		gateway := start(t, b, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits(), Memory: memory})
		for range 20 {
			near, far := open(t, client, gateway)
			go func() { _, _ = near.ReadFrom(zeros{}) }()
			go func() { _, _ = far.ReadFrom(zeros{}) }()
			go func() { _, _ = io.CopyN(io.Discard, near, 2<<20) }()
		}
		<-time.After(time.Second)
		if memory.Used() < 4<<20 {
			t.Errorf("%d bytes are in use", memory.Used())
		}
		_ = a.Close()
		<-client.Done()
		<-gateway.Done()
		synctest.Wait()
		if used := memory.Used(); used != 0 {
			t.Errorf("%d bytes are left", used)
		}
	})
}
