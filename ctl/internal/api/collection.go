package api

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
)

// Object is one thing of the service: the fields this program knows, and the
// service's own JSON, which may have more and is what programs get to see.
type Object[T any] struct {
	Value T
	JSON  json.RawMessage
}

func decode[T any](c *Client, body json.RawMessage) (Object[T], error) {
	object := Object[T]{JSON: body}
	if err := json.Unmarshal(body, &object.Value); err != nil {
		return Object[T]{}, c.unexpected(err)
	}
	return object, nil
}

// unexpected says that an answer was JSON and not what this program knows.
func (c *Client) unexpected(err error) error {
	return fmt.Errorf("%s answered with something this version of httvpsctl does not understand: %w", c.endpoint, err)
}

// Page is a part of a list. Next is the cursor of what follows, empty at the end.
type Page[T any] struct {
	Items []Object[T]
	Next  string
}

// Collection is all things of one kind.
type Collection[T any] struct {
	client *Client
	kind   string
	path   string
}

// Users is every user.
func (c *Client) Users() Collection[User] { return Collection[User]{c, "user", "users"} }

// Plans is every plan.
func (c *Client) Plans() Collection[Plan] { return Collection[Plan]{c, "plan", "plans"} }

// Subscriptions is every subscription.
func (c *Client) Subscriptions() Collection[Subscription] {
	return Collection[Subscription]{c, "subscription", "subscriptions"}
}

// Devices is every device.
func (c *Client) Devices() Collection[Device] { return Collection[Device]{c, "device", "devices"} }

// Regions is every region.
func (c *Client) Regions() Collection[Region] { return Collection[Region]{c, "region", "regions"} }

// Gateways is every gateway.
func (c *Client) Gateways() Collection[Gateway] {
	return Collection[Gateway]{c, "gateway", "gateways"}
}

// OutlineServers is every Outline server.
func (c *Client) OutlineServers() Collection[OutlineServer] {
	return Collection[OutlineServer]{c, "Outline server", "outline-servers"}
}

// Sessions is every session that is live now; filters widen it.
func (c *Client) Sessions() Collection[Session] {
	return Collection[Session]{c, "session", "sessions"}
}

// Tokens is every operator's API token.
func (c *Client) Tokens() Collection[TokenInfo] { return Collection[TokenInfo]{c, "token", "tokens"} }

// Operators is everybody who runs the service.
func (c *Client) Operators() Collection[Operator] {
	return Collection[Operator]{c, "operator", "operators"}
}

// List returns the page after cursor (empty: the first) of at most limit items
// (0: as the service likes) that match filters.
func (s Collection[T]) List(ctx context.Context, filters url.Values, limit int, cursor string) (Page[T], error) {
	query := url.Values{}
	maps.Copy(query, filters)
	if limit > 0 {
		query.Set("limit", strconv.Itoa(limit))
	}
	if cursor != "" {
		query.Set("cursor", cursor)
	}
	body, err := s.client.do(ctx, call{method: http.MethodGet, path: s.path, query: query, what: Thing{Kind: s.kind}})
	if err != nil {
		return Page[T]{}, err
	}
	var list struct {
		Items []json.RawMessage `json:"items"`
		Next  *string           `json:"next"`
	}
	if err := json.Unmarshal(body, &list); err != nil {
		return Page[T]{}, s.client.unexpected(err)
	}
	page := Page[T]{Items: make([]Object[T], len(list.Items))}
	if list.Next != nil {
		page.Next = *list.Next
	}
	for i, item := range list.Items {
		if page.Items[i], err = decode[T](s.client, item); err != nil {
			return Page[T]{}, err
		}
	}
	return page, nil
}

// Get returns the thing with this id.
func (s Collection[T]) Get(ctx context.Context, id string) (Object[T], error) {
	return s.one(ctx, call{method: http.MethodGet, path: s.pathOf(id), what: Thing{s.kind, id}})
}

// Create makes a new thing of fields. Repeating it with the same key, an
// arbitrary text, does not make a second one.
func (s Collection[T]) Create(ctx context.Context, fields any, key string) (Object[T], error) {
	return s.one(ctx, call{method: http.MethodPost, path: s.path, body: fields, key: key, what: Thing{Kind: s.kind}})
}

// Update changes those fields of a thing that are given.
func (s Collection[T]) Update(ctx context.Context, id string, fields any) (Object[T], error) {
	return s.one(ctx, call{method: http.MethodPatch, path: s.pathOf(id), body: fields, what: Thing{s.kind, id}})
}

// Delete removes a thing for good.
func (s Collection[T]) Delete(ctx context.Context, id string) error {
	_, err := s.client.do(ctx, call{method: http.MethodDelete, path: s.pathOf(id), what: Thing{s.kind, id}})
	return err
}

func (s Collection[T]) pathOf(id string) string { return s.path + "/" + url.PathEscape(id) }

func (s Collection[T]) one(ctx context.Context, r call) (Object[T], error) {
	return one[T](ctx, s.client, r)
}

func one[T any](ctx context.Context, c *Client, r call) (Object[T], error) {
	body, err := c.do(ctx, r)
	if err != nil {
		return Object[T]{}, err
	}
	return decode[T](c, body)
}

// UpdateLimits changes those limits of a user that are given; nil gives one back to his
// plans.
func (c *Client) UpdateLimits(ctx context.Context, user string, limits map[string]any) (Object[User], error) {
	return one[User](ctx, c, call{
		method: http.MethodPatch, path: c.Users().pathOf(user) + "/limits", body: limits,
		what: Thing{"user", user},
	})
}

// RevokeDevice ends a device for good: its sessions close and its key is never
// accepted again.
func (c *Client) RevokeDevice(ctx context.Context, id string) (Object[Device], error) {
	return one[Device](ctx, c, call{
		method: http.MethodPost, path: c.Devices().pathOf(id) + "/revoke", body: struct{}{},
		what: Thing{"device", id},
	})
}

// DrainGateway has a gateway send its devices to others and take no sessions.
func (c *Client) DrainGateway(ctx context.Context, id string) (Object[Gateway], error) {
	return one[Gateway](ctx, c, call{
		method: http.MethodPost, path: c.Gateways().pathOf(id) + "/drain", body: struct{}{},
	})
}

// UndrainGateway lets a gateway take sessions again.
func (c *Client) UndrainGateway(ctx context.Context, id string) (Object[Gateway], error) {
	return one[Gateway](ctx, c, call{
		method: http.MethodPost, path: c.Gateways().pathOf(id) + "/undrain", body: struct{}{},
	})
}

// CloseSession has a session ended; its device may begin another one.
func (c *Client) CloseSession(ctx context.Context, id string) (Object[Session], error) {
	return one[Session](ctx, c, call{
		method: http.MethodPost, path: c.Sessions().pathOf(id) + "/close", body: struct{}{},
		what: Thing{"session", id},
	})
}

// Invitations is every invitation of a user. One that is listed has no link.
func (c *Client) Invitations(user string) Collection[Invitation] {
	return Collection[Invitation]{c, "invitation", c.Users().pathOf(user) + "/invitations"}
}

// Invite makes a single-use enrolment link for a user. ttl is in seconds; 0
// leaves it to the service. A repetition with the same key has no link.
func (c *Client) Invite(ctx context.Context, user string, ttl int, key string) (Object[Invitation], error) {
	body := struct {
		TTL int `json:"ttl_seconds,omitempty"`
	}{ttl}
	return one[Invitation](ctx, c, call{
		method: http.MethodPost, path: c.Invitations(user).path, body: body, key: key,
		what: Thing{"user", user},
	})
}

// CreateGateway makes the row that a gateway in region (an id or a code) will
// join as, and its join link. A repetition with the same key has no link.
func (c *Client) CreateGateway(ctx context.Context, name, region, key string) (Object[NewGateway], error) {
	fields := struct {
		Name   string `json:"name"`
		Region string `json:"region"`
	}{name, region}
	return one[NewGateway](ctx, c, call{
		method: http.MethodPost, path: c.Gateways().path, body: fields, key: key,
		what: Thing{Kind: "gateway"},
	})
}

// CreateToken makes an API token of an operator, or without one of whoever calls,
// valid for days; 0 leaves it to the service. Without a role it may as much as both may. A repetition with the
// same key has no text.
func (c *Client) CreateToken(ctx context.Context, operator, role string, days int, key string) (Object[NewToken], error) {
	body := struct {
		Days int    `json:"ttl_days,omitempty"`
		Role string `json:"role,omitempty"`
	}{days, role}
	r := call{method: http.MethodPost, path: c.Tokens().path, body: body, key: key, what: Thing{Kind: "token"}}
	if operator != "" {
		r.path, r.what = c.Operators().pathOf(operator)+"/tokens", Thing{"operator", operator}
	}
	return one[NewToken](ctx, c, r)
}

// CreateOperator makes an operator with a first token, valid for days; 0 leaves it to the service. A repetition
// with the same key has no text.
func (c *Client) CreateOperator(ctx context.Context, name, role string, days int, key string) (Object[NewOperator], error) {
	body := struct {
		Name string `json:"name"`
		Role string `json:"role"`
		Days int    `json:"ttl_days,omitempty"`
	}{name, role, days}
	return one[NewOperator](ctx, c, call{
		method: http.MethodPost, path: c.Operators().path, body: body, key: key, what: Thing{Kind: "operator"},
	})
}

// Whoami says whose token the client holds.
func (c *Client) Whoami(ctx context.Context) (Object[Whoami], error) {
	return one[Whoami](ctx, c, call{method: http.MethodGet, path: "whoami", what: Thing{Kind: "token"}})
}

// Bootstrap redeems the one-time code of a new or a rescued service: it makes the
// owner, unless there is one, and returns a token of the owner's. It cannot be
// repeated.
func (c *Client) Bootstrap(ctx context.Context, code, name string) (Token, error) {
	request := struct {
		Code string `json:"code"`
		Name string `json:"name"`
	}{code, name}
	body, err := c.do(ctx, call{method: http.MethodPost, path: "bootstrap", body: request, what: Thing{Kind: "operator"}})
	if err != nil {
		return Token{}, err
	}
	var answer struct {
		Token string `json:"token"`
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return Token{}, c.unexpected(err)
	}
	token, err := ParseToken(answer.Token)
	if err != nil {
		return Token{}, c.unexpected(err)
	}
	return token, nil
}
