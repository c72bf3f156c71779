package backend_test

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/backend"
)

// told is what a gateway has of the keys that sign access tokens.
func (g gateway) told() (ids []string, version string) {
	g.s.t.Helper()
	var config struct {
		JWKS struct {
			Keys []struct {
				ID string `json:"kid"`
			} `json:"keys"`
		} `json:"jwks"`
		Keys struct {
			JWKS string `json:"jwks"`
		} `json:"keys"`
	}
	g.s.get("/api/v1/gateway/config", g.credential()).want(http.StatusOK, "").into(&config)
	for _, key := range config.JWKS.Keys {
		ids = append(ids, key.ID)
	}
	return ids, config.Keys.JWKS
}

// version is how far the log of events is.
func (g gateway) version() string {
	g.s.t.Helper()
	var part struct {
		Version int64 `json:"version"`
	}
	g.s.get("/api/v1/gateway/events?after=0", g.credential()).want(http.StatusOK, "").into(&part)
	return strconv.FormatInt(part.Version, 10)
}

func (d device) accessToken() string {
	d.s.t.Helper()
	return d.tryToken().want(http.StatusOK, "").field("access_token")
}

// rotateSigning rotates beside, or instead of, a service on the same records.
func rotateSigning(t *testing.T, dir string, adjust func(*backend.Config)) {
	t.Helper()
	cfg := testConfig(t, dir)
	cfg.Listen = "127.0.0.1:1"
	cfg.TLS, _ = testTLS(t)
	if adjust != nil {
		adjust(&cfg)
	}
	at, err := backend.RotateSigning(t.Context(), cfg)
	if lead := time.Until(at); err != nil || lead < 14*time.Minute || lead > 15*time.Minute {
		t.Errorf("the next key signs in %v, %v, want 15 minutes", lead, err)
	}
}

func TestTheOperatorRotatesTheSigningKeyAndDevicesNoticeNothingOnBothEngines(t *testing.T) {
	// check compares what gateways have with what they had before.
	check := func(t *testing.T, gw gateway, before []string, version, access string) {
		t.Helper()
		after, changed := gw.told()
		if len(before) != 1 || len(after) != 2 || after[1] != before[0] || after[0] == before[0] || changed == version {
			t.Errorf("gateways are told %v (%s) after %v (%s), want the next key besides", after, changed, before, version)
		}
		gw.s.get("/api/v1/gateways", access).want(http.StatusOK, "")
	}
	t.Run("SQLite, stopped", func(t *testing.T) {
		dir := dataDir(t)
		s := start(t, dir, dev)
		gw, d := s.newGateway(), s.enrol(s.ready.Invite)
		access := d.accessToken()
		before, version := gw.told()
		cfg := testConfig(t, dir)
		cfg.TLS, _ = testTLS(t)
		if _, err := backend.RotateSigning(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "another process is using it: stop that first") {
			t.Errorf("rotation beside a running service: %v", err)
		}
		if err := s.stop(); err != nil {
			t.Fatal(err)
		}
		rotateSigning(t, dir, nil)
		again := start(t, dir, nil)
		d.s, gw.s = again, again
		check(t, gw, before, version, access)
		again.get("/api/v1/gateways", d.accessToken()).want(http.StatusOK, "")
	})
	t.Run("PostgreSQL, beside two that serve", func(t *testing.T) {
		f := newFleet(t, 2)
		user, _ := f.one.user("somebody", 1, 1)
		d := f.one.enrol(f.one.invite(user))
		access := d.accessToken()
		before, version := f.gateways[0].told()
		var followers []*follower
		for _, g := range f.gateways {
			followers = append(followers, g.follow(g.version()))
		}
		rotateSigning(t, replica(t, f.dir), onPostgres(f.url))
		for i, g := range f.gateways {
			followers[i].await("keys.changed ")
			check(t, g, before, version, access)
		}
		d.s = f.two
		f.one.get("/api/v1/gateways", d.accessToken()).want(http.StatusOK, "")
		one, _ := f.gateways[0].told()
		if two, _ := f.gateways[1].told(); !slices.Equal(one, two) {
			t.Errorf("one process tells %v, the other %v", one, two)
		}
	})
}
