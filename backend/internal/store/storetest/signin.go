package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

// signers inserts two operators who sign in.
func signers(f fixture) (ann, bob control.Operator, signIns []control.SignIn) {
	f.t.Helper()
	ann = control.Operator{ID: id(), Name: "ann", Role: control.RoleOwner, CreatedAt: now}
	bob = control.Operator{ID: id(), Name: "bob", Role: control.RoleSupport, CreatedAt: now}
	for _, o := range []control.Operator{ann, bob} {
		signIns = append(signIns, control.SignIn{
			OperatorID: o.ID, Password: "hash of " + o.Name, SealedTOTP: random(50), LastStep: 7, GuessesBack: now.Add(time.Hour), Failures: 2, ChangedAt: now,
		})
	}
	f.write(f.t, func(ctx context.Context, tx control.Tx) error {
		return errors.Join(tx.InsertOperator(ctx, ann), tx.InsertOperator(ctx, bob), tx.PutSignIn(ctx, signIns[0]), tx.PutSignIn(ctx, signIns[1]))
	})
	return ann, bob, signIns
}

func testSignIns(f fixture) {
	t := f.t
	ann, bob, signIns := signers(f)
	codes := [][]byte{random(32), random(32), random(32)}
	clients := []control.KnownClient{
		{OperatorID: ann.ID, Hash: random(32), GuessesBack: now, SeenAt: now, CreatedAt: now},
		{OperatorID: ann.ID, Hash: random(32), GuessesBack: now, SeenAt: now.Add(2), CreatedAt: now},
		{OperatorID: ann.ID, Hash: random(32), GuessesBack: now, SeenAt: now.Add(time.Hour), CreatedAt: now},
		{OperatorID: bob.ID, Hash: random(32), GuessesBack: now, SeenAt: now, CreatedAt: now},
	}
	clients[1].SeenAt = now.Add(time.Minute)
	invitation := control.OperatorInvitation{OperatorID: bob.ID, CodeHash: random(32), ExpiresAt: now.Add(time.Hour), CreatedAt: now}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		errs := []error{tx.PutRecoveryCodes(ctx, ann.ID, codes), tx.PutRecoveryCodes(ctx, bob.ID, codes[:1])}
		for _, client := range clients {
			errs = append(errs, tx.PutKnownClient(ctx, client))
		}
		invited := invitation
		invited.CodeHash = random(32)
		return errors.Join(append(errs, tx.PutOperatorInvitation(ctx, invited), tx.PutOperatorInvitation(ctx, invitation))...)
	})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		account, err1 := tx.AccountByName(ctx, "ann")
		same(t, control.Account{Operator: ann, SignIn: signIns[0]}, account)
		account, err2 := tx.AccountOf(ctx, bob.ID)
		same(t, control.Account{Operator: bob, SignIn: signIns[1]}, account)
		got, err3 := tx.SignIn(ctx, ann.ID)
		same(t, signIns[0], got)

		noted := signIns[0]
		noted.LastStep, noted.GuessesBack, noted.Failures = 8, now, 0
		err4 := tx.NoteSignIn(ctx, noted)
		err5 := tx.AddFailures(ctx, ann.ID, 3)
		noted.Failures = 3
		got, err6 := tx.SignIn(ctx, ann.ID)
		same(t, noted, got)
		changed := control.SignIn{OperatorID: ann.ID, Password: "another", SealedTOTP: random(50), GuessesBack: now, ChangedAt: now.Add(time.Hour)}
		err7 := tx.PutSignIn(ctx, changed)
		got, err8 := tx.SignIn(ctx, ann.ID)
		same(t, changed, got)

		has, err9 := tx.HasRecoveryCode(ctx, bob.ID, codes[1]) // which is ann's
		same(t, false, has)
		taken, err10 := tx.TakeRecoveryCode(ctx, ann.ID, codes[1])
		again, err11 := tx.TakeRecoveryCode(ctx, ann.ID, codes[1])
		same(t, []bool{true, false}, []bool{taken, again})
		left, err12 := tx.CountRecoveryCodes(ctx, ann.ID)
		same(t, 2, left)
		return errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, err9, err10, err11, err12)
	})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		if _, err := tx.KnownClient(ctx, bob.ID, clients[0].Hash); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("another operator's client gives %v", err)
		}
		seen := clients[0]
		seen.GuessesBack, seen.SeenAt = now.Add(time.Minute), now.Add(2*time.Hour)
		err1 := tx.PutKnownClient(ctx, seen)
		err2 := tx.DropKnownClients(ctx, ann.ID, 2)
		got, err3 := tx.KnownClient(ctx, ann.ID, seen.Hash)
		same(t, seen, got)
		_, err4 := tx.KnownClient(ctx, ann.ID, clients[2].Hash)
		_, err5 := tx.KnownClient(ctx, bob.ID, clients[3].Hash)
		if _, err := tx.KnownClient(ctx, ann.ID, clients[1].Hash); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("the one that was not seen for longest gives %v", err)
		}
		invited, err6 := tx.OperatorInvitation(ctx, invitation.CodeHash)
		same(t, invitation, invited)
		taken, err7 := tx.TakeOperatorInvitation(ctx, invitation.CodeHash)
		again, err8 := tx.TakeOperatorInvitation(ctx, invitation.CodeHash)
		same(t, []bool{true, false}, []bool{taken, again})
		return errors.Join(err1, err2, err3, err4, err5, err6, err7, err8, tx.PutOperatorInvitation(ctx, invitation))
	})
	bob.DisabledAt = new(now)
	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.UpdateOperator(ctx, bob) })
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		if _, err := tx.AccountByName(ctx, "bob"); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("the account of a disabled operator gives %v", err)
		}
		n, err := tx.DeleteSignIns(ctx)
		same(t, 2, n)
		if _, err := tx.SignIn(ctx, ann.ID); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("after all were deleted: %v", err)
		}
		if _, err := tx.OperatorInvitation(ctx, invitation.CodeHash); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("the invitation gives %v", err)
		}
		left, err2 := tx.CountRecoveryCodes(ctx, ann.ID)
		same(t, 0, left)
		if err := tx.NoteSignIn(ctx, signIns[0]); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("noting what is gone gives %v", err)
		}
		return errors.Join(err, err2)
	})
}

func testLogins(f fixture) {
	t := f.t
	ann, bob, _ := signers(f)
	login := func(of control.Operator, cookie bool, ends time.Duration) control.Login {
		return control.Login{
			ID: id(), OperatorID: of.ID, Hash: random(32), Cookie: cookie, Address: "192.0.2.1", CreatedAt: now, SeenAt: now,
			EndsAt: now.Add(ends), ExpiresAt: now.Add(12 * time.Hour),
		}
	}
	logins := []control.Login{login(ann, false, time.Hour), login(ann, true, time.Hour), login(bob, false, time.Hour), login(ann, false, time.Minute)}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		var errs []error
		for _, l := range logins {
			errs = append(errs, tx.InsertLogin(ctx, l))
		}
		return errors.Join(errs...)
	})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		all, err1 := tx.Logins(ctx, "", now.Add(time.Minute), control.Page{Limit: 9})
		same(t, logins[:3], all)
		own, err2 := tx.Logins(ctx, ann.ID, now, control.Page{After: logins[0].ID, Limit: 1})
		same(t, logins[1:2], own)
		one, err3 := tx.Login(ctx, logins[3].ID)
		same(t, logins[3], one)
		who, err4 := tx.OperatorByLogin(ctx, logins[2].Hash, false, now)
		want := control.APIToken{
			ID: logins[2].ID, OperatorID: bob.ID, Role: bob.Role, Hash: logins[2].Hash, ExpiresAt: logins[2].ExpiresAt, CreatedAt: now,
		}
		same(t, control.Bearer{Operator: bob, Token: want, Login: &logins[2]}, who)
		for what, ask := range map[string]func() (control.Bearer, error){
			"a cookie's as a token": func() (control.Bearer, error) { return tx.OperatorByLogin(ctx, logins[1].Hash, false, now) },
			"a token's as a cookie": func() (control.Bearer, error) { return tx.OperatorByLogin(ctx, logins[0].Hash, true, now) },
			"one that has ended": func() (control.Bearer, error) {
				return tx.OperatorByLogin(ctx, logins[3].Hash, false, logins[3].EndsAt)
			},
		} {
			if _, err := ask(); !errors.Is(err, control.ErrNotFound) {
				t.Errorf("%s gives %v", what, err)
			}
		}
		seen := logins[3]
		seen.SeenAt, seen.EndsAt = now.Add(time.Second), now.Add(2*time.Hour)
		err5 := tx.TouchLogin(ctx, seen)
		one, err6 := tx.Login(ctx, seen.ID)
		same(t, seen, one)
		return errors.Join(err1, err2, err3, err4, err5, err6)
	})
	bob.DisabledAt = new(now)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		err1 := tx.UpdateOperator(ctx, bob)
		if _, err := tx.OperatorByLogin(ctx, logins[2].Hash, false, now); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("the login of a disabled operator gives %v", err)
		}
		err2 := tx.DeleteLogin(ctx, logins[0].ID)
		if err := tx.DeleteLogin(ctx, logins[0].ID); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("deleting it again gives %v", err)
		}
		pruned, err3 := tx.PruneLogins(ctx, now.Add(90*time.Minute), 1)
		rest, err4 := tx.PruneLogins(ctx, now.Add(90*time.Minute), 9)
		same(t, []int{1, 1}, []int{pruned, rest})
		n, err5 := tx.DeleteLogins(ctx)
		same(t, 1, n)
		return errors.Join(err1, err2, err3, err4, err5)
	})
}
