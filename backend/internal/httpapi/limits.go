package httpapi

import (
	"context"
	"net/http"
	"reflect"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// Limits are what holds for one user whatever his plans say.
type Limits struct {
	MaxDevices   *int      `json:"max_devices" doc:"Null, here and in what follows: what the plan says."`
	MaxSessions  *int      `json:"max_sessions"`
	MaxStreams   *int      `json:"max_streams"`
	MaxUDP       *int      `json:"max_udp"`
	SpeedUpBPS   *int64    `json:"speed_up_bps" doc:"0: no limit, whatever the plan says."`
	SpeedDownBPS *int64    `json:"speed_down_bps" doc:"Likewise."`
	QuotaBytes   *int64    `json:"quota_bytes" doc:"0: no quota, whatever the plan says."`
	QuotaPeriod  *string   `json:"quota_period"`
	Regions      *[]string `json:"regions" nullable:"true" doc:"Codes; empty: all, whatever the plan says."`
}

func showLimits(l control.Limits) Limits {
	shown := Limits{
		MaxDevices: l.MaxDevices, MaxSessions: l.MaxSessions, MaxStreams: l.MaxStreams, MaxUDP: l.MaxUDP, SpeedUpBPS: l.SpeedUpBPS,
		SpeedDownBPS: l.SpeedDownBPS, QuotaBytes: l.QuotaBytes, Regions: l.Regions,
	}
	if l.QuotaPeriod != nil {
		shown.QuotaPeriod = new(string(*l.QuotaPeriod))
	}
	return shown
}

// LimitsChange is what becomes of a user's limits. What is absent stays as it is, what
// is null is the plans' again.
type LimitsChange struct {
	MaxDevices   To[int]                 `json:"max_devices,omitzero" minimum:"1" maximum:"1000" doc:"Absent, here and in what follows: as it is. Null: what the plan says."`
	MaxSessions  To[int]                 `json:"max_sessions,omitzero" minimum:"1" maximum:"1000"`
	MaxStreams   To[int]                 `json:"max_streams,omitzero" minimum:"1" maximum:"65535"`
	MaxUDP       To[int]                 `json:"max_udp,omitzero" minimum:"0" maximum:"65535"`
	SpeedUpBPS   To[int64]               `json:"speed_up_bps,omitzero" minimum:"0" maximum:"1000000000000" doc:"8,000 to 10^12 bits per second; 0: no limit, whatever the plan says."`
	SpeedDownBPS To[int64]               `json:"speed_down_bps,omitzero" minimum:"0" maximum:"1000000000000" doc:"Likewise."`
	QuotaBytes   To[int64]               `json:"quota_bytes,omitzero" minimum:"0" maximum:"1125899906842624" doc:"1 MiB to 1 PiB; 0: no quota, whatever the plan says."`
	QuotaPeriod  To[control.QuotaPeriod] `json:"quota_period,omitzero" doc:"none, day, week, month or rolling."`
	Regions      To[[]string]            `json:"regions,omitzero" maxItems:"64" doc:"Codes. Empty: all regions, whatever the plan says."`
}

func (c LimitsChange) change() control.LimitsChange {
	return control.LimitsChange{
		MaxDevices: c.MaxDevices.To, MaxSessions: c.MaxSessions.To, MaxStreams: c.MaxStreams.To, MaxUDP: c.MaxUDP.To, SpeedUpBPS: c.SpeedUpBPS.To,
		SpeedDownBPS: c.SpeedDownBPS.To, QuotaBytes: c.QuotaBytes.To, QuotaPeriod: c.QuotaPeriod.To, Regions: c.Regions.To,
	}
}

func showLimitsChange(c control.LimitsChange) LimitsChange {
	return LimitsChange{
		MaxDevices: To[int]{c.MaxDevices}, MaxSessions: To[int]{c.MaxSessions}, MaxStreams: To[int]{c.MaxStreams}, MaxUDP: To[int]{c.MaxUDP},
		SpeedUpBPS: To[int64]{c.SpeedUpBPS}, SpeedDownBPS: To[int64]{c.SpeedDownBPS}, QuotaBytes: To[int64]{c.QuotaBytes},
		QuotaPeriod: To[control.QuotaPeriod]{c.QuotaPeriod}, Regions: To[[]string]{c.Regions},
	}
}

// To is what a value is to become that may be absent: null takes it away.
type To[T any] struct {
	control.To[T]
}

// Schema implements huma.SchemaProvider.
func (To[T]) Schema(r huma.Registry) *huma.Schema {
	schema := *r.Schema(reflect.TypeFor[T](), true, "")
	schema.Nullable = true
	return &schema
}

type limitsChangeInput struct {
	ByID
	Body LimitsChange
}

func (s *server) registerLimits(api huma.API) {
	register(s, api, s.admin("update-user-limits", http.MethodPatch, "/users/{id}/limits", "Change what holds for a user whatever his plans say, also on the sessions that live"),
		func(ctx context.Context, in *limitsChangeInput) (*body[User], error) {
			user, err := s.authority.UpdateLimits(ctx, in.ID, in.Body.change())
			return &body[User]{showUser(user)}, err
		})
}
