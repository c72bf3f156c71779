package backend_test

import (
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/httvps/httvps/backend"
)

func TestARescueRevokesAllTokensAndLetsTheOwnerBackInOnce(t *testing.T) {
	dir := dataDir(t)
	s := start(t, dir, nil)
	bootstrap := func(s *service, link, name string) reply {
		return s.call(http.MethodPost, s.ready.Admin+"/api/v1/admin/bootstrap", "", map[string]any{"code": codeOf(t, link), "name": name})
	}
	first := bootstrap(s, s.ready.Bootstrap, "root").want(http.StatusCreated, "")
	second := s.post("/api/v1/admin/tokens", first.field("token"), map[string]any{}).want(http.StatusCreated, "").field("token")

	cfg := testConfig(t, dir)
	cfg.TLS, _ = testTLS(t)
	base, err := url.Parse(s.ready.API)
	if err != nil {
		t.Fatal(err)
	}
	cfg.PublicURL = "https://" + base.Host
	if link, err := backend.Rescue(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "another process is using it: stop that first") {
		t.Errorf("rescue of a running service = %q, %v", link, err)
	}
	s.get("/api/v1/admin/whoami", second).want(http.StatusOK, "")
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	replaced, err := backend.Rescue(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	link, err := backend.Rescue(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}

	again := start(t, dir, nil)
	if again.ready.Bootstrap != "" || !strings.HasPrefix(link, s.ready.API+"/bootstrap#code=") {
		t.Errorf("the service makes the link %q of its own; the rescue's is %q", again.ready.Bootstrap, link)
	}
	for _, token := range []string{first.field("token"), second} {
		again.get("/api/v1/admin/whoami", token).want(http.StatusUnauthorized, "invalid_token")
	}
	bootstrap(again, replaced, "thief").want(http.StatusForbidden, "invalid_invitation")
	back := bootstrap(again, link, "somebody").want(http.StatusCreated, "")
	if back.field("operator_id") != first.field("operator_id") || back.field("name") != "root" {
		t.Errorf("back in as %s, was %s", back.text, first.text)
	}
	again.get("/api/v1/admin/whoami", back.field("token")).want(http.StatusOK, "")
	bootstrap(again, link, "root").want(http.StatusForbidden, "invalid_invitation")
	if log := again.log.String(); strings.Contains(log, codeOf(t, link)) || !strings.Contains(log, "after a rescue") {
		t.Errorf("log: %s", log)
	}
}

func TestARescueThatCannotBeLeavesThingsAsTheyAre(t *testing.T) {
	missing := filepath.Join(t.TempDir(), "none")
	empty := dataDir(t)
	if err := start(t, empty, nil).stop(); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		dir, listen, want string
	}{
		"no database":          {missing, "127.0.0.1:8443", "backend.db: no such file"},
		"nobody to let in":     {empty, "127.0.0.1:8443", "there is no operator yet: start the service"},
		"an address not fixed": {empty, "127.0.0.1:0", "public_url is empty"},
		"a bad configuration":  {empty, "8443", "listen is"},
	} {
		cfg := testConfig(t, tc.dir)
		cfg.TLS, _ = testTLS(t)
		cfg.Listen = tc.listen
		if link, err := backend.Rescue(t.Context(), cfg); err == nil || link != "" || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %q, %v, want %q", name, link, err, tc.want)
		}
	}
	if _, err := os.Stat(missing); !os.IsNotExist(err) {
		t.Errorf("it made a data directory: %v, want %v", err, fs.ErrNotExist)
	}
}

func TestTokensAreMadeListedWithoutTheirSecretsAndDeleted(t *testing.T) {
	s := start(t, dataDir(t), dev)
	made := s.admin(http.MethodPost, "/tokens", map[string]any{"ttl_days": 365}, "Idempotency-Key", "k").want(http.StatusCreated, "")
	again := s.admin(http.MethodPost, "/tokens", map[string]any{"ttl_days": 365}, "Idempotency-Key", "k").want(http.StatusCreated, "")
	if made.field("token") == "" || again.field("token") != "" || again.field("id") != made.field("id") {
		t.Errorf("made %s, repeated %s", made.text, again.text)
	}
	for _, days := range []int{-1, 366} {
		s.admin(http.MethodPost, "/tokens", map[string]any{"ttl_days": days}).want(http.StatusUnprocessableEntity, "invalid_request")
	}
	var list struct {
		Items []map[string]any `json:"items"`
	}
	listed := s.admin(http.MethodGet, "/tokens", nil).want(http.StatusOK, "")
	listed.into(&list)
	if len(list.Items) != 2 || list.Items[1]["id"] != made.field("id") || strings.Contains(string(listed.text), "hvt1") || len(list.Items[1]) != 5 {
		t.Errorf("listed %s", listed.text)
	}
	whoami := func() reply { return s.get("/api/v1/admin/whoami", made.field("token")) }
	whoami().want(http.StatusOK, "")
	// The one in use, and then a stranger to the service like any other.
	s.call(http.MethodDelete, s.ready.Admin+"/api/v1/admin/tokens/"+made.field("id"), made.field("token"), nil).want(http.StatusNoContent, "")
	whoami().want(http.StatusUnauthorized, "invalid_token")
	s.admin(http.MethodDelete, "/tokens/"+made.field("id"), nil).want(http.StatusNotFound, "not_found")
}
