package linkem

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const mbit = 1_000_000

// receiver keeps what a way delivers.
type receiver struct{ numbers []uint32 }

func (r *receiver) send(packet []byte) error {
	r.numbers = append(r.numbers, binary.BigEndian.Uint32(packet))
	return nil
}

// numbered is a packet of size bytes that can be told from others.
func numbered(n, size int) []byte {
	data := make([]byte, size)
	binary.BigEndian.PutUint32(data, uint32(n))
	return data
}

// deliverAll delivers until nothing is due at now.
func deliverAll(t *testing.T, w *way, now time.Duration) (next time.Duration, waiting bool) {
	t.Helper()
	for {
		next, waiting, err := w.deliver(now)
		if err != nil {
			t.Fatal(err)
		}
		if !waiting || next > now {
			return next, waiting
		}
	}
}

func TestPacketsTakeTheirTimeOnTheLinkAndThenTheDelay(t *testing.T) {
	var got receiver
	w := newWay(Path{Rate: 12 * mbit, Delay: 50 * time.Millisecond, QueueBytes: 1 << 20}, 1500, 0, 0, got.send)
	for i := range 3 { // 1500 bytes take a millisecond
		w.enter(numbered(i, 1500), 10*time.Millisecond)
	}
	w.enter(numbered(3, 750), 100*time.Millisecond) // the link is idle by then

	var times []time.Duration
	for {
		next, waiting, err := w.deliver(0)
		if err != nil {
			t.Fatal(err)
		}
		if !waiting {
			break
		}
		before := len(got.numbers)
		deliverAll(t, w, next-1)
		if len(got.numbers) != before {
			t.Fatalf("a packet came before %v, when it was due", next)
		}
		times = append(times, next)
		if _, _, err := w.deliver(next); err != nil {
			t.Fatal(err)
		}
	}

	want := []time.Duration{
		61 * time.Millisecond,
		62 * time.Millisecond,
		63 * time.Millisecond,
		150*time.Millisecond + 500*time.Microsecond,
	}
	if diff := cmp.Diff(want, times); diff != "" {
		t.Errorf("deliveries (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint32{0, 1, 2, 3}, got.numbers); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestLateDeliveryDoesNotSlowTheLinkDown(t *testing.T) {
	var got receiver
	w := newWay(Path{Rate: 12 * mbit, QueueBytes: 1 << 20}, 1500, 0, 0, got.send)
	for i := range 10 {
		w.enter(numbered(i, 1500), 0)
	}
	deliverAll(t, w, 5500*time.Microsecond) // slept over four

	if len(got.numbers) != 5 {
		t.Errorf("%d packets delivered after 5.5 ms, want 5", len(got.numbers))
	}
	s := w.snapshot()
	if s.MaxLate != 4500*time.Microsecond || s.Late != 4 {
		t.Errorf("MaxLate = %v, Late = %d; want 4.5ms and 4", s.MaxLate, s.Late)
	}
}

func TestFullQueueDropsWhatComes(t *testing.T) {
	var got receiver
	w := newWay(Path{Rate: 12 * mbit, QueueBytes: 4500}, 1500, 0, 0, got.send)
	for i := range 5 {
		w.enter(numbered(i, 1500), 0)
	}
	w.enter(numbered(5, 1500), time.Millisecond) // one has been sent: there is room again
	deliverAll(t, w, time.Second)

	if diff := cmp.Diff([]uint32{0, 1, 2, 5}, got.numbers); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
	want := Stats{Passed: 4, PassedBytes: 6000, DroppedQueue: 2, MaxQueueBytes: 4500}
	s := w.snapshot()
	s.Late, s.MaxLate = 0, 0
	if diff := cmp.Diff(want, s); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}

func TestIdleLinkTakesAPacketLargerThanItsQueue(t *testing.T) {
	var got receiver
	w := newWay(Path{Rate: mbit, QueueBytes: 100}, 1500, 0, 0, got.send)
	w.enter(numbered(0, 1500), 0)
	deliverAll(t, w, time.Second)
	if len(got.numbers) != 1 {
		t.Error("the packet was dropped")
	}
}

func TestLinkWithoutARateHasNoQueue(t *testing.T) {
	var got receiver
	w := newWay(Path{Delay: time.Second, QueueBytes: 1}, 1500, 0, 0, got.send)
	for i := range 5000 { // more than fit the ring at first
		w.enter(numbered(i, 1500), time.Duration(i))
		if i == 1000 {
			deliverAll(t, w, time.Second+500) // the ring wraps
		}
	}
	deliverAll(t, w, 2*time.Second)
	if len(got.numbers) != 5000 || !slices.IsSorted(got.numbers) {
		t.Errorf("%d packets delivered, in order: %t; want 5000 in order", len(got.numbers), slices.IsSorted(got.numbers))
	}
}

func TestSameSeedLosesTheSamePackets(t *testing.T) {
	const packets = 20_000
	lose := func(seed, stream uint64, loss float64) []uint32 {
		var got receiver
		w := newWay(Path{Loss: loss}, 1500, seed, stream, got.send)
		for i := range packets {
			w.enter(numbered(i, 64), 0)
			deliverAll(t, w, 0)
		}
		if s := w.snapshot(); s.Passed+s.DroppedLoss != packets {
			t.Errorf("%d passed and %d lost of %d", s.Passed, s.DroppedLoss, packets)
		}
		return got.numbers
	}
	first := lose(7, 0, 0.01)
	if !slices.Equal(first, lose(7, 0, 0.01)) {
		t.Error("the same seed lost other packets")
	}
	for name, other := range map[string][]uint32{"seed": lose(8, 0, 0.01), "direction": lose(7, 1, 0.01)} {
		if slices.Equal(first, other) {
			t.Errorf("another %s lost the same packets", name)
		}
	}
	// Six standard deviations; the seed is fixed.
	lost := float64(packets - len(first))
	if within := 6 * math.Sqrt(packets*0.01*0.99); math.Abs(lost-packets*0.01) > within {
		t.Errorf("%v packets of %d lost, want 200 ± %.0f", lost, packets, within)
	}
	if n := len(lose(7, 0, 1)); n != 0 {
		t.Errorf("%d packets passed a link that loses all", n)
	}
	if n := len(lose(7, 0, 0)); n != packets {
		t.Errorf("%d packets passed a link that loses none, want %d", n, packets)
	}
}

func TestLostPacketsTakeTimeOnTheLink(t *testing.T) {
	w := newWay(Path{Rate: 12 * mbit, QueueBytes: 3000, Loss: 1}, 1500, 0, 0, nil)
	for range 3 {
		w.enter(numbered(0, 1500), 0)
	}
	if s := w.snapshot(); s.DroppedLoss != 2 || s.DroppedQueue != 1 {
		t.Errorf("%d lost and %d found the queue full; want 2 and 1", s.DroppedLoss, s.DroppedQueue)
	}
}

func TestBlockedWayDropsWhatIsUnderWayAndWhatComes(t *testing.T) {
	var got receiver
	w := newWay(Path{Rate: 12 * mbit, Delay: time.Second, QueueBytes: 1 << 20}, 1500, 0, 0, got.send)
	for i := range 100 {
		w.enter(numbered(i, 1500), 0)
	}
	w.block()
	w.enter(numbered(100, 1500), 0)
	w.unblock()
	w.enter(numbered(101, 1500), time.Millisecond)

	next, waiting := deliverAll(t, w, 0)
	if want := time.Second + 2*time.Millisecond; !waiting || next != want {
		t.Errorf("next delivery at %v, want %v: nothing is left of the queue", next, want)
	}
	deliverAll(t, w, time.Hour)
	if diff := cmp.Diff([]uint32{101}, got.numbers); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
	if s := w.snapshot(); s.DroppedCut != 101 || s.InFlight != 0 {
		t.Errorf("DroppedCut = %d, InFlight = %d; want 101 and 0", s.DroppedCut, s.InFlight)
	}
}

func TestMemoryOfAWayIsBounded(t *testing.T) {
	const size = 65535
	w := newWay(Path{Delay: time.Minute}, size, 0, 0, nil)
	data := make([]byte, size)
	for range maxPool/size + poolChunk {
		w.enter(data, 0)
	}
	s := w.snapshot()
	if w.buffers.made > maxPool {
		t.Errorf("%d bytes of buffers, want at most %d", w.buffers.made, maxPool)
	}
	if s.InFlight < maxPool/size*9/10 || s.DroppedQueue == 0 {
		t.Errorf("%d packets held and %d dropped; want it to fill, and then drop", s.InFlight, s.DroppedQueue)
	}
}

func TestPacketsCostNoAllocation(t *testing.T) {
	w := newWay(Path{Rate: 100 * mbit, Delay: time.Millisecond, QueueBytes: 1 << 20}, 1500, 0, 0, func([]byte) error { return nil })
	small, full := make([]byte, 52), make([]byte, 1500)
	now := time.Duration(0)
	if n := testing.AllocsPerRun(10_000, func() {
		w.enter(small, now)
		w.enter(full, now)
		if _, _, err := w.deliver(now); err != nil {
			t.Fatal(err)
		}
		now += 200 * time.Microsecond
	}); n != 0 {
		t.Errorf("%v allocations for two packets, want 0", n)
	}
}

func TestFailedDeliveryIsReported(t *testing.T) {
	broken := errors.New("broken")
	w := newWay(Path{}, 1500, 0, 0, func([]byte) error { return broken })
	w.enter(numbered(0, 64), 0)
	if _, _, err := w.deliver(0); !errors.Is(err, broken) {
		t.Errorf("deliver = %v, want the device's error", err)
	}
}

func TestConfigTellsEveryMistake(t *testing.T) {
	err := Config{
		Rate: -1, Delay: time.Hour, QueueBytes: -1, Loss: math.NaN(), MTU: 576,
		Down: &Path{Loss: 1.5},
	}.Validate()
	if err == nil {
		t.Fatal("Validate = nil")
	}
	want := []string{
		"rate is -1 bit/s, want 0 to 1000000000000",
		"delay is 1h0m0s, want 0 to 1m0s",
		"queue is -1 bytes, want at least 0",
		"loss is NaN, want 0 to 1",
		"down: loss is 1.5, want 0 to 1",
		"mtu is 576, want 1280 to 65535",
	}
	if diff := cmp.Diff(want, strings.Split(err.Error(), "\n")); diff != "" {
		t.Errorf("mistakes (-want +got):\n%s", diff)
	}
	if _, err := Open(Config{Loss: 2}); err == nil {
		t.Error("Open accepts what Validate does not")
	}
}

func TestQueueIsABandwidthDelayProductUnlessGiven(t *testing.T) {
	for name, tc := range map[string]struct {
		config   Config
		up, down int
	}{
		"rate over a round trip": {
			config: Config{Rate: 100 * mbit, Delay: 50 * time.Millisecond},
			up:     1_250_000, down: 1_250_000,
		},
		"the round trip is that of both ways": {
			config: Config{Rate: 100 * mbit, Delay: 50 * time.Millisecond, Down: &Path{Rate: 8 * mbit, Delay: 150 * time.Millisecond}},
			up:     2_500_000, down: 200_000,
		},
		"room for a burst on a short link": {
			config: Config{Rate: mbit},
			up:     30_000, down: 30_000,
		},
		"as given": {
			config: Config{Rate: mbit, QueueBytes: 5000, Down: &Path{Rate: mbit, QueueBytes: 7000}},
			up:     5000, down: 7000,
		},
	} {
		t.Run(name, func(t *testing.T) {
			up, down := tc.config.paths()
			if up.QueueBytes != tc.up || down.QueueBytes != tc.down {
				t.Errorf("queues of %d and %d bytes, want %d and %d", up.QueueBytes, down.QueueBytes, tc.up, tc.down)
			}
		})
	}
}

// verdict is a test that keeps what it was told.
type verdict struct{ text string }

func (*verdict) Helper()               {}
func (*verdict) Cleanup(func())        {}
func (*verdict) Errorf(string, ...any) {}

func (v *verdict) Skipf(format string, args ...any) { v.text = "skip: " + fmt.Sprintf(format, args...) }

func (v *verdict) Fatalf(format string, args ...any) {
	v.text = "fail: " + fmt.Sprintf(format, args...)
}

func TestRequireSkipsWithTheReasonAndFailsWhereLinksMustWork(t *testing.T) {
	reason := errors.New("no /dev/net/tun")
	for name, tc := range map[string]struct {
		unsupported error
		must        bool
		want        string
	}{
		"works":                  {},
		"works in CI":            {must: true},
		"cannot work":            {unsupported: reason, want: "skip: no emulated link: no /dev/net/tun"},
		"cannot work as CI root": {unsupported: reason, must: true, want: "fail: no emulated link, and CI=true asks for one: no /dev/net/tun"},
	} {
		t.Run(name, func(t *testing.T) {
			var got verdict
			require(&got, tc.unsupported, tc.must)
			if got.text != tc.want {
				t.Errorf("told %q, want %q", got.text, tc.want)
			}
		})
	}
}

func TestSysctlsOfTheWholeMachineAreOutOfReach(t *testing.T) {
	for name, want := range map[string]string{
		"net.ipv4.tcp_rmem":    "/proc/sys/net/ipv4/tcp_rmem",
		"ipv4.tcp_rmem":        "/proc/sys/net/ipv4/tcp_rmem",
		"kernel.hostname":      "/proc/sys/net/kernel/hostname",
		"net/../kernel/x":      "/proc/sys/net/net/kernel/x",
		"../../../../etc/mtab": "/proc/sys/net/etc/mtab",
	} {
		if got := sysctlFile(name); got != want {
			t.Errorf("sysctlFile(%q) = %s, want %s", name, got, want)
		}
	}
}

func BenchmarkPacket(b *testing.B) {
	w := newWay(Path{Rate: 200 * mbit, Delay: 10 * time.Millisecond, QueueBytes: 1 << 20}, 1500, 0, 0, func([]byte) error { return nil })
	data := make([]byte, 1500)
	now := time.Duration(0)
	for b.Loop() {
		w.enter(data, now)
		if _, _, err := w.deliver(now); err != nil {
			b.Fatal(err)
		}
		now += 60 * time.Microsecond
	}
}
