package protocol

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/httvps/httvps/sdk/go/padding"
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
	// AuthDeadline is until when the device has shown who it is, for one that can show it
	// again; zero: for ever.
	AuthDeadline time.Time
	// Resume is what the device is told for when it wants the session to go on over
	// another carrier; nil: it cannot.
	Resume *Resume
	// Drain says that the device understands when the gateway says that it goes away.
	Drain bool
}

// Resume is what resuming a session takes.
type Resume struct {
	Secret [32]byte
	Window time.Duration // how long the session is kept without a carrier
	Bound  bool          // every proof is bound to its TLS connection
}

// Handshake is how carriers become sessions.
type Handshake struct {
	// Timeout is what the other end has for its HELLO.
	Timeout time.Duration
	// Offer are the capabilities that CHALLENGE names, but for padding.
	Offer wire.Capabilities
	// Padding is offered with this policy; nil: it is not.
	Padding *wire.PaddingPolicy
	// Fronts are other URLs of this gateway, which READY names.
	Fronts []string
}

// Admission decides about who comes.
type Admission interface {
	// Admit decides about a HELLO that is well-formed. Its error is a *RefusedError,
	// or counts as internal.
	Admit(ctx context.Context, hello wire.Hello, nonce [32]byte) (Grant, error)
	// Resume decides about a RESUME that is well-formed. After a *RefusedError with
	// wire.CodeSessionUnknown the device may send a HELLO instead.
	Resume(ctx context.Context, asked wire.Resumption, nonce [32]byte) (Resumption, error)
}

// Resumption is a session that takes a carrier over. One of its functions is called,
// once.
type Resumption struct {
	Answer wire.Resumed
	// Attach is called when the answer was sent, with the frames that came behind
	// RESUME in its message. When it fails the carrier is closed.
	Attach func(first []byte) error
	// Abandon is called when the answer could not be sent.
	Abandon func()
}

// Accepted is a finished handshake.
type Accepted struct {
	Grant
	// First are the frames that came behind HELLO in its message.
	First []byte
	// Padding is what READY told of it; nil: the session has none.
	Padding *wire.PaddingPolicy
	// Resumed is set when the carrier went to a session that was there before, which
	// the Grant is not about.
	Resumed bool
}

// Run does the gateway's half of the handshake.
//
// When Run fails the carrier is closed; the other end was told why as far as
// it may know. The error is a *RefusedError, a *ViolationError, the carrier's own, or
// what wraps ctx's cause.
func (h Handshake) Run(ctx context.Context, conn Carrier, admission Admission) (Accepted, error) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // unblocks reads
	defer stop()
	if h.Padding != nil {
		h.Offer = h.Offer.With(wire.Padding)
	}
	s := shaking{Handshake: h, conn: conn, admission: admission, decided: func() { stop() }}
	accepted, err := s.run(ctx)
	if err != nil {
		_ = conn.Close()
		if ctx.Err() != nil {
			err = fmt.Errorf("handshake: %w", context.Cause(ctx)) // the carrier's error is only its consequence
		}
		return Accepted{}, err
	}
	return accepted, nil
}

// shaking is one handshake.
type shaking struct {
	Handshake
	conn      Carrier
	admission Admission
	decided   func() // from here on it is a session, and ends like one
	challenge wire.Challenge
}

func (s *shaking) run(ctx context.Context) (Accepted, error) {
	// One deadline for the whole HELLO: bytes that drip in do not move it.
	if err := s.conn.SetReadDeadline(time.Now().Add(s.Timeout)); err != nil {
		return Accepted{}, err
	}
	s.challenge = wire.Challenge{Capabilities: s.Offer, Time: time.Now()}
	_, _ = rand.Read(s.challenge.Nonce[:]) // never fails (crypto/rand)
	s.challenge.Padding = s.pad(wire.AppendChallenge(nil, s.challenge))
	if err := send(s.conn, wire.AppendChallenge(nil, s.challenge)); err != nil {
		return Accepted{}, fmt.Errorf("send CHALLENGE: %w", err)
	}
	frame, rest, err := readFirst(s.conn)
	if err != nil {
		return Accepted{}, s.tell(err)
	}
	if frame.Type == wire.TypeResume && s.Offer.Has(wire.Resume) {
		err := s.resume(ctx, frame, rest)
		if err == nil {
			return Accepted{Resumed: true}, nil
		}
		if refusal, ok := errors.AsType[*RefusedError](err); !ok || refusal.Code != wire.CodeSessionUnknown {
			return Accepted{}, s.tell(err)
		}
		_ = s.tell(err)
		if frame, rest, err = readFirst(s.conn); err != nil {
			return Accepted{}, s.tell(err)
		}
	}
	return s.hello(ctx, frame, rest)
}

// hello acts on the first frame of a device that wants a session.
func (s *shaking) hello(ctx context.Context, frame wire.Frame, rest []byte) (Accepted, error) {
	hello, err := s.parseHello(frame)
	if err != nil {
		return Accepted{}, s.tell(err)
	}
	grant, err := s.admission.Admit(ctx, hello, s.challenge.Nonce)
	if err != nil {
		return Accepted{}, s.tell(err)
	}
	s.decided()
	ready := wire.Ready{
		Capabilities: hello.Capabilities & s.Offer,
		SessionID:    grant.Session,
		Time:         time.Now(),
		Limits:       grant.Limits,
		Deadline:     grant.Deadline,
		AuthDeadline: grant.AuthDeadline,
		Fronts:       s.Fronts,
	}
	if grant.Resume != nil {
		ready.ResumeSecret, ready.ResumeWindow = grant.Resume.Secret, grant.Resume.Window
	}
	accepted := Accepted{Grant: grant, First: rest}
	if ready.Capabilities.Has(wire.Padding) {
		accepted.Padding, ready.PaddingPolicy = s.Padding, *s.Padding
	}
	ready.Padding = s.pad(wire.AppendReady(nil, ready))
	if err := send(s.conn, wire.AppendReady(nil, ready)); err != nil {
		return Accepted{}, fmt.Errorf("send READY: %w", err)
	}
	return accepted, s.undeadline()
}

// resume acts on the first frame of a device that has a session.
func (s *shaking) resume(ctx context.Context, frame wire.Frame, rest []byte) error {
	asked, err := wire.ParseResume(frame.Payload)
	if err != nil {
		return err
	}
	session, err := s.admission.Resume(ctx, asked, s.challenge.Nonce)
	if err != nil {
		return err
	}
	s.decided()
	session.Answer.Padding = s.pad(wire.AppendResumed(nil, session.Answer))
	if err := send(s.conn, wire.AppendResumed(nil, session.Answer)); err != nil {
		session.Abandon()
		return &carrierError{fmt.Errorf("send RESUMED: %w", err)}
	}
	if err := s.undeadline(); err != nil {
		session.Abandon()
		return &carrierError{err}
	}
	return session.Attach(rest)
}

// pad says how much padding a frame of the handshake gets; its own has none yet.
func (s *shaking) pad(frame []byte) int {
	if s.Padding == nil {
		return 0
	}
	return padding.Handshake(len(frame))
}

func (s *shaking) undeadline() error {
	return errors.Join(s.conn.SetReadDeadline(time.Time{}), s.conn.SetWriteDeadline(time.Time{}))
}

// readFirst reads a message of the client's and returns its first frame; the frames
// behind it are returned unread.
func readFirst(conn Carrier) (first wire.Frame, rest []byte, err error) {
	message, err := conn.ReadMessage(nil)
	if err != nil {
		return wire.Frame{}, nil, &carrierError{err}
	}
	if len(message) == 0 {
		return wire.Frame{}, nil, &ViolationError{Code: wire.CodeProtocol, What: "empty message"}
	}
	return wire.ConsumeFrame(message)
}

// parseHello reads the frame that has to be HELLO.
func (s *shaking) parseHello(frame wire.Frame) (wire.Hello, error) {
	if frame.Type != wire.TypeHello {
		return wire.Hello{}, &ViolationError{Code: wire.CodeProtocol, What: "HELLO is not the first frame"}
	}
	hello, err := wire.ParseHello(frame.Payload)
	if err != nil {
		return wire.Hello{}, err
	}
	if !hello.Capabilities.In(s.Offer) {
		return wire.Hello{}, &ViolationError{Code: wire.CodeProtocol, What: "HELLO: a capability that was not offered"}
	}
	return hello, nil
}

// tell sends what the other end may know of err, and returns err as a type of
// this package where it is one.
func (s *shaking) tell(err error) error {
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
		reject := wire.Reject{Code: refusal.Code, RetryAfter: refusal.RetryAfter}
		reject.Padding = s.pad(wire.AppendReject(nil, reject))
		answer = wire.AppendReject(nil, reject)
	case errors.As(err, &violation):
		answer = wire.AppendClose(nil, wire.Close{Code: violation.Code, Reason: violation.What})
	case errors.As(err, &broken):
		return err
	default:
		answer = wire.AppendClose(nil, wire.Close{Code: wire.CodeInternal})
	}
	_ = send(s.conn, answer) // err is what matters, and the carrier is closed anyway
	return err
}

// carrierError marks an error of the carrier itself: there is nobody to tell.
type carrierError struct{ err error }

func (e *carrierError) Error() string { return fmt.Sprintf("handshake: %v", e.err) }
func (e *carrierError) Unwrap() error { return e.err }

func send(conn Carrier, message []byte) error {
	if err := conn.SetWriteDeadline(time.Now().Add(answerTimeout)); err != nil {
		return err
	}
	return conn.WriteMessage(message)
}
