package httvps

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// MaxDatagram is the longest datagram that a tunnel carries, in bytes.
const MaxDatagram = wire.MaxDatagram

// ErrDatagramSize is what writing a datagram over [MaxDatagram] fails with.
var ErrDatagramSize = mux.ErrDatagramSize

// reopenTimeout bounds the wait for another gateway, for a socket whose own has gone
// away before it looked at it.
const reopenTimeout = 15 * time.Second

// anyPeer is the target of an OpenError about a socket that has none.
const anyPeer = "a UDP socket"

// Addr is where a datagram goes. Unlike a *net.UDPAddr it may hold a name, which
// is resolved at the far end.
type Addr struct {
	Host string // a name, or an IP address without brackets
	Port uint16 // not 0
}

// Network implements net.Addr.
func (Addr) Network() string { return "udp" }

// String is host:port, an IPv6 host in brackets.
func (a Addr) String() string { return net.JoinHostPort(a.Host, strconv.Itoa(int(a.Port))) }

// ListenPacket opens a socket at the far end that exchanges datagrams with any
// number of peers. WriteTo takes an [Addr] or a *net.UDPAddr, ReadFrom returns a
// *net.UDPAddr, or an Addr for a peer that is known by name only.
//
// It waits for a session and for a free place in it, as long as ctx allows: give
// ctx an end. It does not wait for the gateway's answer: a refusal, like any end of
// the socket, is what the next call reports. The gateway ends a socket that has
// been idle for a minute, or for ten seconds if only name servers were asked.
//
// Nothing is delivered for certain. Writing does not wait, but for another gateway
// where the first one goes away just then, and drops what has no room; reading misses what is not fetched in time, and the end of a datagram
// that is longer than its buffer. Datagrams from whom none was sent to do not come
// in. The errors are those of [Client.DialContext]; after Close they wrap
// net.ErrClosed.
func (c *Client) ListenPacket(ctx context.Context) (net.PacketConn, error) {
	conn := &packetConn{flowConn{target: anyPeer, open: func(ctx context.Context) (*mux.Flow, error) {
		return c.openFlow(ctx, wire.KindUDPAny, wire.Addr{}, anyPeer)
	}}}
	if err := conn.begin(ctx); err != nil {
		return nil, err
	}
	return conn, nil
}

// openFlow opens a flow in the current session, or in the next one.
func (c *Client) openFlow(ctx context.Context, kind wire.Kind, target wire.Addr, address string) (*mux.Flow, error) {
	var flow *mux.Flow
	err := c.open(ctx, address, func(session *mux.Session) (err error) {
		flow, err = session.OpenFlow(ctx, kind, target)
		return err
	})
	return flow, err
}

// flowConn is what connections of datagrams have in common.
type flowConn struct {
	target string // as the caller wrote it
	open   func(ctx context.Context) (*mux.Flow, error)

	turn sync.Mutex // held by who opens another flow

	mu              sync.Mutex // guards the following fields
	flow            *mux.Flow
	readBy, writeBy time.Time
	closed          bool
	giveUp          context.CancelFunc // of who opens another flow; nil: nobody
}

// begin opens the flow.
func (c *flowConn) begin(ctx context.Context) (err error) {
	c.flow, err = c.open(ctx)
	return err
}

// Close ends the flow.
func (c *flowConn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.closed = true
	if c.giveUp != nil {
		c.giveUp()
	}
	c.flow.Reset(wire.CodeNoError)
	return nil
}

func (c *flowConn) current() *mux.Flow {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.flow
}

// another opens a flow in the place of one that a gateway which goes away has not
// looked at, unless somebody else has.
func (c *flowConn) another(ignored *mux.Flow, by time.Time) (*mux.Flow, error) {
	c.turn.Lock()
	defer c.turn.Unlock()
	if by.IsZero() {
		by = time.Now().Add(reopenTimeout)
	}
	ctx, cancel := context.WithDeadlineCause(context.Background(), by, os.ErrDeadlineExceeded)
	defer cancel()
	c.mu.Lock()
	flow, closed := c.flow, c.closed
	if !closed && flow == ignored {
		c.giveUp = cancel
	}
	c.mu.Unlock()
	switch {
	case closed:
		return nil, net.ErrClosed
	case flow != ignored:
		return flow, nil
	}
	flow, err := c.open(ctx)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.giveUp = nil
	switch {
	case err != nil && c.closed:
		return nil, net.ErrClosed
	case err != nil && errors.Is(err, os.ErrDeadlineExceeded):
		return nil, os.ErrDeadlineExceeded // as it is, it has a Timeout
	case err != nil:
		return nil, err
	case c.closed:
		flow.Reset(wire.CodeNoError)
		return nil, net.ErrClosed
	}
	flow.SetReadDeadline(c.readBy)
	c.flow = flow
	return flow, nil
}

// LocalAddr is not known: the socket is at the far end.
func (c *flowConn) LocalAddr() net.Addr { return &net.UDPAddr{IP: net.IPv4zero} }

func (c *flowConn) SetDeadline(t time.Time) error {
	_ = c.SetReadDeadline(t)
	return c.SetWriteDeadline(t)
}

func (c *flowConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.readBy = t
	c.flow.SetReadDeadline(t)
	return nil
}

func (c *flowConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writeBy = t
	return nil
}

// send sends p, to peer when the flow has more than one.
func (c *flowConn) send(peer wire.Addr, p []byte) (int, error) {
	c.mu.Lock()
	flow, by := c.flow, c.writeBy
	c.mu.Unlock()
	if !by.IsZero() && !time.Now().Before(by) {
		return 0, os.ErrDeadlineExceeded
	}
	err := flow.Send(peer, p)
	for errors.Is(err, mux.ErrUnprocessed) {
		if flow, err = c.another(flow, by); err == nil {
			err = flow.Send(peer, p)
		}
	}
	if err != nil {
		return 0, c.fault(err)
	}
	return len(p), nil
}

func (c *flowConn) receive(p []byte) (int, wire.Addr, error) {
	flow := c.current()
	n, peer, err := flow.Receive(p)
	for errors.Is(err, mux.ErrUnprocessed) {
		c.mu.Lock()
		by := c.readBy
		c.mu.Unlock()
		if flow, err = c.another(flow, by); err == nil {
			n, peer, err = flow.Receive(p)
		}
	}
	if err != nil {
		return 0, wire.Addr{}, c.fault(err)
	}
	return n, peer, nil
}

// fault says what an error of the flow is called here.
func (c *flowConn) fault(err error) error {
	ended, ok := errors.AsType[*mux.StreamError](err)
	switch {
	case !ok:
		return err
	case !ended.Remote: // only Close does that
		return net.ErrClosed
	}
	return &OpenError{Code: ended.Code.Meaning().String(), Target: c.target, Err: err}
}

// packetConn exchanges datagrams with any peer.
type packetConn struct{ flowConn }

func (c *packetConn) ReadFrom(p []byte) (int, net.Addr, error) {
	n, peer, err := c.receive(p)
	if err != nil {
		return 0, nil, err
	}
	return n, netAddr(peer), nil
}

func (c *packetConn) WriteTo(p []byte, addr net.Addr) (int, error) {
	peer, err := wireAddr(addr)
	if err != nil {
		return 0, err
	}
	return c.send(peer, p)
}

// udpConn exchanges datagrams with one peer. Like a *net.UDPConn it is a
// net.PacketConn, too, which is how net.Resolver and others tell that datagrams
// stay apart.
type udpConn struct {
	flowConn
	peer net.Addr
}

var _ net.PacketConn = (*udpConn)(nil)

func (c *udpConn) RemoteAddr() net.Addr { return c.peer }

func (c *udpConn) Read(p []byte) (int, error) {
	n, _, err := c.receive(p)
	return n, err
}

func (c *udpConn) Write(p []byte) (int, error) { return c.send(wire.Addr{}, p) }

func (c *udpConn) ReadFrom(p []byte) (int, net.Addr, error) {
	n, _, err := c.receive(p)
	return n, c.peer, err
}

func (c *udpConn) WriteTo([]byte, net.Addr) (int, error) { return 0, net.ErrWriteToConnected }

// wireAddr is how the tunnel writes an address of a caller.
func wireAddr(addr net.Addr) (wire.Addr, error) {
	var (
		peer wire.Addr
		err  error
	)
	switch a := addr.(type) {
	case Addr:
		peer, err = wire.AddrFromHostPort(a.Host, a.Port)
	case *net.UDPAddr:
		to := a.AddrPort()
		peer = wire.Addr{IP: to.Addr().Unmap(), Port: to.Port()}
		if a != nil && int(peer.Port) != a.Port {
			peer.Port = 0 // not acceptable either
		}
		err = peer.Check()
	default:
		err = fmt.Errorf("address is a %T, want an Addr or a *net.UDPAddr", addr)
	}
	if err != nil {
		text := ""
		if addr != nil {
			text = addr.String()
		}
		return wire.Addr{}, &OpenError{Code: wire.CodeRefused.String(), Target: text, Err: err}
	}
	return peer, nil
}

// netAddr is what callers are told of an address of the tunnel.
func netAddr(a wire.Addr) net.Addr {
	if a.Name != "" {
		return Addr{Host: a.Name, Port: a.Port}
	}
	return net.UDPAddrFromAddrPort(netip.AddrPortFrom(a.IP, a.Port))
}
