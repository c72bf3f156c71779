package backend_test

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/internal/ticket"
)

type quotaGrant struct {
	SubscriptionID string     `json:"subscription_id"`
	State          string     `json:"state"`
	Version        int64      `json:"version"`
	Allowance      int64      `json:"allowance"`
	LeaseEndsAt    *time.Time `json:"lease_ends_at"`
	PeriodTo       *time.Time `json:"period_to"`
}

func TestThePlansTermsReachGatewaysAndDevices(t *testing.T) {
	const mib = 1 << 20
	s := start(t, dataDir(t), dev)
	g := s.newGateway()
	g.heartbeat()
	user := s.admin(http.MethodPost, "/users", map[string]any{"name": "ann"}).want(http.StatusCreated, "").field("id")
	plan := s.admin(http.MethodPost, "/plans", map[string]any{
		"name": "coupon", "duration_days": 30, "starts_on_first_use": true, "regions": []string{"here"}, "speed_up_bps": 1_000_000,
		"speed_down_bps": 20_000_000, "quota_bytes": 2 * mib, "quota_period": "month", "time_zone": "Europe/Berlin",
	}).want(http.StatusCreated, "").field("id")
	sub := s.admin(http.MethodPost, "/subscriptions", map[string]any{"user_id": user, "plan_id": plan}).want(http.StatusCreated, "").field("id")
	d := s.enrol(s.invite(user))
	token := d.tryToken().want(http.StatusOK, "").field("access_token")

	var me struct {
		Allowed      bool   `json:"allowed"`
		Reason       string `json:"reason"`
		UserName     string `json:"user_name"`
		Subscription struct {
			Status    string     `json:"status"`
			AwaitsUse bool       `json:"awaits_use"`
			EndsAt    *time.Time `json:"ends_at"`
			Quota     struct {
				Used     int64      `json:"used"`
				Left     int64      `json:"left"`
				ResetsAt *time.Time `json:"resets_at"`
				Warning  int        `json:"warning"`
			} `json:"quota"`
		} `json:"subscription"`
	}
	look := func() { // the device and the operator are told the same
		t.Helper()
		s.get("/api/v1/me", token).want(http.StatusOK, "").into(&me)
		shown := me.Subscription
		shown.Quota.Left, shown.Quota.Used, shown.Quota.ResetsAt = -1, -1, nil
		s.admin(http.MethodGet, "/subscriptions/"+sub, nil).want(http.StatusOK, "").into(&shown)
		if diff := cmp.Diff(me.Subscription, shown); diff != "" {
			t.Errorf("the device is told (-), the operator (+)\n%s", diff)
		}
	}
	if look(); !me.Allowed || me.UserName != "ann" || me.Subscription.Status != "scheduled" || !me.Subscription.AwaitsUse || me.Subscription.Quota.Left != 2*mib {
		t.Errorf("before its first use the device is told %+v", me)
	}
	var out struct {
		Allowed bool `json:"allowed"`
		Limits  struct {
			Up   int64 `json:"speed_up_bps"`
			Down int64 `json:"speed_down_bps"`
		} `json:"limits"`
		ExpiresAt *time.Time  `json:"expires_at"`
		Quota     *quotaGrant `json:"quota"`
		Reason    string      `json:"reason"`
	}
	session := newSessionID()
	validate := func() {
		t.Helper()
		out.Quota, out.Reason = nil, ""
		s.post("/api/v1/auth/validate-device", g.credential(), map[string]any{
			"session_id": session, "device_id": d.id, "key_thumbprint": ticket.Thumbprint(publicOf(d.key)), "generation": 1, "boot_id": g.boot,
		}).want(http.StatusOK, "").into(&out)
	}
	validate()
	if !out.Allowed || out.Limits.Up != 1_000_000 || out.Limits.Down != 20_000_000 || out.ExpiresAt == nil || out.Quota == nil ||
		out.Quota.State != "open" || out.Quota.Allowance != mib || out.Quota.LeaseEndsAt == nil || out.Quota.PeriodTo == nil {
		t.Fatalf("decided %+v with %+v", out, out.Quota)
	}
	report := func(sequence int, bytes int64) {
		t.Helper()
		s.post("/api/v1/usage/report", g.credential(), map[string]any{"reports": []any{map[string]any{
			"boot_id": g.boot, "session_id": session, "sequence": sequence, "up": 0, "down": bytes, "at": time.Now(),
		}}}).want(http.StatusOK, "")
	}
	report(1, mib)
	var renewed struct {
		Quotas []quotaGrant `json:"quotas"`
	}
	lease := map[string]any{"subscription_id": sub, "used": mib, "version": out.Quota.Version}
	s.post("/api/v1/gateway/heartbeat", g.credential(), map[string]any{
		"boot_id": g.boot, "version": "1", "url": "wss://gw.example.net/tunnel", "sessions": 1, "streams": 2, "leases": []any{lease},
	}).want(http.StatusOK, "").into(&renewed)
	if len(renewed.Quotas) != 1 || renewed.Quotas[0].SubscriptionID != sub || renewed.Quotas[0].Allowance <= mib || renewed.Quotas[0].Version <= out.Quota.Version {
		t.Errorf("the heartbeat brings %+v, want more of the quota", renewed.Quotas)
	}
	if look(); me.Subscription.Status != "active" || me.Subscription.EndsAt == nil || me.Subscription.Quota.Used != mib || me.Subscription.Quota.ResetsAt == nil {
		t.Errorf("with half of the quota used the device is told %+v", me)
	}
	report(2, 2*mib)
	lease["used"] = 2 * mib
	s.post("/api/v1/quota/leases", g.credential(), map[string]any{"boot_id": g.boot, "leases": []any{lease}}).want(http.StatusOK, "").into(&renewed)
	if len(renewed.Quotas) != 1 || renewed.Quotas[0].State != "exhausted" || renewed.Quotas[0].Allowance != 2*mib {
		t.Errorf("with the quota used up the gateway is told %+v", renewed.Quotas)
	}
	if validate(); out.Reason != "quota_exceeded" {
		t.Errorf("decided %+v, want quota_exceeded", out)
	}
	if look(); me.Allowed || me.Reason != "quota_exceeded" || me.Subscription.Quota.Left != 0 || me.Subscription.Quota.Warning != 100 {
		t.Errorf("with the quota used up the device is told %+v", me)
	}
	if log := s.log.String(); !strings.Contains(log, `"msg":"quota reached"`) || !strings.Contains(log, `"percent":100`) {
		t.Error("the log does not say that the quota was reached")
	}
	if metrics := string(s.call(http.MethodGet, s.ready.Admin[:strings.LastIndexByte(s.ready.Admin, '/')]+"/metrics", "", nil).text); !strings.Contains(metrics, `httvps_backend_quotas_reached_total{part="whole"} 1`) {
		t.Error("the metrics do not say that a quota was reached")
	}
	s.post("/api/v1/quota/leases", s.ready.Token, map[string]any{"boot_id": "b", "leases": []any{lease}}).want(http.StatusUnauthorized, "invalid_token")
	s.get("/api/v1/me", "").want(http.StatusUnauthorized, "invalid_token")
	s.get("/api/v1/me", s.ready.Token).want(http.StatusUnauthorized, "invalid_token")
	s.admin(http.MethodPost, "/devices/"+d.id+"/revoke", nil).want(http.StatusOK, "")
	s.get("/api/v1/me", token).want(http.StatusForbidden, "device_revoked")
}

func TestAtItsLimitADeviceReplacesAnother(t *testing.T) {
	s := start(t, dataDir(t), dev)
	user, _ := s.user("ann", 2, 2)
	stranger, _ := s.user("bob", 2, 2)
	idle, used, foreign := s.enrol(s.invite(user)), s.enrol(s.invite(user)), s.enrol(s.invite(stranger))
	used.tryToken().want(http.StatusOK, "")
	link, key := s.invite(user), newKey(t)
	var refused struct {
		Devices []struct {
			ID   string `json:"id"`
			Name string `json:"name"`
		} `json:"devices"`
	}
	s.tryEnrol(key, codeOf(t, link)).want(http.StatusForbidden, "device_limit").into(&refused)
	var offered []string
	for _, d := range refused.Devices {
		offered = append(offered, d.ID)
	}
	if !slices.Equal(offered, []string{idle.id, used.id}) || refused.Devices[0].Name != "laptop" {
		t.Errorf("offered are %+v, want the two of the user, the idle one first", refused.Devices)
	}
	replace := func(id string) reply {
		t.Helper()
		request := s.codeProof(key, "enrol", codeOf(t, link))
		request["name"], request["replace"] = "phone", id
		return s.post("/api/v1/devices/enroll", "", request)
	}
	replace(foreign.id).want(http.StatusUnprocessableEntity, "invalid_request")
	replace(stranger).want(http.StatusUnprocessableEntity, "invalid_request")
	fresh := replace(idle.id).want(http.StatusCreated, "").field("device_id")
	if again := replace(idle.id).want(http.StatusOK, "").field("device_id"); again != fresh {
		t.Errorf("repeated it is device %s, want %s", again, fresh)
	}
	idle.tryToken().want(http.StatusForbidden, "device_revoked")
	used.tryToken().want(http.StatusOK, "")
	foreign.tryToken().want(http.StatusOK, "")
	device{s: s, id: fresh, key: key}.tryToken().want(http.StatusOK, "")
	link, key = s.invite(user), newKey(t)
	replace(idle.id).want(http.StatusUnprocessableEntity, "invalid_request") // it was replaced before
	if log := s.log.String(); !strings.Contains(log, `"msg":"device replaced"`) {
		t.Error("the log does not say that a device was replaced")
	}
}
