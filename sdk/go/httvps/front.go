package httvps

import (
	"slices"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
)

// Some networks let connections to an address begin and nothing more: after some bytes
// they pass on none, or reset them.
const (
	// A connection has frozen if it was lost so soon, and so little came over it.
	frozenAge   = time.Minute
	frozenBytes = 64 << 10

	// How many have to freeze in a row, and for how long, until another gateway is worth
	// the session.
	frozenLeast    = 2
	frozenPatience = 4 * time.Second

	// frozenLook is how often it is looked for one, and frozenAgain how long not in a
	// session at a gateway that comes last: others were just of no use.
	frozenLook, frozenAgain = 20 * time.Second, 5 * time.Minute

	// frozenFor is how long other gateways come first then.
	frozenFor = 30 * time.Minute

	// frozenMany is how many in a row are followed by others at once.
	frozenMany = 8
)

// maxFronted bounds the gateways whose fronts are remembered.
const maxFronted = 256

// fronts knows at which URLs gateways are reached. It is safe for concurrent use.
type fronts struct {
	mu     sync.Mutex           // guards the following fields
	urls   map[string][]string  // by a gateway's URL: all, the one to be used first
	frozen map[string]time.Time // by a gateway's URL: until when it comes last
}

// learn notes what other URLs a gateway has named, and returns those of them that can be
// URLs of one. The one that the device came by is to be used first.
func (f *fronts) learn(gateway, by string, others []string) (usable []string) {
	named := []string{gateway}
	for _, u := range others {
		if isGateway(u) && !slices.Contains(named, u) {
			named = append(named, u)
		}
	}
	usable = slices.Clone(named[1:])
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.urls == nil || len(f.urls) == maxFronted {
		f.urls = make(map[string][]string)
	}
	if first := slices.Index(named, by); first > 0 {
		named = slices.Concat(named[first:], named[:first])
	}
	f.urls[gateway] = named
	return usable
}

// of returns a gateway's URLs, the one to be used first.
func (f *fronts) of(gateway string) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if urls := f.urls[gateway]; urls != nil {
		return slices.Clone(urls)
	}
	return []string{gateway}
}

// first returns the URL to be used.
func (f *fronts) first(gateway string) string { return f.of(gateway)[0] }

// past has a URL that did not work come last. One that is not used first any more stays
// where it is: two sessions may meet the same trouble.
func (f *fronts) past(gateway, at string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if urls := f.urls[gateway]; len(urls) > 1 && urls[0] == at {
		f.urls[gateway] = slices.Concat(urls[1:], urls[:1])
	}
}

// freeze has a gateway come last for a while.
func (f *fronts) freeze(gateway string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.frozen == nil || len(f.frozen) == maxFronted {
		f.frozen = make(map[string]time.Time)
	}
	f.frozen[gateway] = time.Now().Add(frozenFor)
}

// thaw has no gateway come last any more.
func (f *fronts) thaw() {
	f.mu.Lock()
	defer f.mu.Unlock()
	clear(f.frozen)
}

// split returns which of some gateways do not come last, and which do.
func (f *fronts) split(gateways []Gateway) (open, frozen []Gateway) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, g := range gateways {
		if time.Now().Before(f.frozen[g.URL]) {
			frozen = append(frozen, g)
		} else {
			open = append(open, g)
		}
	}
	return open, frozen
}

// destination is a gateway at one of its URLs.
type destination struct {
	Gateway
	at string
}

// destinations are where to try some gateways, in their order: each at the URL to be used
// first, and only then at others.
func (f *fronts) destinations(gateways []Gateway) (all []destination) {
	open, frozen := f.split(gateways)
	gateways = slices.Concat(open, frozen)
	more := true
	for i := 0; more; i++ {
		more = false
		for _, g := range gateways {
			if urls := f.of(g.URL); i < len(urls) {
				all = append(all, destination{Gateway: g, at: urls[i]})
				more = true
			}
		}
	}
	return all
}

// row is the connections of a session that froze, one after the other.
type row struct {
	session  *mux.Session
	began    time.Time // the connection in use
	received uint64    // bytes until then
	frozen   int
	since    time.Time // the first of them was lost
	look     time.Time // for another gateway, not before
	delays   backoff
}

// newRow is that of a new session, at a gateway that may come last.
func newRow(session *mux.Session, last bool) row {
	r := row{session: session, delays: backoff{min: resumeSoon, max: resumeLater}}
	if last {
		r.look = time.Now().Add(frozenAgain)
	}
	r.begin()
	return r
}

// begin is called when there is another connection.
func (r *row) begin() {
	r.began, r.received = time.Now(), r.session.Stats().Received
}

// end is called when the connection is lost, and reports whether it has frozen.
func (r *row) end() bool {
	if time.Since(r.began) >= frozenAge || r.session.Stats().Received-r.received >= frozenBytes {
		r.forget()
		return false
	}
	if r.frozen == 0 {
		r.since = time.Now()
	}
	r.frozen++
	return true
}

// forget has the row end.
func (r *row) forget() {
	r.frozen = 0
	r.delays.reset()
}

// hopeless reports whether so many have frozen, at a gateway with that many URLs, that
// another gateway is worth the session, and whether it is time to look for one.
func (r *row) hopeless(urls int) bool {
	if r.frozen < max(frozenLeast, urls) || time.Since(r.since) < frozenPatience || time.Now().Before(r.look) {
		return false
	}
	r.look = time.Now().Add(frozenLook)
	return true
}

// wait is how long the next connection has to wait.
func (r *row) wait() time.Duration {
	if r.frozen < frozenMany {
		return 0
	}
	return r.delays.next(0)
}
