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
