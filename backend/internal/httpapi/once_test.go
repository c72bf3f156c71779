package httpapi_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/httvps/httvps/backend/internal/httpapi"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// creation is a POST of the admin API that makes an object.
type creation struct {
	id, path string
	takesKey bool
	longest  int
	replayed bool // the answer says whether it is a replay
}

// creations returns all of them, as the document has them: those that answer 201.
func creations(t *testing.T) []creation {
	t.Helper()
	document, err := httpapi.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var api struct {
		Paths map[string]struct {
			Post *struct {
				OperationID string `json:"operationId"`
				Parameters  []struct {
					In, Name string
					Schema   struct{ MaxLength int }
				}
				Responses map[string]struct {
					Headers map[string]any
				}
			}
		}
	}
	if err := json.Unmarshal(document, &api); err != nil {
		t.Fatal(err)
	}
	var all []creation
	for path, methods := range api.Paths {
		if methods.Post == nil || !strings.HasPrefix(path, "/api/v1/admin/") {
			continue
		}
		made, creates := methods.Post.Responses["201"]
		if !creates {
			continue
		}
		c := creation{id: methods.Post.OperationID, path: path}
		for _, p := range methods.Post.Parameters {
			if p.In == "header" && p.Name == "Idempotency-Key" {
				c.takesKey, c.longest = true, p.Schema.MaxLength
			}
		}
		_, c.replayed = made.Headers["Idempotency-Replayed"]
		all = append(all, c)
	}
	slices.SortFunc(all, func(a, b creation) int { return strings.Compare(a.id, b.id) })
	return all
}

func TestEveryCreatingRequestTakesAnIdempotencyKey(t *testing.T) {
	all := creations(t)
	if len(all) < 7 {
		t.Fatalf("only %d creating operations", len(all))
	}
	for _, c := range all {
		if !c.takesKey || c.longest != 200 {
			t.Errorf("%s (POST %s) takes no Idempotency-Key of up to 200 characters", c.id, c.path)
		}
		if !c.replayed && c.id != "bootstrap" { // its code works once
			t.Errorf("%s (POST %s) does not say Idempotency-Replayed", c.id, c.path)
		}
	}
}

// example returns two bodies for a creating operation, and the path of an object
// that it is about. An operation that is not here is a test that is missing.
func (f *fixture) example(t *testing.T, c creation) (path, body, other string) {
	t.Helper()
	first := func(list string) string {
		var page struct{ Items []struct{ ID string } }
		w := f.do(t.Context(), http.MethodGet, "/api/v1/admin/"+list, "")
		if err := json.Unmarshal(w.Body.Bytes(), &page); err != nil || len(page.Items) == 0 {
			t.Fatalf("no %s: %d %s", list, w.Code, w.Body)
		}
		return page.Items[0].ID
	}
	path = strings.ReplaceAll(c.path, "{id}", first("users"))
	switch c.id {
	case "create-user", "create-plan":
		return path, `{"name":"ann"}`, `{"name":"bob"}`
	case "create-region":
		return path, `{"code":"ann"}`, `{"code":"bob"}`
	case "create-gateway":
		return path, `{"name":"ann","region":"local"}`, `{"name":"bob","region":"local"}`
	case "create-outline-server":
		const of = `{"region":"local","access_key":"ss://aes-256-gcm:pw@203.0.113.`
		return path, of + `1:443"}`, of + `2:443"}`
	case "create-subscription":
		of := `{"user_id":"` + first("users") + `","plan_id":"` + first("plans") + `"`
		return path, of + `}`, of + `,"ends_at":"2040-01-01T00:00:00Z"}`
	case "create-invitation":
		return path, `{}`, `{"ttl_seconds":60}`
	case "create-bulk":
		of := func(more string) string {
			request := `{"action":"invite","filter":{"all":true}` + more
			var preview struct{ Token string }
			w := f.do(t.Context(), http.MethodPost, "/api/v1/admin/bulk/preview", request+"}")
			if err := json.Unmarshal(w.Body.Bytes(), &preview); err != nil || preview.Token == "" {
				t.Fatalf("no preview: %d %s", w.Code, w.Body)
			}
			return request + `,"token":"` + preview.Token + `"}`
		}
		return path, of(""), of(`,"ttl_seconds":60`)
	case "create-webhook":
		return path, `{"url":"https://example.com/ann"}`, `{"url":"https://example.com/bob"}`
	case "create-token":
		return path, `{}`, `{"ttl_days":1}`
	case "create-operator":
		return path, `{"name":"ann","role":"support"}`, `{"name":"bob","role":"support"}`
	case "create-operator-token":
		return strings.ReplaceAll(c.path, "{id}", first("operators")), `{}`, `{"ttl_days":1}`
	default:
		t.Fatalf("%s is new: say here how it is asked for", c.id)
		return "", "", ""
	}
}

func TestEveryCreatingRequestActsOncePerKeyOnBothEngines(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { testOnce(t, open(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { testOnce(t, openOn(t, store.Config{URL: storetest.Database(t)})) })
}

func testOnce(t *testing.T, f *fixture) {
	t.Helper()
	id := func(w *httptest.ResponseRecorder) string {
		var object struct{ ID string }
		if err := json.Unmarshal(w.Body.Bytes(), &object); err != nil {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		return object.ID
	}
	for _, c := range creations(t) {
		if c.id == "bootstrap" {
			continue
		}
		t.Run(c.id, func(t *testing.T) {
			path, body, other := f.example(t, c)
			key := c.id + strings.Repeat("k", 200-len(c.id))
			const callers = 16
			answers := make([]*httptest.ResponseRecorder, callers)
			var together sync.WaitGroup
			for i := range callers {
				together.Go(func() {
					answers[i] = f.do(t.Context(), http.MethodPost, path, body, "Idempotency-Key", key)
				})
			}
			together.Wait()
			made := 0
			for _, w := range answers {
				if w.Code != http.StatusCreated || id(w) == "" || id(w) != id(answers[0]) {
					t.Errorf("one of %d at the same time: %d %s, another: %s", callers, w.Code, w.Body, answers[0].Body)
				}
				if w.Header().Get("Idempotency-Replayed") == "" {
					made++
				}
			}
			if made != 1 {
				t.Errorf("%d of %d say that they made it", made, callers)
			}
			if w := f.do(t.Context(), http.MethodPost, path, other, "Idempotency-Key", key); w.Code != http.StatusConflict ||
				!strings.Contains(w.Body.String(), `"idempotency_key_reused"`) {
				t.Errorf("another body under the same key: %d %s", w.Code, w.Body)
			}
			for _, none := range []string{"\xff", "a\x00", "\u00e9"} { // cannot be kept, or not everywhere
				if w := f.do(t.Context(), http.MethodPost, path, other, "Idempotency-Key", none); w.Code != http.StatusUnprocessableEntity ||
					!strings.Contains(w.Body.String(), "header.Idempotency-Key") {
					t.Errorf("the key %q: %d %s, want 422", none, w.Code, w.Body)
				}
			}
			if w := f.do(t.Context(), http.MethodPost, path, other, "Idempotency-Key", key+"k"); w.Code != http.StatusUnprocessableEntity ||
				!strings.Contains(w.Body.String(), "header.Idempotency-Key") || strings.Contains(w.Body.String(), "kkk") {
				t.Errorf("a key of 201 characters: %d %s", w.Code, w.Body)
			}
			if w := f.do(t.Context(), http.MethodPost, path, other, "Idempotency-Key", c.id+"2"); w.Code != http.StatusCreated ||
				w.Header().Get("Idempotency-Replayed") != "" || id(w) == id(answers[0]) {
				t.Errorf("another key: %d %s", w.Code, w.Body)
			}
		})
	}
}

// A secret in a place where the service did not expect one must not come back: an
// answer may be logged by who asked.
func TestNoAnswerRepeatsWhatWasSent(t *testing.T) {
	f := open(t)
	const planted = "Hunter2-0123456789abcdef0123456789abcdef"
	for _, op := range operations(t) {
		bodies := []string{`"` + planted + `"`, `{"` + planted + `":1}`, planted, `["` + planted + `"]`}
		for _, value := range []any{planted, []string{planted}, map[string]string{planted: planted}} {
			all := make(map[string]any)
			for _, member := range op.fields {
				all[member.name] = value
				one, err := json.Marshal(map[string]any{member.name: value, planted: value})
				if err != nil {
					t.Fatal(err)
				}
				bodies = append(bodies, string(one))
			}
			every, err := json.Marshal(all)
			if err != nil {
				t.Fatal(err)
			}
			bodies = append(bodies, string(every))
		}
		for _, body := range bodies {
			path := strings.NewReplacer("{id}", planted, "{invitation_id}", planted).Replace(op.path)
			for _, query := range []string{"", "?limit=" + planted, "?cursor=" + planted, "?" + planted + "=1", "?state=" + planted} {
				w := f.do(t.Context(), op.method, path+query, body)
				if w.Code >= http.StatusBadRequest && strings.Contains(strings.ToLower(w.Body.String()), strings.ToLower(planted)) {
					t.Errorf("%s %s with %s: %d %s", op.method, path+query, body, w.Code, w.Body)
				}
			}
		}
	}
	if strings.Contains(f.log.String(), planted) {
		t.Error("the log has what was sent")
	}
}
