package wire

import "errors"

// An Error is a fault in what a peer sent, or in an address that is to be sent.
type Error struct {
	// Code is what to answer with.
	Code Code
	// What says what is wrong and where, such as "OPEN: recv_window: varint not
	// in its shortest form". It holds nothing of the input and is shorter than
	// [MaxReason].
	What string
	// StreamOnly is set when the session goes on: RESET(Code) of the one stream is
	// the answer, and to a DGRAM there is none, it is dropped. All other errors end
	// the session with CLOSE(Code).
	StreamOnly bool
}

// Error returns what is wrong and where.
func (e *Error) Error() string { return e.What }

func malformed(what string) error {
	return &Error{Code: CodeProtocol, What: what}
}

func tooLong(what string) error {
	return &Error{Code: CodeFrameSize, What: what}
}

func unsupported(what string) error {
	return &Error{Code: CodeUnsupported, What: what}
}

// within says where err happened. It returns nil for nil.
func within(where string, err error) error {
	if e, ok := errors.AsType[*Error](err); ok {
		return &Error{Code: e.Code, What: where + ": " + e.What, StreamOnly: e.StreamOnly}
	}
	return err
}

// streamOnly reports whether err leaves the session alone.
func streamOnly(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.StreamOnly
}
