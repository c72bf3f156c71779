package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// SignIn is how an operator signs in.
type SignIn struct {
	ChangedAt         *time.Time `json:"changed_at" doc:"When the password or the second factor was last set; null: there is none yet."`
	RecoveryCodesLeft int        `json:"recovery_codes_left"`
	Failures          int        `json:"failures" doc:"Failed attempts since the last that went well; those without a good code are added every five minutes."`
}

// NewTOTP is a second factor that an app has.
type NewTOTP struct {
	Secret string `json:"secret" minLength:"32" maxLength:"32" pattern:"^[A-Z2-7]*$" doc:"20 random bytes that the client has made, base32: SHA-1, 30 seconds, 6 digits."`
	Code   string `json:"code" minLength:"6" maxLength:"6" pattern:"^[0-9]*$" doc:"What the app shows now."`
}

// CurrentSignIn is what an operator signs in with as yet.
type CurrentSignIn struct {
	Password string `json:"password" minLength:"1" maxLength:"1024"`
	Code     string `json:"code" minLength:"6" maxLength:"32" doc:"What the app shows, or a recovery code."`
	Client   string `json:"client,omitempty" maxLength:"43" pattern:"^[A-Za-z0-9_-]*$" doc:"Of an earlier login."`
}

// SignInChange is what the caller changes about how he signs in.
type SignInChange struct {
	Current  *CurrentSignIn `json:"current,omitempty" doc:"Needed unless there is none yet."`
	Password *string        `json:"password,omitempty" minLength:"12" maxLength:"1024" doc:"At least 12 characters, 5 of them different, and not the operator's name in them."`
	TOTP     *NewTOTP       `json:"totp,omitempty"`
}

// RecoveryCodes stand in for codes of an app.
type RecoveryCodes struct {
	RecoveryCodes []string `json:"recovery_codes" doc:"New ones, when the second factor is new; else those from before go on. Each is good once. They are shown once."`
}

// OperatorLink is a link for an operator, which is shown once.
type OperatorLink struct {
	Link      string    `json:"link" doc:"Good once, for setting a password and a second factor. One from before stops working."`
	ExpiresAt time.Time `json:"expires_at"`
}

// Acceptance is what an operator who was invited wants to sign in with.
type Acceptance struct {
	Code     string  `json:"code" minLength:"26" maxLength:"26" pattern:"^[A-Za-z2-7]*$" doc:"From the link."`
	Password string  `json:"password" minLength:"12" maxLength:"1024" doc:"At least 12 characters, 5 of them different, and not the operator's name in them."`
	TOTP     NewTOTP `json:"totp"`
	Cookie   bool    `json:"cookie,omitempty" doc:"For browsers: token and client go into cookies that scripts do not see."`
}

type signInInput struct {
	Remote
	Body SignInChange
}

type acceptanceInput struct {
	Remote
	Body Acceptance
}

func (s *server) registerSignIn(api huma.API) {
	register(s, api, s.admin("show-sign-in", http.MethodGet, "/sign-in", "Show how the caller signs in"),
		func(ctx context.Context, _ *struct{}) (*body[SignIn], error) {
			state, err := s.authority.SignInOf(ctx, operatorOf(ctx).ID)
			return &body[SignIn]{SignIn{ChangedAt: state.ChangedAt, RecoveryCodesLeft: state.RecoveryCodes, Failures: state.Failures}}, err
		})
	change := s.admin("change-sign-in", http.MethodPost, "/sign-in", "Set the caller's password, second factor or both")
	change.Description = "The caller's other logins end. A token that may less than its operator may not."
	change.DefaultStatus = http.StatusOK
	register(s, api, change, func(ctx context.Context, in *signInInput) (*body[RecoveryCodes], error) {
		wanted := control.SignInChange{Password: in.Body.Password, TOTP: (*control.NewTOTP)(in.Body.TOTP)}
		if in.Body.Current != nil {
			wanted.Current = (*control.Secrets)(in.Body.Current)
		}
		var codes []string
		err := s.limited(in.address, func() (err error) {
			codes, err = s.authority.ChangeSignIn(ctx, operatorOf(ctx), wanted)
			return err
		})
		return &body[RecoveryCodes]{RecoveryCodes{RecoveryCodes: append([]string{}, codes...)}}, err
	})
	invite := s.admin("invite-operator", http.MethodPost, "/operators/{id}/invitation", "Make a link with which an operator sets password and second factor")
	invite.Description = "For one who is new or has lost them. What he has goes on until the link is used."
	invite.DefaultStatus = http.StatusOK
	register(s, api, invite, func(ctx context.Context, in *ByID) (*body[OperatorLink], error) {
		link, expires, err := s.authority.InviteOperator(ctx, in.ID)
		return &body[OperatorLink]{OperatorLink{Link: link, ExpiresAt: expires}}, err
	})
	accept := s.admin("accept-invitation", http.MethodPost, "/sign-in/accept", "Set password and second factor with an operator's link, and sign in")
	accept.Security, accept.Middlewares, accept.DefaultStatus, accept.Parameters = nil, huma.Middlewares{s.ownOrigin}, http.StatusOK, nil
	register(s, api, accept, func(ctx context.Context, in *acceptanceInput) (*loggedIn, error) {
		var made control.LoggedIn
		var codes []string
		err := s.limited(in.address, func() (err error) {
			made, codes, err = s.authority.AcceptInvitation(ctx, control.Acceptance{
				Code: in.Body.Code, Password: in.Body.Password, TOTP: control.NewTOTP(in.Body.TOTP), Cookie: in.Body.Cookie,
			})
			return err
		})
		if err != nil {
			return nil, err
		}
		s.log.InfoContext(ctx, "operator has set a password with a link", "operator_id", made.Operator.ID, "login_id", made.Login.ID)
		return showLoggedIn(made, codes), nil
	})
}
