package server

import (
	"net"
	"net/netip"
	"sync"
)

// gate bounds connections that have not proven who they are, in total and per
// network, by closing the ones beyond at once.
type gate struct {
	net.Listener
	total, perPrefix int
	turnedAway       func(limit string)

	mu       sync.Mutex // guards the following fields
	waiting  int
	prefixes map[netip.Prefix]int
}

func newGate(listener net.Listener, total, perPrefix int, turnedAway func(limit string)) *gate {
	return &gate{
		Listener: listener, total: total, perPrefix: perPrefix, turnedAway: turnedAway,
		prefixes: make(map[netip.Prefix]int),
	}
}

// Accept returns the next connection within the limits. The pause after an
// error (no free descriptors) is the HTTP server's.
func (g *gate) Accept() (net.Conn, error) {
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			return nil, err
		}
		prefix := networkOf(conn.RemoteAddr())
		if limit := g.enter(prefix); limit != "" {
			_ = conn.Close()
			g.turnedAway(limit)
			continue
		}
		return &gated{Conn: conn, leave: sync.OnceFunc(func() { g.leave(prefix) })}, nil
	}
}

// enter counts a connection, or names the limit that it meets.
func (g *gate) enter(prefix netip.Prefix) (limit string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.waiting >= g.total:
		return "total"
	case g.prefixes[prefix] >= g.perPrefix:
		return "prefix"
	}
	g.waiting++
	g.prefixes[prefix]++
	return ""
}

func (g *gate) leave(prefix netip.Prefix) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting--
	if g.prefixes[prefix]--; g.prefixes[prefix] == 0 {
		delete(g.prefixes, prefix)
	}
}

// unauthenticated is how many connections count towards the limits.
func (g *gate) unauthenticated() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.waiting
}

// networkOf is what one party can easily have many addresses in.
func networkOf(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := 48
	if ip.Is4() {
		bits = 24
	}
	prefix, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	return prefix
}

// gated is a connection that counts until it is closed or has proven itself.
type gated struct {
	net.Conn
	leave func()
}

func (c *gated) Close() error {
	c.leave()
	return c.Conn.Close()
}
