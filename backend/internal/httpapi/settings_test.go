package httpapi_test

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/control"
)

func TestPeopleWhoCannotGoOnAreToldWhomToTurnToOnBothEngines(t *testing.T) {
	onBothEngines(t, func(t *testing.T, f *fixture) {
		t.Helper()
		device, key := f.enrol(t)
		token := func() (status int, text, support string) {
			t.Helper()
			nonce := f.authority.Challenge()
			proof := ed25519.Sign(key, slices.Concat([]byte("HTTVPS1 token\x00"), uuidBytes(t, device), nonce))
			w := f.do(t.Context(), http.MethodPost, "/api/v1/auth/token", fmt.Sprintf(`{"device_id":%q,"nonce":%q,"signature":%q}`,
				device, rawURL.EncodeToString(nonce), rawURL.EncodeToString(proof)))
			var said struct {
				Text    string `json:"access_token"`
				Support string `json:"support"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil {
				t.Fatalf("%v in %s", err, w.Body)
			}
			return w.Code, said.Text, said.Support
		}
		_, text, _ := token()
		me := func() string {
			t.Helper()
			w := f.do(t.Context(), http.MethodGet, "/api/v1/me", "", "Authorization", "Bearer "+text)
			var said struct {
				Support string `json:"support"`
			}
			if err := json.Unmarshal(w.Body.Bytes(), &said); err != nil || w.Code != http.StatusOK && w.Code != http.StatusForbidden {
				t.Fatalf("%d, %v in %s", w.Code, err, w.Body)
			}
			return said.Support
		}
		if got := me(); got != "" {
			t.Errorf("before anybody is named: %q", got)
		}
		const none = `{"api_token_ttl_days":90,"invitation_ttl_seconds":86400,"support":""}`
		show := func(o map[string]json.RawMessage) string {
			all, err := json.Marshal(o)
			if err != nil {
				t.Fatal(err)
			}
			return compact(t, all)
		}
		for _, step := range []struct{ body, want string }{
			{`{}`, none},
			{`{"support":"ask ann","api_token_ttl_days":7}`, `{"api_token_ttl_days":7,"invitation_ttl_seconds":86400,"support":"ask ann"}`},
			{`{"api_token_ttl_days":null}`, `{"api_token_ttl_days":90,"invitation_ttl_seconds":86400,"support":"ask ann"}`},
		} {
			changed := show(f.answer(t, http.StatusOK, http.MethodPatch, "/settings", step.body))
			shown := show(f.answer(t, http.StatusOK, http.MethodGet, "/settings", ""))
			if diff := cmp.Diff([]string{step.want, step.want}, []string{changed, shown}); diff != "" {
				t.Errorf("%s (-want +got):\n%s", step.body, diff)
			}
		}
		wrong := string(f.answer(t, http.StatusUnprocessableEntity, http.MethodPatch, "/settings",
			`{"support":"planted\n","api_token_ttl_days":0,"invitation_ttl_seconds":1}`)["errors"])
		for _, want := range []string{"body.support", "body.api_token_ttl_days", "body.invitation_ttl_seconds"} {
			if !strings.Contains(wrong, want) || strings.Contains(wrong, "planted") {
				t.Errorf("no %s alone in %s", want, wrong)
			}
		}
		if got := me(); got != "ask ann" {
			t.Errorf("me says %q", got)
		}
		var user string
		if err := json.Unmarshal(f.answer(t, http.StatusOK, http.MethodGet, "/devices/"+device, "")["user_id"], &user); err != nil {
			t.Fatal(err)
		}
		if _, err := f.authority.UpdateUser(t.Context(), user, control.UserFields{Disabled: new(true)}); err != nil {
			t.Fatal(err)
		}
		if status, _, support := token(); status != http.StatusForbidden || support != "ask ann" {
			t.Errorf("a token for a disabled user: %d, %q", status, support)
		}
		if got := me(); got != "ask ann" {
			t.Errorf("me, refused, says %q", got)
		}
		if w := f.do(t.Context(), http.MethodGet, "/api/v1/me", "", "Authorization", "Bearer x"); strings.Contains(w.Body.String(), "ann") {
			t.Errorf("a stranger is told %s", w.Body)
		}
	})
}

func uuidBytes(t *testing.T, id string) []byte {
	t.Helper()
	var raw []byte
	if _, err := fmt.Sscanf(strings.ReplaceAll(id, "-", ""), "%x", &raw); err != nil {
		t.Fatal(err)
	}
	return raw
}
