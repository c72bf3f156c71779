package storetest

import (
	"context"
	"errors"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
)

func testAPITokens(f fixture) {
	t := f.t
	operator := control.Operator{ID: id(), Name: "root", Role: control.RoleOwner, CreatedAt: now}
	other := control.Operator{ID: id(), Name: "help", Role: control.RoleSupport, CreatedAt: now}
	token := func(of control.Operator) control.APIToken {
		return control.APIToken{ID: id(), OperatorID: of.ID, Role: of.Role, Hash: random(32), ExpiresAt: now.Add(time.Hour), CreatedAt: now}
	}
	var tokens []control.APIToken
	for range 5 {
		tokens = append(tokens, token(operator))
	}
	others := token(other)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		errs := []error{tx.InsertOperator(ctx, operator), tx.InsertOperator(ctx, other)}
		for _, token := range append(tokens, others) {
			errs = append(errs, tx.InsertAPIToken(ctx, token))
		}
		first, err1 := tx.APITokens(ctx, "", control.Page{Limit: 3})
		rest, err2 := tx.APITokens(ctx, "", control.Page{After: tokens[2].ID, Limit: 9})
		own, err3 := tx.APITokens(ctx, operator.ID, control.Page{After: tokens[2].ID, Limit: 9})
		same(t, tokens[:3], first)
		same(t, append(tokens[3:5:5], others), rest)
		same(t, tokens[3:], own)
		err4 := tx.DeleteAPIToken(ctx, tokens[1].ID)
		if _, err := tx.OperatorByToken(ctx, tokens[1].Hash, now); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("a deleted token gives %v", err)
		}
		_, err5 := tx.OperatorByToken(ctx, tokens[0].Hash, now)
		n, err6 := tx.DeleteAPITokens(ctx)
		same(t, 5, n)
		left, err7 := tx.APITokens(ctx, "", control.Page{Limit: 3})
		same(t, 0, len(left))
		return errors.Join(append(errs, err1, err2, err3, err4, err5, err6, err7)...)
	})
}

func testOperators(f fixture) {
	t := f.t
	first := control.Operator{ID: id(), Name: "ann", Role: control.RoleOwner, CreatedAt: now}
	second := control.Operator{ID: id(), Name: "bob", Role: control.RoleOwner, CreatedAt: now}
	help := control.Operator{ID: id(), Name: "eve", Role: control.RoleSupport, CreatedAt: now}
	token := control.APIToken{ID: id(), OperatorID: first.ID, Role: control.RoleOwner, Hash: random(32), ExpiresAt: now.Add(time.Hour), CreatedAt: now}
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		return errors.Join(
			tx.InsertOperator(ctx, first), tx.InsertOperator(ctx, second), tx.InsertOperator(ctx, help), tx.InsertAPIToken(ctx, token),
		)
	})
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		all, err1 := tx.Operators(ctx, "", control.Page{Limit: 2})
		rest, err2 := tx.Operators(ctx, "", control.Page{After: second.ID, Limit: 2})
		named, err3 := tx.Operators(ctx, "eve", control.Page{Limit: 2})
		same(t, []control.Operator{first, second}, all)
		same(t, []control.Operator{help}, rest)
		same(t, []control.Operator{help}, named)
		oldest, err4 := tx.OldestOperator(ctx, control.RoleOwner, "")
		next, err5 := tx.OldestOperator(ctx, control.RoleOwner, first.ID)
		same(t, first, oldest)
		same(t, second, next)
		return errors.Join(err1, err2, err3, err4, err5)
	})
	first.Name, first.DisabledAt = "anna", new(now)
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		if err := tx.UpdateOperator(ctx, first); err != nil {
			return err
		}
		changed, err1 := tx.Operator(ctx, first.ID)
		oldest, err2 := tx.OldestOperator(ctx, control.RoleOwner, "")
		same(t, first, changed)
		same(t, second, oldest)
		if _, err := tx.OperatorByToken(ctx, token.Hash, now); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("the token of a disabled operator gives %v", err)
		}
		return errors.Join(err1, err2)
	})
	clash := help
	clash.Name = "bob"
	var conflict *control.ConflictError
	if err := f.Write(t.Context(), func(ctx context.Context, tx control.Tx) error { return tx.UpdateOperator(ctx, clash) }); !errors.As(err, &conflict) {
		t.Errorf("a name that is taken gives %v", err)
	}
	f.write(t, func(ctx context.Context, tx control.Tx) error { return tx.DeleteOperator(ctx, first.ID) })
	f.write(t, func(ctx context.Context, tx control.Tx) error {
		if _, err := tx.APIToken(ctx, token.ID); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("the token of a deleted operator gives %v", err)
		}
		return nil
	})
}
