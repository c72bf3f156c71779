package control

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/httvps/httvps/sdk/go/knock"
)

const (
	// knockLead is how long gateways know a new knock key before the first
	// device gets it: they ask for their configuration every five minutes.
	knockLead = 15 * time.Minute
	// knockKeep is how long a knock key stays in force after devices get another
	// one: a token, and with it the key that came with it, lasts an hour.
	knockKeep = 24 * time.Hour
	// maxKnockKeys bounds the keys in force, each of which costs a gateway some
	// work for every stranger.
	maxKnockKeys = 8
)

// ErrKnockKeys says that there are as many knock keys in force as there may be.
var ErrKnockKeys = errors.New("too many knock keys are in force: wait until the oldest is not")

// SealedKnockKey is a knock key as the database keeps it.
type SealedKnockKey struct {
	Number     int64 // 1, 2, …; unique
	Sealed     []byte
	ActiveFrom time.Time // when devices begin to get it
	CreatedAt  time.Time
}

func (k SealedKnockKey) place() string {
	return sealedPlace("knock_keys", strconv.FormatInt(k.Number, 10), "sealed")
}

// Knock is what a device makes itself known to gateways by.
type Knock struct {
	Cookie string
	Key    knock.Key
}

// GatewayKnock is what gateways know devices by.
type GatewayKnock struct {
	Cookie   string
	Keys     []knock.Key // in force, and those that will be next; newest first
	Versions KeyVersions // of all that the gateway's configuration holds
}

// inForce returns the keys that gateways accept at now, of all keys newest
// first: those that devices will get, the one that they get, and those before it
// until devices had 24 hours to get another.
func inForce(keys []SealedKnockKey, now time.Time) []SealedKnockKey {
	for i, key := range keys {
		if !now.Before(key.ActiveFrom.Add(knockKeep)) {
			return keys[:i+1] // all that are older have been replaced for long enough
		}
	}
	return keys
}

// active returns the key that devices get at now, of keys newest first: the
// newest that is not one of the future. The oldest is given out in any case: a
// clock that was put back shall not stop the service.
func active(keys []SealedKnockKey, now time.Time) (SealedKnockKey, error) {
	for i, key := range keys {
		if !now.Before(key.ActiveFrom) || i == len(keys)-1 {
			return key, nil
		}
	}
	return SealedKnockKey{}, errors.New("there is no knock key")
}

func (a *Authority) openKnock(sealed SealedKnockKey) (knock.Key, error) {
	raw, err := a.opts.Sealer.Open(sealed.Sealed, sealed.place())
	if err == nil && len(raw) != len(knock.Key{}) {
		err = errors.New("wrong length")
	}
	if err != nil {
		return knock.Key{}, fmt.Errorf("open knock key %d: %w", sealed.Number, err)
	}
	return knock.Key(raw), nil
}

// newKnock adds a key behind the newest, which is the zero value for the first.
func (a *Authority) newKnock(ctx context.Context, tx Tx, newest SealedKnockKey, now, activeFrom time.Time) (SealedKnockKey, error) {
	var key knock.Key
	_, _ = rand.Read(key[:]) // never fails
	sealed := SealedKnockKey{Number: newest.Number + 1, ActiveFrom: activeFrom, CreatedAt: now}
	var err error
	if sealed.Sealed, err = a.seal(ctx, tx, key[:], sealed.place()); err != nil {
		return SealedKnockKey{}, fmt.Errorf("seal knock key: %w", err)
	}
	a.tellKeys(tx, KeysKnock)
	return sealed, tx.InsertKnockKey(ctx, sealed)
}

// firstKnock makes the service's first knock key unless there is one. Nobody
// else has it yet, so there is nothing to wait for.
func (a *Authority) firstKnock(ctx context.Context, tx Tx) error {
	keys, err := tx.KnockKeys(ctx)
	if err != nil || len(keys) > 0 {
		return err
	}
	now := a.now()
	_, err = a.newKnock(ctx, tx, SealedKnockKey{}, now, now)
	return err
}

// deviceKnock returns what devices get now.
func (a *Authority) deviceKnock(ctx context.Context, tx Tx) (Knock, error) {
	keys, err := tx.KnockKeys(ctx)
	if err != nil {
		return Knock{}, err
	}
	sealed, err := active(keys, a.now())
	if err != nil {
		return Knock{}, err
	}
	key, err := a.openKnock(sealed)
	return Knock{Cookie: a.opts.KnockCookie, Key: key}, err
}

// GatewayKnock returns what gateways are to know devices by.
func (a *Authority) GatewayKnock(ctx context.Context) (GatewayKnock, error) {
	told := GatewayKnock{Cookie: a.opts.KnockCookie}
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		told.Keys = nil
		keys, err := tx.KnockKeys(ctx)
		if err != nil {
			return err
		}
		signing, err := a.signingNow(ctx, tx)
		if err != nil {
			return err
		}
		known := inForce(keys, a.now())
		told.Versions = a.keyVersions(signing, known)
		for _, sealed := range known {
			key, err := a.openKnock(sealed)
			if err != nil {
				return err
			}
			told.Keys = append(told.Keys, key)
		}
		return nil
	})
	return told, err
}

// KeepKnock makes the next knock key when its time has come and forgets those
// that are in force no more. It reports whether it made one. It is to be called
// every few minutes.
func (a *Authority) KeepKnock(ctx context.Context) (made bool, err error) {
	err = a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		made = false
		keys, err := tx.KnockKeys(ctx)
		if err != nil {
			return err
		}
		now := a.now()
		// First what is sealed, then what goes: whoever replaces the sealing key holds
		// that key before the rows.
		if len(keys) > 0 && !now.Before(keys[0].ActiveFrom.Add(a.opts.KnockRotation)) {
			if _, err := a.newKnock(ctx, tx, keys[0], now, now.Add(knockLead)); err != nil {
				return err
			}
			made = true
		}
		for _, old := range keys[len(inForce(keys, now)):] {
			if err := tx.DeleteKnockKey(ctx, old.Number); err != nil && !errors.Is(err, ErrNotFound) {
				return err
			}
			a.tellKeys(tx, KeysKnock)
		}
		return nil
	})
	return made, notTwice(err)
}

// RotateKnock makes the next knock key now, whenever its time would have come, and
// returns when devices begin to get it. A key that waits for its time already is
// the next one.
func (a *Authority) RotateKnock(ctx context.Context) (activeFrom time.Time, err error) {
	err = a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		keys, err := tx.KnockKeys(ctx)
		if err != nil {
			return err
		}
		now := a.now()
		if len(keys) > 0 {
			// One that has longer to wait was made by a clock that was ahead.
			activeFrom = keys[0].ActiveFrom
			if wait := activeFrom.Sub(now); wait > 0 && wait <= knockLead {
				return nil
			}
		}
		if len(inForce(keys, now)) >= maxKnockKeys {
			return ErrKnockKeys
		}
		var newest SealedKnockKey
		if len(keys) > 0 {
			newest = keys[0]
		}
		next, err := a.newKnock(ctx, tx, newest, now, now.Add(knockLead))
		activeFrom = next.ActiveFrom
		return err
	})
	return activeFrom, err
}

// notTwice takes it well when another process on the same records has made the
// key of this number first.
func notTwice(err error) error {
	if _, clash := errors.AsType[*ConflictError](err); clash {
		return nil
	}
	return err
}
