package protocol

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	maxNames         = 256 // that one flow remembers
	maxNameLookups   = 8   // at once
	maxNameDatagrams = 32  // that wait for them
	// nameTimeout bounds the wait, that for a place included.
	nameTimeout = 5 * time.Second
	// An answer is good for so long, a failure for less: it may pass.
	nameLife        = 60 * time.Second
	nameFailureLife = 5 * time.Second
)

// names looks up the names that one flow sends to, beside its other datagrams.
type names struct {
	flow   *flow
	dialer dialer
	asking sync.WaitGroup

	mu      sync.Mutex // guards the following fields
	known   map[wire.Addr]*name
	queue   []*name // to be asked for
	lookups int     // goroutines that ask
	waiting int     // datagrams
}

// name is what is known of one.
type name struct {
	target  wire.Addr
	until   time.Time // zero before the answer
	addrs   []netip.AddrPort
	failure string   // why there are none
	waiting [][]byte // datagrams
}

func newNames(f *flow, d dialer) *names {
	return &names{flow: f, dialer: d, known: make(map[wire.Addr]*name)}
}

// send sends a copy of p to target as soon as its address is known. ctx bounds
// the look-up.
func (n *names) send(ctx context.Context, target wire.Addr, p []byte) {
	if answer := n.answer(ctx, target, p); answer != nil {
		n.deliver(answer, p)
	}
}

// answer returns what is known of target, or has p wait for it.
func (n *names) answer(ctx context.Context, target wire.Addr, p []byte) *name {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	found := n.known[target]
	answered := found != nil && !found.until.IsZero()
	switch {
	case answered && now.Before(found.until):
		return found
	case n.waiting == maxNameDatagrams:
		n.flow.drop(dropLookups)
		return nil
	case found == nil || answered:
		n.makeRoom(now)
		found = &name{target: target}
		n.known[target] = found
		n.queue = append(n.queue, found)
		if n.lookups < maxNameLookups {
			n.lookups++
			n.asking.Go(func() { n.ask(ctx) })
		}
	}
	n.waiting++
	found.waiting = append(found.waiting, append([]byte(nil), p...))
	return nil
}

// makeRoom forgets what is too old, or something. Of those that are asked for
// there are never too many, because a datagram waits for each. Called with mu
// held.
func (n *names) makeRoom(now time.Time) {
	if len(n.known) < maxNames {
		return
	}
	var any wire.Addr
	for target, known := range n.known {
		switch {
		case known.until.IsZero():
		case now.Before(known.until):
			any = target
		default:
			delete(n.known, target)
		}
	}
	if len(n.known) >= maxNames {
		delete(n.known, any)
	}
}

// ask looks up names as long as some wait.
func (n *names) ask(ctx context.Context) {
	for {
		asked := n.next(ctx)
		if asked == nil {
			return
		}
		addrs, err := n.lookup(ctx, asked.target)
		for _, p := range n.learn(asked, addrs, err) {
			n.deliver(asked, p)
		}
	}
}

// next returns the next name to look up. Without one the caller has to end.
func (n *names) next(ctx context.Context) *name {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.queue) == 0 || ctx.Err() != nil {
		n.lookups--
		return nil
	}
	next := n.queue[0]
	n.queue = n.queue[1:]
	return next
}

// lookup takes the places that a dial takes.
func (n *names) lookup(ctx context.Context, target wire.Addr) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, nameTimeout)
	defer cancel()
	leave, err := n.dialer.enter(ctx, n.flow.muxed, n.flow.muxed.Done())
	if err != nil {
		return nil, err
	}
	defer leave()
	return n.dialer.packets.Resolve(ctx, target)
}

// learn keeps the answer, and returns the datagrams that waited for it.
func (n *names) learn(asked *name, addrs []netip.AddrPort, err error) [][]byte {
	n.mu.Lock()
	defer n.mu.Unlock()
	asked.addrs, asked.until = addrs, time.Now().Add(nameLife)
	if err != nil {
		asked.until = time.Now().Add(nameFailureLife)
		asked.failure = dropDNS
		if CodeOf(err) == wire.CodePolicyDenied {
			asked.failure = dropDenied
		}
	}
	waited := asked.waiting
	asked.waiting = nil
	n.waiting -= len(waited)
	return waited
}

// deliver sends p to a name whose answer is there, which does not change any
// more.
func (n *names) deliver(to *name, p []byte) {
	if to.failure != "" {
		n.flow.drop(to.failure)
		return
	}
	n.flow.sendAny(to.addrs, p)
}

// wait returns when no look-up is under way; none begins any more.
func (n *names) wait() { n.asking.Wait() }
