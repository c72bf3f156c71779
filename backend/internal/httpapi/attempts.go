package httpapi

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

const (
	maxAddresses = 10000
	maxInFlight  = 64 // attempts of one address at the same time
)

// attempts bounds how often an address may try to redeem codes. Only refusals
// count: honest devices behind one address are not held up by each other. What
// an address tries at the same time is refused together, so there is a bound on
// that too, and refusals beyond the limit are a debt that has to pass first. The
// addresses seen longest ago are forgotten first.
type attempts struct {
	now   func() time.Time
	burst float64
	every time.Duration // one attempt comes back

	mu        sync.Mutex // guards what follows
	addresses map[netip.Prefix]*list.Element
	recent    *list.List // of *allowance, most recent first
}

type allowance struct {
	address  netip.Prefix
	left     float64 // refusals; below zero after many at the same time
	at       time.Time
	inFlight int
}

func newAttempts(perMinute int, now func() time.Time) *attempts {
	return &attempts{
		now: now, burst: float64(perMinute), every: time.Minute / time.Duration(perMinute),
		addresses: make(map[netip.Prefix]*list.Element), recent: list.New(),
	}
}

// begin admits an attempt of the client at remote, or returns a
// *control.RateLimitedError. done must be called when the attempt is over.
func (a *attempts) begin(remote string) (done func(refused bool), err error) {
	address := addressOf(remote)
	a.mu.Lock()
	defer a.mu.Unlock()
	allowed := a.refill(address)
	switch {
	case allowed.left < 1:
		return nil, &control.RateLimitedError{RetryAfter: time.Duration((1 - allowed.left) * float64(a.every))}
	case allowed.inFlight >= maxInFlight:
		return nil, &control.RateLimitedError{} // at once: they take moments
	}
	allowed.inFlight++
	return func(refused bool) {
		a.mu.Lock()
		defer a.mu.Unlock()
		allowed.inFlight--
		if refused {
			allowed.left--
		}
	}, nil
}

// refill returns an address's allowance as it is now.
func (a *attempts) refill(address netip.Prefix) *allowance {
	now := a.now()
	if element, ok := a.addresses[address]; ok {
		a.recent.MoveToFront(element)
		left, _ := element.Value.(*allowance)
		left.left = min(left.left+float64(now.Sub(left.at))/float64(a.every), a.burst)
		left.at = now
		return left
	}
	if a.recent.Len() >= maxAddresses {
		oldest, _ := a.recent.Remove(a.recent.Back()).(*allowance)
		delete(a.addresses, oldest.address)
	}
	left := &allowance{address: address, left: a.burst, at: now}
	a.addresses[address] = a.recent.PushFront(left)
	return left
}

// addressOf returns the address that limits apply to: for IPv6 the /64, which
// one subscriber has whole. What cannot be read shares one place.
func addressOf(remote string) netip.Prefix {
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		return netip.Prefix{}
	}
	address, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	address = address.Unmap().WithZone("")
	bits := 32
	if address.Is6() {
		bits = 64
	}
	prefix, err := address.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}
