package gateway_test

import (
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/httvps/httvps/gateway"
)

// freePort is an address that nobody listens at.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// A running gateway takes over what it can of another configuration, says what it
// cannot, and ends no session by it. After a mistake nothing has changed.
func TestAReloadTakesOverWhatItCan(t *testing.T) {
	t.Parallel()
	reloads := make(chan gateway.Config)
	levels := make(chan slog.Level, 8)
	s := newService(t, func(cfg *gateway.Config) {
		cfg.Reload = reloads
		cfg.SetLevel = func(level slog.Level) { levels <- level }
	})
	d, o := s.enrol(t), newOrigin(t)
	tun := d.connect(t, s.url, s.trust)
	page := func() string {
		t.Helper()
		client := &http.Client{Transport: &http.Transport{TLSClientConfig: s.trust.Clone(), DisableKeepAlives: true}}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, strings.Replace(s.url, "wss:", "https:", 1), nil)
		if err != nil {
			t.Fatal(err)
		}
		req.URL.Path = "/"
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.Header.Get("Strict-Transport-Security") + " " + string(text)
	}
	before := page()

	next := s.cfg
	next.Masquerade.Dir, next.Masquerade.HSTS = content(t), 3_600_000_000_000
	next.LogLevel = slog.LevelWarn
	next.Limits.Sessions = 1
	next.AdminListen = "127.0.0.1:1"
	broken := next
	broken.Masquerade.Dir = filepath.Join(t.TempDir(), "absent")
	wrong := next
	wrong.Limits.Sessions = 0
	for _, mistake := range []gateway.Config{broken, wrong} {
		reloads <- mistake
	}
	eventually(t, "the second refusal", func() bool { return strings.Count(s.log.String(), `"configuration not reloaded"`) == 2 })
	if got := page(); got != before || len(levels) > 0 || strings.Contains(s.log.String(), `"configuration reloaded"`) {
		t.Errorf("a mistake has changed something: %q, %d levels", got, len(levels))
	}

	reloads <- next
	eventually(t, "the reload", func() bool { return strings.Contains(s.log.String(), `"configuration reloaded"`) })
	want := `"changed":["limits.sessions","log_level","masquerade.dir","masquerade.hsts"],"needs_restart":["admin_listen"]`
	if !strings.Contains(s.log.String(), want) {
		t.Errorf("the log does not say %s", want)
	}
	if got := page(); !strings.HasPrefix(got, "max-age=3600 ") || !strings.Contains(got, "nothing in particular") {
		t.Errorf("the site is %q", got)
	}
	if level := <-levels; level != slog.LevelWarn {
		t.Errorf("the level is %v", level)
	}
	if got, err := exchange(t, tun, o.addr, "still here"); err != nil || got != "still here" {
		t.Errorf("the session that was: %q, %v", got, err)
	}
	reloads <- next // nothing new, and the same is left for a restart
	eventually(t, "the second reload", func() bool {
		return strings.Contains(s.log.String(), `"changed":[],"needs_restart":["admin_listen"]`)
	})
}

// The other listeners of a gateway: plain HTTP, which sends visitors to the site, and
// profiles.
func TestPlainHTTPAndProfiles(t *testing.T) {
	t.Parallel()
	plain, profiles := freePort(t), freePort(t)
	s := newService(t, func(cfg *gateway.Config) { cfg.HTTPListen, cfg.PprofListen = plain, profiles })
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{MinVersion: tls.VersionTLS13}},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	for url, want := range map[string]int{
		"http://" + plain + "/some/page": http.StatusPermanentRedirect, "http://" + profiles + "/debug/pprof/goroutine?debug=1": http.StatusOK,
		"http://" + plain + "/debug/pprof/": http.StatusPermanentRedirect, "http://" + s.ready.Admin + "/debug/pprof/": http.StatusNotFound,
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d, want %d", url, resp.StatusCode, want)
		}
		if to := resp.Header.Get("Location"); want == http.StatusPermanentRedirect && !strings.HasPrefix(to, strings.Replace(strings.TrimSuffix(s.url, "/tunnel"), "wss:", "https:", 1)) {
			t.Errorf("%s: to %q", url, to)
		}
	}
}
