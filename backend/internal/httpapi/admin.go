package httpapi

import (
	"context"
	"crypto/sha256"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// List is a part of a list.
type List[T any] struct {
	Items []T     `json:"items"`
	Next  *string `json:"next" doc:"The cursor of what follows; null at the end."`
}

// Paging asks for a part of a list. huma fills embedded structs only when their
// names are exported.
type Paging struct {
	Limit  int    `query:"limit" minimum:"1" maximum:"500" default:"50" doc:"How many items at most."`
	Cursor string `query:"cursor" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"The next of the part before."`
}

// page asks for one more than was asked for, which tells whether something follows.
func (p Paging) page() control.Page { return control.Page{After: p.Cursor, Limit: p.Limit + 1} }

func listOf[D, T any](p Paging, objects []D, show func(D) T, id func(D) string) *body[List[T]] {
	list := List[T]{Items: make([]T, 0, len(objects))}
	for i, object := range objects {
		if i == p.Limit {
			next := id(objects[i-1])
			list.Next = &next
			break
		}
		list.Items = append(list.Items, show(object))
	}
	return &body[List[T]]{list}
}

// ByID names an object.
type ByID struct {
	ID string `path:"id" minLength:"36" maxLength:"36" pattern:"^[0-9a-f-]*$"`
}

type created[T any] struct {
	Replayed string `header:"Idempotency-Replayed" doc:"true when an earlier request with the same Idempotency-Key had made the object."`
	Body     T
}

func createdAs[T any](object T, replayed bool) *created[T] {
	out := &created[T]{Body: object}
	if replayed {
		out.Replayed = "true"
	}
	return out
}

// Creation is a request that makes an object.
type Creation[T any] struct {
	Key  string `header:"Idempotency-Key" maxLength:"200" pattern:"^[ -~]*$" doc:"Repeating a request with the same key within 24 hours does not act twice."`
	Body T
}

// once says how a creating request is told from others: by its operator, its key
// and everything it says.
func (c Creation[T]) once(ctx context.Context, operation string, path ...string) control.Once {
	request := sha256.Sum256(mustJSON([]any{operation, path, c.Body}))
	return control.Once{OperatorID: operatorOf(ctx).ID, Key: c.Key, Request: request}
}

const adminPath = "/api/v1/admin"

// admin returns the operation of an operator.
func (s *server) admin(id, method, path, summary string) huma.Operation {
	op := huma.Operation{
		OperationID: id, Method: method, Path: adminPath + path, Summary: summary, Tags: []string{"admin"},
		Security: []map[string][]string{{secureOperator: {}}}, Middlewares: append(huma.Middlewares{s.ownOrigin}, s.asOperator()...),
	}
	if right, ok := rights[id]; ok {
		op.Extensions = map[string]any{"x-right": right}
	}
	if method != http.MethodGet {
		op.Parameters = []*huma.Param{{
			Name: reasonHeader, In: "header", Description: "Why, for the audit log: at most 200 characters.", Schema: &huma.Schema{Type: "string"},
		}}
	}
	switch method {
	case http.MethodPost:
		op.DefaultStatus = http.StatusCreated
	case http.MethodDelete:
		op.DefaultStatus = http.StatusNoContent
	default:
		op.DefaultStatus = http.StatusOK
	}
	return op
}

// Bootstrap is the first operator's request, and after a rescue the owner's.
type Bootstrap struct {
	Code string `json:"code" minLength:"26" maxLength:"26" pattern:"^[A-Za-z2-7]*$" doc:"From the bootstrap link."`
	Name string `json:"name" minLength:"1" maxLength:"100" doc:"What the operator is called. After a rescue the owner keeps its name."`
}

// Credential is a new operator's API token, which is shown once.
type Credential struct {
	ID         string    `json:"id" doc:"Of the token."`
	Token      string    `json:"token"`
	ExpiresAt  time.Time `json:"expires_at"`
	OperatorID string    `json:"operator_id"`
	Name       string    `json:"name"`
	Role       string    `json:"role"`
}

type bootstrapInput struct {
	Remote
	Key  string `header:"Idempotency-Key" maxLength:"200" pattern:"^[ -~]*$" doc:"Accepted and without effect: the code works once anyhow."`
	Body Bootstrap
}

func (s *server) registerAdmin(api huma.API) {
	bootstrap := s.admin("bootstrap", http.MethodPost, "/bootstrap", "Become the owner with the one-time code of a new or a rescued service")
	bootstrap.Security, bootstrap.Middlewares = nil, huma.Middlewares{s.ownOrigin}
	register(s, api, bootstrap, func(ctx context.Context, in *bootstrapInput) (*body[Credential], error) {
		var c control.Credential
		err := s.limited(in.address, func() (err error) {
			c, err = s.authority.Bootstrap(ctx, in.Body.Code, in.Body.Name)
			return err
		})
		if err != nil {
			return nil, err
		}
		if c.Rescued {
			s.log.WarnContext(ctx, "owner has a new token after a rescue", "operator_id", c.Operator.ID)
		} else {
			s.log.InfoContext(ctx, "first operator made", "operator_id", c.Operator.ID)
		}
		return &body[Credential]{Credential{
			ID: c.TokenID, Token: c.Token, ExpiresAt: c.ExpiresAt, OperatorID: c.Operator.ID, Name: c.Operator.Name, Role: string(c.Operator.Role),
		}}, nil
	})
	s.registerLogins(api)
	s.registerSignIn(api)
	s.registerOperators(api)
	s.registerAudit(api)
	s.registerTokens(api)
	s.registerUsers(api)
	s.registerLimits(api)
	s.registerSettings(api)
	s.registerPlans(api)
	s.registerSubscriptions(api)
	s.registerDevices(api)
	s.registerWhy(api)
	s.registerMoving(api)
	s.registerInvitations(api)
	s.registerRegions(api)
	s.registerGateways(api)
	s.registerOutlineServers(api)
	s.registerSessions(api)
	s.registerAccount(api)
	s.registerBulk(api)
	s.registerWebhooks(api)
}
