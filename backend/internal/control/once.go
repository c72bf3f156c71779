package control

import (
	"context"
	"crypto/sha256"
	"errors"
	"time"
)

// OnceTTL is how long an idempotency key is remembered.
const OnceTTL = 24 * time.Hour

// Once makes a creating request repeatable: repeated with the same key it finds
// what it made the first time. The zero Once asks for nothing of the kind.
type Once struct {
	OperatorID string
	Key        string
	Request    [sha256.Size]byte // of everything the request said
}

// OnceResult is what a request with an idempotency key led to.
type OnceResult struct {
	Request   [sha256.Size]byte
	ObjectID  string
	CreatedAt time.Time
}

// create runs insert, which makes the object with the given id, once for each
// key, and returns the object as get reads it. The second result says that
// an earlier request had made it.
func create[T any](
	ctx context.Context, a *Authority, once Once, id string,
	insert func(context.Context, Tx) error, get func(Tx, context.Context, string) (T, error),
) (object T, replayed bool, err error) {
	err = a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		objectID := id
		replayed = false
		if once.Key != "" {
			earlier, err := tx.OnceResult(ctx, once.OperatorID, once.Key)
			switch {
			case err == nil && earlier.Request != once.Request:
				return ErrIdempotencyKeyReused
			case err == nil:
				objectID, replayed = earlier.ObjectID, true
			case !errors.Is(err, ErrNotFound):
				return err
			}
		}
		if !replayed {
			if err := insert(ctx, tx); err != nil {
				return err
			}
			if once.Key != "" {
				result := OnceResult{Request: once.Request, ObjectID: id, CreatedAt: a.now()}
				if err := tx.InsertOnceResult(ctx, once.OperatorID, once.Key, result); err != nil {
					return err
				}
			}
		}
		var err error
		object, err = get(tx, ctx, objectID)
		return err
	})
	return object, replayed, err
}

func get[T any](ctx context.Context, a *Authority, id string, get func(Tx, context.Context, string) (T, error)) (object T, err error) {
	err = a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		object, err = get(tx, ctx, id)
		return err
	})
	return object, err
}

func list[T any](ctx context.Context, a *Authority, list func(context.Context, Tx) ([]T, error)) (objects []T, err error) {
	err = a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		objects, err = list(ctx, tx)
		return err
	})
	return objects, err
}
