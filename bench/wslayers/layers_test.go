package wslayers_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"testing"
)

// volume is what each layer carries in a test: whole batches of messages.
const volume = 1 << 20

func TestEveryLayerCarriesEveryByte(t *testing.T) {
	for _, l := range layers {
		for _, size := range sizes {
			for _, way := range []string{"down", "up"} {
				t.Run(fmt.Sprintf("%s/%s/%d", l.name, way, size), func(t *testing.T) {
					t.Parallel()
					from, to := connect(t, l, size, nil)
					if way == "up" {
						from, to = to, from
					}
					want := make([]byte, size)
					f := start(t, from, to, volume/size, noise, func(payload []byte, n uint64) error {
						if noise(want, n); !bytes.Equal(payload, want) {
							return errors.New("it is not what was sent")
						}
						return nil
					})
					f.round(t)
					f.round(t)
				})
			}
		}
	}
}

// noise fills payload with what no other message has.
func noise(payload []byte, n uint64) {
	var seed [32]byte
	seed[0], seed[1] = byte(n), byte(n>>8)
	_, _ = rand.NewChaCha8(seed).Read(payload) // never fails
}

// What the table says of batches is so: one TCP write for each, and for the
// others one for each TLS record at least.
func TestBatchesLeaveInOneWrite(t *testing.T) {
	const size, messages = 16_360, 64
	const batches = messages / (batch / size)
	for _, l := range layers {
		t.Run(l.name, func(t *testing.T) {
			t.Parallel()
			var writes atomic.Int64
			from, to := connect(t, l, size, func(ln net.Listener) net.Listener { return countingListener{ln, &writes} })
			f := start(t, from, to, messages, stamp, checkStamp)
			for range 4 { // the first records of a connection are small
				f.round(t)
			}
			before := writes.Load()
			f.round(t)
			switch got := writes.Load() - before; {
			case l.batches && got != batches:
				t.Errorf("%d batches left in %d writes", batches, got)
			case !l.batches && got < messages:
				t.Errorf("%d messages left in %d writes", messages, got)
			}
		})
	}
}

// countingListener counts what its connections write.
type countingListener struct {
	net.Listener
	writes *atomic.Int64
}

func (l countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return counting{conn, l.writes}, nil
}

type counting struct {
	net.Conn
	writes *atomic.Int64
}

func (c counting) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.Conn.Write(p)
}
