package socks

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
)

// FuzzDatagram: the parser never panics, and what it accepts is what was written.
func FuzzDatagram(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 192, 0, 2, 1, 0, 53, 'd'})
	f.Add([]byte{0, 0, 0, 3, 1, 'a', 0, 53})
	f.Add([]byte{0, 0, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 53, 'd'})
	f.Add([]byte{0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 192, 0, 2, 1, 0, 53, 'd'})
	f.Add([]byte{0, 0, 1, 1, 192, 0, 2, 1, 0, 53, 'd'})
	f.Fuzz(func(t *testing.T, in []byte) {
		to, data, ok := parseDatagram(in)
		if !ok {
			return
		}
		if !bytes.HasSuffix(in, data) || len(in)-len(data) > maxHeader {
			t.Fatalf("% x has data % x", in, data)
		}
		header, ok := appendHeader(nil, to)
		if !ok {
			t.Fatalf("%v has no header", to)
		}
		if addr, isIP := to.(*net.UDPAddr); isIP && in[3] == addressIPv6 && addr.AddrPort().Addr().Is4In6() {
			return // written as the IPv4 address that it is
		}
		if again := append(header, data...); !bytes.Equal(again, in) {
			t.Fatalf("% x was read as %v, which is % x", in, to, again)
		}
	})
}

func TestEveryCutHeaderIsDropped(t *testing.T) {
	for _, whole := range [][]byte{
		{0, 0, 0, 1, 192, 0, 2, 1, 0, 53},
		{0, 0, 0, 3, 3, 'a', '.', 'b', 0, 53},
		{0, 0, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 53},
	} {
		if _, data, ok := parseDatagram(whole); !ok || len(data) != 0 {
			t.Errorf("% x was not read", whole)
		}
		for n := range whole {
			if to, _, ok := parseDatagram(whole[:n]); ok {
				t.Errorf("% x was read as one to %v", whole[:n], to)
			}
		}
	}
}

// pipe is a UDP socket and a socket of a tunnel in memory.
type pipe struct {
	in     chan []byte
	others chan []byte // what comes from another address
	out    chan []byte
	closed chan struct{}
	once   sync.Once

	mu sync.Mutex // guards the following field
	by time.Time
}

func newPipe() *pipe {
	return &pipe{in: make(chan []byte), others: make(chan []byte), out: make(chan []byte, 1000), closed: make(chan struct{})}
}

var (
	clientAt = netip.MustParseAddrPort("127.0.0.1:999")
	peerAt   = httvps.Addr{Host: "a", Port: 7}
	toPeer   = []byte{0, 0, 0, 3, 1, 'a', 0, 7, 'x'}
)

func (p *pipe) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	p.mu.Lock()
	timer := time.NewTimer(time.Until(p.by))
	p.mu.Unlock()
	defer timer.Stop()
	select {
	case in := <-p.in:
		return copy(b, in), clientAt, nil
	case in := <-p.others:
		return copy(b, in), netip.MustParseAddrPort("127.0.0.2:999"), nil
	case <-timer.C:
		return 0, netip.AddrPort{}, os.ErrDeadlineExceeded
	case <-p.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (p *pipe) WriteToUDPAddrPort(b []byte, _ netip.AddrPort) (int, error) { return p.WriteTo(b, nil) }

func (p *pipe) ReadFrom(b []byte) (int, net.Addr, error) {
	select {
	case in := <-p.in:
		return copy(b, in), peerAt, nil
	case <-p.closed:
		return 0, nil, net.ErrClosed
	}
}

func (p *pipe) WriteTo(b []byte, _ net.Addr) (int, error) {
	p.out <- bytes.Clone(b)
	return len(b), nil
}

func (p *pipe) SetReadDeadline(t time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.by = t
	return nil
}

func (p *pipe) SetDeadline(time.Time) error      { return nil }
func (p *pipe) SetWriteDeadline(time.Time) error { return nil }
func (p *pipe) LocalAddr() net.Addr              { return nil }
func (p *pipe) Close() error                     { p.once.Do(func() { close(p.closed) }); return nil }

// associated serves an association in memory and tells when it ends.
func associated(far net.PacketConn, listen func(context.Context) (net.PacketConn, error)) (relay *pipe, client net.Conn, ended <-chan time.Time) {
	relay = newPipe()
	client, theirs := net.Pipe()
	a := &association{
		relay: relay, client: clientAt.Addr(), listen: listen, wanted: make(chan struct{}, 1),
		from: netip.AddrPortFrom(clientAt.Addr(), 0), moved: time.Now(),
	}
	end := make(chan time.Time, 1)
	go func() {
		a.serve(context.Background(), theirs, far)
		end <- time.Now()
	}()
	return relay, client, end
}

func TestAnAssociationEndsFiveMinutesBehindItsLastDatagram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := newPipe()
		relay, client, ended := associated(far, nil)
		start := time.Now()
		<-time.After(4 * time.Minute)
		relay.in <- toPeer
		<-time.After(4 * time.Minute)
		far.in <- []byte("answer")
		<-time.After(4 * time.Minute)
		relay.in <- []byte("not a datagram") // and no reason to go on
		relay.others <- toPeer               // neither
		if took := (<-ended).Sub(start); took != 13*time.Minute {
			t.Errorf("ended after %v, want 13m", took)
		}
		if _, err := client.Read(make([]byte, 1)); err == nil {
			t.Error("the client's connection is still open")
		}
		<-far.closed
	})
}

func TestSocketsThatEndWithoutAnAnswerAreReplacedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened := 0
		dead := newPipe()
		_ = dead.Close()
		relay, client, ended := associated(dead, func(context.Context) (net.PacketConn, error) {
			opened++
			if opened%2 == 0 {
				return nil, errors.New("refused")
			}
			far := newPipe()
			_ = far.Close()
			return far, nil
		})
		for range 10_000 {
			relay.in <- toPeer
			<-time.After(time.Millisecond)
		}
		_ = client.Close()
		<-ended
		if opened < 8 || opened > 10 {
			t.Errorf("%d sockets were opened in 10 s", opened)
		}
	})
}

func TestDatagramsWithoutASocketAreDroppedFromTheFront(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dead, far := newPipe(), newPipe()
		_ = dead.Close()
		relay, client, ended := associated(dead, func(context.Context) (net.PacketConn, error) { return far, nil })
		synctest.Wait() // until the dead one was found to be that
		for i := range byte(100) {
			relay.in <- append(bytes.Clone(toPeer), i)
		}
		<-time.After(afterRefusal)
		synctest.Wait()
		if n := len(far.out); n != maxEarly {
			t.Fatalf("%d datagrams were kept, want %d", n, maxEarly)
		}
		if first := <-far.out; first[1] != 100-maxEarly {
			t.Errorf("the first one kept is number %d", first[1])
		}
		_ = client.Close()
		<-ended
	})
}

func TestNothingComesBackBeforeTheFirstDatagram(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		far := newPipe()
		relay, client, ended := associated(far, nil)
		far.in <- []byte("too early")
		synctest.Wait()
		if n := len(relay.out); n != 0 {
			t.Errorf("%d datagrams were sent to nobody", n)
		}
		relay.in <- toPeer
		synctest.Wait()
		far.in <- []byte("in time")
		if got := <-relay.out; !bytes.HasSuffix(got, []byte("in time")) {
			t.Errorf("the client got %q", got)
		}
		_ = client.Close()
		<-ended
	})
}
