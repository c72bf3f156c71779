package store

import (
	"context"

	"github.com/httvps/httvps/backend/internal/control"
)

const knockColumns = "number, sealed, active_from, created_at"

func scanKnockKey(r row) (k control.SealedKnockKey, err error) {
	err = r.Scan(&k.Number, &k.Sealed, moment{&k.ActiveFrom}, moment{&k.CreatedAt})
	return k, err
}

func (t *tx) KnockKeys(ctx context.Context) ([]control.SealedKnockKey, error) {
	return many(ctx, t, scanKnockKey, "SELECT "+knockColumns+" FROM knock_keys ORDER BY number DESC")
}

func (t *tx) InsertKnockKey(ctx context.Context, k control.SealedKnockKey) error {
	_, err := t.exec(ctx, "there is a knock key with this number",
		"INSERT INTO knock_keys ("+knockColumns+") VALUES ($1, $2, $3, $4)",
		k.Number, k.Sealed, micros(k.ActiveFrom), micros(k.CreatedAt))
	return err
}

func (t *tx) DeleteKnockKey(ctx context.Context, number int64) error {
	return t.execOne(ctx, "", "DELETE FROM knock_keys WHERE number = $1", number)
}
