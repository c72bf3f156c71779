package httvps

import (
	"fmt"

	"github.com/httvps/httvps/sdk/go/wire"
)

// Memory says how much memory a [Client] may use for what is on its way: bytes that
// have arrived or may arrive before the program reads them, bytes that wait to be sent,
// and datagrams. What a stream has of it goes with its speed; an idle one has none.
// Beside it a client needs a few MiB. When as many streams are open as there may be,
// of which a gateway may allow fewer, further ones wait for a place (ADR 0024).
type Memory int

const (
	// Desktop is up to 42 MiB, and up to 1,024 streams at once. It is the default.
	Desktop Memory = iota

	// Mobile is up to 15 MiB, and up to 256 streams at once, for programs that the
	// system gives little, like a VPN's part on a phone. It costs speed on ways that
	// are both fast and long: 8 MiB may be under way, where Desktop has 22.
	Mobile
)

// memories are the kinds of Memory.
var memories = map[Memory]struct {
	name    string
	budget  uint64 // of the session, docs/03, part 7.1
	streams uint64 // a stream may always have a little pending, so their number counts
}{
	Desktop: {name: "desktop", budget: 32 << 20, streams: 1024},
	Mobile:  {name: "mobile", budget: 12 << 20, streams: 256},
}

// String returns the name in lower case.
func (m Memory) String() string {
	if kind, ok := memories[m]; ok {
		return kind.name
	}
	return fmt.Sprintf("Memory(%d)", int(m))
}

// budget is what a session of a client may hold.
func (m Memory) budget() uint64 { return memories[m].budget }

// limits are a session's with no more streams than there is memory for.
func (m Memory) limits(l wire.Limits) wire.Limits {
	l.MaxStreams = min(l.MaxStreams, memories[m].streams)
	return l
}
