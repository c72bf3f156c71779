package control

import (
	"context"
	"errors"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/httvps/httvps/internal/totp"
)

// SignInState is how an operator signs in.
type SignInState struct {
	ChangedAt     *time.Time // nil: he has no password yet
	RecoveryCodes int        // that are left
	Failures      int        // since the last that went well
}

// SignInOf returns how an operator signs in.
func (a *Authority) SignInOf(ctx context.Context, operatorID string) (SignInState, error) {
	var state SignInState
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		state = SignInState{}
		s, err := tx.SignIn(ctx, operatorID)
		if errors.Is(err, ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		state.ChangedAt, state.Failures = &s.ChangedAt, s.Failures
		state.RecoveryCodes, err = tx.CountRecoveryCodes(ctx, operatorID)
		return err
	})
	return state, err
}

// SignInChange is what an operator changes about how he signs in: the password, the
// second factor, or both.
type SignInChange struct {
	Current  *Secrets // nil: he has nothing yet
	Password *string
	TOTP     *NewTOTP
}

// ChangeSignIn changes how the caller signs in, which ends his other logins and
// returns new recovery codes with a new second factor. He proves that it is he, unless
// he has no password yet. A token that may less than he may not do it: ErrLimitedToken.
func (a *Authority) ChangeSignIn(ctx context.Context, who Bearer, change SignInChange) (recovery []string, err error) {
	if !who.Token.Role.Covers(who.Role) {
		return nil, ErrLimitedToken
	}
	var c checks
	c.that(change.Password != nil || change.TOTP != nil, "password", "want a new password, a new second factor or both")
	next, err := a.prepare(ctx, change.Password, change.TOTP, who.Name, &c)
	if err != nil {
		return nil, err
	}
	set := func(ctx context.Context, tx Tx, s SignIn) error {
		recovery, err = a.setSignIn(ctx, tx, s, next, who.loginID())
		return err
	}
	if change.Current != nil {
		err = a.prove(ctx, func(ctx context.Context, tx Tx) (Account, error) { return tx.AccountOf(ctx, who.ID) }, *change.Current,
			func(ctx context.Context, tx Tx, _ attempt) error {
				s, err := tx.SignIn(ctx, who.ID)
				if err != nil {
					return err
				}
				return set(ctx, tx, s)
			})
		return recovery, err
	}
	if change.Password == nil || change.TOTP == nil {
		return nil, &InvalidError{Fields: []FieldError{{Field: "current", Detail: "want the present password and code, or without one a password and a second factor"}}}
	}
	err = a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.LockService(ctx); err != nil {
			return err
		}
		_, err := tx.SignIn(ctx, who.ID)
		if err == nil {
			return &InvalidError{Fields: []FieldError{{Field: "current", Detail: "want the present password and code"}}}
		}
		if !errors.Is(err, ErrNotFound) {
			return err
		}
		return set(ctx, tx, SignIn{OperatorID: who.ID})
	})
	return recovery, err
}

// prepared is what an operator is going to sign in with.
type prepared struct {
	password string // its hash; empty: as it is
	secret   []byte // nil: as it is
	step     int64
}

// prepare checks what an operator wants to sign in with. Computing the hash takes
// work, so it comes last, and callers have been asked who they are.
func (a *Authority) prepare(ctx context.Context, password *string, second *NewTOTP, name string, c *checks) (prepared, error) {
	var next prepared
	if password != nil {
		c.that(goodPassword(*password, name), "password", passwordRule)
	}
	if second != nil {
		secret, err := totp.ParseSecret(second.Secret)
		c.that(err == nil, "totp.secret", "want 32 characters of base32")
		if err == nil {
			next.secret = secret
			next.step, err = totp.Match(secret, second.Code, a.now())
			c.that(err == nil, "totp.code", "want the code that an app with this secret shows now; the clocks of both must be right")
		}
	}
	if err := c.err(); err != nil {
		return prepared{}, err
	}
	if password == nil {
		return next, nil
	}
	var err error
	next.password, err = a.opts.Passwords.Hash(ctx, *password)
	return next, err
}

const passwordRule = "want at least 12 characters, 5 of them different, in at most 1024 bytes, and not the operator's name in them"

func goodPassword(password, name string) bool {
	different := make(map[rune]bool)
	for _, r := range password {
		if unicode.IsControl(r) {
			return false
		}
		different[r] = true
	}
	return utf8.ValidString(password) && len(password) <= maxPassword && utf8.RuneCountInString(password) >= minPassword && len(different) >= minVariety &&
		(utf8.RuneCountInString(name) < shortName || !strings.Contains(strings.ToLower(password), strings.ToLower(name)))
}

// setSignIn gives an operator what he signs in with from now on. His logins end, but
// for one, and his clients are strangers again. With a new second factor it returns
// new recovery codes.
func (a *Authority) setSignIn(ctx context.Context, tx Tx, s SignIn, next prepared, keepLogin string) (recovery []string, err error) {
	s.ChangedAt = a.now().UTC().Truncate(time.Microsecond) // as it is kept
	if next.password != "" {
		s.Password = next.password
	}
	if next.secret != nil {
		s.LastStep = next.step
		if s.SealedTOTP, err = a.seal(ctx, tx, next.secret, s.totpPlace()); err != nil {
			return nil, err
		}
	}
	if err := tx.PutSignIn(ctx, s); err != nil {
		return nil, err
	}
	if next.secret != nil {
		codes, hashes := newRecoveryCodes()
		if err := tx.PutRecoveryCodes(ctx, s.OperatorID, hashes); err != nil {
			return nil, err
		}
		recovery = codes
	}
	if err := tx.DropKnownClients(ctx, s.OperatorID, 0); err != nil {
		return nil, err
	}
	return recovery, endLogins(ctx, tx, s.OperatorID, keepLogin)
}

// loginID is the id of the login that somebody came with, empty without one.
func (b Bearer) loginID() string {
	if b.Login == nil {
		return ""
	}
	return b.Login.ID
}
