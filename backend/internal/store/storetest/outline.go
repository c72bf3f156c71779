package storetest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/internal/sslink"
)

// outline makes a server in a region of its own, or in that of a gateway.
func (f fixture) outline(t *testing.T, gateway control.Gateway, change func(*control.OutlineServer)) control.OutlineServer {
	t.Helper()
	name := id()
	s := control.OutlineServer{
		ID: id(), Name: name, RegionID: gateway.RegionID, Region: gateway.Region, Host: name + ".example", Port: 443,
		Weight: 100, Capacity: 1000, Health: control.OutlineHealth{State: control.OutlineUnknown}, CreatedAt: now,
		Key: control.OutlineKey{Generation: 1, Cipher: sslink.AES256GCM, CreatedAt: now},
	}
	if change != nil {
		change(&s)
	}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		return errors.Join(tx.InsertOutlineServer(ctx, s), tx.PutOutlineKey(ctx, control.SealedOutlineKey{ServerID: s.ID, OutlineKey: s.Key, Sealed: random(60)}))
	})
	return s
}

func testOutlineReadBack(f fixture) {
	t := f.t
	gateway := f.gateway(t, "b")
	server := f.outline(t, gateway, func(s *control.OutlineServer) {
		s.Priority, s.Managed, s.Fallback, s.DisabledAt, s.Key.Prefix = 3, true, true, &now, []byte{0x16, 0, 0xff}
	})
	plain := f.outline(t, gateway, nil)
	check := func(want control.OutlineServer) {
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			got, err1 := tx.OutlineServer(ctx, want.ID)
			peeked, err2 := tx.PeekOutlineServer(ctx, want.ID)
			same(t, want, got)
			want.Sessions = 0
			same(t, want, peeked)
			return errors.Join(err1, err2)
		})
	}
	check(server)
	check(plain)

	// Changed, with another key, and with a session.
	since := now.Add(time.Second)
	server.Name, server.Host, server.Port, server.Weight, server.Priority, server.Capacity = "x", "::1", 1, 0, 0, 1
	server.Managed, server.Fallback, server.DisabledAt = false, false, nil
	server.Health = control.OutlineHealth{State: control.OutlineDown, Since: &now, ProbedAt: &since}
	key := control.SealedOutlineKey{
		ServerID: server.ID, Sealed: random(60),
		OutlineKey: control.OutlineKey{Generation: 2, Cipher: sslink.AES128GCM, CreatedAt: since},
	}
	server.Key = key.OutlineKey
	session := f.session(t, f.device(t, f.user(t)), gateway, "b")
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		took, err := tx.TakeExit(ctx, control.SessionExit{Session: withExit(session, server.ID), BeforeID: plain.ID, SwitchedAt: &since}, 1)
		same(t, true, took)
		return errors.Join(err, tx.UpdateOutlineServer(ctx, server), tx.SetOutlineHealth(ctx, server.ID, server.Health), tx.PutOutlineKey(ctx, key))
	})
	server.Sessions = 1
	check(server)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		got, err1 := tx.OutlineKey(ctx, server.ID)
		same(t, key, got)
		exit, err2 := tx.SessionExit(ctx, session.ID)
		same(t, control.SessionExit{Session: withExit(session, server.ID), BeforeID: plain.ID, SwitchedAt: &since}, exit)
		listed, err3 := tx.OutlineServers(ctx, control.OutlineFilter{}, control.Page{Limit: 10})
		same(t, []control.OutlineServer{server, plain}, listed)
		after, err4 := tx.OutlineServers(ctx, control.OutlineFilter{RegionID: gateway.RegionID}, control.Page{After: server.ID, Limit: 10})
		same(t, []control.OutlineServer{plain}, after)
		named, err5 := tx.OutlineServers(ctx, control.OutlineFilter{Name: "x"}, control.Page{Limit: 10})
		same(t, []control.OutlineServer{server}, named)
		values, err6 := tx.SealedValues(ctx)
		same(t, 2, len(values))
		same(t, control.SealedValue{Table: "outline_keys", Row: server.ID + "/2", Column: "sealed", Sealed: key.Sealed}, values[0])
		err7 := tx.ReplaceSealed(ctx, values[0], []byte("sealed again"))
		again, err8 := tx.OutlineKey(ctx, server.ID)
		same(t, "sealed again", string(again.Sealed))
		return errors.Join(err1, err2, err3, err4, err5, err6, err7, err8)
	})

	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.DeleteOutlineServer(ctx, server.ID) })
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		for name, look := range map[string]func() error{
			"server": func() error { _, err := tx.OutlineServer(ctx, server.ID); return err },
			"peek":   func() error { _, err := tx.PeekOutlineServer(ctx, server.ID); return err },
			"key":    func() error { _, err := tx.OutlineKey(ctx, server.ID); return err },
			"probe":  func() error { _, err := tx.OutlineProbe(ctx, server.ID, gateway.ID); return err },
			"exit":   func() error { _, err := tx.SessionExit(ctx, sessionID()); return err },
			"update": func() error { return tx.UpdateOutlineServer(ctx, server) },
			"health": func() error { return tx.SetOutlineHealth(ctx, server.ID, server.Health) },
			"delete": func() error { return tx.DeleteOutlineServer(ctx, server.ID) },
		} {
			if err := look(); !errors.Is(err, control.ErrNotFound) {
				t.Errorf("%s of a deleted server: %v", name, err)
			}
		}
		return nil
	})
	for name, change := range map[string]func(*control.OutlineServer){
		"name":    func(s *control.OutlineServer) { s.Name = plain.Name },
		"address": func(s *control.OutlineServer) { s.Host = plain.Host },
		"region":  func(s *control.OutlineServer) { s.RegionID = id() },
	} {
		clash := plain
		clash.ID, clash.Name, clash.Host = id(), id(), id()
		change(&clash)
		err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error { return tx.InsertOutlineServer(ctx, clash) })
		if _, conflict := errors.AsType[*control.ConflictError](err); !conflict {
			t.Errorf("a second one with the same %s: %v", name, err)
		}
	}
	err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error { return tx.DeleteRegion(ctx, gateway.RegionID) })
	if _, conflict := errors.AsType[*control.ConflictError](err); !conflict {
		t.Errorf("a region with servers is deleted: %v", err)
	}
}

func withExit(s control.Session, serverID string) control.Session {
	s.OutlineServerID = serverID
	return s
}

func testOutlineChoices(f fixture) {
	t := f.t
	gateway, other := f.gateway(t, "b"), f.gateway(t, "b")
	second := f.outline(t, gateway, func(s *control.OutlineServer) { s.Priority = 2 })
	first := f.outline(t, gateway, func(s *control.OutlineServer) { s.Priority = 1 })
	foreign := f.outline(t, other, func(s *control.OutlineServer) { s.Fallback = true })
	f.outline(t, other, nil)
	f.outline(t, gateway, func(s *control.OutlineServer) { s.DisabledAt = &now })
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		all, err1 := tx.OutlineChoices(ctx, gateway.Region, 10)
		same(t, []control.OutlineServer{first, second, foreign}, all)
		few, err2 := tx.OutlineChoices(ctx, gateway.Region, 1)
		same(t, []control.OutlineServer{first}, few)
		elsewhere, err3 := tx.OutlineChoices(ctx, "elsewhere", 10)
		same(t, []control.OutlineServer{foreign}, elsewhere)
		return errors.Join(err1, err2, err3)
	})
	// What the metrics say.
	young, old := now, now.Add(-time.Hour)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		return errors.Join(
			tx.SetOutlineHealth(ctx, first.ID, control.OutlineHealth{State: control.OutlineDown, ProbedAt: &young}),
			tx.SetOutlineHealth(ctx, second.ID, control.OutlineHealth{State: control.OutlineUp, ProbedAt: &young}),
			tx.SetOutlineHealth(ctx, foreign.ID, control.OutlineHealth{State: control.OutlineDown, ProbedAt: &old}),
		)
	})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		got, err := tx.OutlineSummary(ctx, now.Add(-time.Minute))
		same(t, control.OutlineSummary{Capacity: 3000, Servers: map[control.OutlineState]int{
			control.OutlineDown: 1, control.OutlineUp: 1, control.OutlineUnknown: 2, control.OutlineDisabled: 1,
		}}, got)
		return err
	})
}

func testOutlineProbes(f fixture) {
	t := f.t
	gateway, other := f.gateway(t, "b"), f.gateway(t, "b")
	server := f.outline(t, gateway, nil)
	first := control.OutlineProbe{ServerID: server.ID, GatewayID: gateway.ID, Streak: -3, Failure: control.OutlineReset, ProbedAt: now}
	second := control.OutlineProbe{ServerID: server.ID, GatewayID: other.ID, Streak: 1, Latency: 1234 * time.Microsecond, ProbedAt: now.Add(-time.Minute)}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		if err := errors.Join(
			tx.PutOutlineProbe(ctx, control.OutlineProbe{ServerID: server.ID, GatewayID: gateway.ID, Streak: 7, ProbedAt: now.Add(-time.Hour)}),
			tx.PutOutlineProbe(ctx, first), tx.PutOutlineProbe(ctx, second),
		); err != nil {
			return err
		}
		got, err1 := tx.OutlineProbe(ctx, server.ID, gateway.ID)
		same(t, first, got)
		all, err2 := tx.OutlineProbes(ctx, server.ID, now.Add(-time.Minute), 10)
		same(t, []control.OutlineProbe{first, second}, all)
		late, err3 := tx.OutlineProbes(ctx, server.ID, now, 10)
		same(t, []control.OutlineProbe{first}, late)
		few, err4 := tx.OutlineProbes(ctx, server.ID, now.Add(-time.Minute), 1)
		same(t, []control.OutlineProbe{first}, few)
		err5 := tx.DeleteGateway(ctx, gateway.ID) // and what it saw
		left, err6 := tx.OutlineProbes(ctx, server.ID, now.Add(-time.Minute), 10)
		same(t, []control.OutlineProbe{second}, left)
		return errors.Join(err1, err2, err3, err4, err5, err6)
	})
	err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error { return tx.PutOutlineProbe(ctx, first) })
	if _, conflict := errors.AsType[*control.ConflictError](err); !conflict {
		t.Errorf("what a gateway saw that is gone: %v", err)
	}
}

func testOutlineLimit(f fixture) {
	const limit = 5
	t := f.t
	gateway := f.gateway(t, "b")
	device := f.device(t, f.user(t))
	server := f.outline(t, gateway, nil)
	sessions := make([]control.Session, callers)
	for i := range sessions {
		sessions[i] = withExit(f.session(t, device, gateway, "b"), server.ID)
	}
	take := func(ctx context.Context, tx control.Tx, caller int) (bool, error) {
		if _, err := tx.OutlineServer(ctx, server.ID); err != nil {
			return false, err
		}
		return tx.TakeExit(ctx, control.SessionExit{Session: sessions[caller]}, limit)
	}
	if won := f.race(t, take); won != limit {
		t.Errorf("%d of %d took a place, want %d", won, callers, limit)
	}
	count := func() (n int) {
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			var err error
			n, err = tx.CountOutlineSessions(ctx, server.ID)
			return err
		})
		return n
	}
	same(t, limit, count())

	// Whoever has a place may take it again, and whatever ends a session frees it.
	var holders []control.Session
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		for _, s := range sessions {
			exit, err := tx.SessionExit(ctx, s.ID)
			if err != nil {
				return err
			}
			if exit.OutlineServerID != "" {
				holders = append(holders, s)
			}
		}
		again, err := tx.TakeExit(ctx, control.SessionExit{Session: holders[0]}, limit)
		same(t, true, again)
		if err := tx.LeaveExit(ctx, id(), holders[0].ID); err != nil { // another gateway's: nothing happens
			return err
		}
		return err
	})
	same(t, limit, count())
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		return errors.Join(
			tx.EndSessions(ctx, gateway.ID, []control.SessionEnd{{ID: holders[0].ID, Reason: "x"}}, now),
			tx.LeaveExit(ctx, gateway.ID, holders[1].ID),
		)
	})
	same(t, limit-2, count())
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		ended, err := tx.TakeExit(ctx, control.SessionExit{Session: holders[0]}, limit)
		same(t, false, ended)
		if err != nil {
			return err
		}
		return tx.EndOtherBoots(ctx, gateway.ID, "another", "restarted", now)
	})
	same(t, 0, count())
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		kept, err := tx.Session(ctx, holders[2].ID) // a record of what happened
		same(t, server.ID, kept.OutlineServerID)
		return err
	})
}
