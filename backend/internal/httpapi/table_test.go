package httpapi

import (
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/internal/reason"
)

func TestEveryErrorOfTheDomainHasItsAnswer(t *testing.T) {
	for _, tc := range []struct {
		err    error
		status int
		code   string
	}{
		{control.ErrNotFound, http.StatusNotFound, "not_found"},
		{control.ErrUnauthorized, http.StatusUnauthorized, "invalid_token"},
		{fmt.Errorf("%w: %w", control.ErrUnauthorized, control.ErrNotFound), http.StatusUnauthorized, "invalid_token"},
		{control.ErrInvalidProof, http.StatusUnauthorized, "invalid_proof"},
		{control.ErrInvalidInvitation, http.StatusForbidden, "invalid_invitation"},
		{control.ErrBadLogin, http.StatusForbidden, "invalid_login"},
		{control.ErrLimitedToken, http.StatusForbidden, "forbidden"},
		{control.ErrIdempotencyKeyReused, http.StatusConflict, "idempotency_key_reused"},
		{control.ErrBulkChanged, http.StatusConflict, "changed"},
		{&control.ConflictError{Detail: "taken"}, http.StatusConflict, "conflict"},
		{&control.InvalidError{Fields: []control.FieldError{{Field: "a", Detail: "b"}}}, http.StatusUnprocessableEntity, "invalid_request"},
		{&control.RateLimitedError{}, http.StatusTooManyRequests, "rate_limited"},
		{fmt.Errorf("%w: no route to host", control.ErrUnavailable), http.StatusServiceUnavailable, "unavailable"},
		{fmt.Errorf("%w: disk full", control.ErrStorageFull), http.StatusServiceUnavailable, "storage_full"},
		{errors.New("SELECT secret FROM x"), http.StatusInternalServerError, "internal"},
	} {
		got := problemOf(fmt.Errorf("wrapped: %w", tc.err))
		if got.Status != tc.status || got.Code != tc.code || got.Title == "" || got.Detail == "" {
			t.Errorf("%v becomes %+v, want %d %s", tc.err, got, tc.status, tc.code)
		}
	}
	for _, code := range reason.All() {
		got := problemOf(&control.RefusedError{Reason: code})
		if got.Status != http.StatusForbidden || got.Code != string(code) || got.Detail == "" {
			t.Errorf("%s becomes %+v", code, got)
		}
	}
}

func TestAttemptsComeBackWithTime(t *testing.T) {
	now := time.Unix(1e9, 0)
	a := newAttempts(5, func() time.Time { return now })
	try := func(address string, refused bool) bool {
		done, err := a.begin(address)
		if err != nil {
			return false
		}
		done(refused)
		return true
	}
	for range 5 {
		if !try("192.0.2.1:1", true) {
			t.Fatal("refused within the limit")
		}
	}
	_, err := a.begin("192.0.2.1:2")
	var limited *control.RateLimitedError
	if !errors.As(err, &limited) || limited.RetryAfter <= 0 || limited.RetryAfter > 12*time.Second {
		t.Errorf("the sixth gives %v, want to wait for at most 12 s", err)
	}
	if !try("192.0.2.2:1", true) {
		t.Error("another address has to wait too")
	}
	now = now.Add(12 * time.Second)
	if !try("192.0.2.1:3", true) || try("192.0.2.1:4", true) {
		t.Error("after 12 s there is not exactly one more")
	}
	for range 20 {
		if !try("192.0.2.3:1", false) {
			t.Fatal("what succeeded was counted")
		}
	}
	for range 5 {
		if !try("192.0.2.3:1", true) {
			t.Fatal("what succeeded was counted")
		}
	}
	if try("192.0.2.3:1", false) {
		t.Error("more than the limit")
	}
}

func TestHonestDevicesBehindOneAddressRedeemTheirCodesAtOnce(t *testing.T) {
	s := &server{attempts: newAttempts(5, time.Now)}
	var redeem func(others int) error
	redeem = func(others int) error { // the others come while this one is being answered
		return s.limited("192.0.2.1:1", func() error {
			if others == 0 {
				return nil
			}
			return redeem(others - 1)
		})
	}
	if err := redeem(31); err != nil {
		t.Errorf("one of 32: %v", err)
	}
	for range 5 {
		if err := s.limited("192.0.2.1:1", func() error { return control.ErrInvalidInvitation }); !errors.Is(err, control.ErrInvalidInvitation) {
			t.Errorf("a wrong code: %v", err)
		}
	}
	if err := redeem(0); err == nil {
		t.Error("refusals do not count")
	}
}

func TestAttemptsInFlightAreBoundedAndCountWhenRefused(t *testing.T) {
	now := time.Unix(1e9, 0)
	a := newAttempts(5, func() time.Time { return now })
	var running []func(bool)
	for range maxInFlight {
		done, err := a.begin("192.0.2.1:1")
		if err != nil {
			t.Fatalf("attempt %d at the same time: %v", len(running)+1, err)
		}
		running = append(running, done)
	}
	if _, err := a.begin("192.0.2.1:2"); err == nil {
		t.Error("more at the same time than the bound")
	}
	running[0](false)
	done, err := a.begin("192.0.2.1:3")
	if err != nil {
		t.Fatalf("one has ended well, and the next is refused: %v", err)
	}
	running[0] = done
	for _, done := range running {
		done(true)
	}
	for _, tc := range []struct {
		after time.Duration
		want  bool
	}{{(12*(maxInFlight-4) - 1) * time.Second, false}, {2 * time.Second, true}} {
		now = now.Add(tc.after)
		if _, err := a.begin("192.0.2.1:4"); (err == nil) != tc.want {
			t.Errorf("after %d refusals at the same time and %v more: %v", maxInFlight, tc.after, err)
		}
	}
}

func TestAttemptsAreRememberedForABoundedNumberOfAddresses(t *testing.T) {
	a := newAttempts(5, time.Now)
	address := netip.MustParseAddr("10.0.0.0")
	for range maxAddresses + 100 {
		address = address.Next()
		if _, err := a.begin(netip.AddrPortFrom(address, 1).String()); err != nil {
			t.Fatal(err)
		}
	}
	if len(a.addresses) != maxAddresses || a.recent.Len() != maxAddresses {
		t.Errorf("%d addresses in the map, %d in the list, want %d", len(a.addresses), a.recent.Len(), maxAddresses)
	}
}

func TestASubscriberIsOneAddress(t *testing.T) {
	for name, tc := range map[string]struct {
		a, b string
		same bool
	}{
		"two ports":                  {"192.0.2.1:1", "192.0.2.1:2", true},
		"two IPv4 hosts":             {"192.0.2.1:1", "192.0.2.2:1", false},
		"IPv4 written as IPv6":       {"192.0.2.1:1", "[::ffff:192.0.2.1]:1", true},
		"two hosts of one /64":       {"[2001:db8::1]:1", "[2001:db8::ffff:2]:1", true},
		"two /64":                    {"[2001:db8::1]:1", "[2001:db8:0:1::1]:1", false},
		"with and without a zone":    {"[fe80::1%eth0]:1", "[fe80::1]:1", true},
		"what cannot be read is one": {"pipe", "@", true},
	} {
		if got := addressOf(tc.a) == addressOf(tc.b); got != tc.same {
			t.Errorf("%s: same = %v, want %v", name, got, tc.same)
		}
	}
}

func TestOnlyHarmlessWordsOfTheValidatorPass(t *testing.T) {
	for message, want := range map[string]string{
		"expected string": "expected string",
		"expected string to be RFC 4122 uuid: invalid UUID: hunter2":  "expected string to be RFC 4122 uuid",
		"invalid character 'h' looking for beginning of value":        "not valid JSON for this request",
		"json: cannot unmarshal number 1234 into Go struct field A.b": "not valid JSON for this request",
		"hunter2": "not valid JSON for this request",
	} {
		if got := safeMessage(message); got != want {
			t.Errorf("safeMessage(%q) = %q, want %q", message, got, want)
		}
	}
	for location, want := range map[string]string{
		"body.max_devices": "body.max_devices", "body.sessions[17].reason": "body.sessions[17].reason", "query.limit": "query.limit",
		"header.Idempotency-Key": "header.Idempotency-Key", "body.ABCDEFGHIJKLMNOPQRSTUVWXYZ": "body.?", "body.a1b2c3": "body.?", "query.X": "query.?",
	} {
		if got := safeLocation(location); got != want {
			t.Errorf("safeLocation(%q) = %q, want %q", location, got, want)
		}
	}
}
