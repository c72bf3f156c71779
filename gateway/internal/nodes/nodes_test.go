package nodes

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"
	"go.uber.org/goleak"

	"github.com/httvps/httvps/internal/egress"
	"github.com/httvps/httvps/internal/reason"
	"github.com/httvps/httvps/internal/ticket"
	"github.com/httvps/httvps/sdk/go/tlspin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	joinCode  = "ABCDEFGHIJKLMNOPQRSTUVWXY2"
	gatewayID = "0190c0de-0000-7000-8000-000000000002"
	serviceID = "0190c0de-0000-7000-8000-000000000001"
	issuer    = "https://service.example"
)

// control is a control plane whose answers a test writes. It checks each
// request's credential and that its body has exactly the fields of the API.
type control struct {
	t      *testing.T
	url    string
	pin    string
	nonce  []byte
	handle map[string]func(body map[string]any) (status int, answer any)
	leased bool // heartbeats have leases

	mu       sync.Mutex // guards the following fields
	key      ed25519.PublicKey
	requests map[string]int
}

var fields = map[string][]string{
	"/api/v1/auth/challenge":       {},
	"/api/v1/gateway/join":         {"code", "public_key", "nonce", "signature", "url", "version"},
	"/api/v1/gateway/config":       {},
	"/api/v1/gateway/heartbeat":    {"boot_id", "version", "url", "sessions", "streams", "time"},
	"/api/v1/auth/validate-device": {"session_id", "device_id", "key_thumbprint", "generation", "boot_id"},
	"/api/v1/gateway/sessions/end": {"sessions"},
	"/api/v1/usage/report":         {"reports"},
	"/api/v1/quota/leases":         {"boot_id", "leases"},
}

func newControl(t *testing.T) *control {
	t.Helper()
	c := &control{
		t: t, nonce: []byte("a nonce of the control plane"), requests: make(map[string]int),
		handle: make(map[string]func(map[string]any) (int, any)),
	}
	server := httptest.NewUnstartedServer(c)
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)
	// httptest's certificate is for 127.0.0.1 and signs itself.
	c.url, c.pin = server.URL, tlspin.Of(server.Certificate()).String()
	c.handle["/api/v1/auth/challenge"] = func(map[string]any) (int, any) {
		return 200, map[string]any{"nonce": base64url.EncodeToString(c.nonce), "expires_in": 120}
	}
	c.handle["/api/v1/gateway/join"] = func(map[string]any) (int, any) {
		return 201, map[string]any{"gateway_id": gatewayID, "region": "local", "service_id": serviceID, "issuer": issuer}
	}
	c.handle["/api/v1/gateway/heartbeat"] = func(map[string]any) (int, any) {
		return 200, map[string]any{"interval_ms": 1000, "server_time": time.Now().UTC(), "close": []any{}}
	}
	c.handle["/api/v1/gateway/sessions/end"] = func(map[string]any) (int, any) { return 204, nil }
	return c
}

func (c *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	want, known := fields[r.URL.Path]
	handle := c.handle[r.URL.Path]
	if !known || handle == nil {
		c.t.Errorf("request to %s", r.URL.Path)
		w.WriteHeader(http.StatusNotFound)
		return
	}
	body := make(map[string]any)
	if text, _ := io.ReadAll(r.Body); len(text) > 0 {
		if err := json.Unmarshal(text, &body); err != nil {
			c.t.Errorf("%s: body: %v", r.URL.Path, err)
		}
	}
	got, expected := make(map[string]bool), make(map[string]bool)
	for name := range body {
		got[name] = true
	}
	for _, name := range want {
		expected[name] = true
	}
	if c.leased && strings.HasSuffix(r.URL.Path, "/heartbeat") {
		expected["leases"] = true
	}
	if diff := cmp.Diff(expected, got); diff != "" {
		c.t.Errorf("%s: fields (-want +got):\n%s", r.URL.Path, diff)
	}
	c.mu.Lock()
	c.requests[r.URL.Path]++
	key := c.key
	c.mu.Unlock()
	if bearer, has := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer "); has {
		id, err := ticket.VerifyAssertion(bearer, time.Now(), func(string) (ed25519.PublicKey, error) { return key, nil })
		if err != nil || id != gatewayID {
			c.t.Errorf("%s: assertion of %q: %v", r.URL.Path, id, err)
		}
	} else if r.URL.Path != "/api/v1/auth/challenge" && r.URL.Path != "/api/v1/gateway/join" {
		c.t.Errorf("%s: no credential", r.URL.Path)
	}
	status, answer := handle(body)
	if location, redirect := answer.(redirectTo); redirect {
		w.Header().Set("Location", string(location))
		answer = nil
	}
	w.WriteHeader(status)
	switch answer := answer.(type) {
	case nil:
	case []byte:
		_, _ = w.Write(answer)
	default:
		_ = json.NewEncoder(w).Encode(answer)
	}
}

type redirectTo string

func (c *control) count(path string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.requests[path]
}

func (c *control) link() string { return c.url + "/gateway-join#code=" + joinCode + ",pin=" + c.pin }

func (c *control) membership(t *testing.T) Membership {
	t.Helper()
	return Membership{Link: c.link(), Dir: t.TempDir(), URL: "wss://gw.example/t", Version: "v1"}
}

// answerKeys makes the control plane tell keys.
func (c *control) answerKeys(service string, keys ...ed25519.PublicKey) {
	c.handle["/api/v1/gateway/config"] = func(map[string]any) (int, any) {
		return 200, map[string]any{"gateway_id": gatewayID, "service_id": service, "issuer": issuer, "jwks": ticket.NewJWKS(keys...), "heartbeat_interval_ms": 1000}
	}
}

// node returns a member of c that has not started.
func (c *control) node(t *testing.T, change func(*Config)) *Node {
	t.Helper()
	public, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c.mu.Lock()
	c.key = public
	c.mu.Unlock()
	cfg := Config{
		State: State{GatewayID: gatewayID, API: c.url, Pin: c.pin, ServiceID: serviceID, Issuer: issuer, Region: "local"},
		Key:   key, URL: "wss://gw.example/t", Version: "v1", MaxEnded: 10_000,
		Load: func() Load { return Load{} }, Close: func(Closing) {}, Observe: func(string, error) {}, Log: slog.New(slog.DiscardHandler),
		Live: func() [][16]byte { return nil }, Sessions: func(string) int { return 0 }, StoodIn: func(string) {},
		Recognized: func(string) {},
	}
	if change != nil {
		change(&cfg)
	}
	n, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.control.http.CloseIdleConnections)
	return n
}

// running runs a node until the test ends.
func running(t *testing.T, n *Node) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		n.Run(ctx)
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	t.Cleanup(stop)
	return stop
}

func newToken(t *testing.T, key ed25519.PrivateKey) string {
	t.Helper()
	token, err := ticket.NewSigner(key, issuer, serviceID).Sign(ticket.Claims{
		ID: "1", Device: uuid.NewString(), Generation: 1, KeyThumbprint: ticket.Thumbprint(key.Public().(ed25519.PublicKey)),
		IssuedAt: time.Now(), ExpiresAt: time.Now().Add(time.Hour),
	})
	if err != nil {
		t.Fatal(err)
	}
	return token
}

func newKey(t *testing.T) (ed25519.PublicKey, ed25519.PrivateKey) {
	t.Helper()
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return public, private
}

func TestANewKeyOfTheServiceIsLearnedFromItsFirstToken(t *testing.T) {
	c := newControl(t)
	oldPublic, oldKey := newKey(t)
	newPublic, newPrivate := newKey(t)
	n := c.node(t, nil)
	now := time.Now()
	n.keys.now = func() time.Time { return now }
	if _, err := n.Verify(t.Context(), newToken(t, oldKey)); !errors.Is(err, ErrNoKeys) {
		t.Errorf("Verify before the keys are known = %v, want ErrNoKeys", err)
	}
	c.answerKeys(serviceID, oldPublic)
	if err := n.keys.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Verify(t.Context(), newToken(t, oldKey)); err != nil {
		t.Errorf("Verify with the known key = %v", err)
	}
	c.answerKeys(serviceID, oldPublic, newPublic)
	now = now.Add(minRefresh)
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			if _, err := n.Verify(t.Context(), newToken(t, newPrivate)); err != nil {
				t.Errorf("Verify with the new key = %v", err)
			}
		})
	}
	callers.Wait()
	if asked := c.count("/api/v1/gateway/config"); asked != 2 {
		t.Errorf("asked %d times, want 2: at the start, and once for all who came together", asked)
	}
}

func TestStrangersCannotMakeTheGatewayAskForKeysOften(t *testing.T) {
	c := newControl(t)
	public, _ := newKey(t)
	_, stranger := newKey(t)
	c.answerKeys(serviceID, public)
	n := c.node(t, nil)
	now := time.Now()
	n.keys.now = func() time.Time { return now }
	if err := n.keys.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 100 { // 20 s
		now = now.Add(200 * time.Millisecond)
		if _, err := n.Verify(t.Context(), newToken(t, stranger)); !errors.Is(err, ticket.ErrInvalid) {
			t.Errorf("Verify = %v", err)
		}
	}
	if asked := c.count("/api/v1/gateway/config"); asked != 3 {
		t.Errorf("asked %d times in 20 s, want 3", asked)
	}
}

func TestKeysOfAnotherServiceAreNotTaken(t *testing.T) {
	c := newControl(t)
	public, key := newKey(t)
	n := c.node(t, nil)
	c.answerKeys(uuid.NewString(), public)
	if err := n.keys.refresh(t.Context()); err == nil {
		t.Error("no error")
	}
	c.answerKeys(serviceID)
	if err := n.keys.refresh(t.Context()); err == nil {
		t.Error("no error for no keys")
	}
	if _, err := n.Verify(t.Context(), newToken(t, key)); !errors.Is(err, ErrNoKeys) {
		t.Errorf("Verify = %v", err)
	}
}

var question = Question{Session: [16]byte{1}, Device: [16]byte{2}, Thumbprint: "t", Generation: 3}

func TestDecisionsOfTheControlPlane(t *testing.T) {
	end := time.Date(2030, 1, 2, 3, 4, 5, 0, time.UTC)
	for name, tc := range map[string]struct {
		answer any
		want   Decision
	}{
		"allowed": {
			map[string]any{"allowed": true, "user_id": "u", "limits": map[string]any{"max_streams": 9, "max_udp": 1}, "expires_at": end},
			Decision{Allowed: true, User: "u", MaxStreams: 9, MaxUDP: 1, ExpiresAt: end},
		},
		"allowed, at some speed": {
			map[string]any{"allowed": true, "plan_id": "p", "limits": map[string]any{"max_streams": 9, "max_udp": 1, "speed_up_bps": 1_000_000_000_000, "speed_down_bps": 8000}},
			Decision{Allowed: true, Plan: "p", MaxStreams: 9, MaxUDP: 1, SpeedUp: 1_000_000_000_000, SpeedDown: 8000},
		},
		"allowed, but not everything": {
			map[string]any{"allowed": true, "egress": map[string]any{
				"denied_prefixes": []string{"203.0.113.0/24"}, "denied_ports": []int{25}, "allowed_ports": []int{443}, "denied_names": []string{"."}, "allowed_names": []string{"a.example"},
			}},
			Decision{Allowed: true, MaxUDP: -1, Egress: egress.Rules{
				DeniedPrefixes: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")}, DeniedPorts: []uint16{25}, AllowedPorts: []uint16{443},
				DeniedNames: []string{"."}, AllowedNames: []string{"a.example"},
			}},
		},
		"allowed, without an end": {map[string]any{"allowed": true}, Decision{Allowed: true, MaxUDP: -1}},
		"refused":                 {map[string]any{"allowed": false, "reason": "device_revoked"}, Decision{Reason: reason.DeviceRevoked}},
	} {
		t.Run(name, func(t *testing.T) {
			c := newControl(t)
			c.handle["/api/v1/auth/validate-device"] = func(body map[string]any) (int, any) {
				want := map[string]any{
					"session_id": "01000000000000000000000000000000", "device_id": "02000000-0000-0000-0000-000000000000",
					"key_thumbprint": "t", "generation": 3.0, "boot_id": body["boot_id"],
				}
				if diff := cmp.Diff(want, body); diff != "" {
					t.Error(diff)
				}
				return 200, tc.answer
			}
			n := c.node(t, nil)
			got, err := n.Validate(t.Context(), question)
			if diff := cmp.Diff(tc.want, got, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); err != nil || diff != "" {
				t.Errorf("Validate: %v (-want +got):\n%s", err, diff)
			}
			if waiting := n.ended.first(); len(waiting) != 0 {
				t.Errorf("%v is told as ended", waiting)
			}
		})
	}
}

func TestNoDecisionIsNoPermission(t *testing.T) {
	for name, answer := range map[string]func(map[string]any) (int, any){
		"an error":             func(map[string]any) (int, any) { return 503, nil },
		"a credential refused": func(map[string]any) (int, any) { return 401, map[string]any{"code": "unauthorized", "allowed": true} },
		"not JSON":             func(map[string]any) (int, any) { return 200, []byte("<html>") },
		"nothing":              func(map[string]any) (int, any) { return 200, nil },
		"rules for egress that mean nothing": func(map[string]any) (int, any) {
			return 200, map[string]any{"allowed": true, "egress": map[string]any{"denied_names": []string{"*.example"}}}
		},
		"a refusal without a reason": func(map[string]any) (int, any) { return 200, map[string]any{} },
		"an answer that never ends": func(map[string]any) (int, any) {
			return 200, append([]byte(`{"allowed":true}`), bytes.Repeat([]byte(" "), maxAnswer)...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c := newControl(t)
			c.handle["/api/v1/auth/validate-device"] = answer
			n := c.node(t, nil)
			if got, err := n.Validate(t.Context(), question); !errors.Is(err, ErrUndecided) || got.Allowed {
				t.Errorf("Validate = %+v, %v, want ErrUndecided", got, err)
			}
			// The permission may have been given and lost on its way.
			if waiting := n.ended.first(); len(waiting) != 1 || waiting[0].SessionID != hex.EncodeToString(question.Session[:]) {
				t.Errorf("told as ended: %v", waiting)
			}
		})
	}
}

// A session that ends makes room for the next at once.
// A credential goes nowhere but to the control plane's own addresses.
func TestRedirectsAreNotFollowed(t *testing.T) {
	c := newControl(t)
	c.handle["/api/v1/auth/validate-device"] = func(map[string]any) (int, any) {
		if c.count("/api/v1/auth/validate-device") == 1 {
			return 307, redirectTo(c.url + "/api/v1/auth/validate-device")
		}
		return 200, map[string]any{"allowed": true}
	}
	n := c.node(t, nil)
	if got, err := n.Validate(t.Context(), question); !errors.Is(err, ErrUndecided) || got.Allowed {
		t.Errorf("Validate = %+v, %v, want ErrUndecided", got, err)
	}
}

func TestTheDecisionHasTwoSeconds(t *testing.T) {
	c := newControl(t)
	release := make(chan struct{})
	defer close(release)
	c.handle["/api/v1/auth/validate-device"] = func(map[string]any) (int, any) {
		<-release
		return 200, map[string]any{"allowed": true}
	}
	n := c.node(t, nil)
	began := time.Now()
	_, err := n.Validate(t.Context(), question)
	if took := time.Since(began); !errors.Is(err, ErrUndecided) || took < 2*time.Second || took > 4*time.Second {
		t.Errorf("Validate = %v after %v", err, took)
	}
	if decisionTimeout != 2*time.Second { // what a clock that may be late cannot tell
		t.Errorf("the decision has %v", decisionTimeout)
	}
}

func TestHeartbeatsSayWhatTheGatewayCarriesAndPassOnWhatToClose(t *testing.T) {
	c := newControl(t)
	public, _ := newKey(t)
	c.answerKeys(serviceID, public)
	id := [16]byte{0xab}
	c.handle["/api/v1/gateway/heartbeat"] = func(body map[string]any) (int, any) {
		if body["sessions"] != 3.0 || body["streams"] != 4.0 || body["url"] != "wss://gw.example/t" || body["version"] != "v1" {
			t.Errorf("heartbeat %v", body)
		}
		return 200, map[string]any{"interval_ms": 1, "close": []map[string]string{
			{"session_id": "nonsense", "reason": "x"},
			{"session_id": hex.EncodeToString(id[:]), "reason": "device_revoked"},
		}}
	}
	closed := make(chan Closing, 100)
	n := c.node(t, func(cfg *Config) {
		cfg.Load = func() Load { return Load{Sessions: 3, Streams: 4} }
		cfg.Close = func(c Closing) { closed <- c }
	})
	if n.Joined() {
		t.Error("joined before the first heartbeat")
	}
	running(t, n)
	<-n.Ready()
	if got := <-closed; got != (Closing{Session: id, Reason: reason.DeviceRevoked}) {
		t.Errorf("closing %+v", got)
	}
	if !n.Joined() {
		t.Error("not joined after a heartbeat")
	}
	first := time.Now()
	<-closed
	if wait := time.Since(first); wait > 3*time.Second {
		t.Errorf("the second heartbeat came %v after the first, want the interval that its answer told", wait)
	}
	if got := time.Duration(n.interval.Load()); got != minInterval {
		t.Errorf("an interval of 1 ms was asked for and %v is kept, want %v", got, minInterval)
	}
}

func TestAGatewayWhoseHeartbeatsFailIsNotJoinedAnyMore(t *testing.T) {
	n := newControl(t).node(t, nil)
	n.heard.Store(time.Now().Add(-missed*defaultInterval + time.Second).UnixNano())
	if !n.Joined() {
		t.Error("not joined within three intervals")
	}
	n.heard.Store(time.Now().Add(-missed*defaultInterval - time.Second).UnixNano())
	if n.Joined() {
		t.Error("joined after three intervals without a heartbeat")
	}
}

// While the control plane is away anybody with a device can ask and ask. The
// ends of sessions that existed have their room all the same, and go first.
func TestRunSurvivesAControlPlaneThatIsAway(t *testing.T) {
	c := newControl(t)
	public, _ := newKey(t)
	c.answerKeys(serviceID, public)
	var beats atomic.Int32
	healthy := c.handle["/api/v1/gateway/heartbeat"]
	c.handle["/api/v1/gateway/heartbeat"] = func(b map[string]any) (int, any) {
		if beats.Add(1) < 3 {
			return 500, nil
		}
		return healthy(b)
	}
	n := c.node(t, nil)
	running(t, n)
	<-n.Ready()
	if got := beats.Load(); got < 3 {
		t.Errorf("ready after %d heartbeats", got)
	}
}

func TestProblemsOfStrangersAreNotRepeated(t *testing.T) {
	for _, text := range []string{`{"code":"` + strings.Repeat("x", 65) + `"}`, `{"code":"a\nb"}`, `nonsense`, ``} {
		var status *StatusError
		if err := statusError(500, []byte(text)); !errors.As(err, &status) || status.Code != "" {
			t.Errorf("statusError(%q) = %v", text, err)
		}
	}
}

func logTo(text *strings.Builder) *slog.Logger {
	return slog.New(slog.NewTextHandler(text, &slog.HandlerOptions{Level: slog.LevelDebug}))
}
