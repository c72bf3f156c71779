// Package forward gives programs on this machine that know no proxy one target at
// the far end of the tunnel: it listens, and carries the TCP connections or the
// UDP datagrams that come.
package forward

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/httvps/httvps/sdk/cli/internal/relay"
)

const (
	// maxConns is how many TCP connections are served at once; more wait in the
	// system's queue.
	maxConns = 4096

	// dialTimeout bounds the wait for a session, for a free place in it and for
	// the target of a TCP connection.
	dialTimeout = 60 * time.Second
)

// Dial opens a connection to a host and port; network is "tcp" or "udp". TCP
// connections are closed by halves when they have CloseRead and CloseWrite, and
// broken off with Abort when they have that. UDP ones keep datagrams apart and drop
// them rather than have Write wait.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Forward is a port that is being listened on.
type Forward struct {
	spec    Spec
	streams net.Listener // for TCP
	packets *net.UDPConn // for UDP
}

// Listen begins to listen. Close or Serve end that.
func Listen(ctx context.Context, spec Spec) (*Forward, error) {
	f := &Forward{spec: spec}
	var lc net.ListenConfig
	if spec.Network == "tcp" {
		ln, err := lc.Listen(ctx, "tcp", spec.Listen.String())
		if err != nil {
			return nil, err
		}
		f.streams = ln
		return f, nil
	}
	conn, err := lc.ListenPacket(ctx, "udp", spec.Listen.String())
	if err != nil {
		return nil, err
	}
	socket, ok := conn.(*net.UDPConn)
	if !ok {
		_ = conn.Close()
		return nil, fmt.Errorf("listen on %s: %T is not a UDP socket", spec.Listen, conn)
	}
	f.packets = socket
	return f, nil
}

// Network is "tcp" or "udp".
func (f *Forward) Network() string { return f.spec.Network }

// Addr is where f listens, with the port that it got.
func (f *Forward) Addr() net.Addr {
	if f.streams != nil {
		return f.streams.Addr()
	}
	return f.packets.LocalAddr()
}

// Target is where f carries things, as host:port.
func (f *Forward) Target() string { return f.spec.Target }

// Close ends the listening of a forward that is not served.
func (f *Forward) Close() error {
	if f.streams != nil {
		return f.streams.Close()
	}
	return f.packets.Close()
}

// Serve carries what comes until ctx ends, or the socket fails for good. When it
// returns, every socket and connection is closed and every goroutine has returned.
// The error is nil when ctx ended.
func (f *Forward) Serve(ctx context.Context, dial Dial) error {
	if f.packets != nil {
		return newPackets(f.packets, dial, f.spec.Target).serve(ctx)
	}
	return relay.Serve(ctx, f.streams, maxConns, func(ctx context.Context, client net.Conn) {
		dialCtx, cancel := context.WithTimeout(ctx, dialTimeout)
		target, err := dial(dialCtx, "tcp", f.spec.Target)
		cancel()
		if err != nil {
			relay.Abort(client) // a proper end would be an empty answer
			return
		}
		defer func() { _ = target.Close() }()
		stop := context.AfterFunc(ctx, func() { relay.Abort(target) })
		defer stop()
		relay.Copy(client, target)
	})
}
