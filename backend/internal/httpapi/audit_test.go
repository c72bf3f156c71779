package httpapi_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
	"github.com/httvps/httvps/internal/totp"
)

func TestEveryOperationThatChangesSomethingIsInTheAuditLogOnBothEngines(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { testAudited(t, open(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { testAudited(t, openOn(t, store.Config{URL: storetest.Database(t)})) })
}

// testAudited uses every operation of operators that is not for looking once, with
// success. One that is not among the steps fails the test.
func testAudited(t *testing.T, f *fixture) {
	t.Helper()
	f.furnish(t)
	app := totp.NewSecret()
	const secret = "ss://aes-256-gcm:planted@other.example:443"
	steps := []struct{ id, kind, body string }{
		{"create-user", "", `{"name":"ann"}`},
		{"update-user", "users", `{"note":"x"}`},
		{"update-user-limits", "users", `{"max_devices":7}`},
		{"create-plan", "", `{"name":"ann"}`},
		{"update-plan", "plans", `{"max_devices":9}`},
		{"create-subscription", "", `{"user_id":"USER","plan_id":"PLAN"}`},
		{"update-subscription", "subscriptions", `{"ends_at":"2040-01-01T00:00:00Z"}`},
		{"create-region", "", `{"code":"ann"}`},
		{"update-region", "regions", `{"name":"x"}`},
		{"create-gateway", "", `{"name":"ann","region":"local"}`},
		{"create-outline-server", "", `{"region":"local","access_key":"ss://aes-256-gcm:planted@203.0.113.9:443"}`},
		{"update-outline-server", "outline-servers", `{"access_key":"` + secret + `"}`},
		{"create-invitation", "users", `{}`},
		{"update-device", "devices", `{"name":"x"}`},
		{"close-session", "sessions", `{}`},
		{"revoke-device", "devices", `{}`},
		{"create-bulk", "", `{"action":"invite","filter":{"all":true},"token":"BULK"}`},
		{"run-bulk", "bulk", ""},
		{"create-webhook", "", `{"url":"https://example.com/planted"}`},
		{"update-settings", "", `{"support":"ask ann"}`},
		{"update-webhook", "webhooks", `{"url":"https://example.com/planted/too"}`},
		{"rotate-webhook-secret", "webhooks", `{}`},
		{"test-webhook", "webhooks", ""},
		{"redeliver-webhook", "webhooks", `{}`},
		{"delete-webhook", "webhooks", ""},
		{"create-token", "", `{}`},
		{"create-operator", "", `{"name":"ann","role":"support"}`},
		{"update-operator", "operators", `{"role":"auditor"}`},
		{"create-operator-token", "operators", `{}`},
		{"invite-operator", "operators", ""},
		{"change-sign-in", "", fmt.Sprintf(`{"password":%q,"totp":{"secret":%q,"code":%q}}`,
			hisPassword, totp.FormatSecret(app), totp.Code(app, totp.Step(time.Now())))},
		{"delete-login", "logins", ""},
		{"delete-operator", "operators", ""},
		{"delete-token", "tokens", ""},
		{"delete-invitation", "users", ""},
		{"delete-outline-server", "outline-servers", ""},
		{"drain-gateway", "gateways", ""},
		{"undrain-gateway", "gateways", ""},
		{"delete-gateway", "gateways", ""},
		{"delete-region", "regions", ""},
		{"delete-subscription", "subscriptions", ""},
		{"delete-user", "users", ""},
		{"delete-plan", "plans", ""},
	}
	operations := guardedOperations(t)
	left := make(map[string]bool)
	for id, op := range operations {
		if strings.HasPrefix(op.path, "/api/v1/admin/") && op.method != http.MethodGet && op.needs != "nothing" {
			left[id] = true
		}
	}
	delete(left, "preview-bulk") // it is asked with a body, and only looks
	newest := func() control.AuditEntry {
		entries, err := f.authority.AuditEntries(t.Context(), control.AuditFilter{Limit: 1})
		if err != nil || len(entries) == 0 {
			t.Fatalf("the audit log: %v, %d entries", err, len(entries))
		}
		return entries[0]
	}
	for _, step := range steps {
		op := operations[step.id]
		delete(left, step.id)
		path := strings.NewReplacer("{id}", f.there[step.kind], "{invitation_id}", f.there["invitations"]).Replace(op.path)
		body := strings.NewReplacer("USER", f.there["users"], "PLAN", f.there["plans"]).Replace(step.body)
		if step.id == "delete-login" {
			in, err := f.authority.LogIn(t.Context(), control.LoginRequest{Name: "dev", Secrets: control.Secrets{
				Password: hisPassword, Code: totp.Code(app, totp.Step(time.Now())+1), // that of now is used
			}})
			if err != nil {
				t.Fatal(err)
			}
			path = strings.ReplaceAll(op.path, "{id}", in.Login.ID)
		}
		if step.id == "redeliver-webhook" { // of what was given up
			claimed, err := f.authority.ClaimDeliveries(t.Context(), f.there[step.kind], 10)
			if err == nil && len(claimed) == 1 {
				_, err = f.authority.FinishDelivery(t.Context(), claimed[0], control.Sent{Failure: control.DeliveryConnect})
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if step.id == "create-bulk" {
			var preview struct{ Token string }
			w := f.do(t.Context(), http.MethodPost, path+"/preview", `{"action":"invite","filter":{"all":true}}`)
			if err := json.Unmarshal(w.Body.Bytes(), &preview); err != nil {
				t.Fatal(err)
			}
			body = strings.ReplaceAll(body, "BULK", preview.Token)
		}
		before := newest().Number
		w := f.do(t.Context(), op.method, path, body, "Audit-Reason", "why "+step.id)
		if w.Code >= http.StatusBadRequest {
			t.Fatalf("%s: %d %s", step.id, w.Code, w.Body)
		}
		e := newest()
		if e.Number <= before || e.Actor.Kind != control.ActorOperator || e.Actor.ID == "" || e.Actor.TokenID == "" || e.Actor.Address != "192.0.2.1" ||
			e.Actor.Reason != "why "+step.id {
			t.Errorf("%s: entry %d after %d is %+v", step.id, e.Number, before, e)
		}
		if kind := map[string]string{"create-operator": "operators", "create-bulk": "bulk", "create-webhook": "webhooks"}[step.id]; kind != "" {
			var made struct{ ID string }
			if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil {
				t.Fatal(err)
			}
			f.there[kind] = made.ID
		}
	}
	if len(left) > 0 {
		t.Errorf("these are new: say here how they are asked for: %v", slices.Sorted(maps.Keys(left)))
	}
	w := f.do(t.Context(), http.MethodGet, "/api/v1/admin/audit?limit=500&order=oldest", "")
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"device.created"`) || !strings.Contains(w.Body.String(), `"gateway.joined"`) {
		t.Errorf("the list is %d and lacks something", w.Code)
	}
	for _, planted := range []string{"planted", "hvt1.", strings.TrimPrefix(f.prefix, "/")} {
		if strings.Contains(w.Body.String(), planted) {
			t.Errorf("the list has %q", planted)
		}
	}
	w = f.do(t.Context(), http.MethodGet, "/api/v1/admin/audit/verify", "")
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"ok":true`) {
		t.Errorf("verify: %d %s", w.Code, w.Body)
	}
	if w = f.do(t.Context(), http.MethodGet, "/api/v1/admin/audit/1", ""); w.Code != http.StatusOK {
		t.Errorf("the first: %d %s", w.Code, w.Body)
	}
	w = f.do(t.Context(), http.MethodPost, "/api/v1/admin/users", `{"name":"b"}`, "Audit-Reason", strings.Repeat("x", 201))
	if w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "header.Audit-Reason") {
		t.Errorf("a long reason: %d %s", w.Code, w.Body)
	}
}
