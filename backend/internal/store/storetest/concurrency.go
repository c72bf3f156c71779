package storetest

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

func testLimitWhileSessionsEnd(f fixture) {
	const limit, rounds = 5, 4
	t := f.t
	user, gateway := f.user(t), f.gateway(t, "b")
	device := f.device(t, user)
	var (
		group sync.WaitGroup
		began atomic.Int64
	)
	// start begins a session if the limit allows it, and counts what is live then.
	start := func(session control.Session) (won bool) {
		err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
			if _, err := tx.LockUser(ctx, user.ID); err != nil {
				return err
			}
			var err error
			if won, err = tx.StartSession(ctx, session, now, limit); err != nil {
				return err
			}
			live, err := tx.Sessions(ctx, control.SessionFilter{State: control.LiveSessions, UserID: user.ID}, now, control.Page{Limit: callers})
			if len(live) > limit {
				t.Errorf("%d sessions are live, want at most %d", len(live), limit)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return won
	}
	for range callers {
		group.Go(func() {
			for range rounds {
				session := control.Session{
					ID: sessionID(), DeviceID: device.ID, UserID: user.ID, GatewayID: gateway.ID, BootID: "b", StartedAt: now,
				}
				if !start(session) {
					continue
				}
				began.Add(1)
				err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
					return tx.EndSessions(ctx, gateway.ID, []control.SessionEnd{{ID: session.ID, Reason: "x"}}, now)
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	group.Wait()
	if began.Load() < limit {
		t.Errorf("%d sessions began, want more", began.Load())
	}
}

func testSameSession(f fixture) {
	t := f.t
	user, gateway := f.user(t), f.gateway(t, "b")
	device := f.device(t, user)
	session := control.Session{
		ID: sessionID(), DeviceID: device.ID, UserID: user.ID, GatewayID: gateway.ID, BootID: "b", StartedAt: now,
	}
	// Nobody holds the user, as when the callers' users differ.
	won := f.race(t, func(ctx context.Context, tx control.Tx, _ int) (bool, error) {
		if _, err := tx.Session(ctx, session.ID); !errors.Is(err, control.ErrNotFound) {
			return false, err
		}
		return tx.StartSession(ctx, session, now, callers)
	})
	if won != 1 {
		t.Errorf("%d of %d began it, want 1 and that the others find it", won, callers)
	}
}

func testReadThenChange(f fixture) {
	t := f.t
	user := f.user(t)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		user.Note = "0"
		return tx.UpdateUser(ctx, user)
	})
	f.race(t, func(ctx context.Context, tx control.Tx, _ int) (bool, error) {
		u, err := tx.User(ctx, user.ID)
		if err != nil {
			return false, err
		}
		n, err := strconv.Atoi(u.Note)
		if err != nil {
			return false, err
		}
		u.Note = strconv.Itoa(n + 1)
		return true, tx.UpdateUser(ctx, u)
	})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		u, err := tx.User(ctx, user.ID)
		same(t, strconv.Itoa(callers), u.Note)
		return err
	})
}

func testSeenRedeemed(f fixture) {
	t := f.t
	user := f.user(t)
	invitation := f.invitation(t, user, now.Add(time.Hour))
	devices := make([]control.Device, callers)
	for i := range devices {
		devices[i] = f.device(t, user)
	}
	won := f.race(t, func(ctx context.Context, tx control.Tx, caller int) (bool, error) {
		i, err := tx.InvitationByCode(ctx, invitation.CodeHash)
		if err != nil || i.UsedAt != nil {
			return false, err
		}
		redeemed, err := tx.RedeemInvitation(ctx, i.ID, devices[caller].ID, now)
		if err == nil && !redeemed {
			err = errors.New("it was redeemed behind the back of one who had looked at it")
		}
		return redeemed, err
	})
	if won != 1 {
		t.Errorf("%d of %d redeemed it, want 1", won, callers)
	}
}

func testOnceAtATime(f fixture) {
	t := f.t
	operator := control.Operator{ID: id(), Name: "root", Role: control.RoleOwner, CreatedAt: now}
	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.InsertOperator(ctx, operator) })
	name := "user " + id()
	won := f.race(t, func(ctx context.Context, tx control.Tx, _ int) (bool, error) {
		if _, err := tx.OnceResult(ctx, operator.ID, "key"); !errors.Is(err, control.ErrNotFound) {
			return false, err
		}
		made := control.User{ID: id(), Name: name, CreatedAt: now}
		return true, errors.Join(
			tx.InsertUser(ctx, made),
			tx.InsertOnceResult(ctx, operator.ID, "key", control.OnceResult{ObjectID: made.ID, CreatedAt: now}),
		)
	})
	if won != 1 {
		t.Errorf("%d of %d made it, want 1 and that the others find it", won, callers)
	}
}

func testServiceLock(f fixture) {
	t := f.t
	values := make([]string, callers)
	f.race(t, func(ctx context.Context, tx control.Tx, caller int) (bool, error) {
		if err := tx.LockService(ctx); err != nil {
			return false, err
		}
		value, err := tx.Setting(ctx, "identity")
		if errors.Is(err, control.ErrNotFound) {
			value = fmt.Sprint(caller)
			err = tx.PutSetting(ctx, "identity", value)
		}
		values[caller] = value
		return true, err
	})
	for _, value := range values {
		same(t, values[0], value)
	}
}

func testOneMoment(f fixture) {
	t := f.t
	user := f.user(t)
	err := f.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
		before, err := tx.User(ctx, user.ID)
		if err != nil {
			return err
		}
		f.user(t)
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			changed := user
			changed.Note = "changed behind a reader's back"
			return tx.UpdateUser(ctx, changed)
		})
		after, err1 := tx.User(ctx, user.ID)
		all, err2 := tx.Users(ctx, "", control.Page{Limit: 10})
		same(t, before, after)
		same(t, 1, len(all))
		return errors.Join(err1, err2)
	})
	if err != nil {
		t.Error(err)
	}
}

func testNoText(f fixture) {
	t := f.t
	for _, text := range []string{"a\x00b", "\xff"} {
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			if _, err := tx.UserByName(ctx, text); !errors.Is(err, control.ErrNotFound) {
				t.Errorf("UserByName = %v, want ErrNotFound", err)
			}
			if err := tx.DeleteUser(ctx, text); !errors.Is(err, control.ErrNotFound) {
				t.Errorf("DeleteUser = %v, want ErrNotFound", err)
			}
			users, err := tx.Users(ctx, text, control.Page{Limit: 10})
			same(t, 0, len(users))
			return err
		})
		err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
			return tx.InsertUser(ctx, control.User{ID: id(), Name: text, CreatedAt: now})
		})
		if err == nil {
			t.Errorf("%q was kept", text)
		}
	}
}
