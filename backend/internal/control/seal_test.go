package control_test

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"encoding/base64"
	"errors"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/seal"
	"github.com/httvps/httvps/backend/internal/store"
)

func sealedValues(t *testing.T, records control.Store) (values []control.SealedValue) {
	t.Helper()
	err := records.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
		var err error
		values, err = tx.SealedValues(ctx)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return values
}

func replaceSealed(t *testing.T, records control.Store, v control.SealedValue, sealed []byte) {
	t.Helper()
	err := records.Write(t.Context(), func(ctx context.Context, tx control.Tx) error { return tx.ReplaceSealed(ctx, v, sealed) })
	if err != nil {
		t.Fatal(err)
	}
}

func TestASealedSecretThatWasMovedToAnotherRowDoesNotOpenOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, records := openWorldOn(t, dir, where)
		ok[time.Time](t)(w.RotateKnock(t.Context()))
		before := sealedValues(t, records)
		if len(before) != 5 { // signing key, nonce key, audit key, two knock keys
			t.Fatalf("there are %d sealed secrets", len(before))
		}
		for i, v := range before {
			other := before[(i+1)%len(before)]
			replaceSealed(t, records, v, other.Sealed)
			_, opened := w.over(records, keysIn(t, dir, false))
			_, known := w.GatewayKnock(t.Context())
			if err := errors.Join(opened, known); !errors.Is(err, seal.ErrDamaged) {
				t.Errorf("%s/%s with the secret of %s/%s: %v, want ErrDamaged", v.Table, v.Row, other.Table, other.Row, err)
			}
			replaceSealed(t, records, control.SealedValue{Table: v.Table, Row: v.Row, Column: v.Column, Sealed: other.Sealed}, v.Sealed)
		}
		ok[*control.Authority](t)(w.over(records, keysIn(t, dir, false)))
	})
}

func TestAnotherKeyIsNamedAtTheStart(t *testing.T) {
	dir := t.TempDir()
	w, records := openWorld(t, dir)
	own, other := keysIn(t, dir, false), keysIn(t, t.TempDir(), true)
	_, err := w.over(records, other)
	unknown, named := errors.AsType[*seal.UnknownKeyError](err)
	if !named || unknown.ID != own.Newest() || !slices.Equal(unknown.Have, other.IDs()) {
		t.Errorf("Open = %v, want it to name both keys", err)
	}
}

// asBefore puts sealed secrets into the form that they had before keys had ids,
// under the key in a directory.
func asBefore(t *testing.T, records control.Store, dir string) {
	t.Helper()
	keys := keysIn(t, dir, false)
	text := ok[[]byte](t)(os.ReadFile(keys.Name()))
	raw := ok[[]byte](t)(base64.RawURLEncoding.DecodeString(strings.TrimSpace(string(text))))
	aead := ok[cipher.AEAD](t)(cipher.NewGCMWithRandomNonce(ok[cipher.Block](t)(aes.NewCipher(raw))))
	for _, v := range sealedValues(t, records) {
		place := v.Table + "|" + v.Row + "|" + v.Column
		plain, err := keys.Open(v.Sealed, place)
		if err != nil {
			t.Fatal(err)
		}
		replaceSealed(t, records, v, aead.Seal(nil, nil, plain, []byte(place)))
	}
	err := records.Write(t.Context(), func(ctx context.Context, tx control.Tx) error {
		key, err := tx.Setting(ctx, "sealing_key")
		if err == nil {
			_, err = tx.TakeSetting(ctx, "sealing_key", key)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSecretsFromBeforeKeysHadIDsAreSealedAgainOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, records := openWorldOn(t, dir, where)
		keys := keysIn(t, dir, false)
		asBefore(t, records, dir)
		if s := ok[control.Sealing](t)(control.ReadSealing(t.Context(), records, keys)); s.Key != "" || s.Values[""] != 4 {
			t.Fatalf("ReadSealing = %+v, want 4 secrets that name no key", s)
		}
		if _, err := w.over(records, keysIn(t, t.TempDir(), true)); !errors.Is(err, seal.ErrDamaged) || !strings.Contains(err.Error(), "holds") {
			t.Errorf("with another key: %v", err)
		}
		again := ok[*control.Authority](t)(w.over(records, keys))
		if s := ok[control.Sealing](t)(control.ReadSealing(t.Context(), records, keys)); s.Key != keys.Newest() || s.Values[keys.Newest()] != 4 {
			t.Errorf("ReadSealing = %+v, want everything sealed with %s", s, keys.Newest())
		}
		if jwks(t, again).Keys[0].ID != jwks(t, w.Authority).Keys[0].ID {
			t.Error("the signing key is another one")
		}
		if !slices.Equal(ok[control.GatewayKnock](t)(again.GatewayKnock(t.Context())).Keys, w.knocks()) {
			t.Error("the knock keys are others")
		}
	})
}

// The keys are replaced 20 times, while other processes make secrets and read them.
func TestSecretsAreSealedAgainWhileOthersMakeThemOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, records := openWorldOn(t, dir, where)
		rotating := keysIn(t, dir, false)
		var (
			group sync.WaitGroup
			stop  = make(chan struct{})
		)
		for range 4 {
			authority := ok[*control.Authority](t)(w.over(records, keysIn(t, dir, false)))
			group.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := authority.RotateKnock(t.Context()); err != nil && !errors.Is(err, control.ErrKnockKeys) {
						if _, clash := errors.AsType[*control.ConflictError](err); !clash { // with another process
							t.Errorf("RotateKnock = %v", err)
						}
					}
					if _, err := authority.GatewayKnock(t.Context()); err != nil {
						t.Errorf("GatewayKnock = %v", err)
					}
					w.pass(2 * week) // so that there is something to make and to forget
					if _, err := authority.KeepKnock(t.Context()); err != nil {
						t.Errorf("KeepKnock = %v", err)
					}
				}
			})
		}
		for range 20 {
			added := ok[string](t)(rotating.Add())
			ok[int](t)(control.Reseal(t.Context(), records, rotating, added))
			ok[[]string](t)(rotating.Retire(added))
			if s := ok[control.Sealing](t)(control.ReadSealing(t.Context(), records, rotating)); len(s.Values) != 1 || s.Values[added] == 0 {
				t.Errorf("ReadSealing = %+v, want everything sealed with %s", s, added)
			}
		}
		close(stop)
		group.Wait()
		ok[*control.Authority](t)(w.over(records, keysIn(t, dir, false)))
	})
}

func TestWhatCannotBeSealedAgainLeavesAllAsItWas(t *testing.T) {
	dir := t.TempDir()
	_, records := openWorld(t, dir)
	keys := keysIn(t, dir, false)
	values := sealedValues(t, records)
	last := values[len(values)-1]
	replaceSealed(t, records, last, last.Sealed[:len(last.Sealed)-1])
	before := keys.Newest()
	added := ok[string](t)(keys.Add())
	if _, err := control.Reseal(t.Context(), records, keys, added); !errors.Is(err, seal.ErrDamaged) || !strings.Contains(err.Error(), last.Table) {
		t.Errorf("Reseal = %v, want ErrDamaged that names the place", err)
	}
	if s := ok[control.Sealing](t)(control.ReadSealing(t.Context(), records, keys)); s.Key != before || s.Values[before] != len(values) {
		t.Errorf("ReadSealing = %+v, want everything as it was", s)
	}
}
