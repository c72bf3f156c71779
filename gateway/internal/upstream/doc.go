// Package upstream is how streams and flows leave the gateway: a [Dialer] opens
// the connection to a stream's target, a [PacketDialer] the socket for a flow's
// datagrams.
//
// [Direct] does so on the gateway's own host. [Echo] and [Devnull] are
// targets without a network, for development and load tests.
//
// A target is chosen by a device and is hostile until judged. What makes it safe
// is that [Policy] judges addresses: Direct resolves a name once, drops the answers
// that the policy denies, connects to what is left by literal address, and asks the
// policy again about the very address of each connect call and of each datagram.
// Names are judged besides, where the operator has rules for them.
package upstream

import (
	"context"
	"net"

	"github.com/httvps/httvps/sdk/go/wire"
)

// Conn is a connection to a target whose two directions end separately.
type Conn interface {
	net.Conn
	// CloseWrite tells the target that no more bytes will come.
	CloseWrite() error
}

// A Dialer opens connections to targets. Every error that Dial returns is an
// [*Error]. Dial returns by ctx's end and within [DialTimeout].
type Dialer interface {
	Dial(ctx context.Context, target wire.Addr) (Conn, error)
}
