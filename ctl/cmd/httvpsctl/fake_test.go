package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/httvps/httvps/sdk/go/tlspin"
)

const (
	fakeSecret = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	newSecret  = "BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBB" // of a token that the fake makes
	fakeCode   = "MZXW6YTBOI2DIMRSGQ2DENZXGA"
	fakeNow    = "2026-01-02T03:04:05Z"
	fakePage   = 2 // small, so that lists have pages
)

// fake speaks the admin API as strictly as a service could: it refuses whatever
// it was not told about. Its ids and times are always the same.
type fake struct {
	server *httptest.Server
	pin    tlspin.Pin

	mu          sync.Mutex // guards what follows
	rows        map[string][]object
	created     int
	invitations []object
	answers     map[string]answer // by Idempotency-Key
	codeUsed    bool
}

type object = map[string]any

type answer struct {
	status int
	body   any
}

// schema is what the fake accepts: the fields of a create or an update with
// their defaults, and the parameters that a list can be narrowed by.
type schema struct {
	defaults object
	fixed    object // set by the service alone
	filters  []string
}

var schemas = map[string]schema{
	"users":         {defaults: object{"name": nil, "note": "", "disabled": false}, fixed: object{"created_at": fakeNow}, filters: []string{"name"}},
	"plans":         {defaults: object{"name": nil, "max_devices": 5, "max_sessions": 5, "max_streams": 1000, "max_udp": 100, "duration_days": 30, "quota_bytes": 0, "speed_down_bps": 0, "regions": []string{}, "quota_warnings": []int{}}, filters: []string{"name"}},
	"subscriptions": {defaults: object{"user_id": nil, "plan_id": nil, "starts_at": fakeNow, "ends_at": "2026-06-01T00:00:00Z"}, fixed: object{"status": "active"}, filters: []string{"user_id"}},
	"devices":       {defaults: object{"name": nil}, filters: []string{"user_id"}},
	"regions":       {defaults: object{"code": nil, "name": nil}, filters: []string{"code"}},
	"gateways":      {defaults: object{"name": nil, "region": nil}, fixed: object{"status": "pending", "url": "", "version": "", "sessions": 0}, filters: []string{"region_id"}},
	"tokens":        {defaults: object{"ttl_days": nil, "role": "owner"}, fixed: object{"operator_id": "00000000-0000-7000-8000-0000000000aa", "created_at": fakeNow, "expires_at": "2026-06-01T00:00:00Z"}},
	"sessions":      {filters: []string{"user_id", "device_id", "gateway_id", "state"}},
}

func newFake(tb testing.TB) *fake {
	tb.Helper()
	f := &fake{rows: map[string][]object{}, answers: map[string]answer{}}
	f.server = httptest.NewUnstartedServer(f)
	f.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError) // refused handshakes are on purpose
	f.server.StartTLS()
	tb.Cleanup(f.server.Close)
	f.pin = tlspin.Of(f.server.Certificate())
	user := "00000000-0000-7000-8000-0000000000aa"
	f.rows["devices"] = []object{{
		"id": "00000000-0000-7000-8000-0000000000d1", "user_id": user, "name": "red\u001b[31mphone", "platform": "android",
		"created_at": fakeNow, "last_seen_at": nil, "revoked_at": nil,
	}}
	f.rows["sessions"] = []object{{
		"id": "000000000000000000000000000000f1", "user_id": user, "device_id": "00000000-0000-7000-8000-0000000000d1",
		"gateway_id": "00000000-0000-7000-8000-0000000000e1", "started_at": fakeNow, "ended_at": nil, "reason": "",
	}}
	return f
}

func (f *fake) token() string { return "hvt1." + fakeSecret + "." + f.pin.String() }

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	path, ok := strings.CutPrefix(r.URL.Path, "/api/v1/admin/")
	if !ok {
		w.WriteHeader(http.StatusNotFound) // a bare one, as the real listener's
		return
	}
	a := f.answer(r, strings.Split(path, "/"))
	if a.body == nil {
		w.WriteHeader(a.status)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if a.status >= 400 {
		w.Header().Set("Content-Type", "application/problem+json")
	}
	w.WriteHeader(a.status)
	_ = json.NewEncoder(w).Encode(a.body)
}

func problem(status int, code, detail string, fields ...object) answer {
	return answer{status, object{"status": status, "code": code, "detail": detail, "errors": fields}}
}

func (f *fake) answer(r *http.Request, path []string) answer {
	body := object{}
	if r.Method == http.MethodPost || r.Method == http.MethodPatch {
		text, err := io.ReadAll(r.Body)
		if err != nil || r.Header.Get("Content-Type") != "application/json" || json.Unmarshal(text, &body) != nil {
			return problem(400, "invalid_request", "not a JSON object")
		}
	}
	if path[0] == "bootstrap" {
		return f.bootstrap(r, body)
	}
	if r.Header.Get("Authorization") != "Bearer hvt1."+fakeSecret { // without the pin
		return problem(401, "invalid_token", "unauthorized")
	}
	if path[0] == "whoami" && r.Method == http.MethodGet {
		token := object{"id": "00000000-0000-7000-8000-0000000000bb", "role": "owner", "expires_at": "2026-06-01T00:00:00Z"}
		return answer{200, object{"id": "00000000-0000-7000-8000-0000000000aa", "name": "owner", "role": "owner", "token": token}}
	}
	key := r.Header.Get("Idempotency-Key")
	if before, ok := f.answers[key]; ok && key != "" {
		return before
	}
	a := f.resource(r, path, body)
	if key != "" && a.status < 300 {
		f.answers[key] = a
	}
	return a
}

func (f *fake) bootstrap(r *http.Request, body object) answer {
	switch {
	case r.Header.Get("Authorization") != "" || len(body) != 2:
		return problem(400, "invalid_request", "malformed bootstrap")
	case body["code"] != fakeCode || f.codeUsed:
		return problem(403, "invalid_invitation", "the code is unknown, used or expired")
	}
	f.codeUsed = true
	return answer{201, object{"token": "hvt1." + fakeSecret, "name": body["name"]}}
}

func (f *fake) resource(r *http.Request, path []string, body object) answer {
	noun := path[0]
	s, ok := schemas[noun]
	switch route := r.Method + " " + strconv.Itoa(len(path)); {
	case !ok:
		return problem(404, "not_found", "no such path")
	case route == "GET 1":
		return f.list(r, noun, s)
	case route == "POST 1" && noun != "devices" && noun != "sessions":
		return f.create(r, noun, s, body)
	case len(path) < 2:
		return problem(405, "method_not_allowed", "no such method")
	}
	at := slices.IndexFunc(f.rows[noun], func(o object) bool { return o["id"] == path[1] })
	if at < 0 {
		return problem(404, "not_found", "no such object")
	}
	row := f.rows[noun][at]
	switch route := r.Method + " " + strings.Join(path[2:], "/"); {
	case route == "GET ":
		return answer{200, row}
	case route == "PATCH ":
		if a, ok := check(s, body); !ok {
			return a
		}
		maps.Copy(row, body)
		return answer{200, row}
	case route == "DELETE " && noun != "devices" && noun != "sessions":
		f.rows[noun] = slices.Delete(f.rows[noun], at, at+1)
		return answer{204, nil}
	case route == "POST revoke" && noun == "devices":
		row["revoked_at"] = fakeNow
		return answer{200, row}
	case route == "POST close" && noun == "sessions":
		return answer{200, row} // it is live until its gateway says otherwise
	case route == "GET invitations" && noun == "users":
		return answer{200, object{"items": f.invitations, "next": nil}}
	case strings.HasPrefix(route, "DELETE invitations/") && noun == "users":
		before := len(f.invitations)
		f.invitations = slices.DeleteFunc(f.invitations, func(o object) bool { return o["id"] == path[3] })
		if len(f.invitations) == before {
			return problem(404, "not_found", "no such object")
		}
		return answer{204, nil}
	case route == "POST invitations" && noun == "users" && r.Header.Get("Idempotency-Key") != "":
		expires := "2026-01-03T03:04:05Z"
		if ttl, given := body["ttl_seconds"]; given && ttl != float64(86400) {
			expires = fmt.Sprint("in ", body["ttl_seconds"], " s")
			return problem(422, "invalid_request", "invalid", object{"location": "body.ttl_seconds", "message": "must be 86400, said the fake, and would expire " + expires})
		}
		row := object{"id": f.id(), "created_at": fakeNow, "expires_at": expires, "used_at": nil}
		f.invitations = append(f.invitations, row)
		shown := maps.Clone(row)
		shown["link"] = f.server.URL + "/k3jprefix/join#code=" + fakeCode + ",pin=" + f.pin.String()
		return answer{201, shown}
	}
	return problem(405, "method_not_allowed", "no such method")
}

func (f *fake) list(r *http.Request, noun string, s schema) answer {
	query := r.URL.Query()
	limit, from := fakePage, 0
	rows := slices.Clone(f.rows[noun])
	for name, values := range query {
		switch n, err := strconv.Atoi(values[0]); {
		case name == "limit" && err == nil && n > 0:
			limit = min(limit, n)
		case name == "cursor" && err == nil:
			from = n
		case slices.Contains(s.filters, name):
			rows = slices.DeleteFunc(rows, func(o object) bool { return o[name] != values[0] && name != "state" })
		default:
			return problem(422, "invalid_request", "invalid", object{"location": "query." + name, "message": "not accepted"})
		}
	}
	to := min(from+limit, len(rows))
	var next any
	if to < len(rows) {
		next = strconv.Itoa(to)
	}
	return answer{200, object{"items": slices.Concat([]object{}, rows[from:to]), "next": next}}
}

func (f *fake) create(r *http.Request, noun string, s schema, body object) answer {
	if r.Header.Get("Idempotency-Key") == "" {
		return problem(400, "invalid_request", "no Idempotency-Key")
	}
	if a, ok := check(s, body); !ok {
		return a
	}
	row := maps.Clone(s.defaults)
	maps.Copy(row, s.fixed)
	maps.Copy(row, body)
	for _, name := range []string{"duration_days", "quota_bytes", "speed_down_bps"} {
		if row[name] == 0 || row[name] == 0.0 {
			row[name] = nil
		}
	}
	for name, value := range row {
		if value == nil && s.defaults[name] == nil && name != "id" {
			return problem(422, "invalid_request", "invalid", object{"location": "body." + name, "message": "missing"})
		}
	}
	for _, other := range f.rows[noun] {
		if noun != "subscriptions" && noun != "tokens" && other["name"] == row["name"] {
			return problem(409, "conflict", "the name is taken")
		}
	}
	row["id"] = f.id()
	f.rows[noun] = append(f.rows[noun], row)
	if noun == "tokens" {
		shown := maps.Clone(row)
		shown["token"] = "hvt1." + newSecret + "." + f.pin.String()
		return answer{201, shown}
	}
	if noun == "gateways" {
		shown := maps.Clone(row)
		shown["join"] = f.server.URL + "/gateway-join#code=" + fakeCode + ",pin=" + f.pin.String()
		return answer{201, shown}
	}
	return answer{201, row}
}

func check(s schema, body object) (answer, bool) {
	var fields []object
	for _, name := range slices.Sorted(maps.Keys(body)) {
		value := body[name]
		_, known := s.defaults[name]
		number, isNumber := value.(float64)
		switch {
		case !known:
			fields = append(fields, object{"location": "body." + name, "message": "unknown"})
		case value == "" && name != "note":
			fields = append(fields, object{"location": "body." + name, "message": "must not be empty"})
		case isNumber && number < 1 && name != "duration_days":
			fields = append(fields, object{"location": "body." + name, "message": "must be at least 1"})
		}
	}
	if fields != nil {
		return problem(422, "invalid_request", "invalid", fields...), false
	}
	return answer{}, true
}

func (f *fake) id() string {
	f.created++
	return fmt.Sprintf("00000000-0000-7000-8000-%012d", f.created)
}

// leaks reports whether text holds the token's secret.
func leaks(text []byte) bool { return bytes.Contains(text, []byte(fakeSecret)) }
