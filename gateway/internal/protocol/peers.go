package protocol

import (
	"container/list"
	"net/netip"
	"sync"
)

// What a flow remembers of its peers, docs/03, part 6.1.
const (
	maxPeers = 256 // the latest of them
	// To a peer that has not answered yet go so many datagrams and bytes: what a
	// device pretends to be in need of, nobody may have asked for.
	maxUnanswered      = 30
	maxUnansweredBytes = 15_000
)

// peers are the addresses that one flow has sent to.
type peers struct {
	mu     sync.Mutex // guards the following fields
	table  map[netip.AddrPort]*list.Element
	recent list.List // of *peer, the latest in front
	others int       // whose port is not portDNS
}

type peer struct {
	addr             netip.AddrPort
	answered         bool
	datagrams, bytes int // sent before
}

func (p *peers) init() { p.table = make(map[netip.AddrPort]*list.Element) }

// admit notes that size bytes go to addr, unless enough did without an answer.
// It reports whether the peer is a new one.
func (p *peers) admit(addr netip.AddrPort, size int) (added, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, known := p.table[addr]
	if !known {
		if len(p.table) == maxPeers {
			p.remove(p.recent.Back())
		}
		e = p.recent.PushFront(&peer{addr: addr})
		p.table[addr] = e
		if addr.Port() != portDNS {
			p.others++
		}
	}
	p.recent.MoveToFront(e)
	to := e.Value.(*peer) //nolint:errcheck // the list has no others
	if to.answered {
		return false, true
	}
	if to.datagrams+1 > maxUnanswered || to.bytes+size > maxUnansweredBytes {
		if !known { // one datagram that is too long already
			p.remove(e)
		}
		return false, false
	}
	to.datagrams++
	to.bytes += size
	return !known, true
}

// answered reports whether the flow has sent to addr, which has answered now.
func (p *peers) answered(addr netip.AddrPort) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	e, known := p.table[addr]
	if known {
		e.Value.(*peer).answered = true //nolint:errcheck // the list has no others
		p.recent.MoveToFront(e)
	}
	return known
}

// forget removes addr.
func (p *peers) forget(addr netip.AddrPort) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if e, known := p.table[addr]; known {
		p.remove(e)
	}
}

// remove takes one off the table. Called with mu held.
func (p *peers) remove(e *list.Element) {
	addr := p.recent.Remove(e).(*peer).addr //nolint:errcheck // the list has no others
	delete(p.table, addr)
	if addr.Port() != portDNS {
		p.others--
	}
}

// onlyDNS reports whether there are peers, and all of them are name servers.
func (p *peers) onlyDNS() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.table) > 0 && p.others == 0
}
