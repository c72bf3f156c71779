// Package shadowsocks is the client's half of Shadowsocks with AEAD ciphers
// (SIP004, SIP007), the protocol that Outline servers speak.
//
// A [Key] is what a server and its clients share. [Key.Client] turns a
// connection to the server into one to a target behind it, [Key.SealPacket] and
// [Key.OpenPacket] do so for datagrams:
//
//	TCP, each direction:  salt | length+tag, payload+tag | length+tag, payload+tag | …
//	UDP, each datagram:   salt | payload+tag
//
// The first payload begins with the target's address, as does each datagram's.
// The protocol has no word for "connected" and none for "the end": what came
// instead of one is told by the errors of this package.
package shadowsocks
