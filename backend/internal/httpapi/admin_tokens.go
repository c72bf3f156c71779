package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// APIToken is what may be seen of an operator's token.
type APIToken struct {
	ID         string    `json:"id"`
	OperatorID string    `json:"operator_id" doc:"Whose it is."`
	Role       string    `json:"role" doc:"What it may do, never more than its operator."`
	CreatedAt  time.Time `json:"created_at"`
	ExpiresAt  time.Time `json:"expires_at"`
}

// NewAPIToken is a token with its secret, which is shown once.
type NewAPIToken struct {
	APIToken
	Token string `json:"token,omitempty" doc:"Absent when an earlier request with the same Idempotency-Key had made the token."`
}

// NewToken is what is asked for of a token.
type NewToken struct {
	TTLDays int          `json:"ttl_days,omitempty" minimum:"1" maximum:"365" doc:"How long it is valid; what the settings say when absent, which is 90 at first."`
	Role    control.Role `json:"role,omitempty" enum:"owner,admin,support,auditor" doc:"What it may do: nothing that the caller's token or its operator may not. As much as both may when absent."`
}

type tokenListInput struct {
	Paging
	OperatorID string `query:"operator_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Only this operator's."`
}

func showToken(k control.APIToken) APIToken {
	return APIToken{ID: k.ID, OperatorID: k.OperatorID, Role: string(k.Role), CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt}
}

func (s *server) createToken(ctx context.Context, operatorID string, n NewToken, once control.Once) (*created[NewAPIToken], error) {
	row, token, replayed, err := s.authority.CreateAPIToken(ctx, operatorOf(ctx), control.NewAPIToken{
		OperatorID: operatorID, Role: n.Role, TTL: time.Duration(n.TTLDays) * 24 * time.Hour,
	}, once)
	return createdAs(NewAPIToken{APIToken: showToken(row), Token: token}, replayed), err
}

func (s *server) registerTokens(api huma.API) {
	register(s, api, s.admin("create-token", http.MethodPost, "/tokens", "Make a further API token of the caller; it is shown once"),
		func(ctx context.Context, in *Creation[NewToken]) (*created[NewAPIToken], error) {
			return s.createToken(ctx, "", in.Body, in.once(ctx, "create-token"))
		})
	list := s.admin("list-tokens", http.MethodGet, "/tokens", "List API tokens, without their secrets")
	list.Description = "Of all operators with the right audit, else the caller's own."
	register(s, api, list, func(ctx context.Context, in *tokenListInput) (*body[List[APIToken]], error) {
		tokens, err := s.authority.APITokens(ctx, operatorOf(ctx), in.OperatorID, in.page())
		return listOf(in.Paging, tokens, showToken, func(k control.APIToken) string { return k.ID }), err
	})
	end := s.admin("delete-token", http.MethodDelete, "/tokens/{id}", "End an API token at once; it may be the one in use")
	end.Description = "With the right operators any, else the one in use and those of the same operator that may no more than it."
	register(s, api, end, func(ctx context.Context, in *ByID) (*struct{}, error) {
		return nil, s.authority.DeleteAPIToken(ctx, operatorOf(ctx), in.ID)
	})
}
