package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// Moving is a live session with what it has moved and moves.
type Moving struct {
	ID          string     `json:"id" doc:"Of the session."`
	UserID      string     `json:"user_id"`
	UserName    string     `json:"user_name"`
	DeviceID    string     `json:"device_id"`
	DeviceName  string     `json:"device_name"`
	GatewayID   string     `json:"gateway_id"`
	GatewayName string     `json:"gateway_name"`
	Region      string     `json:"region" doc:"The code of the gateway's."`
	StartedAt   time.Time  `json:"started_at"`
	Up          int64      `json:"up" doc:"Bytes from the device since the session began, as last reported."`
	Down        int64      `json:"down" doc:"Bytes to it."`
	UpBPS       int64      `json:"up_bps" doc:"Bits per second from the device, on average over the last minute, or since the session began, and a little more: from report to report."`
	DownBPS     int64      `json:"down_bps" doc:"Likewise to it."`
	ReportedAt  *time.Time `json:"reported_at" doc:"When its gateway last told of traffic; null: it has not yet."`
}

func showMoving(m control.Moving) Moving {
	return Moving{
		ID: m.ID, UserID: m.UserID, UserName: m.UserName, DeviceID: m.DeviceID, DeviceName: m.DeviceName, GatewayID: m.GatewayID, GatewayName: m.GatewayName,
		Region: m.Region, StartedAt: m.StartedAt.UTC(), Up: m.Moved.Up, Down: m.Moved.Down, UpBPS: m.Rate.Up, DownBPS: m.Rate.Down, ReportedAt: orAbsent(m.ReportedAt),
	}
}

type movingInput struct {
	Paging
	UserID    string `query:"user_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Only this user's."`
	DeviceID  string `query:"device_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Only this device's."`
	GatewayID string `query:"gateway_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Only those on this gateway."`
}

func (s *server) registerMoving(api huma.API) {
	register(s, api, s.admin("list-traffic", http.MethodGet, "/traffic", "List live sessions with what they move"),
		func(ctx context.Context, in *movingInput) (*body[List[Moving]], error) {
			moving, err := s.authority.Moving(ctx, control.SessionFilter{UserID: in.UserID, DeviceID: in.DeviceID, GatewayID: in.GatewayID}, in.page())
			return listOf(in.Paging, moving, showMoving, func(m control.Moving) string { return m.ID }), err
		})
}
