package backend

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	"github.com/httvps/httvps/backend/internal/config"
	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/seal"
	"github.com/httvps/httvps/backend/internal/store"
)

// SecretVariables are the environment variables among a control plane's that hold
// secrets.
func SecretVariables() []string { return config.SecretVariables() }

// NewKEK returns a new key-encryption key as files and variables hold it.
func NewKEK() string { return seal.NewKey() }

// rotation is what the commands about keys work on.
type rotation struct {
	keys    *seal.Ring
	records *store.Store
	said    strings.Builder // for the operator
}

func (r *rotation) say(format string, args ...any) { fmt.Fprintf(&r.said, format+"\n", args...) }

// KEKStatus says which keys there are, how many secrets each has sealed and which
// one seals. It changes nothing and may run beside the control plane.
func KEKStatus(ctx context.Context, cfg Config) (string, error) {
	return onKeys(ctx, cfg, "kek status", store.Look, (*rotation).status)
}

// AddKEK puts a new key behind the others of the file. It seals nothing yet: first
// all processes must have it. It may run beside the control plane.
func AddKEK(ctx context.Context, cfg Config) (string, error) {
	return onKeys(ctx, cfg, "kek add", store.Look, (*rotation).add)
}

// Reseal seals every secret with the newest key, in one step that happens whole or
// not at all. With SQLite no other process may have the database open.
func Reseal(ctx context.Context, cfg Config) (string, error) {
	return onKeys(ctx, cfg, "kek reseal", store.Open, (*rotation).reseal)
}

// DropKEKs takes the keys out of the file that seal nothing any more. Each is kept
// in a file of its own beside it, for older backups. It may run beside the control
// plane.
func DropKEKs(ctx context.Context, cfg Config) (string, error) {
	return onKeys(ctx, cfg, "kek drop", store.Look, (*rotation).drop)
}

// RotateKEK does all three steps, for keys in a file that all processes share. One
// that was interrupted is finished.
func RotateKEK(ctx context.Context, cfg Config) (string, error) {
	return onKeys(ctx, cfg, "kek rotate", store.Open, func(r *rotation, ctx context.Context) error {
		if n := len(r.keys.IDs()); n > 1 {
			r.say("%s holds %d keys: the rotation that was begun is finished", r.keys.Name(), n)
		} else if err := r.add(ctx); err != nil {
			return err
		}
		if err := r.reseal(ctx); err != nil {
			return err
		}
		return r.drop(ctx)
	})
}

// onKeys runs fn on the keys and the records that they seal, which must exist, and
// returns what it said, whether it went well or not.
func onKeys(
	ctx context.Context, cfg Config, what string, open func(context.Context, store.Config) (*store.Store, error),
	fn func(*rotation, context.Context) error,
) (said string, err error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	source, err := databaseOf(cfg)
	if err != nil {
		return "", err
	}
	source.MustExist, source.OwnSchema = true, true // a newer one may have secrets elsewhere, too
	r := &rotation{}
	if r.records, err = open(ctx, source); err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.records.Close()) }()
	keys := cfg.Keys()
	keys.Make = false // what exists has its key
	if r.keys, err = seal.Open(keys); err != nil {
		return "", err
	}
	unlock, err := r.keys.Lock()
	if err != nil {
		return "", fmt.Errorf("%s: %w", what, err)
	}
	defer func() { err = errors.Join(err, unlock()) }()
	if err := fn(r, ctx); err != nil {
		return r.said.String(), fmt.Errorf("%s: %w", what, err)
	}
	return r.said.String(), nil
}

func (r *rotation) sealing(ctx context.Context) (control.Sealing, error) {
	return control.ReadSealing(ctx, r.records, r.keys)
}

func (r *rotation) status(ctx context.Context) error {
	sealing, err := r.sealing(ctx)
	if err != nil {
		return err
	}
	line := func(id, where string) {
		use := ""
		if id == sealing.Key {
			use = ", seals new ones"
		}
		r.say("%s: %s, %d secrets%s", id, where, sealing.Values[id], use)
		delete(sealing.Values, id)
	}
	unnamed := sealing.Values[""]
	delete(sealing.Values, "")
	if sealing.Key != "" {
		sealing.Values[sealing.Key] += 0 // it has a line even when it has sealed nothing
	}
	for _, id := range r.keys.IDs() {
		line(id, "in "+r.keys.Name())
	}
	for _, id := range slices.Sorted(maps.Keys(sealing.Values)) {
		line(id, "MISSING")
	}
	if unnamed > 0 {
		r.say("sealed by an older version, which names no key: %d secrets", unnamed)
	}
	return nil
}

func (r *rotation) add(ctx context.Context) error {
	sealing, err := r.sealing(ctx)
	if err != nil {
		return err
	}
	if sealing.Key != "" && sealing.Key != r.keys.Newest() {
		return fmt.Errorf("%s holds a newer key already, %s: go on with kek reseal", r.keys.Name(), r.keys.Newest())
	}
	id, err := r.keys.Add()
	if err != nil {
		return err
	}
	r.say("%s: added to %s", id, r.keys.Name())
	return nil
}

func (r *rotation) reseal(ctx context.Context) error {
	key := r.keys.Newest()
	n, err := control.Reseal(byCommand(ctx, "kek reseal"), r.records, r.keys, key)
	if err != nil {
		return err
	}
	r.say("%s: seals from now on; %d secrets were sealed again", key, n)
	return nil
}

func (r *rotation) drop(ctx context.Context) error {
	sealing, err := r.sealing(ctx)
	if err != nil {
		return err
	}
	if sealing.Key != r.keys.Newest() {
		return fmt.Errorf("the newest key, %s, does not seal yet: run kek reseal first", r.keys.Newest())
	}
	for id, n := range sealing.Values {
		if id != sealing.Key {
			return fmt.Errorf("%d secrets are not sealed with %s: run kek reseal first", n, sealing.Key)
		}
	}
	if r.keys.Fixed() {
		r.say("nothing is sealed with another key than %s: take the others out of %s", sealing.Key, r.keys.Name())
		return nil
	}
	gone, err := r.keys.Retire(sealing.Key)
	if err != nil {
		return err
	}
	for _, id := range gone {
		r.say("%s: dropped; backups from before need it, and it is in %s.%[1]s.old: delete that with the last of them", id, r.keys.Name())
	}
	return nil
}
