package gateway_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/test/sstest"
)

// docs/03, part 8.3: a session goes on over any address of its gateway. It changes between
// two of them, of which one leads through somebody else, by its own will and because the
// one in use was cut, while a connection through it is busy both ways: every byte arrives
// once and in its place.
func TestASessionGoesOnOverAnotherAddressOfItsGateway(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	gatewayAt := s.cfg.Listener.Addr().String()
	front := newTap(t, gatewayAt)
	invitation, err := httvps.ParseInvitation(s.backend.Invite)
	if err != nil {
		t.Fatal(err)
	}
	store := httvps.NewMemoryStore()
	if _, err := httvps.Enroll(t.Context(), invitation, httvps.EnrollOptions{Store: store}); err != nil {
		t.Fatal(err)
	}
	var through atomic.Bool // the front
	events := make(chan httvps.Event, 1000)
	client, err := httvps.NewClient(httvps.Config{
		Store: store, OnEvent: func(e httvps.Event) { events <- e },
		NetDial: func(ctx context.Context, network, address string) (net.Conn, error) {
			if through.Load() && address == gatewayAt {
				address = front.Addr().String()
			}
			return (&net.Dialer{}).DialContext(ctx, network, address)
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	defer keep(t, client)()
	var session string
	await := func(kind httvps.EventKind) {
		t.Helper()
		e := awaitEvent(t, events, kind)
		if session == "" {
			session = e.Session
		}
		if e.Session != session {
			t.Fatalf("%v: another session", e.Kind)
		}
	}
	await(httvps.Connected)
	conn, err := client.DialContext(t.Context(), "tcp", sstest.ServeTCP(t, sstest.Echo).String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(2 * time.Minute))
	var talking sync.WaitGroup
	defer talking.Wait()
	over := make(chan struct{})
	said := make(chan uint64, 1)
	talking.Go(func() {
		said <- say(conn, 5, over)
		_ = conn.(httvps.Conn).CloseWrite()
	})
	heard := make(chan error, 1)
	var pieces atomic.Int64
	talking.Go(func() {
		n, err := hear(conn, 5, func() { pieces.Add(1) })
		if sent := <-said; err == nil && n != sent {
			err = fmt.Errorf("%d bytes have come back of %d", n, sent)
		}
		heard <- err
	})
	moves := func() {
		t.Helper()
		before := pieces.Load()
		eventually(t, "bytes on the new connection", func() bool { return pieces.Load() > before+10 })
	}
	for range 3 {
		through.Store(true)
		client.NetworkChanged()
		await(httvps.Resumed)
		moves()
		through.Store(false)
		front.cut()
		await(httvps.Resumed)
		moves()
	}
	close(over)
	if err := <-heard; err != nil && !errors.Is(err, io.EOF) {
		t.Error(err)
	}
	front.mu.Lock()
	defer front.mu.Unlock()
	used := 0
	for _, call := range front.calls {
		if len(call.up) > 3 {
			used++
		}
	}
	if used < 3 {
		t.Errorf("%d connections led through the front", used)
	}
}
