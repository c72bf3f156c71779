package backend_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/backend/internal/store/storetest"
	"github.com/httvps/httvps/internal/link"
	"github.com/httvps/httvps/internal/ticket"
)

func TestMain(m *testing.M) { storetest.Main(m) }

var rawURL = base64.RawURLEncoding

// service is a control plane that a test runs over real TLS.
type service struct {
	t      *testing.T
	ready  backend.Ready
	client *http.Client
	log    *logBuffer
	stop   func() error

	pid   int    // of a process of its own
	ended func() // waits until that has ended, however
}

// logBuffer is a log that a test reads while it is written.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// testTLS returns a certificate for 127.0.0.1 and a client that trusts it.
func testTLS(t *testing.T) (*tls.Config, *http.Client) {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	client := server.Client()
	client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: server.TLS.Certificates}, client
}

func testConfig(t *testing.T, dir string) backend.Config {
	t.Helper()
	cfg := backend.DefaultConfig()
	cfg.Listen = "127.0.0.1:0"
	cfg.DataDir = dir
	return cfg
}

// start runs a control plane on dir until the test ends or stop is called.
func start(t *testing.T, dir string, adjust func(*backend.Config)) *service {
	t.Helper()
	cfg := testConfig(t, dir)
	s := &service{t: t, log: &logBuffer{}}
	cfg.TLS, s.client = testTLS(t)
	cfg.Log = slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	ready := make(chan backend.Ready, 1)
	cfg.OnReady = func(r backend.Ready) { ready <- r }
	if adjust != nil {
		adjust(&cfg)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- backend.Run(ctx, cfg) }()
	s.stop = sync.OnceValue(func() error {
		cancel()
		s.client.CloseIdleConnections()
		return <-ended
	})
	t.Cleanup(func() {
		if err := s.stop(); err != nil {
			t.Errorf("Run = %v", err)
		}
	})
	select {
	case s.ready = <-ready:
	case err := <-ended:
		ended <- nil
		t.Fatalf("Run ended before it was ready: %v", err)
	}
	return s
}

// reply is what a request brought.
type reply struct {
	t      *testing.T
	status int
	header http.Header
	text   []byte
}

func (r reply) into(v any) {
	r.t.Helper()
	if err := json.Unmarshal(r.text, v); err != nil {
		r.t.Fatalf("answer %q: %v", r.text, err)
	}
}

func (r reply) code() string {
	if r.status < http.StatusBadRequest {
		return ""
	}
	var p struct {
		Code string `json:"code"`
	}
	_ = json.Unmarshal(r.text, &p) // no code when there is no problem
	return p.Code
}

// want fails the test unless the answer has this status and, for a problem, code.
func (r reply) want(status int, code string) reply {
	r.t.Helper()
	if r.status != status || r.code() != code {
		r.t.Fatalf("answer is %d %s, want %d %q", r.status, r.text, status, code)
	}
	return r
}

func (r reply) field(name string) string {
	r.t.Helper()
	var object map[string]any
	r.into(&object)
	value, _ := object[name].(string)
	return value
}

// call sends body as JSON to address with a bearer credential, if there is one.
func (s *service) call(method, address, credential string, body any, header ...string) reply {
	s.t.Helper()
	var payload io.Reader
	switch b := body.(type) {
	case nil:
	case string:
		payload = strings.NewReader(b)
	default:
		data, err := json.Marshal(b)
		if err != nil {
			s.t.Fatal(err)
		}
		payload = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(s.t.Context(), method, address, payload)
	if err != nil {
		s.t.Fatal(err)
	}
	if payload != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if credential != "" {
		req.Header.Set("Authorization", "Bearer "+credential)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, err := s.client.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return reply{t: s.t, status: resp.StatusCode, header: resp.Header, text: text}
}

func (s *service) post(path, credential string, body any, header ...string) reply {
	s.t.Helper()
	return s.call(http.MethodPost, s.ready.API+path, credential, body, header...)
}

// probe asks how a control plane is.
func (s *service) probe(path string) reply {
	s.t.Helper()
	return s.call(http.MethodGet, s.ready.API[:strings.LastIndex(s.ready.API, "/")]+path, "", nil)
}

func (s *service) get(path, credential string) reply {
	s.t.Helper()
	return s.call(http.MethodGet, s.ready.API+path, credential, nil)
}

// admin is a request of the dev operator; path is below /api/v1/admin.
func (s *service) admin(method, path string, body any, header ...string) reply {
	s.t.Helper()
	return s.call(method, s.ready.Admin+"/api/v1/admin"+path, s.ready.Token, body, header...)
}

// codeOf returns the code that a link carries.
func codeOf(t *testing.T, from string) string {
	t.Helper()
	_, fragment, _ := strings.Cut(from, "#")
	code, _, err := link.Parse(fragment)
	if err != nil {
		t.Fatalf("link %q: %v", from, err)
	}
	return code
}

func newKey(t *testing.T) ed25519.PrivateKey {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func publicOf(key ed25519.PrivateKey) ed25519.PublicKey { return key.Public().(ed25519.PublicKey) }

func (s *service) nonce() (text string, raw []byte) {
	s.t.Helper()
	text = s.post("/api/v1/auth/challenge", "", struct{}{}).want(http.StatusOK, "").field("nonce")
	raw, err := rawURL.DecodeString(text)
	if err != nil {
		s.t.Fatal(err)
	}
	return text, raw
}

func sign(key ed25519.PrivateKey, purpose string, parts ...[]byte) string {
	message := append([]byte("HTTVPS1 "+purpose), 0)
	for _, p := range parts {
		message = append(message, p...)
	}
	return rawURL.EncodeToString(ed25519.Sign(key, message))
}

// codeProof returns a request that redeems code for key.
func (s *service) codeProof(key ed25519.PrivateKey, purpose, code string) map[string]any {
	s.t.Helper()
	text, _ := s.nonce()
	return proofOf(s.t, key, purpose, code, text)
}

// proofOf is codeProof with a nonce that was got already.
func proofOf(t *testing.T, key ed25519.PrivateKey, purpose, code, text string) map[string]any {
	t.Helper()
	nonce, err := rawURL.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	hash := sha256.Sum256([]byte(strings.ToUpper(code)))
	return map[string]any{
		"code": code, "public_key": rawURL.EncodeToString(publicOf(key)), "nonce": text,
		"signature": sign(key, purpose, hash[:], publicOf(key), nonce),
	}
}

// device is an enrolled device.
type device struct {
	s   *service
	id  string
	key ed25519.PrivateKey
}

func (s *service) tryEnrol(key ed25519.PrivateKey, code string) reply {
	s.t.Helper()
	request := s.codeProof(key, "enrol", code)
	request["name"], request["platform"] = "laptop", "linux/amd64"
	return s.post("/api/v1/devices/enroll", "", request)
}

func (s *service) enrol(invitation string) device {
	s.t.Helper()
	d := device{s: s, key: newKey(s.t)}
	d.id = s.tryEnrol(d.key, codeOf(s.t, invitation)).want(http.StatusCreated, "").field("device_id")
	return d
}

func (d device) tryToken() reply {
	d.s.t.Helper()
	text, nonce := d.s.nonce()
	id := uuid.MustParse(d.id)
	return d.s.post("/api/v1/auth/token", "", map[string]any{
		"device_id": d.id, "nonce": text, "signature": sign(d.key, "token", id[:], nonce),
	})
}

// gateway is a joined gateway.
type gateway struct {
	s    *service
	id   string
	key  ed25519.PrivateKey
	boot string
}

func (s *service) join(from string) gateway {
	s.t.Helper()
	g := gateway{s: s, key: newKey(s.t), boot: "boot-1"}
	request := s.codeProof(g.key, "join", codeOf(s.t, from))
	request["url"], request["version"] = "wss://gw.example.net/tunnel", "1"
	g.id = s.post("/api/v1/gateway/join", "", request).want(http.StatusCreated, "").field("gateway_id")
	return g
}

// newGateway makes a gateway in a region of its own and joins it.
func (s *service) newGateway() gateway {
	s.t.Helper()
	s.admin(http.MethodPost, "/regions", map[string]any{"code": "here"}).want(http.StatusCreated, "")
	made := s.admin(http.MethodPost, "/gateways", map[string]any{"name": "gw", "region": "here"}).want(http.StatusCreated, "")
	return s.join(made.field("join"))
}

func (g gateway) credential() string {
	g.s.t.Helper()
	assertion, err := ticket.SignAssertion(g.key, g.id, time.Now())
	if err != nil {
		g.s.t.Fatal(err)
	}
	return assertion
}

type heartbeatAnswer struct {
	IntervalMS int `json:"interval_ms"`
	Close      []struct {
		SessionID string `json:"session_id"`
		Reason    string `json:"reason"`
	} `json:"close"`
}

func (g gateway) heartbeat() heartbeatAnswer {
	g.s.t.Helper()
	var a heartbeatAnswer
	g.s.post("/api/v1/gateway/heartbeat", g.credential(), map[string]any{
		"boot_id": g.boot, "version": "1", "url": "wss://gw.example.net/tunnel", "sessions": 1, "streams": 2,
	}).want(http.StatusOK, "").into(&a)
	return a
}

func newSessionID() string {
	var raw [16]byte
	_, _ = rand.Read(raw[:]) // never fails
	return hex.EncodeToString(raw[:])
}

type decision struct {
	Allowed bool   `json:"allowed"`
	Reason  string `json:"reason"`
	UserID  string `json:"user_id"`
	Limits  *struct {
		MaxStreams int `json:"max_streams"`
		MaxUDP     int `json:"max_udp"`
	} `json:"limits"`
	ExpiresAt *time.Time `json:"expires_at"`
}

func (g gateway) validate(session string, d device) decision {
	g.s.t.Helper()
	return g.validateAs(session, d.id, ticket.Thumbprint(publicOf(d.key)), 1)
}

func (g gateway) validateAs(session, deviceID, thumbprint string, generation int) decision {
	g.s.t.Helper()
	var out decision
	g.s.post("/api/v1/auth/validate-device", g.credential(), map[string]any{
		"session_id": session, "device_id": deviceID, "key_thumbprint": thumbprint, "generation": generation, "boot_id": g.boot,
	}).want(http.StatusOK, "").into(&out)
	return out
}

// user makes a user with a subscription to a plan with these limits, and returns
// the ids of the user and the subscription.
func (s *service) user(name string, devices, sessions int) (userID, subscriptionID string) {
	s.t.Helper()
	userID = s.admin(http.MethodPost, "/users", map[string]any{"name": name}).want(http.StatusCreated, "").field("id")
	plan := s.admin(http.MethodPost, "/plans", map[string]any{
		"name": name, "max_devices": devices, "max_sessions": sessions,
	}).want(http.StatusCreated, "").field("id")
	subscription := s.admin(http.MethodPost, "/subscriptions", map[string]any{"user_id": userID, "plan_id": plan}).want(http.StatusCreated, "")
	return userID, subscription.field("id")
}

func (s *service) invite(userID string) string {
	s.t.Helper()
	return s.admin(http.MethodPost, "/users/"+userID+"/invitations", map[string]any{}).want(http.StatusCreated, "").field("link")
}

func dev(cfg *backend.Config) { cfg.Dev = true }

func dataDir(t *testing.T) string {
	t.Helper()
	return filepath.Join(t.TempDir(), "data")
}
