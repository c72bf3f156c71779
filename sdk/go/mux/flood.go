package mux

import "time"

// What a peer may send of frames that carry nothing, docs/03, part 10.1.
const (
	floodBurst = 6000    // frames
	floodRate  = 2000    // frames a second
	floodBytes = 2 << 10 // bytes of payload, either way, that pay for another one
)

// flood counts frames that carry nothing: a leaky bucket that is emptied only
// when it is full, because most never are.
type flood struct {
	level float64
	at    time.Duration // when it was emptied, since the session began
	bytes uint64        // and what had been moved by then
}

// pass counts one frame and says whether it is still within the limit.
func (f *flood) pass(now time.Duration, bytes uint64) bool {
	if f.level++; f.level <= floodBurst {
		return true
	}
	f.level -= (now-f.at).Seconds()*floodRate + float64(bytes-f.bytes)/floodBytes
	f.level = max(f.level, 0)
	f.at, f.bytes = now, bytes
	return f.level <= floodBurst
}
