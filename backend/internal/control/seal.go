package control

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Sealer keeps secrets readable to this service only while they lie in the
// database. It has one or more keys, which are called by ids.
type Sealer interface {
	// Newest is the key that a new service seals with.
	Newest() string
	// Has returns an error that names a key and what is there instead, unless that
	// key is there.
	Has(key string) error
	// Seal encrypts with a key. The same place, which says where a secret lies,
	// opens what it sealed.
	Seal(key string, plain []byte, place string) ([]byte, error)
	// Open decrypts with whichever key of its own that needs.
	Open(sealed []byte, place string) ([]byte, error)
	// KeyOf returns which key sealed a value, empty when the value is so old that it
	// does not say.
	KeyOf(sealed []byte) string
}

// SealedValue is a sealed secret wherever it lies.
type SealedValue struct {
	Table, Row, Column string
	Sealed             []byte
}

func (v SealedValue) place() string { return sealedPlace(v.Table, v.Row, v.Column) }

// sealedPlace says where a secret lies, so that a sealed value that was moved does
// not open.
func sealedPlace(table, row, column string) string { return table + "|" + row + "|" + column }

type sealedRows interface {
	// SealedValues returns all sealed secrets that the database holds, of which
	// there are few.
	SealedValues(ctx context.Context) ([]SealedValue, error)
	// ReplaceSealed puts another envelope in the place of v.
	ReplaceSealed(ctx context.Context, v SealedValue, sealed []byte) error
}

// settingSealingKey is the id of the key that everything is sealed with. Who seals
// looks it up in the same unit of work, which holds it: so nothing is sealed with
// the key before once another one is there.
const settingSealingKey = "sealing_key"

// seal encrypts a secret for its place with the key that is in use.
func (a *Authority) seal(ctx context.Context, tx Tx, plain []byte, place string) ([]byte, error) {
	key, err := tx.Setting(ctx, settingSealingKey)
	if err != nil {
		return nil, err
	}
	return a.opts.Sealer.Seal(key, plain, place)
}

// adoptKey makes sure that the service's key is there. A new service takes the
// newest, and so does one from the time before keys had ids, whose secrets are
// sealed again.
func (a *Authority) adoptKey(ctx context.Context, tx Tx) error {
	key, err := tx.Setting(ctx, settingSealingKey)
	if errors.Is(err, ErrNotFound) {
		_, err := reseal(ctx, tx, a.opts.Sealer, a.opts.Sealer.Newest())
		return err
	}
	if err != nil {
		return err
	}
	return a.opts.Sealer.Has(key)
}

// Sealing says which keys a service's secrets are sealed with.
type Sealing struct {
	Key    string         // that new secrets are sealed with; empty in a service that no version with ids has opened
	Values map[string]int // how many secrets each key has sealed; those that name none are under ""
}

// ReadSealing returns which keys the secrets in a store are sealed with.
func ReadSealing(ctx context.Context, store Store, sealer Sealer) (Sealing, error) {
	var s Sealing
	err := store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		s, err = readSealing(ctx, tx, sealer)
		return err
	})
	return s, err
}

func readSealing(ctx context.Context, tx Tx, sealer Sealer) (Sealing, error) {
	s := Sealing{Values: make(map[string]int)}
	var err error
	if s.Key, err = tx.Setting(ctx, settingSealingKey); err != nil && !errors.Is(err, ErrNotFound) {
		return s, err
	}
	values, err := tx.SealedValues(ctx)
	for _, v := range values {
		s.Values[sealer.KeyOf(v.Sealed)]++
	}
	return s, err
}

// CheckSealed returns what keeps a sealed secret of the records from being opened.
func CheckSealed(ctx context.Context, tx Tx, sealer Sealer) error {
	values, err := tx.SealedValues(ctx)
	for _, v := range values {
		if _, err := sealer.Open(v.Sealed, v.place()); err != nil {
			return fmt.Errorf("open %s: %w", v.place(), err)
		}
	}
	return err
}

// Reseal seals every secret in a store with a key, unless it is already, and makes
// it the one that new secrets are sealed with: all of that, or on an error
// nothing. Others may use the store. It returns how many it sealed.
func Reseal(ctx context.Context, store Store, sealer Sealer, key string) (int, error) {
	var n int
	audited := &auditing{Store: store, sealer: sealer, now: time.Now}
	err := audited.Write(ctx, func(ctx context.Context, tx Tx) error {
		err := tx.LockService(ctx)
		if err == nil {
			_, err = tx.Setting(ctx, settingSealingKey) // held from here on
		}
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		n, err = reseal(ctx, tx, sealer, key)
		return err
	})
	return n, err
}

func reseal(ctx context.Context, tx Tx, sealer Sealer, key string) (int, error) {
	if err := tx.PutSetting(ctx, settingSealingKey, key); err != nil {
		return 0, err
	}
	values, err := tx.SealedValues(ctx)
	if err != nil {
		return 0, err
	}
	n := 0
	for _, v := range values {
		if sealer.KeyOf(v.Sealed) == key {
			continue
		}
		plain, err := sealer.Open(v.Sealed, v.place())
		if err != nil {
			return 0, fmt.Errorf("seal %s again: %w", v.place(), err)
		}
		sealed, err := sealer.Seal(key, plain, v.place())
		if err != nil {
			return 0, fmt.Errorf("seal %s again: %w", v.place(), err)
		}
		if err := tx.ReplaceSealed(ctx, v, sealed); err != nil {
			return 0, err
		}
		n++
	}
	return n, nil
}
