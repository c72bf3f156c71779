// Package gate bounds the connections of strangers at a listener: how many
// there are, in total and per network, and how long each of them lasts. So
// nobody can use up the descriptors of a process without proving who he is.
package gate

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// Descriptors is the limit that is met when the process may open no more files.
const Descriptors = "descriptors"

// Tell returns what New may call: it counts each limit that was met, and tells log,
// at most once a minute, when the process may open no more files.
func Tell(count func(limit string), log *slog.Logger) func(limit string) {
	var (
		mu   sync.Mutex
		last time.Time
	)
	return func(limit string) {
		count(limit)
		if limit != Descriptors {
			return
		}
		mu.Lock()
		defer mu.Unlock()
		if now := time.Now(); now.Sub(last) >= time.Minute {
			last = now
			log.Warn("connections wait: the process may open no more files", "limit_nofile", descriptors())
		}
	}
}

// Limits bound connections whose other end has not proven who it is.
type Limits struct {
	Total     int           // at once
	PerPrefix int           // at once from one IPv4 /24 or IPv6 /48
	Life      time.Duration // from accept to the end, whatever happens on it
}

// Gate is a listener that closes the connections beyond its limits at once.
type Gate struct {
	net.Listener
	turnedAway func(limit string)
	closing    sync.Once
	closed     chan struct{}

	mu       sync.Mutex // guards the following fields
	limits   Limits     // Life never changes
	waiting  int
	prefixes map[netip.Prefix]int // connections that count for their network
	vouched  map[netip.Prefix]int // those that do not, as they were vouched for
}

// The pauses of an Accept without free descriptors.
const (
	minPause = 5 * time.Millisecond
	maxPause = time.Second
)

// vouchedShare of the total may have been vouched for in one network. Many devices
// may share an address; but a knock is no proof, and one of them may be without end.
const vouchedShare = 2

// descriptorShare is the part of the process's descriptors that the strangers of
// one gate may have. A process has up to three gates, and what is let in needs
// descriptors of its own.
const descriptorShare = 8

// affordable lowers a total to what the process has descriptors for.
func affordable(total int, descriptors uint64) int {
	if share := descriptors / descriptorShare; descriptors > 0 && share < uint64(total) {
		return max(1, int(share))
	}
	return total
}

// Limit sets other limits for who comes from now on, as New does; who is here
// stays. Life is that of New.
func (g *Gate) Limit(total, perPrefix int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits.Total, g.limits.PerPrefix = affordable(total, descriptors()), perPrefix
}

// New returns a gate before listener. It calls turnedAway with the limit
// ("total" or "prefix") that a connection met, or with "descriptors" when the
// process may open no more files: then connections wait before the gate. Where the process may open few
// files, the total is an eighth of that and not what limits say.
func New(listener net.Listener, limits Limits, turnedAway func(limit string)) *Gate {
	limits.Total = affordable(limits.Total, descriptors())
	return &Gate{
		Listener: listener, limits: limits, turnedAway: turnedAway, closed: make(chan struct{}),
		prefixes: make(map[netip.Prefix]int),
		vouched:  make(map[netip.Prefix]int),
	}
}

// Accept returns the next connection within the limits. Without free descriptors
// it tries again after ever longer pauses.
func (g *Gate) Accept() (net.Conn, error) {
	pause := minPause
	for {
		conn, err := g.Listener.Accept()
		if err != nil {
			if !errors.Is(err, syscall.EMFILE) && !errors.Is(err, syscall.ENFILE) {
				return nil, err
			}
			g.turnedAway(Descriptors)
			select {
			case <-time.After(pause):
				pause = min(2*pause, maxPause)
				continue
			case <-g.closed:
				return nil, net.ErrClosed
			}
		}
		pause = minPause
		prefix := networkOf(conn.RemoteAddr())
		if limit := g.enter(prefix); limit != "" {
			_ = conn.Close()
			g.turnedAway(limit)
			continue
		}
		s := &stranger{Conn: conn, gate: g, prefix: prefix}
		s.end = time.AfterFunc(g.limits.Life, func() {
			_ = conn.Close()
			g.leave(s)
		})
		return s, nil
	}
}

// Close closes the listener and ends a pause of Accept.
func (g *Gate) Close() error {
	g.closing.Do(func() { close(g.closed) })
	return g.Listener.Close()
}

// enter counts a connection, or names the limit that it meets.
func (g *Gate) enter(prefix netip.Prefix) (limit string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case g.waiting >= g.limits.Total:
		return "total"
	case g.prefixes[prefix] >= g.limits.PerPrefix:
		return "prefix"
	}
	g.waiting++
	g.prefixes[prefix]++
	return ""
}

// vouch has a stranger no longer count for its network, if there is room.
func (g *Gate) vouch(s *stranger) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.gone || s.isVouched || g.vouched[s.prefix] >= max(1, g.limits.Total/vouchedShare) {
		return
	}
	g.uncount(s)
	s.isVouched = true
	g.vouched[s.prefix]++
}

// leave has a stranger no longer count at all.
func (g *Gate) leave(s *stranger) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s.gone {
		return
	}
	s.gone = true
	g.uncount(s)
	g.waiting--
}

// uncount takes a stranger off its network. Called with mu held.
func (g *Gate) uncount(s *stranger) {
	counts := g.prefixes
	if s.isVouched {
		counts = g.vouched
	}
	if counts[s.prefix]--; counts[s.prefix] == 0 {
		delete(counts, s.prefix)
	}
}

// Strangers is how many connections count towards the limits.
func (g *Gate) Strangers() int {
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

// stranger is a connection that counts until it is closed or has proven itself.
type stranger struct {
	net.Conn
	gate   *Gate
	prefix netip.Prefix
	end    *time.Timer

	// Guarded by Gate.mu.
	isVouched bool // it no longer counts for its network
	gone      bool // it no longer counts at all
}

func (s *stranger) Close() error {
	err := s.Conn.Close() // first: the place is free when the descriptor is
	s.pass()
	return err
}

// SyscallConn lets who knows sockets of the system's find this one.
func (s *stranger) SyscallConn() (syscall.RawConn, error) {
	if conn, ok := s.Conn.(syscall.Conn); ok {
		return conn.SyscallConn()
	}
	return nil, errors.ErrUnsupported
}

func (s *stranger) pass() {
	s.end.Stop()
	s.gate.leave(s)
}

type contextKey struct{}

// ConnContext is for http.Server: it lets Pass find the connection of a request.
func ConnContext(ctx context.Context, conn net.Conn) context.Context {
	for {
		switch c := conn.(type) {
		case *stranger:
			return context.WithValue(ctx, contextKey{}, c)
		case interface{ NetConn() net.Conn }: // TLS, and what lies between it and the gate
			conn = c.NetConn()
		default:
			return ctx
		}
	}
}

// Vouch frees the connection of a request from the limit of its network, and from
// no other: its other end is no passer-by, although it has not proven who it is.
// Many such may share one address, but not all that there may be. Without a gate before the server it does
// nothing.
func Vouch(ctx context.Context) {
	if s, ok := ctx.Value(contextKey{}).(*stranger); ok {
		s.gate.vouch(s)
	}
}

// Pass frees the connection of a request from all limits: its other end has
// proven who it is. Without a gate before the server it does nothing.
func Pass(ctx context.Context) {
	if s, ok := ctx.Value(contextKey{}).(*stranger); ok {
		s.pass()
	}
}
