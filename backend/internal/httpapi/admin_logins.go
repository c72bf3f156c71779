package httpapi

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// Cookies of a browser. Their names bind them to the host that set them, over TLS;
// scripts do not see them, and requests from other sites lack them.
const (
	loginCookie  = "__Host-httvps"
	clientCookie = "__Host-httvps-client"
	csrfHeader   = "X-CSRF-Token"

	// clientLife is how long a browser is known that is not used.
	clientLife = 400 * 24 * time.Hour // browsers keep none for longer
)

// cookie makes one; life 0 takes it away.
func cookie(name, value string, life time.Duration) http.Cookie {
	c := http.Cookie{ //nolint:gosec // it has all that is missed
		Name: name, Value: value, Path: "/", Secure: true, HttpOnly: true, SameSite: http.SameSiteStrictMode, MaxAge: int(life / time.Second),
	}
	if life <= 0 {
		c.MaxAge = -1
	}
	return c
}

// LogIn is what an operator signs in with.
type LogIn struct {
	Name     string `json:"name" minLength:"1" maxLength:"100"`
	Password string `json:"password" minLength:"1" maxLength:"1024"`
	Code     string `json:"code" minLength:"6" maxLength:"32" doc:"What the authenticator app shows, or a recovery code."`
	Client   string `json:"client,omitempty" maxLength:"43" pattern:"^[A-Za-z0-9_-]*$" doc:"The client of an earlier login. Who has it is not kept waiting by strangers who guess."`
	Cookie   bool   `json:"cookie,omitempty" doc:"For browsers: token and client go into cookies that scripts do not see."`
}

// Login is a time in which an operator is signed in.
type Login struct {
	ID         string    `json:"id"`
	OperatorID string    `json:"operator_id" doc:"Whose it is."`
	Browser    bool      `json:"browser" doc:"Its token is in a cookie."`
	Address    string    `json:"address" doc:"That it was made from."`
	Current    bool      `json:"current" doc:"It is the one in use."`
	CreatedAt  time.Time `json:"created_at"`
	SeenAt     time.Time `json:"seen_at" doc:"When it was last used, to the minute."`
	EndsAt     time.Time `json:"ends_at" doc:"Unless it is used."`
	ExpiresAt  time.Time `json:"expires_at" doc:"Whether it is used or not."`
}

func showLogin(l control.Login, current string) Login {
	return Login{
		ID: l.ID, OperatorID: l.OperatorID, Browser: l.Cookie, Address: l.Address, Current: l.ID == current,
		CreatedAt: l.CreatedAt, SeenAt: l.SeenAt, EndsAt: l.EndsAt, ExpiresAt: l.ExpiresAt,
	}
}

// LoggedIn is a new login with its secrets, which are shown once.
type LoggedIn struct {
	Login
	Operator          Operator `json:"operator"`
	Token             string   `json:"token,omitempty" doc:"To be used as an API token. Absent for a browser, which has it in a cookie."`
	Client            string   `json:"client,omitempty" doc:"For the next login from here. Absent for a browser, and when the one that came is still good."`
	CSRF              string   `json:"csrf_token,omitempty" doc:"For a browser: what the header X-CSRF-Token must say in requests that change something."`
	RecoveryCodesLeft int      `json:"recovery_codes_left"`
	RecoveryCodes     []string `json:"recovery_codes,omitempty" doc:"New ones, with a new second factor: each is good once in place of a code."`
}

type loggedIn struct {
	Cookies []http.Cookie `header:"Set-Cookie"`
	Body    LoggedIn
}

func showLoggedIn(made control.LoggedIn, recovery []string) *loggedIn {
	out := &loggedIn{Body: LoggedIn{
		Login: showLogin(made.Login, made.Login.ID), Operator: showOperator(made.Operator), RecoveryCodesLeft: made.RecoveryCodes, RecoveryCodes: recovery,
	}}
	if !made.Login.Cookie {
		out.Body.Token, out.Body.Client = made.Token, made.Client
		return out
	}
	out.Body.CSRF = control.CSRFToken(made.Token)
	out.Cookies = append(out.Cookies, cookie(loginCookie, made.Token, control.LoginTTL))
	if made.Client != "" {
		out.Cookies = append(out.Cookies, cookie(clientCookie, made.Client, clientLife))
	}
	return out
}

type loginInput struct {
	Remote
	Client string `cookie:"__Host-httvps-client" maxLength:"43" doc:"Of a browser that has signed in before."`
	Body   LogIn
}

type loginListInput struct {
	Paging
	OperatorID string `query:"operator_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Only this operator's."`
}

type loginEnded struct {
	Cookies []http.Cookie `header:"Set-Cookie"`
}

// logIn lets those sign in at once who are known, and bounds how often others may fail
// at an address, which may be one for many.
func (s *server) logIn(ctx context.Context, in *loginInput) (made control.LoggedIn, err error) {
	r := control.LoginRequest{
		Name: in.Body.Name, Secrets: control.Secrets{Password: in.Body.Password, Code: in.Body.Code, Client: in.Body.Client}, Cookie: in.Body.Cookie,
	}
	if r.Cookie {
		r.Secrets.Client = in.Client
	}
	defer func() { s.observer.Login(loginOutcome(err)) }()
	attempt := func() error {
		made, err = s.authority.LogIn(ctx, r)
		return err
	}
	known, err := s.authority.KnowsClient(ctx, r.Name, r.Secrets.Client)
	if err != nil {
		return made, err
	}
	if known {
		return made, attempt()
	}
	return made, s.limited(in.address, attempt)
}

func loginOutcome(err error) string {
	_, limited := errors.AsType[*control.RateLimitedError](err)
	switch {
	case err == nil:
		return "ok"
	case limited:
		return "limited"
	case errors.Is(err, control.ErrBadLogin):
		return "refused"
	default:
		return "failed"
	}
}

func (s *server) registerLogins(api huma.API) {
	in := s.admin("log-in", http.MethodPost, "/logins", "Sign in with password and code")
	in.Description = "For two hours from each use, twelve in all. Of wrong names, passwords and codes the answer does not say which."
	in.Security, in.Middlewares, in.DefaultStatus, in.Parameters = nil, huma.Middlewares{s.ownOrigin}, http.StatusOK, nil
	register(s, api, in, func(ctx context.Context, in *loginInput) (*loggedIn, error) {
		made, err := s.logIn(ctx, in)
		if err != nil {
			return nil, err
		}
		s.log.InfoContext(ctx, "operator signed in", "operator_id", made.Operator.ID, "login_id", made.Login.ID)
		return showLoggedIn(made, nil), nil
	})
	list := s.admin("list-logins", http.MethodGet, "/logins", "List logins that have not ended")
	list.Description = "Of all operators with the right audit, else the caller's own."
	register(s, api, list, func(ctx context.Context, in *loginListInput) (*body[List[Login]], error) {
		who := operatorOf(ctx)
		logins, err := s.authority.Logins(ctx, who, in.OperatorID, in.page())
		return listOf(in.Paging, logins, func(l control.Login) Login { return showLogin(l, who.Token.ID) }, func(l control.Login) string { return l.ID }), err
	})
	end := s.admin("delete-login", http.MethodDelete, "/logins/{id}", "End a login at once; it may be the one in use")
	end.Description = "With the right manage also of other operators who may no more than the caller."
	register(s, api, end, func(ctx context.Context, in *ByID) (*loginEnded, error) {
		who := operatorOf(ctx)
		if err := s.authority.EndLogin(ctx, who, in.ID); err != nil {
			return nil, err
		}
		out := &loginEnded{}
		if who.Login != nil && who.Login.Cookie && who.Login.ID == in.ID {
			out.Cookies = append(out.Cookies, cookie(loginCookie, "", 0))
		}
		return out, nil
	})
}
