package upstream

import (
	"context"
	"net"
	"net/netip"
	"syscall"

	"github.com/httvps/httvps/sdk/go/lazy"
	"github.com/httvps/httvps/sdk/go/wire"
)

// A PacketDialer opens sockets for datagrams. Every error of its methods is an
// [*Error]. They return by ctx's end, and within [DialTimeout].
type PacketDialer interface {
	// DialPacket opens a socket for the datagrams of one peer, whose address it
	// returns: of a name's addresses the first that there is a way to.
	DialPacket(ctx context.Context, target wire.Addr) (PacketConn, netip.AddrPort, error)
	// ListenPacket opens a socket for the datagrams of any peer.
	ListenPacket(ctx context.Context) (PacketConn, error)
	// Resolve returns the addresses that target stands for and that datagrams
	// may be sent to, best first. Without a name it asks nobody.
	Resolve(ctx context.Context, target wire.Addr) ([]netip.AddrPort, error)
}

// A PacketConn sends and receives datagrams. Its methods may be called from any
// goroutine, ReadFrom from one at a time.
type PacketConn interface {
	// WriteTo sends p to peer, which has to be the one of DialPacket if that made
	// the socket. The address is judged each time. Every error is an [*Error] and
	// means that p was dropped; the socket goes on.
	WriteTo(p []byte, peer netip.AddrPort) error
	// ReadFrom waits for a datagram, and reads it into what space gives: as much
	// of it as there is room for. While it waits it holds no space. After an error
	// the socket is of no more use, and the space was returned.
	ReadFrom(space lazy.Space) (n int, from netip.AddrPort, err error)
	// Close unblocks ReadFrom and WriteTo.
	Close() error
}

// maxFaults is how many errors in a row a socket may report when it is read.
// ICMP answers to what was sent are reported so, each once.
const maxFaults = 64

// DialPacket implements [PacketDialer].
func (d *Direct) DialPacket(ctx context.Context, target wire.Addr) (PacketConn, netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	addrs, err := d.addresses(ctx, target, d.policy.CheckUDP)
	if err != nil {
		return nil, netip.AddrPort{}, err
	}
	var first error
	for _, addr := range addrs {
		conn, err := d.connectPacket(ctx, addr)
		if err == nil {
			return conn, addr, nil
		}
		if first == nil {
			first = &Error{Failure: classify(err), Err: err}
		}
	}
	return nil, netip.AddrPort{}, first
}

// connectPacket connects a socket to one literal address, asking the policy once
// more about what the kernel is really told.
func (d *Direct) connectPacket(ctx context.Context, addr netip.AddrPort) (PacketConn, error) {
	dialer := net.Dialer{Control: func(_, address string, raw syscall.RawConn) error {
		actual, err := netip.ParseAddrPort(address)
		if err != nil {
			return ErrDenied
		}
		if err := d.policy.CheckUDP(actual); err != nil {
			return err
		}
		return forbidBroadcast(raw)
	}}
	conn, err := dialer.DialContext(ctx, "udp", addr.String())
	if err != nil {
		return nil, err
	}
	return newSocket(conn.(*net.UDPConn), addr, d.policy) //nolint:errcheck // what package net returns for "udp"
}

// ListenPacket implements [PacketDialer].
func (d *Direct) ListenPacket(ctx context.Context) (PacketConn, error) {
	listen := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error { return forbidBroadcast(raw) }}
	conn, err := listen.ListenPacket(ctx, "udp", ":0")
	if err != nil {
		return nil, &Error{Failure: classify(err), Err: err}
	}
	socket, err := newSocket(conn.(*net.UDPConn), netip.AddrPort{}, d.policy) //nolint:errcheck // what package net returns for "udp"
	if err != nil {
		return nil, &Error{Failure: classify(err), Err: err}
	}
	return socket, nil
}

// Resolve implements [PacketDialer].
func (d *Direct) Resolve(ctx context.Context, target wire.Addr) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	return d.addresses(ctx, target, d.policy.CheckUDP)
}

// socket is one of the system's.
type socket struct {
	conn   *net.UDPConn
	raw    syscall.RawConn
	peer   netip.AddrPort // connected to; the zero AddrPort otherwise
	policy *Policy
}

func newSocket(conn *net.UDPConn, peer netip.AddrPort, policy *Policy) (*socket, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return &socket{conn: conn, raw: raw, peer: peer, policy: policy}, nil
}

func (s *socket) WriteTo(p []byte, peer netip.AddrPort) error {
	if err := s.policy.CheckUDP(peer); err != nil || s.peer.IsValid() && peer != s.peer {
		return &Error{Failure: Denied, Err: ErrDenied}
	}
	err := s.write(p, peer)
	if err != nil && isReport(err) { // of an earlier datagram, and nothing was sent
		err = s.write(p, peer)
	}
	if err != nil {
		return &Error{Failure: classify(err), Err: err}
	}
	return nil
}

func (s *socket) write(p []byte, peer netip.AddrPort) (err error) {
	if s.peer.IsValid() {
		_, err = s.conn.Write(p)
	} else {
		_, err = s.conn.WriteToUDPAddrPort(p, peer)
	}
	return err
}

func (s *socket) Close() error { return s.conn.Close() }
