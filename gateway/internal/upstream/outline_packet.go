package upstream

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/gateway/internal/shadowsocks"
	"github.com/httvps/httvps/sdk/go/lazy"
	"github.com/httvps/httvps/sdk/go/wire"
)

// sealedSize is the room for a sealed datagram, and for one byte that tells of a
// longer one.
const sealedSize = wire.MaxDatagram + shadowsocks.MaxPacketOverhead + 1

var sealedBuffers = sync.Pool{New: func() any { return new([sealedSize]byte) }}

// exitPackets is a socket for datagrams through a server.
type exitPackets struct {
	conn   *net.UDPConn
	in     lazy.Reader
	exit   *exit
	peer   netip.AddrPort // the only one; the zero AddrPort: any
	policy *Policy        // nil: all are allowed, which only the gateway itself is
	began  time.Time
	once   sync.Once
	heard  atomic.Int64
	lost   atomic.Bool
}

func newExitPackets(conn *net.UDPConn, e *exit, peer netip.AddrPort, policy *Policy) *exitPackets {
	return &exitPackets{conn: conn, in: lazy.NewReader(conn), exit: e, peer: peer, policy: policy, began: time.Now()}
}

// WriteTo implements [PacketConn].
func (s *exitPackets) WriteTo(p []byte, peer netip.AddrPort) error {
	if s.policy != nil && s.policy.CheckUDP(peer) != nil || s.peer.IsValid() && peer != s.peer {
		return &Error{Failure: Denied, Err: ErrDenied}
	}
	buf := sealedBuffers.Get().(*[sealedSize]byte) //nolint:errcheck // the pool has no others
	defer sealedBuffers.Put(buf)
	sealed, err := s.exit.key.SealPacket(buf[:0], peer, p)
	if err != nil {
		return &Error{Failure: Internal, Err: err}
	}
	_, err = s.conn.Write(sealed)
	if err != nil && isReport(err) { // of an earlier datagram: the server's host says that nobody is there
		s.exit.suspected()
		_, err = s.conn.Write(sealed)
	}
	if err != nil {
		return lostError(err)
	}
	return nil
}

// ReadFrom implements [PacketConn]. What is not from the server, or is not under its
// key, is dropped.
func (s *exitPackets) ReadFrom(space lazy.Space) (int, netip.AddrPort, error) {
	var in sealedSpace
	defer in.Return(false)
	for faults := 0; ; {
		n, err := s.in.ReadLazy(&in)
		switch {
		case s.lost.Load():
			return 0, netip.AddrPort{}, lostError(net.ErrClosed)
		case err != nil && errors.Is(err, io.EOF): // a datagram without a byte
			continue
		case err != nil && isReport(err) && faults < maxFaults:
			faults++
			s.exit.suspected()
			continue
		case err != nil:
			return 0, netip.AddrPort{}, lostError(err)
		}
		from, payload, err := s.exit.key.OpenPacket(in.buf[:n])
		if err != nil || s.peer.IsValid() && from != s.peer {
			in.Return(false)
			continue
		}
		s.heard.Store(int64(time.Since(s.began)))
		return copy(space.Take(), payload), from, nil
	}
}

// Close implements [PacketConn].
func (s *exitPackets) Close() error {
	s.once.Do(func() { s.exit.drop(s) })
	return s.conn.Close()
}

func (s *exitPackets) lose(since time.Time) {
	if s.began.Add(time.Duration(s.heard.Load())).After(since) {
		return
	}
	s.lost.Store(true)
	_ = s.conn.Close()
}

// sealedSpace is the memory for one sealed datagram.
type sealedSpace struct{ buf *[sealedSize]byte }

// Take implements [lazy.Space].
func (s *sealedSpace) Take() []byte {
	if s.buf == nil {
		s.buf = sealedBuffers.Get().(*[sealedSize]byte) //nolint:errcheck // the pool has no others
	}
	return s.buf[:]
}

// Return implements [lazy.Space].
func (s *sealedSpace) Return(bool) {
	if s.buf != nil {
		sealedBuffers.Put(s.buf)
		s.buf = nil
	}
}
