package socks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/httvps/httvps/sdk/cli/internal/relay"
	"github.com/httvps/httvps/sdk/go/httvps"
)

// Bounds of UDP ASSOCIATE.
const (
	// maxAssociations is how many there are at once.
	maxAssociations = 256

	// associationIdle is when an association ends on which no datagram moves.
	associationIdle = 5 * time.Minute

	// maxEarly is how many datagrams of an association wait for a socket of the
	// tunnel; the oldest is dropped for another.
	maxEarly = 32

	// socketTimeout bounds the wait for another socket of the tunnel, which every
	// session ends, and so does a minute of silence. What waited is old then.
	socketTimeout = 5 * time.Second

	// afterRefusal is the wait before a socket in the place of one that ended
	// without any answer.
	afterRefusal = time.Second
)

// association carries a client's datagrams between its relay socket and a socket
// of the tunnel.
type association struct {
	relay  relaySocket
	client netip.Addr // datagrams are taken from there only
	listen func(ctx context.Context) (net.PacketConn, error)
	wanted chan struct{} // holds one when a socket of the tunnel is needed

	mu    sync.Mutex     // guards everything below
	from  netip.AddrPort // the client's socket; port 0 until its first datagram tells
	moved time.Time      // when a datagram last came or went
	early []datagram     // wait for a socket of the tunnel
	far   net.PacketConn // nil: not yet, or no more
}

// relaySocket is a *net.UDPConn.
type relaySocket interface {
	ReadFromUDPAddrPort(p []byte) (n int, from netip.AddrPort, err error)
	WriteToUDPAddrPort(p []byte, to netip.AddrPort) (int, error)
	SetReadDeadline(t time.Time) error
	Close() error
}

type datagram struct {
	to   net.Addr
	data []byte
}

// associate serves UDP ASSOCIATE, RFC 1928, section 7, until the client hangs up
// or has been idle for long.
func (s *Server) associate(ctx context.Context, client net.Conn, req request) {
	if s.ListenPacket == nil {
		answer(client, replyCommandUnsupported)
		return
	}
	defer s.associations.Add(-1)
	if s.associations.Add(1) > maxAssociations {
		answer(client, replyFailure)
		return
	}
	socket, at, err := listenBeside(client)
	if err != nil {
		answer(client, replyFailure)
		return
	}
	defer func() { _ = socket.Close() }()
	// The first socket is opened now, as this is when the client can be told why
	// there is none.
	listenCtx, cancel := context.WithTimeout(ctx, dialTimeout)
	far, err := s.ListenPacket(listenCtx)
	cancel()
	if err != nil {
		answer(client, replyFor(err))
		return
	}
	if !answerAt(client, replySucceeded, at) {
		_ = far.Close()
		return
	}
	ip := addrOf(client.RemoteAddr())
	a := &association{
		relay:  socket,
		client: ip,
		listen: s.ListenPacket,
		wanted: make(chan struct{}, 1),
		from:   netip.AddrPortFrom(ip, req.port),
		moved:  time.Now(),
	}
	a.serve(ctx, client, far)
}

// listenBeside opens a relay socket at the address that the client has reached the
// server at.
func listenBeside(client net.Conn) (socket *net.UDPConn, at netip.AddrPort, err error) {
	ip := addrOf(client.LocalAddr())
	if !ip.IsValid() { // it would be every address
		return nil, at, fmt.Errorf("a client at a %T", client.LocalAddr())
	}
	socket, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
	if err != nil {
		return nil, at, err
	}
	if bound, ok := socket.LocalAddr().(*net.UDPAddr); ok {
		at = bound.AddrPort()
	}
	return socket, at, nil
}

// addrOf is the IP address of a TCP connection's end.
func addrOf(end net.Addr) netip.Addr {
	tcp, ok := end.(*net.TCPAddr)
	if !ok {
		return netip.Addr{}
	}
	return tcp.AddrPort().Addr().Unmap()
}

// serve ends with the client's connection and ends it.
func (a *association) serve(ctx context.Context, client net.Conn, far net.PacketConn) {
	ctx, cancel := context.WithCancel(ctx)
	var parts sync.WaitGroup
	parts.Go(func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, client) // nothing is to come but the end
	})
	parts.Go(func() { a.carry(ctx, far) })
	stop := context.AfterFunc(ctx, func() { _ = a.relay.Close() })
	defer stop()
	a.takeAll(ctx)
	cancel()
	_ = client.Close()
	parts.Wait()
}

// takeAll takes what the client sends until ctx ends, or nothing has moved for
// long.
func (a *association) takeAll(ctx context.Context) {
	buf := make([]byte, maxHeader+httvps.MaxDatagram+1)
	for {
		a.mu.Lock()
		end := a.moved.Add(associationIdle)
		a.mu.Unlock()
		if !time.Now().Before(end) {
			return
		}
		_ = a.relay.SetReadDeadline(end)
		n, from, err := a.relay.ReadFromUDPAddrPort(buf)
		switch {
		case err == nil:
			a.take(netip.AddrPortFrom(from.Addr().Unmap(), from.Port()), buf[:n])
		case ctx.Err() != nil || errors.Is(err, net.ErrClosed):
			return
		case errors.Is(err, os.ErrDeadlineExceeded): // a datagram may have gone the other way
		case !relay.Sleep(ctx, 5*time.Millisecond): // some systems tell here that an answer's receiver is gone
			return
		}
	}
}

// take passes on a datagram if it is the client's. It never waits.
func (a *association) take(from netip.AddrPort, p []byte) {
	to, data, ok := parseDatagram(p)
	if !ok || len(data) > httvps.MaxDatagram {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if from.Addr() != a.client || a.from.Port() != 0 && from.Port() != a.from.Port() {
		return
	}
	a.from = from
	a.moved = time.Now()
	if a.far != nil {
		_, _ = a.far.WriteTo(data, to) // its reader learns why, if it failed
		return
	}
	if len(a.early) == maxEarly {
		a.early = append(a.early[:0], a.early[1:]...)
	}
	a.early = append(a.early, datagram{to: to, data: append([]byte(nil), data...)})
	select {
	case a.wanted <- struct{}{}:
	default:
	}
}

// carry serves one socket of the tunnel after the other until ctx ends: the next
// one when the client has something to send.
func (a *association) carry(ctx context.Context, far net.PacketConn) {
	for {
		served := far != nil && a.answers(ctx, far)
		a.mu.Lock()
		a.far, a.early = nil, nil
		a.mu.Unlock()
		if !served && !relay.Sleep(ctx, afterRefusal) {
			return
		}
		select {
		case <-a.wanted:
		case <-ctx.Done():
			return
		}
		listenCtx, cancel := context.WithTimeout(ctx, socketTimeout)
		var err error
		if far, err = a.listen(listenCtx); err != nil {
			far = nil
		}
		cancel()
	}
}

// answers sends what waits for far, passes on what comes from there until it ends,
// closes it and reports whether anything came.
func (a *association) answers(ctx context.Context, far net.PacketConn) (came bool) {
	stop := context.AfterFunc(ctx, func() { _ = far.Close() })
	defer stop()
	defer func() { _ = far.Close() }()
	a.mu.Lock()
	a.far = far
	for _, d := range a.early {
		_, _ = far.WriteTo(d.data, d.to)
	}
	a.early = nil
	select {
	case <-a.wanted: // it was for what has just been sent
	default:
	}
	a.mu.Unlock()

	buf := make([]byte, maxHeader+httvps.MaxDatagram)
	for {
		n, peer, err := far.ReadFrom(buf[maxHeader:])
		if err != nil {
			return came
		}
		came = true
		// The header is as long as the address in it, and ends where data begins.
		header, ok := appendHeader(make([]byte, 0, maxHeader), peer)
		if !ok {
			continue
		}
		begin := maxHeader - len(header)
		copy(buf[begin:], header)
		a.mu.Lock()
		to := a.from
		a.moved = time.Now()
		a.mu.Unlock()
		if to.Port() != 0 { // else nobody has asked yet
			_, _ = a.relay.WriteToUDPAddrPort(buf[begin:maxHeader+n], to)
		}
	}
}
