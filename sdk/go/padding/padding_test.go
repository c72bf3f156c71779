package padding

import (
	"slices"
	"testing"

	"github.com/httvps/httvps/sdk/go/wire"
)

// shape returns one whose numbers are the same in each run.
func shape(policy wire.PaddingPolicy, seed byte) *Shape {
	return newShape(policy, [32]byte{seed})
}

func TestHandshakesGetALengthBetween600And1400Bytes(t *testing.T) {
	seen := map[int]int{}
	for range 4000 {
		r := wire.Reject{Code: wire.CodeInvalidToken}
		r.Padding = Handshake(len(wire.AppendReject(nil, r)))
		n := len(wire.AppendReject(nil, r))
		if n < wire.MinPadHandshake || n > wire.MaxPadHandshake {
			t.Fatalf("a REJECT of %d bytes", n)
		}
		seen[n/100]++
	}
	for hundred := 6; hundred < 14; hundred++ {
		if seen[hundred] < 400 || seen[hundred] > 600 { // 500 on average
			t.Errorf("%d of 4,000 have %d00 to %d99 bytes", seen[hundred], hundred, hundred)
		}
	}
	for _, length := range []int{0, 63, 64, 599, 600, 601, 1399, 1400, 5000} {
		for range 1000 {
			c := wire.Challenge{}
			c.Padding = Handshake(length)
			added := len(wire.AppendChallenge(nil, c)) - len(wire.AppendChallenge(nil, wire.Challenge{}))
			least, most := wire.MinPadHandshake-length, wire.MaxPadHandshake-length
			if length >= wire.MinPadHandshake {
				least, most = 0, wire.MaxPadHandshake-wire.MinPadHandshake
			}
			if added < least || added > most {
				t.Fatalf("%d bytes more for %d", added, length)
			}
		}
	}
}

func TestMessagesGetTheSmallestSizeThatTheyFitAndUpToTheSpreadMore(t *testing.T) {
	policy := wire.PaddingPolicy{Messages: 8, Sizes: []int{256, 512, 1024}, Spread: 100, Share: 100}
	s := shape(policy, 1)
	for _, tc := range []struct{ length, size int }{{1, 256}, {255, 256}, {256, 256}, {257, 512}, {512, 512}, {513, 1024}, {1024, 1024}} {
		lengths := map[int]bool{}
		for range 3000 {
			n := tc.length + s.Add(tc.length, 16<<10, 1<<40)
			if n < tc.size || n > tc.size+policy.Spread+1 {
				t.Fatalf("%d bytes become %d", tc.length, n)
			}
			lengths[n] = true
		}
		if len(lengths) < policy.Spread-5 {
			t.Errorf("%d bytes become one of %d lengths", tc.length, len(lengths))
		}
	}
	for _, length := range []int{1025, 1400, 16 << 10} {
		if n := s.Add(length, 16<<10, 1<<40); n != 0 {
			t.Errorf("%d bytes get %d more", length, n)
		}
	}
}

// A PAD has 2 bytes at least, and none has 66.
func TestWhatIsAddedIsAFrame(t *testing.T) {
	s := shape(wire.PaddingPolicy{Messages: 1, Sizes: []int{64, 128, 256}, Share: 100}, 2)
	for length := range 257 {
		n := s.Add(length, 16<<10, 1<<40)
		if n == 0 && !slices.Contains(s.policy.Sizes, length) {
			t.Errorf("%d bytes get nothing", length)
		}
		if n > 0 && len(wire.AppendPad(nil, n)) != n {
			t.Errorf("%d bytes get %d more, which no frame has", length, n)
		}
	}
}

func TestPaddingKeepsToTheRoom(t *testing.T) {
	s := shape(wire.PaddingPolicy{Messages: 1, Sizes: []int{16000}, Spread: 4096, Share: 100}, 3)
	for room := range 100 {
		want := room
		if room == 1 || room == 66 { // no frame is that long
			want = 0
		}
		if n := s.Add(100, room, 1<<40); n != want {
			t.Errorf("%d bytes where there is room for %d", n, room)
		}
	}
}

func TestPaddingIsAShareOfThePayload(t *testing.T) {
	policy := wire.DefaultPadding()
	s := shape(policy, 4)
	used := uint64(0)
	for moved := uint64(0); moved < 100<<20; moved += 777 {
		used += uint64(s.Add(int(moved%3000), 16<<10, moved))
		if most := wire.FreePadding + moved*5/100; used > most {
			t.Fatalf("%d bytes of padding for %d of payload", used, moved)
		}
	}
	if used < 5<<20 {
		t.Errorf("%d bytes of padding, want as much as is allowed", used)
	}
	quiet := shape(policy, 5)
	used = 0
	for range 10_000 {
		used += uint64(quiet.Add(10, 16<<10, 0))
	}
	if used > wire.FreePadding || used < wire.FreePadding-1000 {
		t.Errorf("%d bytes of padding without payload", used)
	}
}

func TestHalfToAllOfTheFirstMessagesArePadded(t *testing.T) {
	for _, messages := range []int{1, 2, 7, 8, 64} {
		policy := wire.DefaultPadding()
		policy.Messages = messages
		s := shape(policy, 6)
		seen := map[int]bool{}
		for range 2000 {
			if n := s.Messages(); n < (messages+1)/2 || n > messages {
				t.Fatalf("of %d messages of a carrier, %d are padded", messages, n)
			}
			var left Frames
			n := 0
			for range 300 {
				if s.Next(&left) {
					n++
				}
			}
			seen[n] = true
		}
		for n := range 301 {
			if want := n >= (messages+1)/2 && n <= messages; seen[n] != want {
				t.Errorf("of %d messages, %d were padded: %t", messages, n, seen[n])
			}
		}
	}
}

// Nothing but the drawing tells sessions of the same policy apart.
func TestEverySessionDrawsAnew(t *testing.T) {
	draw := func() (all [16]int) {
		s := New(wire.DefaultPadding())
		for i := range all {
			all[i] = s.Add(10, 16<<10, 0)
		}
		return all
	}
	seen := map[[16]int]bool{}
	for range 100 {
		seen[draw()] = true
	}
	if len(seen) != 100 {
		t.Errorf("%d different sessions of 100", len(seen))
	}
	if a := New(wire.DefaultPadding()); a.Longest() != 4608 {
		t.Errorf("messages up to %d bytes", a.Longest())
	}
}

func TestDrawingDoesNotAllocate(t *testing.T) {
	s := New(wire.DefaultPadding())
	var left Frames
	if n := testing.AllocsPerRun(100, func() { s.Next(&left); s.Add(100, 16<<10, 1<<40) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
