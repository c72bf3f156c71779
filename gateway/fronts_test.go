package gateway_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/tlspin"
	"github.com/httvps/httvps/sdk/go/wire"
	"github.com/httvps/httvps/test/sstest"
)

// at is the service as a device sees it that goes to another of its gateway's URLs.
func (s *service) at(t *testing.T, front string) *service {
	t.Helper()
	u, err := url.Parse(front)
	if err != nil {
		t.Fatal(err)
	}
	other := *s
	other.url, other.trust = front, tlspin.Config(s.authority.Pin(), u.Hostname())
	return &other
}

// frontedService is a service whose gateway has a front: whoever passes TCP on to it, at
// another host and path.
func frontedService(t *testing.T) (s *service, front string) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(newTap(t, listener.Addr().String()).Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	front = "wss://localhost:" + port + "/another/way"
	return newServiceOn(t, listener, func(cfg *gateway.Config) { cfg.Fronts = []string{front} }), front
}

// A gateway names its fronts in READY, and serves whoever comes over one: with the host
// of that front in his knock, in his HELLO and in the certificate.
func TestAGatewayIsReachedOverItsFronts(t *testing.T) {
	t.Parallel()
	s, front := frontedService(t)
	there := s.at(t, front)
	d := s.lastingDevice(t)
	tun := d.connect(t, s.url, s.trust)
	if !slices.Equal(tun.ready.Fronts, []string{front}) {
		t.Errorf("READY names %q", tun.ready.Fronts)
	}
	say := echoing(t, tun)
	say("over the URL")
	d.resume(t, there, tun, 1)
	say("over the front")
	d.resume(t, s, tun, 2)
	say("over the URL again")

	other := d.connect(t, front, there.trust)
	if !slices.Equal(other.ready.Fronts, []string{front}) {
		t.Errorf("READY over the front names %q", other.ready.Fronts)
	}
	echoing(t, other)("another session")
	conn, challenge := d.open(t, front, there.trust)
	wantRefusal(t, "a HELLO for the URL's host", d.introduce(t, conn, challenge, s.url), wire.CodeInvalidToken)
}

// endTLS is a CDN: it ends the TLS of whoever connects to l, and passes what is inside on
// in a connection of its own.
func (s *service) endTLS(t *testing.T, l net.Listener, host string) {
	t.Helper()
	far, _, _ := net.SplitHostPort(s.cfg.Listener.Addr().String())
	outward := tlspin.Config(s.authority.Pin(), far)
	outward.NextProtos = []string{"http/1.1"}
	l = tls.NewListener(l, &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: outward.NextProtos, GetCertificate: s.authority.GetCertificate(host),
	})
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			near, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer near.Close()
				far, err := tls.Dial("tcp", s.cfg.Listener.Addr().String(), outward)
				if err != nil {
					return
				}
				defer far.Close()
				stop := context.AfterFunc(t.Context(), func() { _ = near.Close() })
				defer stop()
				var passing sync.WaitGroup
				passing.Go(func() {
					defer far.Close()
					_, _ = io.Copy(far, near)
				})
				passing.Go(func() {
					defer near.Close()
					_, _ = io.Copy(near, far)
				})
				passing.Wait()
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
}

// Over a front that ends TLS no proof can be bound to the connection: where the operator
// has switched that off, none is asked for, and everything else is as over others.
func TestAFrontMayEndTLSWhereNothingIsBoundToIt(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	front := "wss://localhost:" + port + "/tunnel"
	s := newService(t, func(cfg *gateway.Config) { cfg.Fronts, cfg.RequireChannelBinding = []string{front}, false })
	s.endTLS(t, l, "localhost")
	there := s.at(t, front)
	d := s.lastingDevice(t)
	tun := d.connect(t, front, there.trust)
	say := echoing(t, tun)
	say("over the front")
	d.resume(t, s, tun, 1)
	say("over the URL")
	d.resume(t, there, tun, 2)
	say("over the front again")
}

// docs/03, part 8.3: a session goes on over any address of its gateway. It changes between
// two of them, of which one leads through somebody else, by its own will and because the
// one in use was cut, while a connection through it is busy both ways: every byte arrives
// once and in its place.
func TestASessionGoesOnOverAnotherAddressOfItsGateway(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	gatewayAt := s.cfg.Listener.Addr().String()
	front := newTap(t, gatewayAt)
	store := s.enrolled(t)
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
