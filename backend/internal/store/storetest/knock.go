package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

func testKnockKeys(f fixture) {
	t := f.t
	first := control.SealedKnockKey{Number: 1, Sealed: random(60), ActiveFrom: now, CreatedAt: now}
	next := control.SealedKnockKey{Number: 2, Sealed: random(60), ActiveFrom: now.Add(time.Hour), CreatedAt: now}
	tenth := control.SealedKnockKey{Number: 10, Sealed: random(60), ActiveFrom: now.Add(2 * time.Hour), CreatedAt: now}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		none, err1 := tx.KnockKeys(ctx)
		same(t, 0, len(none))
		err2 := errors.Join(tx.InsertKnockKey(ctx, next), tx.InsertKnockKey(ctx, tenth), tx.InsertKnockKey(ctx, first))
		all, err3 := tx.KnockKeys(ctx)
		same(t, []control.SealedKnockKey{tenth, next, first}, all)
		err4 := tx.DeleteKnockKey(ctx, 2)
		if err := tx.DeleteKnockKey(ctx, 2); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("deleted twice: %v", err)
		}
		left, err5 := tx.KnockKeys(ctx)
		same(t, []control.SealedKnockKey{tenth, first}, left)
		return errors.Join(err1, err2, err3, err4, err5)
	})
	err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error { return tx.InsertKnockKey(ctx, first) })
	if _, clash := errors.AsType[*control.ConflictError](err); !clash {
		t.Errorf("a number given twice is %v", err)
	}
}

func testSecrets(f fixture) {
	t := f.t
	first := control.SealedSecret{ID: id(), Kind: "kind", Sealed: random(60), CreatedAt: now}
	other := control.SealedSecret{ID: id(), Kind: "other", Sealed: random(60), CreatedAt: now}
	second := control.SealedSecret{ID: id(), Kind: "kind", Sealed: random(60), CreatedAt: now}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		err1 := errors.Join(tx.InsertSecret(ctx, first), tx.InsertSecret(ctx, other), tx.InsertSecret(ctx, second))
		all, err2 := tx.Secrets(ctx, "kind")
		same(t, []control.SealedSecret{second, first}, all)
		err3 := tx.DeleteSecret(ctx, first.ID)
		if err := tx.DeleteSecret(ctx, first.ID); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("deleted twice: %v", err)
		}
		left, err4 := tx.Secrets(ctx, "kind")
		same(t, []control.SealedSecret{second}, left)
		return errors.Join(err1, err2, err3, err4)
	})
}

func testSealedValues(f fixture) {
	t := f.t
	secret := control.SealedSecret{ID: id(), Kind: "kind", Sealed: random(60), CreatedAt: now}
	key := control.SealedKnockKey{Number: 7, Sealed: random(60), ActiveFrom: now, CreatedAt: now}
	want := []control.SealedValue{
		{Table: "secrets", Row: "kind/" + secret.ID, Column: "sealed", Sealed: secret.Sealed},
		{Table: "knock_keys", Row: "7", Column: "sealed", Sealed: key.Sealed},
	}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		return errors.Join(tx.InsertSecret(ctx, secret), tx.InsertKnockKey(ctx, key))
	})
	for i := range want {
		replacement := random(60)
		f.write(t, func(ctx context.Context, tx control.Tx) error {
			all, err := tx.SealedValues(ctx)
			same(t, want, all)
			// What has changed since it was read stays.
			stale := want[i]
			stale.Sealed = random(60)
			return errors.Join(err, tx.ReplaceSealed(ctx, stale, random(60)), tx.ReplaceSealed(ctx, want[i], replacement))
		})
		want[i].Sealed = replacement
	}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		all, err := tx.SealedValues(ctx)
		same(t, want, all)
		return err
	})
	if err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
		return tx.ReplaceSealed(ctx, control.SealedValue{Table: "users", Column: "name"}, nil)
	}); err == nil {
		t.Error("a name is replaced as if it were sealed")
	}
}
