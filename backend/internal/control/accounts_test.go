package control_test

import (
	"context"
	"crypto/sha256"
	"errors"
	"slices"
	"testing"

	"github.com/httvps/httvps/backend/internal/control"
)

// owner makes the service's first operator.
func (w *world) owner() control.Bearer {
	w.t.Helper()
	link := ok[string](w.t)(w.OpenBootstrap(w.t.Context()))
	return w.bearer(ok[control.Credential](w.t)(w.Bootstrap(w.t.Context(), code(w.t, link), "root")).Token)
}

func (w *world) bearer(token string) control.Bearer {
	w.t.Helper()
	return ok[control.Bearer](w.t)(w.AuthenticateOperator(w.t.Context(), token))
}

// operator makes another one and returns his token, too.
func (w *world) operator(name string, role control.Role) (control.Bearer, string) {
	w.t.Helper()
	made, _, err := w.CreateOperator(w.t.Context(), name, role, 0, control.Once{})
	if err != nil {
		w.t.Fatal(err)
	}
	return w.bearer(made.Token), made.Token
}

func (w *world) ended(what, token string) {
	w.t.Helper()
	if _, err := w.AuthenticateOperator(w.t.Context(), token); !errors.Is(err, control.ErrUnauthorized) {
		w.t.Errorf("%s: the token gives %v", what, err)
	}
}

func conflicts(t *testing.T, what string, err error) {
	t.Helper()
	if _, conflict := errors.AsType[*control.ConflictError](err); !conflict {
		t.Errorf("%s gives %v, want a conflict", what, err)
	}
}

func TestARoleCoversThoseThatMayNothingMore(t *testing.T) {
	covered := map[control.Role][]control.Role{
		control.RoleOwner:   {control.RoleOwner, control.RoleAdmin, control.RoleSupport, control.RoleAuditor},
		control.RoleAdmin:   {control.RoleAdmin, control.RoleSupport, control.RoleAuditor},
		control.RoleSupport: {control.RoleSupport},
		control.RoleAuditor: {control.RoleAuditor},
		"":                  nil,
		"root":              nil,
	}
	for role, want := range covered {
		for _, other := range append(control.Roles(), "", "root") {
			if got := role.Covers(other); got != slices.Contains(want, other) {
				t.Errorf("%q covers %q: %v", role, other, got)
			}
		}
	}
}

func TestATokenMayNothingThatItsMakerMayNot(t *testing.T) {
	w := newWorld(t)
	owner := w.owner()
	admin, _ := w.operator("ann", control.RoleAdmin)
	help, _ := w.operator("bob", control.RoleSupport)
	issue := func(maker control.Bearer, n control.NewAPIToken) (control.Bearer, error) {
		_, token, _, err := w.CreateAPIToken(t.Context(), maker, n, control.Once{})
		if err != nil {
			return control.Bearer{}, err
		}
		return w.bearer(token), nil
	}
	limited := ok[control.Bearer](t)(issue(owner, control.NewAPIToken{Role: control.RoleSupport}))
	if limited.ID != owner.ID || limited.Role != control.RoleOwner || limited.Token.Role != control.RoleSupport {
		t.Errorf("an owner's token for support is %+v", limited)
	}
	for name, tc := range map[string]struct {
		maker control.Bearer
		n     control.NewAPIToken
		want  control.Role // empty: refused
	}{
		"an owner's own":                     {owner, control.NewAPIToken{}, control.RoleOwner},
		"an admin's own":                     {admin, control.NewAPIToken{}, control.RoleAdmin},
		"less than an admin":                 {admin, control.NewAPIToken{Role: control.RoleAuditor}, control.RoleAuditor},
		"more than an admin":                 {admin, control.NewAPIToken{Role: control.RoleOwner}, ""},
		"another than support":               {help, control.NewAPIToken{Role: control.RoleAuditor}, ""},
		"by a limited token of an owner":     {limited, control.NewAPIToken{}, control.RoleSupport},
		"more than a limited token":          {limited, control.NewAPIToken{Role: control.RoleOwner}, ""},
		"an owner's for another":             {owner, control.NewAPIToken{OperatorID: help.ID}, control.RoleSupport},
		"more than the other":                {owner, control.NewAPIToken{OperatorID: help.ID, Role: control.RoleAdmin}, ""},
		"a role that there is not":           {owner, control.NewAPIToken{Role: "root"}, ""},
		"for nobody":                         {owner, control.NewAPIToken{OperatorID: "x"}, ""},
		"for longer than a token may last":   {owner, control.NewAPIToken{TTL: 2 * control.MaxAPITokenTTL}, ""},
		"an owner's, less, for another":      {owner, control.NewAPIToken{OperatorID: admin.ID, Role: control.RoleSupport}, control.RoleSupport},
		"an owner's, for one who may less":   {owner, control.NewAPIToken{OperatorID: admin.ID}, control.RoleAdmin},
		"a limited one's, for its own owner": {limited, control.NewAPIToken{OperatorID: owner.ID}, control.RoleSupport},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := issue(tc.maker, tc.n)
			if (err == nil) != (tc.want != "") || got.Token.Role != tc.want {
				t.Errorf("it may do what %q may, %v, want %q", got.Token.Role, err, tc.want)
			}
		})
	}
}

func TestTokensEndWithWhatTheirOperatorMayNoMore(t *testing.T) {
	w := newWorld(t)
	w.owner()
	ann, full := w.operator("ann", control.RoleOwner)
	_, limited, _, err := w.CreateAPIToken(t.Context(), ann, control.NewAPIToken{Role: control.RoleSupport}, control.Once{})
	if err != nil {
		t.Fatal(err)
	}
	change := func(f control.OperatorFields) {
		t.Helper()
		ok[control.Operator](t)(w.UpdateOperator(t.Context(), ann.ID, f))
	}
	change(control.OperatorFields{Name: new("anna")})
	w.bearer(full)
	change(control.OperatorFields{Role: new(control.RoleAdmin)})
	w.ended("a lower role", full)
	if got := w.bearer(limited); got.Role != control.RoleAdmin || got.Token.Role != control.RoleSupport {
		t.Errorf("what may less is %+v", got)
	}
	change(control.OperatorFields{Disabled: new(true)})
	w.ended("disabled", limited)
	_, _, _, err = w.CreateAPIToken(t.Context(), w.owner2(), control.NewAPIToken{OperatorID: ann.ID}, control.Once{})
	conflicts(t, "a token of a disabled operator", err)
	change(control.OperatorFields{Disabled: new(false)})
	w.ended("enabled again", limited)
	_, again, _, err := w.CreateAPIToken(t.Context(), w.owner2(), control.NewAPIToken{OperatorID: ann.ID}, control.Once{})
	if err != nil {
		t.Fatal(err)
	}
	w.bearer(again)
	if err := w.DeleteOperator(t.Context(), ann.ID); err != nil {
		t.Fatal(err)
	}
	w.ended("deleted", again)
}

// owner2 is a further owner.
func (w *world) owner2() control.Bearer {
	w.t.Helper()
	who, _ := w.operator("owner "+w.now().String(), control.RoleOwner)
	w.pass(1000)
	return who
}

func TestTheServiceKeepsAnOwner(t *testing.T) {
	w := newWorld(t)
	owner := w.owner()
	other, _ := w.operator("ann", control.RoleOwner)
	w.operator("bob", control.RoleAdmin)
	alone := func() {
		t.Helper()
		_, err := w.UpdateOperator(t.Context(), owner.ID, control.OperatorFields{Role: new(control.RoleAdmin)})
		conflicts(t, "the last owner's lower role", err)
		_, err = w.UpdateOperator(t.Context(), owner.ID, control.OperatorFields{Disabled: new(true)})
		conflicts(t, "disabling the last owner", err)
		conflicts(t, "deleting the last owner", w.DeleteOperator(t.Context(), owner.ID))
	}
	ok[control.Operator](t)(w.UpdateOperator(t.Context(), other.ID, control.OperatorFields{Disabled: new(true)}))
	alone()
	ok[control.Operator](t)(w.UpdateOperator(t.Context(), other.ID, control.OperatorFields{Disabled: new(false), Role: new(control.RoleSupport)}))
	alone()
	ok[control.Operator](t)(w.UpdateOperator(t.Context(), other.ID, control.OperatorFields{Role: new(control.RoleOwner)}))
	if err := w.DeleteOperator(t.Context(), owner.ID); err != nil {
		t.Errorf("an owner who is not the last: %v", err)
	}
	// A rescue is for the one that is left.
	link, _, err := w.Rescue(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if back := ok[control.Credential](t)(w.Bootstrap(t.Context(), code(t, link), "x")); back.Operator.ID != other.ID {
		t.Errorf("the rescue is for %+v", back.Operator)
	}
}

func TestOneEndsOnesOwnTokensAndAnOwnerAll(t *testing.T) {
	w := newWorld(t)
	owner := w.owner()
	help, text := w.operator("bob", control.RoleSupport)
	_, second, _, err := w.CreateAPIToken(t.Context(), help, control.NewAPIToken{}, control.Once{})
	if err != nil {
		t.Fatal(err)
	}
	limited, _, _, err := w.CreateAPIToken(t.Context(), owner, control.NewAPIToken{Role: control.RoleSupport}, control.Once{})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.DeleteAPIToken(t.Context(), help, owner.Token.ID); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("another's: %v", err)
	}
	if err := w.DeleteAPIToken(t.Context(), control.Bearer{Operator: owner.Operator, Token: limited}, owner.Token.ID); !errors.Is(err, control.ErrNotFound) {
		t.Errorf("one that may more: %v", err)
	}
	own := ok[[]control.APIToken](t)(w.APITokens(t.Context(), help, "", control.Page{Limit: 9}))
	all := ok[[]control.APIToken](t)(w.APITokens(t.Context(), owner, "", control.Page{Limit: 9}))
	others := ok[[]control.APIToken](t)(w.APITokens(t.Context(), help, owner.ID, control.Page{Limit: 9}))
	if len(own) != 2 || len(all) != 4 || len(others) != 0 {
		t.Errorf("support sees %d tokens and %d of the owner, the owner %d", len(own), len(others), len(all))
	}
	if err := w.DeleteAPIToken(t.Context(), help, w.bearer(second).Token.ID); err != nil {
		t.Errorf("one's own: %v", err)
	}
	if err := w.DeleteAPIToken(t.Context(), owner, help.Token.ID); err != nil {
		t.Errorf("by an owner: %v", err)
	}
	w.ended("deleted", second)
	w.ended("deleted", text)
}

// Programs from before roles let every token do everything: they must not find one
// that may not.
func TestATokenThatMayLessIsKeptWhereOlderProgramsDoNotFindIt(t *testing.T) {
	w, records := openWorld(t, t.TempDir())
	w.owner()
	for _, role := range control.Roles() {
		who, token := w.operator("one "+string(role), role)
		sum := sha256.Sum256([]byte(token[:len("hvt1.")+43]))
		err := records.Read(t.Context(), func(ctx context.Context, tx control.Tx) error {
			_, err := tx.OperatorByToken(ctx, sum[:], w.now())
			return err
		})
		if found := err == nil; found != (role == control.RoleOwner) {
			t.Errorf("the token of %s is found: %v (%v)", who.Role, found, err)
		}
	}
}
