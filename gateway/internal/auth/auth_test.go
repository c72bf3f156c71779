package auth

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/httvps/httvps/internal/ticket"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	issuer  = "https://service.example"
	service = "0190c0de-0000-7000-8000-000000000001"
)

// verifier is a ticket.Verifier as Tokens.
type verifier struct{ *ticket.Verifier }

func (v verifier) Verify(_ context.Context, token string) (ticket.Claims, error) {
	return v.Verifier.Verify(token)
}

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// world is a service with one device that does everything right, until a test
// changes a detail.
type world struct {
	now       time.Time
	service   ed25519.PrivateKey
	device    ed25519.PrivateKey
	id        uuid.UUID
	claims    ticket.Claims
	issuer    string
	audience  string
	signToken ed25519.PrivateKey
	signHello ed25519.PrivateKey
	hello     wire.Hello
	signed    Connection // what the device believes it talks to
	actual    Connection
	require   bool
	tokens    Tokens
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{
		now: time.Now().Truncate(time.Second), service: newKey(t), device: newKey(t), id: uuid.New(),
		issuer: issuer, audience: service, require: true,
	}
	w.claims = ticket.Claims{
		ID: "t", Device: w.id.String(), Generation: 3, KeyThumbprint: ticket.Thumbprint(public(w.device)),
		IssuedAt: w.now.Add(-time.Minute), ExpiresAt: w.now.Add(time.Hour),
	}
	w.signToken, w.signHello = w.service, w.device
	w.hello = wire.Hello{Capabilities: wire.KnownCapabilities, DeviceID: w.id, DeviceKey: [32]byte(public(w.device))}
	w.signed = Connection{Nonce: [32]byte{1}, Host: "gw.example:8443", Binding: make([]byte, wire.BindingSize)}
	w.actual = w.signed
	w.tokens = verifier{ticket.NewVerifier(issuer, service, ticket.NewJWKS(public(w.service)))}
	return w
}

func (w *world) check(t *testing.T) (Identity, error) {
	t.Helper()
	if w.hello.AccessToken == "" {
		token, err := ticket.NewSigner(w.signToken, w.issuer, w.audience).Sign(w.claims)
		if err != nil {
			t.Fatal(err)
		}
		w.hello.AccessToken = token
	}
	if w.hello.Signature == [64]byte{} {
		w.hello.Signature = [64]byte(ed25519.Sign(w.signHello, w.hello.SigningInput(w.signed.Nonce, w.signed.Host, w.signed.Binding)))
	}
	// As it comes from the wire.
	frame, _, err := wire.ConsumeFrame(wire.AppendHello(nil, w.hello))
	if err != nil {
		t.Fatal(err)
	}
	hello, err := wire.ParseHello(frame.Payload)
	if err != nil {
		t.Fatal(err)
	}
	c := New(Config{Tokens: w.tokens, RequireBinding: w.require, Now: func() time.Time { return w.now }})
	return c.Check(t.Context(), hello, w.actual)
}

func TestADeviceThatProvesItselfIsKnown(t *testing.T) {
	w := newWorld(t)
	got, err := w.check(t)
	want := Identity{
		Device: w.id, Generation: 3, Key: w.hello.DeviceKey, Thumbprint: w.claims.KeyThumbprint, Expires: w.claims.ExpiresAt,
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("Check: %v (-want +got):\n%s", err, diff)
	}
}

func TestAProofWithoutBindingCountsWhereTheOperatorSaysSo(t *testing.T) {
	w := newWorld(t)
	w.require = false
	w.hello.Capabilities, w.signed.Binding = 0, nil
	if _, err := w.check(t); err != nil {
		t.Errorf("Check = %v", err)
	}
}

// Every fault before the proof is complete has the same refusal.
func TestEveryFaultOfTheCredentialsIsTheSameRefusal(t *testing.T) {
	stranger := newKey(t)
	for name, change := range map[string]func(*world){
		"a forged token":                  func(w *world) { w.signToken = stranger },
		"a token of another service":      func(w *world) { w.audience = "another" },
		"a token of another issuer":       func(w *world) { w.issuer = "https://another.example" },
		"a token that is none":            func(w *world) { w.hello.AccessToken = "a.b.c" },
		"a token for another device":      func(w *world) { w.claims.Device = uuid.NewString() },
		"a token for another key":         func(w *world) { w.claims.KeyThumbprint = ticket.Thumbprint(public(stranger)) },
		"another key shown, signed by it": func(w *world) { w.signHello = stranger; w.hello.DeviceKey = [32]byte(public(stranger)) },
		"signed by another key":           func(w *world) { w.signHello = stranger },
		"another device's id":             func(w *world) { w.hello.DeviceID = uuid.New() },
		"a signature that is none":        func(w *world) { w.hello.Signature[0] = 1 },
		"signed for another challenge":    func(w *world) { w.signed.Nonce[0]++ },
		"signed for another host":         func(w *world) { w.signed.Host = "other.example" },
		"signed for another connection":   func(w *world) { w.signed.Binding = append([]byte{1}, w.signed.Binding[1:]...) },
		"not bound to the connection":     func(w *world) { w.hello.Capabilities = 0; w.signed.Binding = nil },
		"not bound, and nothing to bind to": func(w *world) {
			w.hello.Capabilities, w.signed.Binding, w.actual.Binding = 0, nil, nil
		},
		"bound, where there is nothing to":   func(w *world) { w.actual.Binding = nil; w.require = false },
		"expired as well as signed by other": func(w *world) { w.signHello = stranger; w.now = w.now.Add(48 * time.Hour) },
		"expired as well as unbound": func(w *world) {
			w.hello.Capabilities, w.signed.Binding = 0, nil
			w.now = w.now.Add(48 * time.Hour)
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			change(w)
			got, err := w.check(t)
			if err != ErrInvalid || got != (Identity{}) { //nolint:errorlint // nothing wrapped: the refusals must not differ
				t.Errorf("Check = %+v, %v, want exactly ErrInvalid", got, err)
			}
		})
	}
}

func TestExpiryIsToldOnlyToWhoHasProvenItself(t *testing.T) {
	w := newWorld(t)
	w.now = w.claims.ExpiresAt.Add(ticket.Leeway)
	if _, err := w.check(t); err != nil {
		t.Errorf("Check at the end of the leeway = %v", err)
	}
	w.now = w.now.Add(time.Second)
	if _, err := w.check(t); !errors.Is(err, ErrExpired) {
		t.Errorf("Check after it = %v, want ErrExpired", err)
	}
}

// renew shows the token of the claims for a session, signed by a key for that or another.
func (w *world) renew(t *testing.T, key ed25519.PrivateKey, shown, actual [16]byte) (time.Time, error) {
	t.Helper()
	token, err := ticket.NewSigner(w.signToken, w.issuer, w.audience).Sign(w.claims)
	if err != nil {
		t.Fatal(err)
	}
	again := wire.Reauth{AccessToken: token}
	again.Signature = [64]byte(ed25519.Sign(key, again.SigningInput(shown)))
	frame, _, err := wire.ConsumeFrame(wire.AppendReauth(nil, again))
	if err != nil {
		t.Fatal(err)
	}
	if again, err = wire.ParseReauth(frame.Payload); err != nil {
		t.Fatal(err)
	}
	device := Identity{
		Device: w.id, Generation: 3, Key: [32]byte(public(w.device)), Thumbprint: ticket.Thumbprint(public(w.device)),
	}
	return New(Config{Tokens: w.tokens, Now: func() time.Time { return w.now }}).Renew(t.Context(), again, actual, device)
}

func TestOnlyALaterTokenOfTheSameDeviceCounts(t *testing.T) {
	stranger := newKey(t)
	session, other := [16]byte{1}, [16]byte{2}
	for name, tc := range map[string]struct {
		change func(*world)
		key    ed25519.PrivateKey // nil: the device's
		shown  [16]byte
		want   error
	}{
		"a later token":                {shown: session},
		"signed by another key":        {key: stranger, shown: session, want: ErrInvalid},
		"signed for another session":   {shown: other, want: ErrInvalid},
		"a forged token":               {change: func(w *world) { w.signToken = stranger }, shown: session, want: ErrInvalid},
		"a token of another service":   {change: func(w *world) { w.audience = "another" }, shown: session, want: ErrInvalid},
		"a token for another device":   {change: func(w *world) { w.claims.Device = uuid.NewString() }, shown: session, want: ErrMismatch},
		"a token for another key":      {change: func(w *world) { w.claims.KeyThumbprint = ticket.Thumbprint(public(stranger)) }, shown: session, want: ErrMismatch},
		"a token of another enrolment": {change: func(w *world) { w.claims.Generation = 4 }, shown: session, want: ErrMismatch},
		"a token that is over":         {change: func(w *world) { w.now = w.now.Add(2 * time.Hour) }, shown: session, want: ErrExpired},
		"no keys to judge with":        {change: func(w *world) { w.tokens = unready{} }, shown: session, want: ErrUnready},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			if tc.change != nil {
				tc.change(w)
			}
			key := tc.key
			if key == nil {
				key = w.device
			}
			expires, err := w.renew(t, key, tc.shown, session)
			if !errors.Is(err, tc.want) || (err == nil) != (tc.want == nil) {
				t.Fatalf("Renew = %v, want %v", err, tc.want)
			}
			if err == nil && !expires.Equal(w.claims.ExpiresAt) {
				t.Errorf("good until %v, want %v", expires, w.claims.ExpiresAt)
			}
		})
	}
}

type unready struct{}

func (unready) Verify(context.Context, string) (ticket.Claims, error) {
	return ticket.Claims{}, fmt.Errorf("%w: starting", ErrUnready)
}

func TestWithoutKeysNothingIsJudged(t *testing.T) {
	w := newWorld(t)
	w.tokens = unready{}
	if _, err := w.check(t); !errors.Is(err, ErrUnready) {
		t.Errorf("Check = %v, want ErrUnready", err)
	}
}
