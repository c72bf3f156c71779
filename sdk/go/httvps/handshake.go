package httvps

import (
	"context"
	"crypto"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/padding"
	"github.com/httvps/httvps/sdk/go/wire"
)

// handshakeTimeout bounds everything from the TCP connection to READY. The
// gateway may wait five seconds for the control plane.
const handshakeTimeout = 20 * time.Second

// credentials are what a device shows to a gateway.
type credentials struct {
	device [16]byte
	public [32]byte
	key    crypto.Signer
	agent  string
}

// messages is the part of a carrier that the handshake needs.
type messages interface {
	ReadMessage(buf []byte) ([]byte, error)
	WriteMessage(p []byte) error
	ExportKeyingMaterial() ([]byte, error)
}

// welcome is a finished handshake.
type welcome struct {
	ready wire.Ready
	rest  []byte // the frames that came behind READY
}

// opened is a carrier whose gateway has sent its CHALLENGE.
type opened struct {
	conn      *carrier.Conn
	host      string // of the upgrade, in lower case
	challenge wire.Challenge
}

// open opens a carrier to a gateway, as far as the CHALLENGE.
func open(ctx context.Context, gateway string, opts carrier.DialOptions) (*opened, error) {
	conn, err := carrier.Dial(ctx, gateway, opts)
	if err != nil {
		return nil, err
	}
	return challenged(ctx, conn, hostOf(gateway))
}

// challenged waits for the CHALLENGE on a new carrier, and closes that if it fails.
func challenged(ctx context.Context, conn *carrier.Conn, host string) (*opened, error) {
	o := &opened{conn: conn, host: strings.ToLower(host)}
	err := o.during(ctx, func() (err error) {
		o.challenge, err = readChallenge(conn)
		return err
	})
	if err != nil {
		return nil, err
	}
	return o, nil
}

// during runs a part of the handshake, which knows no context: its end closes the
// carrier, as a failure does. The gateway is told of what it did wrong.
func (o *opened) during(ctx context.Context, part func() error) error {
	stop := context.AfterFunc(ctx, func() { _ = o.conn.Close() })
	err := part()
	if !stop() {
		_ = o.conn.Close()
		return fmt.Errorf("handshake: %w", context.Cause(ctx))
	}
	if err == nil {
		return nil
	}
	if fault, ok := errors.AsType[*wire.Error](err); ok {
		_ = o.conn.SetWriteDeadline(time.Now().Add(time.Second))
		_ = o.conn.WriteMessage(wire.AppendClose(nil, wire.Close{Code: fault.Code, Reason: fault.What}))
	}
	_ = o.conn.Close()
	if refused, ok := errors.AsType[*RefusedError](err); ok {
		refused.By = o.host
		return refused
	}
	return fmt.Errorf("handshake: %w", err)
}

// connect opens a carrier to a gateway and introduces the device. The error is
// a *RefusedError when the gateway refused it.
func (c credentials) connect(ctx context.Context, gateway, token string, opts carrier.DialOptions) (*carrier.Conn, welcome, error) {
	ctx, cancel := context.WithTimeout(ctx, handshakeTimeout)
	defer cancel()
	conn, err := carrier.Dial(ctx, gateway, opts)
	if err != nil {
		return nil, welcome{}, err
	}
	w, err := c.introduce(ctx, conn, hostOf(gateway), token)
	if err != nil {
		return nil, welcome{}, err
	}
	return conn, w, nil
}

// introduce introduces the device to the gateway at host over a new carrier, and
// closes that if it fails. The error is a *RefusedError when the gateway refused the
// device.
func (c credentials) introduce(ctx context.Context, conn *carrier.Conn, host, token string) (welcome, error) {
	o, err := challenged(ctx, conn, host)
	if err != nil {
		return welcome{}, err
	}
	return c.answer(ctx, o, token)
}

// answer answers a CHALLENGE with the device's credentials; see introduce.
func (c credentials) answer(ctx context.Context, o *opened, token string) (w welcome, err error) {
	err = o.during(ctx, func() (err error) {
		w, err = c.greet(o.conn, o.challenge, o.host, token)
		return err
	})
	return w, err
}

// readChallenge reads the gateway's first message. A *wire.Error is to be answered
// with its code.
func readChallenge(conn messages) (wire.Challenge, error) {
	msg, err := conn.ReadMessage(nil)
	if err != nil {
		return wire.Challenge{}, err
	}
	first, rest, err := wire.ConsumeFrame(msg)
	switch {
	case err != nil:
		return wire.Challenge{}, err
	case first.Type == wire.TypeClose:
		return wire.Challenge{}, closed(first.Payload)
	case first.Type != wire.TypeChallenge || len(rest) > 0:
		return wire.Challenge{}, &wire.Error{Code: wire.CodeProtocol, What: "CHALLENGE not alone in the first message"}
	}
	return wire.ParseChallenge(first.Payload)
}

// greet is what comes behind the CHALLENGE, in part 5 of the protocol document, the
// client's side. A *wire.Error is to be answered with its code.
func (c credentials) greet(conn messages, challenge wire.Challenge, host, token string) (welcome, error) {
	hello, err := c.hello(conn, challenge, host, token)
	if err != nil {
		return welcome{}, err
	}
	if err := conn.WriteMessage(wire.AppendHello(nil, hello)); err != nil {
		return welcome{}, err
	}
	answer, rest, err := readAnswer(conn)
	if err != nil {
		return welcome{}, err
	}
	if answer.Type != wire.TypeReady {
		return welcome{}, &wire.Error{Code: wire.CodeProtocol, What: "neither READY nor REJECT after HELLO"}
	}
	ready, err := wire.ParseReady(answer.Payload)
	if err != nil {
		return welcome{}, err
	}
	if !ready.Capabilities.In(hello.Capabilities) {
		return welcome{}, &wire.Error{Code: wire.CodeProtocol, What: "READY: a capability that HELLO did not ask for"}
	}
	return welcome{ready: ready, rest: rest}, nil
}

// readAnswer reads the answer to the client's first frame. The error is a
// *RefusedError for REJECT and CLOSE.
func readAnswer(conn messages) (answer wire.Frame, rest []byte, err error) {
	msg, err := conn.ReadMessage(nil)
	if err != nil {
		return wire.Frame{}, nil, err
	}
	answer, rest, err = wire.ConsumeFrame(msg)
	switch {
	case err != nil:
		return wire.Frame{}, nil, err
	case answer.Type == wire.TypeReject:
		reject, err := wire.ParseReject(answer.Payload)
		if err != nil {
			return wire.Frame{}, nil, err
		}
		return wire.Frame{}, nil, &RefusedError{
			Code:       reject.Code.Meaning().String(),
			RetryAfter: min(reject.RetryAfter, maxRetryAfter),
		}
	case answer.Type == wire.TypeClose:
		return wire.Frame{}, nil, closed(answer.Payload)
	}
	return answer, rest, nil
}

// hello builds the signed HELLO. Channel binding is used whenever the gateway
// offers it, and so is resuming.
func (c credentials) hello(conn messages, challenge wire.Challenge, host, token string) (wire.Hello, error) {
	hello := wire.Hello{
		Capabilities: challenge.Capabilities & wire.KnownCapabilities,
		DeviceID:     c.device,
		Agent:        c.agent,
		AccessToken:  token,
		Time:         time.Now(),
		DeviceKey:    c.public,
	}
	if hello.Capabilities.Has(wire.Padding) {
		hello.Padding = padding.Handshake(len(wire.AppendHello(nil, hello)))
	}
	_, _ = rand.Read(hello.ClientNonce[:]) // never fails (crypto/rand)
	var binding []byte
	if hello.Capabilities.Has(wire.ChannelBinding) {
		var err error
		if binding, err = conn.ExportKeyingMaterial(); err != nil {
			return hello, err
		}
	}
	signature, err := c.key.Sign(nil, hello.SigningInput(challenge.Nonce, host, binding), crypto.Hash(0))
	if err != nil {
		return hello, fmt.Errorf("%w: %w", errKey, err)
	}
	if copy(hello.Signature[:], signature) != len(hello.Signature) {
		return hello, fmt.Errorf("%w: not an Ed25519 signature", errKey)
	}
	return hello, nil
}

// closed is the error for a CLOSE in place of an answer.
func closed(payload []byte) error {
	c, err := wire.ParseClose(payload)
	if err != nil {
		return err
	}
	return &RefusedError{Code: c.Code.Meaning().String()}
}
