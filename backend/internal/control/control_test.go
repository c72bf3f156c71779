package control_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/password"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
	"github.com/httvps/httvps/internal/reason"
	"github.com/httvps/httvps/internal/ticket"
)

func TestMain(m *testing.M) { storetest.Main(m) }

// world is an Authority over a real store, with a clock that the test moves.
type world struct {
	*control.Authority
	t     *testing.T
	clock atomic.Int64 // unix microseconds

	passwords *password.Hasher
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w, _ := openWorld(t, t.TempDir())
	return w
}

func (w *world) now() time.Time { return time.UnixMicro(w.clock.Load()).UTC() }

func (w *world) pass(d time.Duration) { w.clock.Add(d.Microseconds()) }

// workOn lets time pass in which the service goes on as usual, and returns the last
// clean-up.
func (w *world) workOn(d time.Duration) (pruned control.Pruned, err error) {
	const step = 10 * time.Minute
	for ; d > 0 && err == nil; d -= step {
		w.pass(min(d, step))
		pruned, err = w.Prune(w.t.Context())
	}
	return pruned, err
}

func testKey(n uint32) ed25519.PrivateKey {
	seed := sha256.Sum256(binary.BigEndian.AppendUint32(nil, n))
	return ed25519.NewKeyFromSeed(seed[:])
}

func public(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

// ok fails the test on an error.
func ok[T any](t *testing.T) func(T, error) T {
	t.Helper()
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func message(purpose string, parts ...[]byte) []byte {
	m := append([]byte("HTTVPS1 "+purpose), 0)
	for _, p := range parts {
		m = append(m, p...)
	}
	return m
}

func (w *world) proof(key ed25519.PrivateKey, purpose, code string) control.Proof {
	nonce, hash := w.Challenge(), sha256.Sum256([]byte(code))
	return control.Proof{Nonce: nonce, Signature: ed25519.Sign(key, message(purpose, hash[:], public(key), nonce))}
}

func code(t *testing.T, from string) string {
	t.Helper()
	_, rest, ok := strings.Cut(from, "#code=")
	if !ok {
		t.Fatalf("link %q has no code", from)
	}
	code, _, _ := strings.Cut(rest, ",")
	return code
}

// subscriber makes a user with a subscription that runs for a day.
func (w *world) subscriber(devices, sessions int) control.User {
	w.t.Helper()
	user, _, err := w.CreateUser(w.t.Context(), control.UserFields{Name: new(uuid.NewString())}, control.Once{})
	if err != nil {
		w.t.Fatal(err)
	}
	plan, _, err := w.CreatePlan(w.t.Context(), control.PlanFields{
		Name: new(uuid.NewString()), MaxDevices: &devices, MaxSessions: &sessions, DurationDays: new(1),
	}, control.Once{})
	if err != nil {
		w.t.Fatal(err)
	}
	if _, _, err := w.CreateSubscription(w.t.Context(), control.NewSubscription{UserID: user.ID, PlanID: plan.ID}, control.Once{}); err != nil {
		w.t.Fatal(err)
	}
	return user
}

func (w *world) invite(user control.User) string {
	w.t.Helper()
	_, invitation, _, err := w.Invite(w.t.Context(), user.ID, 0, control.Once{})
	if err != nil {
		w.t.Fatal(err)
	}
	return code(w.t, invitation)
}

func (w *world) enrol(key ed25519.PrivateKey, code string) (control.Enrolled, error) {
	return w.Enroll(w.t.Context(), control.Enrolment{Code: code, PublicKey: public(key), Proof: w.proof(key, "enrol", code), Name: "laptop"})
}

func (w *world) token(key ed25519.PrivateKey, deviceID string) (control.Issued, error) {
	id, nonce := uuid.MustParse(deviceID), w.Challenge()
	return w.IssueToken(w.t.Context(), deviceID, control.Proof{
		Nonce: nonce, Signature: ed25519.Sign(key, message("token", id[:], nonce)),
	})
}

func (w *world) gateway() control.Gateway {
	w.t.Helper()
	join, err := w.OpenLocalGateway(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	key, c := testKey(500), code(w.t, join)
	gateway, _, err := w.JoinGateway(w.t.Context(), control.Join{
		Code: c, PublicKey: public(key), Proof: w.proof(key, "join", c), URL: "wss://gw.example.net/t",
	})
	if err != nil {
		w.t.Fatal(err)
	}
	return gateway
}

func refused(t *testing.T, err error, want reason.Code) {
	t.Helper()
	var r *control.RefusedError
	if !errors.As(err, &r) || r.Reason != want {
		t.Errorf("error is %v, want a refusal: %s", err, want)
	}
}

func TestANonceIsGoodForTwoMinutes(t *testing.T) {
	for name, tc := range map[string]struct {
		after time.Duration
		spoil func([]byte) []byte
		want  error
	}{
		"at once":                  {},
		"after 120 s":              {after: 120 * time.Second},
		"after a moment more":      {after: 120*time.Second + time.Microsecond, want: control.ErrInvalidProof},
		"the clock went back 10 s": {after: -10 * time.Second},
		"the clock went back more": {after: -10*time.Second - time.Microsecond, want: control.ErrInvalidProof},
		"a later time written in":  {spoil: func(n []byte) []byte { n[7]++; return n }, want: control.ErrInvalidProof},
		"another random part":      {spoil: func(n []byte) []byte { n[12] ^= 1; return n }, want: control.ErrInvalidProof},
		"another tag":              {spoil: func(n []byte) []byte { n[39] ^= 1; return n }, want: control.ErrInvalidProof},
		"cut short":                {spoil: func(n []byte) []byte { return n[:39] }, want: control.ErrInvalidProof},
		"longer":                   {spoil: func(n []byte) []byte { return append(n, 0) }, want: control.ErrInvalidProof},
		"nothing":                  {spoil: func([]byte) []byte { return nil }, want: control.ErrInvalidProof},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			c, key := w.invite(w.subscriber(1, 1)), testKey(1)
			nonce, hash := w.Challenge(), sha256.Sum256([]byte(c))
			if tc.spoil != nil {
				nonce = tc.spoil(bytes.Clone(nonce))
			}
			w.pass(tc.after)
			_, err := w.Enroll(t.Context(), control.Enrolment{
				Code: c, PublicKey: public(key), Name: "x",
				Proof: control.Proof{Nonce: nonce, Signature: ed25519.Sign(key, message("enrol", hash[:], public(key), nonce))},
			})
			if !errors.Is(err, tc.want) {
				t.Errorf("Enroll = %v, want %v", err, tc.want)
			}
		})
	}
}

func TestAnInvitationIsGoodForADay(t *testing.T) {
	w := newWorld(t)
	user := w.subscriber(5, 5)
	used, unused := w.invite(user), w.invite(user)
	w.pass(control.InvitationTTL - time.Microsecond)
	first := ok[control.Enrolled](t)(w.enrol(testKey(1), used))
	w.pass(time.Microsecond)
	if _, err := w.enrol(testKey(2), unused); !errors.Is(err, control.ErrInvalidInvitation) {
		t.Errorf("an expired invitation gives %v", err)
	}
	again := ok[control.Enrolled](t)(w.enrol(testKey(1), used)) // the answer had been lost
	if again.Device.ID != first.Device.ID || again.New {
		t.Errorf("repeated: %+v, want device %s", again, first.Device.ID)
	}
}

func TestAnAccessTokenIsGoodForAnHourAndAMinute(t *testing.T) {
	w := newWorld(t)
	device := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(w.subscriber(1, 1)))).Device
	issued := ok[control.Issued](t)(w.token(testKey(1), device.ID))
	w.pass(control.AccessTokenTTL + ticket.Leeway)
	if _, err := w.AuthenticateDevice(t.Context(), issued.AccessToken); err != nil {
		t.Errorf("at the end of the leeway: %v", err)
	}
	w.pass(time.Second)
	if _, err := w.AuthenticateDevice(t.Context(), issued.AccessToken); !errors.Is(err, control.ErrUnauthorized) || !control.IsTokenExpired(err) {
		t.Errorf("behind the leeway: %v, want that it expired", err)
	}
	if _, err := w.AuthenticateDevice(t.Context(), issued.AccessToken+"A"); control.IsTokenExpired(err) {
		t.Errorf("a forged token is told its age: %v", err)
	}
}

func TestTheSubscriptionsEndIsTheDevicesEnd(t *testing.T) {
	w := newWorld(t)
	gateway := w.gateway()
	device := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(w.subscriber(1, 1)))).Device
	request := control.SessionRequest{
		SessionID: strings.Repeat("a", 32), DeviceID: device.ID, KeyThumbprint: device.Thumbprint(), Generation: 1, BootID: "b",
	}
	decision := ok[control.Decision](t)(w.Decide(t.Context(), gateway, request))
	if decision.Reason != "" || decision.Entitlement.EndsAt == nil || !decision.Entitlement.EndsAt.Equal(w.now().AddDate(0, 0, 1)) {
		t.Fatalf("decision = %+v, want a session that ends in a day", decision)
	}
	w.pass(24 * time.Hour)
	if _, err := w.token(testKey(1), device.ID); err == nil {
		t.Error("a token after the subscription's end")
	} else {
		refused(t, err, reason.SubscriptionExpired)
	}
	closing := ok[[]control.SessionEnd](t)(w.Heartbeat(t.Context(), gateway, control.Lease{BootID: "b"}))
	want := []control.SessionEnd{{ID: request.SessionID, Reason: "subscription_expired"}}
	if diff := cmp.Diff(want, closing); diff != "" {
		t.Errorf("heartbeat closes (-want +got):\n%s", diff)
	}
}

func TestAdmissionFollowsFromTheStanding(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	past, future, later := now.Add(-time.Hour), now.Add(time.Hour), now.Add(2*time.Hour)
	entitlement := func(id string, starts time.Time, ends *time.Time) control.Entitlement {
		return control.Entitlement{Subscription: control.Subscription{ID: id, StartsAt: starts, EndsAt: ends}}
	}
	running := []control.Entitlement{entitlement("running", past, nil)}
	for name, tc := range map[string]struct {
		standing control.Standing
		want     string // a subscription's id
		why      reason.Code
	}{
		"a running subscription": {control.Standing{Entitlements: running}, "running", ""},
		"a revoked device": {
			control.Standing{Device: control.Device{RevokedAt: &past}, User: control.User{DisabledAt: &past}, Entitlements: running},
			"", reason.DeviceRevoked,
		},
		"a disabled user": {control.Standing{User: control.User{DisabledAt: &past}, Entitlements: running}, "", reason.UserDisabled},
		"no subscription": {control.Standing{}, "", reason.NoActiveSubscription},
		"one that ended this moment": {
			control.Standing{Entitlements: []control.Entitlement{entitlement("x", past, &now)}}, "", reason.SubscriptionExpired,
		},
		"one that begins this moment": {
			control.Standing{Entitlements: []control.Entitlement{entitlement("x", now, &future)}}, "x", "",
		},
		"one that has not begun": {
			control.Standing{Entitlements: []control.Entitlement{entitlement("x", future, nil)}}, "", reason.NoActiveSubscription,
		},
		"one ended and one not begun": {
			control.Standing{Entitlements: []control.Entitlement{entitlement("x", past, &now), entitlement("y", future, nil)}},
			"", reason.SubscriptionExpired,
		},
		"the longest of those that run": {
			control.Standing{Entitlements: []control.Entitlement{
				entitlement("short", past, &future), entitlement("long", past, &later), entitlement("not begun", future, nil),
			}}, "long", "",
		},
		"without end is longest": {
			control.Standing{Entitlements: []control.Entitlement{entitlement("endless", past, nil), entitlement("long", past, &later)}},
			"endless", "",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, why := tc.standing.Admit(now)
			if got.ID != tc.want || why != tc.why {
				t.Errorf("Admit = %q, %q, want %q, %q", got.ID, why, tc.want, tc.why)
			}
		})
	}
}

// atOnce runs act from 64 callers at once and counts those without an error.
func atOnce(act func(caller uint32) error) (succeeded int, failed []error) {
	var (
		group sync.WaitGroup
		mu    sync.Mutex // guards the results
		gate  = make(chan struct{})
	)
	for caller := range uint32(64) {
		group.Go(func() {
			<-gate
			err := act(caller)
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				failed = append(failed, err)
				return
			}
			succeeded++
		})
	}
	close(gate)
	group.Wait()
	return succeeded, failed
}

func TestLimitsHoldWhenEverybodyComesAtOnceOnBothEngines(t *testing.T) {
	onEach := func(name string, test func(t *testing.T, w *world)) {
		t.Run(name, func(t *testing.T) {
			onBoth(t, func(t *testing.T, dir string, where store.Config) {
				t.Helper()
				w, _ := openWorldOn(t, dir, where)
				test(t, w)
			})
		})
	}
	onEach("one code", func(t *testing.T, w *world) {
		t.Helper()
		c := w.invite(w.subscriber(1000, 5))
		n, failed := atOnce(func(caller uint32) error { _, err := w.enrol(testKey(caller), c); return err })
		if n != 1 {
			t.Errorf("%d devices enrolled with one code", n)
		}
		for _, err := range failed {
			if !errors.Is(err, control.ErrInvalidInvitation) {
				t.Errorf("refused with %v", err)
			}
		}
	})
	onEach("one code and one key", func(t *testing.T, w *world) {
		t.Helper()
		c := w.invite(w.subscriber(1, 5))
		n, failed := atOnce(func(uint32) error { _, err := w.enrol(testKey(1), c); return err })
		if n != 64 {
			t.Errorf("%d of 64 equal requests succeeded: %v", n, failed)
		}
	})
	onEach("devices of a plan", func(t *testing.T, w *world) {
		t.Helper()
		user := w.subscriber(5, 5)
		codes := make([]string, 64)
		for i := range codes {
			codes[i] = w.invite(user)
		}
		n, failed := atOnce(func(caller uint32) error { _, err := w.enrol(testKey(caller), codes[caller]); return err })
		if n != 5 {
			t.Errorf("%d devices enrolled on a plan for 5", n)
		}
		for _, err := range failed {
			refused(t, err, reason.DeviceLimit)
		}
	})
	onEach("sessions of a plan", func(t *testing.T, w *world) {
		t.Helper()
		gateway := w.gateway()
		device := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(w.subscriber(1, 5)))).Device
		n, failed := atOnce(func(caller uint32) error {
			id := sha256.Sum256([]byte{byte(caller)})
			decision, err := w.Decide(t.Context(), gateway, control.SessionRequest{
				SessionID: strings.ToLower(uuid.UUID(id[:16]).String()), DeviceID: device.ID, KeyThumbprint: device.Thumbprint(),
				Generation: 1, BootID: "b",
			})
			if err == nil && decision.Reason != "" {
				err = &control.RefusedError{Reason: decision.Reason}
			}
			return err
		})
		if n != 5 {
			t.Errorf("%d sessions began on a plan for 5", n)
		}
		for _, err := range failed {
			refused(t, err, reason.SessionLimit)
		}
	})
	onEach("the bootstrap code", func(t *testing.T, w *world) {
		t.Helper()
		c := code(t, ok[string](t)(w.OpenBootstrap(t.Context())))
		n, _ := atOnce(func(uint32) error { _, err := w.Bootstrap(t.Context(), c, "root"); return err })
		if n != 1 {
			t.Errorf("%d owners were made with one code", n)
		}
	})
}

func TestTheBootstrapCodeIsGoodForAQuarterOfAnHourAndReplacesTheOneBefore(t *testing.T) {
	w := newWorld(t)
	first := code(t, ok[string](t)(w.OpenBootstrap(t.Context())))
	second := code(t, ok[string](t)(w.OpenBootstrap(t.Context())))
	if _, err := w.Bootstrap(t.Context(), first, "root"); !errors.Is(err, control.ErrInvalidInvitation) {
		t.Errorf("the replaced code gives %v", err)
	}
	w.pass(control.BootstrapTTL)
	if _, err := w.Bootstrap(t.Context(), second, "root"); !errors.Is(err, control.ErrInvalidInvitation) {
		t.Errorf("the expired code gives %v", err)
	}
	third := code(t, ok[string](t)(w.OpenBootstrap(t.Context())))
	credential := ok[control.Credential](t)(w.Bootstrap(t.Context(), third, "root"))
	ok[control.Bearer](t)(w.AuthenticateOperator(t.Context(), credential.Token))
	w.pass(control.APITokenTTL)
	if _, err := w.AuthenticateOperator(t.Context(), credential.Token); !errors.Is(err, control.ErrUnauthorized) {
		t.Errorf("the expired token gives %v", err)
	}
	if bootstrap := ok[string](t)(w.OpenBootstrap(t.Context())); bootstrap != "" {
		t.Error("there is an operator and a bootstrap link")
	}
}

func TestARescueCodeIsGoodForAQuarterOfAnHour(t *testing.T) {
	w := newWorld(t)
	if _, _, err := w.Rescue(t.Context()); !errors.Is(err, control.ErrNoOperator) {
		t.Errorf("a rescue without an operator gives %v", err)
	}
	early := code(t, ok[string](t)(w.OpenBootstrap(t.Context())))
	owner := ok[control.Credential](t)(w.Bootstrap(t.Context(), early, "root"))
	maker := ok[control.Bearer](t)(w.AuthenticateOperator(t.Context(), owner.Token))
	row, token, _, err := w.CreateAPIToken(t.Context(), maker, control.NewAPIToken{TTL: control.MaxAPITokenTTL}, control.Once{})
	if err != nil {
		t.Fatal(err)
	}
	w.pass(control.MaxAPITokenTTL - time.Microsecond)
	ok[control.Bearer](t)(w.AuthenticateOperator(t.Context(), token))
	w.pass(time.Microsecond)
	if _, err := w.AuthenticateOperator(t.Context(), token); !errors.Is(err, control.ErrUnauthorized) || !row.ExpiresAt.Equal(w.now()) {
		t.Errorf("after a year the token gives %v, its end is %v", err, row.ExpiresAt)
	}
	rescue := func() string {
		back, revoked, err := w.Rescue(t.Context())
		if err != nil || revoked > 2 {
			t.Errorf("rescue = %d, %v", revoked, err)
		}
		return code(t, back)
	}
	late := rescue()
	w.pass(control.BootstrapTTL)
	if _, err := w.Bootstrap(t.Context(), late, "root"); !errors.Is(err, control.ErrInvalidInvitation) {
		t.Errorf("an expired rescue gives %v", err)
	}
	back := ok[control.Credential](t)(w.Bootstrap(t.Context(), rescue(), "other"))
	if back.Operator != owner.Operator || !back.Rescued || owner.Rescued {
		t.Errorf("back in as %+v, was %+v", back, owner)
	}
}

func TestAUserWithoutASubscriptionMayEnrolOneDevice(t *testing.T) {
	w := newWorld(t)
	user, _, err := w.CreateUser(t.Context(), control.UserFields{Name: new("new")}, control.Once{})
	if err != nil {
		t.Fatal(err)
	}
	device := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(user))).Device
	_, err = w.token(testKey(1), device.ID)
	refused(t, err, reason.NoActiveSubscription)
	_, err = w.enrol(testKey(2), w.invite(user))
	refused(t, err, reason.DeviceLimit)
}

func TestAKeyIsEnrolledOnce(t *testing.T) {
	w := newWorld(t)
	user := w.subscriber(5, 5)
	ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(user)))
	_, err := w.enrol(testKey(1), w.invite(user))
	if _, ok := errors.AsType[*control.ConflictError](err); !ok {
		t.Errorf("the same key with another code: %v, want a conflict", err)
	}
}

func TestPruneEndsWhatIsLostAndRemovesWhatIsOld(t *testing.T) {
	w := newWorld(t)
	gateway := w.gateway()
	user := w.subscriber(5, 5)
	device := ok[control.Enrolled](t)(w.enrol(testKey(1), w.invite(user))).Device
	w.invite(user)
	ok[control.Decision](t)(w.Decide(t.Context(), gateway, control.SessionRequest{
		SessionID: strings.Repeat("a", 32), DeviceID: device.ID, KeyThumbprint: device.Thumbprint(), Generation: 1, BootID: "b",
	}))
	if pruned := ok[control.Pruned](t)(w.Prune(t.Context())); pruned != (control.Pruned{}) {
		t.Errorf("pruned %+v of what is young", pruned)
	}
	if pruned := ok[control.Pruned](t)(w.workOn(time.Hour)); pruned != (control.Pruned{}) {
		t.Errorf("pruned %+v, though the lease ended less than an hour ago", pruned)
	}
	if pruned := ok[control.Pruned](t)(w.workOn(10 * time.Minute)); pruned != (control.Pruned{LostSessions: 1}) {
		t.Errorf("pruned %+v, want the lost session ended", pruned)
	}
	w.pass(40 * 24 * time.Hour)
	if pruned := ok[control.Pruned](t)(w.Prune(t.Context())); pruned != (control.Pruned{Sessions: 1, Invitations: 2, Events: 3}) {
		t.Errorf("pruned %+v, want the session and the invitations", pruned)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Prune(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Prune with a context that is over = %v", err)
	}
}
