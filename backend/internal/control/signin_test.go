package control_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/password"
	"github.com/httvps/httvps/backend/internal/seal"
	"github.com/httvps/httvps/backend/internal/store"
	"github.com/httvps/httvps/internal/totp"
)

const (
	annsPassword = "Tr0ub4dor and more"
	anothers     = "correct horse battery"
)

// person is an operator with his authenticator app.
type person struct {
	w      *world
	name   string
	secret []byte
	codes  []string // for recovery
}

func (w *world) newTOTP(secret []byte) *control.NewTOTP {
	return &control.NewTOTP{Secret: totp.FormatSecret(secret), Code: totp.Code(secret, totp.Step(w.now()))}
}

// signs gives an operator a password and a second factor.
func (w *world) signs(who control.Bearer) *person {
	w.t.Helper()
	p := &person{w: w, name: who.Name, secret: totp.NewSecret()}
	change := control.SignInChange{Password: new(annsPassword), TOTP: w.newTOTP(p.secret)}
	p.codes = ok[[]string](w.t)(w.ChangeSignIn(w.t.Context(), who, change))
	return p
}

// code waits for the next code of the app.
func (p *person) code() string {
	p.w.pass(30 * time.Second)
	return totp.Code(p.secret, totp.Step(p.w.now()))
}

func (p *person) request(typed, code, client string) control.LoginRequest {
	return control.LoginRequest{Name: p.name, Secrets: control.Secrets{Password: typed, Code: code, Client: client}}
}

func (p *person) logIn(client string) control.LoggedIn {
	p.w.t.Helper()
	return ok[control.LoggedIn](p.w.t)(p.w.LogIn(p.w.t.Context(), p.request(annsPassword, p.code(), client)))
}

func (w *world) turnedAway(what string, r control.LoginRequest) {
	w.t.Helper()
	if _, err := w.LogIn(w.t.Context(), r); !errors.Is(err, control.ErrBadLogin) {
		w.t.Errorf("%s: %v, want to be turned away", what, err)
	}
}

func TestAnOperatorSignsInWithPasswordAndCodeOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		w.owner()
		help, _ := w.operator("ann", control.RoleSupport)
		w.turnedAway("before there is a password", control.LoginRequest{Name: "ann", Secrets: control.Secrets{Password: "", Code: "000000"}})
		ann := w.signs(help)
		if len(ann.codes) != 10 {
			t.Fatalf("recovery codes: %v", ann.codes)
		}
		w.turnedAway("the code that was shown when it was set", ann.request(annsPassword, totp.Code(ann.secret, totp.Step(w.now())), ""))
		code := ann.code()
		w.turnedAway("another password", ann.request(anothers, code, ""))
		w.turnedAway("no code", ann.request(annsPassword, "000000", ""))
		w.turnedAway("another name", control.LoginRequest{Name: "anne", Secrets: control.Secrets{Password: annsPassword, Code: code}})
		in := ok[control.LoggedIn](t)(w.LogIn(t.Context(), ann.request(annsPassword, code, ""))) // a wrong password has not used it up
		w.turnedAway("a code that was used", ann.request(annsPassword, code, ""))
		w.turnedAway("a code from before", ann.request(annsPassword, totp.Code(ann.secret, totp.Step(w.now())-1), ""))

		who := w.bearer(in.Token)
		if who.ID != help.ID || who.Token.Role != control.RoleSupport || who.Login == nil || who.Login.ID != in.Login.ID || in.RecoveryCodes != 10 {
			t.Errorf("the login is of %+v", who)
		}
		if _, err := w.AuthenticateCookie(t.Context(), in.Token); !errors.Is(err, control.ErrUnauthorized) {
			t.Errorf("its token in a cookie: %v", err)
		}
		typed := strings.ToLower(strings.ReplaceAll(ann.codes[3], "-", " "))
		in = ok[control.LoggedIn](t)(w.LogIn(t.Context(), ann.request(annsPassword, typed, "")))
		if in.RecoveryCodes != 9 {
			t.Errorf("%d recovery codes are left", in.RecoveryCodes)
		}
		w.turnedAway("a recovery code that was used", ann.request(annsPassword, ann.codes[3], ""))

		cookie := ann.request(annsPassword, ann.code(), "")
		cookie.Cookie = true
		in = ok[control.LoggedIn](t)(w.LogIn(t.Context(), cookie))
		if got := ok[control.Bearer](t)(w.AuthenticateCookie(t.Context(), in.Token)); got.ID != help.ID {
			t.Errorf("the cookie is of %+v", got)
		}
		w.ended("a cookie's token in a header", in.Token)

		failed := ok[[]control.AuditEntry](t)(w.AuditEntries(t.Context(), control.AuditFilter{Action: "login.failed", Limit: 9}))
		made := ok[[]control.AuditEntry](t)(w.AuditEntries(t.Context(), control.AuditFilter{Action: "login.created", Limit: 9}))
		if len(failed) != 1 || failed[0].ObjectID != help.ID || failed[0].After != `{"failures":1}` || len(made) != 3 || made[0].Actor.Name != "ann" ||
			made[0].Actor.TokenID != in.Login.ID {
			t.Errorf("the audit log has %+v and %+v", failed, made)
		}
		entries := ok[[]control.AuditEntry](t)(w.AuditEntries(t.Context(), control.AuditFilter{Limit: 500}))
		for _, e := range entries {
			for _, secret := range []string{
				annsPassword, anothers, totp.FormatSecret(ann.secret), code, ann.codes[3], strings.ReplaceAll(ann.codes[3], "-", ""), in.Token, in.Client, "argon2id",
			} {
				if strings.Contains(e.Before+e.After+e.Actor.Reason+e.ObjectID, secret) {
					t.Errorf("%s has a secret: %s %s", e.Action, e.Before, e.After)
				}
			}
		}
	})
}

func TestACodeLetsOneInHoweverManyComeWithItOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		ann := w.signs(w.owner())
		for what, code := range map[string]string{"the app's": "", "a recovery code": ann.codes[0]} {
			if code == "" {
				code = ann.code()
			}
			var in atomic.Int64
			var together sync.WaitGroup
			for range 8 {
				together.Go(func() {
					_, err := w.LogIn(t.Context(), ann.request(annsPassword, code, ""))
					switch {
					case err == nil:
						in.Add(1)
					case !errors.Is(err, control.ErrBadLogin):
						t.Errorf("%s: %v", what, err)
					}
				})
			}
			together.Wait()
			if in.Load() != 1 {
				t.Errorf("%s let %d in", what, in.Load())
			}
			w.pass(time.Hour) // guesses come back
		}
	})
}

// heapInUse is how much memory is held.
func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Guesses of those who have no code cost nothing and keep nobody out; guesses of those
// who have the app's secret, too, are so few that nobody finds a password, and keep
// those out alone whom the service has never seen.
func TestOfTenThousandGuessesTwentyAreEvaluatedAndTheOperatorGetsInOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		ann := w.signs(w.owner())
		client := ann.logIn("").Client
		guesses := 10_000
		if where.URL != "" {
			guesses = 1000
		}
		guess := func(what string, code func(n int) string) {
			t.Helper()
			before, heap := w.passwords.Checked(), heapInUse()
			var next atomic.Int64
			var together sync.WaitGroup
			for range 8 {
				together.Go(func() {
					for n := int(next.Add(1)); n <= guesses; n = int(next.Add(1)) {
						_, err := w.LogIn(t.Context(), ann.request(fmt.Sprint("guess ", n), code(n), ""))
						if _, limited := errors.AsType[*control.RateLimitedError](err); !limited && !errors.Is(err, control.ErrBadLogin) {
							t.Errorf("%s: guess %d: %v", what, n, err)
						}
					}
				})
			}
			together.Wait()
			evaluated := w.passwords.Checked() - before
			if evaluated > 20 {
				t.Errorf("%s: %d of %d guesses were evaluated", what, evaluated, guesses)
			}
			if grown := heapInUse() - heap; grown > 4<<20 {
				t.Errorf("%s: %d KiB are held after %d guesses", what, grown>>10, guesses)
			}
		}
		now := w.now()
		valid := make(map[string]bool)
		for step := totp.Step(now) - 1; step <= totp.Step(now)+1; step++ {
			valid[totp.Code(ann.secret, step)] = true
		}
		guess("without a code", func(n int) string {
			if code := fmt.Sprintf("%06d", n); !valid[code] {
				return code
			}
			return "x"
		})
		ann.logIn("") // from anywhere
		right := ann.code()
		guess("with the app's secret", func(int) string { return right })
		_, err := w.LogIn(t.Context(), ann.request(annsPassword, right, ""))
		if limited, is := errors.AsType[*control.RateLimitedError](err); !is || limited.RetryAfter <= 0 || limited.RetryAfter > 6*time.Minute {
			t.Errorf("a stranger with the right password: %v, want to wait for minutes", err)
		}
		in := ok[control.LoggedIn](t)(w.LogIn(t.Context(), ann.request(annsPassword, right, client)))
		if in.Client != "" {
			t.Error("a client that is known gets another secret")
		}
		w.pass(6 * time.Minute)
		ann.logIn("") // one comes back
		if state := ok[control.SignInState](t)(w.SignInOf(t.Context(), in.Operator.ID)); state.Failures != 0 {
			t.Errorf("%d failures after one that went well", state.Failures)
		}
	})
}

// counted counts what is asked of the records.
type counted struct {
	control.Store
	asked map[string]int
}

type countedTx struct {
	control.Tx
	asked map[string]int
}

func (c counted) Read(ctx context.Context, fn func(context.Context, control.Tx) error) error {
	c.asked["read"]++
	return c.Store.Read(ctx, func(ctx context.Context, tx control.Tx) error { return fn(ctx, countedTx{tx, c.asked}) })
}

func (c counted) Write(ctx context.Context, fn func(context.Context, control.Tx) error) error {
	c.asked["write"]++
	return c.Store.Write(ctx, fn)
}

func (c countedTx) AccountByName(ctx context.Context, name string) (control.Account, error) {
	c.asked["account"]++
	return c.Tx.AccountByName(ctx, name)
}

func (c countedTx) HasRecoveryCode(ctx context.Context, operatorID string, hash []byte) (bool, error) {
	c.asked["recovery code"]++
	return c.Tx.HasRecoveryCode(ctx, operatorID, hash)
}

func (c countedTx) KnownClient(ctx context.Context, operatorID string, hash []byte) (control.KnownClient, error) {
	c.asked["client"]++
	return c.Tx.KnownClient(ctx, operatorID, hash)
}

// opened counts what is unsealed.
type opened struct {
	control.Sealer
	asked map[string]int
}

func (o opened) Open(sealed []byte, place string) ([]byte, error) {
	o.asked["unsealed"]++
	return o.Sealer.Open(sealed, place)
}

// The time itself is BenchmarkTurnedAway's affair.
func TestExistingAndMissingOperatorsTakeTheSameWork(t *testing.T) {
	dir := t.TempDir()
	w, records := openWorld(t, dir)
	w.signs(w.owner())
	w.operator("eve", control.RoleOwner) // has no password
	asked := make(map[string]int)
	keys := keysIn(t, dir, false)
	authority := ok[*control.Authority](t)(control.Open(t.Context(), control.Options{
		Store: counted{records, asked}, Sealer: opened{keys, asked}, Passwords: w.passwords, Now: w.now, Heartbeat: time.Second,
		KnockCookie: "sid", KnockRotation: time.Hour,
	}))
	var want map[string]int
	for _, name := range []string{"root", "nobody", "eve"} {
		for _, secrets := range []control.Secrets{
			{Password: annsPassword, Code: "000000", Client: strings.Repeat("A", 43)},
			{Password: annsPassword, Code: "AAAA-AAAA-AAAA-AAAA", Client: strings.Repeat("A", 43)},
		} {
			clear(asked)
			before := w.passwords.Checked()
			if _, err := authority.LogIn(t.Context(), control.LoginRequest{Name: name, Secrets: secrets}); !errors.Is(err, control.ErrBadLogin) {
				t.Errorf("%s: %v", name, err)
			}
			asked["passwords"] = int(w.passwords.Checked() - before)
			if want == nil {
				want = maps.Clone(asked)
			}
			if !maps.Equal(asked, want) {
				t.Errorf("%s takes %v, the first took %v", name, asked, want)
			}
		}
	}
	if want["account"] != 1 || want["recovery code"] != 1 || want["client"] != 1 || want["unsealed"] != 1 || want["write"] != 0 || want["passwords"] != 0 {
		t.Errorf("one takes %v", want)
	}
}

func BenchmarkTurnedAway(b *testing.B) {
	dir := b.TempDir()
	records, err := store.Open(b.Context(), store.Config{Path: filepath.Join(dir, "x.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer records.Close()
	keys, err := seal.Open(seal.Source{File: filepath.Join(dir, "kek"), Make: true})
	if err != nil {
		b.Fatal(err)
	}
	authority, err := control.Open(b.Context(), control.Options{
		Store: records, Sealer: keys, Passwords: password.New(password.Recommended()), Now: time.Now, Heartbeat: time.Second,
		KnockCookie: "sid", KnockRotation: time.Hour,
	})
	if err != nil {
		b.Fatal(err)
	}
	if _, err := authority.OpenDev(b.Context()); err != nil {
		b.Fatal(err)
	}
	dev, err := authority.Operators(b.Context(), "dev", control.Page{Limit: 1})
	if err != nil {
		b.Fatal(err)
	}
	secret := totp.NewSecret()
	_, err = authority.ChangeSignIn(b.Context(), control.Bearer{Operator: dev[0], Token: control.APIToken{Role: dev[0].Role}}, control.SignInChange{
		Password: new(annsPassword), TOTP: &control.NewTOTP{Secret: totp.FormatSecret(secret), Code: totp.Code(secret, totp.Step(time.Now()))},
	})
	if err != nil {
		b.Fatal(err)
	}
	for _, name := range []string{"dev", "nobody"} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				r := control.LoginRequest{Name: name, Secrets: control.Secrets{Password: annsPassword, Code: "x00000"}}
				if _, err := authority.LogIn(b.Context(), r); !errors.Is(err, control.ErrBadLogin) {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestALoginEndsWhenItIsNotUsedAndAfterItsTime(t *testing.T) {
	w := newWorld(t)
	ann := w.signs(w.owner())
	token := ann.logIn("").Token
	w.pass(control.LoginIdle - time.Second)
	w.bearer(token)
	w.pass(control.LoginIdle - time.Second)
	w.bearer(token)
	w.pass(control.LoginIdle)
	w.ended("not used", token)
	token = ann.logIn("").Token
	began := w.now()
	for w.now().Sub(began) < control.LoginTTL-time.Hour {
		w.pass(time.Hour)
		w.bearer(token)
	}
	w.pass(time.Hour)
	w.ended("after its time", token)
	if _, err := w.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if left := ok[[]control.Login](t)(w.Logins(t.Context(), w.owner2(), "", control.Page{Limit: 9})); len(left) != 0 {
		t.Errorf("%d are left", len(left))
	}
}

func TestLoginsAndKnownClientsAreBounded(t *testing.T) {
	w := newWorld(t)
	ann := w.signs(w.owner())
	first := ann.logIn("")
	for range 19 {
		ann.logIn("")
	}
	w.pass(time.Minute)
	w.bearer(first.Token) // used, so another one goes
	last := ann.logIn("")
	who := w.bearer(last.Token)
	logins := ok[[]control.Login](t)(w.Logins(t.Context(), who, "", control.Page{Limit: 99}))
	if len(logins) != 20 || !slices.ContainsFunc(logins, func(l control.Login) bool { return l.ID == first.Login.ID }) {
		t.Errorf("there are %d logins, the one that was used among them: %v", len(logins), logins)
	}
	if known := ok[bool](t)(w.KnowsClient(t.Context(), "root", first.Client)); known {
		t.Error("21 clients are known")
	}
	if known := ok[bool](t)(w.KnowsClient(t.Context(), "root", last.Client)); !known {
		t.Error("the newest client is not known")
	}
	if known := ok[bool](t)(w.KnowsClient(t.Context(), "nobody", last.Client)); known {
		t.Error("a client is known as another operator's")
	}
}

func TestHowOneSignsInIsChangedByOneselfAlone(t *testing.T) {
	w := newWorld(t)
	owner := w.owner()
	_, text, _, err := w.CreateAPIToken(t.Context(), owner, control.NewAPIToken{Role: control.RoleAuditor}, control.Once{})
	if err != nil {
		t.Fatal(err)
	}
	first := control.SignInChange{Password: new(annsPassword), TOTP: w.newTOTP(totp.NewSecret())}
	if _, err := w.ChangeSignIn(t.Context(), w.bearer(text), first); !errors.Is(err, control.ErrLimitedToken) {
		t.Errorf("a token that may less: %v", err)
	}
	invalid := func(what, field string, change control.SignInChange) {
		t.Helper()
		_, err := w.ChangeSignIn(t.Context(), owner, change)
		wrong, is := errors.AsType[*control.InvalidError](err)
		if !is || !slices.ContainsFunc(wrong.Fields, func(f control.FieldError) bool { return f.Field == field }) {
			t.Errorf("%s: %v, want a complaint about %s", what, err, field)
		}
	}
	factor := w.newTOTP(totp.NewSecret())
	invalid("nothing", "password", control.SignInChange{})
	invalid("a password alone", "current", control.SignInChange{Password: new(annsPassword)})
	for what, bad := range map[string]string{
		"short": "short one", "of few characters": "aaaabbbbccccdddd", "with the name in it": "my name is Root!", "of control characters": "abcdefgh\x01ijklmn",
		"long": strings.Repeat("abcdef", 200),
	} {
		invalid("a password that is "+what, "password", control.SignInChange{Password: &bad, TOTP: factor})
	}
	invalid("another code", "totp.code", control.SignInChange{Password: new(annsPassword), TOTP: &control.NewTOTP{Secret: factor.Secret, Code: "000000x"}})
	invalid("no secret", "totp.secret", control.SignInChange{Password: new(annsPassword), TOTP: &control.NewTOTP{Secret: "A", Code: "000000"}})

	ann := w.signs(owner)
	here, elsewhere := ann.logIn(""), ann.logIn("")
	invalid("again, without the present one", "current", control.SignInChange{Password: new(anothers), TOTP: w.newTOTP(totp.NewSecret())})
	change := control.SignInChange{Password: new(anothers), Current: &control.Secrets{Password: "wrong wrong wrong", Code: ann.code()}}
	if _, err := w.ChangeSignIn(t.Context(), w.bearer(here.Token), change); !errors.Is(err, control.ErrBadLogin) {
		t.Errorf("with a wrong present password: %v", err)
	}
	change.Current = &control.Secrets{Password: annsPassword, Code: ann.code()}
	if codes := ok[[]string](t)(w.ChangeSignIn(t.Context(), w.bearer(here.Token), change)); len(codes) != 0 {
		t.Errorf("a new password alone brings %v", codes)
	}
	w.bearer(here.Token)
	w.bearer(text)
	w.ended("another password", elsewhere.Token)
	if known := ok[bool](t)(w.KnowsClient(t.Context(), ann.name, here.Client)); known {
		t.Error("a client is known after the password was changed")
	}
	w.turnedAway("the password from before", ann.request(annsPassword, ann.code(), ""))
	w.turnedAway("the code that was used for the change", ann.request(anothers, change.Current.Code, ""))
	next := totp.NewSecret()
	w.pass(time.Minute)
	change = control.SignInChange{TOTP: w.newTOTP(next), Current: &control.Secrets{Password: anothers, Code: ann.codes[1]}}
	codes := ok[[]string](t)(w.ChangeSignIn(t.Context(), owner, change))
	w.ended("another second factor", here.Token)
	w.turnedAway("a code of the app from before", ann.request(anothers, ann.code(), ""))
	w.turnedAway("a recovery code from before", ann.request(anothers, ann.codes[2], ""))
	ok[control.LoggedIn](t)(w.LogIn(t.Context(), ann.request(anothers, codes[0], "")))
	ann.secret = next
	ok[control.LoggedIn](t)(w.LogIn(t.Context(), ann.request(anothers, ann.code(), "")))
}

func TestAnInvitationSetsHowAnOperatorSignsInOnceOnBothEngines(t *testing.T) {
	onBoth(t, func(t *testing.T, dir string, where store.Config) {
		t.Helper()
		w, _ := openWorldOn(t, dir, where)
		owner := w.owner()
		help, _ := w.operator("ann", control.RoleSupport)
		ann := w.signs(help)
		before := ann.logIn("").Token
		invite := func() string {
			t.Helper()
			link, expires, err := w.InviteOperator(t.Context(), help.ID)
			if err != nil || !expires.Equal(w.now().Add(24*time.Hour)) || !strings.Contains(link, "/operator#code=") {
				t.Fatalf("the link is %q until %v, %v", link, expires, err)
			}
			return code(t, link)
		}
		refused := func(what, code string) {
			t.Helper()
			in := control.Acceptance{Code: code, Password: anothers, TOTP: *w.newTOTP(totp.NewSecret())}
			if _, _, err := w.AcceptInvitation(t.Context(), in); !errors.Is(err, control.ErrInvalidInvitation) {
				t.Errorf("%s: %v", what, err)
			}
		}
		replaced := invite()
		link := invite()
		refused("one that was replaced", replaced)
		refused("one that there never was", strings.Repeat("A", 26))
		next := totp.NewSecret()
		in := control.Acceptance{Code: link, Password: "too short", TOTP: *w.newTOTP(next)}
		if _, _, err := w.AcceptInvitation(t.Context(), in); err == nil {
			t.Error("a short password is taken")
		}
		w.bearer(before)
		in.Password = anothers
		out, codes, err := w.AcceptInvitation(t.Context(), in)
		if err != nil || out.Operator.ID != help.ID || len(codes) != 10 {
			t.Fatalf("accepting gives %+v, %v, %v", out, codes, err)
		}
		w.bearer(out.Token)
		w.ended("set anew", before)
		refused("the same again", link)
		w.turnedAway("the password from before", ann.request(annsPassword, ann.code(), ""))
		ann.secret = next
		ok[control.LoggedIn](t)(w.LogIn(t.Context(), ann.request(anothers, ann.code(), "")))

		late := invite()
		w.pass(24 * time.Hour)
		refused("one that is too old", late)
		unused := invite()
		ok[control.Operator](t)(w.UpdateOperator(t.Context(), help.ID, control.OperatorFields{Disabled: new(true)}))
		refused("a disabled operator's", unused)
		_, _, err = w.InviteOperator(t.Context(), help.ID)
		conflicts(t, "inviting a disabled operator", err)
		w.turnedAway("a disabled operator", ann.request(anothers, ann.code(), ""))
		if _, _, err := w.InviteOperator(t.Context(), "x"); !errors.Is(err, control.ErrNotFound) {
			t.Errorf("inviting nobody: %v", err)
		}
		invited := ok[[]control.AuditEntry](t)(w.AuditEntries(t.Context(), control.AuditFilter{ObjectID: help.ID, Action: "operator.invitation_used", Limit: 9}))
		if len(invited) != 1 || invited[0].Actor.ID != help.ID || owner.ID == help.ID {
			t.Errorf("the audit log has %+v", invited)
		}
	})
}

func TestLoginsAreListedAndEndedByTheirOwnersAndThoseAbove(t *testing.T) {
	w := newWorld(t)
	roles := map[control.Role]control.Bearer{control.RoleOwner: w.owner()}
	for _, role := range []control.Role{control.RoleAdmin, control.RoleSupport, control.RoleAuditor} {
		roles[role], _ = w.operator("one "+string(role), role)
	}
	people := make(map[control.Role]*person)
	for role, who := range roles {
		people[role] = w.signs(who)
	}
	may := map[control.Role][]control.Role{
		control.RoleOwner: control.Roles(), control.RoleAdmin: {control.RoleAdmin, control.RoleSupport, control.RoleAuditor},
		control.RoleSupport: {control.RoleSupport}, control.RoleAuditor: {control.RoleAuditor},
	}
	for role, who := range roles {
		for other, p := range people {
			in := p.logIn("")
			err := w.EndLogin(t.Context(), who, in.Login.ID)
			if want := slices.Contains(may[role], other); (err == nil) != want || err != nil && !errors.Is(err, control.ErrNotFound) {
				t.Errorf("%s ends a login of %s: %v, want that it may: %v", role, other, err, want)
			}
			if err == nil {
				w.ended("one that was ended", in.Token)
			}
		}
	}
	all := ok[[]control.Login](t)(w.Logins(t.Context(), roles[control.RoleAuditor], "", control.Page{Limit: 99}))
	own := ok[[]control.Login](t)(w.Logins(t.Context(), roles[control.RoleSupport], "", control.Page{Limit: 99}))
	others := ok[[]control.Login](t)(w.Logins(t.Context(), roles[control.RoleSupport], roles[control.RoleOwner].ID, control.Page{Limit: 99}))
	if len(all) != 7 || len(own) != 1 || len(others) != 0 {
		t.Errorf("an auditor sees %d, support %d and %d of the owner", len(all), len(own), len(others))
	}
	// What an operator may no more, his logins may not.
	helper := people[control.RoleSupport].logIn("")
	ok[control.Operator](t)(w.UpdateOperator(t.Context(), helper.Operator.ID, control.OperatorFields{Role: new(control.RoleAuditor)}))
	if who := w.bearer(helper.Token); who.Token.Role != control.RoleAuditor {
		t.Errorf("with another role: %+v", who.Token)
	}
	ok[control.Operator](t)(w.UpdateOperator(t.Context(), helper.Operator.ID, control.OperatorFields{Disabled: new(true)}))
	w.ended("disabled", helper.Token)
	ok[control.Operator](t)(w.UpdateOperator(t.Context(), helper.Operator.ID, control.OperatorFields{Disabled: new(false)}))
	w.ended("enabled again", helper.Token)
	people[control.RoleSupport].logIn("")
}

func TestARescueEndsLoginsAndPasswords(t *testing.T) {
	w := newWorld(t)
	owner := w.owner()
	ann := w.signs(owner)
	token := ann.logIn("").Token
	help, _ := w.operator("bob", control.RoleSupport)
	invitation, _, err := w.InviteOperator(t.Context(), help.ID)
	if err != nil {
		t.Fatal(err)
	}
	link, revoked, err := w.Rescue(t.Context())
	if err != nil || revoked != 3 {
		t.Fatalf("%d were revoked, %v", revoked, err)
	}
	w.ended("rescued", token)
	w.turnedAway("after a rescue", ann.request(annsPassword, ann.code(), ""))
	in := control.Acceptance{Code: code(t, invitation), Password: anothers, TOTP: *w.newTOTP(totp.NewSecret())}
	if _, _, err := w.AcceptInvitation(t.Context(), in); !errors.Is(err, control.ErrInvalidInvitation) {
		t.Errorf("an invitation from before: %v", err)
	}
	back := w.bearer(ok[control.Credential](t)(w.Bootstrap(t.Context(), code(t, link), "x")).Token)
	w.signs(back).logIn("")
}

func TestAttemptsWithoutACodeAreInTheAuditLogTogether(t *testing.T) {
	w := newWorld(t)
	ann := w.signs(w.owner())
	for range 300 {
		w.turnedAway("no code", ann.request(annsPassword, "x00000", ""))
		w.turnedAway("nobody", control.LoginRequest{Name: "nobody", Secrets: control.Secrets{Password: annsPassword, Code: "x00000"}})
	}
	if _, err := w.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	failed := ok[[]control.AuditEntry](t)(w.AuditEntries(t.Context(), control.AuditFilter{Action: "login.failed", Limit: 9}))
	if len(failed) != 1 || failed[0].Before != `{"failures":0}` || failed[0].After != `{"failures":300}` || failed[0].Actor.Kind != control.ActorSystem {
		t.Errorf("the audit log has %+v", failed)
	}
	if _, err := w.Prune(t.Context()); err != nil {
		t.Fatal(err)
	}
	if again := ok[[]control.AuditEntry](t)(w.AuditEntries(t.Context(), control.AuditFilter{Action: "login.failed", Limit: 9})); len(again) != 1 {
		t.Errorf("written again: %+v", again)
	}
}
