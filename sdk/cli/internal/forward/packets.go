package forward

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/cli/internal/relay"
)

const (
	// maxSources is how many programs' sockets have a flow at once. Another one
	// takes the place of the one that has been idle for longest.
	maxSources = 1024

	// maxEarly is how many datagrams of a source wait for its flow; the oldest is
	// dropped for another.
	maxEarly = 32

	// idleAfter is when a source is forgotten that nothing came from or to. Those
	// who ask a name server take another port for every question.
	idleAfter    = 60 * time.Second
	idleAfterDNS = 10 * time.Second

	// crowded is how long a source waits for a flow before one that has been idle
	// for longest, and for restful at least, gives way to it, and so on: a session
	// has few flows.
	crowded = 20 * time.Millisecond
	restful = time.Second

	// flowTimeout bounds the wait for a flow. What was to be sent is old then.
	flowTimeout = 10 * time.Second

	// afterRefusal is how long a source is ignored whose flow ended without an
	// answer: each datagram would open another one.
	afterRefusal = time.Second

	// maxDatagram is the longest that a tunnel carries.
	maxDatagram = 16_000
)

// socket is the part of a *net.UDPConn that is used.
type socket interface {
	ReadFromUDPAddrPort(p []byte) (n int, from netip.AddrPort, err error)
	WriteToUDPAddrPort(p []byte, to netip.AddrPort) (n int, err error)
	Close() error
}

// packets carries datagrams between one socket and a flow for each source.
type packets struct {
	socket socket
	dial   Dial
	target string
	idle   time.Duration

	flows   sync.WaitGroup
	mu      sync.Mutex // guards everything below, and the sources
	sources map[netip.AddrPort]*source
}

// source is one program's socket. Its fields are guarded by packets.mu.
type source struct {
	addr  netip.AddrPort
	end   context.CancelFunc
	moved time.Time // when a datagram last came or went
	early [][]byte  // wait for the flow
	flow  net.Conn  // nil: not yet, or no more
	deaf  bool      // what comes is dropped
}

func newPackets(socket socket, dial Dial, target string) *packets {
	p := &packets{socket: socket, dial: dial, target: target, idle: idleAfter, sources: make(map[netip.AddrPort]*source)}
	if strings.HasSuffix(target, ":53") {
		p.idle = idleAfterDNS
	}
	return p
}

// serve reads from the socket until ctx ends.
func (p *packets) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer p.flows.Wait()
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = p.socket.Close() })
	defer stop()
	defer func() { _ = p.socket.Close() }()

	buf := make([]byte, maxDatagram+1)
	for {
		n, from, err := p.socket.ReadFromUDPAddrPort(buf)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return err
		case err != nil:
			// Some systems tell here that an answer's receiver is gone.
			if !relay.Sleep(ctx, 5*time.Millisecond) {
				return nil
			}
		case n <= maxDatagram:
			p.take(ctx, from, buf[:n])
		}
	}
}

// take passes on a datagram from a source.
func (p *packets) take(ctx context.Context, from netip.AddrPort, datagram []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.sources[from]
	if s == nil {
		s = p.add(ctx, from)
	}
	switch {
	case s.deaf:
		return
	case s.flow != nil:
		_, _ = s.flow.Write(datagram) // its reader learns why, if it failed
	default:
		if len(s.early) == maxEarly {
			s.early = append(s.early[:0], s.early[1:]...)
		}
		s.early = append(s.early, append([]byte(nil), datagram...))
	}
	s.moved = time.Now()
}

// add makes place for a source and begins to serve it. Called with mu held.
func (p *packets) add(ctx context.Context, from netip.AddrPort) *source {
	if len(p.sources) >= maxSources {
		p.dropIdlest(func(*source) bool { return true })
	}
	ctx, end := context.WithCancel(ctx)
	s := &source{addr: from, end: end, moved: time.Now()}
	p.sources[from] = s
	p.flows.Go(func() { p.carry(ctx, s) })
	return s
}

// dropIdlest forgets the one that has been idle for longest among those sources.
// Called with mu held.
func (p *packets) dropIdlest(among func(s *source) bool) {
	var idlest *source
	for _, s := range p.sources {
		if among(s) && (idlest == nil || s.moved.Before(idlest.moved)) {
			idlest = s
		}
	}
	if idlest != nil {
		p.remove(idlest)
	}
}

// remove forgets a source and ends its flow. Called with mu held.
func (p *packets) remove(s *source) {
	s.end()
	if p.sources[s.addr] == s { // nobody has taken its place
		delete(p.sources, s.addr)
	}
}

// carry opens a source's flow and passes on what comes from there.
func (p *packets) carry(ctx context.Context, s *source) {
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.remove(s)
	}()
	flow, err := p.open(ctx)
	if err == nil {
		stop := context.AfterFunc(ctx, func() { _ = flow.Close() })
		defer stop()
		p.begin(s, flow)
		if p.answer(s, flow) {
			return
		}
	}
	p.mu.Lock()
	s.flow, s.early, s.deaf = nil, nil, true
	p.mu.Unlock()
	relay.Sleep(ctx, afterRefusal)
}

// open opens a flow.
func (p *packets) open(ctx context.Context) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, flowTimeout)
	defer cancel()
	p.mu.Lock()
	var hurry *time.Timer
	hurry = time.AfterFunc(crowded, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if ctx.Err() == nil {
			p.dropIdlest(func(s *source) bool { return s.flow != nil && time.Since(s.moved) >= restful })
			hurry.Reset(crowded)
		}
	})
	p.mu.Unlock()
	defer hurry.Stop()
	return p.dial(ctx, "udp", p.target)
}

// begin sends what waited.
func (p *packets) begin(s *source, flow net.Conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, datagram := range s.early {
		_, _ = flow.Write(datagram)
	}
	s.early, s.flow = nil, flow
}

// answer passes on what comes until the flow ends or is idle, closes it and says
// whether the source may open another one at once.
func (p *packets) answer(s *source, flow net.Conn) (again bool) {
	defer func() { _ = flow.Close() }()
	buf := make([]byte, maxDatagram)
	left := p.idle
	for {
		_ = flow.SetReadDeadline(time.Now().Add(left))
		n, err := flow.Read(buf)
		p.mu.Lock()
		now := time.Now()
		idle := now.Sub(s.moved)
		if err == nil {
			s.moved = now
		}
		p.mu.Unlock()
		switch {
		case err == nil:
			again, left = true, p.idle
			_, _ = p.socket.WriteToUDPAddrPort(buf[:n], s.addr)
		case !errors.Is(err, os.ErrDeadlineExceeded):
			return again
		case idle >= p.idle:
			return true
		default:
			left = p.idle - idle
		}
	}
}
