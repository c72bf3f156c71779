package api

import (
	"context"
	"net/http"
)

// Settings are what operators decide about the service while it runs.
type Settings struct {
	Support              string `json:"support"` // empty: nobody is named
	InvitationTTLSeconds int    `json:"invitation_ttl_seconds"`
	APITokenTTLDays      int    `json:"api_token_ttl_days"`
}

// Settings returns the settings of the service.
func (c *Client) Settings(ctx context.Context) (Object[Settings], error) {
	return one[Settings](ctx, c, call{method: http.MethodGet, path: "settings", what: Thing{Kind: "settings"}})
}

// UpdateSettings changes those settings that are given; nil is the default again.
func (c *Client) UpdateSettings(ctx context.Context, fields map[string]any) (Object[Settings], error) {
	return one[Settings](ctx, c, call{method: http.MethodPatch, path: "settings", body: fields, what: Thing{Kind: "settings"}})
}
