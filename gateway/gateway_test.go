package gateway_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/internal/devca"
	"github.com/httvps/httvps/internal/link"
	"github.com/httvps/httvps/sdk/go/knock"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/tlspin"
	"github.com/httvps/httvps/sdk/go/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// service is a control plane and one gateway, as an operator runs them.
type service struct {
	authority *devca.Authority
	trust     *tls.Config
	http      *http.Client
	backend   backend.Ready
	url       string // of the gateway
	ready     gateway.Ready
	cfg       gateway.Config
	log       *lockedBuffer
	stop      func() // the gateway
	away      func() // ends the backend
}

// lockedBuffer collects logs.
type lockedBuffer struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// newService starts both; the gateway may reach loopback.
func newService(t *testing.T, change func(*gateway.Config)) *service {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return newServiceOn(t, listener, change)
}

// newServiceOn is newService with a gateway that listens somewhere else.
func newServiceOn(t *testing.T, listener net.Listener, change func(*gateway.Config)) *service {
	t.Helper()
	authority, err := devca.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	s := &service{authority: authority, trust: tlspin.Config(authority.Pin(), "127.0.0.1"), log: &lockedBuffer{}}
	transport := &http.Transport{TLSClientConfig: s.trust.Clone()}
	s.http = &http.Client{Transport: transport, Timeout: 20 * time.Second}
	t.Cleanup(transport.CloseIdleConnections)

	s.url = "wss://" + listener.Addr().String() + "/tunnel"
	s.startBackend(t)

	s.cfg = gateway.DefaultConfig()
	s.cfg.DrainTimeout = 0 // nobody is to be waited for
	s.cfg.Listener, s.cfg.URL, s.cfg.DataDir = listener, s.url, t.TempDir()
	s.cfg.AdminListen = "127.0.0.1:0"
	s.cfg.GetCertificate = authority.GetCertificate(listener.Addr().(*net.TCPAddr).IP.String(), "localhost")
	s.cfg.Upstream.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	s.cfg.Log = slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if change != nil {
		change(&s.cfg)
	}
	_, err = gateway.Join(t.Context(), gateway.JoinConfig{Link: s.backend.GatewayJoin, DataDir: s.cfg.DataDir, URL: s.url, Version: "test"})
	if err != nil {
		t.Fatal(err)
	}
	s.startGateway(t)
	return s
}

func (s *service) startBackend(t *testing.T) {
	t.Helper()
	cfg := backend.DefaultConfig()
	cfg.Listen, cfg.DataDir, cfg.Dev, cfg.LocalGateway = "127.0.0.1:0", t.TempDir(), true, s.url
	cfg.TLS = &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: s.authority.GetCertificate("127.0.0.1")}
	cfg.Pin = s.authority.Pin().String()
	cfg.GatewayHeartbeat = configfile.Duration(time.Second)
	ready := make(chan backend.Ready, 1)
	cfg.OnReady = func(r backend.Ready) { ready <- r }
	s.backend, s.away = running(t, ready, func(ctx context.Context) error { return backend.Run(ctx, cfg) })
}

func (s *service) startGateway(t *testing.T) {
	t.Helper()
	ready := make(chan gateway.Ready, 1)
	cfg := s.cfg
	cfg.OnReady = func(r gateway.Ready) { ready <- r }
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- gateway.Run(ctx, cfg) }()
	s.stop = sync.OnceFunc(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("gateway.Run = %v", err)
		}
	})
	t.Cleanup(s.stop)
	select {
	case s.ready = <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatalf("gateway.Run = %v", err)
	}
}

// running runs something until the test ends, or stop is called, and returns what it
// says when it is ready.
func running[R any](t *testing.T, ready <-chan R, run func(context.Context) error) (r R, stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- run(ctx) }()
	select {
	case r := <-ready:
		stop = sync.OnceFunc(func() {
			cancel()
			if err := <-ended; err != nil {
				t.Errorf("Run = %v", err)
			}
		})
		t.Cleanup(stop)
		return r, stop
	case err := <-ended:
		cancel()
		t.Fatalf("Run = %v", err)
		panic("unreachable")
	}
}

// call asks the control plane.
func (s *service) call(t *testing.T, method, target, token string, body, answer any) {
	t.Helper()
	var payload io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			t.Fatal(err)
		}
		payload = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, target, payload)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode > 299 {
		t.Fatalf("%s %s: %d %s, %v", method, target, resp.StatusCode, text, err)
	}
	if answer != nil {
		if err := json.Unmarshal(text, answer); err != nil {
			t.Fatalf("%s: %v", target, err)
		}
	}
}

// admin asks the control plane as its operator.
func (s *service) admin(t *testing.T, method, path string, body, answer any) {
	t.Helper()
	s.call(t, method, s.backend.Admin+"/api/v1/admin"+path, s.backend.Token, body, answer)
}

var base64url = base64.RawURLEncoding

func (s *service) challenge(t *testing.T, api string) (text string, nonce []byte) {
	t.Helper()
	var answer struct {
		Nonce string `json:"nonce"`
	}
	s.call(t, http.MethodPost, api+"/api/v1/auth/challenge", "", struct{}{}, &answer)
	nonce, err := base64url.DecodeString(answer.Nonce)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Nonce, nonce
}

// enrol redeems the invitation of the start for a new device with a token.
func (s *service) enrol(t *testing.T) device {
	t.Helper()
	page, fragment, _ := strings.Cut(s.backend.Invite, "#")
	api := strings.TrimSuffix(page, "/join")
	code, _, err := link.Parse(fragment)
	if err != nil {
		t.Fatal(err)
	}
	d := device{key: newKey(t)}
	text, nonce := s.challenge(t, api)
	hash := sha256.Sum256([]byte(code))
	signed := append([]byte("HTTVPS1 enrol\x00"), hash[:]...)
	signed = append(append(signed, publicOf(d.key)...), nonce...)
	var enrolled struct {
		DeviceID uuid.UUID `json:"device_id"`
	}
	s.call(t, http.MethodPost, api+"/api/v1/devices/enroll", "", map[string]string{
		"code": code, "public_key": base64url.EncodeToString(publicOf(d.key)), "nonce": text,
		"signature": base64url.EncodeToString(ed25519.Sign(d.key, signed)), "name": "test", "platform": "test",
	}, &enrolled)
	d.id = enrolled.DeviceID

	text, nonce = s.challenge(t, api)
	signed = append([]byte("HTTVPS1 token\x00"), d.id[:]...)
	var token struct {
		AccessToken string `json:"access_token"`
		Knock       struct{ Key knock.Key }
	}
	s.call(t, http.MethodPost, api+"/api/v1/auth/token", "", map[string]string{
		"device_id": d.id.String(), "nonce": text, "signature": base64url.EncodeToString(ed25519.Sign(d.key, append(signed, nonce...))),
	}, &token)
	d.token, d.hidden = token.AccessToken, token.Knock.Key
	return d
}

// first is the id of the first object in a list of the admin API.
func (s *service) first(t *testing.T, path string) string {
	t.Helper()
	var list struct {
		Items []struct {
			ID string `json:"id"`
		} `json:"items"`
	}
	s.admin(t, http.MethodGet, path, nil, &list)
	if len(list.Items) == 0 {
		t.Fatalf("%s is empty", path)
	}
	return list.Items[0].ID
}

// liveSessions is how many the control plane believes in.
func (s *service) liveSessions(t *testing.T) int {
	t.Helper()
	var list struct {
		Items []any `json:"items"`
	}
	s.admin(t, http.MethodGet, "/sessions", nil, &list)
	return len(list.Items)
}

// metrics returns the gateway's metrics as text.
func (s *service) metrics(t *testing.T) string {
	t.Helper()
	return s.get(t, "/metrics", http.StatusOK)
}

func (s *service) get(t *testing.T, path string, want int) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+s.ready.Admin+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != want {
		t.Errorf("%s: %d %s, %v, want %d", path, resp.StatusCode, text, err, want)
	}
	return string(text)
}

func TestADevicesTrafficReachesItsTarget(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	d, o := s.enrol(t), newOrigin(t)
	tun := d.connect(t, s.url, s.trust)
	if tun.ready.Limits.MaxStreams == 0 || tun.ready.SessionID == [16]byte{} {
		t.Errorf("READY %+v", tun.ready)
	}
	text := strings.Repeat("four score and seven ", 100_000)
	var exchanging sync.WaitGroup
	for range 8 {
		exchanging.Go(func() {
			// The origin answers only after it has read the end: half-close works.
			if got, err := exchange(t, tun, o.addr, text); err != nil || got != text {
				t.Errorf("%d bytes came back, %v, want %d", len(got), err, len(text))
			}
		})
	}
	exchanging.Wait()
	if n := s.liveSessions(t); n != 1 {
		t.Errorf("the control plane knows %d sessions, want 1", n)
	}
	got := s.metrics(t)
	for _, line := range []string{
		"httvps_gateway_sessions 1", `httvps_gateway_opens_total{result="opened"} 8`, `httvps_gateway_handshakes_total{result="ready"} 1`,
		`httvps_gateway_bytes_total{direction="up",egress="direct"} 1.68e+07`, `httvps_gateway_bytes_total{direction="down",egress="direct"} 1.68e+07`, "httvps_gateway_joined 1",
	} {
		if !strings.Contains(got, line+"\n") {
			t.Errorf("no %q in the metrics", line)
		}
	}
	s.get(t, "/livez", http.StatusOK)
	s.get(t, "/readyz", http.StatusOK)
	if err := gateway.Health(t.Context(), s.ready.Admin, true); err != nil {
		t.Error(err)
	}

	s.stop()
	var closed *mux.CloseError
	if err := <-tun.ended; !errors.As(err, &closed) || closed.Code != wire.CodeShutdown || !closed.Remote {
		t.Errorf("the session ended with %v, want CLOSE(shutdown)", err)
	}
	if n := s.liveSessions(t); n != 0 {
		t.Errorf("the control plane still knows %d sessions", n)
	}
	if err := gateway.Health(t.Context(), s.ready.Admin, false); err == nil {
		t.Error("a stopped gateway is healthy")
	}
	for _, secret := range []string{d.token, d.id.String(), o.addr.String(), "score"} {
		if strings.Contains(s.log.String(), secret) {
			t.Errorf("the log holds %q", secret)
		}
	}
}

func TestEgressIsJudged(t *testing.T) {
	t.Parallel()
	beside, untouched := canary(t) // a listener of another part of the process
	s := newService(t, func(cfg *gateway.Config) {
		cfg.Own = []net.Addr{&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: int(beside.Port)}}
		cfg.Upstream.Allow = append(cfg.Upstream.Allow, netip.MustParsePrefix("0.0.0.0/0"))
		cfg.Upstream.Deny = append(cfg.Upstream.Deny, netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("169.254.0.0/16"))
	})
	defer untouched()
	tun := s.enrol(t).connect(t, s.url, s.trust)
	own, err := url.Parse(s.url)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		host string
		port string
		want wire.Code
	}{
		"a private address":          {"10.0.0.1", "80", wire.CodePolicyDenied},
		"cloud metadata":             {"169.254.169.254", "80", wire.CodePolicyDenied},
		"mail":                       {"127.0.0.1", "25", wire.CodePolicyDenied},
		"the gateway's tunnel":       {"127.0.0.1", own.Port(), wire.CodePolicyDenied},
		"the gateway's admin":        {"127.0.0.1", s.ready.Admin[strings.LastIndex(s.ready.Admin, ":")+1:], wire.CodePolicyDenied},
		"the tunnel, unspecified":    {"0.0.0.0", own.Port(), wire.CodePolicyDenied},
		"a listener beside":          {"127.0.0.1", strconv.Itoa(int(beside.Port)), wire.CodePolicyDenied},
		"a port nobody listens on":   {"127.0.0.1", "1", wire.CodeConnRefused},
		"an IPv6 link local address": {"fe80::1", "80", wire.CodePolicyDenied},
	} {
		t.Run(name, func(t *testing.T) {
			port := netip.MustParseAddrPort("127.0.0.1:" + tc.port).Port()
			target, err := wire.AddrFromHostPort(tc.host, port)
			if err != nil {
				t.Fatal(err)
			}
			st, err := tun.Open(t.Context(), target)
			if err == nil {
				st.Close()
			}
			var refused *mux.StreamError
			if !errors.As(err, &refused) || refused.Code != tc.want {
				t.Errorf("Open = %v, want %v", err, tc.want)
			}
		})
	}
}

func TestADeviceThatMayNotIsRefusedAndNothingIsOpened(t *testing.T) {
	t.Parallel()
	past := time.Now().Add(-time.Hour).UTC()
	for name, tc := range map[string]struct {
		change func(*testing.T, *service, device)
		want   wire.Code
	}{
		"revoked": {func(t *testing.T, s *service, d device) {
			t.Helper()
			s.admin(t, http.MethodPost, "/devices/"+d.id.String()+"/revoke", nil, nil)
		}, wire.CodeDeviceRevoked},
		"user disabled": {func(t *testing.T, s *service, _ device) {
			t.Helper()
			s.admin(t, http.MethodPatch, "/users/"+s.first(t, "/users"), map[string]any{"disabled": true}, nil)
		}, wire.CodeUserDisabled},
		"subscription expired": {func(t *testing.T, s *service, _ device) {
			t.Helper()
			s.admin(t, http.MethodPatch, "/subscriptions/"+s.first(t, "/subscriptions"),
				map[string]any{"starts_at": past.Add(-time.Hour), "ends_at": past}, nil)
		}, wire.CodeSubscriptionExpired},
		"no subscription": {func(t *testing.T, s *service, _ device) {
			t.Helper()
			s.admin(t, http.MethodDelete, "/subscriptions/"+s.first(t, "/subscriptions"), nil, nil)
		}, wire.CodeNoActiveSubscription},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newService(t, nil)
			d := s.enrol(t)
			target, untouched := canary(t)
			tc.change(t, s, d)
			d.behind = wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, RecvWindow: 1 << 16, Target: target})
			d.wantReject(t, s.url, s.trust, tc.want)
			untouched()
			if got := s.metrics(t); strings.Contains(got, "opens_total{") || !strings.Contains(got, "httvps_gateway_sessions 0\n") {
				t.Error("a stream was asked for, or there is a session")
			}
		})
	}
}

func TestALiveSessionEndsWhenItsDeviceIsRevoked(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	d, o := s.enrol(t), newOrigin(t)
	tun := d.connect(t, s.url, s.trust)
	if _, err := exchange(t, tun, o.addr, "x"); err != nil {
		t.Fatal(err)
	}
	s.admin(t, http.MethodPost, "/devices/"+d.id.String()+"/revoke", nil, nil)
	var closed *mux.CloseError
	if err := <-tun.ended; !errors.As(err, &closed) || closed.Code != wire.CodeDeviceRevoked {
		t.Errorf("the session ended with %v, want CLOSE(device_revoked)", err)
	}
}

func TestALiveSessionEndsWithTheSubscription(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	d := s.enrol(t)
	end := time.Now().Add(3 * time.Second).UTC()
	s.admin(t, http.MethodPatch, "/subscriptions/"+s.first(t, "/subscriptions"), map[string]any{"ends_at": end}, nil)
	tun := d.connect(t, s.url, s.trust)
	if left := tun.ready.Deadline.Sub(end).Abs(); left > time.Millisecond {
		t.Errorf("READY tells the deadline %v, want %v", tun.ready.Deadline, end)
	}
	var closed *mux.CloseError
	if err := <-tun.ended; !errors.As(err, &closed) || closed.Code != wire.CodeSubscriptionExpired {
		t.Errorf("the session ended with %v, want CLOSE(subscription_expired)", err)
	}
}

func TestALiveSessionGoesOnWithItsExtendedSubscription(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	d, o := s.enrol(t), newOrigin(t)
	subscription := "/subscriptions/" + s.first(t, "/subscriptions")
	end := time.Now().Add(2 * time.Second).UTC()
	s.admin(t, http.MethodPatch, subscription, map[string]any{"ends_at": end}, nil)
	tun := d.connect(t, s.url, s.trust)
	s.admin(t, http.MethodPatch, subscription, map[string]any{"ends_at": end.Add(time.Hour)}, nil)
	<-time.After(time.Until(end.Add(time.Second)))
	if got, err := exchange(t, tun, o.addr, "still here"); got != "still here" || err != nil {
		t.Errorf("exchange = %q, %v after the deadline that READY told", got, err)
	}
	if n := s.liveSessions(t); n != 1 {
		t.Errorf("the control plane knows %d sessions, want 1", n)
	}
}

func TestASessionWhoseTermNobodyCanTellComesBackLater(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, nil)
	end := time.Now().Add(2 * time.Second).UTC()
	c.set(func(c *control) {
		c.decide = func(w http.ResponseWriter, _ *http.Request) {
			if c.asked > 1 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"allowed": true, "expires_at": end})
		}
	})
	tun := c.device(t).connect(t, s.url, s.trust)
	var closed *mux.CloseError
	if err := <-tun.ended; !errors.As(err, &closed) || closed.Code != wire.CodeRetryLater {
		t.Errorf("the session ended with %v, want CLOSE(retry_later)", err)
	}
}

func TestARenewedSessionAndItsDevicesOthersHaveTheSpeedThatIsTold(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, nil)
	end := time.Now().Add(2 * time.Second).UTC()
	c.set(func(c *control) {
		c.decide = func(w http.ResponseWriter, _ *http.Request) {
			answer := map[string]any{"allowed": true}
			switch c.asked {
			case 1:
				answer["expires_at"] = end
			case 2:
				answer["limits"] = map[string]any{"speed_up_bps": 1_000_000, "speed_down_bps": 1_000_000}
			}
			_ = json.NewEncoder(w).Encode(answer)
		}
	})
	d, o := c.device(t), newOrigin(t)
	first := d.connect(t, s.url, s.trust)
	took := func(tun *tunnel) time.Duration {
		began, text := time.Now(), strings.Repeat("0123456789", 20_000)
		if got, err := exchange(t, tun, o.addr, text); err != nil || got != text {
			t.Errorf("%d bytes came back, %v, want %d", len(got), err, len(text))
		}
		return time.Since(began)
	}
	if d := took(first); d > time.Second && time.Now().Before(end) {
		t.Errorf("without a speed it took %v", d)
	}
	for took(first) < time.Second { // 1.5 s and more
		if time.Since(end) > 20*time.Second {
			t.Fatal("the renewal's speed is not kept")
		}
	}
	d.connect(t, s.url, s.trust) // its decision has none
	if d := took(first); d > time.Second {
		t.Errorf("without a speed again it took %v", d)
	}
}

func TestThePlansLimitOfSessionsHolds(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	d := s.enrol(t)
	s.admin(t, http.MethodPatch, "/plans/"+s.first(t, "/plans"), map[string]any{"max_sessions": 1, "max_streams": 7}, nil)
	tun := d.connect(t, s.url, s.trust)
	if got := tun.ready.Limits.MaxStreams; got != 7 {
		t.Errorf("READY tells %d streams, want the plan's 7", got)
	}
	d.wantReject(t, s.url, s.trust, wire.CodeSessionLimit)
	tun.Close(wire.CodeNoError, "")
	<-tun.ended
	// The place is free as soon as the control plane has heard of the end.
	for s.liveSessions(t) > 0 {
		<-time.After(20 * time.Millisecond)
	}
	d.connect(t, s.url, s.trust)
}

func TestAGatewayThatComesBackServesAgain(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	d, o := s.enrol(t), newOrigin(t)
	tun := d.connect(t, s.url, s.trust)
	address := s.cfg.Listener.Addr().String()
	s.stop()
	<-tun.ended
	s.cfg.Listener, s.cfg.Listen = nil, address
	s.startGateway(t)
	if got, err := exchange(t, d.connect(t, s.url, s.trust), o.addr, "back"); got != "back" || err != nil {
		t.Errorf("exchange = %q, %v", got, err)
	}
}

func TestFakeUpstreamsOpenNothing(t *testing.T) {
	t.Parallel()
	for mode, want := range map[string]string{"echo": "hello", "devnull": ""} {
		t.Run(mode, func(t *testing.T) {
			s := newService(t, func(cfg *gateway.Config) { cfg.Upstream.Mode = mode })
			target, untouched := canary(t)
			tun := s.enrol(t).connect(t, s.url, s.trust)
			if got, err := exchange(t, tun, target, "hello"); got != want || err != nil {
				t.Errorf("exchange = %q, %v, want %q", got, err, want)
			}
			untouched()
		})
	}
}

func TestAGatewayWithoutMembershipIsNoProxy(t *testing.T) {
	t.Parallel()
	cfg := gateway.DefaultConfig()
	cfg.Listen, cfg.AdminListen, cfg.URL, cfg.DataDir = "127.0.0.1:0", "", "wss://127.0.0.1/t", t.TempDir()
	cfg.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, errors.New("not asked") }
	if err := gateway.Run(t.Context(), cfg); !errors.Is(err, gateway.ErrNotJoined) {
		t.Errorf("Run = %v, want ErrNotJoined", err)
	}
}

func TestRunTellsWhichAddressIsTaken(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	cfg := s.cfg
	cfg.Listener, cfg.Listen = nil, s.cfg.Listener.Addr().String()
	if err := gateway.Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "listen") || !strings.Contains(err.Error(), cfg.Listen) {
		t.Errorf("Run = %v", err)
	}
	cfg.Listen, cfg.AdminListen = "127.0.0.1:0", s.ready.Admin
	if err := gateway.Run(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "admin_listen") {
		t.Errorf("Run = %v", err)
	}
}
