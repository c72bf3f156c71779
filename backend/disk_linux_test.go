package backend_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

func TestWithoutRoomTheServiceOnlyReadsAndComesBackByItselfOnBothEngines(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		disk := storetest.SmallDisk(t, "8")
		testFullDisk(t, disk, newVictim(t, filepath.Join(disk, "data"), nil))
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		disk := storetest.SmallDisk(t, "24")
		v := newVictim(t, dataDir(t), nil)
		v.url = storetest.StartServer(t).DatabaseOn(t, disk)
		testFullDisk(t, disk, v)
	})
}

// probe asks how a control plane is.
func (s *service) probe(path string) reply {
	s.t.Helper()
	return s.call(http.MethodGet, s.ready.API[:strings.LastIndex(s.ready.API, "/")]+path, "", nil)
}

// testFullDisk fills the disk that a control plane has its records on.
func testFullDisk(t *testing.T, disk string, v *victim) {
	t.Helper()
	v.start()
	s := v.service()
	gw := s.newGateway()
	user, _ := s.user("somebody", 100, 100)
	d, unwanted := s.enrol(s.invite(user)), s.enrol(s.invite(user))
	var invitations []string
	for range 4 {
		invitations = append(invitations, s.invite(user))
	}
	session := newSessionID()
	if got := gw.validate(session, d); !got.Allowed {
		t.Fatalf("%+v", got)
	}
	s.admin(http.MethodPost, "/devices/"+unwanted.id+"/revoke", struct{}{}).want(http.StatusOK, "")
	gw.heartbeat()

	names := make(map[string]bool) // of users, as the answers said
	number := 0
	add := func() reply {
		number++
		name := fmt.Sprint("user ", number)
		got := s.admin(http.MethodPost, "/users", map[string]any{"name": name, "note": strings.Repeat("n", 500)})
		switch {
		case got.status == http.StatusCreated:
			names[name] = true
		case got.status != http.StatusServiceUnavailable || got.code() != "storage_full":
			t.Fatalf("a writer is told %d %s, want 201 or 503 storage_full", got.status, got.text)
		}
		return got
	}
	for round, again := range []string{"first", "second", "after it was killed"} {
		ballast := storetest.Fill(t, disk, 0)
		for range 20000 { // the engine has some room of its own
			if add().status != http.StatusCreated {
				break
			}
		}
		add().want(http.StatusServiceUnavailable, "storage_full")
		s.checkFull(again, gw, d, unwanted, session, invitations[round])
		if again == "second" {
			v.kill()
			if err := v.tryStart(); err == nil {
				s = v.service().takeOver(s, &gw) // only reads, and says so
				d.s, unwanted.s = s, s
				s.checkFull("started so", gw, d, unwanted, session, invitations[3])
				v.kill()
			} else if !strings.Contains(err.Error(), "full") && !strings.Contains(err.Error(), "space") && !strings.Contains(err.Error(), "room") {
				t.Errorf("start without room: %v, want that it says so", err)
			}
		}
		if err := os.Remove(ballast); err != nil {
			t.Fatal(err)
		}
		if again == "second" {
			v.start()
			token := s.ready.Token
			s = v.service()
			s.ready.Token, gw.s, d.s, unwanted.s = token, s, s, s
		}
		await(t, func() bool { return s.probe("/readyz").status == http.StatusOK })
		add().want(http.StatusCreated, "")
		gw.heartbeat()
	}
	s.enrol(s.invite(user))
	if got := gw.validate(newSessionID(), d); !got.Allowed {
		t.Errorf("with room again: %+v", got)
	}
	v.kill()

	records, err := store.Open(t.Context(), v.records()) // SQLite checks the file
	if err != nil {
		t.Fatal(err)
	}
	defer records.Close()
	for cursor, done := "", false; !done; {
		err := records.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
			users, err := tx.Users(ctx, "", control.Page{After: cursor, Limit: control.MaxPageSize})
			for _, u := range users {
				cursor = u.ID
				delete(names, u.Name)
			}
			done = len(users) == 0
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if len(names) > 0 {
		t.Errorf("%d users that were made are not there", len(names))
	}
}

// checkFull looks at a control plane without room: what needs no writing goes on,
// all else is told why it does not.
func (s *service) checkFull(when string, gw gateway, d, revoked device, session, invitation string) {
	s.t.Helper()
	await(s.t, func() bool { return s.probe("/readyz").status != http.StatusOK }) // an answer holds for a second
	if got := s.probe("/readyz"); got.status != http.StatusServiceUnavailable || string(got.text) != "storage_full\n" {
		s.t.Errorf("%s: readyz is %d %q", when, got.status, got.text)
	}
	if got := s.probe("/api/v1/health"); got.status != http.StatusServiceUnavailable || !strings.Contains(string(got.text), `"status":"storage_full"`) {
		s.t.Errorf("%s: health is %d %s", when, got.status, got.text)
	}
	if got := s.probe("/livez"); got.status != http.StatusOK {
		s.t.Errorf("%s: livez = %d", when, got.status)
	}
	for _, path := range []string{"/users?q=some", "/devices", "/sessions", "/gateways", "/devices/" + d.id, "/usage/verify"} {
		s.admin(http.MethodGet, path, nil).want(http.StatusOK, "")
	}
	for _, path := range []string{"/config", "/snapshot", "/events?after=0"} {
		s.get("/api/v1/gateway"+path, gw.credential()).want(http.StatusOK, "")
	}
	if got := gw.validate(session, d); !got.Allowed || got.UserID == "" || got.Limits == nil {
		s.t.Errorf("%s: a session that had begun: %+v", when, got)
	}
	if got := gw.validate(newSessionID(), revoked); got.Reason != "device_revoked" {
		s.t.Errorf("%s: a revoked device: %+v", when, got)
	}
	var token struct {
		AccessToken string            `json:"access_token"`
		Gateways    []json.RawMessage `json:"gateways"`
	}
	d.tryToken().want(http.StatusOK, "").into(&token)
	if len(token.Gateways) != 1 {
		s.t.Errorf("%s: a device is shown %d gateways", when, len(token.Gateways))
	}
	s.get("/api/v1/gateways", token.AccessToken).want(http.StatusOK, "")
	for name, answer := range map[string]func() reply{
		"a session":    func() reply { return gw.tryValidate(newSessionID(), d) },
		"an enrolment": func() reply { return s.tryEnrol(newKey(s.t), codeOf(s.t, invitation)) },
		"a heartbeat": func() reply {
			return s.post("/api/v1/gateway/heartbeat", gw.credential(), map[string]any{
				"boot_id": gw.boot, "version": "1", "url": "wss://gw.example.net/tunnel", "sessions": 1, "streams": 2,
			})
		},
	} {
		// PostgreSQL may have some room left in a table.
		if got := answer(); got.status >= http.StatusBadRequest && (got.status != http.StatusServiceUnavailable || got.code() != "storage_full") {
			s.t.Errorf("%s: %s gets %d %s, want 503 storage_full", when, name, got.status, got.text)
		}
	}
}
