package linkem

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
)

// device is the name of the link's interface in both namespaces.
const device = "link0"

// Addresses from the ranges for documentation: nothing else has them, and no
// default policy takes them for a private network.
var (
	client4 = netip.MustParseAddr("192.0.2.1")
	client6 = netip.MustParseAddr("2001:db8:c::1")
	server4 = netip.MustParseAddr("198.51.100.1")
	server6 = netip.MustParseAddr("2001:db8:5::1")
)

// Link is a running link. Its methods may be called at any time from any
// goroutine.
type Link struct {
	// Client and Server are its two ends.
	Client, Server *Namespace

	up, down *way
	pumps    sync.WaitGroup
	wake     *wakeup

	mu      sync.Mutex // guards the following
	closed  bool
	pumpErr error // why pumps stopped of themselves
}

// Open makes both namespaces and the link between them. It needs root; Supported
// says whether it can work here. The link runs until Close.
func Open(config Config) (*Link, error) {
	if err := config.Validate(); err != nil {
		return nil, fmt.Errorf("link: %w", err)
	}
	l := &Link{}
	if err := l.open(config); err != nil {
		return nil, fmt.Errorf("link: %w", errors.Join(err, l.Close()))
	}
	return l, nil
}

func (l *Link) open(config Config) error {
	var err error
	if l.wake, err = newWakeup(); err != nil {
		return err
	}
	if l.Client, err = newNamespace("client", client4, client6, config); err != nil {
		return err
	}
	if l.Server, err = newNamespace("server", server4, server6, config); err != nil {
		return err
	}
	up, down := config.paths()
	l.up = newWay(up, config.mtu(), config.Seed, uint64(Up), l.Server.tun.send)
	l.down = newWay(down, config.mtu(), config.Seed, uint64(Down), l.Client.tun.send)
	l.pumps.Go(func() { l.run(l.up, l.Client.tun) })
	l.pumps.Go(func() { l.run(l.down, l.Server.tun) })
	return nil
}

func (l *Link) run(w *way, from *tun) {
	if err := pump(w, from, l.wake); err != nil {
		l.mu.Lock()
		l.pumpErr = errors.Join(l.pumpErr, err)
		l.mu.Unlock()
	}
}

// Close ends the link, waits for its goroutines and removes its devices. It
// reports what went wrong while the link ran, if anything did; a second Close
// does nothing. Sockets and processes that are left in a namespace keep it
// alive until they are gone.
func (l *Link) Close() error {
	l.mu.Lock()
	again := l.closed
	l.closed = true
	l.mu.Unlock()
	if again {
		return nil
	}
	var problems []error
	if l.wake != nil {
		problems = append(problems, l.wake.all())
	}
	l.pumps.Wait()
	problems = append(problems, l.pumpErr)
	for _, n := range []*Namespace{l.Client, l.Server} {
		if n != nil {
			problems = append(problems, n.close())
		}
	}
	if l.wake != nil {
		problems = append(problems, l.wake.close())
	}
	return errors.Join(problems...)
}

// Cut drops every packet in both directions, those under way too, until
// Restore. Both ends see nothing but silence. Nothing is delivered once Cut has
// returned.
func (l *Link) Cut() {
	l.Blackhole(Up)
	l.Blackhole(Down)
}

// Blackhole is Cut for one direction.
func (l *Link) Blackhole(d Direction) { l.way(d).block() }

// Restore ends every Cut and Blackhole.
func (l *Link) Restore() {
	l.up.unblock()
	l.down.unblock()
}

// ChangeAddress gives the client another address of addr's family, and routes
// everything from it, as when a phone changes networks: what is on its way to the
// old address is lost, and connections from it hear nothing more, not even that
// they are dead.
func (l *Link) ChangeAddress(addr netip.Addr) error {
	if err := l.Client.changeAddress(addr); err != nil {
		return fmt.Errorf("change address to %v: %w", addr, err)
	}
	return nil
}

// Stats returns what one direction did so far.
func (l *Link) Stats(d Direction) Stats { return l.way(d).snapshot() }

func (l *Link) way(d Direction) *way {
	if d == Up {
		return l.up
	}
	return l.down
}
