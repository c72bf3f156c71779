package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// Settings are what operators decide about the service while it runs.
type Settings struct {
	Support              string `json:"support" doc:"Whom people can turn to who cannot go on: a text or a URL that they are shown. Empty: nobody is named."`
	InvitationTTLSeconds int    `json:"invitation_ttl_seconds" doc:"How long a user's invitation lasts when the request does not say."`
	APITokenTTLDays      int    `json:"api_token_ttl_days" doc:"How long an API token lasts when the request does not say."`
}

func showSettings(s control.Settings) Settings {
	return Settings{
		Support: s.Support, InvitationTTLSeconds: int(s.InvitationTTL / time.Second), APITokenTTLDays: int(s.APITokenTTL / (24 * time.Hour)),
	}
}

// SettingsChange is what becomes of the settings. What is absent stays as it is, what
// is null is the default again.
type SettingsChange struct {
	Support              To[string] `json:"support,omitzero" maxLength:"200" pattern:"^[^\\x00-\\x1f\\x7f-\\x9f]*$" doc:"One line. Absent, here and in what follows: as it is. Null: the default, which is none."`
	InvitationTTLSeconds To[int]    `json:"invitation_ttl_seconds,omitzero" minimum:"60" maximum:"2592000" doc:"The default is 86400."`
	APITokenTTLDays      To[int]    `json:"api_token_ttl_days,omitzero" minimum:"1" maximum:"365" doc:"The default is 90."`
}

func (s *server) registerSettings(api huma.API) {
	register(s, api, s.admin("show-settings", http.MethodGet, "/settings", "Show the settings of the service"),
		func(ctx context.Context, _ *struct{}) (*body[Settings], error) {
			settings, err := s.authority.Settings(ctx)
			return &body[Settings]{showSettings(settings)}, err
		})
	register(s, api, s.admin("update-settings", http.MethodPatch, "/settings", "Change the settings of the service, without a restart"),
		func(ctx context.Context, in *body[SettingsChange]) (*body[Settings], error) {
			settings, err := s.authority.UpdateSettings(ctx, control.SettingsChange{
				Support: in.Body.Support.To, InvitationTTLSeconds: in.Body.InvitationTTLSeconds.To, APITokenTTLDays: in.Body.APITokenTTLDays.To,
			})
			return &body[Settings]{showSettings(settings)}, err
		})
}
