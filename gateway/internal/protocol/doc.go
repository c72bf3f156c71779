// Package protocol is the gateway's half of the tunnel
// (docs/03-httvps-protocol.md): the handshake on a fresh carrier, and the
// requests for streams of a session. Frames and flow control are sdk/go/wire's
// and sdk/go/mux's; who may connect and how a target is reached is asked from
// the functions that this package is given.
package protocol
