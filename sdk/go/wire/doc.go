// Package wire is the byte format of the HTTVPS tunnel: frames, their payloads
// and the numbers in them, as docs/03-httvps-protocol.md defines them.
//
// It turns bytes into values and values into bytes and does nothing else: no
// I/O, no goroutine, no state of a session. Rules that need to know what came
// before (phases, stream ids, credit) belong to the caller.
//
// Append functions add to a slice and return it, like append. They take only
// values that the document allows, each says what happens otherwise; none
// panics. Consume functions read from the front of their input and tell how
// far they got; Parse functions take a whole payload. What they return may
// share memory with the input where the documentation says so.
//
// Every error that comes from input is an [*Error] with the [Code] to answer
// it with.
package wire
