package server

import (
	"context"
	"crypto/rand"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/gateway/internal/protocol"
	"github.com/httvps/httvps/gateway/internal/sessions"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// lose makes a session that has lost its carrier, with so many bytes that wait for its
// device.
func lose(t *testing.T, r *resumes, registry *sessions.Registry, bytes int) *lasting {
	t.Helper()
	var id sessions.ID
	_, _ = rand.Read(id[:])
	live, err := registry.Add(id, sessions.Device{1}, sessions.Term{})
	if err != nil {
		t.Fatal(err)
	}
	l := &lasting{live: live, turn: make(chan struct{}, 1)}
	ours, theirs := muxtest.Pipe()
	l.session = mux.New(ours, mux.Config{
		Role: mux.Gateway, Limits: wire.DefaultLimits(),
		Resume: mux.Resume{Within: time.Minute, OnLost: func(error) { r.loses(l) }},
	})
	r.add(l)
	var running sync.WaitGroup
	running.Go(func() { _ = l.session.Run(context.WithoutCancel(t.Context())) })
	t.Cleanup(func() {
		l.session.Close(wire.CodeNoError, "")
		running.Wait()
		r.remove(l)
	})
	peer := muxtest.NewPeer(t, theirs)
	if bytes > 0 {
		peer.Send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, Target: wire.Addr{Name: "a.example", Port: 1}, RecvWindow: 1}))
		in, err := l.session.Accept(t.Context())
		if err != nil || in.Stream.Confirm() != nil {
			t.Fatal(err)
		}
		if _, err := in.Stream.Write(make([]byte, bytes)); err != nil {
			t.Fatal(err)
		}
	}
	peer.Close()
	synctest.Wait()
	return l
}

// Those that have waited longest go until the others hold no more than they may.
func TestSessionsWithoutACarrierAreBoundedInMemory(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := config.Default().Limits
		r := newResumes(limits)
		r.bytes = 200_000
		registry := sessions.New(100, sessions.Leaving{}, nil)
		var all []*lasting
		for range 4 {
			all = append(all, lose(t, r, registry, 64<<10))
		}
		if n := r.count(); n != 4 {
			t.Fatalf("%d sessions wait", n)
		}
		<-time.After(3 * time.Second)
		for i, l := range all {
			if over := l.session.Err() != nil; over != (i < 2) {
				t.Errorf("session %d is over: %t", i, over)
			}
		}
	})
}

// Who comes while another attempt is under way waits for it, and not for long.
func TestOneAttemptToResumeAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newResumes(config.Default().Limits)
		l := lose(t, r, sessions.New(1, sessions.Leaving{}, nil), 0)
		asked := wire.Resumption{SessionID: l.live.ID, Attempt: 1}
		asked.Proof = asked.Prove(l.terms.Secret, [32]byte{}, nil)
		first, err := r.resume(t.Context(), nil, asked, [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		asked.Attempt = 2
		asked.Proof = asked.Prove(l.terms.Secret, [32]byte{}, nil)
		began := time.Now()
		_, err = r.resume(t.Context(), nil, asked, [32]byte{})
		var refused *protocol.RefusedError
		if !errors.As(err, &refused) || refused.Code != wire.CodeRetryLater || time.Since(began) != turnTimeout {
			t.Errorf("the second is answered with %v after %v", err, time.Since(began))
		}
		first.Abandon()
		second, err := r.resume(t.Context(), nil, asked, [32]byte{})
		if err != nil {
			t.Fatal(err)
		}
		second.Abandon()
		if r.count() != 1 {
			t.Errorf("%d sessions wait", r.count())
		}
	})
}
