package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// maxProbesBody has room for control.MaxOutlineResults results.
const maxProbesBody = 128 << 10

// ExitRequest asks for the Outline server that a session leaves through.
type ExitRequest struct {
	SessionID string `json:"session_id" minLength:"32" maxLength:"32" pattern:"^[0-9a-f]*$"`
	Region    string `json:"region,omitempty" maxLength:"32" pattern:"^[a-z0-9-]*$" doc:"The code of the region to leave in; the gateway's own when absent."`
}

// ExitFailure says that a session's Outline server failed.
type ExitFailure struct {
	SessionID string `json:"session_id" minLength:"32" maxLength:"32" pattern:"^[0-9a-f]*$"`
	ServerID  string `json:"server_id" minLength:"36" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"The server that failed."`
	Failure   string `json:"failure" enum:"connect,timeout,reset,corrupt,other" doc:"connect: no connection. timeout: nothing came. reset: the server hung up. corrupt: what came could not be deciphered."`
	Region    string `json:"region,omitempty" maxLength:"32" pattern:"^[a-z0-9-]*$" doc:"As with the first question."`
}

// ExitRelease names a session that needs no Outline server any more.
type ExitRelease struct {
	SessionID string `json:"session_id" minLength:"32" maxLength:"32" pattern:"^[0-9a-f]*$"`
}

// Exit is the Outline server that a session leaves through.
type Exit struct {
	OutlineAccess
	Result       string `json:"result" enum:"assigned,kept,switched" doc:"assigned: the session had none. kept: it is the one that it had. switched: it is another one."`
	RetryAfterMS int64  `json:"retry_after_ms,omitempty" doc:"When a failure may be reported again that has not led to another server."`
}

// OutlineAccess is what is needed to use a server. It has the password: keep it in
// memory alone.
type OutlineAccess struct {
	ServerID   string `json:"server_id"`
	Region     string `json:"region"`
	Host       string `json:"host" doc:"A name or an IP address, without brackets."`
	Port       int    `json:"port"`
	Cipher     string `json:"cipher" doc:"chacha20-ietf-poly1305, aes-256-gcm, aes-192-gcm or aes-128-gcm."`
	Password   string `json:"password"`
	Prefix     string `json:"prefix,omitempty" doc:"What the salt of a TCP connection begins with, base64url without padding."`
	Managed    bool   `json:"managed" doc:"The server refuses targets that are not public by itself: names may be left to it."`
	Generation int64  `json:"generation" doc:"Of the access key: another one has another number."`
}

// OutlineProbes are what a gateway's probes through Outline servers saw.
type OutlineProbes struct {
	Results []OutlineProbed `json:"results" maxItems:"256" doc:"Of several about one server the last counts. None at the beginning."`
}

// OutlineProbed is what a probe saw.
type OutlineProbed struct {
	ServerID  string `json:"server_id" minLength:"36" maxLength:"36" pattern:"^[0-9a-f-]*$"`
	Failure   string `json:"failure,omitempty" enum:"connect,timeout,reset,corrupt,other" doc:"Absent: it worked."`
	LatencyMS int64  `json:"latency_ms,omitempty" minimum:"0" maximum:"600000" doc:"Until the first byte of the answer."`
}

// OutlineProbing is what a gateway is to probe next.
type OutlineProbing struct {
	IntervalMS int64           `json:"interval_ms" doc:"Until the next report."`
	Servers    []OutlineAccess `json:"servers" doc:"Those that the gateway's sessions may get, at most 256, also those that are down."`
}

func showAccess(a control.OutlineAccess) OutlineAccess {
	return OutlineAccess{
		ServerID: a.ServerID, Region: a.Region, Host: a.Host, Port: a.Port, Cipher: string(a.Cipher), Password: a.Password,
		Prefix: rawURL.EncodeToString(a.Prefix), Managed: a.Managed, Generation: a.Generation,
	}
}

func (s *server) registerOutline(api huma.API) {
	secure := []map[string][]string{{secureGateway: {}}}
	operation := func(id, path, summary, description string) huma.Operation {
		return huma.Operation{
			OperationID: id, Method: http.MethodPost, Path: "/api/v1" + path, Tags: []string{"gateway"}, Summary: summary, Description: description,
			Security: secure, Middlewares: s.asGateway(), DefaultStatus: http.StatusOK,
		}
	}
	register(s, api, operation("assign-outline", "/nodes/assign-outline", "Get the Outline server that a session leaves through",
		"It stays the same until it fails, is disabled or is found down. Refusals have status 403: session_unknown, no_outline_nodes_available."),
		func(ctx context.Context, in *body[ExitRequest]) (*body[Exit], error) {
			return s.assign(ctx, control.ExitRequest{SessionID: in.Body.SessionID, Region: in.Body.Region})
		})
	register(s, api, operation("report-outline-failure", "/nodes/report-outline-failure", "Say that a session's Outline server failed, and get another one",
		"At most one switch in 30 seconds. The answer is the server that the session has from now on; it is the same one when it was switched too recently, or when there is no other."),
		func(ctx context.Context, in *body[ExitFailure]) (*body[Exit], error) {
			s.observer.OutlineFailure(in.Body.Failure)
			return s.assign(ctx, control.ExitRequest{SessionID: in.Body.SessionID, Region: in.Body.Region, Failed: in.Body.ServerID})
		})
	release := operation("release-outline", "/nodes/release-outline", "Give back a session's Outline server",
		"A session that ends gives it back by itself.")
	release.DefaultStatus = http.StatusNoContent
	register(s, api, release, func(ctx context.Context, in *body[ExitRelease]) (*struct{}, error) {
		return nil, s.authority.ReleaseOutline(ctx, gatewayOf(ctx), in.Body.SessionID)
	})
	probes := operation("outline-heartbeat", "/outline/heartbeat", "Say what probes through Outline servers saw, and learn what to probe next", "")
	probes.MaxBodyBytes = maxProbesBody
	register(s, api, probes, s.outlineHeartbeat)
}

func (s *server) assign(ctx context.Context, r control.ExitRequest) (*body[Exit], error) {
	exit, err := s.authority.AssignOutline(ctx, gatewayOf(ctx), r)
	if err != nil {
		s.observer.Exit(string(control.ExitRefused))
		return nil, err
	}
	s.observer.Exit(string(exit.Result))
	return &body[Exit]{Exit{
		OutlineAccess: showAccess(exit.OutlineAccess), Result: string(exit.Result), RetryAfterMS: exit.RetryAfter.Milliseconds(),
	}}, nil
}

func (s *server) outlineHeartbeat(ctx context.Context, in *body[OutlineProbes]) (*body[OutlineProbing], error) {
	gateway := gatewayOf(ctx)
	results := make([]control.OutlineResult, 0, len(in.Body.Results))
	for _, r := range in.Body.Results {
		results = append(results, control.OutlineResult{
			ServerID: r.ServerID, Failure: control.OutlineFailure(r.Failure), Latency: time.Duration(r.LatencyMS) * time.Millisecond,
		})
	}
	changes, err := s.authority.ReportOutline(ctx, gateway, results)
	if err != nil {
		return nil, err
	}
	for _, r := range in.Body.Results {
		s.observer.OutlineProbe(r.Failure)
	}
	for _, change := range changes {
		s.log.InfoContext(ctx, "outline server has another state", "server_id", change.ServerID, "state", string(change.State), "gateway_id", gateway.ID)
	}
	servers, err := s.authority.ProbedServers(ctx, gateway)
	if err != nil {
		return nil, err
	}
	out := OutlineProbing{IntervalMS: control.OutlineProbeInterval.Milliseconds(), Servers: make([]OutlineAccess, 0, len(servers))}
	for _, access := range servers {
		out.Servers = append(out.Servers, showAccess(access))
	}
	return &body[OutlineProbing]{out}, nil
}
