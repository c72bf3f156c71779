package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// OutlineServer is a server that sessions leave through. Nothing shows its password.
type OutlineServer struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	RegionID    string     `json:"region_id"`
	Region      string     `json:"region" doc:"The region's code."`
	Host        string     `json:"host"`
	Port        int        `json:"port"`
	Status      string     `json:"status" enum:"unknown,up,down,disabled" doc:"unknown: no gateway has probed it within the last minute. It is used like one that is up."`
	StatusSince *time.Time `json:"status_since" doc:"When gateways found it so; null when they have not."`
	ProbedAt    *time.Time `json:"probed_at" doc:"When a gateway last told what it saw."`
	Weight      int        `json:"weight"`
	Priority    int        `json:"priority"`
	Capacity    int        `json:"capacity"`
	Sessions    int        `json:"sessions" doc:"That have it now."`
	Managed     bool       `json:"managed"`
	Fallback    bool       `json:"fallback"`
	Disabled    bool       `json:"disabled"`
	Key         OutlineKey `json:"key"`
	CreatedAt   time.Time  `json:"created_at"`
}

// OutlineKey is what is shown of an access key.
type OutlineKey struct {
	Generation int64     `json:"generation" doc:"Grows by one with each other key."`
	Cipher     string    `json:"cipher"`
	Prefixed   bool      `json:"prefixed" doc:"Connections begin with a prefix that the key has."`
	CreatedAt  time.Time `json:"created_at"`
}

// OutlineServerShown is a server with what gateways saw of it.
type OutlineServerShown struct {
	OutlineServer
	Probes []OutlineProbe `json:"probes" doc:"By gateway, of the last minute."`
}

// OutlineProbe is what a gateway last saw of a server.
type OutlineProbe struct {
	GatewayID string    `json:"gateway_id"`
	Failure   string    `json:"failure,omitempty" doc:"Absent: it worked."`
	LatencyMS int64     `json:"latency_ms"`
	Streak    int       `json:"streak" doc:"How many results in a row were good, or, below 0, bad."`
	At        time.Time `json:"at"`
}

func (s *server) showOutline(o control.OutlineServer) OutlineServer {
	shown := OutlineServer{
		ID: o.ID, Name: o.Name, RegionID: o.RegionID, Region: o.Region, Host: o.Host, Port: o.Port,
		ProbedAt: o.Health.ProbedAt, Weight: o.Weight, Priority: o.Priority, Capacity: o.Capacity, Sessions: o.Sessions,
		Managed: o.Managed, Fallback: o.Fallback, Disabled: o.DisabledAt != nil, CreatedAt: o.CreatedAt,
		Key: OutlineKey{
			Generation: o.Key.Generation, Cipher: string(o.Key.Cipher), Prefixed: len(o.Key.Prefix) > 0, CreatedAt: o.Key.CreatedAt,
		},
	}
	state := o.State(s.authority.Now())
	shown.Status = string(state)
	if state == o.Health.State {
		shown.StatusSince = o.Health.Since
	}
	if state == control.OutlineDisabled {
		shown.StatusSince = o.DisabledAt
	}
	return shown
}

// NewOutlineServer is what an operator says about a new server.
type NewOutlineServer struct {
	Region    string  `json:"region" minLength:"1" maxLength:"36" pattern:"^[a-z0-9-]*$" doc:"A region's code or id."`
	AccessKey string  `json:"access_key" minLength:"1" maxLength:"2048" doc:"An ss:// link, which has address, cipher and password. It is not shown again."`
	Name      *string `json:"name,omitempty" minLength:"1" maxLength:"100" doc:"Unique. When absent, the name in the access key, or else the address."`
	Weight    *int    `json:"weight,omitempty" minimum:"0" maximum:"1000" doc:"Its share of the sessions among servers of one priority, 100 when absent. With 0 it takes no new ones."`
	Priority  *int    `json:"priority,omitempty" minimum:"0" maximum:"1000" doc:"Servers with a higher number take sessions when those with lower ones cannot; 0 when absent."`
	Capacity  *int    `json:"capacity,omitempty" minimum:"1" maximum:"1000000" doc:"How many sessions it takes at once; 1000 when absent."`
	Managed   *bool   `json:"managed,omitempty" doc:"It is known to refuse targets that are not public, as Outline servers do: gateways may leave names to it."`
	Fallback  *bool   `json:"fallback,omitempty" doc:"It takes sessions of other regions that have no server left."`
	Disabled  *bool   `json:"disabled,omitempty"`
}

// OutlineServerChange is what an operator may change about a server.
type OutlineServerChange struct {
	Name      *string `json:"name,omitempty" minLength:"1" maxLength:"100"`
	Region    *string `json:"region,omitempty" minLength:"1" maxLength:"36" pattern:"^[a-z0-9-]*$" doc:"A region's code or id."`
	AccessKey *string `json:"access_key,omitempty" minLength:"1" maxLength:"2048" doc:"Another ss:// link, in place of the one that it has."`
	Weight    *int    `json:"weight,omitempty" minimum:"0" maximum:"1000"`
	Priority  *int    `json:"priority,omitempty" minimum:"0" maximum:"1000"`
	Capacity  *int    `json:"capacity,omitempty" minimum:"1" maximum:"1000000" doc:"Sessions that are there stay."`
	Managed   *bool   `json:"managed,omitempty"`
	Fallback  *bool   `json:"fallback,omitempty"`
	Disabled  *bool   `json:"disabled,omitempty" doc:"Sessions that have it get another one."`
}

type outlineListInput struct {
	Paging
	Name     string `query:"name" maxLength:"100" doc:"Only the one with this name."`
	RegionID string `query:"region_id" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"Only this region's."`
}

type outlineChangeInput struct {
	ByID
	Body OutlineServerChange
}

func (s *server) registerOutlineServers(api huma.API) {
	register(s, api, s.admin("create-outline-server", http.MethodPost, "/outline-servers", "Add an Outline server with its access key"),
		func(ctx context.Context, in *Creation[NewOutlineServer]) (*created[OutlineServer], error) {
			b := in.Body
			made, replayed, err := s.authority.CreateOutlineServer(ctx, control.OutlineFields{
				Name: b.Name, Region: &b.Region, AccessKey: &b.AccessKey, Weight: b.Weight, Priority: b.Priority, Capacity: b.Capacity,
				Managed: b.Managed, Fallback: b.Fallback, Disabled: b.Disabled,
			}, in.once(ctx, "create-outline-server"))
			return createdAs(s.showOutline(made), replayed), err
		})
	register(s, api, s.admin("list-outline-servers", http.MethodGet, "/outline-servers", "List Outline servers"),
		func(ctx context.Context, in *outlineListInput) (*body[List[OutlineServer]], error) {
			servers, err := s.authority.OutlineServers(ctx, control.OutlineFilter{Name: in.Name, RegionID: in.RegionID}, in.page())
			return listOf(in.Paging, servers, s.showOutline, func(o control.OutlineServer) string { return o.ID }), err
		})
	register(s, api, s.admin("show-outline-server", http.MethodGet, "/outline-servers/{id}", "Show an Outline server with what gateways saw of it"),
		func(ctx context.Context, in *ByID) (*body[OutlineServerShown], error) {
			o, err := s.authority.OutlineServer(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			probes, err := s.authority.OutlineProbes(ctx, in.ID)
			if err != nil {
				return nil, err
			}
			shown := OutlineServerShown{OutlineServer: s.showOutline(o), Probes: make([]OutlineProbe, 0, len(probes))}
			for _, p := range probes {
				shown.Probes = append(shown.Probes, OutlineProbe{
					GatewayID: p.GatewayID, Failure: string(p.Failure), LatencyMS: p.Latency.Milliseconds(), Streak: p.Streak, At: p.ProbedAt,
				})
			}
			return &body[OutlineServerShown]{shown}, nil
		})
	register(s, api, s.admin("update-outline-server", http.MethodPatch, "/outline-servers/{id}", "Change an Outline server, or give it another access key"),
		func(ctx context.Context, in *outlineChangeInput) (*body[OutlineServer], error) {
			changed, err := s.authority.UpdateOutlineServer(ctx, in.ID, control.OutlineFields(in.Body))
			return &body[OutlineServer]{s.showOutline(changed)}, err
		})
	register(s, api, s.admin("delete-outline-server", http.MethodDelete, "/outline-servers/{id}", "Remove an Outline server; sessions that have it get another one"),
		func(ctx context.Context, in *ByID) (*struct{}, error) {
			return nil, s.authority.DeleteOutlineServer(ctx, in.ID)
		})
}
