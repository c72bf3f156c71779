package control

import (
	"context"
	"errors"
	"time"
)

// OperatorInvitation lets an operator set what he signs in with, once. There is one
// for an operator at most.
type OperatorInvitation struct {
	OperatorID string
	CodeHash   []byte
	ExpiresAt  time.Time
	CreatedAt  time.Time
}

// InviteOperator returns a link with which an operator sets what he signs in with,
// once and within InvitationTTL, also when he had something before. An earlier link of
// his stops working.
func (a *Authority) InviteOperator(ctx context.Context, id string) (link string, expires time.Time, err error) {
	code, hash := newCode()
	now := a.now().UTC().Truncate(time.Microsecond) // as it is kept
	expires = now.Add(InvitationTTL)
	err = a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		operator, err := tx.Operator(ctx, id)
		if err != nil {
			return err
		}
		if operator.DisabledAt != nil {
			return &ConflictError{Detail: "this operator is disabled"}
		}
		return tx.PutOperatorInvitation(ctx, OperatorInvitation{OperatorID: id, CodeHash: hash, ExpiresAt: expires, CreatedAt: now})
	})
	return a.link(a.AdminBase(), "operator", code), expires, err
}

// Acceptance is what an operator who was invited wants to sign in with.
type Acceptance struct {
	Code     string // of the link
	Password string
	TOTP     NewTOTP
	Cookie   bool // as of a LoginRequest
}

// AcceptInvitation gives an operator what he wants to sign in with, logs him in and
// returns his recovery codes. What he had before is over, with his logins.
func (a *Authority) AcceptInvitation(ctx context.Context, in Acceptance) (LoggedIn, []string, error) {
	code, ok := canonicalCode(in.Code)
	if !ok {
		return LoggedIn{}, nil, ErrInvalidInvitation
	}
	hash := hashCode(code)
	invited := func(ctx context.Context, tx Tx) (Operator, error) {
		i, err := tx.OperatorInvitation(ctx, hash)
		if errors.Is(err, ErrNotFound) || err == nil && !a.now().Before(i.ExpiresAt) {
			return Operator{}, ErrInvalidInvitation
		}
		if err != nil {
			return Operator{}, err
		}
		operator, err := tx.Operator(ctx, i.OperatorID)
		if err == nil && operator.DisabledAt != nil {
			err = ErrInvalidInvitation
		}
		return operator, err
	}
	var operator Operator
	err := a.store.Read(ctx, func(ctx context.Context, tx Tx) error {
		var err error
		operator, err = invited(ctx, tx)
		return err
	})
	if err != nil {
		return LoggedIn{}, nil, err
	}
	var c checks
	next, err := a.prepare(ctx, &in.Password, &in.TOTP, operator.Name, &c)
	if err != nil {
		return LoggedIn{}, nil, err
	}
	var out LoggedIn
	var recovery []string
	err = a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.LockService(ctx); err != nil {
			return err
		}
		operator, err := invited(ctx, tx)
		if err != nil {
			return err
		}
		ctx = acting(ctx, ActorOperator, operator.ID, operator.Name)
		taken, err := tx.TakeOperatorInvitation(ctx, hash)
		if err != nil {
			return err
		}
		if !taken {
			return ErrInvalidInvitation
		}
		if recovery, err = a.setSignIn(ctx, tx, SignIn{OperatorID: operator.ID}, next, ""); err != nil {
			return err
		}
		out, err = a.logIn(ctx, tx, operator, nil, in.Cookie)
		return err
	})
	return out, recovery, err
}
