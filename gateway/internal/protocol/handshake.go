package protocol

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/httvps/httvps/sdk/go/wire"
)

// answerTimeout bounds the writing of one message of the handshake.
const answerTimeout = 5 * time.Second

// Carrier moves whole messages. It is closed when the handshake fails.
type Carrier interface {
	ReadMessage(buf []byte) ([]byte, error)
	WriteMessage(message []byte) error
	SetReadDeadline(t time.Time) error
	SetWriteDeadline(t time.Time) error
	Close() error
}

// RefusedError is the decision that a device gets no session.
type RefusedError struct {
	Code wire.Code
	// RetryAfter is how long the device should wait; 0 means that trying again
	// does not help until something changes.
	RetryAfter time.Duration
}

func (r *RefusedError) Error() string { return "refused: " + r.Code.String() }

// ViolationError says that the other end broke a rule of the protocol.
type ViolationError struct {
	Code wire.Code
	What string
}

func (v *ViolationError) Error() string {
	return fmt.Sprintf("protocol violation (%s): %s", v.Code, v.What)
}

// Grant is the decision that a device gets a session.
type Grant struct {
	Session  [16]byte
	Limits   wire.Limits
	Deadline time.Time // zero: none
}

// Handshake is how carriers become sessions.
type Handshake struct {
	// Timeout is what the other end has for its HELLO.
	Timeout time.Duration
	// Offer are the capabilities that CHALLENGE names.
	Offer wire.Capabilities
}

// Accepted is a finished handshake.
type Accepted struct {
	Grant
	// First are the frames that came behind HELLO in its message.
	First []byte
}

// Run does the gateway's half of the handshake. admit decides about a HELLO
// that is well-formed; its error is a *RefusedError, or counts as internal.
//
// When Run fails the carrier is closed; the other end was told why as far as
// it may know. The error is a *RefusedError, a *ViolationError, the carrier's own, or
// what wraps ctx's cause.
func (h Handshake) Run(ctx context.Context, conn Carrier, admit func(ctx context.Context, hello wire.Hello, nonce [32]byte) (Grant, error)) (Accepted, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // unblocks reads
	accepted, err := h.run(ctx, conn, func(ctx context.Context, hello wire.Hello, nonce [32]byte) (Grant, error) {
		grant, err := admit(ctx, hello, nonce)
		if err == nil {
			stop() // from here on it is a session, and ends like one
		}
		return grant, err
	})
	stop()
	if err == nil {
		err = errors.Join(conn.SetReadDeadline(time.Time{}), conn.SetWriteDeadline(time.Time{}))
	}
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("handshake: %w", context.Cause(ctx)) // the carrier's error is only its consequence
		}
		return Accepted{}, err
	}
	return accepted, nil
}

func (h Handshake) run(ctx context.Context, conn Carrier, admit func(context.Context, wire.Hello, [32]byte) (Grant, error)) (Accepted, error) {
	// One deadline for the whole HELLO: bytes that drip in do not move it.
	if err := conn.SetReadDeadline(time.Now().Add(h.Timeout)); err != nil {
		return Accepted{}, err
	}
	challenge := wire.Challenge{Capabilities: h.Offer, Time: time.Now()}
	_, _ = rand.Read(challenge.Nonce[:]) // never fails (crypto/rand)
	if err := send(conn, wire.AppendChallenge(nil, challenge)); err != nil {
		return Accepted{}, fmt.Errorf("send CHALLENGE: %w", err)
	}
	hello, first, err := h.readHello(conn)
	if err != nil {
		return Accepted{}, tell(conn, err)
	}
	grant, err := admit(ctx, hello, challenge.Nonce)
	if err != nil {
		return Accepted{}, tell(conn, err)
	}
	ready := wire.Ready{
		Capabilities: hello.Capabilities & h.Offer,
		SessionID:    grant.Session,
		Time:         time.Now(),
		Limits:       grant.Limits,
		Deadline:     grant.Deadline,
	}
	if err := send(conn, wire.AppendReady(nil, ready)); err != nil {
		return Accepted{}, fmt.Errorf("send READY: %w", err)
	}
	return Accepted{Grant: grant, First: first}, nil
}

// readHello reads the client's first message. HELLO is its first frame; the
// frames behind it are returned unread.
func (h Handshake) readHello(conn Carrier) (wire.Hello, []byte, error) {
	message, err := conn.ReadMessage(nil)
	if err != nil {
		return wire.Hello{}, nil, &carrierError{err}
	}
	if len(message) == 0 {
		return wire.Hello{}, nil, &ViolationError{Code: wire.CodeProtocol, What: "empty message"}
	}
	frame, rest, err := wire.ConsumeFrame(message)
	if err != nil {
		return wire.Hello{}, nil, err
	}
	if frame.Type != wire.TypeHello {
		return wire.Hello{}, nil, &ViolationError{Code: wire.CodeProtocol, What: "HELLO is not the first frame"}
	}
	hello, err := wire.ParseHello(frame.Payload)
	if err != nil {
		return wire.Hello{}, nil, err
	}
	if !hello.Capabilities.In(h.Offer) {
		return wire.Hello{}, nil, &ViolationError{Code: wire.CodeProtocol, What: "HELLO: a capability that was not offered"}
	}
	return hello, rest, nil
}

// tell sends what the other end may know of err, and returns err as a type of
// this package where it is one.
func tell(conn Carrier, err error) error {
	var (
		refusal   *RefusedError
		violation *ViolationError
		malformed *wire.Error
		broken    *carrierError
	)
	if errors.As(err, &malformed) {
		err = &ViolationError{Code: malformed.Code, What: malformed.What}
	}
	var answer []byte
	switch {
	case errors.As(err, &refusal):
		answer = wire.AppendReject(nil, wire.Reject{Code: refusal.Code, RetryAfter: refusal.RetryAfter})
	case errors.As(err, &violation):
		answer = wire.AppendClose(nil, wire.Close{Code: violation.Code, Reason: violation.What})
	case errors.As(err, &broken):
		return err
	default:
		answer = wire.AppendClose(nil, wire.Close{Code: wire.CodeInternal})
	}
	_ = send(conn, answer) // err is what matters, and the carrier is closed anyway
	return err
}

// carrierError marks an error of the carrier itself: there is nobody to tell.
type carrierError struct{ err error }

func (e *carrierError) Error() string { return fmt.Sprintf("read HELLO: %v", e.err) }
func (e *carrierError) Unwrap() error { return e.err }

func send(conn Carrier, message []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	return conn.WriteMessage(message)
}
