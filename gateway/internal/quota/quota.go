// Package quota keeps traffic within the allowances of subscriptions: how many bytes
// all sessions of one may move through this process since it began. An allowance
// grows by grants of the control plane; until one comes, what has used it up waits.
package quota

import (
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// renewAfter is when the control plane hears of a lease again without a reason: a
	// third of the time after which it would give it to others.
	renewAfter = 20 * time.Second
	// askAgain is when an allowance is asked for again that nothing is left of.
	askAgain = time.Second
	// reviewAgain is when sessions are to be asked about again that cannot go on.
	reviewAgain = 10 * time.Second
	// giveUp is how long a lease is offered back: it has ended by itself then.
	giveUp = 2 * time.Minute
	// maxSubscriptions bounds the subscriptions that a process knows, of most of which
	// it knows a number.
	maxSubscriptions = 1 << 20

	endless = math.MaxInt64
)

// ErrFull says that this process knows as many subscriptions as it may.
var ErrFull = errors.New("too many subscriptions")

// State says what may be done with a subscription's traffic.
type State string

// The states.
const (
	Unlimited State = "unlimited" // there is no quota
	Open      State = "open"      // as much as the allowance says
	Exhausted State = "exhausted" // what is left of the allowance, and nothing then
	Throttled State = "throttled" // whatever the allowance says, and slowly
	Unknown   State = "unknown"   // the control plane knows no lease: it has to be asked about the sessions
)

// Grant is the control plane's word about a subscription.
type Grant struct {
	Subscription string
	State        State
	Version      int64 // of the lease: the later one has the higher
	Allowance    int64 // bytes that may have moved since the process began
	ThrottleBPS  int64 // of Throttled
	Level        Level
}

// Level is how much is used of a quota, everywhere, as far as the control plane knows.
// The zero value is that of no quota.
type Level struct {
	Quota, Used int64 // bytes
	Reached     int   // the highest percentage that is to be warned of and was reached; 0: none
}

// Request asks for a grant.
type Request struct {
	Subscription string
	Used         int64 // bytes since the process began
	Version      int64 // of the lease that is held
	GiveBack     bool  // what is not used
}

// Book knows the subscriptions of this process.
type Book struct {
	limit int           // of subscriptions
	wake  chan struct{} // holds one token when somebody wants more

	mu       sync.Mutex // guards the following fields
	accounts map[string]*account
	past     map[string]int64 // what was moved of those that have no account any more

	wanting sync.Mutex // guards the following field; the last one to be locked
	wants   map[*account]struct{}
}

// NewBook returns a Book without subscriptions.
func NewBook() *Book {
	return &Book{
		limit: maxSubscriptions, wake: make(chan struct{}, 1),
		accounts: make(map[string]*account), past: make(map[string]int64), wants: make(map[*account]struct{}),
	}
}

// account is a subscription. Lock its own mutex after the book's.
type account struct {
	book         *Book
	subscription string

	taken     atomic.Int64 // bytes that have moved, and those that are about to
	allowance atomic.Int64
	askAt     atomic.Int64 // when so much is taken, more is wanted
	low       atomic.Bool  // more is wanted
	waiting   atomic.Int32 // who has nothing

	mu       sync.Mutex // guards the following fields
	uses     map[*Use]struct{}
	gone     int64 // bytes of uses that have ended
	state    State
	level    Level
	version  int64
	throttle int64
	asked    time.Time // when the question was asked that the state answers
	told     time.Time // when it was answered
	reviewed time.Time
	idle     time.Time     // since when there is no use
	offered  bool          // back, since then
	more     chan struct{} // closed when more may be there; nil: nobody waits
}

// Use is what one session has of its subscription. Its methods may be called at the
// same time.
type Use struct {
	account *account
	moved   func() int64
	slow    func(bps int64)
	free    atomic.Bool // another subscription carries the session, which is not counted
	changed func()      // guarded by the account's mutex; see Watch
}

// Begin lets a session of a subscription begin, with the grant that came in answer
// to a question; none means that there is no quota. moved tells how many bytes the
// session has moved, slow is told how fast it may be: 0 is no limit. Both are called
// with locks held. The error is [ErrFull].
func (b *Book) Begin(subscription string, grant *Grant, asked time.Time, moved func() int64, slow func(bps int64)) (*Use, error) {
	u := &Use{moved: moved, slow: slow}
	b.mu.Lock()
	a := b.accounts[subscription]
	if a == nil {
		if _, known := b.past[subscription]; !known && len(b.accounts)+len(b.past) >= b.limit {
			b.mu.Unlock()
			return nil, ErrFull
		}
		a = b.open(subscription)
	}
	a.mu.Lock()
	b.mu.Unlock()
	defer a.mu.Unlock()
	u.account = a
	a.uses[u] = struct{}{}
	a.offered = false
	a.grant(grant, asked)
	slow(a.throttle)
	return u, nil
}

// open makes an account. Called with mu held.
func (b *Book) open(subscription string) *account {
	a := &account{book: b, subscription: subscription, uses: make(map[*Use]struct{}), state: Unlimited, gone: b.past[subscription]}
	delete(b.past, subscription)
	a.taken.Store(a.gone)
	a.askAt.Store(endless)
	b.accounts[subscription] = a
	return a
}

// Rest has a session keep to another answer about it: the subscription that carries
// it, and the grant of that. What the session moves counts for the one that it began
// with.
func (u *Use) Rest(subscription string, grant *Grant, asked time.Time) {
	a := u.account
	a.mu.Lock()
	defer a.mu.Unlock()
	free := subscription != a.subscription
	u.free.Store(free)
	if free {
		u.slow(0)
		a.signal()
		return
	}
	u.slow(a.throttle)
	a.grant(grant, asked)
}

// Level is how much is used of the quota that the session draws from.
func (u *Use) Level() Level {
	a := u.account
	a.mu.Lock()
	defer a.mu.Unlock()
	if u.free.Load() {
		return Level{}
	}
	return a.level
}

// Watch has changed called each time that another percentage of the quota is reached,
// with locks held.
func (u *Use) Watch(changed func()) {
	a := u.account
	a.mu.Lock()
	defer a.mu.Unlock()
	u.changed = changed
}

// End says that the session moves nothing any more.
func (u *Use) End() {
	a := u.account
	a.book.mu.Lock()
	defer a.book.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	u.slow(0)
	delete(a.uses, u)
	a.gone += u.moved()
	if len(a.uses) > 0 {
		return
	}
	if a.state == Unlimited {
		a.book.close(a)
		return
	}
	a.idle = time.Now()
	a.ask()
}

// close forgets an account but for what was moved. Called with both mutexes held.
func (b *Book) close(a *account) {
	delete(b.accounts, a.subscription)
	b.past[a.subscription] = a.gone
}

// Reserve returns how many of n bytes may move now, from 0; [Use.Return] takes back
// what does not. n is at least 1.
func (u *Use) Reserve(n int) int {
	a := u.account
	if u.free.Load() {
		a.taken.Add(int64(n))
		return n
	}
	for {
		taken := a.taken.Load()
		left := a.allowance.Load() - taken
		if left <= 0 {
			return 0
		}
		k := min(int64(n), left)
		if !a.taken.CompareAndSwap(taken, taken+k) {
			continue
		}
		if at := a.askAt.Load(); taken+k >= at && a.askAt.CompareAndSwap(at, endless) {
			a.low.Store(true)
			a.ask()
		}
		return int(k)
	}
}

// Overdraw reserves n bytes that are not there.
func (u *Use) Overdraw(n int) { u.account.taken.Add(int64(n)) }

// Return takes n reserved bytes back.
func (u *Use) Return(n int) {
	if n == 0 {
		return
	}
	a := u.account
	a.taken.Add(int64(-n))
	if a.waiting.Load() > 0 {
		a.mu.Lock()
		a.signal()
		a.mu.Unlock()
	}
}

// Left reports whether there is something to reserve.
func (u *Use) Left() bool {
	a := u.account
	return u.free.Load() || a.allowance.Load() > a.taken.Load()
}

// Wait waits until there is something to reserve, and reports false when done was
// closed before.
func (u *Use) Wait(done <-chan struct{}) bool {
	if u.Left() {
		return true
	}
	a := u.account
	a.waiting.Add(1)
	defer a.waiting.Add(-1)
	for {
		a.mu.Lock()
		if a.more == nil {
			a.more = make(chan struct{})
		}
		more := a.more
		a.mu.Unlock()
		if u.Left() {
			return true
		}
		a.ask()
		select {
		case <-more:
		case <-done:
			return false
		}
	}
}

// signal wakes who waits. Called with mu held.
func (a *account) signal() {
	if a.more != nil {
		close(a.more)
		a.more = nil
	}
}

// used is what was moved. Called with mu held.
func (a *account) used() int64 {
	n := a.gone
	for u := range a.uses {
		n += u.moved()
	}
	return n
}

// grant takes a grant, unless a later one is known. Called with mu held.
func (a *account) grant(g *Grant, asked time.Time) {
	if g == nil {
		g = &Grant{State: Unlimited}
	}
	later := !asked.Before(a.asked)
	if g.Version > 0 && a.version > 0 && g.Version != a.version {
		later = g.Version > a.version
	}
	if !later {
		return
	}
	a.state, a.version, a.told = g.State, g.Version, time.Now()
	if asked.After(a.asked) {
		a.asked = asked
	}
	if g.State != Unknown {
		a.reach(g.Level)
	}
	switch g.State {
	case Unknown: // until it is known what that means, nothing changes
	case Unlimited:
		a.allow(endless, 0)
	case Throttled:
		a.allow(endless, g.ThrottleBPS)
	default:
		a.allow(g.Allowance, 0)
	}
}

// reach notes how much is used of the quota. Called with mu held.
func (a *account) reach(level Level) {
	another := level.Reached != a.level.Reached
	a.level = level
	for u := range a.uses {
		if another && u.changed != nil {
			u.changed()
		}
	}
}

// allow sets what may be moved, and how fast. Called with mu held.
func (a *account) allow(allowance, throttle int64) {
	if before := a.allowance.Load(); allowance != before { // else there is no more to be had, and it was asked for
		askAt := int64(endless)
		if taken := a.taken.Load(); allowance != endless && allowance > taken {
			askAt = taken + (allowance-taken)/2
		}
		a.allowance.Store(allowance)
		a.askAt.Store(askAt)
	}
	a.throttle = throttle
	for u := range a.uses {
		if !u.free.Load() {
			u.slow(throttle)
		}
	}
	a.signal()
}
