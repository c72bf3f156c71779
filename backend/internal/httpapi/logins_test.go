package httpapi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/httpapi"
	"github.com/httvps/httvps/internal/totp"
)

const hisPassword = "Tr0ub4dor and more"

// signs gives the dev operator a password, and returns his app's secret and his
// recovery codes.
func (f *fixture) signs(t *testing.T) (secret []byte, recovery []string) {
	t.Helper()
	secret = totp.NewSecret()
	w := f.do(t.Context(), http.MethodPost, "/api/v1/admin/sign-in", fmt.Sprintf(`{"password":%q,"totp":{"secret":%q,"code":%q}}`,
		hisPassword, totp.FormatSecret(secret), totp.Code(secret, totp.Step(time.Now()))))
	var codes struct {
		RecoveryCodes []string `json:"recovery_codes"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &codes); err != nil || w.Code != http.StatusOK || len(codes.RecoveryCodes) != 10 {
		t.Fatalf("setting a password: %d %s", w.Code, w.Body)
	}
	return secret, codes.RecoveryCodes
}

// ask sends a request without the token of the dev operator.
func (f *fixture) ask(ctx context.Context, method, path, body string, header http.Header) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(ctx, method, "https://vpn.example.net"+f.prefix+"/api/v1/admin"+path, strings.NewReader(body))
	r.Header = header.Clone()
	if r.Header == nil {
		r.Header = make(http.Header)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/json")
	}
	w := httptest.NewRecorder()
	f.handler.ServeHTTP(w, r)
	return w
}

// browser is one in which the dev operator is signed in.
func (f *fixture) browser(t *testing.T, recovery string) (cookies []*http.Cookie, csrf string, id string) {
	t.Helper()
	w := f.ask(t.Context(), http.MethodPost, "/logins", fmt.Sprintf(`{"name":"dev","password":%q,"code":%q,"cookie":true}`, hisPassword, recovery), nil)
	var in struct {
		ID    string `json:"id"`
		CSRF  string `json:"csrf_token"`
		Token string `json:"token"`
	}
	if err := json.Unmarshal(w.Body.Bytes(), &in); err != nil || w.Code != http.StatusOK || in.Token != "" || in.CSRF == "" {
		t.Fatalf("signing in: %d %s", w.Code, w.Body)
	}
	return w.Result().Cookies(), in.CSRF, in.ID
}

func TestABrowserSignsInWithCookiesThatNothingElseGetsHoldOf(t *testing.T) {
	f := open(t)
	_, recovery := f.signs(t)
	cookies, csrf, id := f.browser(t, recovery[0])
	if len(cookies) != 2 {
		t.Fatalf("cookies: %v", cookies)
	}
	header := make(http.Header)
	for _, c := range cookies {
		if !strings.HasPrefix(c.Name, "__Host-httvps") || !c.HttpOnly || !c.Secure || c.SameSite != http.SameSiteStrictMode || c.Path != "/" || c.Domain != "" || c.MaxAge < 1 {
			t.Errorf("a cookie: %v", c)
		}
		header.Add("Cookie", c.Name+"="+c.Value)
	}
	with := func(add ...string) http.Header {
		h := header.Clone()
		for i := 0; i < len(add); i += 2 {
			h.Set(add[i], add[i+1])
		}
		return h
	}
	w := f.ask(t.Context(), http.MethodGet, "/whoami", "", header)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"login":true`) || !strings.Contains(w.Body.String(), csrf) {
		t.Errorf("whoami: %d %s", w.Code, w.Body)
	}
	for what, tc := range map[string]struct {
		header http.Header
		want   int
		code   string
	}{
		"without the header":             {with(), http.StatusForbidden, "cross_origin"},
		"with another":                   {with("X-CSRF-Token", strings.Repeat("A", 43)), http.StatusForbidden, "cross_origin"},
		"with it":                        {with("X-CSRF-Token", csrf), http.StatusCreated, ""},
		"from its own page":              {with("X-CSRF-Token", csrf, "Sec-Fetch-Site", "same-origin", "Origin", "https://vpn.example.net"), http.StatusCreated, ""},
		"from another site":              {with("X-CSRF-Token", csrf, "Sec-Fetch-Site", "cross-site"), http.StatusForbidden, "cross_origin"},
		"from a site beside it":          {with("X-CSRF-Token", csrf, "Sec-Fetch-Site", "same-site"), http.StatusForbidden, "cross_origin"},
		"from another origin":            {with("X-CSRF-Token", csrf, "Origin", "https://evil.example"), http.StatusForbidden, "cross_origin"},
		"with a wrong token beside it":   {with("X-CSRF-Token", csrf, "Authorization", "Bearer hvt1."+strings.Repeat("A", 43)), http.StatusUnauthorized, "invalid_token"},
		"with the cookie's as the token": {http.Header{"Authorization": {"Bearer " + cookies[0].Value}}, http.StatusUnauthorized, "invalid_token"},
		"with an API token as a cookie":  {http.Header{"Cookie": {"__Host-httvps=" + f.token}, "X-Csrf-Token": {csrf}}, http.StatusUnauthorized, "invalid_token"},
	} {
		w := f.ask(t.Context(), http.MethodPost, "/users", fmt.Sprintf(`{"name":%q}`, what), tc.header)
		if w.Code != tc.want || !strings.Contains(w.Body.String(), tc.code) {
			t.Errorf("%s: %d %s, want %d %s", what, w.Code, w.Body, tc.want, tc.code)
		}
	}
	w = f.ask(t.Context(), http.MethodDelete, "/logins/"+id, "", with("X-CSRF-Token", csrf))
	if gone := w.Result().Cookies(); w.Code != http.StatusNoContent || len(gone) != 1 || gone[0].Name != "__Host-httvps" || gone[0].MaxAge >= 0 {
		t.Errorf("ending it: %d %s %v", w.Code, w.Body, gone)
	}
	if w := f.ask(t.Context(), http.MethodGet, "/whoami", "", header); w.Code != http.StatusUnauthorized {
		t.Errorf("after its end: %d", w.Code)
	}
}

// Pages of others neither send anything that counts nor read an answer.
func TestTheAPIIsClosedToOtherOrigins(t *testing.T) {
	f := open(t)
	for id, op := range guardedOperations(t) {
		if !strings.HasPrefix(op.path, "/api/v1/admin/") {
			continue
		}
		path := strings.NewReplacer("{id}", strings.Repeat("0", 36), "{invitation_id}", strings.Repeat("0", 36)).Replace(strings.TrimPrefix(op.path, "/api/v1/admin"))
		evil := http.Header{"Origin": {"https://evil.example"}, "Sec-Fetch-Site": {"cross-site"}, "Access-Control-Request-Method": {op.method}}
		for _, method := range []string{op.method, http.MethodOptions} {
			w := f.ask(t.Context(), method, path, `{}`, evil)
			for name := range w.Header() {
				if strings.HasPrefix(name, "Access-Control-") {
					t.Errorf("%s of %s answers with %s", method, id, name)
				}
			}
			if method == http.MethodOptions && w.Code != http.StatusMethodNotAllowed {
				t.Errorf("OPTIONS of %s: %d", id, w.Code)
			}
			if method == op.method && method != http.MethodGet && !strings.Contains(w.Body.String(), "cross_origin") {
				t.Errorf("%s from another origin: %d %s", id, w.Code, w.Body)
			}
		}
	}
}

// Strangers behind an operator's own address use up what it may fail, and he gets in
// from where he was before.
func TestWhoIsKnownIsNotHeldUpByOthersAtHisAddress(t *testing.T) {
	f := open(t)
	secret, recovery := f.signs(t)
	handlers, err := httpapi.New(httpapi.Options{
		Authority: f.authority, Hub: f.hub, Log: slog.New(slog.NewTextHandler(f.log, nil)), Observer: quiet{}, Metrics: http.NotFoundHandler(),
		Ready: f.records.Ping, RefusalsPerMinute: 5,
	})
	if err != nil {
		t.Fatal(err)
	}
	f.handler = handlers.Public
	login := func(password, code, client string) (int, string, string) {
		t.Helper()
		w := f.ask(t.Context(), http.MethodPost, "/logins", fmt.Sprintf(`{"name":"dev","password":%q,"code":%q,"client":%q}`, password, code, client), nil)
		var in struct{ Token, Client, Code string }
		if err := json.Unmarshal(w.Body.Bytes(), &in); err != nil {
			t.Fatal(err)
		}
		return w.Code, in.Code + in.Token, in.Client
	}
	status, token, client := login(hisPassword, recovery[0], "")
	if status != http.StatusOK || !strings.HasPrefix(token, "hvt1.") || len(client) != 43 {
		t.Fatalf("signing in: %d %s", status, token)
	}
	if w := f.ask(t.Context(), http.MethodGet, "/logins", "", http.Header{"Authorization": {"Bearer " + token}}); !strings.Contains(w.Body.String(), `"current":true`) ||
		!strings.Contains(w.Body.String(), `"address":"192.0.2.1"`) {
		t.Errorf("the list: %d %s", w.Code, w.Body)
	}
	for n := 1; ; n++ {
		status, code, _ := login("guess "+fmt.Sprint(n), "x00000", "")
		if status == http.StatusTooManyRequests {
			break
		}
		if status != http.StatusForbidden || code != "invalid_login" || n > 100 {
			t.Fatalf("guess %d: %d %s", n, status, code)
		}
	}
	if status, _, _ := login(hisPassword, recovery[1], ""); status != http.StatusTooManyRequests {
		t.Errorf("a stranger at this address: %d", status)
	}
	if status, code, again := login(hisPassword, recovery[1], client); status != http.StatusOK || again != "" {
		t.Errorf("who is known: %d %s", status, code)
	}
	if strings.Contains(f.log.String(), hisPassword) || strings.Contains(f.log.String(), totp.FormatSecret(secret)) || strings.Contains(f.log.String(), client) {
		t.Error("the log has a secret")
	}
}

func TestAnOperatorsLinkIsRedeemedOverTheAPI(t *testing.T) {
	f := open(t)
	w := f.do(t.Context(), http.MethodPost, "/api/v1/admin/operators", `{"name":"ann","role":"support"}`)
	var made struct{ ID, Link string }
	if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil {
		t.Fatal(err)
	}
	w = f.do(t.Context(), http.MethodPost, "/api/v1/admin/operators/"+made.ID+"/invitation", "")
	if err := json.Unmarshal(w.Body.Bytes(), &made); err != nil || w.Code != http.StatusOK {
		t.Fatalf("%d %s", w.Code, w.Body)
	}
	_, code, _ := strings.Cut(made.Link, "#code=")
	secret := totp.NewSecret()
	accept := func(password string) *httptest.ResponseRecorder {
		return f.ask(t.Context(), http.MethodPost, "/sign-in/accept", fmt.Sprintf(`{"code":%q,"password":%q,"totp":{"secret":%q,"code":%q}}`,
			code, password, totp.FormatSecret(secret), totp.Code(secret, totp.Step(time.Now()))), nil)
	}
	if w := accept("aaaaaaaaaaaaaaaa"); w.Code != http.StatusUnprocessableEntity || !strings.Contains(w.Body.String(), "body.password") || strings.Contains(w.Body.String(), "aaaa") {
		t.Errorf("a bad password: %d %s", w.Code, w.Body)
	}
	w = accept(hisPassword)
	if w.Code != http.StatusOK || !strings.Contains(w.Body.String(), `"role":"support"`) || !strings.Contains(w.Body.String(), `"recovery_codes":[`) {
		t.Errorf("accepting: %d %s", w.Code, w.Body)
	}
	if w := accept(hisPassword); w.Code != http.StatusForbidden || !strings.Contains(w.Body.String(), "invalid_invitation") {
		t.Errorf("again: %d %s", w.Code, w.Body)
	}
}
