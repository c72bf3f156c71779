package api

import "time"

// User is a person or account.
type User struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Disabled  bool      `json:"disabled"`
	Note      string    `json:"note"`
	Limits    Limits    `json:"limits"`
	CreatedAt time.Time `json:"created_at"`
}

// Limits are what holds for one user whatever his plans say; nil: what they say.
type Limits struct {
	MaxDevices   *int      `json:"max_devices"`
	MaxSessions  *int      `json:"max_sessions"`
	MaxStreams   *int      `json:"max_streams"`
	MaxUDP       *int      `json:"max_udp"`
	SpeedUpBPS   *int64    `json:"speed_up_bps"` // 0, here and in the next two: none
	SpeedDownBPS *int64    `json:"speed_down_bps"`
	QuotaBytes   *int64    `json:"quota_bytes"`
	QuotaPeriod  *string   `json:"quota_period"`
	Regions      *[]string `json:"regions"` // codes; empty: all
}

// Plan is a set of limits on offer.
type Plan struct {
	ID           string `json:"id"`
	Name         string `json:"name"`
	MaxDevices   int    `json:"max_devices"`
	MaxSessions  int    `json:"max_sessions"`
	MaxStreams   int    `json:"max_streams"`
	MaxUDP       int    `json:"max_udp"`
	DurationDays *int   `json:"duration_days"` // nil: without end

	StartsOnFirstUse bool     `json:"starts_on_first_use"`
	Regions          []string `json:"regions"`      // codes; empty: all
	SpeedUpBPS       *int64   `json:"speed_up_bps"` // nil: no limit
	SpeedDownBPS     *int64   `json:"speed_down_bps"`
	QuotaBytes       *int64   `json:"quota_bytes"` // nil: no quota
	QuotaPeriod      string   `json:"quota_period"`
	TimeZone         string   `json:"time_zone"`
	QuotaAction      string   `json:"quota_action"`
	ThrottleBPS      *int64   `json:"throttle_bps"`
	QuotaWarnings    []int    `json:"quota_warnings"`
	// What sessions may not reach, besides what their gateway denies to all.
	DeniedPrefixes []string `json:"denied_prefixes"`
	DeniedPorts    []int    `json:"denied_ports"`
	AllowedPorts   []int    `json:"allowed_ports"` // empty: all others
	DeniedNames    []string `json:"denied_names"`
	AllowedNames   []string `json:"allowed_names"`
}

// Subscription is a user's plan for a period.
type Subscription struct {
	ID       string     `json:"id"`
	UserID   string     `json:"user_id"`
	PlanID   string     `json:"plan_id"`
	StartsAt time.Time  `json:"starts_at"`
	EndsAt   *time.Time `json:"ends_at"` // nil: without end
	Status   string     `json:"status"`
	// AwaitsUse says that it begins with the first session; StartsAt and EndsAt mean
	// nothing until then.
	AwaitsUse bool `json:"awaits_use"`
	// Quota is what is used of its quota, nil: the plan has none. Only one that is
	// asked for by itself has it.
	Quota *QuotaUse `json:"quota"`
}

// QuotaUse is what there is of a quota and what is used of it in a period.
type QuotaUse struct {
	Bytes     int64      `json:"bytes"`
	Used      int64      `json:"used"`
	Left      int64      `json:"left"`
	From      *time.Time `json:"from"`      // nil: the subscription awaits its first use
	ResetsAt  *time.Time `json:"resets_at"` // nil: never
	Throttled bool       `json:"throttled"` // it is used up, and traffic goes on slowly
}

// Device is one enrolled key pair of a user.
type Device struct {
	ID        string     `json:"id"`
	UserID    string     `json:"user_id"`
	Name      string     `json:"name"`
	Platform  string     `json:"platform"`
	CreatedAt time.Time  `json:"created_at"`
	LastSeen  *time.Time `json:"last_seen_at"` // when it last got an access token, nil: never
	RevokedAt *time.Time `json:"revoked_at"`   // nil: in use
}

// Region is a place that gateways belong to.
type Region struct {
	ID   string `json:"id"`
	Code string `json:"code"`
	Name string `json:"name"`
}

// Gateway is a node of the data plane.
type Gateway struct {
	ID     string `json:"id"`
	Name   string `json:"name"`
	Region string `json:"region"` // its code
	URL    string `json:"url"`    // empty until it has joined
	Status string `json:"status"`
	// Version is of the program it runs, empty until it has joined.
	Version  string `json:"version"`
	Sessions int    `json:"sessions"` // as last reported
	// Draining says that devices leave it. DrainedAt is since when an operator wants it so,
	// nil: none does.
	Draining  bool       `json:"draining"`
	DrainedAt *time.Time `json:"drained_at"`
}

// OutlineServer is a server that sessions leave through.
type OutlineServer struct {
	ID          string     `json:"id"`
	Name        string     `json:"name"`
	Region      string     `json:"region"` // its code
	Host        string     `json:"host"`
	Port        int        `json:"port"`
	Status      string     `json:"status"`
	StatusSince *time.Time `json:"status_since"` // nil: as long as is known
	ProbedAt    *time.Time `json:"probed_at"`    // nil: never
	Weight      int        `json:"weight"`
	Priority    int        `json:"priority"`
	Capacity    int        `json:"capacity"`
	Sessions    int        `json:"sessions"`
	Managed     bool       `json:"managed"`
	Fallback    bool       `json:"fallback"`
	Key         OutlineKey `json:"key"`
}

// OutlineKey is what the service tells about an access key.
type OutlineKey struct {
	Generation int64     `json:"generation"`
	Cipher     string    `json:"cipher"`
	CreatedAt  time.Time `json:"created_at"`
}

// Session is one device's tunnel on one gateway.
type Session struct {
	ID        string     `json:"id"`
	UserID    string     `json:"user_id"`
	DeviceID  string     `json:"device_id"`
	GatewayID string     `json:"gateway_id"`
	StartedAt time.Time  `json:"started_at"`
	EndedAt   *time.Time `json:"ended_at"` // nil: live
	Reason    string     `json:"reason"`   // why it ended
}

// Invitation is a link with which a user enrols one device. The link is shown
// once, when it is made.
type Invitation struct {
	ID        string    `json:"id"`
	Link      string    `json:"link"`
	CreatedAt time.Time `json:"created_at"`
	ExpiresAt time.Time `json:"expires_at"`
	// UsedAt is when a device enrolled with it, nil when none has.
	UsedAt   *time.Time `json:"used_at"`
	DeviceID string     `json:"device_id"`
}

// NewGateway is a gateway that has yet to join, and the link it joins with,
// which is shown once.
type NewGateway struct {
	Gateway
	Join string `json:"join"`
}

// TokenInfo is what the service tells about an operator's token.
type TokenInfo struct {
	ID         string    `json:"id"`
	OperatorID string    `json:"operator_id"`
	Role       string    `json:"role"`
	CreatedAt  time.Time `json:"created_at"`
	ExpiresAt  time.Time `json:"expires_at"`
}

// NewToken is a token with its text, which is shown once.
type NewToken struct {
	TokenInfo
	Text string `json:"token"`
}

// Operator is someone who runs the service.
type Operator struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Role      string    `json:"role"`
	Disabled  bool      `json:"disabled"`
	CreatedAt time.Time `json:"created_at"`
}

// Whoami is who a token belongs to, and the token.
type Whoami struct {
	Operator
	Token TokenInfo `json:"token"`
	Login bool      `json:"login"` // the token is of a login
}

// NewOperator is an operator with a first token, whose text is shown once.
type NewOperator struct {
	Operator
	Text      string     `json:"token"`
	ExpiresAt *time.Time `json:"token_expires_at"`
}
