package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// Device is one enrolled key pair of a user.
type Device struct {
	ID         string     `json:"id"`
	UserID     string     `json:"user_id"`
	Name       string     `json:"name"`
	Platform   string     `json:"platform"`
	Thumbprint string     `json:"key_thumbprint" doc:"RFC 7638."`
	RevokedAt  *time.Time `json:"revoked_at" doc:"Null: in use."`
	LastSeenAt *time.Time `json:"last_seen_at" doc:"When it last got an access token."`
	CreatedAt  time.Time  `json:"created_at"`
}

func showDevice(d control.Device) Device {
	shown := Device{
		ID: d.ID, UserID: d.UserID, Name: d.Name, Platform: d.Platform,
		RevokedAt: d.RevokedAt, LastSeenAt: d.LastSeenAt, CreatedAt: d.CreatedAt,
	}
	if len(d.PublicKey) > 0 {
		shown.Thumbprint = d.Thumbprint()
	}
	return shown
}

type deviceListInput struct {
	Paging
	UserID string `query:"user_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Only this user's."`
	Search string `query:"q" maxLength:"100" doc:"Only those whose name begins so, in the order of names. ASCII letters match in both cases. Not together with user_id."`
}

// Resolve implements huma.Resolver.
func (in *deviceListInput) Resolve(huma.Context) []error {
	if in.UserID != "" && in.Search != "" {
		return []error{&huma.ErrorDetail{Location: "query.q", Message: notTogether}}
	}
	return nil
}

type deviceChangeInput struct {
	ByID
	Body struct {
		Name string `json:"name" minLength:"1" maxLength:"100"`
	}
}

type deviceRevokeInput struct {
	ByID
	Body *struct{}
}

func (s *server) registerDevices(api huma.API) {
	register(s, api, s.admin("list-devices", http.MethodGet, "/devices", "List devices"),
		func(ctx context.Context, in *deviceListInput) (*body[List[Device]], error) {
			var devices []control.Device
			var err error
			if in.Search != "" {
				devices, err = s.authority.SearchDevices(ctx, in.Search, in.page())
			} else {
				devices, err = s.authority.Devices(ctx, in.UserID, in.page())
			}
			return listOf(in.Paging, devices, showDevice, func(d control.Device) string { return d.ID }), err
		})
	register(s, api, s.admin("show-device", http.MethodGet, "/devices/{id}", "Show a device"),
		func(ctx context.Context, in *ByID) (*body[Device], error) {
			device, err := s.authority.Device(ctx, in.ID)
			return &body[Device]{showDevice(device)}, err
		})
	register(s, api, s.admin("update-device", http.MethodPatch, "/devices/{id}", "Rename a device"),
		func(ctx context.Context, in *deviceChangeInput) (*body[Device], error) {
			device, err := s.authority.RenameDevice(ctx, in.ID, in.Body.Name)
			return &body[Device]{showDevice(device)}, err
		})
	revoke := s.admin("revoke-device", http.MethodPost, "/devices/{id}/revoke", "End a device for good, with its sessions")
	revoke.DefaultStatus = http.StatusOK
	register(s, api, revoke, func(ctx context.Context, in *deviceRevokeInput) (*body[Device], error) {
		device, err := s.authority.RevokeDevice(ctx, in.ID)
		if err == nil {
			s.log.InfoContext(ctx, "device revoked", "device_id", device.ID, "operator_id", operatorOf(ctx).ID)
		}
		return &body[Device]{showDevice(device)}, err
	})
}

// Region is where gateways stand.
type Region struct {
	ID        string    `json:"id"`
	Code      string    `json:"code"`
	Name      string    `json:"name"`
	CreatedAt time.Time `json:"created_at"`
}

func showRegion(r control.Region) Region {
	return Region{ID: r.ID, Code: r.Code, Name: r.Name, CreatedAt: r.CreatedAt}
}

// NewRegion is what an operator says about a new region.
type NewRegion struct {
	Code string  `json:"code" minLength:"1" maxLength:"32" pattern:"^[a-z0-9-]*$" doc:"Unique."`
	Name *string `json:"name,omitempty" minLength:"1" maxLength:"100" doc:"The code when absent."`
}

// RegionChange is what an operator may change about a region.
type RegionChange struct {
	Code *string `json:"code,omitempty" minLength:"1" maxLength:"32" pattern:"^[a-z0-9-]*$"`
	Name *string `json:"name,omitempty" minLength:"1" maxLength:"100"`
}

type regionListInput struct {
	Paging
	Code string `query:"code" maxLength:"32" doc:"Only the one with this code."`
}

type regionChangeInput struct {
	ByID
	Body RegionChange
}

func (s *server) registerRegions(api huma.API) {
	register(s, api, s.admin("create-region", http.MethodPost, "/regions", "Add a region"),
		func(ctx context.Context, in *Creation[NewRegion]) (*created[Region], error) {
			fields := control.RegionFields{Code: &in.Body.Code, Name: in.Body.Name}
			region, replayed, err := s.authority.CreateRegion(ctx, fields, in.once(ctx, "create-region"))
			return createdAs(showRegion(region), replayed), err
		})
	register(s, api, s.admin("list-regions", http.MethodGet, "/regions", "List regions"),
		func(ctx context.Context, in *regionListInput) (*body[List[Region]], error) {
			regions, err := s.authority.Regions(ctx, in.Code, in.page())
			return listOf(in.Paging, regions, showRegion, func(r control.Region) string { return r.ID }), err
		})
	register(s, api, s.admin("show-region", http.MethodGet, "/regions/{id}", "Show a region"),
		func(ctx context.Context, in *ByID) (*body[Region], error) {
			region, err := s.authority.Region(ctx, in.ID)
			return &body[Region]{showRegion(region)}, err
		})
	register(s, api, s.admin("update-region", http.MethodPatch, "/regions/{id}", "Change a region"),
		func(ctx context.Context, in *regionChangeInput) (*body[Region], error) {
			region, err := s.authority.UpdateRegion(ctx, in.ID, control.RegionFields(in.Body))
			return &body[Region]{showRegion(region)}, err
		})
	register(s, api, s.admin("delete-region", http.MethodDelete, "/regions/{id}", "Remove a region that has no gateway and no Outline server"),
		func(ctx context.Context, in *ByID) (*struct{}, error) {
			return nil, s.authority.DeleteRegion(ctx, in.ID)
		})
}

// Gateway is a node of the data plane.
type Gateway struct {
	ID         string     `json:"id"`
	Name       string     `json:"name"`
	RegionID   string     `json:"region_id"`
	Region     string     `json:"region" doc:"The region's code."`
	Status     string     `json:"status" enum:"pending,online,offline"`
	URL        string     `json:"url" doc:"Empty until it has joined."`
	Version    string     `json:"version"`
	Sessions   int        `json:"sessions" doc:"As last reported."`
	Streams    int        `json:"streams" doc:"As last reported."`
	Draining   bool       `json:"draining" doc:"Devices leave it, and no session begins: an operator wants it so, or it is about to stop."`
	DrainedAt  *time.Time `json:"drained_at" doc:"Since when an operator wants it so; null: none does."`
	ClockMS    int64      `json:"clock_offset_ms" doc:"How far its clock is ahead of the service's, as last reported."`
	JoinedAt   *time.Time `json:"joined_at"`
	LeaseUntil *time.Time `json:"lease_until" doc:"It is online until then unless it reports again."`
	CreatedAt  time.Time  `json:"created_at"`
}

// NewGateway is a gateway with its join link, which is shown once.
type NewGateway struct {
	Gateway
	Join          string    `json:"join,omitempty" doc:"Absent when an earlier request with the same Idempotency-Key had made the gateway."`
	JoinExpiresAt time.Time `json:"join_expires_at"`
}

func (s *server) showGateway(g control.Gateway) Gateway {
	return Gateway{
		ID: g.ID, Name: g.Name, RegionID: g.RegionID, Region: g.Region, Status: g.Status(s.authority.Now()), URL: g.URL,
		Version: g.Version, Sessions: g.Sessions, Streams: g.Streams, Draining: g.Draining(), DrainedAt: g.DrainedAt, ClockMS: g.ClockOffset.Milliseconds(),
		JoinedAt: g.JoinedAt, LeaseUntil: g.LeaseUntil, CreatedAt: g.CreatedAt,
	}
}

// GatewayRequest is what an operator says about a new gateway.
type GatewayRequest struct {
	Name   string `json:"name" minLength:"1" maxLength:"100"`
	Region string `json:"region" minLength:"1" maxLength:"36" pattern:"^[a-z0-9-]*$" doc:"A region's code or id."`
}

type gatewayListInput struct {
	Paging
	RegionID string `query:"region_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Only this region's."`
}

type gatewayDrainInput struct {
	ByID
	Body *struct{}
}

func (s *server) registerGateways(api huma.API) {
	register(s, api, s.admin("create-gateway", http.MethodPost, "/gateways", "Make a gateway that can join; the link is shown once"),
		func(ctx context.Context, in *Creation[GatewayRequest]) (*created[NewGateway], error) {
			gateway, link, replayed, err := s.authority.CreateGateway(ctx, control.NewGateway(in.Body), in.once(ctx, "create-gateway"))
			shown := NewGateway{Gateway: s.showGateway(gateway), Join: link, JoinExpiresAt: gateway.JoinExpiresAt.UTC()}
			return createdAs(shown, replayed), err
		})
	register(s, api, s.admin("list-gateways", http.MethodGet, "/gateways", "List gateways"),
		func(ctx context.Context, in *gatewayListInput) (*body[List[Gateway]], error) {
			gateways, err := s.authority.Gateways(ctx, in.RegionID, in.page())
			return listOf(in.Paging, gateways, s.showGateway, func(g control.Gateway) string { return g.ID }), err
		})
	register(s, api, s.admin("show-gateway", http.MethodGet, "/gateways/{id}", "Show a gateway"),
		func(ctx context.Context, in *ByID) (*body[Gateway], error) {
			gateway, err := s.authority.Gateway(ctx, in.ID)
			return &body[Gateway]{s.showGateway(gateway)}, err
		})
	for _, change := range []struct {
		id, path, summary string
		do                func(context.Context, string) (control.Gateway, error)
	}{
		{"drain-gateway", "/gateways/{id}/drain", "Have a gateway send its devices to others and begin no session", s.authority.DrainGateway},
		{"undrain-gateway", "/gateways/{id}/undrain", "Let sessions begin on a gateway again", s.authority.UndrainGateway},
	} {
		op := s.admin(change.id, http.MethodPost, change.path, change.summary)
		op.DefaultStatus = http.StatusOK
		register(s, api, op, func(ctx context.Context, in *gatewayDrainInput) (*body[Gateway], error) {
			gateway, err := change.do(ctx, in.ID)
			if err == nil {
				s.log.InfoContext(ctx, "gateway is to be left, or no longer", "operation", change.id, "gateway_id", gateway.ID, "operator_id", operatorOf(ctx).ID)
			}
			return &body[Gateway]{s.showGateway(gateway)}, err
		})
	}
	register(s, api, s.admin("delete-gateway", http.MethodDelete, "/gateways/{id}", "Remove a gateway, which ends its sessions"),
		func(ctx context.Context, in *ByID) (*struct{}, error) {
			return nil, s.authority.DeleteGateway(ctx, in.ID)
		})
}

// Session is one device's tunnel on one gateway.
type Session struct {
	ID             string     `json:"id"`
	DeviceID       string     `json:"device_id"`
	UserID         string     `json:"user_id"`
	SubscriptionID string     `json:"subscription_id"`
	GatewayID      string     `json:"gateway_id"`
	OutlineServer  string     `json:"outline_server_id,omitempty" doc:"That it leaves through, or left through when it ended."`
	Live           bool       `json:"live" doc:"Not ended, and its gateway is online."`
	StartedAt      time.Time  `json:"started_at"`
	EndedAt        *time.Time `json:"ended_at"`
	Reason         string     `json:"reason" doc:"Why it ended."`
}

func showSession(b control.Session) Session {
	return Session{
		ID: b.ID, DeviceID: b.DeviceID, UserID: b.UserID, SubscriptionID: b.SubscriptionID, GatewayID: b.GatewayID, OutlineServer: b.OutlineServerID,
		Live: b.Live, StartedAt: b.StartedAt, EndedAt: b.EndedAt, Reason: b.EndReason,
	}
}

type sessionListInput struct {
	Paging
	State     string `query:"state" enum:"live,ended,all" default:"live"`
	UserID    string `query:"user_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Only this user's."`
	DeviceID  string `query:"device_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Only this device's."`
	GatewayID string `query:"gateway_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Only this gateway's."`
}

type sessionInput struct {
	ID string `path:"id" minLength:"32" maxLength:"32" pattern:"^[0-9a-f]*$"`
}

func (s *server) registerSessions(api huma.API) {
	register(s, api, s.admin("list-sessions", http.MethodGet, "/sessions", "List sessions, newest first; live ones unless said otherwise"),
		func(ctx context.Context, in *sessionListInput) (*body[List[Session]], error) {
			sessions, err := s.authority.Sessions(ctx, control.SessionFilter{
				State: control.SessionState(in.State), UserID: in.UserID, DeviceID: in.DeviceID, GatewayID: in.GatewayID,
			}, in.page())
			return listOf(in.Paging, sessions, showSession, func(b control.Session) string { return b.ID }), err
		})
	register(s, api, s.admin("show-session", http.MethodGet, "/sessions/{id}", "Show a session"),
		func(ctx context.Context, in *sessionInput) (*body[Session], error) {
			session, err := s.authority.Session(ctx, in.ID)
			return &body[Session]{showSession(session)}, err
		})
}
