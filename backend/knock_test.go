package backend_test

import (
	"errors"
	"io/fs"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/backend"
)

func TestTheOperatorRotatesTheKnockOfAStoppedService(t *testing.T) {
	dir := dataDir(t)
	s := start(t, dir, func(cfg *backend.Config) { dev(cfg); cfg.KnockCookie = "visit" })
	gw, d := s.newGateway(), s.enrol(s.ready.Invite)
	type told struct {
		Knock struct {
			Cookie, Key string
			Keys        []string
		}
	}
	var device, before told
	d.tryToken().want(http.StatusOK, "").into(&device)
	s.get("/api/v1/gateway/config", gw.credential()).want(http.StatusOK, "").into(&before)
	if before.Knock.Cookie != "visit" || device.Knock.Cookie != "visit" || !slices.Equal(before.Knock.Keys, []string{device.Knock.Key}) {
		t.Fatalf("a device is told %q, gateways %q", device.Knock.Cookie, before.Knock.Cookie)
	}

	cfg := testConfig(t, dir)
	cfg.TLS, _ = testTLS(t)
	if _, err := backend.RotateKnock(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "another process is using it: stop that first") {
		t.Errorf("rotation beside a running service: %v", err)
	}
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	at, err := backend.RotateKnock(t.Context(), cfg)
	if lead := time.Until(at); err != nil || lead < 14*time.Minute || lead > 15*time.Minute {
		t.Errorf("devices get the next key in %v, %v, want 15 minutes", lead, err)
	}

	again := start(t, dir, nil)
	d.s, gw.s = again, again
	var after told
	again.get("/api/v1/gateway/config", gw.credential()).want(http.StatusOK, "").into(&after)
	if len(after.Knock.Keys) != 2 || after.Knock.Keys[1] != device.Knock.Key || after.Knock.Keys[0] == device.Knock.Key {
		t.Errorf("gateways are told %d keys, want the next and the old one", len(after.Knock.Keys))
	}
	var later told
	d.tryToken().want(http.StatusOK, "").into(&later)
	if later.Knock.Key != device.Knock.Key {
		t.Error("a device gets the next key at once")
	}
	for _, key := range after.Knock.Keys {
		if strings.Contains(s.log.String()+again.log.String(), key) {
			t.Error("a key is in the log")
		}
	}
}

func TestThereIsNothingToRotateWithoutAService(t *testing.T) {
	dir := t.TempDir()
	cfg := testConfig(t, filepath.Join(dir, "none"))
	cfg.TLS, _ = testTLS(t)
	if _, err := backend.RotateKnock(t.Context(), cfg); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("RotateKnock = %v", err)
	}
}
