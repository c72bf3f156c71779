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
	streamFrames = 3
)

// flood counts frames that carry nothing: a leaky bucket that is emptied only
// when it is full, because most never are.
type flood struct {
	burst, rate float64
	level       float64
	at          time.Duration // when it was emptied, since the session began
	bytes       uint64        // and what had been moved by then
}

// newFlood allows what opening and ending streams needs, as fast and as many as
// the limits let a client.
func newFlood(l wire.Limits) flood {
	return flood{
		burst: float64(max(floodBurst, streamFrames*max(l.MaxStreams, l.OpenBurst))),
		rate:  float64(max(floodRate, streamFrames*l.OpenRate)),
	}
}

// allow raises what is allowed to what later limits need.
func (f *flood) allow(l wire.Limits) {
	more := newFlood(l)
	f.burst, f.rate = max(f.burst, more.burst), max(f.rate, more.rate)
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
