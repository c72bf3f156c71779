//go:build unix

package backend_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/backend/internal/store/storetest"
	"github.com/httvps/httvps/internal/ticket"
)

const (
	mayEnrol = 3 // devices of the user whose limits are tried
	mayRun   = 4 // sessions
)

// crowd are callers of a control plane that is killed under them. What they were
// told must hold afterwards; what got lost may have happened or not.
type crowd struct {
	t      *testing.T
	v      *victim
	server *storetest.Server // nil: SQLite
	user   string            // whose limits are tried
	device device
	gws    []*gateway
	sent   atomic.Int64

	// quiet is held by all who do something, and alone by who looks at everything.
	quiet sync.RWMutex

	mu       sync.Mutex
	devices  map[string]string // by id: enrolled, revoked, or maybe
	sessions map[string]string // by gateway and id: asked, begun, refused, ended, or maybe, as the answer got lost
	users    map[string]string // by id: the name, or maybe; empty: deleted
}

// try sends a request and reports whether there was an answer.
func (c *crowd) try(method, address, credential string, body any) (reply, bool) {
	data, err := json.Marshal(body)
	if err != nil {
		c.t.Error(err)
		return reply{}, false
	}
	ctx, cancel := context.WithTimeout(c.t.Context(), 20*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, method, address, bytes.NewReader(data))
	if err != nil {
		c.t.Error(err)
		return reply{}, false
	}
	req.Header.Set("Content-Type", "application/json")
	if credential != "" {
		req.Header.Set("Authorization", "Bearer "+credential)
	}
	c.sent.Add(1)
	resp, err := c.v.client.Do(req)
	if err != nil {
		return reply{}, false
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, false
	}
	got := reply{t: c.t, status: resp.StatusCode, header: resp.Header, text: text}
	if got.status >= http.StatusInternalServerError {
		// What is away is a database that was killed, or time on a busy machine.
		if got.status != http.StatusServiceUnavailable || got.code() != "timeout" && (c.server == nil || got.code() != "unavailable") {
			c.t.Errorf("%s is answered with %d %s", method, got.status, got.text)
		}
		return reply{}, false
	}
	return got, true
}

func (c *crowd) api(path, credential string, body any) (reply, bool) {
	return c.try(http.MethodPost, c.v.where.Load().API+path, credential, body)
}

func (c *crowd) admin(method, path string, body any) (reply, bool) {
	at := c.v.where.Load()
	return c.try(method, at.Admin+"/api/v1/admin"+path, at.Token, body)
}

func (c *crowd) note(into map[string]string, id, what string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	into[id] = what
}

// take returns one of those that are what, which from then on may be anything.
func (c *crowd) take(of map[string]string, what func(id, is string) bool) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id, is := range of { // in no order
		if what(id, is) {
			of[id] = "maybe"
			return id
		}
	}
	return ""
}

// enrol redeems an invitation with a key until it gets an answer, and revokes a
// device when there may be no more.
func (c *crowd) enrol() {
	made, told := c.admin(http.MethodPost, "/users/"+c.user+"/invitations", map[string]any{})
	if !told || made.status != http.StatusCreated {
		return
	}
	code, key := codeOf(c.t, made.field("link")), newKey(c.t)
	for range 3 {
		if got, told := c.redeem(key, code); told {
			switch {
			case got.status == http.StatusCreated || got.status == http.StatusOK:
				c.note(c.devices, got.field("device_id"), "enrolled")
			case got.code() == "device_limit":
				c.revoke()
			default:
				c.t.Errorf("enrolment is answered with %d %s", got.status, got.text)
			}
			return
		}
		<-time.After(20 * time.Millisecond)
	}
}

func (c *crowd) redeem(key ed25519.PrivateKey, code string) (reply, bool) {
	challenge, told := c.api("/api/v1/auth/challenge", "", struct{}{})
	if !told {
		return reply{}, false
	}
	request := proofOf(c.t, key, "enrol", code, challenge.field("nonce"))
	request["name"], request["platform"] = "laptop", "linux/amd64"
	return c.api("/api/v1/devices/enroll", "", request)
}

func (c *crowd) revoke() {
	id := c.take(c.devices, func(_, is string) bool { return is == "enrolled" })
	if id == "" {
		return
	}
	if got, told := c.admin(http.MethodPost, "/devices/"+id+"/revoke", struct{}{}); told && got.status == http.StatusOK {
		c.note(c.devices, id, "revoked")
	}
}

// run begins a session of the one device, or ends one that may run.
func (c *crowd) run(gw *gateway) {
	if rand.IntN(3) == 0 {
		c.end(gw)
		return
	}
	session := newSessionID()
	key := gw.id + " " + session
	c.note(c.sessions, key, "asked")
	got, told := c.api("/api/v1/auth/validate-device", gw.credential(), map[string]any{
		"session_id": session, "device_id": c.device.id, "key_thumbprint": ticket.Thumbprint(publicOf(c.device.key)), "generation": 1, "boot_id": gw.boot,
	})
	var answer decision
	switch {
	case !told:
		c.note(c.sessions, key, "maybe")
	case json.Unmarshal(got.text, &answer) != nil || got.status != http.StatusOK || !answer.Allowed && answer.Reason != "session_limit":
		c.t.Errorf("a session is answered with %d %s", got.status, got.text)
	case answer.Allowed:
		c.note(c.sessions, key, "begun")
	default:
		c.note(c.sessions, key, "refused")
		c.end(gw)
	}
}

func (c *crowd) end(gw *gateway) {
	key := c.take(c.sessions, func(key, is string) bool { return key[:len(gw.id)] == gw.id && (is == "begun" || is == "maybe") })
	if key == "" {
		return
	}
	got, told := c.api("/api/v1/gateway/sessions/end", gw.credential(), map[string]any{
		"sessions": []map[string]any{{"session_id": key[len(gw.id)+1:], "reason": "closed"}},
	})
	if told && got.status == http.StatusNoContent {
		c.note(c.sessions, key, "ended")
	}
}

func (c *crowd) beat(gw *gateway) {
	_, _ = c.api("/api/v1/gateway/heartbeat", gw.credential(), map[string]any{
		"boot_id": gw.boot, "version": "1", "url": "wss://gw.example.net/tunnel", "sessions": 1, "streams": 2,
	})
}

// operate makes, renames, disables and deletes users.
func (c *crowd) operate() {
	name := "made " + newSessionID()
	if got, told := c.admin(http.MethodPost, "/users", map[string]any{"name": name}); told && got.status == http.StatusCreated {
		c.note(c.users, got.field("id"), name)
	}
	exists := func(_, name string) bool { return name != "" && name != "maybe" }
	if id := c.take(c.users, exists); id != "" {
		name := "renamed " + newSessionID()
		if got, told := c.admin(http.MethodPatch, "/users/"+id, map[string]any{"name": name, "disabled": rand.IntN(2) == 0}); told && got.status == http.StatusOK {
			c.note(c.users, id, name)
		}
	}
	if rand.IntN(3) > 0 {
		return
	}
	if id := c.take(c.users, exists); id != "" {
		if got, told := c.admin(http.MethodDelete, "/users/"+id, nil); told && got.status == http.StatusNoContent {
			c.note(c.users, id, "")
		}
	}
}

func TestAKilledControlPlaneStartsAgainAndIsConsistentOnBothEngines(t *testing.T) {
	kills := 6
	if os.Getenv("HTTVPS_SOAK") == "1" {
		kills = 100
	}
	t.Run("SQLite", func(t *testing.T) { testKills(t, kills, nil) })
	t.Run("PostgreSQL", func(t *testing.T) { testKills(t, kills, storetest.StartServer(t)) })
}

func testKills(t *testing.T, kills int, server *storetest.Server) {
	t.Helper()
	v := newVictim(t, dataDir(t), server)
	v.start()
	c := &crowd{
		t: t, v: v, server: server, devices: make(map[string]string), sessions: make(map[string]string), users: make(map[string]string),
	}
	s := v.service()
	first := s.newGateway()
	made := s.admin(http.MethodPost, "/gateways", map[string]any{"name": "other", "region": "here"}).want(http.StatusCreated, "")
	second := s.join(made.field("join"))
	c.gws = []*gateway{&first, &second}
	c.user, _ = s.user("limited", mayEnrol, mayRun)
	c.device = s.enrol(s.invite(c.user))

	var group sync.WaitGroup
	done := make(chan struct{})
	work := []func(){c.enrol, c.enrol, c.operate, c.operate}
	for _, gw := range c.gws {
		for range 2 {
			work = append(work, func() { c.run(gw) })
		}
	}
	for _, act := range work {
		group.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				c.quiet.RLock()
				act()
				c.quiet.RUnlock()
				<-time.After(time.Duration(rand.IntN(3)) * time.Millisecond)
			}
		})
	}
	for n := range kills {
		for until := c.sent.Load() + 20 + rand.Int64N(150); c.sent.Load() < until; {
			<-time.After(time.Duration(rand.IntN(3000)) * time.Microsecond)
		}
		if server != nil && n%2 == 1 {
			server.Kill(t)
		} else {
			v.kill()
		}
		c.quiet.Lock()
		if v.process.ProcessState != nil {
			v.start()
		}
		c.check()
		c.quiet.Unlock()
		if t.Failed() {
			break
		}
	}
	close(done)
	group.Wait()
	t.Logf("%d kills, %d requests, %d devices, %d sessions, %d users", kills, c.sent.Load(), len(c.devices), len(c.sessions), len(c.users))
}

// all returns a list in parts of size.
func (s *service) all(path string, size int) []map[string]any {
	s.t.Helper()
	var objects []map[string]any
	for cursor := ""; ; {
		var part struct {
			Items []map[string]any `json:"items"`
			Next  *string          `json:"next"`
		}
		s.admin(http.MethodGet, fmt.Sprintf("%slimit=%d%s", path, size, cursor), nil).want(http.StatusOK, "").into(&part)
		objects = append(objects, part.Items...)
		if part.Next == nil {
			return objects
		}
		cursor = "&cursor=" + *part.Next
	}
}

func idsOf(objects []map[string]any) []string {
	ids := make([]string, 0, len(objects))
	for _, o := range objects {
		id, _ := o["id"].(string)
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}

// check looks at everything while nobody does anything.
func (c *crowd) check() {
	c.t.Helper()
	s := c.v.service()
	await(c.t, func() bool { return s.probe("/readyz").status == http.StatusOK })
	for _, gw := range c.gws { // their leases may have ended while nothing served
		c.beat(gw)
	}
	c.checkDevices(s)
	c.checkSessions(s)
	c.checkUsers(s)
	c.checkEvents()
}

func (c *crowd) checkDevices(s *service) {
	c.t.Helper()
	listed := make(map[string]bool) // whether revoked
	inUse := 0
	for _, d := range s.all("/devices?user_id="+c.user+"&", 7) {
		id, _ := d["id"].(string)
		listed[id] = d["revoked_at"] != nil
		if !listed[id] {
			inUse++
		}
	}
	if inUse > mayEnrol {
		c.t.Errorf("%d devices are in use, want at most %d", inUse, mayEnrol)
	}
	for id, was := range c.devices {
		revoked, known := listed[id]
		if !known || was == "revoked" && !revoked || was == "enrolled" && revoked {
			c.t.Errorf("device %s was %s; there: %v, revoked: %v", id, was, known, revoked)
		}
	}
	used := make(map[string]bool)
	for _, i := range s.all("/users/"+c.user+"/invitations?", 500) {
		if id, ok := i["device_id"].(string); ok && i["used_at"] != nil {
			used[id] = true
		}
	}
	for id := range listed {
		if !used[id] {
			c.t.Errorf("device %s has used no invitation", id)
		}
	}
	if len(used) != len(listed) {
		c.t.Errorf("%d invitations are used by %d devices", len(used), len(listed))
	}
	if all := idsOf(s.all("/devices?", 500)); len(all) != len(listed) {
		c.t.Errorf("%d devices in all, %d of the one user who has any", len(all), len(listed))
	}
}

func (c *crowd) checkSessions(s *service) {
	c.t.Helper()
	live := idsOf(s.all("/sessions?state=live&user_id="+c.user+"&", 3))
	if len(live) > mayRun {
		c.t.Errorf("%d sessions run, want at most %d", len(live), mayRun)
	}
	all, ended := idsOf(s.all("/sessions?state=all&", 500)), idsOf(s.all("/sessions?state=ended&device_id="+c.device.id+"&", 50))
	if len(all) != len(live)+len(ended) {
		c.t.Errorf("%d sessions run and %d have ended of %d", len(live), len(ended), len(all))
	}
	for key, was := range c.sessions {
		id := key[len(key)-32:]
		_, runs := slices.BinarySearch(live, id)
		_, over := slices.BinarySearch(ended, id)
		if was == "begun" && !runs || was == "ended" && runs || was == "refused" && (runs || over) {
			c.t.Errorf("session %s was %s; runs: %v, has ended: %v", id, was, runs, over)
		}
	}
}

func (c *crowd) checkUsers(s *service) {
	c.t.Helper()
	users := s.all("/users?", 500)
	if parts := idsOf(s.all("/users?", 7)); !slices.Equal(parts, idsOf(users)) {
		c.t.Errorf("%d users in one part, %d in parts of 7", len(users), len(parts))
	}
	if found := s.all("/users?q=made&", 50); len(found)+len(s.all("/users?q=renamed&", 50)) > len(users) {
		c.t.Errorf("%d users are found by name of %d", len(found), len(users))
	}
	names := make(map[string]string)
	for _, u := range users {
		id, _ := u["id"].(string)
		names[id], _ = u["name"].(string)
	}
	for id, name := range c.users {
		switch {
		case name == "maybe":
		case names[id] != name:
			c.t.Errorf("user %s is %q, want %q", id, names[id], name)
		case name != "":
			if found := idsOf(s.all("/users?q="+name[len(name)-32:]+"&", 5)); len(found) != 0 {
				c.t.Errorf("the end of a name finds %v", found)
			}
			if got := s.admin(http.MethodGet, "/users/"+id, nil).want(http.StatusOK, "").field("name"); got != name {
				c.t.Errorf("user %s alone is %q, in the list %q", id, got, name)
			}
		}
	}
}

// checkEvents looks at the log of events in the records themselves.
func (c *crowd) checkEvents() {
	c.t.Helper()
	records, err := store.Look(c.t.Context(), c.v.records())
	if err != nil {
		c.t.Fatal(err)
	}
	defer records.Close()
	revocations := make(map[string]int)
	after, more := int64(0), true
	for more {
		err := records.Read(c.t.Context(), func(ctx context.Context, tx control.Tx) error {
			log, err := tx.Events(ctx, after, control.MaxEvents)
			for _, e := range log.Events {
				if e.Version != after+1 {
					c.t.Errorf("event %d comes after %d", e.Version, after)
				}
				after = e.Version
				if e.Kind == control.EventDeviceRevoked {
					revocations[e.DeviceID]++
				}
			}
			more = len(log.Events) > 0
			if err == nil && !more && (log.Latest != after || log.Low != 0) {
				err = fmt.Errorf("the log ends with %d and says that it goes from %d to %d", after, log.Low, log.Latest)
			}
			return err
		})
		if err != nil {
			c.t.Error(err)
			return
		}
	}
	err = records.Read(c.t.Context(), func(ctx context.Context, tx control.Tx) error {
		devices, err := tx.Devices(ctx, c.user, control.Page{Limit: control.MaxPlanDevices})
		for _, d := range devices {
			if want := map[bool]int{true: 1}[d.RevokedAt != nil]; revocations[d.ID] != want {
				err = errors.Join(err, fmt.Errorf("%d events say that device %s is revoked, want %d", revocations[d.ID], d.ID, want))
			}
		}
		return err
	})
	if err != nil {
		c.t.Error(err)
	}
}
