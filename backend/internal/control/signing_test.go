package control_test

import (
	"errors"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/internal/ticket"
)

// jwks returns the keys that gateways are told.
func jwks(t *testing.T, a *control.Authority) ticket.JWKS {
	t.Helper()
	return ok[ticket.JWKS](t)(a.JWKS(t.Context()))
}

// signs returns which key an access token names.
func signs(t *testing.T, token string, among ticket.JWKS) string {
	t.Helper()
	for _, key := range among.Keys {
		alone := ticket.NewVerifier("", "", ticket.JWKS{Keys: []ticket.Key{key}})
		if _, err := alone.Verify(token); !errors.Is(err, ticket.ErrUnknownKey) {
			return key.ID
		}
	}
	t.Fatal("a token is signed with no key that gateways know")
	return ""
}

// keysEvents counts what gateways were told about signing keys.
func (w *world) keysEvents() int {
	w.t.Helper()
	events, _ := w.since(0)
	n := 0
	for _, e := range events {
		if e.Kind == control.EventKeysChanged && e.Keys == control.KeysJWKS && e.All {
			n++
		}
	}
	return n
}

// The whole life of a key, as two processes see it.
func TestSigningKeysRotateAndDevicesNoticeNothingOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, records := openWorldOn(t, dir, where)
		other := &world{t: t}
		var err error
		if other.Authority, err = w.over(records, keysIn(t, dir, false)); err != nil {
			t.Fatal(err)
		}
		gateway := w.gateway()
		d := w.connect(gateway, 1)
		old := jwks(t, w.Authority).Keys
		if len(old) != 1 {
			t.Fatalf("a new service has %d signing keys", len(old))
		}
		// issue gets a token from each process and returns the key of both.
		var tokens []string
		issue := func() string {
			t.Helper()
			var keys []string
			for _, from := range []*control.Authority{w.Authority, other.Authority} {
				process := &world{Authority: from, t: t}
				issued := ok[control.Issued](t)(process.token(testKey(1), d.device.ID))
				tokens = append(tokens, issued.AccessToken)
				keys = append(keys, signs(t, issued.AccessToken, jwks(t, from)))
			}
			if keys[0] != keys[1] {
				t.Errorf("one process signs with %s, the other with %s", keys[0], keys[1])
			}
			return keys[0]
		}
		good := func(token string) bool {
			t.Helper()
			_, err1 := w.AuthenticateDevice(t.Context(), token)
			_, err2 := other.AuthenticateDevice(t.Context(), token)
			if (err1 == nil) != (err2 == nil) {
				t.Errorf("one process says %v, the other %v", err1, err2)
			}
			return err1 == nil
		}
		known := func(want int) {
			t.Helper()
			if n, m := len(jwks(t, w.Authority).Keys), len(jwks(t, other.Authority).Keys); n != want || m != want {
				t.Errorf("gateways are told %d and %d keys, want %d", n, m, want)
			}
		}

		issue()
		told, before := w.keysEvents(), ok[control.Snapshot](t)(w.Snapshot(t.Context(), gateway)).Keys.JWKS
		at := ok[time.Time](t)(other.RotateSigning(t.Context()))
		if lead := at.Sub(w.now()); lead != 15*time.Minute {
			t.Errorf("the next key signs in %v, want 15m", lead)
		}
		if again := ok[time.Time](t)(w.RotateSigning(t.Context())); !again.Equal(at) {
			t.Errorf("rotated again while the next key waits: %v, want %v", again, at)
		}
		if n := w.keysEvents() - told; n != 1 {
			t.Errorf("%d events say so, want 1", n)
		}
		for _, process := range []*control.Authority{w.Authority, other.Authority} {
			if after := ok[control.Snapshot](t)(process.Snapshot(t.Context(), gateway)).Keys.JWKS; after == before {
				t.Error("the keys' version is the same with another key")
			}
		}
		known(2)
		if issue() != old[0].ID {
			t.Error("the next key signs before gateways know it")
		}

		w.pass(15*time.Minute - time.Microsecond)
		last := issue()
		lastToken := tokens[len(tokens)-1]
		w.pass(time.Microsecond)
		if next := issue(); last != old[0].ID || next == old[0].ID {
			t.Errorf("%s signs before the time and %s after it", last, next)
		}
		for i, token := range tokens {
			if !good(token) {
				t.Errorf("token %d is good no more", i)
			}
		}

		w.pass(time.Hour - time.Second)
		if !good(lastToken) {
			t.Error("the last token of the old key is good no more before its end")
		}
		known(2)
		w.pass(5 * time.Minute)
		known(2)
		if n := ok[int](t)(w.KeepSigning(t.Context())); n != 0 {
			t.Errorf("%d keys are forgotten too early", n)
		}
		w.pass(time.Second)
		known(1)
		told = w.keysEvents()
		if n := ok[int](t)(w.KeepSigning(t.Context())) + ok[int](t)(other.KeepSigning(t.Context())); n != 1 || w.keysEvents() != told+1 {
			t.Errorf("%d keys are forgotten and %d events say so, want 1", n, w.keysEvents()-told)
		}
		known(1)
		if next := issue(); next == old[0].ID || !good(tokens[len(tokens)-1]) {
			t.Error("after the old key is gone, devices get no good tokens")
		}
	})
}

func TestSigningKeysInForceAreBounded(t *testing.T) {
	w := newWorld(t)
	var err error
	for range 10 {
		if _, err = w.RotateSigning(t.Context()); err != nil {
			break
		}
		w.pass(15 * time.Minute)
	}
	if err != nil {
		t.Errorf("RotateSigning = %v, want that each key is in force for an hour only", err)
	}
	if n := len(jwks(t, w.Authority).Keys); n > 6 {
		t.Errorf("%d keys are in force", n)
	}
}

func TestAForgottenKeysTokenIsNoToken(t *testing.T) {
	w := newWorld(t)
	gateway := w.gateway()
	d := w.connect(gateway, 1)
	token := ok[control.Issued](t)(w.token(testKey(1), d.device.ID)).AccessToken
	ok[time.Time](t)(w.RotateSigning(t.Context()))
	w.pass(15*time.Minute + time.Hour + 5*time.Minute)
	if _, err := w.AuthenticateDevice(t.Context(), token); !errors.Is(err, control.ErrUnauthorized) || control.IsTokenExpired(err) {
		t.Errorf("AuthenticateDevice = %v, want ErrUnauthorized and no more", err)
	}
}

func TestAKeyOfAClockThatWasAheadKeepsNobodyFromRotating(t *testing.T) {
	w := newWorld(t)
	gateway := w.gateway()
	d := w.connect(gateway, 1)
	w.pass(365 * 24 * time.Hour) // for a moment
	ok[time.Time](t)(w.RotateSigning(t.Context()))
	ok[time.Time](t)(w.RotateKnock(t.Context()))
	w.pass(-365 * 24 * time.Hour)

	signed, knocked := ok[time.Time](t)(w.RotateSigning(t.Context())), ok[time.Time](t)(w.RotateKnock(t.Context()))
	if soon := w.now().Add(15 * time.Minute); !signed.Equal(soon) || !knocked.Equal(soon) {
		t.Fatalf("the next keys count from %v and %v, want %v", signed, knocked, soon)
	}
	if again := ok[time.Time](t)(w.RotateSigning(t.Context())); !again.Equal(signed) {
		t.Errorf("rotated again while the next key waits: %v", again)
	}
	if again := ok[time.Time](t)(w.RotateKnock(t.Context())); !again.Equal(knocked) {
		t.Errorf("rotated again while the next knock waits: %v", again)
	}
	before := ok[control.Issued](t)(w.token(testKey(1), d.device.ID))
	w.pass(15 * time.Minute)
	after := ok[control.Issued](t)(w.token(testKey(1), d.device.ID))
	keys := jwks(t, w.Authority)
	old, next := signs(t, before.AccessToken, keys), signs(t, after.AccessToken, keys)
	if old == next || before.Knock == after.Knock {
		t.Error("the next keys are not used when their time has come")
	}
	w.pass(23 * time.Hour)
	ok[int](t)(w.KeepSigning(t.Context()))
	for _, key := range jwks(t, w.Authority).Keys {
		if key.ID == old {
			t.Error("the old key is good for ever")
		}
	}
}
