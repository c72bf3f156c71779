package httpapi_test

import (
	"encoding/json"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/httpapi"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// documented is a row of the table of rights in docs/02 for one operation.
type documented struct {
	needs string // nothing, device, gateway, or a right
	roles []control.Role
}

var code = regexp.MustCompile("`([a-z-]+)`")

// documentedRights reads that table.
func documentedRights(t *testing.T) map[string]documented {
	t.Helper()
	text, err := os.ReadFile("../../../docs/02-control-plane-api.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(text), "| needs | owner | admin | support | auditor | operations |\n|---|---|---|---|---|---|\n")
	if !found {
		t.Fatal("docs/02 has no table of rights")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	kinds := map[string]string{"nothing": "nothing", "a device's access token": "device", "a gateway's assertion": "gateway"}
	all := make(map[string]documented)
	for line := range strings.Lines(table) {
		cells := strings.Split(strings.Trim(line, "|\n "), "|")
		if len(cells) != 6 {
			t.Fatalf("a row of %d cells: %s", len(cells), line)
		}
		row := documented{needs: strings.Trim(cells[0], " `")}
		if kind, ok := kinds[row.needs]; ok {
			row.needs = kind
		}
		for i, role := range control.Roles() {
			if strings.TrimSpace(cells[1+i]) == "yes" {
				row.roles = append(row.roles, role)
			}
		}
		operations, _, _ := strings.Cut(cells[5], ":") // what follows is said about them
		for _, id := range code.FindAllStringSubmatch(operations, -1) {
			if _, twice := all[id[1]]; twice {
				t.Errorf("docs/02 has %s twice", id[1])
			}
			all[id[1]] = row
		}
	}
	return all
}

// guarded is an operation with what the OpenAPI document says that it needs.
type guarded struct {
	method, path, needs string
}

func guardedOperations(t *testing.T) map[string]guarded {
	t.Helper()
	document, err := httpapi.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var api struct {
		Paths map[string]map[string]struct {
			OperationID string                `json:"operationId"`
			Security    []map[string][]string `json:"security"`
			Right       string                `json:"x-right"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(document, &api); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]guarded)
	for path, methods := range api.Paths {
		for method, op := range methods {
			g := guarded{method: strings.ToUpper(method), path: path, needs: "nothing"}
			for _, alternative := range op.Security {
				for scheme := range alternative {
					g.needs = scheme
				}
			}
			if g.needs == "operator" {
				g.needs = op.Right
			}
			all[op.OperationID] = g
		}
	}
	return all
}

func TestTheTableOfRightsHasEveryOperation(t *testing.T) {
	table, operations := documentedRights(t), guardedOperations(t)
	if len(operations) < 60 {
		t.Fatalf("only %d operations", len(operations))
	}
	for id, op := range operations {
		row, ok := table[id]
		switch {
		case op.needs == "":
			t.Errorf("%s (%s %s) has no right: nobody may use it; add it to rights", id, op.method, op.path)
		case !ok:
			t.Errorf("%s (%s %s) is not in the table of rights in docs/02", id, op.method, op.path)
		case row.needs != op.needs:
			t.Errorf("%s needs %s, docs/02 says %s", id, op.needs, row.needs)
		}
	}
	for id := range table {
		if _, ok := operations[id]; !ok {
			t.Errorf("docs/02 has rights of %s, which there is not", id)
		}
	}
}

func TestEveryOperationIsForThoseAloneThatTheTableNamesOnBothEngines(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { testMatrix(t, open(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { testMatrix(t, openOn(t, store.Config{URL: storetest.Database(t)})) })
}

// testMatrix asks for every operation with every credential. What is asked for is not
// there, or is no request: it is what comes before that which is looked at.
func testMatrix(t *testing.T, f *fixture) {
	t.Helper()
	table := documentedRights(t)
	owner, err := f.authority.AuthenticateOperator(t.Context(), f.token)
	if err != nil {
		t.Fatal(err)
	}
	others := f.credentials(t)
	type caller struct {
		credential string
		kind       string       // device, gateway or operator; empty: nobody
		role       control.Role // of an operator's token
	}
	callers := map[string]caller{
		"nobody": {}, "a device": {credential: others["device"], kind: "device"}, "a gateway": {credential: others["gateway"], kind: "gateway"},
	}
	for _, role := range control.Roles() {
		made, _, err := f.authority.CreateOperator(t.Context(), "one "+string(role), role, 0, control.Once{})
		if err != nil {
			t.Fatal(err)
		}
		callers["an operator who is "+string(role)] = caller{made.Token, "operator", role}
		_, token, _, err := f.authority.CreateAPIToken(t.Context(), owner, control.NewAPIToken{Role: role}, control.Once{})
		if err != nil {
			t.Fatal(err)
		}
		callers["an owner's token for "+string(role)] = caller{token, "operator", role}
		gone, _, err := f.authority.CreateOperator(t.Context(), "former "+string(role), role, 24*time.Hour, control.Once{})
		if err == nil {
			_, err = f.authority.UpdateOperator(t.Context(), gone.Operator.ID, control.OperatorFields{Disabled: new(true)})
		}
		if err != nil {
			t.Fatal(err)
		}
		callers["a disabled "+string(role)] = caller{credential: gone.Token}
	}
	asked := 0
	operations := guardedOperations(t)
	for _, id := range slices.Sorted(maps.Keys(operations)) {
		op, row := operations[id], table[id]
		path := strings.NewReplacer("{id}", strings.Repeat("0", 36), "{invitation_id}", strings.Repeat("0", 36)).Replace(op.path)
		for name, c := range callers {
			r := httptest.NewRequestWithContext(t.Context(), op.method, f.prefix+path, strings.NewReader(`"no request"`))
			r.Header.Set("Content-Type", "application/json")
			if c.credential != "" {
				r.Header.Set("Authorization", "Bearer "+c.credential)
			}
			w := httptest.NewRecorder()
			f.handler.ServeHTTP(w, r)
			asked++
			var problem struct{ Code string }
			_ = json.Unmarshal(w.Body.Bytes(), &problem) // an answer that is none has no code
			want := ""
			switch row.needs {
			case "nothing":
			case "device", "gateway":
				if c.kind != row.needs {
					want = "invalid_token"
				}
			default:
				if c.kind != "operator" {
					want = "invalid_token"
				} else if !slices.Contains(row.roles, c.role) {
					want = "forbidden"
				}
			}
			got := ""
			switch {
			case w.Code == http.StatusUnauthorized && problem.Code == "invalid_token", w.Code == http.StatusForbidden && problem.Code == "forbidden":
				got = problem.Code
			case w.Code == http.StatusUnauthorized, w.Code == http.StatusForbidden, w.Code >= http.StatusInternalServerError:
				t.Errorf("%s for %s: %d %s", id, name, w.Code, w.Body)
			}
			if got != want {
				t.Errorf("%s for %s: %d %q, want %q", id, name, w.Code, got, want)
			}
		}
	}
	if asked != len(operations)*len(callers) {
		t.Errorf("%d requests", asked)
	}
}

func TestWhoMayNotIsToldWhatItNeeds(t *testing.T) {
	f := open(t)
	made, _, err := f.authority.CreateOperator(t.Context(), "help", control.RoleSupport, 0, control.Once{})
	if err != nil {
		t.Fatal(err)
	}
	w := f.do(t.Context(), http.MethodPost, "/api/v1/admin/plans", `{"name":"x"}`, "Authorization", "Bearer "+made.Token)
	if w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "the role support is not enough: this needs the right manage, which these have: admin, owner") {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	w = f.do(t.Context(), http.MethodGet, "/api/v1/admin/whoami", "", "Authorization", "Bearer "+made.Token)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"role":"support"`) || strings.Contains(w.Body.String(), made.Token) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}
