package httpapi_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/httpapi"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

func TestWebhooksAreMadeAndWatchedAndNobodyIsShownTheirSecretsTwiceOnBothEngines(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		dir := t.TempDir()
		secret := testWebhooks(t, openOn(t, store.Config{Path: filepath.Join(dir, "x.db")}))
		files, err := os.ReadDir(dir)
		if err != nil || len(files) == 0 {
			t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(filepath.Join(dir, file.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(data), secret) {
				t.Errorf("%s holds the secret", file.Name())
			}
		}
	})
	t.Run("PostgreSQL", func(t *testing.T) { testWebhooks(t, openOn(t, store.Config{URL: storetest.Database(t)})) })
}

func testWebhooks(t *testing.T, f *fixture) (secret string) {
	t.Helper()
	support, _, err := f.authority.CreateOperator(t.Context(), "help", control.RoleSupport, 0, control.Once{})
	if err != nil {
		t.Fatal(err)
	}
	asSupport := []string{"Authorization", "Bearer " + support.Token}
	ask := func(method, path, body string, status int, into any, header ...string) string {
		t.Helper()
		w := f.do(t.Context(), method, "/api/v1/admin/webhooks"+path, body, header...)
		if w.Code != status {
			t.Fatalf("%s %s: %d %s, want %d", method, path, w.Code, w.Body, status)
		}
		if into != nil {
			if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
				t.Fatalf("%s %s: %v: %s", method, path, err, w.Body)
			}
		}
		return w.Body.String()
	}
	const url = "https://hooks.example.net/planted-path?planted=query"
	var made, again httpapi.WebhookWithSecret
	body := fmt.Sprintf(`{"url":%q,"description":"mine","events":["user.removed","user.created","user.created"]}`, url)
	ask(http.MethodPost, "", body, http.StatusCreated, &made, "Idempotency-Key", "k")
	ask(http.MethodPost, "", body, http.StatusCreated, &again, "Idempotency-Key", "k")
	if made.ID != again.ID || !strings.HasPrefix(made.Secret, "whsec_") || again.Secret != "" {
		t.Errorf("made %+v, and again %+v", made, again)
	}
	if made.URL != url || made.Status != "active" || strings.Join(made.Events, " ") != "user.created user.removed" || len(made.Secrets) != 1 {
		t.Errorf("made: %+v", made)
	}
	var shown httpapi.Webhook
	for _, path := range []string{"", "/" + made.ID} {
		if text := ask(http.MethodGet, path, "", http.StatusOK, nil); !strings.Contains(text, "planted-path") || strings.Contains(text, "whsec_") {
			t.Errorf("to the owner %q shows %s", path, text)
		}
		if text := ask(http.MethodGet, path, "", http.StatusOK, nil, asSupport...); strings.Contains(text, "planted") || !strings.Contains(text, "https://hooks.example.net") {
			t.Errorf("to support %q shows %s", path, text)
		}
	}
	ask(http.MethodPatch, "/"+made.ID, `{"events":[],"disabled":true}`, http.StatusOK, &shown)
	if shown.Status != "disabled" || shown.DisabledReason != "operator" || len(shown.Events) != 0 || shown.Description != "mine" {
		t.Errorf("disabled: %+v", shown)
	}
	if text := ask(http.MethodPost, "/"+made.ID+"/test", `{}`, http.StatusConflict, nil); !strings.Contains(text, "enable it first") {
		t.Error(text)
	}
	ask(http.MethodPatch, "/"+made.ID, `{"disabled":false}`, http.StatusOK, nil)
	var test httpapi.Delivery
	ask(http.MethodPost, "/"+made.ID+"/test", `{}`, http.StatusOK, &test)
	if test.Type != "webhook.test" || test.State != "pending" || test.NextAt == nil || !strings.Contains(string(test.Payload), `"version":1`) {
		t.Errorf("a test: %+v", test)
	}
	for _, name := range []string{"ann", "bob"} {
		if w := f.do(t.Context(), http.MethodPost, "/api/v1/admin/users", `{"name":"`+name+`"}`); w.Code != http.StatusCreated {
			t.Fatal(w.Body)
		}
	}
	var page, rest httpapi.List[httpapi.Delivery]
	ask(http.MethodGet, "/"+made.ID+"/deliveries?limit=2", "", http.StatusOK, &page, asSupport...)
	if len(page.Items) != 2 || page.Next == nil || page.Items[0].Type != "user.created" {
		t.Fatalf("the newest: %+v", page)
	}
	ask(http.MethodGet, "/"+made.ID+"/deliveries?state=pending&cursor="+*page.Next, "", http.StatusOK, &rest)
	if len(rest.Items) != 1 || rest.Items[0].ID != test.ID || rest.Next != nil {
		t.Errorf("the rest: %+v", rest)
	}
	ask(http.MethodGet, "/"+made.ID+"/deliveries?state=planted", "", http.StatusUnprocessableEntity, nil)
	var sent httpapi.Redelivered
	ask(http.MethodPost, "/"+made.ID+"/redeliver", `{}`, http.StatusOK, &sent) // none is dead
	if sent.Redelivered != 0 {
		t.Errorf("%+v", sent)
	}
	ask(http.MethodPost, "/"+made.ID+"/redeliver", `{"delivery_ids":["`+test.ID+`"]}`, http.StatusNotFound, nil)
	var rotated httpapi.WebhookWithSecret
	ask(http.MethodPost, "/"+made.ID+"/rotate", `{"overlap_seconds":60}`, http.StatusOK, &rotated)
	if rotated.Secret == made.Secret || len(rotated.Secrets) != 2 || rotated.Secrets[0].Generation != 2 || rotated.Secrets[1].EndsAt == nil {
		t.Errorf("rotated: %+v", rotated)
	}
	if text := ask(http.MethodPost, "", `{"url":"https://planted@example.net/","events":["planted"]}`, http.StatusUnprocessableEntity, nil); strings.Contains(text, "planted") ||
		!strings.Contains(text, "body.url") || !strings.Contains(text, "body.events") {
		t.Error(text)
	}
	ask(http.MethodDelete, "/"+made.ID, "", http.StatusNoContent, nil)
	for _, path := range []string{"", "/deliveries"} {
		ask(http.MethodGet, "/"+made.ID+path, "", http.StatusNotFound, nil)
	}
	if log := f.log.String(); strings.Contains(log, "planted-path") || strings.Contains(log, strings.TrimPrefix(made.Secret, "whsec_")) {
		t.Error("the log has the URL or the secret")
	}
	return strings.TrimPrefix(made.Secret, "whsec_")
}
