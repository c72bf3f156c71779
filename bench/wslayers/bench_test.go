package wslayers_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/httvps/httvps/bench/internal/process"
	"github.com/httvps/httvps/sdk/go/carrier"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	batch = 64 << 10 // bytes of payload after which a sender flushes
	round = 64 << 20 // bytes of payload that a round of the benchmark carries, about
)

// sizes of payloads. With its header, the first fills one TLS record of 16 KiB
// nearly; of the others the last bytes are in a record of their own.
var sizes = []int{16_360, 32 << 10, 64 << 10}

var layers = []layer{
	{name: "tls", accept: acceptBare, dial: dialBare},
	{name: "tls-held", below: func(ln net.Listener) net.Listener { return holdingListener{ln} }, accept: acceptHeld, dial: dialHeld, batches: true},
	gorillaLayer("gorilla-4k-readmessage", 4<<10, false),
	gorillaLayer("gorilla-64k-nextreader", 64<<10, true),
	{name: "gws", accept: acceptGWS, dial: dialGWS},
	{name: "coder", accept: acceptCoder, dial: dialCoder},
	{name: "gobwas", accept: acceptFrames, dial: dialFrames},
	{name: "carrier", below: carrier.Listener, accept: acceptOurs, dial: dialOurs, batches: true},
}

func BenchmarkMessages(b *testing.B) {
	for _, way := range []string{"down", "up"} {
		for _, size := range sizes {
			for _, l := range layers {
				b.Run(fmt.Sprintf("way=%s/size=%d/layer=%s", way, size, l.name), func(b *testing.B) {
					from, to := connect(b, l, size, nil)
					if way == "up" {
						from, to = to, from
					}
					measure(b, start(b, from, to, round/size, stamp, checkStamp), size)
				})
			}
		}
	}
}

func measure(b *testing.B, f *flow, size int) {
	b.Helper()
	f.round(b) // the first records of a connection are small
	b.SetBytes(int64(f.messages * size))
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	used, usedErr := process.CPU(os.Getpid())
	for b.Loop() {
		f.round(b)
	}
	all, allErr := process.CPU(os.Getpid())
	runtime.ReadMemStats(&after)
	messages := float64(b.N) * float64(f.messages)
	b.ReportMetric(float64(after.Mallocs-before.Mallocs)/messages, "allocs/msg")
	if usedErr == nil && allErr == nil { // elsewhere than on Linux nobody says
		b.ReportMetric((all-used).Seconds()/(messages*float64(size)/(1<<30)), "cpu-s/GiB")
	}
}

// flow sends messages from one end to the other, in rounds.
type flow struct {
	from     end
	messages int // in a round
	fill     func(payload []byte, n uint64)
	sent     uint64

	arrived chan struct{} // a round, and closed when receiving is over
	err     error         // why it is, once arrived is closed
}

// start returns a flow whose nth message fill makes and check expects. The flow
// ends with tb.
func start(tb testing.TB, from, to end, messages int, fill func([]byte, uint64), check func([]byte, uint64) error) *flow {
	tb.Helper()
	f := &flow{from: from, messages: messages, fill: fill, arrived: make(chan struct{}, 1)}
	var wg sync.WaitGroup
	wg.Go(func() {
		var n uint64
		f.err = to.receive(func(payload []byte) error {
			if err := check(payload, n); err != nil {
				return fmt.Errorf("message %d: %w", n, err)
			}
			if n++; n%uint64(messages) == 0 {
				f.arrived <- struct{}{}
			}
			return nil
		})
		to.close() // the sender does not wait for nobody
		close(f.arrived)
	})
	tb.Cleanup(func() {
		from.close()
		to.close()
		wg.Wait()
	})
	return f
}

// round sends a round and waits until it has arrived.
func (f *flow) round(tb testing.TB) {
	tb.Helper()
	if err := f.send(); err != nil {
		tb.Errorf("sending: %v", err)
		f.from.close()
	}
	if _, ok := <-f.arrived; !ok {
		tb.Fatalf("receiving: %v", f.err)
	}
}

func (f *flow) send() error {
	waiting := 0
	for range f.messages {
		p := f.from.space()
		if waiting+len(p) > batch {
			if err := f.from.flush(); err != nil {
				return err
			}
			waiting = 0
		}
		f.fill(p, f.sent)
		f.sent++
		if err := f.from.send(); err != nil {
			return err
		}
		waiting += len(p)
	}
	return f.from.flush()
}

// stamp numbers a message at both of its ends, which costs nothing to speak of.
func stamp(payload []byte, n uint64) {
	binary.BigEndian.PutUint64(payload, n)
	binary.BigEndian.PutUint64(payload[len(payload)-8:], ^n)
}

func checkStamp(payload []byte, n uint64) error {
	if first, last := binary.BigEndian.Uint64(payload), ^binary.BigEndian.Uint64(payload[len(payload)-8:]); first != n || last != n {
		return fmt.Errorf("it is stamped %d and %d", first, last)
	}
	return nil
}
