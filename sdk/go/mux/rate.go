package mux

import "time"

// bucket pays for opens: it holds burst of them and gains rate per second
// (docs/03, part 6). The zero time means full.
type bucket struct {
	burst, rate uint64
	next        time.Time // when the bucket is full again, at the earliest
}

// take pays one open and reports how long the caller must wait before it may
// use it. With a limit, an open that would wait longer than that is not paid
// and ok is false.
func (b *bucket) take(now time.Time, limit time.Duration) (wait time.Duration, ok bool) {
	interval := time.Second / time.Duration(b.rate)
	if b.next.Before(now) {
		b.next = now
	}
	next := b.next.Add(interval)
	wait = max(0, next.Sub(now.Add(interval*time.Duration(b.burst))))
	if wait > limit {
		return 0, false
	}
	b.next = next
	return wait, true
}

// giveBack takes back the payment of an open that waited and will not be made. Who
// pays next waits less for it, and never less than the rate asks.
func (b *bucket) giveBack() { b.next = b.next.Add(-time.Second / time.Duration(b.rate)) }
