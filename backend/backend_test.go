package backend_test

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/internal/ticket"
)

func TestADeviceLivesFromItsInvitationToItsRevocation(t *testing.T) {
	s := start(t, dataDir(t), dev)
	gw := s.newGateway()
	d := s.enrol(s.ready.Invite)

	var token struct {
		AccessToken string `json:"access_token"`
		TokenType   string `json:"token_type"`
		ExpiresIn   int    `json:"expires_in"`
		Gateways    []any  `json:"gateways"`
		Knock       struct{ Cookie, Key string }
	}
	d.tryToken().want(http.StatusOK, "").into(&token)
	if token.TokenType != "Bearer" || token.ExpiresIn != 3600 || len(token.Gateways) != 0 {
		t.Errorf("token answer is %+v, want a Bearer token for an hour and no gateway, for none has reported", token)
	}

	// What a gateway knows is enough to verify what a device shows it.
	var config struct {
		ServiceID string      `json:"service_id"`
		Issuer    string      `json:"issuer"`
		Region    string      `json:"region"`
		JWKS      ticket.JWKS `json:"jwks"`
		Knock     struct {
			Cookie string
			Keys   []string
		}
	}
	s.get("/api/v1/gateway/config", gw.credential()).want(http.StatusOK, "").into(&config)
	claims, err := ticket.NewVerifier(config.Issuer, config.ServiceID, config.JWKS).Verify(token.AccessToken)
	if err != nil || claims.Device != d.id || claims.KeyThumbprint != ticket.Thumbprint(publicOf(d.key)) || config.Region != "here" {
		t.Errorf("Verify = %+v, %v for device %s", claims, err, d.id)
	}
	if k := config.Knock; k.Cookie != "sid" || token.Knock.Cookie != k.Cookie || len(k.Keys) != 1 || len(k.Keys[0]) != 43 || token.Knock.Key != k.Keys[0] {
		t.Errorf("a device knocks with %q, gateways know %q", token.Knock, k)
	}
	var published ticket.JWKS
	s.get("/.well-known/jwks.json", "").want(http.StatusOK, "").into(&published)
	if len(published.Keys) != 1 || published.Keys[0].ID != config.JWKS.Keys[0].ID {
		t.Errorf("the published key set %v is not the gateway's %v", published, config.JWKS)
	}

	if beat := gw.heartbeat(); beat.IntervalMS != 5000 || len(beat.Close) != 0 {
		t.Errorf("heartbeat = %+v, want 5 s and nothing to close", beat)
	}
	var list struct {
		Gateways []struct{ ID, Region, URL string } `json:"gateways"`
	}
	s.get("/api/v1/gateways", token.AccessToken).want(http.StatusOK, "").into(&list)
	if len(list.Gateways) != 1 || list.Gateways[0].ID != gw.id || list.Gateways[0].URL != "wss://gw.example.net/tunnel" {
		t.Errorf("gateways = %+v, want the one that reported", list)
	}

	session := newSessionID()
	for range 2 { // a lost answer is asked for again and counts once
		got := gw.validate(session, d)
		if !got.Allowed || got.Limits == nil || got.Limits.MaxStreams != 1024 || got.ExpiresAt != nil {
			t.Fatalf("decision = %+v, want a session without end", got)
		}
	}
	var sessions struct {
		Items []struct {
			ID   string `json:"id"`
			Live bool   `json:"live"`
		} `json:"items"`
	}
	s.admin(http.MethodGet, "/sessions", nil).want(http.StatusOK, "").into(&sessions)
	if len(sessions.Items) != 1 || sessions.Items[0].ID != session || !sessions.Items[0].Live {
		t.Errorf("live sessions = %+v, want the one", sessions)
	}

	s.admin(http.MethodPost, "/devices/"+d.id+"/revoke", struct{}{}).want(http.StatusOK, "")
	beat := gw.heartbeat()
	if len(beat.Close) != 1 || beat.Close[0].SessionID != session || beat.Close[0].Reason != "device_revoked" {
		t.Errorf("heartbeat closes %+v, want the revoked device's session", beat.Close)
	}
	end := map[string]any{"sessions": []any{map[string]any{"session_id": session, "reason": "device_revoked"}}}
	for range 2 {
		s.post("/api/v1/gateway/sessions/end", gw.credential(), end).want(http.StatusNoContent, "")
	}
	if beat := gw.heartbeat(); len(beat.Close) != 0 {
		t.Errorf("heartbeat closes %+v again", beat.Close)
	}
	if got := s.admin(http.MethodGet, "/sessions/"+session, nil).want(http.StatusOK, "").field("reason"); got != "device_revoked" {
		t.Errorf("the session ended because of %q", got)
	}

	d.tryToken().want(http.StatusForbidden, "device_revoked")
	s.get("/api/v1/gateways", token.AccessToken).want(http.StatusForbidden, "device_revoked")
	if got := gw.validate(newSessionID(), d); got.Allowed || got.Reason != "device_revoked" {
		t.Errorf("decision = %+v, want device_revoked", got)
	}
	s.tryEnrol(d.key, codeOf(t, s.ready.Invite)).want(http.StatusForbidden, "device_revoked")
}

func TestASessionIsRefusedForItsReason(t *testing.T) {
	s := start(t, dataDir(t), dev)
	gw := s.newGateway()
	user, subscription := s.user("ann", 2, 1)
	d := s.enrol(s.invite(user))
	thumbprint := ticket.Thumbprint(publicOf(d.key))
	refuse := func(want string, got decision) {
		t.Helper()
		if got.Allowed || got.Reason != want || got.UserID != "" || got.Limits != nil {
			t.Errorf("decision = %+v, want %s and nothing else", got, want)
		}
	}

	refuse("device_not_found", gw.validateAs(newSessionID(), "0192d1a0-0000-7000-8000-000000000009", thumbprint, 1))
	refuse("device_mismatch", gw.validateAs(newSessionID(), d.id, ticket.Thumbprint(publicOf(newKey(t))), 1))
	refuse("device_mismatch", gw.validateAs(newSessionID(), d.id, thumbprint, 2))

	first := newSessionID()
	if got := gw.validate(first, d); !got.Allowed {
		t.Fatalf("decision = %+v, want a session", got)
	}
	refuse("session_limit", gw.validate(newSessionID(), d))
	stranger := s.enrol(s.ready.Invite)
	refuse("session_unknown", gw.validate(first, stranger))

	s.post("/api/v1/gateway/sessions/end", gw.credential(), map[string]any{
		"sessions": []any{map[string]any{"session_id": first, "reason": "no_error"}},
	}).want(http.StatusNoContent, "")
	refuse("session_unknown", gw.validate(first, d))
	second := newSessionID()
	if got := gw.validate(second, d); !got.Allowed {
		t.Fatalf("decision = %+v, want a session after the first ended", got)
	}

	closes := func(want string) {
		t.Helper()
		beat := gw.heartbeat()
		if len(beat.Close) != 1 || beat.Close[0].SessionID != second || beat.Close[0].Reason != want {
			t.Errorf("heartbeat closes %+v, want %s for %s", beat.Close, want, second)
		}
	}
	s.admin(http.MethodPatch, "/users/"+user, map[string]any{"disabled": true}).want(http.StatusOK, "")
	refuse("user_disabled", gw.validate(newSessionID(), d))
	d.tryToken().want(http.StatusForbidden, "user_disabled")
	closes("user_disabled")
	s.admin(http.MethodPatch, "/users/"+user, map[string]any{"disabled": false}).want(http.StatusOK, "")

	past := time.Now().Add(-time.Hour).UTC()
	s.admin(http.MethodPatch, "/subscriptions/"+subscription, map[string]any{
		"starts_at": past.Add(-time.Hour), "ends_at": past,
	}).want(http.StatusOK, "")
	refuse("subscription_expired", gw.validate(newSessionID(), d))
	d.tryToken().want(http.StatusForbidden, "subscription_expired")
	closes("subscription_expired")

	s.admin(http.MethodDelete, "/subscriptions/"+subscription, nil).want(http.StatusNoContent, "")
	refuse("no_active_subscription", gw.validate(newSessionID(), d))
	d.tryToken().want(http.StatusForbidden, "no_active_subscription")
	closes("no_active_subscription")

	s.admin(http.MethodDelete, "/users/"+user, nil).want(http.StatusNoContent, "")
	refuse("device_not_found", gw.validate(newSessionID(), d))
	d.tryToken().want(http.StatusUnauthorized, "invalid_token")
	closes("device_not_found")
}

func TestAGatewayThatRestartsLosesItsSessions(t *testing.T) {
	s := start(t, dataDir(t), dev)
	gw := s.newGateway()
	d := s.enrol(s.ready.Invite)
	old := newSessionID()
	if got := gw.validate(old, d); !got.Allowed {
		t.Fatalf("decision = %+v", got)
	}
	gw.boot = "boot-2"
	fresh := newSessionID()
	if got := gw.validate(fresh, d); !got.Allowed {
		t.Fatalf("decision = %+v", got)
	}
	if got := s.admin(http.MethodGet, "/sessions/"+old, nil).field("reason"); got != "gateway_restarted" {
		t.Errorf("the old boot's session ended because of %q", got)
	}
	if got := s.admin(http.MethodGet, "/sessions/"+fresh, nil).field("reason"); got != "" {
		t.Errorf("the new boot's session ended because of %q", got)
	}
}

func TestCodesWorkOnceAndSayNothingAboutWhyNot(t *testing.T) {
	s := start(t, dataDir(t), func(cfg *backend.Config) { dev(cfg); cfg.RefusalsPerMinute = 6000 })
	key := newKey(t)
	code := codeOf(t, s.ready.Invite)

	unknown := s.tryEnrol(key, "AAAAAAAAAAAAAAAAAAAAAAAAAA").want(http.StatusForbidden, "invalid_invitation")
	first := s.tryEnrol(key, strings.ToLower(code)).want(http.StatusCreated, "").field("device_id")
	again := s.tryEnrol(key, code).want(http.StatusOK, "").field("device_id")
	if first != again {
		t.Errorf("a repeated enrolment made another device: %s and %s", first, again)
	}
	used := s.tryEnrol(newKey(t), code).want(http.StatusForbidden, "invalid_invitation")
	if string(unknown.text) != string(used.text) {
		t.Errorf("an unknown and a used code differ:\n%s\n%s", unknown.text, used.text)
	}

	request := s.codeProof(key, "enrol", "AAAAAAAAAAAAAAAAAAAAAAAAAA")
	request["name"] = "x"
	request["signature"] = sign(newKey(t), "enrol")
	s.post("/api/v1/devices/enroll", "", request).want(http.StatusUnauthorized, "invalid_proof")
	join := s.codeProof(key, "join", code) // a proof for one purpose serves no other
	join["name"] = "x"
	s.post("/api/v1/devices/enroll", "", join).want(http.StatusUnauthorized, "invalid_proof")

	d := device{s: s, id: first, key: newKey(t)}
	wrongKey := d.tryToken().want(http.StatusUnauthorized, "invalid_token")
	d.id = "0192d1a0-0000-7000-8000-000000000009"
	noDevice := d.tryToken().want(http.StatusUnauthorized, "invalid_token")
	if string(wrongKey.text) != string(noDevice.text) {
		t.Errorf("a wrong key and no device differ:\n%s\n%s", wrongKey.text, noDevice.text)
	}
}

func TestThePlansDeviceLimitHolds(t *testing.T) {
	s := start(t, dataDir(t), dev)
	user, _ := s.user("ann", 1, 1)
	first := s.enrol(s.invite(user))
	link := s.invite(user)
	s.tryEnrol(newKey(t), codeOf(t, link)).want(http.StatusForbidden, "device_limit")
	s.admin(http.MethodPost, "/devices/"+first.id+"/revoke", nil).want(http.StatusOK, "")
	s.enrol(link) // the code was not used up, and a revoked device does not count
}

func TestRefusedCodesAreLimitedPerAddress(t *testing.T) {
	s := start(t, dataDir(t), dev)
	s.enrol(s.ready.Invite) // does not count
	for range 5 {
		s.tryEnrol(newKey(t), "AAAAAAAAAAAAAAAAAAAAAAAAAA").want(http.StatusForbidden, "invalid_invitation")
	}
	refused := s.tryEnrol(newKey(t), "AAAAAAAAAAAAAAAAAAAAAAAAAA").want(http.StatusTooManyRequests, "rate_limited")
	if refused.header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
}

func TestOnlyTheRightCredentialOpensEachPartOfTheAPI(t *testing.T) {
	s := start(t, dataDir(t), dev)
	gw := s.newGateway()
	d := s.enrol(s.ready.Invite)
	access := d.tryToken().field("access_token")
	stranger := gateway{s: s, id: gw.id, key: newKey(t)}
	unknown := gateway{s: s, id: "0192d1a0-0000-7000-8000-000000000009", key: gw.key}
	token, pin, _ := strings.Cut(s.ready.Token, ".")
	credentials := map[string]string{
		"none": "", "an operator's": s.ready.Token, "a device's": access, "a gateway's": gw.credential(),
		"another key's under a gateway's id": stranger.credential(), "a gateway that does not exist": unknown.credential(),
		"a token cut short": s.ready.Token[:len(s.ready.Token)-1], "a token with a short pin": s.ready.Token + ".abc",
		"another token": token + "." + strings.Repeat("A", len(pin)), "a very long one": strings.Repeat("a", 10000),
	}
	for _, part := range []struct{ path, opens string }{
		{"/api/v1/admin/whoami", "an operator's"},
		{"/api/v1/gateways", "a device's"},
		{"/api/v1/gateway/config", "a gateway's"},
	} {
		for name, credential := range credentials {
			got := s.get(part.path, credential)
			if name == part.opens {
				got.want(http.StatusOK, "")
				continue
			}
			got.want(http.StatusUnauthorized, "invalid_token")
		}
	}
	s.call(http.MethodGet, s.ready.API+"/api/v1/admin/whoami", s.ready.Token+"."+strings.Repeat("A", 43), nil).want(http.StatusOK, "")

	s.admin(http.MethodDelete, "/gateways/"+gw.id, nil).want(http.StatusNoContent, "")
	s.get("/api/v1/gateway/config", gw.credential()).want(http.StatusUnauthorized, "invalid_token")
}

func TestTheFirstOperatorIsMadeWithTheBootstrapLinkOnce(t *testing.T) {
	s := start(t, dataDir(t), nil)
	if s.ready.Token != "" || s.ready.Invite != "" {
		t.Fatal("a service that is not for development hands out access")
	}
	code := codeOf(t, s.ready.Bootstrap)
	bootstrap := func(code string) reply {
		return s.call(http.MethodPost, s.ready.Admin+"/api/v1/admin/bootstrap", "", map[string]any{"code": code, "name": "root"})
	}
	bootstrap("AAAAAAAAAAAAAAAAAAAAAAAAAA").want(http.StatusForbidden, "invalid_invitation")
	token := bootstrap(code).want(http.StatusCreated, "").field("token")
	bootstrap(code).want(http.StatusForbidden, "invalid_invitation")
	whoami := s.get("/api/v1/admin/whoami", token).want(http.StatusOK, "")
	if whoami.field("role") != "owner" || whoami.field("name") != "root" {
		t.Errorf("whoami = %s", whoami.text)
	}
}

func TestARestartKeepsEverything(t *testing.T) {
	dir := dataDir(t)
	s := start(t, dir, dev)
	gw := s.newGateway()
	d := s.enrol(s.ready.Invite)
	access := d.tryToken().field("access_token")
	session := newSessionID()
	gw.validate(session, d)
	before := s.get("/.well-known/jwks.json", "").text
	prefix := s.ready.API[strings.LastIndex(s.ready.API, "/"):]
	token := s.ready.Token
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	s = start(t, dir, nil)
	s.ready.Token, gw.s, d.s = token, s, s
	if !strings.HasSuffix(s.ready.API, prefix) || s.ready.Bootstrap != "" {
		t.Errorf("restarted as %q with bootstrap %q", s.ready.API, s.ready.Bootstrap)
	}
	if after := s.get("/.well-known/jwks.json", "").text; string(after) != string(before) {
		t.Errorf("the keys changed:\n%s\n%s", before, after)
	}
	s.get("/api/v1/gateways", access).want(http.StatusOK, "")
	d.tryToken().want(http.StatusOK, "")
	if got := gw.validate(session, d); !got.Allowed {
		t.Errorf("the session that ran is refused: %+v", got)
	}
	s.admin(http.MethodGet, "/devices/"+d.id, nil).want(http.StatusOK, "")
}

func TestAStrangerMeetsABareServer(t *testing.T) {
	for name, tc := range map[string]struct {
		adminApart bool
		shown      []string
		hidden     []string
	}{
		"one listener": {
			shown:  []string{"/livez", "/readyz", "/api/v1/health", "/metrics", "/openapi.json", "/docs/", "/docs/page.js"},
			hidden: []string{"/", "/api/v1/gateways", "/api/v1/admin/whoami", "/api/v1/admin/users", "/.well-known/jwks.json", "/wrong/api/v1/gateways"},
		},
		"admin apart": {
			adminApart: true,
			hidden: []string{
				"/", "/livez", "/readyz", "/metrics", "/openapi.json", "/docs/", "/api/v1/health", "/api/v1/gateways", "/api/v1/admin/whoami",
				"/.well-known/jwks.json",
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := start(t, dataDir(t), func(cfg *backend.Config) {
				dev(cfg)
				if tc.adminApart {
					cfg.AdminListen = "127.0.0.1:0"
				}
			})
			origin := s.ready.API[:strings.LastIndex(s.ready.API, "/")]
			for _, path := range tc.shown {
				s.call(http.MethodGet, origin+path, "", nil).want(http.StatusOK, "")
			}
			for _, path := range tc.hidden {
				got := s.call(http.MethodGet, origin+path, s.ready.Token, nil)
				if got.status != http.StatusNotFound || len(got.text) != 0 || got.header.Get("X-Request-Id") != "" {
					t.Errorf("%s: %d %q, want a bare 404", path, got.status, got.text)
				}
			}
			if !tc.adminApart {
				return
			}
			s.get("/api/v1/admin/whoami", s.ready.Token).want(http.StatusNotFound, "not_found")
			s.admin(http.MethodGet, "/whoami", nil).want(http.StatusOK, "")
			for _, path := range []string{"/livez", "/readyz", "/metrics", "/openapi.json", "/docs/", "/api/v1/health"} {
				s.call(http.MethodGet, s.ready.Admin+path, "", nil).want(http.StatusOK, "")
			}
			s.call(http.MethodGet, s.ready.Admin+"/api/v1/gateways", "", nil).want(http.StatusNotFound, "not_found")
		})
	}
}

func TestADevelopmentServiceBringsItsGatewayAndAccess(t *testing.T) {
	dir := dataDir(t)
	adjust := func(cfg *backend.Config) {
		cfg.Dev, cfg.LocalGateway, cfg.Pin = true, "wss://127.0.0.1/tunnel", strings.Repeat("A", 43)
	}
	s := start(t, dir, adjust)
	for _, link := range []string{s.ready.Invite, s.ready.GatewayJoin} {
		if !strings.HasSuffix(link, ",pin="+strings.Repeat("A", 43)) || !strings.HasPrefix(link, s.ready.API+"/") {
			t.Errorf("link %q lacks the pin or the API", link)
		}
	}
	if !strings.HasSuffix(s.ready.Token, "."+strings.Repeat("A", 43)) || s.ready.Bootstrap != "" {
		t.Errorf("ready = %+v", s.ready)
	}
	gw := s.join(s.ready.GatewayJoin)
	d := s.enrol(s.ready.Invite)
	if got := gw.validate(newSessionID(), d); !got.Allowed {
		t.Errorf("decision = %+v", got)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s = start(t, dir, adjust)
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
	}
	s = start(t, dir, adjust)
	s.enrol(s.ready.Invite)
	var gateways struct {
		Items []struct{ Status, Region string } `json:"items"`
	}
	s.admin(http.MethodGet, "/gateways", nil).into(&gateways)
	if len(gateways.Items) != 2 || gateways.Items[0].Region != "local" || gateways.Items[1].Status != "pending" {
		t.Errorf("gateways after four starts: %+v, want the joined one and one pending", gateways.Items)
	}
}

func TestWhatCannotStartSaysWhyAndLeavesNothing(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	certificate, client := testTLS(t)
	defer client.CloseIdleConnections()

	for name, tc := range map[string]struct {
		adjust func(t *testing.T, cfg *backend.Config)
		want   []string
	}{
		"a port in use": {
			adjust: func(_ *testing.T, cfg *backend.Config) { cfg.Listen = taken.Addr().String() },
			want:   []string{"listen: ", "address already in use"},
		},
		"an admin port in use": {
			adjust: func(_ *testing.T, cfg *backend.Config) { cfg.AdminListen = taken.Addr().String() },
			want:   []string{"admin_listen: ", "address already in use"},
		},
		"no certificate": {
			adjust: func(_ *testing.T, cfg *backend.Config) { cfg.TLS = nil },
			want:   []string{"tls.cert_file", "never served without TLS"},
		},
		"a certificate that is not there": {
			adjust: func(_ *testing.T, cfg *backend.Config) {
				cfg.TLS = nil
				cfg.Certificate.CertFile, cfg.Certificate.KeyFile = "/nowhere/c.pem", "/nowhere/k.pem"
			},
			want: []string{"tls.cert_file", "/nowhere/c.pem"},
		},
		"everything wrong at once": {
			adjust: func(_ *testing.T, cfg *backend.Config) {
				cfg.Listen, cfg.PublicURL, cfg.LogLevel, cfg.GatewayHeartbeat = "nonsense", "http://x/y", "loud", 0
			},
			want: []string{"listen is", "public_url is", "log_level is", "gateway_heartbeat is"},
		},
		"a public address that cannot be guessed": {
			adjust: func(_ *testing.T, cfg *backend.Config) { cfg.Listen = "0.0.0.0:0" },
			want:   []string{"public_url is empty"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg := testConfig(t, dataDir(t))
			cfg.TLS = certificate
			tc.adjust(t, &cfg)
			err := backend.Run(t.Context(), cfg)
			if err == nil {
				t.Fatal("Run started")
			}
			for _, want := range tc.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("Run = %v\nwant it to say %q", err, want)
				}
			}
			if _, err := os.Stat(cfg.DataDir); err == nil {
				t.Error("the data directory was made all the same")
			}
		})
	}
}

func TestADataDirectoryThatCannotBeMadeIsNamed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, filepath.Join(file, "data"))
	cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	if err := backend.Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), file) {
		t.Errorf("Run = %v, want it to name %s", err, file)
	}
}

func TestALostKeyFileIsNeverReplaced(t *testing.T) {
	dir := dataDir(t)
	if err := start(t, dir, nil).stop(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "kek")); err != nil {
		t.Fatal(err)
	}
	cfg := testConfig(t, dir)
	cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	if err := backend.Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "kek") {
		t.Errorf("Run = %v, want it to name the key file", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "kek")); err == nil {
		t.Error("a new key was made: nothing sealed before would open again")
	}
}

func TestSecretsStayOutOfLogsAnswersAndTheDatabase(t *testing.T) {
	dir := dataDir(t)
	s := start(t, dir, dev)
	gw := s.newGateway()
	invite := codeOf(t, s.ready.Invite)
	d := s.enrol(s.ready.Invite)
	access := d.tryToken().field("access_token")
	const planted = "PLANTED7SECRET7VALUE7ABCDE"
	secrets := []string{invite, s.ready.Token, access, planted, gw.credential()}

	var answers strings.Builder
	keep := func(r reply) {
		answers.Write(r.text)
		for name, values := range r.header {
			answers.WriteString(name + ": " + strings.Join(values, " ") + "\n")
		}
	}
	// The secret in every wrong place: a value, a name, a query, a path, a header, broken JSON.
	for _, body := range []string{
		`{"code":"` + planted + `!"}`, `{"` + planted + `":1}`, `{"code":` + planted, planted, `["` + planted + `"]`,
		`{"code":{"a":"` + planted + `"},"name":"` + strings.Repeat(planted, 5) + `"}`, `"` + planted + `"`,
	} {
		for _, path := range []string{"/api/v1/devices/enroll", "/api/v1/auth/token", "/api/v1/gateway/join", "/api/v1/admin/bootstrap"} {
			keep(s.post(path, "", body))
		}
		for _, path := range []string{"/users", "/plans", "/subscriptions", "/regions", "/gateways"} {
			keep(s.admin(http.MethodPost, path, body))
		}
	}
	keep(s.get("/api/v1/gateways?"+planted+"="+planted, access))
	keep(s.admin(http.MethodGet, "/users?limit="+planted+"&cursor="+planted, nil))
	keep(s.admin(http.MethodGet, "/users/"+planted+"1234567890", nil))
	keep(s.admin(http.MethodGet, "/sessions?state="+planted, nil))
	keep(s.get("/api/v1/admin/whoami", planted))
	keep(s.get("/"+planted, ""))
	keep(s.admin(http.MethodPost, "/users", map[string]any{"name": "x"}, "Idempotency-Key", strings.Repeat(planted, 9)))
	keep(s.admin(http.MethodGet, "/users/"+s.admin(http.MethodGet, "/whoami", nil).field("id")+"/invitations", nil))
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}

	log := s.log.String()
	if !strings.Contains(log, `"msg":"request"`) {
		t.Fatal("the log holds no requests: this test would see nothing")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, secret := range secrets {
		if strings.Contains(log, secret) {
			t.Errorf("the log holds a secret: %.8s…", secret)
		}
		if strings.Contains(answers.String(), secret) {
			t.Errorf("an answer holds a secret: %.8s…", secret)
		}
		for _, entry := range entries {
			data, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			if err != nil {
				t.Fatal(err)
			}
			if strings.Contains(string(data), secret) {
				t.Errorf("%s holds a secret: %.8s…", entry.Name(), secret)
			}
		}
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	s := start(t, dataDir(t), nil)
	if err := s.stop(); err != nil {
		t.Errorf("Run = %v, want nil", err)
	}
	_, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", strings.Split(strings.TrimPrefix(s.ready.API, "https://"), "/")[0])
	if err == nil {
		t.Error("something still listens")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg := testConfig(t, dataDir(t))
	cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	if err := backend.Run(ctx, cfg); err == nil || !errors.Is(err, context.Canceled) {
		t.Errorf("Run with a context that is over = %v", err)
	}
}
