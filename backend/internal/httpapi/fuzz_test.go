package httpapi_test

import (
	"cmp"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/events"
	"github.com/httvps/httvps/backend/internal/httpapi"
	"github.com/httvps/httvps/backend/internal/password"
	"github.com/httvps/httvps/backend/internal/seal"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
	"github.com/httvps/httvps/internal/ticket"
)

func TestMain(m *testing.M) { storetest.Main(m) }

type quiet struct{}

func (quiet) Request(string, int, time.Duration) {}
func (quiet) Decision(string)                    {}
func (quiet) Enrolment(string)                   {}
func (quiet) Usage(string)                       {}
func (quiet) UsageLag(time.Duration)             {}
func (quiet) Exit(string)                        {}
func (quiet) OutlineFailure(string)              {}
func (quiet) OutlineProbe(string)                {}
func (quiet) Streams(int)                        {}
func (quiet) StreamEnded(string)                 {}
func (quiet) EventSent(string, time.Duration)    {}
func (quiet) QuotaLease(string)                  {}
func (quiet) QuotaReached(bool)                  {}
func (quiet) Login(string)                       {}
func (quiet) Woken(string)                       {}
func (quiet) Announced(bool)                     {}

// fixture is the whole API without sockets.
type fixture struct {
	handler   http.Handler
	prefix    string
	token     string
	assertion string
	log       *strings.Builder
	records   *store.Store
	hub       *events.Hub
	authority *control.Authority
	invite    string // link
	unseal    func(sealed []byte, place string) ([]byte, error)
	// The gateway that makes the assertion.
	gatewayID  string
	gatewayKey ed25519.PrivateKey
	// there has the id of an object of each kind, by what lists of them are called.
	there map[string]string
}

// furnish makes an object of each kind, so that what is sent gets further than to
// the question whether there is one.
func (f *fixture) furnish(t *testing.T) {
	t.Helper()
	f.there = make(map[string]string)
	add := func(kind, body string) {
		w := f.do(t.Context(), http.MethodPost, "/api/v1/admin/"+kind, body)
		var object struct {
			ID string `json:"id"`
		}
		if err := json.Unmarshal(w.Body.Bytes(), &object); err != nil || w.Code != http.StatusCreated {
			t.Fatalf("%s: %d %s", kind, w.Code, w.Body)
		}
		f.there[kind[strings.LastIndexByte(kind, '/')+1:]] = object.ID
	}
	add("users", `{"name":"furniture"}`)
	add("plans", `{"name":"furniture","quota_bytes":1048576,"quota_period":"day"}`)
	add("subscriptions", fmt.Sprintf(`{"user_id":%q,"plan_id":%q}`, f.there["users"], f.there["plans"]))
	add("users/"+f.there["users"]+"/invitations", `{}`)
	add("regions", `{"code":"furniture"}`)
	add("gateways", `{"name":"furniture","region":"furniture"}`)
	add("outline-servers", `{"region":"local","access_key":"ss://aes-256-gcm:secret@furniture.example:443"}`)
	add("tokens", `{}`)
	device, key := f.enrol(t)
	session := strings.Repeat("a", 32)
	decided, err := f.authority.Decide(t.Context(), control.Gateway{ID: f.gatewayID, Region: "local"}, control.SessionRequest{
		SessionID: session, DeviceID: device, KeyThumbprint: ticket.Thumbprint(public(key)), Generation: 1, BootID: "b",
	})
	if err != nil || decided.Reason != "" {
		t.Fatalf("a session: %+v, %v", decided, err)
	}
	f.there["devices"], f.there["sessions"] = device, session
}

// id draws the id of an object of a kind, mostly of one that is there.
func (f *fixture) id(kind string) *rapid.Generator[string] {
	wild := rapid.OneOf(rapid.StringMatching(`[0-9a-f-]{36}|[0-9a-f]{32}`), rapid.Map(rapid.String(), url.PathEscape))
	if f.there[kind] == "" {
		return wild
	}
	return rapid.OneOf(rapid.Just(f.there[kind]), rapid.Just(f.there[kind]), wild)
}

// kinds are what the objects are called that members of bodies name.
var kinds = map[string]string{
	"user_id": "users", "plan_id": "plans", "device_id": "devices", "session_id": "sessions", "subscription_id": "subscriptions",
	"server_id": "outline-servers", "replace": "devices",
}

func open(t *testing.T) *fixture {
	t.Helper()
	return openOn(t, store.Config{Path: filepath.Join(t.TempDir(), "x.db")})
}

// openOn is open with the records elsewhere.
func openOn(t *testing.T, where store.Config) *fixture {
	t.Helper()
	return openOver(t, where, func(records control.Store) control.Store { return records })
}

// openOver is openOn with something between the service and its records.
func openOver(t *testing.T, where store.Config, between func(control.Store) control.Store) *fixture {
	t.Helper()
	dir := t.TempDir()
	records, err := store.Open(t.Context(), where)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = records.Close() }) // a test may have closed it
	key, err := seal.Open(seal.Source{File: filepath.Join(dir, "kek"), Make: true})
	if err != nil {
		t.Fatal(err)
	}
	authority, err := control.Open(t.Context(), control.Options{
		Store: between(records), Sealer: key, Passwords: password.New(password.Cost{Passes: 1, Memory: 8}), Now: time.Now, ServiceName: "Test", PublicURL: "https://vpn.example.net", Heartbeat: 5 * time.Second,
		KnockCookie: "sid", KnockRotation: 7 * 24 * time.Hour,
	})
	if err != nil {
		t.Fatal(err)
	}
	access, err := authority.OpenDev(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	link, err := authority.OpenLocalGateway(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seed := sha256.Sum256([]byte("gateway"))
	gatewayKey := ed25519.NewKeyFromSeed(seed[:])
	public := gatewayKey.Public().(ed25519.PublicKey)
	code, nonce := link[strings.Index(link, "code=")+len("code="):], authority.Challenge()
	hash := sha256.Sum256([]byte(code))
	gateway, _, err := authority.JoinGateway(t.Context(), control.Join{
		Code: code, PublicKey: public, URL: "wss://gw.example.net/t", Proof: control.Proof{
			Nonce:     nonce,
			Signature: ed25519.Sign(gatewayKey, slices.Concat([]byte("HTTVPS1 join\x00"), hash[:], public, nonce)),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	f := &fixture{
		prefix: "/" + authority.Identity().Prefix, token: access.Token, log: &strings.Builder{}, records: records, authority: authority,
		invite: access.Invite, unseal: key.Open, gatewayID: gateway.ID, gatewayKey: gatewayKey,
	}
	if f.assertion, err = ticket.SignAssertion(gatewayKey, gateway.ID, time.Now()); err != nil {
		t.Fatal(err)
	}
	f.hub = events.NewHub(events.Options{Log: authority, Observer: quiet{}, Logger: slog.New(slog.DiscardHandler)})
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- f.hub.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	handlers, err := httpapi.New(httpapi.Options{
		Authority: authority, Hub: f.hub, Log: slog.New(slog.NewTextHandler(f.log, nil)), Observer: quiet{}, Metrics: http.NotFoundHandler(),
		Ready: records.Ping, RefusalsPerMinute: 6000,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.handler = handlers.Public
	return f
}

func (f *fixture) do(ctx context.Context, method, path, body string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, method, f.prefix+path, strings.NewReader(body))
	r.Header.Set("Content-Type", "application/json")
	credential := f.token
	if ofGateways(path) {
		credential = f.assertion
	}
	r.Header.Set("Authorization", "Bearer "+credential)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return w
}

// ofGateways reports whether a path is for gateways.
func ofGateways(path string) bool {
	return slices.ContainsFunc([]string{
		"/api/v1/gateway/", "/api/v1/usage/", "/api/v1/quota/", "/api/v1/auth/validate-device", "/api/v1/nodes/", "/api/v1/outline/",
	}, func(prefix string) bool { return strings.HasPrefix(path, prefix) })
}

// operation is one that the OpenAPI document describes.
type operation struct {
	method, path string
	fields       []field
}

// field is a member of an operation's body, as the document describes it.
type field struct {
	name      string
	Type      any    `json:"type"`
	Format    string `json:"format"`
	Pattern   string `json:"pattern"`
	MinLength int    `json:"minLength"`
	MaxLength *int   `json:"maxLength"`
	Minimum   *int   `json:"minimum"`
	Maximum   *int   `json:"maximum"`
	Enum      []any  `json:"enum"`
	Items     struct {
		Type string `json:"type"`
	} `json:"items"`
}

// valid draws a value that the document allows.
func (f field) valid() *rapid.Generator[any] {
	kind := fmt.Sprint(f.Type) // a list when null is allowed too
	switch {
	case f.name == "url":
		return rapid.SampledFrom([]any{"wss://a.example/t", "wss://[::1]:1/t", "https://a/t"})
	case f.Format == "date-time":
		return rapid.SampledFrom([]any{"2026-01-01T00:00:00Z", "2030-01-01T00:00:00.5+05:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"})
	case len(f.Enum) > 0:
		return rapid.SampledFrom(f.Enum)
	case f.name == "leases":
		return rapid.Custom(func(t *rapid.T) any {
			number := rapid.OneOf(rapid.Int64(), rapid.Int64Range(0, 100))
			return []any{map[string]any{
				"subscription_id": rapid.StringMatching("[0-9a-f-]{36}").Draw(t, "subscription"), "used": number.Draw(t, "used"),
				"version": number.Draw(t, "version"), "hold": number.Draw(t, "hold"),
			}}
		})
	case f.Items.Type == "string":
		return rapid.SampledFrom([]any{[]string{}, []string{"local"}, []string{"local", "x"}})
	case f.Items.Type == "integer":
		return rapid.SampledFrom([]any{[]int{}, []int{50, 90}, []int{100}})
	case strings.Contains(kind, "integer"):
		return rapid.Map(rapid.IntRange(*f.Minimum, cmp.Or(deref(f.Maximum), 1000)), func(n int) any { return n })
	case strings.Contains(kind, "boolean"):
		return rapid.SampledFrom([]any{true, false})
	case f.name == "reports":
		return rapid.Custom(func(t *rapid.T) any {
			number := rapid.OneOf(rapid.Uint64(), rapid.Uint64Range(0, 100))
			return []any{map[string]any{
				"boot_id": "b", "session_id": strings.Repeat(rapid.StringMatching("[a-c]").Draw(t, "session"), 32),
				"sequence": number.Draw(t, "sequence"), "up": number.Draw(t, "up"), "down": number.Draw(t, "down"),
				"at": rapid.SampledFrom([]any{"2026-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z"}).Draw(t, "at"),
			}}
		})
	case f.name == "access_key":
		return rapid.Map(rapid.StringMatching("[a-z0-9]{1,9}"), func(s string) any {
			return "ss://aes-256-gcm:" + s + "@" + s + ".example:443/?outline=1"
		})
	case f.name == "region":
		return rapid.SampledFrom([]any{"local", "x"})
	case f.name == "failure":
		return rapid.SampledFrom([]any{"connect", "timeout", "reset", "corrupt", "other"})
	case f.name == "results":
		return rapid.SampledFrom([]any{[]any{}, []any{map[string]any{"server_id": strings.Repeat("a", 36), "failure": "reset"}}})
	case strings.Contains(kind, "array"):
		return rapid.SampledFrom([]any{[]any{}, []any{map[string]any{"session_id": strings.Repeat("a", 32), "reason": "x"}}})
	}
	class, limit := ".", min(deref(f.MaxLength), f.MinLength+20)
	if inner, ok := strings.CutSuffix(strings.TrimPrefix(f.Pattern, "^"), "*$"); ok {
		class = inner
	}
	return rapid.Map(rapid.StringMatching(fmt.Sprintf("%s{%d,%d}", class, f.MinLength, limit)), func(s string) any { return s })
}

func deref(n *int) int {
	if n == nil {
		return 0
	}
	return *n
}

func operations(t *testing.T) []operation {
	t.Helper()
	document, err := httpapi.OpenAPI()
	if err != nil {
		t.Fatal(err)
	}
	var api struct {
		Paths map[string]map[string]struct {
			RequestBody struct {
				Content map[string]struct {
					Schema struct {
						Ref string `json:"$ref"`
					} `json:"schema"`
				} `json:"content"`
			} `json:"requestBody"`
		} `json:"paths"`
		Components struct {
			Schemas map[string]struct {
				Properties map[string]field `json:"properties"`
			} `json:"schemas"`
		} `json:"components"`
	}
	if err := json.Unmarshal(document, &api); err != nil {
		t.Fatal(err)
	}
	var all []operation
	for path, methods := range api.Paths {
		for method, op := range methods {
			o := operation{method: strings.ToUpper(method), path: path}
			ref := op.RequestBody.Content["application/json"].Schema.Ref
			for name, f := range api.Components.Schemas[ref[strings.LastIndexByte(ref, '/')+1:]].Properties {
				f.name = name
				o.fields = append(o.fields, f)
			}
			slices.SortFunc(o.fields, func(a, b field) int { return strings.Compare(a.name, b.name) })
			all = append(all, o)
		}
	}
	// In an order that a failure can be reproduced in.
	slices.SortFunc(all, func(a, b operation) int { return strings.Compare(a.method+a.path, b.method+b.path) })
	if len(all) < 40 {
		t.Fatalf("only %d operations", len(all))
	}
	return all
}

// value draws a JSON value, most of them nearly what some field wants.
func value() *rapid.Generator[any] {
	return rapid.OneOf(
		rapid.Map(rapid.String(), func(s string) any { return s }),
		rapid.Map(rapid.StringMatching(`[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-8[0-9a-f]{3}-[0-9a-f]{12}`), func(s string) any { return s }),
		rapid.Map(rapid.StringMatching(`[A-Z2-7]{26}|[A-Za-z0-9_-]{43}|[A-Za-z0-9_-]{86}|[0-9a-f]{32}`), func(s string) any { return s }),
		rapid.Map(rapid.StringMatching(`wss?://[a-z%:\[\]]{0,9}(/[a-z]*)?`), func(s string) any { return s }),
		rapid.Map(rapid.Int64(), func(n int64) any { return n }),
		rapid.Map(rapid.IntRange(-2, 70000), func(n int) any { return n }),
		rapid.Map(rapid.Float64Range(-1e300, 1e300), func(n float64) any { return n }),
		rapid.SampledFrom([]any{
			nil, true, false, "", " ", "\x00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "2026-01-01T00:00:00+23:59", "here",
			[]any{},
			[]any{nil},
			map[string]any{},
			[]any{map[string]any{"session_id": strings.Repeat("a", 32), "reason": "x"}},
			json.Number("1e999"), json.Number("123456789012345678901234567890"),
		}),
	)
}

func TestNothingThatIsSentMakesTheServiceFailOnBothEngines(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) { testNothingFails(t, open(t)) })
	t.Run("PostgreSQL", func(t *testing.T) { testNothingFails(t, openOn(t, store.Config{URL: storetest.Database(t)})) })
}

func testNothingFails(t *testing.T, f *fixture) {
	t.Helper()
	f.furnish(t)
	var withoutBody []operation
	accepted := 0 // operations that took a body
	for _, op := range operations(t) {
		if len(op.fields) == 0 {
			withoutBody = append(withoutBody, op)
			continue
		}
		took := false
		t.Run(op.method+" "+op.path, func(t *testing.T) {
			rapid.Check(t, func(rt *rapid.T) {
				if f.send(t.Context(), rt, op) < http.StatusBadRequest {
					took = true
				}
			})
		})
		if took {
			accepted++
		}
	}
	if accepted < 15 {
		t.Errorf("only %d operations took a body: what is sent is too wild to get anywhere", accepted)
	}
	rapid.Check(t, func(rt *rapid.T) {
		f.send(t.Context(), rt, rapid.SampledFrom(withoutBody).Draw(rt, "operation"))
	})
}

// send sends something drawn to an operation, and returns the status after it
// has seen that the answer is not a failure.
func (f *fixture) send(ctx context.Context, rt *rapid.T, op operation) int {
	path := op.path
	for strings.Contains(path, "{") {
		before, rest, _ := strings.Cut(path, "{")
		_, after, _ := strings.Cut(rest, "}")
		kind := strings.TrimSuffix(before, "/")
		path = before + f.id(kind[strings.LastIndexByte(kind, '/')+1:]).Draw(rt, "id") + after
	}
	if rapid.IntRange(0, 9).Draw(rt, "with query") == 0 {
		name := rapid.SampledFrom([]string{"limit", "cursor", "state", "user_id", "name", "x"}).Draw(rt, "parameter")
		path += "?" + name + "=" + url.QueryEscape(rapid.String().Draw(rt, "argument"))
	}
	body := rapid.String().Draw(rt, "text")
	if len(op.fields) > 0 && rapid.IntRange(0, 9).Draw(rt, "as text") > 0 {
		body = op.draw(rt, f)
	}
	w := f.do(ctx, op.method, path, body, "Idempotency-Key", rapid.StringMatching(`[a-c]?`).Draw(rt, "key"))
	if w.Code >= http.StatusInternalServerError {
		rt.Fatalf("%s %s with %s: %d %s\n%s", op.method, path, body, w.Code, w.Body, f.log)
	}
	if w.Code >= http.StatusBadRequest {
		var p httpapi.Problem
		if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil || p.Code == "" || p.Status != w.Code ||
			w.Header().Get("Content-Type") != "application/problem+json" {
			rt.Fatalf("%s %s: %d is no problem: %s", op.method, path, w.Code, w.Body)
		}
	}
	return w.Code
}

// draw draws a body, most members of which are as the document wants them.
func (o operation) draw(rt *rapid.T, f *fixture) string {
	object := make(map[string]any)
	for _, field := range o.fields {
		switch n := rapid.IntRange(0, 19).Draw(rt, "kind"); {
		case n == 0: // absent
		case n == 1:
			object[field.name] = value().Draw(rt, field.name)
		case n > 5 && f.there[kinds[field.name]] != "":
			object[field.name] = f.there[kinds[field.name]]
		default:
			object[field.name] = field.valid().Draw(rt, field.name)
		}
	}
	data, err := json.Marshal(object)
	if err != nil { // a number that JSON cannot write
		return "{}"
	}
	return string(data)
}

func TestAllMistakesAreToldAtOnce(t *testing.T) {
	f := open(t)
	w := f.do(t.Context(), http.MethodPost, "/api/v1/admin/plans", `{"name":"","max_devices":0,"max_streams":"many","colour":"red"}`)
	var p httpapi.Problem
	if err := json.Unmarshal(w.Body.Bytes(), &p); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]bool)
	for _, field := range p.Errors {
		got[field.Location] = true
	}
	for _, want := range []string{"body.name", "body.max_devices", "body.max_streams", "body.colour"} {
		if !got[want] {
			t.Errorf("%s is not mentioned: %s", want, w.Body)
		}
	}
	if w.Code != http.StatusUnprocessableEntity || p.Code != "invalid_request" {
		t.Errorf("answer is %d %s", w.Code, p.Code)
	}
}

func TestARepeatedRequestActsOnce(t *testing.T) {
	f := open(t)
	const body = `{"name":"ann"}`
	first := f.do(t.Context(), http.MethodPost, "/api/v1/admin/users", body, "Idempotency-Key", "k1")
	again := f.do(t.Context(), http.MethodPost, "/api/v1/admin/users", body, "Idempotency-Key", "k1")
	if first.Code != http.StatusCreated || again.Code != http.StatusCreated || first.Body.String() != again.Body.String() {
		t.Errorf("repeated: %d %s, first %d %s", again.Code, again.Body, first.Code, first.Body)
	}
	if first.Header().Get("Idempotency-Replayed") != "" || again.Header().Get("Idempotency-Replayed") != "true" {
		t.Errorf("Idempotency-Replayed is %q and %q", first.Header().Get("Idempotency-Replayed"), again.Header().Get("Idempotency-Replayed"))
	}
	for name, w := range map[string]*httptest.ResponseRecorder{
		"another body":      f.do(t.Context(), http.MethodPost, "/api/v1/admin/users", `{"name":"bob"}`, "Idempotency-Key", "k1"),
		"another operation": f.do(t.Context(), http.MethodPost, "/api/v1/admin/plans", body, "Idempotency-Key", "k1"),
	} {
		if w.Code != http.StatusConflict || !strings.Contains(w.Body.String(), "idempotency_key_reused") {
			t.Errorf("%s under the same key: %d %s", name, w.Code, w.Body)
		}
	}
	if w := f.do(t.Context(), http.MethodPost, "/api/v1/admin/users", body); w.Code != http.StatusConflict {
		t.Errorf("without the key: %d %s, want a conflict about the name", w.Code, w.Body)
	}

	var user httpapi.User
	if err := json.Unmarshal(first.Body.Bytes(), &user); err != nil {
		t.Fatal(err)
	}
	invite := func() httpapi.NewInvitation {
		w := f.do(t.Context(), http.MethodPost, "/api/v1/admin/users/"+user.ID+"/invitations", `{}`, "Idempotency-Key", "k2")
		var invitation httpapi.NewInvitation
		if err := json.Unmarshal(w.Body.Bytes(), &invitation); err != nil || w.Code != http.StatusCreated {
			t.Fatalf("invite: %d %s", w.Code, w.Body)
		}
		return invitation
	}
	made, replayed := invite(), invite()
	if made.Link == "" || replayed.Link != "" || made.ID != replayed.ID {
		t.Errorf("an invitation and its repetition: %+v, %+v, want the link once", made, replayed)
	}
}

func TestReadinessTellsTheTruthAboutTheDatabase(t *testing.T) {
	f := open(t)
	ready := func() (int, string) {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", nil)
		w := httptest.NewRecorder()
		f.handler.ServeHTTP(w, r)
		return w.Code, w.Body.String()
	}
	if status, text := ready(); status != http.StatusOK {
		t.Errorf("readyz = %d %s", status, text)
	}
	if err := f.records.Close(); err != nil {
		t.Fatal(err)
	}
	if status, text := ready(); status != http.StatusServiceUnavailable {
		t.Errorf("readyz without a database = %d %s", status, text)
	}
	if w := f.do(t.Context(), http.MethodGet, "/api/v1/admin/users", ""); w.Code != http.StatusInternalServerError ||
		strings.Contains(w.Body.String(), "sql") || !strings.Contains(f.log.String(), "sql") {
		t.Errorf("a broken database gives %d %s, want an internal error whose cause is only in the log", w.Code, w.Body)
	}
}

func TestABodyThatIsTooLargeOrNotJSONIsRefused(t *testing.T) {
	f := open(t)
	for name, tc := range map[string]struct {
		body, contentType string
		status            int
	}{
		"64 KiB":      {`{"name":"` + strings.Repeat("a", 64<<10) + `"}`, "application/json", http.StatusRequestEntityTooLarge},
		"a form":      {"name=ann", "application/x-www-form-urlencoded", http.StatusUnsupportedMediaType},
		"nothing":     {"", "application/json", http.StatusBadRequest},
		"two objects": {`{"name":"a"}{"name":"b"}`, "application/json", http.StatusBadRequest},
		"half of one": {`{"name":"a`, "application/json", http.StatusBadRequest},
		"a list":      {`[]`, "application/json", http.StatusUnprocessableEntity},
	} {
		t.Run(name, func(t *testing.T) {
			w := f.do(t.Context(), http.MethodPost, "/api/v1/admin/users", tc.body, "Content-Type", tc.contentType)
			if w.Code != tc.status {
				t.Errorf("answer is %d %s, want %d", w.Code, w.Body, tc.status)
			}
		})
	}
}
