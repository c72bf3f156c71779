package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// Operator is someone who runs the service.
type Operator struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      string    `json:"role" doc:"What the operator may do: owner, admin, support or auditor."`
	Disabled  bool      `json:"disabled"`
	CreatedAt time.Time `json:"created_at"`
}

func showOperator(o control.Operator) Operator {
	return Operator{ID: o.ID, Name: o.Name, Role: string(o.Role), Disabled: o.DisabledAt != nil, CreatedAt: o.CreatedAt}
}

// Whoami is an operator with the token that the request came with.
type Whoami struct {
	Operator
	Token APIToken `json:"token" doc:"The one in use. Its role is what it may do."`
	Login bool     `json:"login" doc:"The token is of a login, which ends when it is not used."`
	CSRF  string   `json:"csrf_token,omitempty" doc:"When it came in a cookie: what the header X-CSRF-Token must say."`
}

// NewOperator is what an owner says about a new operator.
type NewOperator struct {
	Name    string       `json:"name" minLength:"1" maxLength:"100" doc:"Unique."`
	Role    control.Role `json:"role" enum:"owner,admin,support,auditor"`
	TTLDays int          `json:"ttl_days,omitempty" minimum:"1" maximum:"365" doc:"How long the first token is valid; 90 when absent."`
}

// OperatorWithToken is a new operator with its first token, which is shown once.
type OperatorWithToken struct {
	Operator
	Token          string     `json:"token,omitempty" doc:"Absent when an earlier request with the same Idempotency-Key had made the operator."`
	TokenExpiresAt *time.Time `json:"token_expires_at,omitempty" doc:"Absent with the token."`
}

// OperatorChange is what an owner may change about an operator.
type OperatorChange struct {
	Name     *string       `json:"name,omitempty" minLength:"1" maxLength:"100"`
	Role     *control.Role `json:"role,omitempty" enum:"owner,admin,support,auditor" doc:"Tokens that may more end at once."`
	Disabled *bool         `json:"disabled,omitempty" doc:"With true, all tokens end at once; enabled again, the operator needs another."`
}

type whoamiInput struct {
	Cookie string `cookie:"__Host-httvps" maxLength:"200" doc:"Of a login in a browser."`
}

type operatorListInput struct {
	Paging
	Name string `query:"name" maxLength:"100" doc:"Only the one with this name."`
}

type operatorChangeInput struct {
	ByID
	Body OperatorChange
}

type operatorTokenInput struct {
	ByID
	Creation[NewToken]
}

func (s *server) registerOperators(api huma.API) {
	register(s, api, s.admin("whoami", http.MethodGet, "/whoami", "Say whose token this is and what it may do"),
		func(ctx context.Context, in *whoamiInput) (*body[Whoami], error) {
			o := operatorOf(ctx)
			who := Whoami{Operator: showOperator(o.Operator), Token: showToken(o.Token), Login: o.Login != nil}
			if o.Login != nil && o.Login.Cookie {
				who.CSRF = control.CSRFToken(in.Cookie)
			}
			return &body[Whoami]{who}, nil
		})
	register(s, api, s.admin("create-operator", http.MethodPost, "/operators", "Add an operator with a first API token, which is shown once"),
		func(ctx context.Context, in *Creation[NewOperator]) (*created[OperatorWithToken], error) {
			ttl := time.Duration(in.Body.TTLDays) * 24 * time.Hour
			made, replayed, err := s.authority.CreateOperator(ctx, in.Body.Name, in.Body.Role, ttl, in.once(ctx, "create-operator"))
			shown := OperatorWithToken{Operator: showOperator(made.Operator), Token: made.Token}
			if !replayed {
				shown.TokenExpiresAt = &made.ExpiresAt
			}
			return createdAs(shown, replayed), err
		})
	register(s, api, s.admin("list-operators", http.MethodGet, "/operators", "List operators"),
		func(ctx context.Context, in *operatorListInput) (*body[List[Operator]], error) {
			operators, err := s.authority.Operators(ctx, in.Name, in.page())
			return listOf(in.Paging, operators, showOperator, func(o control.Operator) string { return o.ID }), err
		})
	register(s, api, s.admin("show-operator", http.MethodGet, "/operators/{id}", "Show an operator"),
		func(ctx context.Context, in *ByID) (*body[Operator], error) {
			operator, err := s.authority.Operator(ctx, in.ID)
			return &body[Operator]{showOperator(operator)}, err
		})
	register(s, api, s.admin("update-operator", http.MethodPatch, "/operators/{id}", "Change an operator; tokens that may more than the new role end"),
		func(ctx context.Context, in *operatorChangeInput) (*body[Operator], error) {
			operator, err := s.authority.UpdateOperator(ctx, in.ID, control.OperatorFields(in.Body))
			return &body[Operator]{showOperator(operator)}, err
		})
	register(s, api, s.admin("delete-operator", http.MethodDelete, "/operators/{id}", "Remove an operator with its tokens"),
		func(ctx context.Context, in *ByID) (*struct{}, error) {
			return nil, s.authority.DeleteOperator(ctx, in.ID)
		})
	register(s, api, s.admin("create-operator-token", http.MethodPost, "/operators/{id}/tokens", "Make an API token of an operator; it is shown once"),
		func(ctx context.Context, in *operatorTokenInput) (*created[NewAPIToken], error) {
			return s.createToken(ctx, in.ID, in.Body, in.once(ctx, "create-operator-token", in.ID))
		})
}
