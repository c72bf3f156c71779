// Package mux runs the streams of one HTTVPS session over an ordered carrier
// of messages (docs/03-httvps-protocol.md, parts 6 to 8). It serves both ends:
// the client opens streams, the gateway accepts them.
//
// A session has two goroutines, a reader and a writer, and none per stream.
// Reading never waits: what arrives is bounded by the credit this end granted,
// which it took from the session's budget first, so a stream that nobody reads
// holds its own window and nothing else.
//
// Locks: Stream.mu before Session.mu, never the other way round.
package mux
