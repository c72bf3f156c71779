package mux

import (
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

// What a peer may send of frames that carry nothing, docs/03, part 10.1.
const (
	floodBurst = 6000    // frames, at least
	floodRate  = 2000    // frames a second, at least
	floodBytes = 2 << 10 // bytes of payload, either way, that pay for another one

	// streamFrames is how many of them a stream needs that moves next to
	// nothing: OPEN or OPENED, a CREDIT or STOP, RESET.
	// Each of its frames that are padded brings a PAD along.
	streamFrames = 3
)

// flood counts frames that carry nothing: a leaky bucket that is emptied only
// when it is full, because most never are.
type flood struct {
	each        uint64 // frames that a stream needs
	burst, rate float64
	level       float64
	at          time.Duration // when it was emptied, since the session began
	bytes       uint64        // and what had been moved by then
}

// newFlood allows what opening and ending streams needs, as fast and as many as
// the limits let a client, and padding what the policy says; nil: there is none.
func newFlood(l wire.Limits, padding *wire.PaddingPolicy) flood {
	f := flood{each: streamFrames}
	if padding != nil {
		f.each += uint64(padding.Messages)
	}
	f.allow(l)
	return f
}

// allow raises what is allowed to what later limits need.
func (f *flood) allow(l wire.Limits) {
	f.burst = max(f.burst, float64(max(floodBurst, f.each*max(l.MaxStreams, l.OpenBurst))))
	f.rate = max(f.rate, float64(max(floodRate, f.each*l.OpenRate)))
}

// pass counts one frame and says whether it is still within the limit.
func (f *flood) pass(now time.Duration, bytes uint64) bool {
	if f.level++; f.level <= f.burst {
		return true
	}
	f.level -= (now-f.at).Seconds()*f.rate + float64(bytes-f.bytes)/floodBytes
	f.level = max(f.level, 0)
	f.at, f.bytes = now, bytes
	return f.level <= f.burst
}
