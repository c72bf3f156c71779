package mux

import (
	"errors"
	"fmt"

	"github.com/httvps/httvps/sdk/go/wire"
)

// ErrEnded is wrapped by errors of streams and calls whose session is over.
var ErrEnded = errors.New("session ended")

// CloseError says that one end closed the session with a code.
type CloseError struct {
	Code   wire.Code
	Reason string // for people who debug; may be empty
	Remote bool   // the other end closed it
}

func (e *CloseError) Error() string {
	by := "this end"
	if e.Remote {
		by = "the other end"
	}
	if e.Reason == "" {
		return fmt.Sprintf("session closed by %s: %s", by, e.Code)
	}
	return fmt.Sprintf("session closed by %s: %s: %s", by, e.Code, e.Reason)
}

// StreamError says that one end reset the stream, or stopped reading it, with
// a code.
type StreamError struct {
	Code   wire.Code
	Remote bool // the other end did it
}

func (e *StreamError) Error() string {
	if e.Remote {
		return fmt.Sprintf("stream ended by the other end: %s", e.Code)
	}
	return fmt.Sprintf("stream ended: %s", e.Code)
}

// endedError is what streams report after their session ended.
type endedError struct{ cause error }

func (e *endedError) Error() string   { return fmt.Sprintf("%v: %v", ErrEnded, e.cause) }
func (e *endedError) Unwrap() []error { return []error{ErrEnded, e.cause} }
