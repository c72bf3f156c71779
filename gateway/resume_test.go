package gateway_test

import (
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/test/linkem"
)

// soak says whether the long counts are wanted.
var soak = os.Getenv("HTTVPS_SOAK") == "1"

// faultKind is one way in which a carrier breaks.
type faultKind struct {
	name   string
	weight int
	strike func(*far, *faulty)
}

// Carriers are reset, closed, rerouted and blackholed at random bytes, in the middle
// of handshakes, too, while 64 streams are busy both ways: every byte arrives once and
// in its place.
func TestNothingIsLostHoweverCarriersBreak(t *testing.T) {
	faults, streams := 50, 64
	waits := newPauses()
	kinds := []faultKind{
		{"reset by the client", 17, (*far).resetHere},
		{"reset by the gateway", 17, (*far).resetThere},
		{"ended by the gateway", 14, (*far).endThere},
		{"rerouted", 1, (*far).reroute},
		{"blackholed", 1, func(f *far, c *faulty) {
			f.blackhole(func() {
				waits.restored() // where it is not given up meanwhile
				c.spare(200_000)
			})
		}},
	}
	if soak {
		faults = 1000
	}
	rtt := 20 * time.Millisecond
	f := newFar(t, linkem.Config{Rate: 60e6, Delay: rtt / 2}, nil)
	speaker := newSpeaker(t, waits.arrives(upward))
	over := make(chan struct{})
	struck := make(chan string, 2*faults)

	var mu sync.Mutex // guards rng
	rng := rand.New(rand.NewPCG(7, 11))
	left, first := faults, true
	f.told = func(e httvps.Event) {
		if e.Kind == httvps.Resumed {
			waits.resumed()
		}
	}
	f.plan = func() (int64, func(*faulty)) {
		waits.dialled()
		mu.Lock()
		defer mu.Unlock()
		if first {
			first = false
			return 100_000, func(c *faulty) { waits.fault("first"); f.resetHere(c) } // streams are there by then
		}
		if left == 0 {
			return 0, nil
		}
		left--
		after := rng.Int64N(400_000)
		if rng.IntN(6) == 0 {
			after = rng.Int64N(5_000) // within the handshake, or just behind it
		}
		pick := rng.IntN(50)
		for _, kind := range kinds {
			if pick -= kind.weight; pick < 0 {
				return after, func(c *faulty) {
					waits.fault(kind.name)
					kind.strike(f, c)
					struck <- kind.name
				}
			}
		}
		panic("weights")
	}
	f.run()
	var telling sync.WaitGroup
	telling.Go(func() {
		for {
			select {
			case e := <-f.events:
				switch e.Kind {
				case httvps.Connecting, httvps.Connected, httvps.Resumed, httvps.Refused, httvps.Moved, httvps.Degraded, httvps.LimitsChanged, httvps.Noticed:
				case httvps.Disconnected, httvps.Waiting:
					select {
					case <-over:
					default:
						t.Errorf("%v: %v", e.Kind, e.Err)
					}
				}
			case <-over:
				return
			}
		}
	})
	var talking sync.WaitGroup
	for i := range streams {
		talking.Go(func() {
			k := &talk{seed: mix(uint64(i + 1)), ended: make(chan error, 1)}
			if err := f.converse(speaker, k, over, waits.arrives(downward)); err != nil {
				t.Errorf("stream %d: %v", i, err)
			}
		})
	}
	counts := make(map[string]int)
	limit := time.After(time.Duration(faults) * 6 * time.Second)
	for range faults {
		select {
		case name := <-struck:
			counts[name]++
		case <-limit:
			t.Fatalf("no fault any more after %v", counts)
		}
		if t.Failed() {
			break
		}
	}
	close(over)
	talking.Wait()
	telling.Wait()
	for kind, n := range counts {
		median, p99, heard := waits.worst(kind)
		t.Logf("%4d × %-22s pause p50 %v, p99 %v (of %d)", n, kind, median.Round(time.Millisecond), p99.Round(time.Millisecond), heard)
		if !soak {
			continue // nothing is wrong with a busy machine
		}
		most := 3*rtt + 300*time.Millisecond
		if kind == "rerouted" || kind == "blackholed" {
			most = 6 * time.Second
		}
		if p99 > most {
			t.Errorf("%s: p99 is %v, want %v", kind, p99, most)
		}
	}
}
