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
	CreatedAt  time.Time `json:"created_at"`
	ExpiresAt  time.Time `json:"expires_at"`
}

// NewAPIToken is a token with its secret, which is shown once.
type NewAPIToken struct {
	APIToken
	Token string `json:"token,omitempty" doc:"Absent when an earlier request with the same Idempotency-Key had made the token."`
}

// TokenLife is how long a new token is to be valid.
type TokenLife struct {
	TTLDays int `json:"ttl_days,omitempty" minimum:"1" maximum:"365" doc:"90 when absent."`
}

func showToken(k control.APIToken) APIToken {
	return APIToken{ID: k.ID, OperatorID: k.OperatorID, CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt}
}

func (s *server) registerTokens(api huma.API) {
	register(s, api, s.admin("create-token", http.MethodPost, "/tokens", "Make a further API token of the caller; it is shown once"),
		func(ctx context.Context, in *Creation[TokenLife]) (*created[NewAPIToken], error) {
			ttl := time.Duration(in.Body.TTLDays) * 24 * time.Hour
			row, token, replayed, err := s.authority.CreateAPIToken(ctx, operatorOf(ctx).ID, ttl, in.once(ctx, "create-token"))
			return createdAs(NewAPIToken{APIToken: showToken(row), Token: token}, replayed), err
		})
	register(s, api, s.admin("list-tokens", http.MethodGet, "/tokens", "List API tokens, without their secrets"),
		func(ctx context.Context, in *Paging) (*body[List[APIToken]], error) {
			tokens, err := s.authority.APITokens(ctx, in.page())
			return listOf(*in, tokens, showToken, func(k control.APIToken) string { return k.ID }), err
		})
	register(s, api, s.admin("delete-token", http.MethodDelete, "/tokens/{id}", "End an API token at once; it may be the one in use"),
		func(ctx context.Context, in *ByID) (*struct{}, error) {
			return nil, s.authority.DeleteAPIToken(ctx, in.ID)
		})
}
