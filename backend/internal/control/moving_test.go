package control_test

import (
	"encoding/hex"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
)

func (a *account) moving(filter control.SessionFilter) map[string]control.Moving {
	a.t.Helper()
	found := make(map[string]control.Moving)
	for _, m := range ok[[]control.Moving](a.t)(a.Moving(a.t.Context(), filter, control.Page{Limit: 9})) {
		found[m.ID] = m
	}
	return found
}

func TestLiveSessionsShowWhatTheyMoveOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		a := newAccount(t, dir, where)
		beat := func() {
			t.Helper()
			ok[[]control.SessionEnd](t)(a.Heartbeat(t.Context(), a.gateway, control.Lease{BootID: "b"}))
		}
		look := func() control.Moving { return a.moving(control.SessionFilter{})[a.session.ID] }
		if m := look(); m.Rate != (control.Traffic{}) || !m.ReportedAt.IsZero() || m.Region != a.gateway.Region || m.GatewayName != a.gateway.Name || m.UserName == "" || m.DeviceName == "" {
			t.Errorf("before it has moved anything: %+v", m)
		}
		// A young session: since it began.
		a.pass(10 * time.Second)
		a.report([]control.UsageEntry{a.entry(1, 1_000, 100_000, a.now())}, control.UsageTaken)
		a.same("bits per second of a young session", control.Traffic{Up: 800, Down: 80_000}, look().Rate)
		// Every ten seconds a report: the last minute counts, and what was before does not.
		down := uint64(100_000)
		for n := range uint64(12) {
			a.pass(10 * time.Second)
			if n%3 == 0 {
				beat()
			}
			down += 50_000
			a.report([]control.UsageEntry{a.entry(n+2, 1_000, down, a.now())}, control.UsageTaken)
		}
		beat()
		m := look()
		a.same("bits per second of the last minute", control.Traffic{Down: 40_000}, m.Rate)
		a.same("moved since it began", control.Traffic{Up: 1_000, Down: int64(down)}, m.Moved)
		if !m.ReportedAt.Equal(a.now()) {
			t.Errorf("reported at %v, want %v", m.ReportedAt, a.now())
		}
		// Another one of another device, which only the filter leaves out.
		other := a.begin(a.subscriber(1, 100), 2)
		if all, one := a.moving(control.SessionFilter{}), a.moving(control.SessionFilter{UserID: other.UserID}); len(all) != 2 || len(one) != 1 || one[other.ID].ID == "" {
			t.Errorf("there are %d, of the user %d", len(all), len(one))
		}
		// Nothing for a minute is nothing, and what comes then came just now.
		for range 20 {
			a.pass(10 * time.Second)
			beat()
		}
		a.same("after silence", control.Traffic{}, look().Rate)
		a.report([]control.UsageEntry{a.entry(99, 1_000, down+750_000, a.now())}, control.UsageTaken)
		a.same("after silence, something", control.Traffic{Down: 80_000}, look().Rate)
		// Another process of the gateway counts from the beginning.
		a.report([]control.UsageEntry{{BootID: "old", SessionID: a.session.ID, Sequence: 5, Down: 1 << 40, At: a.now()}})
		a.same("with what another process said", control.Traffic{Down: 80_000}, look().Rate)
		// A session whose gateway is not heard of moves nothing.
		a.pass(time.Hour)
		if left := a.moving(control.SessionFilter{}); len(left) != 0 {
			t.Errorf("sessions of a gateway that is gone: %+v", left)
		}
	})
}

func TestManySessionsAreListedInParts(t *testing.T) {
	a := newAccount(t, t.TempDir(), store.Config{Path: filepath.Join(t.TempDir(), "x.db")})
	user := a.subscriber(1, 100)
	device := ok[control.Enrolled](t)(a.enrol(testKey(2), a.invite(user))).Device
	for n := range uint32(7) {
		a.decide(a.gateway, request(device, 2, n+10), "")
		a.pass(time.Millisecond)
	}
	seen := make(map[string]bool)
	for after := ""; ; {
		part := ok[[]control.Moving](t)(a.Moving(t.Context(), control.SessionFilter{}, control.Page{After: after, Limit: 3}))
		for _, m := range part {
			seen[m.ID] = true
			after = m.ID
		}
		if len(part) < 3 {
			break
		}
	}
	if want := hex.EncodeToString(fmt.Appendf(nil, "session %08d", 16)); len(seen) != 8 || !seen[want] {
		t.Errorf("%d sessions in parts, want 8", len(seen))
	}
}
