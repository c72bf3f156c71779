package quota

import (
	"slices"
	"time"
)

// ask has somebody look at the account. It may be called with mutexes held.
func (a *account) ask() {
	b := a.book
	b.wanting.Lock()
	b.wants[a] = struct{}{}
	b.wanting.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// Wake has something to say when [Book.Wanted] has.
func (b *Book) Wake() <-chan struct{} { return b.wake }

// Due is what is to be asked.
type Due struct {
	Grants []Request
	// Review are subscriptions whose sessions cannot go on: whether they may is to be
	// asked.
	Review []string
}

// Wanted returns what is due of the subscriptions that want something since the last
// call, and of no other.
func (b *Book) Wanted(now time.Time) Due {
	b.wanting.Lock()
	wants := b.wants
	b.wants = make(map[*account]struct{})
	b.wanting.Unlock()
	var due Due
	b.mu.Lock()
	defer b.mu.Unlock()
	for a := range wants {
		if b.accounts[a.subscription] == a {
			b.look(a, now, &due)
		}
	}
	return due
}

// All returns what is due of all subscriptions. It is to be called each second.
func (b *Book) All(now time.Time) Due {
	var due Due
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.accounts {
		b.look(a, now, &due)
	}
	return due
}

// look adds what is due of an account. Called with mu held.
func (b *Book) look(a *account, now time.Time, due *Due) {
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case len(a.uses) == 0 && now.Sub(a.idle) >= giveUp:
		b.close(a)
		return
	case len(a.uses) == 0:
		a.allow(min(a.allowance.Load(), a.taken.Load()), 0)
		a.offered = true
		due.Grants = append(due.Grants, Request{Subscription: a.subscription, Used: a.used(), Version: a.version, GiveBack: true})
		return
	case a.state == Unlimited:
		return
	}
	left := a.allowance.Load() > a.taken.Load()
	since := now.Sub(a.told)
	if a.low.Swap(false) || since >= renewAfter || !left && since >= askAgain {
		due.Grants = append(due.Grants, Request{Subscription: a.subscription, Used: a.used(), Version: a.version})
	}
	if (a.state == Unknown || a.state == Exhausted && !left) && now.Sub(a.reviewed) >= reviewAgain {
		a.reviewed = now
		due.Review = append(due.Review, a.subscription)
	}
}

// Held returns up to n leases that are in use, those first that the control plane has
// not heard of for longest.
func (b *Book) Held(n int) []Request {
	type held struct {
		Request
		told time.Time
	}
	var list []held
	b.mu.Lock()
	for _, a := range b.accounts {
		a.mu.Lock()
		if len(a.uses) > 0 && a.state != Unlimited {
			list = append(list, held{Request{Subscription: a.subscription, Used: a.used(), Version: a.version}, a.told})
		}
		a.mu.Unlock()
	}
	b.mu.Unlock()
	slices.SortFunc(list, func(x, y held) int { return x.told.Compare(y.told) })
	requests := make([]Request, 0, min(n, len(list)))
	for _, h := range list[:min(n, len(list))] {
		requests = append(requests, h.Request)
	}
	return requests
}

// Apply takes the grants that came in answer to a question.
func (b *Book) Apply(grants []Grant, asked time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, g := range grants {
		a := b.accounts[g.Subscription]
		if a == nil {
			continue
		}
		a.mu.Lock()
		a.grant(&g, asked)
		if len(a.uses) == 0 && a.offered {
			b.close(a)
		}
		a.mu.Unlock()
	}
}

// Again has requests that got no answer made again, by the next call of All.
func (b *Book) Again(requests []Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, r := range requests {
		if a := b.accounts[r.Subscription]; a != nil {
			a.low.Store(true)
		}
	}
}

// Stats are for people.
type Stats struct {
	Leases  int // subscriptions in use that have a quota
	Stopped int // those of them that nothing is left of
}

// Stats returns how things are.
func (b *Book) Stats() Stats {
	var s Stats
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, a := range b.accounts {
		a.mu.Lock()
		if len(a.uses) > 0 && a.state != Unlimited {
			s.Leases++
			if a.allowance.Load() <= a.taken.Load() {
				s.Stopped++
			}
		}
		a.mu.Unlock()
	}
	return s
}
