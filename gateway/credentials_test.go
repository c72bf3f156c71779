package gateway_test

import (
	"crypto/ed25519"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/internal/ticket"
	"github.com/httvps/httvps/sdk/go/wire"
)

// Every fault of the credentials is refused alike, before the control plane is
// asked and without anything being opened.
func TestFaultyCredentialsAreRefusedAlike(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, nil)
	target, untouched := canary(t)
	thief := newKey(t)
	for name, tc := range map[string]struct {
		change func(*device)
		want   wire.Code
	}{
		"forged token":             {func(d *device) { d.token = sign(t, thief, serviceID, claims(*d)) }, wire.CodeInvalidToken},
		"token of another service": {func(d *device) { d.token = sign(t, c.signer, uuid.NewString(), claims(*d)) }, wire.CodeInvalidToken},
		"token of another device": {func(d *device) {
			other := device{key: d.key, id: uuid.New()}
			d.token = sign(t, c.signer, serviceID, claims(other))
		}, wire.CodeInvalidToken},
		"token of another key": {func(d *device) {
			d.token = sign(t, c.signer, serviceID, claims(device{key: thief, id: d.id}))
		}, wire.CodeInvalidToken},
		"stolen token, own key": {func(d *device) {
			d.signer = thief
			d.bend = func(h *wire.Hello) { h.DeviceKey = [32]byte(publicOf(thief)) }
		}, wire.CodeInvalidToken},
		"stolen token, the device's key but not its secret": {func(d *device) { d.signer = thief }, wire.CodeInvalidToken},
		"no token": {func(d *device) { d.token = "x" }, wire.CodeInvalidToken},
		"unsigned token": {func(d *device) {
			parts := strings.Split(d.token, ".")
			d.token = "eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0." + parts[1] + "."
		}, wire.CodeInvalidToken},
		"not bound to the connection": {func(d *device) { d.bend = func(h *wire.Hello) { h.Capabilities = 0 } }, wire.CodeInvalidToken},
		"forged and expired": {func(d *device) {
			d.token = sign(t, thief, serviceID, past(claims(*d)))
		}, wire.CodeInvalidToken},
		"expired, by the device itself": {func(d *device) {
			d.token = sign(t, c.signer, serviceID, past(claims(*d)))
		}, wire.CodeTokenExpired},
	} {
		t.Run(name, func(t *testing.T) {
			d := c.device(t)
			tc.change(&d)
			d.behind = wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, RecvWindow: 1 << 16, Target: target})
			if reject := d.wantReject(t, s.url, s.trust, tc.want); reject.RetryAfter != 0 {
				t.Errorf("REJECT tells to come back in %v", reject.RetryAfter)
			}
		})
	}
	untouched()
	if n := c.decisions(); n != 0 {
		t.Errorf("the control plane was asked %d times about devices that proved nothing", n)
	}
	if got := s.metrics(t); strings.Contains(got, "opens_total{") {
		t.Error("a stream was asked for")
	}
	c.device(t).connect(t, s.url, s.trust) // and the one that does everything right is let in
}

func past(c ticket.Claims) ticket.Claims {
	c.IssuedAt, c.ExpiresAt = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	return c
}

func TestARecordedHelloIsWorthless(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, nil)
	d := c.device(t)
	var first *wire.Hello
	d.bend = func(h *wire.Hello) { first = h }
	d.connect(t, s.url, s.trust)
	recorded := *first
	// The same bytes but for the signature, which is for another challenge.
	d.bend = func(h *wire.Hello) { *h = recorded }
	d.signer = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	d.wantReject(t, s.url, s.trust, wire.CodeInvalidToken)
}

func TestWithoutTheBindingBehindACDN(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, func(cfg *gateway.Config) { cfg.RequireChannelBinding = false })
	d := c.device(t)
	d.bend = func(h *wire.Hello) { h.Capabilities = 0 }
	if tun := d.connect(t, s.url, s.trust); tun.ready.Capabilities != 0 {
		t.Errorf("READY has the capabilities %b", tun.ready.Capabilities)
	}
}

func TestNoDecisionMeansTryAgainLater(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, nil)
	c.set(func(c *control) {
		c.decide = func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
	})
	if reject := c.device(t).wantReject(t, s.url, s.trust, wire.CodeRetryLater); reject.RetryAfter <= 0 {
		t.Error("REJECT does not tell when to come back")
	}
	c.set(func(c *control) { c.decide = nil })
	c.device(t).connect(t, s.url, s.trust)
	s.stop()
	// The session that may have begun, and the one that did. Ends may be told twice.
	c.mu.Lock()
	defer c.mu.Unlock()
	slices.Sort(c.ended)
	if !slices.Equal(slices.Compact(c.ended), []string{"retry_later", "shutdown"}) {
		t.Errorf("told as ended: %q", c.ended)
	}
}

func TestAFullGatewaySendsDevicesAwayForAWhile(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, func(cfg *gateway.Config) { cfg.Limits.Sessions = 1 })
	c.device(t).connect(t, s.url, s.trust)
	if reject := c.device(t).wantReject(t, s.url, s.trust, wire.CodeRetryLater); reject.RetryAfter <= 0 {
		t.Error("REJECT does not tell when to come back")
	}
}
