// Package storetest is what every implementation of control.Store must pass.
package storetest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/internal/egress"
)

// now is the moment of all tests, of the precision that stores keep.
var now = time.Date(2026, 3, 1, 12, 0, 0, 123456000, time.UTC)

// Run tests the stores that open returns, each empty.
func Run(t *testing.T, open func(t *testing.T) control.Store) {
	t.Helper()
	for name, test := range map[string]func(fixture){
		"rows read back as written":                     testRoundTrip,
		"what does not exist is not found":              testNotFound,
		"clashes are conflicts":                         testClashes,
		"a failed unit of work leaves nothing":          testRollback,
		"a panic leaves nothing and frees the store":    testPanic,
		"lists come in parts without gaps or repeats":   testPages,
		"names are found by how they begin":             testSearch,
		"an invitation is redeemed once":                testRedeemOnce,
		"an expired invitation is not redeemed":         testRedeemExpired,
		"the device limit holds under concurrency":      testDeviceLimit,
		"the session limit holds under concurrency":     testSessionLimit,
		"sessions of a lost gateway do not count":       testLostGateway,
		"a join code is redeemed once":                  testJoinOnce,
		"a setting is taken once":                       testTakeOnce,
		"API tokens are listed and deleted":             testAPITokens,
		"operators are changed, disabled and deleted":   testOperators,
		"what operators sign in with is theirs alone":   testSignIns,
		"logins are listed, used and ended":             testLogins,
		"ends of sessions count once and only for ours": testEndSessions,
		"a new boot ends the sessions of others":        testBoots,
		"unwanted sessions are found with their reason": testUnwanted,
		"entitlements come longest first":               testEntitlements,
		"a subscription begins with its first use once": testFirstUse,
		"live gateways are found by their regions":      testLiveGateways,
		"limits of users are kept, and go with them":    testUserLimits,
		"gateways that are left are no live ones":       testDrained,
		"sums over all follow what is added to parts":   testUsageTotals,
		"a bulk action's objects are done once":         testBulk,
		"who counts a quota is alone with it":           testQuotaHeld,
		"leases of quotas are summed and forgotten":     testQuotaLeases,
		"pruning is bounded and spares what is young":   testPrune,
		"deleting a user takes what is its own":         testDeleteUser,
		"the session limit holds while sessions end":    testLimitWhileSessionsEnd,
		"a session begun by many is begun once":         testSameSession,
		"what was read and then changed is not lost":    testReadThenChange,
		"who looked at an invitation can redeem it":     testSeenRedeemed,
		"a request repeated at once is done once":       testOnceAtATime,
		"what happens once in a service happens once":   testServiceLock,
		"a reader sees one moment":                      testOneMoment,
		"what is no text is not kept nor found":         testNoText,
		"a knock key's number is given once":            testKnockKeys,
		"sealed secrets are found and replaced":         testSealedValues,
		"secrets come newest first and go":              testSecrets,
		"events read back as written":                   testEventsReadBack,
		"no event is skipped, whatever ends first":      testEventOrder,
		"old events go and leave no gap":                testPruneEvents,
		"the gateways that know a user are found":       testGatewaysOfUser,
		"a session is asked to close once":              testAskClose,
		"Outline servers read back as written":          testOutlineReadBack,
		"Outline servers are chosen by region":          testOutlineChoices,
		"what gateways saw of a server is kept apart":   testOutlineProbes,
		"an Outline server is never over its capacity":  testOutlineLimit,
		"webhooks read back as written":                 testWebhooksReadBack,
		"messages of an object go one after the other":  testDeliveryOrder,
		"a message is claimed by one at a time":         testClaimOnce,
		"messages that are over go, and those waiting":  testPruneDeliveries,
		"an end is told once, and again when it moves":  testEndTold,
		"gateways that come and go are found":           testGatewaysDown,
	} {
		t.Run(name, func(t *testing.T) { test(fixture{Store: open(t), t: t}) })
	}
}

// fixture makes rows.
type fixture struct {
	control.Store
	t *testing.T
}

func id() string { return uuid.Must(uuid.NewV7()).String() }

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}

func sessionID() string { return hex.EncodeToString(random(16)) }

// write runs fn and fails the test on an error.
func (f fixture) write(t *testing.T, fn func(ctx context.Context, tx control.Tx) error) {
	t.Helper()
	if err := f.Write(t.Context(), fn); err != nil {
		t.Fatal(err)
	}
}

func (f fixture) user(t *testing.T) control.User {
	t.Helper()
	u := control.User{ID: id(), Name: "user " + id(), Note: "note", CreatedAt: now}
	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.InsertUser(ctx, u) })
	return u
}

func (f fixture) plan(t *testing.T) control.Plan {
	t.Helper()
	p := control.Plan{
		ID: id(), Name: "plan " + id(), MaxDevices: 1, MaxSessions: 2, MaxStreams: 3, MaxUDP: 0, DurationDays: new(30), CreatedAt: now,
		Quota: control.Quota{QuotaPeriod: control.PeriodNone, TimeZone: "UTC", QuotaAction: control.QuotaBlock},
	}
	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.InsertPlan(ctx, p) })
	return p
}

func (f fixture) subscription(t *testing.T, user control.User, plan control.Plan, starts time.Time, ends *time.Time) control.Subscription {
	t.Helper()
	s := control.Subscription{ID: id(), UserID: user.ID, PlanID: plan.ID, StartsAt: starts, EndsAt: ends, CreatedAt: now}
	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.InsertSubscription(ctx, s) })
	return s
}

func newDevice(user control.User) control.Device {
	return control.Device{
		ID: id(), UserID: user.ID, Name: "laptop", Platform: "linux", PublicKey: ed25519.PublicKey(random(32)), Generation: 1, CreatedAt: now,
	}
}

func (f fixture) device(t *testing.T, user control.User) control.Device {
	t.Helper()
	d := newDevice(user)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		inserted, err := tx.InsertDevice(ctx, d, 1000)
		if err == nil && !inserted {
			err = errors.New("device not inserted")
		}
		return err
	})
	return d
}

func (f fixture) invitation(t *testing.T, user control.User, expires time.Time) control.Invitation {
	t.Helper()
	i := control.Invitation{ID: id(), UserID: user.ID, CodeHash: random(32), ExpiresAt: expires, CreatedAt: now}
	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.InsertInvitation(ctx, i) })
	return i
}

// pendingGateway makes a gateway in a region of its own.
func (f fixture) pendingGateway(t *testing.T) control.Gateway {
	t.Helper()
	r := control.Region{ID: id(), Code: "r" + hex.EncodeToString(random(6)), Name: "region", CreatedAt: now}
	g := control.Gateway{
		ID: id(), Name: "gw", RegionID: r.ID, Region: r.Code, JoinCodeHash: random(32), JoinExpiresAt: now.Add(time.Hour), CreatedAt: now,
	}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		return errors.Join(tx.InsertRegion(ctx, r), tx.InsertGateway(ctx, g))
	})
	return g
}

// gateway makes a gateway that has joined and whose lease holds for a minute.
func (f fixture) gateway(t *testing.T, boot string) control.Gateway {
	t.Helper()
	g := f.pendingGateway(t)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		redeemed, err := tx.RedeemJoin(ctx, g.ID, control.Joined{PublicKey: random(32), URL: "wss://a/b", Version: "1", At: now})
		if err != nil || !redeemed {
			return errors.Join(err, errors.New("not joined"))
		}
		if _, err := tx.RenewLease(ctx, g.ID, control.Lease{BootID: boot, Until: now.Add(time.Minute)}); err != nil {
			return err
		}
		g, err = tx.Gateway(ctx, g.ID)
		return err
	})
	return g
}

func (f fixture) session(t *testing.T, device control.Device, gateway control.Gateway, boot string) control.Session {
	t.Helper()
	s := control.Session{
		ID: sessionID(), DeviceID: device.ID, UserID: device.UserID, SubscriptionID: id(), GatewayID: gateway.ID, BootID: boot, StartedAt: now,
	}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		began, err := tx.StartSession(ctx, s, now, 1000)
		if err == nil && !began {
			err = errors.New("session not begun")
		}
		return err
	})
	return s
}

// same fails the test unless got is want.
func same[T any](t *testing.T, want, got T) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("unexpected rows (-want +got):\n%s", diff)
	}
}

func testRoundTrip(f fixture) {
	t := f.t
	user, plan := f.user(t), f.plan(t)
	ends := now.Add(time.Hour)
	sub := f.subscription(t, user, plan, now, &ends)
	device := f.device(t, user)
	invitation := f.invitation(t, user, ends)
	gateway, pending := f.pendingGateway(t), f.pendingGateway(t)
	session := f.session(t, device, f.gateway(t, "b"), "b")
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		user.DisabledAt, user.Note = &now, "changed"
		plan.DurationDays, plan.MaxUDP = nil, 7
		plan.StartsOnFirstUse, plan.SpeedUpBPS, plan.SpeedDownBPS = true, new(int64(1_000_000)), new(int64(1<<40))
		plan.Regions = []string{pending.Region, gateway.Region}
		slices.Sort(plan.Regions)
		plan.Quota = control.Quota{
			QuotaBytes: new(int64(1 << 50)), QuotaPeriod: control.PeriodRolling, TimeZone: "Asia/Kathmandu",
			QuotaAction: control.QuotaThrottle, ThrottleBPS: new(int64(64_000)), QuotaWarnings: []int{50, 99},
		}
		plan.Egress = egress.Rules{
			DeniedPrefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24"), netip.MustParsePrefix("2001:db8::/32")}, DeniedPorts: []uint16{25, 65535},
			AllowedPorts: []uint16{443}, DeniedNames: []string{"."}, AllowedNames: []string{"example.com"},
		}
		sub.EndsAt = nil
		device.RevokedAt, device.LastSeenAt, device.Name = &now, &now, "desktop"
		return errors.Join(
			tx.UpdateUser(ctx, user), tx.UpdatePlan(ctx, plan), tx.UpdateSubscription(ctx, sub),
			tx.RevokeDevice(ctx, device.ID, now), tx.TouchDevice(ctx, device.ID, now), tx.RenameDevice(ctx, device.ID, device.Name),
			tx.RevokeDevice(ctx, device.ID, now.Add(time.Hour)), // the first time stays
		)
	})
	check := func(ctx context.Context, tx control.Tx) error {
		gotUser, err1 := tx.User(ctx, user.ID)
		byName, err2 := tx.UserByName(ctx, user.Name)
		gotPlan, err3 := tx.Plan(ctx, plan.ID)
		gotSub, err4 := tx.Subscription(ctx, sub.ID)
		entitlements, err9 := tx.Entitlements(ctx, user.ID, 10)
		gotDevice, err5 := tx.Device(ctx, device.ID)
		gotInvitation, err6 := tx.InvitationByCode(ctx, invitation.CodeHash)
		gotGateway, err7 := tx.GatewayByJoinCode(ctx, gateway.JoinCodeHash)
		gotSession, err8 := tx.Session(ctx, session.ID)
		same(t, user, gotUser)
		same(t, user, byName)
		same(t, plan, gotPlan)
		same(t, sub, gotSub)
		same(t, []control.Entitlement{control.Entitle(sub, plan, control.Limits{})}, entitlements)
		same(t, device, gotDevice)
		same(t, invitation, gotInvitation)
		same(t, gateway, gotGateway)
		same(t, session, gotSession)
		return errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9)
	}
	if err := f.Read(t.Context(), check); err != nil {
		t.Error(err)
	}
	f.write(t, check)

	secret := control.SealedSecret{ID: id(), Kind: "k", Sealed: random(60), CreatedAt: now}
	newer := control.SealedSecret{ID: id(), Kind: "k", Sealed: random(60), CreatedAt: now}
	operator := control.Operator{ID: id(), Name: "root", Role: control.RoleOwner, CreatedAt: now}
	token := control.APIToken{ID: id(), OperatorID: operator.ID, Role: control.RoleSupport, Hash: random(32), ExpiresAt: ends, CreatedAt: now}
	once := control.OnceResult{Request: [32]byte(random(32)), ObjectID: id(), CreatedAt: now}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		if err := errors.Join(
			tx.PutSetting(ctx, "a", "1"), tx.PutSetting(ctx, "a", "2"), tx.InsertSecret(ctx, secret), tx.InsertSecret(ctx, newer),
			tx.InsertOperator(ctx, operator), tx.InsertAPIToken(ctx, token), tx.InsertOnceResult(ctx, operator.ID, "key", once),
		); err != nil {
			return err
		}
		setting, err1 := tx.Setting(ctx, "a")
		secrets, err2 := tx.Secrets(ctx, "k")
		bearer, err3 := tx.OperatorByToken(ctx, token.Hash, now)
		named, err4 := tx.OperatorByName(ctx, operator.Name)
		result, err5 := tx.OnceResult(ctx, operator.ID, "key")
		count, err6 := tx.CountOperators(ctx)
		later := control.Operator{ID: id(), Name: "later", Role: control.RoleOwner, CreatedAt: now}
		err7 := tx.InsertOperator(ctx, later)
		oldest, err8 := tx.OldestOperator(ctx, control.RoleOwner, "")
		kept, err9 := tx.APIToken(ctx, token.ID)
		same(t, "2", setting)
		same(t, []control.SealedSecret{newer, secret}, secrets)
		same(t, control.Bearer{Operator: operator, Token: token}, bearer)
		same(t, operator, named)
		same(t, once, result)
		same(t, 1, count)
		same(t, operator, oldest)
		same(t, token, kept)
		if _, err := tx.OperatorByToken(ctx, token.Hash, ends); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("an expired token gives %v", err)
		}
		return errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9)
	})
}

func testNotFound(f fixture) {
	t := f.t
	absent := id()
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		for name, look := range map[string]func() error{
			"setting":      func() error { _, err := tx.Setting(ctx, "x"); return err },
			"once":         func() error { _, err := tx.OnceResult(ctx, absent, "k"); return err },
			"user":         func() error { _, err := tx.User(ctx, absent); return err },
			"locked user":  func() error { _, err := tx.LockUser(ctx, absent); return err },
			"user by name": func() error { _, err := tx.UserByName(ctx, "x"); return err },
			"plan":         func() error { _, err := tx.Plan(ctx, absent); return err },
			"subscription": func() error { _, err := tx.Subscription(ctx, absent); return err },
			"device":       func() error { _, err := tx.Device(ctx, absent); return err },
			"invitation":   func() error { _, err := tx.Invitation(ctx, absent); return err },
			"code":         func() error { _, err := tx.InvitationByCode(ctx, random(32)); return err },
			"region":       func() error { _, err := tx.Region(ctx, absent); return err },
			"region code":  func() error { _, err := tx.RegionByCode(ctx, "x"); return err },
			"gateway":      func() error { _, err := tx.Gateway(ctx, absent); return err },
			"join code":    func() error { _, err := tx.GatewayByJoinCode(ctx, random(32)); return err },
			"session":      func() error { _, err := tx.Session(ctx, sessionID()); return err },
			"operator":     func() error { _, err := tx.Operator(ctx, absent); return err },
			"its name":     func() error { _, err := tx.OperatorByName(ctx, "x"); return err },
			"token":        func() error { _, err := tx.OperatorByToken(ctx, random(32), now); return err },
			"token's row":  func() error { _, err := tx.APIToken(ctx, absent); return err },
			"owner":        func() error { _, err := tx.OldestOperator(ctx, control.RoleOwner, ""); return err },

			"update of a user":         func() error { return tx.UpdateUser(ctx, control.User{ID: absent}) },
			"update of a plan":         func() error { return tx.UpdatePlan(ctx, control.Plan{ID: absent}) },
			"update of a subscription": func() error { return tx.UpdateSubscription(ctx, control.Subscription{ID: absent}) },
			"update of a region":       func() error { return tx.UpdateRegion(ctx, control.Region{ID: absent}) },
			"rename of a device":       func() error { return tx.RenameDevice(ctx, absent, "x") },
			"revocation of a device":   func() error { return tx.RevokeDevice(ctx, absent, now) },
			"lease":                    func() error { _, err := tx.RenewLease(ctx, absent, control.Lease{Until: now}); return err },
			"delete of a user":         func() error { return tx.DeleteUser(ctx, absent) },
			"delete of a plan":         func() error { return tx.DeletePlan(ctx, absent) },
			"delete of a subscription": func() error { return tx.DeleteSubscription(ctx, absent) },
			"delete of an invitation":  func() error { return tx.DeleteInvitation(ctx, absent) },
			"delete of a region":       func() error { return tx.DeleteRegion(ctx, absent) },
			"delete of a token":        func() error { return tx.DeleteAPIToken(ctx, absent) },
			"update of an operator":    func() error { return tx.UpdateOperator(ctx, control.Operator{ID: absent}) },
			"delete of an operator":    func() error { return tx.DeleteOperator(ctx, absent) },
			"delete of a gateway":      func() error { return tx.DeleteGateway(ctx, absent) },
		} {
			if err := look(); !errors.Is(err, control.ErrNotFound) {
				t.Errorf("%s: %v, want ErrNotFound", name, err)
			}
		}
		return nil
	})
}

func testClashes(f fixture) {
	t := f.t
	user, other, plan := f.user(t), f.user(t), f.plan(t)
	f.subscription(t, user, plan, now, nil)
	device := f.device(t, user)
	gateway := f.gateway(t, "b")
	pending := f.pendingGateway(t)
	for name, clash := range map[string]func(ctx context.Context, tx control.Tx) error{
		"two users of a name": func(ctx context.Context, tx control.Tx) error { u := user; u.ID = id(); return tx.InsertUser(ctx, u) },
		"a user renamed so": func(ctx context.Context, tx control.Tx) error {
			o := other
			o.Name = user.Name
			return tx.UpdateUser(ctx, o)
		},
		"two plans of a name": func(ctx context.Context, tx control.Tx) error { p := plan; p.ID = id(); return tx.InsertPlan(ctx, p) },
		"a plan in use":       func(ctx context.Context, tx control.Tx) error { return tx.DeletePlan(ctx, plan.ID) },
		"a region in use":     func(ctx context.Context, tx control.Tx) error { return tx.DeleteRegion(ctx, gateway.RegionID) },
		"a region that a plan names": func(ctx context.Context, tx control.Tx) error {
			r := control.Region{ID: id(), Code: "named", CreatedAt: now}
			p := plan
			p.Regions = []string{r.Code}
			if err := errors.Join(tx.InsertRegion(ctx, r), tx.UpdatePlan(ctx, p)); err != nil {
				return err
			}
			return tx.DeleteRegion(ctx, r.ID)
		},
		"a region's code": func(ctx context.Context, tx control.Tx) error {
			return tx.InsertRegion(ctx, control.Region{ID: id(), Code: gateway.Region, CreatedAt: now})
		},
		"a key enrolled twice": func(ctx context.Context, tx control.Tx) error {
			d := device
			d.ID = id()
			_, err := tx.InsertDevice(ctx, d, 9)
			return err
		},
		"a key joined twice": func(ctx context.Context, tx control.Tx) error {
			_, err := tx.RedeemJoin(ctx, pending.ID, control.Joined{PublicKey: gateway.PublicKey, At: now})
			return err
		},
		"a subscription of nobody": func(ctx context.Context, tx control.Tx) error {
			return tx.InsertSubscription(ctx, control.Subscription{ID: id(), UserID: id(), PlanID: plan.ID, StartsAt: now, CreatedAt: now})
		},
	} {
		var conflict *control.ConflictError
		if err := f.Write(t.Context(), clash); !errors.As(err, &conflict) || conflict.Detail == "" {
			t.Errorf("%s: %v, want a ConflictError that says what", name, err)
		}
	}
}

func testRollback(f fixture) {
	t := f.t
	user := f.user(t)
	broken := errors.New("broken")
	err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
		if err := errors.Join(tx.DeleteUser(ctx, user.ID), tx.PutSetting(ctx, "half", "1")); err != nil {
			return err
		}
		return broken
	})
	if !errors.Is(err, broken) {
		t.Fatalf("Write = %v", err)
	}
	f.stillThere(t, user)

	ctx, cancel := context.WithCancel(t.Context())
	err = f.Write(ctx, func(ctx context.Context, tx control.Tx) error {
		defer cancel()
		return errors.Join(tx.DeleteUser(ctx, user.ID), tx.PutSetting(ctx, "half", "1"))
	})
	if err == nil {
		t.Fatal("Write commits for a caller that has gone")
	}
	f.stillThere(t, user)
}

func (f fixture) stillThere(t *testing.T, user control.User) {
	t.Helper()
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		if _, err := tx.Setting(ctx, "half"); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("half of the work is there: %v", err)
		}
		_, err := tx.User(ctx, user.ID)
		return err
	})
}

func testPanic(f fixture) {
	t := f.t
	user := f.user(t)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error { // panics
			if err := tx.DeleteUser(ctx, user.ID); err != nil {
				return err
			}
			panic("on purpose")
		})
	}()
	f.stillThere(t, user)
}

func testPages(f fixture) {
	t := f.t
	var want []string
	for range 7 {
		want = append(want, f.user(t).ID)
	}
	for _, size := range []int{1, 3, 7, 100} {
		var got []string
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			for after := ""; ; {
				part, err := tx.Users(ctx, "", control.Page{After: after, Limit: size})
				if err != nil {
					return err
				}
				for _, u := range part {
					got = append(got, u.ID)
				}
				if len(part) < size {
					return nil
				}
				after = part[len(part)-1].ID
			}
		})
		same(t, want, got)
	}

	user, gateway := f.user(t), f.gateway(t, "b")
	device := f.device(t, user)
	var sessions []string
	for range 5 { // all of one moment: the id decides
		sessions = append(sessions, f.session(t, device, gateway, "b").ID)
	}
	seen := make(map[string]int)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		filter := control.SessionFilter{State: control.LiveSessions, UserID: user.ID}
		for after := ""; ; {
			part, err := tx.Sessions(ctx, filter, now, control.Page{After: after, Limit: 2})
			if err != nil {
				return err
			}
			for _, s := range part {
				seen[s.ID]++
			}
			if len(part) < 2 {
				return nil
			}
			after = part[len(part)-1].ID
		}
	})
	for _, session := range sessions {
		if seen[session] != 1 {
			t.Errorf("session %s was listed %d times", session, seen[session])
		}
	}
}

func testEntitlements(f fixture) {
	t := f.t
	user, plan := f.user(t), f.plan(t)
	soon, late := now.Add(time.Hour), now.Add(2*time.Hour)
	short := f.subscription(t, user, plan, now, &soon)
	endless := f.subscription(t, user, plan, now, nil)
	long := f.subscription(t, user, plan, now, &late)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		got, err := tx.Entitlements(ctx, user.ID, 10)
		same(t, []control.Entitlement{
			control.Entitle(endless, plan, control.Limits{}), control.Entitle(long, plan, control.Limits{}), control.Entitle(short, plan, control.Limits{}),
		}, got)
		return err
	})
}

func testPrune(f fixture) {
	t := f.t
	user, gateway := f.user(t), f.gateway(t, "b")
	device := f.device(t, user)
	operator := control.Operator{ID: id(), Name: "root", Role: control.RoleOwner, CreatedAt: now}
	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.InsertOperator(ctx, operator) })
	old, young := now.Add(-time.Hour), now.Add(time.Hour)
	for i := range 5 {
		f.invitation(t, user, old)
		session := f.session(t, device, gateway, "b")
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			return errors.Join(
				tx.EndSessions(ctx, gateway.ID, []control.SessionEnd{{ID: session.ID, Reason: "x"}}, old),
				tx.InsertOnceResult(ctx, operator.ID, fmt.Sprint("old", i), control.OnceResult{ObjectID: id(), CreatedAt: old}),
				tx.InsertAPIToken(ctx, control.APIToken{ID: id(), OperatorID: operator.ID, Hash: random(32), ExpiresAt: old, CreatedAt: old}),
			)
		})
	}
	f.invitation(t, user, young)
	f.session(t, device, gateway, "b")
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		return errors.Join(
			tx.InsertOnceResult(ctx, operator.ID, "young", control.OnceResult{ObjectID: id(), CreatedAt: young}),
			tx.InsertAPIToken(ctx, control.APIToken{ID: id(), OperatorID: operator.ID, Hash: random(32), ExpiresAt: young, CreatedAt: old}),
		)
	})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		for name, prune := range map[string]func(context.Context, time.Time, int) (int, error){
			"invitations": tx.PruneInvitations, "sessions": tx.PruneSessions, "keys": tx.PruneOnceResults, "tokens": tx.PruneAPITokens,
		} {
			for _, want := range []int{3, 2, 0} {
				n, err := prune(ctx, now, 3)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				if n != want {
					t.Errorf("%s: pruned %d, want %d", name, n, want)
				}
			}
		}
		return nil
	})
}

func testDeleteUser(f fixture) {
	t := f.t
	user, plan, gateway := f.user(t), f.plan(t), f.gateway(t, "b")
	sub := f.subscription(t, user, plan, now, nil)
	device := f.device(t, user)
	invitation := f.invitation(t, user, now.Add(time.Hour))
	session := f.session(t, device, gateway, "b")
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		if _, err := tx.RedeemInvitation(ctx, invitation.ID, device.ID, now); err != nil {
			return err
		}
		if err := tx.DeleteUser(ctx, user.ID); err != nil {
			return err
		}
		_, err1 := tx.Device(ctx, device.ID)
		_, err2 := tx.Subscription(ctx, sub.ID)
		_, err3 := tx.Invitation(ctx, invitation.ID)
		for _, err := range []error{err1, err2, err3} {
			if !errors.Is(err, control.ErrNotFound) {
				t.Errorf("something of the user is left: %v", err)
			}
		}
		_, err := tx.Session(ctx, session.ID) // the record of what happened stays
		return err
	})
}

func testSearch(f fixture) {
	t := f.t
	owner := f.user(t)
	for _, name := range []string{"ann", "Anna", "ANNIE", "an", "bob ann", "100%", "100_", "Änne", "änne", "ann\u00e9", "a_n"} {
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			d := newDevice(owner)
			d.Name = name
			if _, err := tx.InsertDevice(ctx, d, 1000); err != nil {
				return err
			}
			return tx.InsertUser(ctx, control.User{ID: id(), Name: name, CreatedAt: now})
		})
	}
	for words, want := range map[string][]string{
		"ann": {"ann", "Anna", "ANNIE", "ann\u00e9"}, "ANN": {"ann", "Anna", "ANNIE", "ann\u00e9"}, "anni": {"ANNIE"}, "bob": {"bob ann"},
		"100%": {"100%"}, "%": nil, "a_": {"a_n"}, "Ä": {"Änne"}, "ä": {"änne"}, "x": nil, "an\x00": nil, "\xff": nil,
	} {
		for _, size := range []int{1, 2, 100} {
			var users, devices []string
			f.write(t, func(ctx context.Context, tx control.Tx) error {
				for after := ""; ; {
					part, err := tx.SearchUsers(ctx, words, control.Page{After: after, Limit: size})
					if err != nil {
						return err
					}
					for _, u := range part {
						users, after = append(users, u.Name), u.ID
					}
					if len(part) < size {
						break
					}
				}
				for after := ""; ; {
					part, err := tx.SearchDevices(ctx, words, control.Page{After: after, Limit: size})
					if err != nil {
						return err
					}
					for _, d := range part {
						devices, after = append(devices, d.Name), d.ID
					}
					if len(part) < size {
						return nil
					}
				}
			})
			same(t, want, users)
			same(t, want, devices)
		}
	}
}
