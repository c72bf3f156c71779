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
	"github.com/httvps/httvps/sdk/go/wire"
)

// handshakeTimeout bounds everything from the TCP connection to READY. The
// gateway may wait two seconds for the control plane.
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
	// Reading and writing know no context: its end closes the carrier.
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	w, err := c.handshake(conn, strings.ToLower(host), token)
	if !stop() {
		_ = conn.Close()
		return welcome{}, fmt.Errorf("handshake: %w", context.Cause(ctx))
	}
	if err != nil {
		if fault, ok := errors.AsType[*wire.Error](err); ok {
			_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
			_ = conn.WriteMessage(wire.AppendClose(nil, wire.Close{Code: fault.Code, Reason: fault.What}))
		}
		_ = conn.Close()
		if refused, ok := errors.AsType[*RefusedError](err); ok {
			refused.By = host
			return welcome{}, refused
		}
		return welcome{}, fmt.Errorf("handshake: %w", err)
	}
	return w, nil
}

// handshake is part 5 of the protocol document, the client's side. A
// *wire.Error is to be answered with its code.
func (c credentials) handshake(conn messages, host, token string) (welcome, error) {
	msg, err := conn.ReadMessage(nil)
	if err != nil {
		return welcome{}, err
	}
	first, rest, err := wire.ConsumeFrame(msg)
	switch {
	case err != nil:
		return welcome{}, err
	case first.Type == wire.TypeClose:
		return welcome{}, closed(first.Payload)
	case first.Type != wire.TypeChallenge || len(rest) > 0:
		return welcome{}, &wire.Error{Code: wire.CodeProtocol, What: "CHALLENGE not alone in the first message"}
	}
	challenge, err := wire.ParseChallenge(first.Payload)
	if err != nil {
		return welcome{}, err
	}
	hello, err := c.hello(conn, challenge, host, token)
	if err != nil {
		return welcome{}, err
	}
	if err := conn.WriteMessage(wire.AppendHello(nil, hello)); err != nil {
		return welcome{}, err
	}

	msg, err = conn.ReadMessage(msg)
	if err != nil {
		return welcome{}, err
	}
	answer, rest, err := wire.ConsumeFrame(msg)
	if err != nil {
		return welcome{}, err
	}
	switch answer.Type {
	case wire.TypeReady:
		ready, err := wire.ParseReady(answer.Payload)
		if err != nil {
			return welcome{}, err
		}
		if !ready.Capabilities.In(hello.Capabilities) {
			return welcome{}, &wire.Error{Code: wire.CodeProtocol, What: "READY: a capability that HELLO did not ask for"}
		}
		return welcome{ready: ready, rest: rest}, nil
	case wire.TypeReject:
		reject, err := wire.ParseReject(answer.Payload)
		if err != nil {
			return welcome{}, err
		}
		return welcome{}, &RefusedError{
			Code:       reject.Code.Meaning().String(),
			RetryAfter: min(reject.RetryAfter, maxRetryAfter),
		}
	case wire.TypeClose:
		return welcome{}, closed(answer.Payload)
	default:
		return welcome{}, &wire.Error{Code: wire.CodeProtocol, What: "neither READY nor REJECT after HELLO"}
	}
}

// hello builds the signed HELLO. Channel binding is used whenever the gateway
// offers it.
func (c credentials) hello(conn messages, challenge wire.Challenge, host, token string) (wire.Hello, error) {
	hello := wire.Hello{
		DeviceID:    c.device,
		Agent:       c.agent,
		AccessToken: token,
		Time:        time.Now(),
		DeviceKey:   c.public,
	}
	_, _ = rand.Read(hello.ClientNonce[:]) // never fails (crypto/rand)
	var binding []byte
	if challenge.Capabilities.Has(wire.ChannelBinding) {
		var err error
		if binding, err = conn.ExportKeyingMaterial(); err != nil {
			return hello, err
		}
		hello.Capabilities = hello.Capabilities.With(wire.ChannelBinding)
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
