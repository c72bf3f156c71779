// Package gateway is the data plane of HTTVPS: it lets devices in on the
// control plane's word and carries their streams to their targets.
//
// A gateway is a member of a service: [Join] makes it one, once, and [Run]
// serves as that member.
package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/gateway/internal/server"
)

// Config is everything a gateway is told.
type Config = config.Config

// KnockKey is a key that devices are known by.
type KnockKey = config.KnockKey

// Ready says where a gateway can be reached.
type Ready = config.Ready

var (
	// ErrNotJoined says that the data directory holds no membership.
	ErrNotJoined = nodes.ErrNotJoined
	// ErrJoined says that it holds one already.
	ErrJoined = nodes.ErrJoined
)

// DefaultConfig returns the configuration of an empty file.
func DefaultConfig() Config { return config.Default() }

// LoadConfig returns the configuration of a YAML file (empty: none) and of
// environ, as [os.Environ] returns it. Its [Config.Validate] is for the caller,
// after flags have had their say.
func LoadConfig(path string, environ []string) (Config, error) {
	return config.Load(path, environ)
}

// URLWithPath returns the URL of a tunnel (wss://host[:port]) with a path that
// nobody guesses, unless it has one.
func URLWithPath(url string) string { return config.WithPath(url) }

// Run serves until ctx ends, and returns when every session, connection and
// goroutine is over. It prints nothing. The error is nil when ctx was the
// reason, and [ErrNotJoined] without a membership: a gateway that nobody
// controls would be an open proxy.
func Run(ctx context.Context, cfg Config) error {
	if err := server.Run(ctx, cfg); err != nil {
		return fmt.Errorf("gateway: %w", err)
	}
	return nil
}

// JoinConfig is how a gateway becomes a member of a service.
type JoinConfig struct {
	Link    string // the join link; single use, secret until then
	DataDir string // where the key and the membership are kept; made when missing
	URL     string // where devices will reach the tunnel: wss://host[:port]/path
	Version string
	// ControlDial, unless nil, connects to a control plane in the same process.
	ControlDial func(ctx context.Context) (net.Conn, error)
}

// Membership is what joining brought. It holds no secret.
type Membership struct {
	GatewayID string
	Region    string
	API       string // base URL of the control plane
}

// Join makes this gateway a member of the service that the link is from. After
// a lost answer it may be repeated with the same directory. Where a
// membership is kept already it is [ErrJoined].
func Join(ctx context.Context, cfg JoinConfig) (Membership, error) {
	if cfg.DataDir == "" {
		return Membership{}, errors.New("join: no data directory")
	}
	if _, err := config.ParseURL(cfg.URL); err != nil {
		return Membership{}, fmt.Errorf("join: url: %w", err)
	}
	state, err := nodes.Join(ctx, nodes.Membership{Link: cfg.Link, Dir: cfg.DataDir, URL: cfg.URL, Version: cfg.Version, Local: cfg.ControlDial})
	if err != nil {
		return Membership{}, err
	}
	return Membership{GatewayID: state.GatewayID, Region: state.Region, API: state.API}, nil
}

// LoadMembership reads what [Join] left in a data directory; the error is
// [ErrNotJoined] when there is nothing.
func LoadMembership(dataDir string) (Membership, error) {
	state, _, err := nodes.LoadState(dataDir)
	if err != nil {
		return Membership{}, err
	}
	return Membership{GatewayID: state.GatewayID, Region: state.Region, API: state.API}, nil
}

// Health asks a running gateway's admin listener how it is: whether it lives,
// or with ready whether it serves devices at the moment.
func Health(ctx context.Context, adminListen string, ready bool) error {
	host, port, err := net.SplitHostPort(adminListen)
	if err != nil {
		return errors.New("health: there is no admin_listen to ask")
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "localhost"
	}
	path := "/livez"
	if ready {
		path = "/readyz"
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+net.JoinHostPort(host, port)+path, nil)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // no proxy of the environment
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 4096))
	if err != nil {
		return fmt.Errorf("health: %w", err)
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("health: %s", strings.Join(strings.Fields(string(text)), " "))
	}
	return nil
}
