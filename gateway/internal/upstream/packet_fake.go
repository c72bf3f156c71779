package upstream

import (
	"context"
	"net"
	"net/netip"
	"sync"

	"github.com/httvps/httvps/sdk/go/lazy"
	"github.com/httvps/httvps/sdk/go/wire"
)

// anyone is the address of every name that nobody looks up.
var anyone = netip.AddrFrom4([4]byte{192, 0, 2, 1})

// echoed is how many datagrams an echo holds. It drops what comes beyond.
const echoed = 64

// DialPacket returns a new echo, whatever the target.
func (Echo) DialPacket(_ context.Context, target wire.Addr) (PacketConn, netip.AddrPort, error) {
	return newMemory(true), pretended(target), nil
}

// ListenPacket returns a new echo: what is sent to an address comes back from it.
func (Echo) ListenPacket(context.Context) (PacketConn, error) { return newMemory(true), nil }

// Resolve returns target's address, or one for documentation in place of a name.
func (Echo) Resolve(_ context.Context, target wire.Addr) ([]netip.AddrPort, error) {
	return []netip.AddrPort{pretended(target)}, nil
}

// DialPacket returns a new sink, whatever the target.
func (Devnull) DialPacket(_ context.Context, target wire.Addr) (PacketConn, netip.AddrPort, error) {
	return newMemory(false), pretended(target), nil
}

// ListenPacket returns a new sink.
func (Devnull) ListenPacket(context.Context) (PacketConn, error) { return newMemory(false), nil }

// Resolve returns target's address, or one for documentation in place of a name.
func (Devnull) Resolve(_ context.Context, target wire.Addr) ([]netip.AddrPort, error) {
	return []netip.AddrPort{pretended(target)}, nil
}

func pretended(target wire.Addr) netip.AddrPort {
	if target.Name != "" {
		return netip.AddrPortFrom(anyone, target.Port)
	}
	return netip.AddrPortFrom(target.IP.Unmap(), target.Port)
}

// memory is a socket without a network.
type memory struct {
	back   chan packet // what echoes; nil when nothing does
	closed chan struct{}
	once   sync.Once
}

type packet struct {
	from netip.AddrPort
	data []byte
}

func newMemory(echo bool) *memory {
	m := &memory{closed: make(chan struct{})}
	if echo {
		m.back = make(chan packet, echoed)
	}
	return m
}

func (m *memory) WriteTo(p []byte, peer netip.AddrPort) error {
	select {
	case <-m.closed:
		return &Error{Failure: Cancelled, Err: net.ErrClosed}
	default:
	}
	if m.back == nil {
		return nil
	}
	select {
	case m.back <- packet{from: peer, data: append([]byte(nil), p...)}:
	default:
	}
	return nil
}

func (m *memory) ReadFrom(space lazy.Space) (int, netip.AddrPort, error) {
	select {
	case p := <-m.back:
		return copy(space.Take(), p.data), p.from, nil
	case <-m.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (m *memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}
