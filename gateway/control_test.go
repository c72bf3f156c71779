package gateway_test

import (
	"crypto/ed25519"
	"crypto/tls"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/internal/devca"
	"github.com/httvps/httvps/internal/ticket"
	"github.com/httvps/httvps/sdk/go/knock"
	"github.com/httvps/httvps/sdk/go/tlspin"
)

const (
	issuer    = "https://service.example"
	serviceID = "0190c0de-0000-7000-8000-000000000001"
)

// control is a control plane whose token key the test holds, so that tokens
// can be what no real one would sign. It allows every device.
type control struct {
	signer ed25519.PrivateKey

	mu     sync.Mutex // guards the following fields
	keys   []ed25519.PublicKey
	knock  any            // what gateways are told about it
	calls  map[string]int // by path
	asked  int            // for decisions
	ended  []string
	decide http.HandlerFunc // nil: allowed
	away   bool
	// drained is what heartbeats are answered about that, and others which gateways they
	// name where it or the gateway says so.
	drained bool
	others  []string
	leaving bool // the gateway has said that it is about to stop
	strict  bool // it refuses words that it does not know, as one of the release before does
	// admitted decides about sessions that began while it was away; nil: allowed.
	admitted func(device string) any
	told     int // of such sessions
}

// hidden is what devices of a control knock with.
var hidden = knock.Key{1, 2, 3}

// told is what a gateway hears about keys.
func told(keys ...knock.Key) any { return map[string]any{"cookie": knock.DefaultCookie, "keys": keys} }

// newControlled starts a gateway under a control.
func newControlled(t *testing.T, change func(*gateway.Config)) (*service, *control) {
	t.Helper()
	return newControlledBy(t, nil, change)
}

// newControlledBy is newControlled under a control that begin has changed.
func newControlledBy(t *testing.T, begin func(*control), change func(*gateway.Config)) (*service, *control) {
	t.Helper()
	authority, err := devca.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	c := &control{signer: newKey(t), calls: make(map[string]int), knock: told(hidden)}
	c.keys = []ed25519.PublicKey{publicOf(c.signer)}
	if begin != nil {
		begin(c)
	}
	server := httptest.NewUnstartedServer(c)
	// The certificate of our own authority comes before httptest's.
	certificate, err := authority.Issue("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	server.TLS = &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{certificate}}
	server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	server.StartTLS()
	t.Cleanup(server.Close)

	s := &service{authority: authority, trust: tlspin.Config(authority.Pin(), "127.0.0.1"), log: &lockedBuffer{}}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.url = "wss://" + listener.Addr().String() + "/tunnel"
	s.cfg = gateway.DefaultConfig()
	s.cfg.DrainTimeout = 0 // nobody is to be waited for
	s.cfg.Listener, s.cfg.URL, s.cfg.DataDir, s.cfg.AdminListen = listener, s.url, t.TempDir(), "127.0.0.1:0"
	s.cfg.GetCertificate = authority.GetCertificate("127.0.0.1")
	s.cfg.Upstream.Allow = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	s.cfg.Log = slog.New(slog.NewJSONHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	if change != nil {
		change(&s.cfg)
	}
	link := server.URL + "/gateway-join#code=ABCDEFGHIJKLMNOPQRSTUVWXY2,pin=" + authority.Pin().String()
	if _, err := gateway.Join(t.Context(), gateway.JoinConfig{Link: link, DataDir: s.cfg.DataDir, URL: s.url}); err != nil {
		t.Fatal(err)
	}
	s.startGateway(t)
	return s, c
}

func (c *control) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls[r.URL.Path]++
	if c.away {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var answer any
	switch r.URL.Path {
	case "/api/v1/auth/challenge":
		answer = map[string]any{"nonce": "bm9uY2U", "expires_in": 120}
	case "/api/v1/gateway/join":
		answer = map[string]any{"gateway_id": uuid.NewString(), "region": "local", "service_id": serviceID, "issuer": issuer}
	case "/api/v1/gateway/config":
		answer = map[string]any{"service_id": serviceID, "issuer": issuer, "jwks": ticket.NewJWKS(c.keys...), "knock": c.knock}
	case "/api/v1/gateway/heartbeat":
		var body struct {
			Leaving bool `json:"leaving"`
		}
		_ = json.NewDecoder(r.Body).Decode(&body)
		c.leaving = c.leaving || body.Leaving
		if c.strict && body.Leaving {
			w.Header().Set("Content-Type", "application/problem+json")
			w.WriteHeader(http.StatusUnprocessableEntity)
			_, _ = w.Write([]byte(`{"status":422,"code":"invalid_request"}`))
			return
		}
		beat := map[string]any{"interval_ms": 1000, "close": []any{}, "drained": c.drained, "gateways": nil}
		if !c.strict && (c.drained || body.Leaving) {
			beat["gateways"] = c.others
		}
		answer = beat
	case "/api/v1/auth/validate-device":
		c.asked++
		if c.decide != nil {
			c.decide(w, r)
			return
		}
		answer = map[string]any{"allowed": true}
	case "/api/v1/gateway/sessions/admitted":
		var body struct {
			Sessions []struct {
				DeviceID string `json:"device_id"`
			} `json:"sessions"`
		}
		_ = json.NewDecoder(r.Body).Decode(&body)
		decisions := make([]any, 0, len(body.Sessions))
		for _, session := range body.Sessions {
			c.told++
			decision := any(map[string]any{"allowed": true})
			if c.admitted != nil {
				decision = c.admitted(session.DeviceID)
			}
			decisions = append(decisions, decision)
		}
		answer = map[string]any{"sessions": decisions}
	case "/api/v1/gateway/sessions/end":
		var body struct {
			Sessions []struct {
				Reason string `json:"reason"`
			} `json:"sessions"`
		}
		if json.NewDecoder(r.Body).Decode(&body) == nil {
			for _, session := range body.Sessions {
				c.ended = append(c.ended, session.Reason)
			}
		}
		w.WriteHeader(http.StatusNoContent)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// decisions is how many were asked for.
func (c *control) decisions() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.asked
}

// set changes the control plane between requests.
func (c *control) set(change func(*control)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	change(c)
}

// claims are those of a device's good token.
func claims(d device) ticket.Claims {
	return ticket.Claims{
		ID: "1", Device: d.id.String(), Generation: 1, KeyThumbprint: ticket.Thumbprint(publicOf(d.key)),
		IssuedAt: time.Now().Add(-time.Minute), ExpiresAt: time.Now().Add(time.Hour),
	}
}

func sign(t *testing.T, key ed25519.PrivateKey, audience string, c ticket.Claims) string {
	t.Helper()
	token, err := ticket.NewSigner(key, issuer, audience).Sign(c)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// device returns one that does everything right.
func (c *control) device(t *testing.T) device {
	t.Helper()
	d := device{key: newKey(t), hidden: hidden, id: uuid.New()}
	d.token = sign(t, c.signer, serviceID, claims(d))
	return d
}
