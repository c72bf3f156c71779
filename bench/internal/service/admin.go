package service

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/httvps/httvps/internal/link"
)

const (
	maxAnswer = 1 << 20

	// MostPerPlan is the highest number of devices and sessions that a plan has.
	MostPerPlan = 1000
)

// admin is the operator's side of the control plane.
type admin struct {
	base  string
	token string
	plan  string
	user  string // who gets the invitations
	users int
	http  *http.Client
}

func newAdmin(base string, trust *tls.Config, dial func(ctx context.Context, network, address string) (net.Conn, error)) *admin {
	return &admin{base: base, http: &http.Client{
		Transport: &http.Transport{TLSClientConfig: trust.Clone(), DialContext: dial},
		Timeout:   20 * time.Second,
	}}
}

func (a *admin) close() { a.http.CloseIdleConnections() }

// setUp makes the owner, a user with a plan, and a gateway, whose join link it
// returns.
func (a *admin) setUp(ctx context.Context, bootstrap string, opts Options) (join string, err error) {
	_, fragment, _ := strings.Cut(bootstrap, "#")
	code, _, err := link.Parse(fragment)
	if err != nil {
		return "", fmt.Errorf("the bootstrap link is damaged: %w", err)
	}
	var owner struct {
		Token string `json:"token"`
	}
	if err := a.post(ctx, "/bootstrap", map[string]any{"code": code, "name": "bench"}, &owner); err != nil {
		return "", err
	}
	a.token = owner.Token
	plan := map[string]any{"name": "bench", "max_devices": MostPerPlan, "max_sessions": MostPerPlan}
	if opts.MaxStreams > 0 {
		plan["max_streams"] = opts.MaxStreams
	}
	if opts.Speed > 0 {
		plan["speed_up_bps"], plan["speed_down_bps"] = opts.Speed, opts.Speed
	}
	var made struct {
		ID   string `json:"id"`
		Join string `json:"join"`
	}
	if err := a.post(ctx, "/plans", plan, &made); err != nil {
		return "", err
	}
	a.plan = made.ID
	if err := a.nextUser(ctx); err != nil {
		return "", err
	}
	if err := a.post(ctx, "/regions", map[string]any{"code": "bench"}, &made); err != nil {
		return "", err
	}
	if err := a.post(ctx, "/gateways", map[string]any{"name": "bench", "region": "bench"}, &made); err != nil {
		return "", err
	}
	return made.Join, nil
}

// nextUser makes a user with the plan, who gets the invitations from now on.
func (a *admin) nextUser(ctx context.Context) error {
	var made struct {
		ID string `json:"id"`
	}
	a.users++
	if err := a.post(ctx, "/users", map[string]any{"name": fmt.Sprintf("bench%d", a.users)}, &made); err != nil {
		return err
	}
	a.user = made.ID
	return a.post(ctx, "/subscriptions", map[string]any{"user_id": a.user, "plan_id": a.plan}, &made)
}

// NextUser has invitations made for another user from now on: one user has at most
// MostPerPlan sessions.
func (s *Service) NextUser(ctx context.Context) error { return s.admin.nextUser(ctx) }

// AddOutline adds an Outline server by its access key.
func (s *Service) AddOutline(ctx context.Context, key string) error {
	var made struct {
		ID string `json:"id"`
	}
	return s.admin.post(ctx, "/outline-servers", map[string]any{"region": "bench", "access_key": key}, &made)
}

// Invite makes an invitation for one device and returns its link.
func (s *Service) Invite(ctx context.Context) (string, error) {
	var made struct {
		Link string `json:"link"`
	}
	err := s.admin.post(ctx, "/users/"+s.admin.user+"/invitations", struct{}{}, &made)
	return made.Link, err
}

func (a *admin) post(ctx context.Context, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.base+"/api/v1/admin"+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	resp, err := a.http.Do(req)
	if err != nil {
		return fmt.Errorf("admin API: %w", err)
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return fmt.Errorf("admin API %s: %w", path, err)
	}
	if resp.StatusCode > 299 {
		return fmt.Errorf("admin API %s: %s %s", path, resp.Status, got)
	}
	if err := json.Unmarshal(got, answer); err != nil {
		return fmt.Errorf("admin API %s: %w", path, err)
	}
	return nil
}
