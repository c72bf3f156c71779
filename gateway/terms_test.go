package gateway_test

import (
	"crypto/ed25519"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/internal/ticket"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// ending is the device with a token whose time for its session is over in left: what
// clocks may differ is added.
func (d device) ending(t *testing.T, c *control, left time.Duration) device {
	t.Helper()
	told := claims(d)
	told.ExpiresAt = time.Now().Add(left - ticket.Leeway).Truncate(time.Second)
	told.IssuedAt = told.ExpiresAt.Add(-time.Hour)
	d.token = sign(t, c.signer, serviceID, told)
	return d
}

// reauth shows a token for the session and returns the answer.
func (d device) reauth(t *testing.T, tun *tunnel, token string, key ed25519.PrivateKey) wire.Auth {
	t.Helper()
	r := wire.Reauth{AccessToken: token}
	r.Signature = [64]byte(ed25519.Sign(key, r.SigningInput(tun.ready.SessionID)))
	if err := tun.Reauth(r); err != nil {
		t.Fatal(err)
	}
	select {
	case a := <-d.hears.auths:
		return a
	case err := <-tun.ended:
		t.Fatalf("the session ended: %v", err)
	case <-time.After(20 * time.Second):
		t.Fatal("no answer to REAUTH")
	}
	return wire.Auth{}
}

func wantEnd(t *testing.T, tun *tunnel, want wire.Code) {
	t.Helper()
	var closed *mux.CloseError
	select {
	case err := <-tun.ended:
		if !errors.As(err, &closed) || closed.Code != want {
			t.Errorf("the session ended with %v, want CLOSE(%v)", err, want)
		}
	case <-time.After(30 * time.Second):
		t.Errorf("the session has not ended")
	}
}

func TestASessionOutlivesItsFirstTokenAndNoOther(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, nil)
	o := newOrigin(t)
	known := c.device(t)
	other := c.device(t)
	d := known.ending(t, c, 6*time.Second).hearing()
	left := known.ending(t, c, 6*time.Second).hearing()
	tun, idle, older := d.connect(t, s.url, s.trust), left.connect(t, s.url, s.trust), known.ending(t, c, 6*time.Second).connect(t, s.url, s.trust)
	deadline := tun.ready.AuthDeadline
	if in := time.Until(deadline); in <= 0 || in > 6*time.Second {
		t.Errorf("READY tells a deadline in %v", in)
	}
	began := time.Now()
	for _, tc := range []struct {
		what, token string
		key         ed25519.PrivateKey
		want        wire.Code
	}{
		{"another device's token", other.token, known.key, wire.CodeDeviceMismatch},
		{"another device's token and key", other.token, other.key, wire.CodeInvalidToken},
		{"a token of nobody", sign(t, newKey(t), serviceID, claims(known)), known.key, wire.CodeInvalidToken},
	} {
		if a := d.reauth(t, tun, tc.token, tc.key); a.Code != tc.want || !a.Deadline.Equal(deadline) {
			t.Errorf("%s: AUTH(%v, %v), want %v and the deadline as it was", tc.what, a.Code, a.Deadline, tc.want)
		}
	}
	if took := time.Since(began); took < 2*time.Second {
		t.Errorf("three answers took %v", took)
	}
	later := claims(known)
	a := d.reauth(t, tun, sign(t, c.signer, serviceID, later), known.key)
	if want := later.ExpiresAt.Truncate(time.Second).Add(ticket.Leeway); a.Code != wire.CodeNoError || !a.Deadline.Equal(want) {
		t.Errorf("AUTH(%v, %v), want no_error and %v", a.Code, a.Deadline, want)
	}
	if n := <-left.hears.notices; n.Code != wire.CodeTokenExpired || !n.At.Equal(idle.ready.AuthDeadline) {
		t.Errorf("NOTICE %+v", n)
	}
	wantEnd(t, idle, wire.CodeTokenExpired)
	if at := time.Since(deadline); at < 0 || at > 3*time.Second {
		t.Errorf("it ended %v after its deadline", at)
	}
	for _, goesOn := range []*tunnel{tun, older} { // the latter's device knows nothing of that
		if got, err := exchange(t, goesOn, o.addr, "on"); got != "on" || err != nil {
			t.Errorf("exchange = %q, %v", got, err)
		}
	}
	for _, line := range []string{`{code="no_error"} 1`, `{code="device_mismatch"} 1`, `{code="invalid_token"} 2`} {
		if !s.counts(t, "httvps_gateway_reauths_total"+line) {
			t.Errorf("no %s", line)
		}
	}
}

func TestASessionWithoutACarrierEndsWithItsToken(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, nil)
	d := c.device(t).ending(t, c, 4*time.Second).hearing()
	d.lasting = true
	tun := d.connect(t, s.url, s.trust)
	echoing(t, tun)("hello")
	_ = tun.conn.Abort()
	s.wantLost(t, 1)
	s.wantLost(t, 0)
	_, _, answer, _ := d.ask(t, s, tun.ready, wire.Resumption{SessionID: tun.ready.SessionID, Attempt: 1, Received: 2}, nil)
	wantRefusal(t, "a session whose token is over", answer, wire.CodeSessionUnknown)
	if at := time.Since(tun.ready.AuthDeadline); at < 0 {
		t.Errorf("it ended %v before its deadline", -at)
	}
}

// A session that goes on over another connection has the deadline that a REAUTH moved.
func TestADeadlineThatMovedHoldsOnTheNextCarrier(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, nil)
	known := c.device(t)
	d := known.ending(t, c, 4*time.Second).hearing()
	d.lasting = true
	tun := d.connect(t, s.url, s.trust)
	say := echoing(t, tun)
	say("hello")
	if a := d.reauth(t, tun, known.token, known.key); a.Code != wire.CodeNoError {
		t.Fatalf("AUTH(%v)", a.Code)
	}
	_ = tun.conn.Abort()
	s.wantLost(t, 1)
	<-time.After(time.Until(tun.ready.AuthDeadline.Add(time.Second)))
	d.resume(t, s, tun, 1)
	say("still there")
}

func TestASessionGoesOnWhileNobodyGetsATokenForIt(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		grace time.Duration
		ends  bool
	}{"with a grace": {2 * time.Hour, false}, "without": {0, true}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, c := newControlled(t, func(cfg *gateway.Config) { cfg.OutageGrace = configfile.Duration(tc.grace) })
			known, o := c.device(t), newOrigin(t)
			d := known.ending(t, c, 15*time.Second).hearing()
			tun := d.connect(t, s.url, s.trust)
			c.set(func(c *control) { c.away = true })
			if tc.ends {
				wantEnd(t, tun, wire.CodeTokenExpired)
				return
			}
			eventually(t, "the gateway stands in", func() bool { return s.counts(t, "httvps_gateway_degraded 1") })
			<-time.After(time.Until(tun.ready.AuthDeadline.Add(2 * time.Second)))
			if got, err := exchange(t, tun, o.addr, "on"); got != "on" || err != nil {
				t.Errorf("exchange = %q, %v", got, err)
			}
			c.set(func(c *control) { c.away = false })
			eventually(t, "it is back", func() bool { return s.counts(t, "httvps_gateway_degraded 0") })
			if a := d.reauth(t, tun, known.token, known.key); a.Code != wire.CodeNoError {
				t.Errorf("AUTH(%v)", a.Code)
			}
		})
	}
}

// next returns what comes, unless that takes too long.
func next[T any](t *testing.T, what string, from <-chan T) (came T) {
	t.Helper()
	select {
	case came = <-from:
	case <-time.After(time.Minute):
		t.Fatalf("no %s within a minute", what)
	}
	return came
}

func TestADeviceIsToldWhatChanges(t *testing.T) {
	t.Parallel()
	s := newService(t, func(cfg *gateway.Config) {
		cfg.Usage.Interval, cfg.Usage.ReportInterval = configfile.Duration(time.Second), configfile.Duration(time.Second)
	})
	d, o := s.enrol(t).hearing(), newOrigin(t)
	plan, subscription := "/plans/"+s.first(t, "/plans"), "/subscriptions/"+s.first(t, "/subscriptions")
	tun := d.connect(t, s.url, s.trust)
	most := tun.ready.Limits

	s.admin(t, http.MethodPatch, plan, map[string]any{"max_streams": 7, "max_udp": 3, "speed_down_bps": 50_000_000}, nil)
	want := most
	want.MaxStreams, want.MaxUDP, want.SpeedDown = 7, 3, 50_000_000
	if told := next(t, "LIMITS", d.hears.limits); told.Limits != want {
		t.Errorf("LIMITS %+v, want %+v", told.Limits, want)
	}
	s.admin(t, http.MethodPatch, plan, map[string]any{"max_streams": 200, "max_udp": 64}, nil)
	want.MaxStreams, want.MaxUDP = min(200, most.MaxStreams), most.MaxUDP
	if told := next(t, "LIMITS", d.hears.limits); told.Limits != want {
		t.Errorf("LIMITS %+v, want %+v", told.Limits, want)
	}

	end := time.Now().Add(9 * time.Minute).UTC().Truncate(time.Millisecond)
	s.admin(t, http.MethodPatch, subscription, map[string]any{"ends_at": end}, nil)
	if told := next(t, "LIMITS", d.hears.limits); !told.Deadline.Equal(end) || told.Limits != want {
		t.Errorf("LIMITS %+v, want the end at %v", told, end)
	}
	if n := next(t, "NOTICE", d.hears.notices); n != (wire.Notice{Code: wire.CodeSubscriptionExpired, At: end}) {
		t.Errorf("NOTICE %+v, want the end of the subscription at %v", n, end)
	}

	const quota = 4 << 20
	s.admin(t, http.MethodPatch, plan, map[string]any{
		"quota_bytes": quota, "quota_warnings": []int{50}, "quota_action": "throttle", "throttle_bps": 8_000_000,
	}, nil)
	text := strings.Repeat("0123456789abcdef", 1<<20/16)
	var n wire.Notice
	for moved := uint64(0); n.Left*2 > quota || n.Quota == 0; {
		if got, err := exchange(t, tun, o.addr, text); err != nil || got != text {
			t.Fatalf("%d bytes came back, %v", len(got), err)
		}
		moved += 2 * uint64(len(text))
		select {
		case n = <-d.hears.notices:
		case <-time.After(4 * time.Second):
			if moved > 4*quota {
				t.Fatal("no word about the quota")
			}
		}
	}
	if n.Code != wire.CodeQuotaExceeded || n.Quota != quota || !n.At.IsZero() {
		t.Errorf("NOTICE %+v", n)
	}
	for n.Left > 0 { // and then it is slow, which is told as well
		if got, err := exchange(t, tun, o.addr, text); err != nil || got != text {
			t.Fatalf("%d bytes came back, %v", len(got), err)
		}
		select {
		case n = <-d.hears.notices:
		case <-time.After(2 * time.Second):
		}
	}
	want.SpeedUp, want.SpeedDown = 8_000_000, 8_000_000
	if told := next(t, "LIMITS", d.hears.limits); told.Limits != want {
		t.Errorf("LIMITS %+v, want the speed of a quota that is used up, %+v", told.Limits, want)
	}
}
