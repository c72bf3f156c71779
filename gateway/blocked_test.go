package gateway_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
)

// blockade is a network that at some moment begins to block connections to one address.
type blockade struct {
	address string
	on      atomic.Bool
	after   int64 // bytes from there that it still lets pass on each
	reset   bool  // it resets them then, and does not only fall silent
}

func (b *blockade) dial(ctx context.Context, network, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
	if err != nil || address != b.address {
		return conn, err
	}
	c := &blocked{TCPConn: conn.(*net.TCPConn), by: b, closed: make(chan struct{})}
	c.left.Store(b.after)
	return plain{c}, nil
}

// blocked is a connection that is to be blocked.
type blocked struct {
	*net.TCPConn
	by     *blockade
	left   atomic.Int64
	once   sync.Once
	closed chan struct{}
}

func (c *blocked) Read(p []byte) (int, error) {
	if !c.by.on.Load() {
		return c.TCPConn.Read(p)
	}
	left := c.left.Load()
	switch {
	case left <= 0 && c.by.reset:
		_ = c.SetLinger(0)
		_ = c.Close()
		return 0, syscall.ECONNRESET
	case left <= 0:
		<-c.closed
		return 0, net.ErrClosed
	}
	n, err := c.TCPConn.Read(p[:min(int64(len(p)), left)])
	c.left.Add(-int64(n))
	return n, err
}

func (c *blocked) Write(p []byte) (int, error) {
	if c.by.on.Load() && c.left.Load() <= 0 {
		return len(p), nil // nobody sees it
	}
	return c.TCPConn.Write(p)
}

func (c *blocked) Close() error {
	c.once.Do(func() { close(c.closed) })
	return c.TCPConn.Close()
}

// The network blocks the address of a gateway, for connections that there are and those
// that come: what is open goes on over a front, and every byte arrives once and in its
// place.
func TestABlockedAddressCostsNoByte(t *testing.T) {
	const streams = 16
	for name, block := range map[string]*blockade{
		"frozen after 16 KiB":        {after: 16 << 10},
		"reset after 16 KiB":         {after: 16 << 10, reset: true},
		"silent from the first byte": {},
		"reset at the first byte":    {reset: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := frontedService(t)
			store := s.enrolled(t)
			block.address = s.cfg.Listener.Addr().String()
			waits := newPauses()
			events := make(chan httvps.Event, 1000)
			client, err := httvps.NewClient(httvps.Config{Store: store, NetDial: block.dial, OnEvent: func(e httvps.Event) {
				if e.Kind == httvps.Resumed {
					waits.resumed()
				}
				events <- e
			}})
			if err != nil {
				t.Fatal(err)
			}
			defer keep(t, client)()
			up := awaitEvent(t, events, httvps.Connected)
			f := &far{t: t, client: client}
			speaker := newSpeaker(t, waits.arrives(upward))
			over := make(chan struct{})
			var talking sync.WaitGroup
			for i := range streams {
				talking.Go(func() {
					k := &talk{seed: mix(uint64(i + 1)), ended: make(chan error, 1)}
					if err := f.converse(speaker, k, over, waits.arrives(downward)); err != nil {
						t.Errorf("stream %d: %v", i, err)
					}
				})
			}
			eventually(t, "all connections", func() bool { return client.Status().Streams == streams })
			waits.fault(name)
			block.on.Store(true)
			waits.dialled() // whatever goes on does so over another connection
			eventually(t, "bytes both ways", func() bool { _, _, n := waits.worst(name); return n > 0 })
			close(over)
			talking.Wait()
			if status := client.Status(); status.Session != up.Session {
				t.Error("another session")
			}
			took, _, _ := waits.worst(name)
			t.Logf("back after %v", took.Round(time.Millisecond))
			if soak && took > 10*time.Second {
				t.Errorf("it took %v, want 10s", took)
			}
		})
	}
}
