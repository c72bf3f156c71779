package carrier

import (
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

// What a peer may send of WebSocket frames that carry nothing, docs/03, part 10.1.
const (
	floodBurst = 6000
	floodRate  = 2000 // a second
)

// flood counts them: a leaky bucket that is emptied only when it is full, because
// most never are.
type flood struct {
	level float64
	at    time.Time // when it was emptied
}

// pass counts one frame. The error says that it was one too many.
func (f *flood) pass() error {
	if f.level++; f.level <= floodBurst {
		return nil
	}
	now := time.Now()
	f.level = max(0, f.level-now.Sub(f.at).Seconds()*floodRate)
	f.at = now
	if f.level > floodBurst {
		return &wire.Error{Code: wire.CodeEnhanceCalm, What: "too many WebSocket frames that carry nothing"}
	}
	return nil
}
