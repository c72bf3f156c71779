package protocol

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// carrier is an end of a carrier in memory that a read deadline closes.
type carrier struct {
	*muxtest.End
	deadline *time.Timer
}

func (c *carrier) SetReadDeadline(t time.Time) error {
	if c.deadline != nil {
		c.deadline.Stop()
	}
	if !t.IsZero() {
		c.deadline = time.AfterFunc(time.Until(t), func() { _ = c.End.Close() })
	}
	return nil
}

func (c *carrier) Close() error {
	_ = c.SetReadDeadline(time.Time{})
	return c.End.Close()
}

func newCarrier(t *testing.T) (*carrier, *muxtest.Peer, *muxtest.End) {
	t.Helper()
	ours, theirs := muxtest.Pipe()
	return &carrier{End: ours}, muxtest.NewPeer(t, theirs), theirs
}

var (
	policy    = wire.DefaultPadding()
	handshake = Handshake{
		Timeout: wire.HelloTimeout, Offer: wire.KnownCapabilities, Padding: &policy,
		Fronts: []string{"wss://front.example/t", "wss://203.0.113.1:8443/t"},
	}
	grant = Grant{
		Session:  [16]byte{7},
		Limits:   wire.Limits{MaxStreams: 3, EarlyWindow: 1024, OpenBurst: 4, OpenRate: 5, Silence: 9 * time.Second},
		Deadline: time.UnixMilli(4_102_444_800_000),
	}
)

func hello() wire.Hello {
	return wire.Hello{Capabilities: wire.KnownCapabilities, DeviceID: [16]byte{1}, AccessToken: "token", ClientNonce: [32]byte{2}}
}

// outcome is what Run returned.
type outcome struct {
	accepted Accepted
	err      error
}

// admission decides as the test says.
type admission struct {
	admit  func(context.Context, wire.Hello, [32]byte) (Grant, error)
	resume func(context.Context, wire.Resumption, [32]byte) (Resumption, error) // nil: no session is known
}

func (a admission) Admit(ctx context.Context, hello wire.Hello, nonce [32]byte) (Grant, error) {
	return a.admit(ctx, hello, nonce)
}

func (a admission) Resume(ctx context.Context, asked wire.Resumption, nonce [32]byte) (Resumption, error) {
	if a.resume == nil {
		return Resumption{}, &RefusedError{Code: wire.CodeSessionUnknown}
	}
	return a.resume(ctx, asked, nonce)
}

// start runs the handshake beside the test.
func start(ctx context.Context, c *carrier, admit func(context.Context, wire.Hello, [32]byte) (Grant, error)) <-chan outcome {
	ended := make(chan outcome, 1)
	go func() {
		accepted, err := handshake.Run(ctx, c, admission{admit: admit})
		ended <- outcome{accepted, err}
	}()
	return ended
}

func neverAsked(t *testing.T) func(context.Context, wire.Hello, [32]byte) (Grant, error) {
	t.Helper()
	return func(context.Context, wire.Hello, [32]byte) (Grant, error) {
		t.Error("the decision was asked for")
		return Grant{}, errors.New("not to be asked")
	}
}

func TestAnAdmittedDeviceGetsItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer, end := newCarrier(t)
		defer c.Close()
		var nonce [32]byte
		ended := start(t.Context(), c, func(_ context.Context, h wire.Hello, n [32]byte) (Grant, error) {
			nonce = n
			if h.AccessToken != "token" || h.DeviceID != [16]byte{1} {
				t.Errorf("asked about %+v", h)
			}
			return grant, nil
		})
		challenge, err := wire.ParseChallenge(peer.Want(wire.TypeChallenge, 0))
		if err != nil || challenge.Capabilities != wire.KnownCapabilities || !challenge.Time.Equal(time.Now()) {
			t.Errorf("CHALLENGE = %+v, %v", challenge, err)
		}
		peer.WantQuiet()
		behind := wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, Target: wire.Addr{Name: "a.example", Port: 1}})
		peer.Send(wire.AppendHello(nil, hello()), behind)
		ready, err := wire.ParseReady(peer.Want(wire.TypeReady, 0))
		if err != nil {
			t.Fatal(err)
		}
		want := wire.Ready{
			Capabilities: wire.KnownCapabilities, SessionID: grant.Session, Time: ready.Time, Limits: grant.Limits, Deadline: grant.Deadline,
			PaddingPolicy: policy, Fronts: handshake.Fronts,
		}
		if diff := cmp.Diff(want, ready, cmp.Comparer(time.Time.Equal)); diff != "" {
			t.Errorf("READY (-want +got):\n%s", diff)
		}
		got := <-ended
		if got.err != nil || got.accepted.Grant != grant || !slices.Equal(got.accepted.First, behind) {
			t.Errorf("Run = %+v, %v", got.accepted, got.err)
		}
		if nonce != challenge.Nonce || nonce == [32]byte{} {
			t.Error("the nonce that was told is not the one that is checked")
		}
		// No deadline of the handshake is left behind.
		time.AfterFunc(time.Hour, func() { _ = end.WriteMessage([]byte{0, 0}) })
		if m, err := c.ReadMessage(nil); err != nil {
			t.Errorf("an hour later: %v, %v", m, err)
		}
	})
}

func TestRefusalsAreToldByCode(t *testing.T) {
	for _, tc := range []*RefusedError{
		{Code: wire.CodeInvalidToken},
		{Code: wire.CodeTokenExpired},
		{Code: wire.CodeDeviceRevoked},
		{Code: wire.CodeRetryLater, RetryAfter: 2 * time.Second},
	} {
		t.Run(tc.Code.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, peer, end := newCarrier(t)
				ended := start(t.Context(), c, func(context.Context, wire.Hello, [32]byte) (Grant, error) {
					return Grant{}, fmt.Errorf("decided: %w", tc)
				})
				peer.Want(wire.TypeChallenge, 0)
				peer.Send(wire.AppendHello(nil, hello()))
				reject, err := wire.ParseReject(peer.Want(wire.TypeReject, 0))
				if err != nil || reject.Code != tc.Code || reject.RetryAfter != tc.RetryAfter {
					t.Errorf("REJECT = %+v, %v, want %+v", reject, err, tc)
				}
				if _, err := end.ReadMessage(nil); !errors.Is(err, io.EOF) {
					t.Errorf("behind REJECT: %v, want the end of the carrier", err)
				}
				var refusal *RefusedError
				if got := <-ended; !errors.As(got.err, &refusal) || refusal != tc {
					t.Errorf("Run = %v", got.err)
				}
			})
		})
	}
}

func TestAFaultOfTheGatewayIsToldAsInternal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer, _ := newCarrier(t)
		secret := errors.New("disk of 10.0.0.1 on fire")
		ended := start(t.Context(), c, func(context.Context, wire.Hello, [32]byte) (Grant, error) { return Grant{}, secret })
		peer.Want(wire.TypeChallenge, 0)
		peer.Send(wire.AppendHello(nil, hello()))
		closed, err := wire.ParseClose(peer.Want(wire.TypeClose, 0))
		if err != nil || closed.Code != wire.CodeInternal || closed.Reason != "" {
			t.Errorf("CLOSE = %+v, %v", closed, err)
		}
		if got := <-ended; !errors.Is(got.err, secret) {
			t.Errorf("Run = %v", got.err)
		}
	})
}

func TestABrokenFirstMessageEndsTheHandshake(t *testing.T) {
	good := wire.AppendHello(nil, hello())
	unoffered := hello()
	unoffered.Capabilities = wire.KnownCapabilities.With(9)
	for name, tc := range map[string]struct {
		message []byte
		want    wire.Code
	}{
		"no frame":                      {nil, wire.CodeProtocol},
		"half a frame":                  {good[:len(good)/2], wire.CodeProtocol},
		"OPEN first":                    {wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, Target: wire.Addr{Name: "a", Port: 1}}), wire.CodeProtocol},
		"PING first":                    {append(wire.AppendPing(nil, [8]byte{}), good...), wire.CodeProtocol},
		"PAD first":                     {append(wire.AppendFrame(nil, wire.TypePad, 0, nil), good...), wire.CodeProtocol},
		"CHALLENGE back":                {wire.AppendChallenge(nil, wire.Challenge{}), wire.CodeProtocol},
		"a critical unknown frame":      {wire.AppendFrame(nil, 0x3e, 0, nil), wire.CodeUnsupported},
		"HELLO without anything":        {wire.AppendFrame(nil, wire.TypeHello, 0, nil), wire.CodeProtocol},
		"HELLO beyond its size":         {wire.AppendFrame(nil, wire.TypeHello, 0, make([]byte, wire.MaxHello+1)), wire.CodeFrameSize},
		"HELLO with an unknown key":     {wire.AppendFrame(nil, wire.TypeHello, 0, []byte{12, 0}), wire.CodeUnsupported},
		"a capability that is not mine": {wire.AppendHello(nil, unoffered), wire.CodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, peer, end := newCarrier(t)
				ended := start(t.Context(), c, neverAsked(t))
				peer.Want(wire.TypeChallenge, 0)
				if err := end.WriteMessage(tc.message); err != nil {
					t.Fatal(err)
				}
				peer.WantClose(tc.want)
				var violation *ViolationError
				if got := <-ended; !errors.As(got.err, &violation) || violation.Code != tc.want {
					t.Errorf("Run = %v", got.err)
				}
			})
		})
	}
}

func TestASilentDeviceIsClosedAfterTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer, end := newCarrier(t)
		began := time.Now()
		ended := start(t.Context(), c, neverAsked(t))
		peer.Want(wire.TypeChallenge, 0)
		got := <-ended
		if got.err == nil || time.Since(began) != 10*time.Second {
			t.Errorf("Run = %v after %v", got.err, time.Since(began))
		}
		if _, err := end.ReadMessage(nil); !errors.Is(err, io.EOF) {
			t.Errorf("the carrier reads %v, want its end", err)
		}
	})
}

func TestADeviceThatLeavesEndsTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, peer, _ := newCarrier(t)
		ended := start(t.Context(), c, neverAsked(t))
		peer.Want(wire.TypeChallenge, 0)
		peer.Close()
		if got := <-ended; !errors.Is(got.err, io.EOF) {
			t.Errorf("Run = %v", got.err)
		}
	})
}

func TestTheGatewaysEndEndsTheHandshake(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stopping := errors.New("stopping")
		ctx, cancel := context.WithCancelCause(t.Context())
		c, peer, _ := newCarrier(t)
		ended := start(ctx, c, neverAsked(t))
		peer.Want(wire.TypeChallenge, 0)
		cancel(stopping)
		if got := <-ended; !errors.Is(got.err, stopping) {
			t.Errorf("Run = %v, want the cause", got.err)
		}
	})
}

// Every malformed HELLO of the vectors is answered with exactly its code: docs/03,
// part 10.
func TestMalformedHellosEndTheHandshakeWithTheirCode(t *testing.T) {
	played := 0
	for _, v := range muxtest.MalformedVectors(t, "../../../sdk/testvectors", "handshake.json", "frames.json", "unknown.json") {
		if v.Type() != wire.TypeHello && v.Code != wire.CodeUnsupported {
			continue // any other frame in place of HELLO is a fault of its own
		}
		if v.Type() == wire.TypeChallenge || v.Type() == wire.TypeReady || v.Type() == wire.TypeReject {
			continue
		}
		played++
		t.Run(v.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c, peer, _ := newCarrier(t)
				ended := start(t.Context(), c, neverAsked(t))
				peer.Want(wire.TypeChallenge, 0)
				peer.Send(v.Bytes)
				peer.WantClose(v.Code)
				var violation *ViolationError
				if got := <-ended; !errors.As(got.err, &violation) || violation.Code != v.Code {
					t.Errorf("Run = %v", got.err)
				}
			})
		})
	}
	if played < 40 {
		t.Errorf("the gateway met only %d malformed inputs", played)
	}
}

func TestEveryChallengeIsAnother(t *testing.T) {
	seen := make(map[[32]byte]bool)
	for range 50 {
		synctest.Test(t, func(t *testing.T) {
			c, peer, _ := newCarrier(t)
			ended := start(t.Context(), c, neverAsked(t))
			challenge, err := wire.ParseChallenge(peer.Want(wire.TypeChallenge, 0))
			if err != nil || challenge.Nonce == [32]byte{} || seen[challenge.Nonce] {
				t.Errorf("nonce %x, %v", challenge.Nonce, err)
			}
			seen[challenge.Nonce] = true
			peer.Close()
			<-ended
		})
	}
}

// Of what was offered, READY tells what HELLO wanted.
func TestReadyTellsOnlyWhatHelloWanted(t *testing.T) {
	for _, wanted := range []wire.Capabilities{0, wire.KnownCapabilities} {
		synctest.Test(t, func(t *testing.T) {
			c, peer, _ := newCarrier(t)
			defer c.Close()
			ended := start(t.Context(), c, func(context.Context, wire.Hello, [32]byte) (Grant, error) { return grant, nil })
			peer.Want(wire.TypeChallenge, 0)
			h := hello()
			h.Capabilities = wanted
			peer.Send(wire.AppendHello(nil, h))
			ready, err := wire.ParseReady(peer.Want(wire.TypeReady, 0))
			if err != nil || ready.Capabilities != wanted {
				t.Errorf("READY has %b, %v, HELLO wanted %b", ready.Capabilities, err, wanted)
			}
			<-ended
		})
	}
}

// lengths plays a device that asks to resume and then says HELLO, and returns how long the
// gateway's messages were.
func lengths(t *testing.T, h Handshake, wanted wire.Capabilities, verdict error) (all map[wire.FrameType]int, accepted Accepted) {
	t.Helper()
	all = make(map[wire.FrameType]int)
	synctest.Test(t, func(t *testing.T) {
		c, _, end := newCarrier(t)
		defer c.Close()
		ended := make(chan outcome, 1)
		go func() {
			accepted, err := h.Run(t.Context(), c, admission{admit: func(context.Context, wire.Hello, [32]byte) (Grant, error) { return grant, verdict }})
			ended <- outcome{accepted, err}
		}()
		read := func() {
			msg, err := end.ReadMessage(nil)
			if err != nil {
				t.Fatal(err)
			}
			all[wire.FrameType(msg[0])] = len(msg)
		}
		read()
		if err := end.WriteMessage(wire.AppendResume(nil, wire.Resumption{Attempt: 1})); err != nil {
			t.Fatal(err)
		}
		read()
		said := hello()
		said.Capabilities = wanted
		if err := end.WriteMessage(wire.AppendHello(nil, said)); err != nil {
			t.Fatal(err)
		}
		read()
		accepted = (<-ended).accepted
	})
	return all, accepted
}

func TestTheHandshakeIsPaddedWherePaddingIsOffered(t *testing.T) {
	seen := make(map[int]bool)
	for range 40 {
		all, accepted := lengths(t, handshake, wire.KnownCapabilities, nil)
		for _, frame := range []wire.FrameType{wire.TypeChallenge, wire.TypeReject, wire.TypeReady} {
			if n := all[frame]; n < wire.MinPadHandshake || n > wire.MaxPadHandshake {
				t.Errorf("a %v of %d bytes", frame, n)
			}
			seen[all[frame]] = true
		}
		if accepted.Padding != &policy {
			t.Error("the session is not padded")
		}
	}
	if len(seen) < 80 {
		t.Errorf("120 messages have only %d lengths", len(seen))
	}
	all, _ := lengths(t, handshake, wire.KnownCapabilities, &RefusedError{Code: wire.CodeInvalidToken})
	if n := all[wire.TypeReject]; n < wire.MinPadHandshake || n > wire.MaxPadHandshake {
		t.Errorf("a refusal of %d bytes", n)
	}
}

// The device of an earlier release does not know padding, and a gateway without padding
// says nothing of it.
func TestSessionsArePaddedOnlyWhereBothWantIt(t *testing.T) {
	_, accepted := lengths(t, handshake, wire.Capabilities(0).With(wire.Resume), nil)
	if accepted.Padding != nil {
		t.Error("the session of a device that does not know padding is padded")
	}
	off := handshake
	off.Offer, off.Padding = wire.Capabilities(0).With(wire.Resume), nil
	all, accepted := lengths(t, off, off.Offer, nil)
	if accepted.Padding != nil || all[wire.TypeChallenge] > 60 || all[wire.TypeReject] > 10 || all[wire.TypeReady] > 200 {
		t.Errorf("without padding there is padding: %v, %v", all, accepted.Padding)
	}
}
