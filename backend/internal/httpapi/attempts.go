package httpapi

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

const maxAddresses = 10000

// attempts bounds how often an address may try to redeem codes. An attempt that
// succeeds is given back: honest devices behind one address are not held up by
// each other. The addresses seen longest ago are forgotten first.
type attempts struct {
	now   func() time.Time
	burst float64
	every time.Duration // one attempt comes back

	mu        sync.Mutex // guards what follows
	addresses map[netip.Prefix]*list.Element
	recent    *list.List // of *allowance, most recent first
}

type allowance struct {
	address netip.Prefix
	left    float64
	at      time.Time
}

func newAttempts(perMinute int, now func() time.Time) *attempts {
	return &attempts{
		now: now, burst: float64(perMinute), every: time.Minute / time.Duration(perMinute),
		addresses: make(map[netip.Prefix]*list.Element), recent: list.New(),
	}
}

// take uses up an attempt of the client at remote, or returns a
// *control.RateLimitedError. The attempt comes back when giveBack is called.
func (a *attempts) take(remote string) (giveBack func(), err error) {
	address := addressOf(remote)
	a.mu.Lock()
	defer a.mu.Unlock()
	left := a.refill(address)
	if left.left < 1 {
		return nil, &control.RateLimitedError{RetryAfter: time.Duration((1 - left.left) * float64(a.every))}
	}
	left.left--
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		left.left = min(left.left+1, a.burst)
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
