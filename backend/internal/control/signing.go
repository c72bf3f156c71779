package control

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/httvps/httvps/internal/ticket"
)

const (
	// signingLead is how long gateways know a new signing key before the first token
	// is signed with it: they ask for their configuration every five minutes, and at
	// once when an event says so.
	signingLead = 15 * time.Minute
	// signingKeep is how long tokens of a signing key are good after another one
	// signs: as long as they last, and what clocks of several processes differ by.
	signingKeep = AccessTokenTTL + 5*time.Minute
)

// signing is what access tokens are signed and verified with at a time.
type signing struct {
	name     string // of the keys, and of which signs
	signer   *ticket.Signer
	verifier *ticket.Verifier
	keys     ticket.JWKS // newest first, those too that do not sign yet
}

// signsFrom returns when the i-th of keys, which are newest first, begins to sign. The
// oldest is not asked: somebody must.
func signsFrom(keys []SealedSecret, i int) time.Time {
	if i == len(keys)-1 {
		return time.Time{}
	}
	return keys[i].CreatedAt.Add(signingLead)
}

// signer returns which of keys signs at now.
func signer(keys []SealedSecret, now time.Time) int {
	for i := range keys {
		if !now.Before(signsFrom(keys, i)) {
			return i
		}
	}
	return len(keys) - 1
}

// verifying returns the keys whose tokens are good at now: those that will sign, the
// one that does, and those before it as long as their tokens may last.
func verifying(keys []SealedSecret, now time.Time) []SealedSecret {
	for i := range keys {
		if !now.Before(signsFrom(keys, i).Add(signingKeep)) {
			return keys[:i+1]
		}
	}
	return keys
}

// signingNow returns what tokens are signed and verified with now. Others rotate
// keys, in other processes too, so it looks each time; it opens keys only when they
// are others than the last time.
func (a *Authority) signingNow(ctx context.Context, tx Tx) (*signing, error) {
	all, err := tx.Secrets(ctx, kindSigning)
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, errors.New("there is no signing key")
	}
	now := a.now()
	keys := verifying(all, now)
	ids := make([]string, 0, len(keys)+1)
	for _, key := range keys {
		ids = append(ids, key.ID)
	}
	signs := signer(all, now)
	name := strings.Join(append(ids, all[signs].ID), " ")
	if known := a.signing.Load(); known != nil && known.name == name {
		return known, nil
	}
	s := &signing{name: name}
	for i, sealed := range keys {
		seed, err := a.opts.Sealer.Open(sealed.Sealed, sealed.place())
		if err == nil && len(seed) != ed25519.SeedSize {
			err = errors.New("wrong length")
		}
		if err != nil {
			return nil, fmt.Errorf("open %s: %w", kindSigning, err)
		}
		key := ed25519.NewKeyFromSeed(seed)
		public, _ := key.Public().(ed25519.PublicKey)
		s.keys.Keys = append(s.keys.Keys, ticket.Key{ID: ticket.Thumbprint(public), Public: public})
		if i == signs {
			s.signer = ticket.NewSigner(key, a.identity.Issuer, a.identity.ServiceID)
		}
	}
	s.verifier = ticket.NewVerifier(a.identity.Issuer, a.identity.ServiceID, s.keys)
	a.signing.Store(s)
	return s, nil
}

// JWKS returns the keys that verify access tokens, newest first: also those that sign
// none yet.
func (a *Authority) JWKS(ctx context.Context) (ticket.JWKS, error) {
	var keys ticket.JWKS
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		now, err := a.signingNow(ctx, tx)
		if err == nil {
			keys = now.keys
		}
		return err
	})
	return keys, err
}

// newSigning adds a signing key, which is the newest from now on.
func (a *Authority) newSigning(ctx context.Context, tx Tx) (SealedSecret, error) {
	seed := make([]byte, ed25519.SeedSize)
	_, _ = rand.Read(seed) // never fails
	key := SealedSecret{ID: newID(), Kind: kindSigning, CreatedAt: a.now()}
	var err error
	if key.Sealed, err = a.seal(ctx, tx, seed, key.place()); err != nil {
		return SealedSecret{}, fmt.Errorf("seal %s: %w", kindSigning, err)
	}
	a.tellKeys(tx, KeysJWKS)
	return key, tx.InsertSecret(ctx, key)
}

// firstSigning makes the service's first signing key unless there is one. Nobody
// has a token yet, so it signs at once.
func (a *Authority) firstSigning(ctx context.Context, tx Tx) error {
	keys, err := tx.Secrets(ctx, kindSigning)
	if err == nil && len(keys) == 0 {
		_, err = a.newSigning(ctx, tx)
	}
	return err
}

// RotateSigning makes the next signing key and returns when it begins to sign; a key
// that waits for its time already is the next one, which bounds how many there are.
// Tokens of the one before stay good.
func (a *Authority) RotateSigning(ctx context.Context) (signs time.Time, err error) {
	err = a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.LockService(ctx); err != nil {
			return err
		}
		keys, err := tx.Secrets(ctx, kindSigning)
		if err != nil {
			return err
		}
		now := a.now()
		for i := range keys {
			signs = signsFrom(keys, i)
			wait := signs.Sub(now)
			if wait > signingLead { // made by a clock that was ahead: nobody is to wait for it
				continue
			}
			if wait > 0 {
				return nil
			}
			break
		}
		next, err := a.newSigning(ctx, tx)
		signs = next.CreatedAt.Add(signingLead)
		return err
	})
	return signs, err
}

// KeepSigning forgets the signing keys whose tokens are good no more, and returns how
// many. It is to be called every few minutes.
func (a *Authority) KeepSigning(ctx context.Context) (forgotten int, err error) {
	err = a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		forgotten = 0
		keys, err := tx.Secrets(ctx, kindSigning)
		if err != nil {
			return err
		}
		for _, old := range keys[len(verifying(keys, a.now())):] {
			err := tx.DeleteSecret(ctx, old.ID)
			if errors.Is(err, ErrNotFound) { // another process was faster
				continue
			}
			if err != nil {
				return err
			}
			forgotten++
		}
		if forgotten > 0 {
			a.tellKeys(tx, KeysJWKS)
		}
		return nil
	})
	return forgotten, err
}
