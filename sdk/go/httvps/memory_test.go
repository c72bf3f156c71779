package httvps_test

import (
	"context"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// flood is a target that sends without end and takes nothing.
func flood(context.Context, wire.Addr) (net.Conn, error) {
	near, far := net.Pipe()
	go func() {
		for p := make([]byte, 32<<10); ; {
			if _, err := far.Write(p); err != nil {
				return
			}
		}
	}()
	return near, nil
}

// All streams that there can be are full in both directions, and nobody reads any of them.
func TestAClientHoldsNoMoreThanItsMemory(t *testing.T) {
	for memory, most := range map[httvps.Memory]uint64{httvps.Desktop: 42 << 20, httvps.Mobile: 15 << 20} {
		t.Run(memory.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, httvpstest.Options{Memory: true, Dial: flood})
				d := run(t, s, enrolled(t, s), func(cfg *httvps.Config) { cfg.Memory = memory })
				d.next(httvps.Connected)
				var (
					taken   atomic.Uint64 // to be sent
					writers sync.WaitGroup
				)
				for range wire.DefaultLimits().MaxStreams {
					conn, err := d.DialContext(t.Context(), "tcp", "a:1")
					if err != nil {
						t.Fatal(err)
					}
					writers.Go(func() {
						for p := make([]byte, 1<<10); ; {
							n, err := conn.Write(p)
							taken.Add(uint64(n))
							if err != nil {
								return
							}
						}
					})
				}
				synctest.Wait()
				status := d.Status()
				held := status.Received + taken.Load() - status.Sent
				t.Logf("%d bytes unread, %d not sent", status.Received, held-status.Received)
				if held > most || held < most/3 {
					t.Errorf("the client holds %d bytes, want at most %d and not much less", held, most)
				}
				d.stop()
				writers.Wait()
			})
		})
	}
}
