package httpapi_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/backend/internal/httpapi"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
	"github.com/httvps/httvps/internal/ticket"
)

func TestGatewaysGetOutlineServersAndNobodyElseTheirKeysOnBothEngines(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		dir := t.TempDir()
		f := openOn(t, store.Config{Path: filepath.Join(dir, "x.db")})
		testOutline(t, f)
		// Nor does the file have what was sealed.
		files, err := os.ReadDir(dir)
		if err != nil || len(files) == 0 {
			t.Fatal(err)
		}
		for _, file := range files {
			data, err := os.ReadFile(filepath.Join(dir, file.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(data), outlinePassword) || strings.Contains(string(data), outlineEncoded) {
				t.Errorf("%s holds the password", file.Name())
			}
		}
	})
	t.Run("PostgreSQL", func(t *testing.T) { testOutline(t, openOn(t, store.Config{URL: storetest.Database(t)})) })
}

const outlinePassword = "hunter2-hunter2-hunter2"

var outlineEncoded = base64.RawURLEncoding.EncodeToString([]byte("aes-256-gcm:" + outlinePassword))

func testOutline(t *testing.T, f *fixture) {
	t.Helper()
	// ask sends a request of an operator or a gateway. Only where access says so may
	// the answer have the password.
	ask := func(method, path, body string, status int, into any, header ...string) *httptest.ResponseRecorder {
		t.Helper()
		w := f.do(t.Context(), method, "/api/v1/"+path, body, header...)
		if w.Code != status {
			t.Fatalf("%s %s: %d %s, want %d", method, path, w.Code, w.Body, status)
		}
		if w.Header().Get("Cache-Control") != "no-store" {
			t.Errorf("%s %s: Cache-Control is %q", method, path, w.Header().Get("Cache-Control"))
		}
		if strings.HasPrefix(path, "admin/") {
			for _, secret := range []string{outlinePassword, outlineEncoded} {
				if strings.Contains(w.Body.String(), secret) {
					t.Errorf("%s %s answers with the password: %s", method, path, w.Body)
				}
			}
		}
		if into != nil {
			if err := json.Unmarshal(w.Body.Bytes(), into); err != nil {
				t.Fatalf("%s %s: %v: %s", method, path, err, w.Body)
			}
		}
		return w
	}
	code := func(w *httptest.ResponseRecorder, want string) {
		t.Helper()
		var p httpapi.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Code != want {
			t.Errorf("answer is %s, want %s", w.Body, want)
		}
	}
	id, key := f.enrol(t)
	session := strings.Repeat("5", 32)
	var decision httpapi.Decision
	ask(http.MethodPost, "auth/validate-device", fmt.Sprintf(`{"session_id":%q,"device_id":%q,"key_thumbprint":%q,"generation":1,"boot_id":"b"}`,
		session, id, ticket.Thumbprint(public(key))), http.StatusOK, &decision)
	if !decision.Allowed {
		t.Fatalf("the session is refused: %+v", decision)
	}
	question := fmt.Sprintf(`{"session_id":%q}`, session)
	code(ask(http.MethodPost, "nodes/assign-outline", question, http.StatusForbidden, nil), "no_outline_nodes_available")
	code(ask(http.MethodPost, "nodes/assign-outline", fmt.Sprintf(`{"session_id":%q}`, strings.Repeat("6", 32)), http.StatusForbidden, nil), "session_unknown")

	// The operator adds servers, by link.
	link := "ss://" + outlineEncoded + "@203.0.113.9:19000/?outline=1&prefix=POST%20#Pool%201"
	creation := fmt.Sprintf(`{"region":"local","access_key":%q,"managed":true}`, link)
	var first, second httpapi.OutlineServer
	ask(http.MethodPost, "admin/outline-servers", creation, http.StatusCreated, &first, "Idempotency-Key", "k")
	ask(http.MethodPost, "admin/outline-servers", creation, http.StatusCreated, &second, "Idempotency-Key", "k")
	if diff := cmp.Diff(first, second); diff != "" {
		t.Errorf("repeated (-first +again):\n%s", diff)
	}
	want := httpapi.OutlineServer{
		ID: first.ID, Name: "Pool 1", RegionID: first.RegionID, Region: "local", Host: "203.0.113.9", Port: 19000, Status: "unknown",
		Weight: 100, Capacity: 1000, Managed: true, CreatedAt: first.CreatedAt,
		Key: httpapi.OutlineKey{Generation: 1, Cipher: "aes-256-gcm", Prefixed: true, CreatedAt: first.Key.CreatedAt},
	}
	if diff := cmp.Diff(want, first); diff != "" {
		t.Errorf("made (-want +got):\n%s", diff)
	}
	code(ask(http.MethodPost, "admin/outline-servers", strings.Replace(creation, "managed", "fallback", 1), http.StatusConflict, nil, "Idempotency-Key", "k"),
		"idempotency_key_reused")
	code(ask(http.MethodPost, "admin/outline-servers", creation, http.StatusConflict, nil), "conflict")
	w := ask(http.MethodPost, "admin/outline-servers",
		fmt.Sprintf(`{"region":"local","access_key":"ss://rc4-md5:%s@203.0.113.9:1","weight":7}`, outlinePassword), http.StatusUnprocessableEntity, nil)
	if !strings.Contains(w.Body.String(), `"body.access_key"`) || !strings.Contains(w.Body.String(), "its cipher is none of") {
		t.Errorf("a key with an old cipher: %s", w.Body)
	}

	// A gateway gets what it needs to use one.
	var exit httpapi.Exit
	ask(http.MethodPost, "nodes/assign-outline", question, http.StatusOK, &exit)
	wantExit := httpapi.Exit{Result: "assigned", OutlineAccess: httpapi.OutlineAccess{
		ServerID: first.ID, Region: "local", Host: "203.0.113.9", Port: 19000, Cipher: "aes-256-gcm", Password: outlinePassword,
		Prefix: base64.RawURLEncoding.EncodeToString([]byte("POST ")), Managed: true, Generation: 1,
	}}
	if diff := cmp.Diff(wantExit, exit); diff != "" {
		t.Errorf("exit (-want +got):\n%s", diff)
	}
	failure := fmt.Sprintf(`{"session_id":%q,"server_id":%q,"failure":"reset"}`, session, first.ID)
	ask(http.MethodPost, "nodes/report-outline-failure", failure, http.StatusOK, &exit)
	if exit.Result != "kept" || exit.RetryAfterMS != 30_000 {
		t.Errorf("without another server: %+v", exit)
	}
	ask(http.MethodPost, "admin/outline-servers",
		fmt.Sprintf(`{"region":"local","access_key":"ss://aes-128-gcm:%s@ss2.example:443","priority":5,"capacity":1}`, outlinePassword), http.StatusCreated, &second)
	exit = httpapi.Exit{}
	ask(http.MethodPost, "nodes/report-outline-failure", failure, http.StatusOK, &exit)
	if exit.Result != "switched" || exit.ServerID != second.ID || exit.Prefix != "" || exit.Managed || exit.RetryAfterMS != 0 {
		t.Errorf("after a failure: %+v", exit)
	}
	var carried httpapi.Session
	ask(http.MethodGet, "admin/sessions/"+session, "", http.StatusOK, &carried)
	if carried.OutlineServer != second.ID {
		t.Errorf("the session leaves through %q, want %q", carried.OutlineServer, second.ID)
	}

	// It probes all of them, and the operator sees what it saw.
	var probing httpapi.OutlineProbing
	ask(http.MethodPost, "outline/heartbeat", `{"results":[]}`, http.StatusOK, &probing)
	if len(probing.Servers) != 2 || probing.Servers[0].ServerID != first.ID || probing.Servers[0].Password != outlinePassword || probing.IntervalMS != 15_000 {
		t.Errorf("to probe: %+v", probing)
	}
	for range 3 {
		ask(http.MethodPost, "outline/heartbeat", fmt.Sprintf(`{"results":[{"server_id":%q,"failure":"timeout"},{"server_id":%q,"latency_ms":42}]}`, first.ID, second.ID),
			http.StatusOK, nil)
	}
	var shown httpapi.OutlineServerShown
	ask(http.MethodGet, "admin/outline-servers/"+first.ID, "", http.StatusOK, &shown)
	if shown.Status != "down" || shown.StatusSince == nil || shown.ProbedAt == nil || len(shown.Probes) != 1 ||
		shown.Probes[0].GatewayID != f.gatewayID || shown.Probes[0].Failure != "timeout" || shown.Probes[0].Streak != -3 {
		t.Errorf("shown: %+v", shown)
	}
	var list httpapi.List[httpapi.OutlineServer]
	ask(http.MethodGet, "admin/outline-servers?limit=1", "", http.StatusOK, &list)
	if len(list.Items) != 1 || list.Items[0].ID != first.ID || list.Next == nil {
		t.Errorf("first part: %+v", list)
	}
	ask(http.MethodGet, "admin/outline-servers?cursor="+*list.Next, "", http.StatusOK, &list)
	if len(list.Items) != 1 || list.Items[0].ID != second.ID || list.Items[0].Status != "up" || list.Items[0].Sessions != 1 {
		t.Errorf("second part: %+v", list)
	}

	ask(http.MethodPost, "nodes/release-outline", question, http.StatusNoContent, nil)
	ask(http.MethodPost, "nodes/release-outline", question, http.StatusNoContent, nil)
	ask(http.MethodPatch, "admin/outline-servers/"+second.ID, fmt.Sprintf(`{"access_key":%q,"disabled":true,"weight":0}`,
		strings.Replace(link, "203.0.113.9", "203.0.113.10", 1)), http.StatusOK, &second)
	if second.Status != "disabled" || second.StatusSince == nil || second.Host != "203.0.113.10" || second.Key.Generation != 2 || second.Sessions != 0 {
		t.Errorf("changed: %+v", second)
	}
	code(ask(http.MethodPost, "nodes/assign-outline", question, http.StatusForbidden, nil), "no_outline_nodes_available")
	ask(http.MethodDelete, "admin/outline-servers/"+second.ID, "", http.StatusNoContent, nil)
	code(ask(http.MethodGet, "admin/outline-servers/"+second.ID, "", http.StatusNotFound, nil), "not_found")

	// An operator's token is none of a gateway's, and the other way round.
	for path, credential := range map[string]string{"nodes/assign-outline": f.token, "outline/heartbeat": f.token, "admin/outline-servers": f.assertion} {
		ask(http.MethodPost, path, creation, http.StatusUnauthorized, nil, "Authorization", "Bearer "+credential)
	}
	if log := f.log.String(); strings.Contains(log, outlinePassword) || strings.Contains(log, outlineEncoded) || !strings.Contains(log, "state=down") {
		t.Errorf("the log: %s", log)
	}
}
