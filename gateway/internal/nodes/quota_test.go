package nodes

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/internal/reason"
)

const subscriptionID = "0190c0de-0000-7000-8000-000000000003"

func granted(state string, version, allowance, throttle int64) (told map[string]any, want Grant) {
	return map[string]any{"subscription_id": subscriptionID, "state": state, "version": version, "allowance": allowance, "throttle_bps": throttle},
		Grant{Subscription: subscriptionID, State: state, Version: version, Allowance: allowance, ThrottleBPS: throttle}
}

func TestADecisionHasTheFirstLease(t *testing.T) {
	c := newControl(t)
	told, want := granted("open", 3, 1<<20, 0)
	c.handle["/api/v1/auth/validate-device"] = func(map[string]any) (int, any) {
		return 200, map[string]any{"allowed": true, "subscription_id": subscriptionID, "quota": told}
	}
	n := c.node(t, nil)
	got, err := n.Validate(t.Context(), Question{Session: [16]byte{1}})
	if err != nil || got.Subscription != subscriptionID || !cmp.Equal(got.Quota, &want) {
		t.Errorf("Validate = %+v, %v, want the quota %+v", got, err, want)
	}
	c.handle["/api/v1/auth/validate-device"] = func(map[string]any) (int, any) {
		return 200, map[string]any{"allowed": true, "subscription_id": subscriptionID}
	}
	if got, err = n.Validate(t.Context(), Question{Session: [16]byte{2}}); err != nil || got.Subscription != subscriptionID || got.Quota != nil {
		t.Errorf("without a quota: Validate = %+v, %v", got, err)
	}
	told["subscription_id"] = "\"},{"
	c.handle["/api/v1/auth/validate-device"] = func(map[string]any) (int, any) {
		return 200, map[string]any{"allowed": true, "quota": told}
	}
	if got, err = n.Validate(t.Context(), Question{Session: [16]byte{3}}); err == nil || got.Allowed {
		t.Errorf("of a subscription that is none: Validate = %+v, %v", got, err)
	}
}

func TestLeasesAreRenewedAndGivenBack(t *testing.T) {
	c := newControl(t)
	told, want := granted("throttled", 4, 2000, 64_000)
	var asked any
	c.handle["/api/v1/quota/leases"] = func(body map[string]any) (int, any) {
		asked = body["leases"]
		return 200, map[string]any{"quotas": []any{told, map[string]any{"subscription_id": "x", "state": "open", "version": -1, "allowance": -1, "throttle_bps": -1}}}
	}
	n := c.node(t, nil)
	got, err := n.RenewQuotas(t.Context(), []LeaseRequest{
		{Subscription: subscriptionID, Used: 1000, Version: 3}, {Subscription: "x", Used: 0, GiveBack: true},
	})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Grant{want, {Subscription: "x", State: "open"}}, got); diff != "" {
		t.Errorf("grants (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]any{
		map[string]any{"subscription_id": subscriptionID, "used": 1000.0, "version": 3.0},
		map[string]any{"subscription_id": "x", "used": 0.0, "hold": 0.0},
	}, asked); diff != "" {
		t.Errorf("asked (-want +got):\n%s", diff)
	}
	c.handle["/api/v1/quota/leases"] = func(map[string]any) (int, any) { return 503, map[string]any{"code": reason.RetryLater} }
	if got, err := n.RenewQuotas(t.Context(), []LeaseRequest{{Subscription: subscriptionID}}); err == nil {
		t.Errorf("without an answer: %v", got)
	}
}

func TestAHeartbeatRenewsLeases(t *testing.T) {
	c := newControl(t)
	told, want := granted("open", 2, 500, 0)
	var (
		leases any
		grants []Grant
		when   time.Time
	)
	c.handle["/api/v1/gateway/heartbeat"] = func(body map[string]any) (int, any) {
		leases = body["leases"]
		return 200, map[string]any{"interval_ms": 1000, "close": []any{}, "quotas": []any{told}}
	}
	n := c.node(t, func(cfg *Config) {
		cfg.Leases = func(n int) []LeaseRequest { return []LeaseRequest{{Subscription: subscriptionID, Used: int64(n)}} }
		cfg.Granted = func(list []Grant, asked time.Time) { grants, when = list, asked }
	})
	c.leased = true
	began := time.Now()
	if err := n.beat(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]any{map[string]any{"subscription_id": subscriptionID, "used": float64(MaxLeases)}}, leases); diff != "" {
		t.Errorf("leases (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]Grant{want}, grants); diff != "" || when.Before(began) {
		t.Errorf("at %v grants (-want +got):\n%s", when, diff)
	}
}
