// Package carrier moves the messages of an HTTVPS session over one WebSocket
// connection inside TLS 1.3 (docs/03-httvps-protocol.md, part 2). It knows
// WebSocket and nothing of what the messages mean.
//
// [Dial] makes the client's end, [Upgrade] the gateway's. There are no
// extensions, no compression and no text messages; fragments are put together
// within the protocol's limit and pings are answered.
package carrier
