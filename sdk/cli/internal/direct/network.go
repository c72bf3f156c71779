package direct

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
)

const (
	// dialTimeout bounds a connection that is made without the tunnel.
	dialTimeout = 30 * time.Second

	// maxPeers is how many peers of a socket may answer; another one takes the place
	// of any.
	maxPeers = 1024

	// maxLookups and maxNames bound the names of a socket: those that are being
	// resolved and those that were.
	maxLookups    = 8
	maxNames      = 256
	lookupTimeout = 5 * time.Second
	nameLife      = time.Minute

	// maxWaiting is how many datagrams wait to be read; more are dropped.
	maxWaiting = 64
)

// Network opens connections through the tunnel, and without it those that the rules
// name.
type Network struct {
	Rules  *Rules
	Tunnel Tunnel
}

// Tunnel is an *httvps.Client.
type Tunnel interface {
	DialContext(ctx context.Context, network, address string) (net.Conn, error)
	ListenPacket(ctx context.Context) (net.PacketConn, error)
}

// DialContext opens a TCP connection. Whichever way it takes, an error of the target
// is an *httvps.OpenError.
func (n *Network) DialContext(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil || !n.Rules.Host(host) {
		return n.Tunnel.DialContext(ctx, network, address)
	}
	dialer := net.Dialer{Timeout: dialTimeout, ControlContext: func(_ context.Context, _, resolved string, _ syscall.RawConn) error {
		at, err := netip.ParseAddrPort(resolved)
		if err != nil || !n.allowed(at.Addr()) {
			return errHere
		}
		return nil
	}}
	conn, err := dialer.DialContext(ctx, network, address)
	if err != nil {
		return nil, &httvps.OpenError{Code: codeOf(err), Target: address, Err: err}
	}
	return conn, nil
}

// errHere says that a name stands for this machine. Whose name server says so may
// not reach what listens here only.
var errHere = errors.New("the name stands for this machine")

// allowed reports whether an address may be reached that a name was resolved to.
func (n *Network) allowed(addr netip.Addr) bool {
	addr = addr.Unmap()
	return n.Rules.Addr(addr) || !addr.IsLoopback() && !addr.IsUnspecified() && !addr.IsMulticast()
}

// codeOf is what the tunnel calls an error of the system.
func codeOf(err error) string {
	var timeout net.Error
	switch _, dns := errors.AsType[*net.DNSError](err); {
	case errors.Is(err, errHere):
		return "policy_denied"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "conn_refused"
	case errors.Is(err, syscall.ENETUNREACH):
		return "net_unreach"
	case errors.Is(err, syscall.EHOSTUNREACH):
		return "host_unreach"
	case errors.Is(err, syscall.ECONNRESET):
		return "target_reset"
	case dns:
		return "dns_fail"
	case errors.Is(err, context.Canceled):
		return "cancelled"
	case errors.As(err, &timeout) && timeout.Timeout():
		return "conn_timeout"
	}
	return "refused"
}

// ListenPacket opens a socket for datagrams, of which each takes the way that the
// rules say.
func (n *Network) ListenPacket(ctx context.Context) (net.PacketConn, error) {
	far, err := n.Tunnel.ListenPacket(ctx)
	if err != nil || n.Rules.Empty() {
		return far, err
	}
	near, err := net.ListenUDP("udp", nil)
	if err != nil {
		_ = far.Close()
		return nil, err
	}
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	s := &socket{
		network: n, far: far, near: near, end: end,
		arrived: make(chan packet, maxWaiting),
		ended:   make(chan struct{}),
		lookups: make(chan struct{}, maxLookups),
		peers:   make(map[netip.AddrPort]struct{}),
		names:   make(map[string]name),
	}
	s.look = func(host string) (netip.Addr, error) {
		bounded, cancel := context.WithTimeout(life, lookupTimeout)
		defer cancel()
		addrs, err := net.DefaultResolver.LookupNetIP(bounded, "ip", host)
		if err != nil {
			return netip.Addr{}, err
		}
		return addrs[0].Unmap(), nil // there is one where there is no error
	}
	s.parts.Go(s.readFar)
	s.parts.Go(s.readNear)
	return s, nil
}

// socket exchanges datagrams by two ways.
type socket struct {
	network *Network
	far     net.PacketConn
	near    *net.UDPConn
	look    func(host string) (netip.Addr, error)
	end     context.CancelFunc

	arrived chan packet
	once    sync.Once
	ended   chan struct{} // closed when err is set
	err     error
	parts   sync.WaitGroup
	lookups chan struct{} // an item for each that is under way

	mu     sync.Mutex // guards the following fields
	closed bool
	peers  map[netip.AddrPort]struct{}
	names  map[string]name
}

// name is what a name was resolved to.
type name struct {
	addr    netip.Addr
	expires time.Time
}

type packet struct {
	data []byte
	from net.Addr
}

// fail ends the socket for the first reason that is given.
func (s *socket) fail(err error) {
	s.once.Do(func() {
		s.err = err
		close(s.ended)
	})
}

func (s *socket) readFar() {
	buf := make([]byte, httvps.MaxDatagram)
	for {
		n, from, err := s.far.ReadFrom(buf)
		if err != nil {
			s.fail(err)
			return
		}
		s.arrive(buf[:n], from)
	}
}

func (s *socket) readNear() {
	buf := make([]byte, httvps.MaxDatagram+1)
	for {
		n, from, err := s.near.ReadFromUDPAddrPort(buf)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
		s.mu.Lock()
		_, known := s.peers[from]
		s.mu.Unlock()
		if err == nil && known && n <= httvps.MaxDatagram {
			s.arrive(buf[:n], net.UDPAddrFromAddrPort(from))
		}
	}
}

func (s *socket) arrive(data []byte, from net.Addr) {
	select {
	case s.arrived <- packet{append([]byte(nil), data...), from}:
	default: // nobody fetches what is there
	}
}

// ReadFrom implements net.PacketConn.
func (s *socket) ReadFrom(p []byte) (int, net.Addr, error) {
	select {
	case got := <-s.arrived:
		return copy(p, got.data), got.from, nil
	case <-s.ended:
		return 0, nil, s.err
	}
}

// WriteTo implements net.PacketConn; like the tunnel's it never waits.
func (s *socket) WriteTo(p []byte, to net.Addr) (int, error) {
	switch a := to.(type) {
	case *net.UDPAddr:
		if at := a.AddrPort(); s.network.Rules.Addr(at.Addr()) {
			s.send(p, at)
			return len(p), nil
		}
	case httvps.Addr:
		if addr, err := netip.ParseAddr(a.Host); err == nil && s.network.Rules.Addr(addr) {
			s.send(p, netip.AddrPortFrom(addr, a.Port))
			return len(p), nil
		}
		if s.network.Rules.Host(a.Host) {
			s.sendByName(p, a)
			return len(p), nil
		}
	}
	return s.far.WriteTo(p, to)
}

func (s *socket) send(p []byte, to netip.AddrPort) {
	to = netip.AddrPortFrom(to.Addr().Unmap(), to.Port())
	s.mu.Lock()
	if _, known := s.peers[to]; !known && len(s.peers) >= maxPeers {
		for other := range s.peers {
			delete(s.peers, other)
			break
		}
	}
	s.peers[to] = struct{}{}
	s.mu.Unlock()
	_, _ = s.near.WriteToUDPAddrPort(p, to) // datagrams get lost
}

// sendByName sends a datagram, after its name was resolved. With too many of these
// it is dropped.
func (s *socket) sendByName(p []byte, to httvps.Addr) {
	host := plain(to.Host)
	s.mu.Lock()
	known, ok := s.names[host]
	if ok && time.Now().Before(known.expires) {
		s.mu.Unlock()
		s.send(p, netip.AddrPortFrom(known.addr, to.Port))
		return
	}
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	select {
	case s.lookups <- struct{}{}:
	default:
		return
	}
	data := append([]byte(nil), p...)
	s.parts.Go(func() {
		defer func() { <-s.lookups }()
		addr, err := s.look(host)
		if err != nil || !s.network.allowed(addr) {
			return
		}
		s.mu.Lock()
		if len(s.names) >= maxNames {
			clear(s.names)
		}
		s.names[host] = name{addr, time.Now().Add(nameLife)}
		s.mu.Unlock()
		s.send(data, netip.AddrPortFrom(addr, to.Port))
	})
}

// Close ends both ways and waits for that.
func (s *socket) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.fail(net.ErrClosed)
	s.end()
	_ = s.near.Close()
	err := s.far.Close()
	s.parts.Wait()
	return err
}

func (s *socket) LocalAddr() net.Addr { return s.far.LocalAddr() }

// Deadlines are not needed here.
func (s *socket) SetDeadline(time.Time) error      { return errors.ErrUnsupported }
func (s *socket) SetReadDeadline(time.Time) error  { return errors.ErrUnsupported }
func (s *socket) SetWriteDeadline(time.Time) error { return errors.ErrUnsupported }
