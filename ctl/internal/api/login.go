package api

import (
	"context"
	"net/http"
	"time"
)

// Login is a time in which an operator is signed in.
type Login struct {
	ID         string    `json:"id"`
	OperatorID string    `json:"operator_id"`
	Browser    bool      `json:"browser"`
	Address    string    `json:"address"`
	Current    bool      `json:"current"` // the one in use
	CreatedAt  time.Time `json:"created_at"`
	SeenAt     time.Time `json:"seen_at"`
	EndsAt     time.Time `json:"ends_at"` // unless it is used
}

// LoggedIn is a new login. Its token and its client are shown once.
type LoggedIn struct {
	Login
	Operator          Operator `json:"operator"`
	Text              string   `json:"token"`
	Client            string   `json:"client"` // for the next login; empty: as before
	RecoveryCodesLeft int      `json:"recovery_codes_left"`
	RecoveryCodes     []string `json:"recovery_codes"` // new ones
}

// SignIn is how an operator signs in.
type SignIn struct {
	ChangedAt         *time.Time `json:"changed_at"` // nil: there is no password yet
	RecoveryCodesLeft int        `json:"recovery_codes_left"`
	Failures          int        `json:"failures"`
}

// TOTP is a second factor that an app has, with its code of now.
type TOTP struct {
	Secret string `json:"secret"`
	Code   string `json:"code"`
}

// Credentials are what an operator signs in with.
type Credentials struct {
	Password string `json:"password"`
	Code     string `json:"code"`             // of the app, or a recovery code
	Client   string `json:"client,omitempty"` // that an earlier login gave
}

// SignInChange is what an operator changes about how he signs in; nil leaves it as it
// is, and nil Current is for those who have nothing yet.
type SignInChange struct {
	Current  *Credentials `json:"current,omitempty"`
	Password *string      `json:"password,omitempty"`
	TOTP     *TOTP        `json:"totp,omitempty"`
}

// RecoveryCodes stand in for codes of an app.
type RecoveryCodes struct {
	RecoveryCodes []string `json:"recovery_codes"` // new ones; none: as before
}

// OperatorLink is a link with which an operator sets what he signs in with. It is
// shown once.
type OperatorLink struct {
	Link      string    `json:"link"`
	ExpiresAt time.Time `json:"expires_at"`
}

// Logins is every login that has not ended.
func (c *Client) Logins() Collection[Login] { return Collection[Login]{c, "login", "logins"} }

// LogIn signs an operator in.
func (c *Client) LogIn(ctx context.Context, name string, with Credentials) (Object[LoggedIn], error) {
	body := struct {
		Name string `json:"name"`
		Credentials
	}{name, with}
	return one[LoggedIn](ctx, c, call{method: http.MethodPost, path: c.Logins().path, body: body, what: Thing{Kind: "login"}})
}

// AcceptInvitation sets password and second factor with the code of an operator's
// link, and signs him in. It cannot be repeated.
func (c *Client) AcceptInvitation(ctx context.Context, code, password string, second TOTP) (Object[LoggedIn], error) {
	body := struct {
		Code     string `json:"code"`
		Password string `json:"password"`
		TOTP     TOTP   `json:"totp"`
	}{code, password, second}
	return one[LoggedIn](ctx, c, call{method: http.MethodPost, path: "sign-in/accept", body: body, what: Thing{Kind: "invitation"}})
}

// SignIn says how whoever calls signs in.
func (c *Client) SignIn(ctx context.Context) (Object[SignIn], error) {
	return one[SignIn](ctx, c, call{method: http.MethodGet, path: "sign-in", what: Thing{Kind: "sign-in"}})
}

// ChangeSignIn changes how whoever calls signs in. It cannot be repeated.
func (c *Client) ChangeSignIn(ctx context.Context, change SignInChange) (Object[RecoveryCodes], error) {
	return one[RecoveryCodes](ctx, c, call{method: http.MethodPost, path: "sign-in", body: change, what: Thing{Kind: "sign-in"}})
}

// InviteOperator makes the link with which an operator sets what he signs in with, in
// place of one from before.
func (c *Client) InviteOperator(ctx context.Context, id string) (Object[OperatorLink], error) {
	return one[OperatorLink](ctx, c, call{
		method: http.MethodPost, path: c.Operators().pathOf(id) + "/invitation", body: struct{}{}, what: Thing{"operator", id},
	})
}
