package httpapi

import (
	"context"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/httvps/httvps/backend/internal/control"
)

// Join is a gateway's request to be let in.
type Join struct {
	Code      string `json:"code" minLength:"26" maxLength:"26" pattern:"^[A-Za-z2-7]*$" doc:"The join link's code."`
	PublicKey string `json:"public_key" minLength:"43" maxLength:"43" pattern:"^[A-Za-z0-9_-]*$" doc:"Ed25519, base64url."`
	Nonce     string `json:"nonce" minLength:"1" maxLength:"128" pattern:"^[A-Za-z0-9_-]*$" doc:"From a challenge."`
	Signature string `json:"signature" minLength:"86" maxLength:"86" pattern:"^[A-Za-z0-9_-]*$" doc:"Ed25519 over \"HTTVPS1 join\", a zero byte, SHA-256 of the code in upper case, the public key and the nonce; base64url."`
	URL       string `json:"url" minLength:"1" maxLength:"500" doc:"Where devices find the gateway: wss://HOST[:PORT]/PATH."`
	Version   string `json:"version,omitempty" maxLength:"64"`
}

// Joined is what a gateway learns when it joins.
type Joined struct {
	GatewayID string `json:"gateway_id"`
	Region    string `json:"region" doc:"A region's code."`
	ServiceID string `json:"service_id" doc:"The audience of access tokens."`
	Issuer    string `json:"issuer" doc:"The issuer of access tokens."`
}

// GatewayConfig is what a gateway needs to serve.
type GatewayConfig struct {
	GatewayID           string       `json:"gateway_id"`
	Region              string       `json:"region" doc:"A region's code."`
	ServiceID           string       `json:"service_id" doc:"The audience of access tokens."`
	ServiceName         string       `json:"service_name"`
	Issuer              string       `json:"issuer" doc:"The issuer of access tokens."`
	JWKS                KeySet       `json:"jwks"`
	HeartbeatIntervalMS int64        `json:"heartbeat_interval_ms"`
	Knock               GatewayKnock `json:"knock"`
	Keys                KeyVersions  `json:"keys" doc:"Versions of jwks and knock, as a snapshot has them."`
}

// GatewayKnock is what a gateway knows devices by.
type GatewayKnock struct {
	Cookie string   `json:"cookie" doc:"The cookie's name."`
	Keys   []string `json:"keys" doc:"All that are in force, 32 bytes each, base64url: devices may have any of them."`
}

// ValidateDevice asks whether a device may have a session.
type ValidateDevice struct {
	SessionID     string `json:"session_id" minLength:"32" maxLength:"32" pattern:"^[0-9a-f]*$" doc:"Chosen by the gateway at random."`
	DeviceID      string `json:"device_id" minLength:"36" maxLength:"36" pattern:"^[0-9a-f-]*$"`
	KeyThumbprint string `json:"key_thumbprint" minLength:"43" maxLength:"43" pattern:"^[A-Za-z0-9_-]*$" doc:"RFC 7638, of the key that the device proved."`
	Generation    int64  `json:"generation" minimum:"1" doc:"From the access token."`
	BootID        string `json:"boot_id" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9_-]*$" doc:"Of the gateway's process."`
}

// Decision says whether a device may have a session.
type Decision struct {
	Allowed        bool           `json:"allowed"`
	Reason         string         `json:"reason,omitempty" doc:"Why not."`
	UserID         string         `json:"user_id,omitempty"`
	SubscriptionID string         `json:"subscription_id,omitempty"`
	PlanID         string         `json:"plan_id,omitempty"`
	Limits         *SessionLimits `json:"limits,omitempty"`
	ExpiresAt      *time.Time     `json:"expires_at,omitempty" doc:"When the subscription ends; absent when it does not."`
	Quota          *QuotaGrant    `json:"quota,omitempty" doc:"What the gateway may use of the subscription's quota; absent when there is none."`
	Egress         *PlanEgress    `json:"egress,omitempty" doc:"What the session may not reach, besides what the gateway denies to all; absent when nothing."`
}

// SessionLimits are the plan's limits of one session.
type SessionLimits struct {
	MaxSessions  int    `json:"max_sessions" doc:"Of the user at once, for a gateway that cannot ask."`
	MaxStreams   int    `json:"max_streams"`
	MaxUDP       int    `json:"max_udp"`
	SpeedUpBPS   *int64 `json:"speed_up_bps,omitempty" doc:"Bits per second from the device; absent: no limit."`
	SpeedDownBPS *int64 `json:"speed_down_bps,omitempty" doc:"Bits per second to the device; absent: no limit."`
}

// AdmittedSessions are sessions that a gateway let in while it got no decisions.
type AdmittedSessions struct {
	BootID   string            `json:"boot_id" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9_-]*$" doc:"Of the gateway's process: sessions of earlier ones are over."`
	Sessions []AdmittedSession `json:"sessions" maxItems:"100"`
}

// AdmittedSession is one of them.
type AdmittedSession struct {
	ValidateDevice
	SubscriptionID string     `json:"subscription_id,omitempty" maxLength:"36" pattern:"^[0-9a-f-]*$" doc:"From the last decision about the device: the session is booked on it."`
	BegunAt        time.Time  `json:"begun_at"`
	EndedAt        *time.Time `json:"ended_at,omitempty" doc:"Absent: it goes on."`
	Reason         string     `json:"reason,omitempty" maxLength:"64" pattern:"^[a-z0-9_]*$" doc:"Why it has ended."`
}

// AdmittedAnswer says which of them may go on.
type AdmittedAnswer struct {
	Sessions []Decision `json:"sessions" doc:"For each of the sessions, in their order. Of those that have ended it says nothing."`
}

// Heartbeat is what a gateway says about itself.
type Heartbeat struct {
	BootID   string `json:"boot_id" minLength:"1" maxLength:"64" pattern:"^[A-Za-z0-9_-]*$" doc:"A new one with each start of the gateway's process; it ends the sessions of the one before."`
	Version  string `json:"version,omitempty" maxLength:"64"`
	URL      string `json:"url,omitempty" maxLength:"500"`
	Sessions int    `json:"sessions" minimum:"0" maximum:"10000000"`
	Streams  int    `json:"streams" minimum:"0" maximum:"1000000000"`
	Leaving  bool   `json:"leaving,omitempty" doc:"It is about to stop: its devices turn to other gateways, and no other one is shown it."`

	Time *time.Time `json:"time,omitempty" doc:"The gateway's clock. One that is wrong takes good tokens for expired."`

	Leases []QuotaLease `json:"leases,omitempty" maxItems:"1000" doc:"Of quotas, to be renewed as by POST /quota/leases."`
}

// HeartbeatAnswer is what a gateway is to do.
type HeartbeatAnswer struct {
	IntervalMS int64          `json:"interval_ms" doc:"Until the next heartbeat. The lease is three of them."`
	ServerTime time.Time      `json:"server_time"`
	Close      []SessionClose `json:"close" doc:"Sessions to close now, at most 1,000; the next heartbeat brings the rest."`
	Quotas     []QuotaGrant   `json:"quotas,omitempty" doc:"For each of the leases, in their order."`
	Drained    bool           `json:"drained" doc:"An operator wants devices to leave this gateway, and no session to begin."`
	Gateways   []string       `json:"gateways" doc:"Where devices may turn to that leave this gateway, at most 8 URLs, the nearest first; null while they stay."`
}

// SessionClose names a session and why it is over.
type SessionClose struct {
	SessionID string `json:"session_id" minLength:"32" maxLength:"32" pattern:"^[0-9a-f]*$"`
	Reason    string `json:"reason" maxLength:"64" pattern:"^[a-z0-9_]*$"`
}

// SessionsEnd tells which sessions are over.
type SessionsEnd struct {
	Sessions []SessionClose `json:"sessions" maxItems:"1000"`
}

type joinInput struct {
	Remote
	Body Join
}

func (s *server) registerGateway(api huma.API) {
	secure := []map[string][]string{{secureGateway: {}}}
	register(s, api, huma.Operation{
		OperationID: "gateway-join", Method: http.MethodPost, Path: "/api/v1/gateway/join", Tags: []string{"gateway"},
		Summary: "Redeem a join link for a gateway's key", DefaultStatus: http.StatusCreated,
		Description: "The same code with the same key again gives the same gateway, with status 200.",
	}, s.join)
	register(s, api, huma.Operation{
		OperationID: "gateway-config", Method: http.MethodGet, Path: "/api/v1/gateway/config", Tags: []string{"gateway"},
		Summary: "Get what a gateway needs to serve", Security: secure, Middlewares: s.asGateway(),
	}, func(ctx context.Context, _ *struct{}) (*body[GatewayConfig], error) {
		gateway, identity := gatewayOf(ctx), s.authority.Identity()
		told, err := s.authority.GatewayKnock(ctx)
		if err != nil {
			return nil, err
		}
		known := GatewayKnock{Cookie: told.Cookie, Keys: make([]string, 0, len(told.Keys))}
		for _, key := range told.Keys {
			known.Keys = append(known.Keys, rawURL.EncodeToString(key[:]))
		}
		keys, err := s.keySet(ctx) // after the versions: what is newer than they say is fetched again
		if err != nil {
			return nil, err
		}
		return &body[GatewayConfig]{GatewayConfig{
			GatewayID: gateway.ID, Region: gateway.Region, ServiceID: identity.ServiceID, ServiceName: s.authority.ServiceName(),
			Issuer: identity.Issuer, JWKS: keys, HeartbeatIntervalMS: s.authority.HeartbeatInterval().Milliseconds(),
			Knock: known, Keys: showKeyVersions(told.Versions),
		}}, nil
	})
	register(s, api, huma.Operation{
		OperationID: "validate-device", Method: http.MethodPost, Path: "/api/v1/auth/validate-device", Tags: []string{"gateway"},
		Summary: "Ask whether a device may have a session, and begin it if so", Security: secure, Middlewares: s.asGateway(),
		DefaultStatus: http.StatusOK,
		Description:   "A refusal is a decision too and has status 200. Asked again about the same session, the answer is the same and counts once.",
	}, s.validateDevice)
	register(s, api, huma.Operation{
		OperationID: "gateway-sessions-admitted", Method: http.MethodPost, Path: "/api/v1/gateway/sessions/admitted", Tags: []string{"gateway"},
		Summary: "Say which sessions began while there was no decision to be had", Security: secure, Middlewares: s.asGateway(),
		DefaultStatus: http.StatusOK, MaxBodyBytes: maxEndsBody,
		Description: "Each is recorded, so that its usage is its user's, and decided on: one that is not allowed has ended, and the gateway closes it. Told again, one that goes on is decided on again.",
	}, s.sessionsAdmitted)
	register(s, api, huma.Operation{
		OperationID: "gateway-heartbeat", Method: http.MethodPost, Path: "/api/v1/gateway/heartbeat", Tags: []string{"gateway"},
		Summary: "Renew a gateway's lease and with it its sessions", Security: secure, Middlewares: s.asGateway(),
		DefaultStatus: http.StatusOK, MaxBodyBytes: maxEndsBody,
	}, func(ctx context.Context, in *body[Heartbeat]) (*body[HeartbeatAnswer], error) {
		lease := control.Lease{
			BootID: in.Body.BootID, URL: in.Body.URL, Version: in.Body.Version, Sessions: &in.Body.Sessions, Streams: &in.Body.Streams,
			Leaving: &in.Body.Leaving,
		}
		if in.Body.Time != nil {
			offset := in.Body.Time.Sub(s.authority.Now())
			lease.ClockOffset = &offset
		}
		ends, err := s.authority.Heartbeat(ctx, gatewayOf(ctx), lease)
		if err != nil {
			return nil, err
		}
		quotas, err := s.renewQuota(ctx, in.Body.BootID, in.Body.Leases)
		if err != nil {
			return nil, err
		}
		out := HeartbeatAnswer{
			IntervalMS: s.authority.HeartbeatInterval().Milliseconds(), ServerTime: s.authority.Now().UTC(),
			Close: make([]SessionClose, 0, len(ends)), Quotas: quotas, Drained: gatewayOf(ctx).DrainedAt != nil,
		}
		if out.Drained || in.Body.Leaving {
			if out.Gateways, err = s.authority.OtherGateways(ctx, gatewayOf(ctx)); err != nil {
				return nil, err
			}
		}
		for _, end := range ends {
			out.Close = append(out.Close, SessionClose{SessionID: end.ID, Reason: end.Reason})
		}
		return &body[HeartbeatAnswer]{out}, nil
	})
	register(s, api, huma.Operation{
		OperationID: "gateway-sessions-end", Method: http.MethodPost, Path: "/api/v1/gateway/sessions/end", Tags: []string{"gateway"},
		Summary: "Say which sessions are over", Security: secure, Middlewares: s.asGateway(),
		DefaultStatus: http.StatusNoContent, MaxBodyBytes: maxEndsBody,
		Description: "Sessions that are over already, or not the gateway's, are left as they are.",
	}, func(ctx context.Context, in *body[SessionsEnd]) (*struct{}, error) {
		ends := make([]control.SessionEnd, 0, len(in.Body.Sessions))
		for _, end := range in.Body.Sessions {
			ends = append(ends, control.SessionEnd{ID: end.SessionID, Reason: end.Reason})
		}
		return nil, s.authority.EndSessions(ctx, gatewayOf(ctx), ends)
	})
}

func (s *server) join(ctx context.Context, in *joinInput) (*answer[Joined], error) {
	var (
		gateway control.Gateway
		isNew   bool
	)
	err := s.limited(in.address, func() (err error) {
		gateway, isNew, err = s.authority.JoinGateway(ctx, control.Join{
			Code: in.Body.Code, PublicKey: decode64(in.Body.PublicKey), URL: in.Body.URL, Version: in.Body.Version,
			Proof: control.Proof{Nonce: decode64(in.Body.Nonce), Signature: decode64(in.Body.Signature)},
		})
		return err
	})
	if err != nil {
		return nil, err
	}
	identity := s.authority.Identity()
	out := &answer[Joined]{Status: http.StatusOK, Body: Joined{
		GatewayID: gateway.ID, Region: gateway.Region, ServiceID: identity.ServiceID, Issuer: identity.Issuer,
	}}
	if isNew {
		out.Status = http.StatusCreated
		s.log.InfoContext(ctx, "gateway joined", "gateway_id", gateway.ID, "region", gateway.Region)
	}
	return out, nil
}

func (s *server) validateDevice(ctx context.Context, in *body[ValidateDevice]) (*body[Decision], error) {
	decision, err := s.authority.Decide(ctx, gatewayOf(ctx), requestOf(in.Body))
	if err != nil {
		return nil, err
	}
	return &body[Decision]{s.showDecision(ctx, decision)}, nil
}

func (s *server) sessionsAdmitted(ctx context.Context, in *body[AdmittedSessions]) (*body[AdmittedAnswer], error) {
	list := make([]control.AdmittedSession, 0, len(in.Body.Sessions))
	for _, session := range in.Body.Sessions {
		list = append(list, control.AdmittedSession{
			SessionRequest: requestOf(session.ValidateDevice), SubscriptionID: session.SubscriptionID,
			BegunAt: session.BegunAt, EndedAt: session.EndedAt, EndReason: session.Reason,
		})
	}
	decisions, err := s.authority.TakeAdmitted(ctx, gatewayOf(ctx), in.Body.BootID, list)
	if err != nil {
		return nil, err
	}
	out := AdmittedAnswer{Sessions: make([]Decision, 0, len(decisions))}
	for _, decision := range decisions {
		out.Sessions = append(out.Sessions, s.showDecision(ctx, decision))
	}
	return &body[AdmittedAnswer]{out}, nil
}

func requestOf(v ValidateDevice) control.SessionRequest {
	return control.SessionRequest{
		SessionID: v.SessionID, DeviceID: v.DeviceID, KeyThumbprint: v.KeyThumbprint, Generation: v.Generation, BootID: v.BootID,
	}
}

// showDecision shows a decision, and counts it.
func (s *server) showDecision(ctx context.Context, decision control.Decision) Decision {
	for _, reached := range decision.Warnings {
		s.quotaReached(ctx, reached)
	}
	if decision.Reason != "" {
		s.observer.Decision(string(decision.Reason))
		return Decision{Reason: string(decision.Reason)}
	}
	s.observer.Decision("allowed")
	plan := decision.Entitlement.Plan
	var quota *QuotaGrant
	if decision.Grant.State != control.QuotaUnlimited {
		shown := showGrant(decision.Grant)
		quota = &shown
	}
	return Decision{
		Allowed: true, UserID: decision.UserID, SubscriptionID: decision.Entitlement.ID, PlanID: plan.ID,
		Limits: &SessionLimits{
			MaxSessions: plan.MaxSessions, MaxStreams: plan.MaxStreams, MaxUDP: plan.MaxUDP, SpeedUpBPS: plan.SpeedUpBPS, SpeedDownBPS: plan.SpeedDownBPS,
		},
		ExpiresAt: decision.Entitlement.EndsAt, Quota: quota, Egress: showEgress(plan.Egress),
	}
}
