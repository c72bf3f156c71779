package protocol

import (
	"context"
	"net"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/lazy"
	"github.com/httvps/httvps/sdk/go/wire"
)

// pot is a quota: as much as is put into it. One that nothing was ever put into has
// no end.
type pot struct {
	mu      sync.Mutex // guards the following fields
	bounded bool
	left    int
	more    chan struct{}
}

func (p *pot) put(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bounded = true
	p.add(n)
}

func (p *pot) add(n int) {
	p.left += n
	if p.more != nil {
		close(p.more)
		p.more = nil
	}
}

func (p *pot) Wait(done <-chan struct{}) bool {
	for {
		p.mu.Lock()
		if !p.bounded || p.left > 0 {
			p.mu.Unlock()
			return true
		}
		if p.more == nil {
			p.more = make(chan struct{})
		}
		more := p.more
		p.mu.Unlock()
		select {
		case <-more:
		case <-done:
			return false
		}
	}
}

func (p *pot) Reserve(n int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.bounded {
		return n
	}
	n = max(min(n, p.left), 0)
	p.left -= n
	return n
}

func (p *pot) Overdraw(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.left -= n
}

func (p *pot) Return(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.add(n)
}

// buffered is a connection that reads without holding space, as one through a
// Shadowsocks server does.
type buffered struct {
	*duplex
	buf  [32 << 10]byte
	rest []byte
}

func (b *buffered) ReadLazy(space lazy.Space) (int, error) {
	if len(b.rest) == 0 {
		n, err := b.Read(b.buf[:])
		if b.rest = b.buf[:n]; n == 0 {
			return 0, err
		}
	}
	n := copy(space.Take(), b.rest)
	b.rest = b.rest[n:]
	return n, nil
}

// wantMoved waits and looks at what the streams have moved, all together.
func (b *busy) wantMoved(after time.Duration, want int) {
	b.t.Helper()
	b.during(after)
	total := 0
	for _, n := range b.moved {
		total += int(n.Load())
	}
	if total < want || total > want+len(b.moved) {
		b.t.Errorf("%d bytes were moved, want %d and at most one more for each stream", total, want)
	}
	if counted := b.meter.up.Load() + b.meter.down.Load(); int(counted) < total {
		b.t.Errorf("%d bytes were moved and %d counted", total, counted)
	}
}

func TestStreamsMoveWhatTheirQuotaSaysToTheByte(t *testing.T) {
	for name, tc := range map[string]struct {
		up   bool
		bits int64
	}{
		"up":                {up: true},
		"down":              {},
		"up, at a speed":    {up: true, bits: 8_000_000},
		"down, at a speed":  {bits: 8_000_000},
		"up, more slowly":   {up: true, bits: 80_000},
		"down, more slowly": {bits: 80_000},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBusy(t, tc.up, tc.bits)
				b.quota.put(100_001)
				b.session(8)
				b.wantMoved(15*time.Second, 100_001)
				b.quota.put(1)
				b.wantMoved(5*time.Second, 100_002)
				b.quota.put(300_000)
				b.wantMoved(40*time.Second, 400_002)
				b.hangUp()
			})
		})
	}
}

// What waits for a quota holds neither its stream nor its session.
func TestTheEndOfAStreamEndsItsWaitForAQuota(t *testing.T) {
	for name, up := range map[string]bool{"up": true, "down": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBusy(t, up, 0)
				b.quota.put(1000)
				client := b.session(0)
				stream := b.stream(client)
				b.stream(client)
				b.wantMoved(time.Second, 1000)
				stream.Reset(wire.CodeCancelled)
				synctest.Wait()
				if n := b.meter.streams.Load(); n != 1 {
					t.Errorf("%d streams go on, want the one that was not reset", n)
				}
				b.hangUp()
				if n := b.meter.streams.Load(); n != 0 {
					t.Errorf("%d streams go on after the session's end", n)
				}
			})
		})
	}
}

// Streams that have nothing to move keep nothing from those that have.
func TestIdleStreamsHoldNothingOfAQuota(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	var dialer net.Dialer
	r := newRig(t, func(ctx context.Context, _ wire.Addr) (Conn, error) {
		conn, err := dialer.DialContext(ctx, "tcp", listener.Addr().String())
		if err != nil {
			return nil, err
		}
		return conn.(*net.TCPConn), nil
	}, nil)
	const quota = 50_000
	r.quota.put(quota)
	targets := make([]net.Conn, 9)
	for i := range targets {
		r.open(uint64(2*i + 1))
		r.WantOpened(uint64(2*i + 1))
		if targets[i], err = listener.Accept(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := targets[4].Write(make([]byte, quota)); err != nil {
		t.Fatal(err)
	}
	for got := 0; got < quota; {
		got += len(r.Want(wire.TypeData, 9))
	}
	r.hangUp()
	for _, target := range targets {
		_ = target.Close()
	}
}

func TestDatagramsBeyondTheQuotaAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		r.quota.put(1000)
		socket := r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		data := string(make([]byte, 600))
		for range 5 {
			r.Send(dgram(peerA, data))
		}
		r.wantDropped(t, map[string]int{dropQuota: 3})
		if n := len(socket.taken()); n != 2 {
			t.Errorf("%d datagrams were sent", n)
		}
		r.quota.put(800) // 200 were too much
		for range 5 {
			socket.in <- packet{addrPort(peerA), []byte(data)}
		}
		r.wantDgram(t, wire.KindUDPAny, peerA, data)
		r.wantDropped(t, map[string]int{dropQuota: 4})
		if up, down := r.meter.up.Load(), r.meter.down.Load(); up != 1200 || down != 600 {
			t.Errorf("%d bytes up and %d down are counted", up, down)
		}
		r.hangUp()
	})
}
