package httvps

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// script is a gateway that says what it was told to say.
type script struct {
	says    [][]byte
	heard   [][]byte
	binding []byte
}

func (s *script) ReadMessage([]byte) ([]byte, error) {
	if len(s.says) == 0 {
		return nil, io.EOF
	}
	msg := s.says[0]
	s.says = s.says[1:]
	return slices.Clone(msg), nil
}

func (s *script) WriteMessage(p []byte) error {
	s.heard = append(s.heard, slices.Clone(p))
	return nil
}

func (s *script) ExportKeyingMaterial() ([]byte, error) { return s.binding, nil }

func testCredentials() credentials {
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	return credentials{
		device: [16]byte{1},
		public: [32]byte(key.Public().(ed25519.PublicKey)),
		key:    key,
		agent:  "test/1",
	}
}

func TestHelloProvesTheKeyForThisChallengeHostAndConnection(t *testing.T) {
	for name, offered := range map[string]wire.Capabilities{
		"with channel binding":    wire.Capabilities(0).With(wire.ChannelBinding).With(17),
		"without channel binding": wire.Capabilities(0).With(17),
	} {
		t.Run(name, func(t *testing.T) {
			c := testCredentials()
			challenge := wire.Challenge{Nonce: [32]byte{7}, Capabilities: offered}
			ready := wire.Ready{SessionID: [16]byte{9}, Limits: wire.DefaultLimits()}
			tail := wire.AppendPing(nil, [8]byte{1})
			gateway := &script{
				says: [][]byte{
					wire.AppendChallenge(nil, challenge),
					append(wire.AppendReady(nil, ready), tail...),
				},
				binding: make([]byte, wire.BindingSize),
			}
			w, err := c.handshake(gateway, "vpn.test:8443", "the-token")
			if err != nil {
				t.Fatal(err)
			}
			if w.ready.SessionID != ready.SessionID || !slices.Equal(w.rest, tail) {
				t.Errorf("welcome %+v", w)
			}
			if len(gateway.heard) != 1 {
				t.Fatalf("sent %d messages", len(gateway.heard))
			}
			frame, rest, err := wire.ConsumeFrame(gateway.heard[0])
			if err != nil || len(rest) > 0 || frame.Type != wire.TypeHello {
				t.Fatalf("sent %v, %v", frame.Type, err)
			}
			hello, err := wire.ParseHello(frame.Payload)
			if err != nil {
				t.Fatal(err)
			}
			bound := offered.Has(wire.ChannelBinding)
			if hello.Capabilities.Has(wire.ChannelBinding) != bound || hello.Capabilities.Has(17) {
				t.Errorf("asks for capabilities %b", hello.Capabilities)
			}
			if hello.AccessToken != "the-token" || hello.DeviceID != c.device || hello.DeviceKey != c.public ||
				hello.Agent != "test/1" || hello.ClientNonce == [32]byte{} || time.Since(hello.Time) > time.Minute {
				t.Errorf("%+v", hello)
			}
			verify := func(nonce [32]byte, host string, binding []byte) bool {
				return ed25519.Verify(c.public[:], hello.SigningInput(nonce, host, binding), hello.Signature[:])
			}
			if !verify(challenge.Nonce, "vpn.test:8443", gateway.binding) {
				t.Error("the signature does not verify")
			}
			if verify([32]byte{8}, "vpn.test:8443", gateway.binding) || verify(challenge.Nonce, "other.test", gateway.binding) {
				t.Error("the signature holds for another challenge or host")
			}
			if other := slices.Repeat([]byte{1}, wire.BindingSize); verify(challenge.Nonce, "vpn.test:8443", other) == bound {
				t.Error("the signature holds for another connection, or is bound to one without having agreed on that")
			}
		})
	}
}

func TestAGatewayThatBreaksTheHandshakeIsToldHow(t *testing.T) {
	challenge := wire.AppendChallenge(nil, wire.Challenge{Nonce: [32]byte{7}})
	ready := wire.AppendReady(nil, wire.Ready{Limits: wire.DefaultLimits()})
	for name, tc := range map[string]struct {
		says [][]byte
		want wire.Code
	}{
		"another frame first":           {[][]byte{ready}, wire.CodeProtocol},
		"something behind CHALLENGE":    {[][]byte{append(slices.Clone(challenge), wire.AppendPing(nil, [8]byte{})...)}, wire.CodeProtocol},
		"an empty message":              {[][]byte{{}}, wire.CodeProtocol},
		"half a CHALLENGE":              {[][]byte{challenge[:9]}, wire.CodeProtocol},
		"an unknown critical frame":     {[][]byte{{0x3d, 0}}, wire.CodeUnsupported},
		"a second CHALLENGE":            {[][]byte{challenge, challenge}, wire.CodeProtocol},
		"a PING before READY":           {[][]byte{challenge, wire.AppendPing(nil, [8]byte{})}, wire.CodeProtocol},
		"a READY cut short":             {[][]byte{challenge, ready[:len(ready)-1]}, wire.CodeProtocol},
		"a capability nobody asked for": {[][]byte{challenge, wire.AppendReady(nil, wire.Ready{Capabilities: wire.Capabilities(0).With(wire.ChannelBinding), Limits: wire.DefaultLimits()})}, wire.CodeProtocol},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := testCredentials().handshake(&script{says: tc.says}, "h", "t")
			if fault, ok := errors.AsType[*wire.Error](err); !ok || fault.Code != tc.want {
				t.Errorf("%v, want a fault with %v", err, tc.want)
			}
		})
	}
}

func TestAnAnswerOtherThanReadyIsARefusal(t *testing.T) {
	challenge := wire.AppendChallenge(nil, wire.Challenge{Nonce: [32]byte{7}})
	for name, tc := range map[string]struct {
		says       [][]byte
		code       string
		retryAfter time.Duration
	}{
		"REJECT":                 {[][]byte{challenge, wire.AppendReject(nil, wire.Reject{Code: wire.CodeRetryLater, RetryAfter: 3 * time.Second})}, "retry_later", 3 * time.Second},
		"REJECT for ever":        {[][]byte{challenge, wire.AppendReject(nil, wire.Reject{Code: wire.CodeRetryLater, RetryAfter: 1000 * time.Hour})}, "retry_later", maxRetryAfter},
		"REJECT without meaning": {[][]byte{challenge, wire.AppendReject(nil, wire.Reject{Code: 99})}, "internal", 0},
		"CLOSE":                  {[][]byte{challenge, wire.AppendClose(nil, wire.Close{Code: wire.CodeShutdown})}, "shutdown", 0},
		"CLOSE at once":          {[][]byte{wire.AppendClose(nil, wire.Close{Code: wire.CodeShutdown})}, "shutdown", 0},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := testCredentials().handshake(&script{says: tc.says}, "h", "t")
			if refused, ok := errors.AsType[*RefusedError](err); !ok || refused.Code != tc.code || refused.RetryAfter != tc.retryAfter {
				t.Errorf("%+v", err)
			}
		})
	}
	if _, err := testCredentials().handshake(&script{}, "h", "t"); !errors.Is(err, io.EOF) || strings.Contains(err.Error(), "refused") {
		t.Errorf("a carrier that ends: %v", err)
	}
}

// Every malformed CHALLENGE, READY and REJECT of the vectors is found to be one, with
// exactly its code: docs/03, part 10.
func TestMalformedAnswersEndTheHandshakeWithTheirCode(t *testing.T) {
	challenge := wire.AppendChallenge(nil, wire.Challenge{Nonce: [32]byte{7}})
	played := 0
	for _, v := range muxtest.MalformedVectors(t, "../../testvectors", "handshake.json", "unknown.json") {
		var says [][]byte
		switch {
		case v.Type() == wire.TypeChallenge:
			says = [][]byte{v.Bytes}
		case v.Type() == wire.TypeReady, v.Type() == wire.TypeReject, v.Type() != wire.TypeHello && v.Code == wire.CodeUnsupported:
			says = [][]byte{challenge, v.Bytes}
		default:
			continue // HELLO, and frames that are a fault of their own here
		}
		played++
		t.Run(v.Name, func(t *testing.T) {
			_, err := testCredentials().handshake(&script{says: says}, "vpn.test", "token")
			if fault, ok := errors.AsType[*wire.Error](err); !ok || fault.Code != v.Code {
				t.Errorf("the handshake ended with %v, want %s", err, v.Code)
			}
		})
	}
	if played < 40 {
		t.Errorf("the client met only %d malformed inputs", played)
	}
}

// Whoever finds a fault says so before it closes the carrier, during the handshake
// too: docs/03, part 10.
func TestAFaultOfTheHandshakeIsAnsweredWithClose(t *testing.T) {
	heard := make(chan []byte, 1)
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := carrier.Upgrade(w, r)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
		_ = conn.WriteMessage([]byte{0x3d, 0}) // critical and unknown
		msg, _ := conn.ReadMessage(nil)
		heard <- msg
	}))
	srv.Listener = carrier.Listener(srv.Listener)
	srv.StartTLS()
	defer srv.Close()
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	url := "wss://" + srv.Listener.Addr().String() + "/tunnel"
	_, _, err := testCredentials().connect(t.Context(), url, "token", carrier.DialOptions{TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}})
	if fault, ok := errors.AsType[*wire.Error](err); !ok || fault.Code != wire.CodeUnsupported {
		t.Errorf("connect = %v", err)
	}
	f, _, err := wire.ConsumeFrame(<-heard)
	if err != nil || f.Type != wire.TypeClose {
		t.Fatalf("the gateway heard %s, %v", f.Type, err)
	}
	if c, err := wire.ParseClose(f.Payload); err != nil || c.Code != wire.CodeUnsupported {
		t.Errorf("CLOSE(%s), %v", c.Code, err)
	}
}

// handshake is all of the client's side, from the CHALLENGE on.
func (c credentials) handshake(conn messages, host, token string) (welcome, error) {
	challenge, err := readChallenge(conn)
	if err != nil {
		return welcome{}, err
	}
	return c.greet(conn, challenge, host, token)
}

// docs/03, part 8.6: where the gateway offers it. The padding is under the signature, like
// everything else in a HELLO.
func TestHelloIsPaddedWhereTheGatewayOffersIt(t *testing.T) {
	c := testCredentials()
	greet := func(offered wire.Capabilities) (length int) {
		ready := wire.Ready{Limits: wire.DefaultLimits(), PaddingPolicy: wire.DefaultPadding(), Capabilities: offered}
		challenge := wire.Challenge{Nonce: [32]byte{7}, Capabilities: offered}
		gateway := &script{says: [][]byte{wire.AppendChallenge(nil, challenge), wire.AppendReady(nil, ready)}}
		if _, err := c.handshake(gateway, "vpn.test", "the-token"); err != nil {
			t.Fatal(err)
		}
		frame, _, err := wire.ConsumeFrame(gateway.heard[0])
		if err != nil {
			t.Fatal(err)
		}
		hello, err := wire.ParseHello(frame.Payload)
		if err != nil || !ed25519.Verify(c.public[:], hello.SigningInput(challenge.Nonce, "vpn.test", nil), hello.Signature[:]) {
			t.Errorf("the signature does not verify, %v", err)
		}
		return len(gateway.heard[0])
	}
	lengths := make(map[int]bool)
	for range 50 {
		n := greet(wire.Capabilities(0).With(wire.Padding))
		if n < wire.MinPadHandshake || n > wire.MaxPadHandshake {
			t.Errorf("a HELLO of %d bytes", n)
		}
		lengths[n] = true
	}
	if len(lengths) < 25 {
		t.Errorf("50 HELLOs have %d lengths", len(lengths))
	}
	if n := greet(0); n > 300 {
		t.Errorf("without padding a HELLO has %d bytes", n)
	}
}
