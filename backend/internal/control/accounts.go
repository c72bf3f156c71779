package control

import (
	"context"
	"errors"
	"time"
)

// OperatorFields are what an owner decides about an operator; nil leaves it as it is.
type OperatorFields struct {
	Name     *string
	Role     *Role
	Disabled *bool
}

func (o *Operator) apply(f OperatorFields, now time.Time) error {
	set(&o.Name, f.Name)
	set(&o.Role, f.Role)
	if f.Disabled != nil {
		switch {
		case !*f.Disabled:
			o.DisabledAt = nil
		case o.DisabledAt == nil:
			o.DisabledAt = &now
		}
	}
	var c checks
	c.that(validName(o.Name), "name", nameRule)
	c.that(len(o.Role.Rights()) > 0, "role", "want owner, admin, support or auditor")
	return c.err()
}

// runs reports whether the operator is one of those without whom nobody could do
// everything.
func (o Operator) runs() bool { return o.Role == RoleOwner && o.DisabledAt == nil }

// CreateOperator adds an operator with a first token, which is valid for ttl (0: what
// the settings say) and nowhere else to be had. When the same request had been made
// before, the credential has no token and the second result is true.
func (a *Authority) CreateOperator(ctx context.Context, name string, role Role, ttl time.Duration, once Once) (Credential, bool, error) {
	operator := Operator{ID: newID(), CreatedAt: a.now()}
	if err := operator.apply(OperatorFields{Name: &name, Role: &role}, a.now()); err != nil {
		return Credential{}, false, err
	}
	ttl, err := a.tokenTTL(ctx, ttl)
	if err != nil {
		return Credential{}, false, err
	}
	var c checks
	c.that(ttl >= 24*time.Hour && ttl <= MaxAPITokenTTL, "ttl_days", "want 1 to 365")
	if err := c.err(); err != nil {
		return Credential{}, false, err
	}
	row, token := a.mintToken(operator.ID, role, ttl)
	insert := func(ctx context.Context, tx Tx) error {
		if err := tx.InsertOperator(ctx, operator); err != nil {
			return err
		}
		return tx.InsertAPIToken(ctx, row)
	}
	made, replayed, err := create(ctx, a, once, operator.ID, insert, Tx.Operator)
	if err != nil || replayed {
		return Credential{Operator: made}, replayed, err
	}
	return Credential{Operator: made, TokenID: row.ID, Token: token, ExpiresAt: row.ExpiresAt}, false, nil
}

// Operator returns an operator.
func (a *Authority) Operator(ctx context.Context, id string) (Operator, error) {
	return get(ctx, a, id, Tx.Operator)
}

// Operators lists operators, all or the one with a name.
func (a *Authority) Operators(ctx context.Context, name string, page Page) ([]Operator, error) {
	return list(ctx, a, func(ctx context.Context, tx Tx) ([]Operator, error) { return tx.Operators(ctx, name, page) })
}

// UpdateOperator changes an operator. Tokens that may more than the new role end at
// once, and so do all tokens and logins of one that is disabled: enabled again, it
// needs another token or signs in.
func (a *Authority) UpdateOperator(ctx context.Context, id string, f OperatorFields) (Operator, error) {
	var operator Operator
	err := a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.LockService(ctx); err != nil {
			return err
		}
		var err error
		if operator, err = tx.Operator(ctx, id); err != nil {
			return err
		}
		ran := operator.runs()
		if err := operator.apply(f, a.now()); err != nil {
			return err
		}
		if ran && !operator.runs() {
			if err := anotherOwner(ctx, tx, id); err != nil {
				return err
			}
		}
		keep := operator.Role
		if operator.DisabledAt != nil {
			keep = ""
		}
		if err := endTokens(ctx, tx, id, keep); err != nil {
			return err
		}
		if operator.DisabledAt != nil {
			if err := endLogins(ctx, tx, id, ""); err != nil {
				return err
			}
		}
		return tx.UpdateOperator(ctx, operator)
	})
	return operator, err
}

// DeleteOperator removes an operator with its tokens, its logins and what it signs in
// with.
func (a *Authority) DeleteOperator(ctx context.Context, id string) error {
	return a.store.Write(ctx, func(ctx context.Context, tx Tx) error {
		if err := tx.LockService(ctx); err != nil {
			return err
		}
		operator, err := tx.Operator(ctx, id)
		if err != nil {
			return err
		}
		if operator.runs() {
			if err := anotherOwner(ctx, tx, id); err != nil {
				return err
			}
		}
		return tx.DeleteOperator(ctx, id)
	})
}

// anotherOwner returns a conflict unless somebody else owns the service, too. Who
// asks holds the service, so that no two go at once.
func anotherOwner(ctx context.Context, tx Tx, id string) error {
	_, err := tx.OldestOperator(ctx, RoleOwner, id)
	if errors.Is(err, ErrNotFound) {
		return &ConflictError{Detail: "the service needs an owner who is not disabled: make another one first"}
	}
	return err
}
