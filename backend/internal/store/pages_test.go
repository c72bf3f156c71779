package store

import (
	"context"
	"crypto/sha256"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// populate makes n users with a device, a subscription, an invitation and a session
// each, all on one gateway, and has the engine look at what there is.
func populate(t *testing.T, s *Store, n int) {
	t.Helper()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	id := func(kind, i int) string { return fmt.Sprintf("01a00000-%04x-7000-8000-%012x", kind, i) }
	err := s.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
		plan := control.Plan{ID: id(1, 0), Name: "p", MaxDevices: 1, MaxSessions: 1, MaxStreams: 1, CreatedAt: now}
		region := control.Region{ID: id(2, 0), Code: "r", Name: "r", CreatedAt: now}
		gateway := control.Gateway{ID: id(3, 0), Name: "g", RegionID: region.ID, JoinCodeHash: []byte("g"), JoinExpiresAt: now, CreatedAt: now}
		for _, err := range []error{tx.InsertPlan(ctx, plan), tx.InsertRegion(ctx, region), tx.InsertGateway(ctx, gateway)} {
			if err != nil {
				return err
			}
		}
		for i := range n {
			at := now.Add(time.Duration(i) * time.Second)
			hash := sha256.Sum256([]byte(id(4, i)))
			user := control.User{ID: id(4, i), Name: fmt.Sprintf("User %06d", i*7919%n), CreatedAt: at}
			if err := tx.InsertUser(ctx, user); err != nil {
				return err
			}
			device := control.Device{ID: id(5, i), UserID: user.ID, Name: "Phone", PublicKey: hash[:], Generation: 1, CreatedAt: at}
			if _, err := tx.InsertDevice(ctx, device, 9); err != nil {
				return err
			}
			sub := control.Subscription{ID: id(6, i), UserID: user.ID, PlanID: plan.ID, StartsAt: at, CreatedAt: at}
			if err := tx.InsertSubscription(ctx, sub); err != nil {
				return err
			}
			invitation := control.Invitation{ID: id(7, i), UserID: user.ID, CodeHash: hash[:], ExpiresAt: at, CreatedAt: at}
			if err := tx.InsertInvitation(ctx, invitation); err != nil {
				return err
			}
			session := control.Session{
				ID: fmt.Sprintf("%032x", i), DeviceID: device.ID, UserID: user.ID, SubscriptionID: sub.ID, GatewayID: gateway.ID, StartedAt: at,
			}
			if _, err := tx.StartSession(ctx, session, at, 9); err != nil {
				return err
			}
		}
		hook := control.Webhook{ID: id(8, 0), URL: "https://example.com", CreatedAt: now}
		if err := tx.InsertWebhook(ctx, hook); err != nil {
			return err
		}
		for i := range n {
			d := control.Delivery{ID: id(9, i), WebhookID: hook.ID, EventID: "e", Type: "t", ObjectID: id(4, i%10), Payload: "{}", State: control.DeliveryPending, NextAt: now}
			if i%3 > 0 {
				d.State, d.EndedAt = []control.DeliveryState{"", control.DeliveryDelivered, control.DeliveryDead}[i%3], &now
			}
			if err := tx.InsertDelivery(ctx, d); err != nil {
				return err
			}
		}
		return nil
	})
	if err == nil {
		_, err = s.writer.ExecContext(t.Context(), "ANALYZE")
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestNoPartOfAListReadsTheWholeListOnBothEngines(t *testing.T) {
	t.Run("SQLite", func(t *testing.T) {
		testPlans(t, openTest(t, Config{Path: filepath.Join(t.TempDir(), "x.db")}), "EXPLAIN QUERY PLAN ", "TEMP B-TREE", "SCAN ")
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		testPlans(t, openTest(t, Config{URL: storetest.Database(t)}), "EXPLAIN ", "Sort", "Seq Scan ")
	})
}

func testPlans(t *testing.T, s *Store, explain string, sort, scan string) {
	t.Helper()
	const n = 3000
	populate(t, s, n)
	now := time.Now()
	at := func(kind, i int) control.Page {
		return control.Page{After: fmt.Sprintf("01a00000-%04x-7000-8000-%012x", kind, i), Limit: 51}
	}
	first := control.Page{Limit: 51}
	user, device, gateway := at(4, 9).After, at(5, 9).After, at(3, 0).After
	session := control.Page{After: fmt.Sprintf("%032x", n/2), Limit: 51}
	sessions := func(f control.SessionFilter, page control.Page) *listing { return sessionsThat(f, now, page) }
	unit := &tx{sql: s.engine.dialect()}
	usersLike := func(page control.Page) *listing {
		return unit.search("SELECT "+userColumns+" FROM users u", "users", "user", page)
	}
	devicesLike := func(page control.Page) *listing {
		return unit.search("SELECT "+deviceColumns+" FROM devices", "devices", "pho", page)
	}
	look := func(name, query string, args []any) {
		t.Helper()
		plan := s.explain(t, explain+query, args)
		// What is one user's, device's or name's is little: sorting it is fine.
		little := strings.Contains(name, " of a user") || strings.Contains(name, " of a device") || strings.Contains(name, " by name")
		for _, step := range plan {
			reads := strings.Contains(step, scan) && !strings.Contains(step, "USING") && // SQLite calls walking an index a scan, too
				!strings.Contains(step, "on gateways") && !strings.Contains(step, "on regions") // there are few
			if reads || strings.Contains(step, sort) && !little {
				t.Errorf("%s: %s\n%s", name, query, strings.Join(plan, "\n"))
				break
			}
		}
	}
	for name, l := range map[string]*listing{
		"users":                        usersNamed("", first),
		"users, far on":                usersNamed("", at(4, n-100)),
		"a user by name":               usersNamed("User 000001", first),
		"users searched":               usersLike(first),
		"users searched, far on":       usersLike(at(4, n/2)),
		"devices":                      devicesOf("", first),
		"devices, far on":              devicesOf("", at(5, n-100)),
		"devices of a user":            devicesOf(user, first),
		"devices of a user, far on":    devicesOf(user, at(5, 1)),
		"devices searched":             devicesLike(first),
		"devices searched, far on":     devicesLike(at(5, n/2)),
		"subscriptions":                subscriptionsOf("", first),
		"subscriptions, far on":        subscriptionsOf("", at(6, n-100)),
		"subscriptions of a user":      subscriptionsOf(user, first),
		"invitations of a user":        invitationsOf(user, first),
		"live sessions":                sessions(control.SessionFilter{State: control.LiveSessions}, first),
		"live sessions, far on":        sessions(control.SessionFilter{State: control.LiveSessions}, session),
		"ended sessions":               sessions(control.SessionFilter{State: control.EndedSessions}, first),
		"all sessions":                 sessions(control.SessionFilter{State: control.AllSessions}, first),
		"all sessions, far on":         sessions(control.SessionFilter{State: control.AllSessions}, session),
		"sessions of a user":           sessions(control.SessionFilter{State: control.AllSessions, UserID: user}, first),
		"sessions of a device":         sessions(control.SessionFilter{State: control.AllSessions, DeviceID: device}, first),
		"sessions of a gateway":        sessions(control.SessionFilter{State: control.AllSessions, GatewayID: gateway}, first),
		"live sessions of a user":      sessions(control.SessionFilter{State: control.LiveSessions, UserID: user}, first),
		"live sessions of a gateway":   sessions(control.SessionFilter{State: control.LiveSessions, GatewayID: gateway}, first),
		"messages":                     deliveriesOf(at(8, 0).After, "", first),
		"messages, far on":             deliveriesOf(at(8, 0).After, "", at(9, n/2)),
		"messages that are dead":       deliveriesOf(at(8, 0).After, control.DeliveryDead, at(9, n/2)),
		"sessions of a gateway, after": sessions(control.SessionFilter{State: control.AllSessions, GatewayID: gateway}, session),
	} {
		query, args := l.query(51)
		look(name, query, args)
	}
	look("messages that are due", dueDeliveries, []any{at(8, 0).After, micros(now), 4})
	look("ends that are to be told", untoldEnds, []any{micros(now), 51})
}

// explain returns the last column of each row of a plan: its steps in words.
func (s *Store) explain(t *testing.T, query string, args []any) []string {
	t.Helper()
	rows, err := s.reader.QueryContext(t.Context(), query, args...)
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	defer rows.Close()
	columns, err := rows.Columns()
	if err != nil {
		t.Fatal(err)
	}
	var plan []string
	for rows.Next() {
		into := make([]any, len(columns))
		for i := range into {
			into[i] = new(any)
		}
		if err := rows.Scan(into...); err != nil {
			t.Fatal(err)
		}
		last, _ := into[len(into)-1].(*any)
		plan = append(plan, fmt.Sprint(*last))
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return plan
}
