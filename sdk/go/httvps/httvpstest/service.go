// Package httvpstest is a small HTTVPS service for tests of programs that use
// package httvps: a control plane and gateways in the test's own process, with
// real TLS, real signatures and the real tunnel protocol.
//
// It keeps no books: every invitation of its own is good once, every device it
// enrolled may connect, and a test says with [Options] what goes wrong.
package httvpstest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base32"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/knock"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/tlspin"
	"github.com/httvps/httvps/sdk/go/wire"
)

// Options change how a service behaves. The zero value is a service where
// nothing goes wrong, with one gateway on loopback.
type Options struct {
	// Memory keeps the whole network in memory, for tests inside a
	// testing/synctest bubble: clients use Service.NetDial.
	Memory bool

	// Gateways is how many gateways there are; 0 means 1, less than 0 none.
	Gateways int

	// Apart gives gateways hosts of their own, which pass on what devices ask of the
	// device API. In memory only.
	Apart bool

	// Fronts is how many further URLs each gateway has and names, beside its own. In memory
	// only.
	Fronts int

	// Plan is what devices are told of their user's plan; nil: one without an end, a
	// quota or other bounds.
	Plan *httvps.Plan

	// Support is whom the service tells devices to turn to.
	Support string

	// TokenLife is how long access tokens are good; 0 means an hour.
	TokenLife time.Duration

	// Wrap stands around the handler of everything, to break it: paths below
	// /api/v1 are the device API, /tunnel/0 is the first gateway.
	Wrap func(next http.Handler) http.Handler

	// Admit decides about a device that has proven its key. Code 0 admits it.
	Admit func(gateway int, hello wire.Hello) wire.Reject

	// Lenient, unless nil, says which gateways let devices in whose token is over, as
	// those do that stand in for a control plane that is away.
	Lenient func(gateway int) bool

	// GatewaysAhead is how far the gateways' clock is ahead of everybody else's;
	// less than zero when it is behind.
	GatewaysAhead time.Duration

	// NoBinding makes the gateways offer no channel binding.
	NoBinding bool

	// Resume is how long gateways keep a session without a connection; 0: they do not,
	// and sessions end with their connection.
	Resume time.Duration

	// EndWithToken has gateways end a session when the latest token that they were shown
	// for it is over.
	EndWithToken bool

	// JudgeToken, unless nil, answers a device that shows another token for a session; any
	// code but 0 refuses it.
	JudgeToken func() wire.Code

	// NoTerms makes the gateways tell nothing of a session that lives, nor look at other
	// tokens for it.
	NoTerms bool

	// Padding is what devices and gateways add to messages; nil: nothing.
	Padding *wire.PaddingPolicy

	// BendResumed changes what gateways answer to a device that comes back.
	BendResumed func(*wire.Resumed)

	// Dial connects a stream to its target; nil means net.Dialer. The code of
	// a *mux.StreamError is passed on, other errors become conn_refused.
	Dial func(ctx context.Context, target wire.Addr) (net.Conn, error)

	// NoUDP makes the gateways serve no UDP.
	NoUDP bool

	// Peer says where datagrams to a target really go; nil means where they are
	// to, and for every name 127.0.0.1. The code of a *mux.StreamError is passed
	// on for the target of a UDP connection, other errors become dns_fail; a
	// datagram of a socket for any peer is dropped.
	Peer func(target wire.Addr) (netip.AddrPort, error)
}

// Service is a running service.
type Service struct {
	// API is the base URL of the device API.
	API string

	// Pin is that of the service's certificate authority.
	Pin string

	// NetDial reaches the service, and nothing else when it is in memory.
	NetDial httvps.NetDial

	opts   Options
	host   string
	memory *network // nil: it listens on loopback
	server *http.Server
	wg     sync.WaitGroup

	mu       sync.Mutex // guards the following fields
	closed   bool
	codes    map[string]ed25519.PublicKey // by SHA-256 in hex; nil: not used yet
	devices  map[string]ed25519.PublicKey // by id
	nonces   map[string]bool
	tokens   map[string]grant
	issued   []time.Time
	reauths  int   // tokens that were shown for sessions that live
	live     []int // gateways that lists name
	fronts   int   // that each gateway names
	sessions map[*mux.Session]*live
	kept     map[[16]byte]*kept // that can be resumed, by id
	knocks   []knock.Key        // in force, the one that devices get first
	blocked  []string           // hosts that the device's network does not lead to
}

// grant is what a token stands for.
type grant struct {
	device  string
	expires time.Time
}

// prefix is the path under which the device API hides.
const prefix = "/k3jd84hf"

// New starts a service. It panics when the machine cannot, like httptest.
func New(opts Options) *Service {
	s := &Service{
		opts:     opts,
		codes:    make(map[string]ed25519.PublicKey),
		devices:  make(map[string]ed25519.PublicKey),
		nonces:   make(map[string]bool),
		tokens:   make(map[string]grant),
		sessions: make(map[*mux.Session]*live),
		kept:     make(map[[16]byte]*kept),
		knocks:   []knock.Key{newKnock()},
		fronts:   opts.Fronts,
	}
	if s.opts.Gateways == 0 {
		s.opts.Gateways = 1
	}
	for i := range max(s.opts.Gateways, 0) {
		s.live = append(s.live, i)
	}
	if s.opts.TokenLife == 0 {
		s.opts.TokenLife = time.Hour
	}
	if s.opts.Dial == nil && opts.Memory {
		s.opts.Dial = func(ctx context.Context, target wire.Addr) (net.Conn, error) {
			if target.Name != s.host {
				return nil, syscall.ECONNREFUSED
			}
			return s.memory.dial(ctx, "tcp", target.String())
		}
	}
	if s.opts.Dial == nil {
		s.opts.Dial = func(ctx context.Context, target wire.Addr) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", target.String())
		}
	}
	if s.opts.Peer == nil {
		s.opts.Peer = func(target wire.Addr) (netip.AddrPort, error) {
			if target.Name != "" {
				target.IP = netip.AddrFrom4([4]byte{127, 0, 0, 1})
			}
			return netip.AddrPortFrom(target.IP, target.Port), nil
		}
	}
	var ln net.Listener
	if opts.Memory {
		s.memory = newNetwork()
		ln, s.host, s.NetDial = s.memory, "service.test", s.dial
	} else {
		l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			panic("httvpstest: " + err.Error())
		}
		ln, s.host, s.NetDial = l, l.Addr().String(), (&net.Dialer{}).DialContext
	}
	cert, pin := certificate()
	s.Pin = pin.String()
	s.API = "https://" + s.host + prefix

	var routes http.Handler = s.routes()
	if opts.Wrap != nil {
		routes = opts.Wrap(routes)
	}
	s.server = &http.Server{
		Handler:           s.hide(routes),
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{cert}},
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError),
		ReadHeaderTimeout: 10 * time.Second,
	}
	s.wg.Go(func() { _ = s.server.ServeTLS(ln, "", "") })
	return s
}

// dial is the network of the device, in memory.
func (s *Service) dial(ctx context.Context, network, address string) (net.Conn, error) {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	blocked := slices.Contains(s.blocked, host)
	s.mu.Unlock()
	if blocked {
		<-ctx.Done()
		return nil, context.Cause(ctx)
	}
	return s.memory.dial(ctx, network, address)
}

// Block has nothing answer the device at these hosts from now on, and what was blocked
// before answer again; "service.test" is the device API's. In memory only.
func (s *Service) Block(hosts ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocked = slices.Clone(hosts)
}

// relayed are the questions that gateways pass on.
var relayed = []string{"POST /api/v1/auth/challenge", "POST /api/v1/auth/token", "GET /api/v1/gateways", "GET /api/v1/me"}

// hide serves the device API below the prefix only, and tunnels elsewhere only.
func (s *Service) hide(routes http.Handler) http.Handler {
	api := http.StripPrefix(prefix, routes)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, isAPI := strings.CutPrefix(r.URL.Path, prefix)
		passedOn := slices.Contains(relayed, r.Method+" "+path) && s.knocked(r)
		switch {
		case isAPI && r.Host != s.host && !passedOn:
			w.Header().Set("Date", s.gatewayTime().UTC().Format(http.TimeFormat))
			http.NotFound(w, r)
		case strings.HasPrefix(r.URL.Path, prefix+"/api/"):
			api.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, "/tunnel/"):
			routes.ServeHTTP(w, r)
		default:
			http.NotFound(w, r)
		}
	})
}

// Close ends the service with all its sessions and waits for them.
func (s *Service) Close() {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	_ = s.server.Close()
	s.Disconnect(wire.CodeShutdown)
	s.wg.Wait()
}

// Invitation returns a new invitation link.
func (s *Service) Invitation() string {
	raw := make([]byte, 16)
	_, _ = rand.Read(raw) // never fails (crypto/rand)
	code := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(raw)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.codes[hash(code)] = nil
	return s.API + "/join#code=" + code + ",pin=" + s.Pin
}

// Disconnect closes every session with code.
func (s *Service) Disconnect(code wire.Code) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for session := range s.sessions {
		session.Close(code, "")
	}
}

// Announce has a gateway tell its sessions that it goes away, and take what they open
// until GoAway.
func (s *Service) Announce(gateway int, g wire.GoAway) {
	s.each(gateway, func(session *mux.Session) { session.Announce(g) })
}

// GoAway has a gateway tell its sessions that it goes away, and ignore what they open
// from now on.
func (s *Service) GoAway(gateway int, g wire.GoAway) {
	s.each(gateway, func(session *mux.Session) { session.GoAway(g) })
}

// SessionsAt is how many sessions are up at a gateway.
func (s *Service) SessionsAt(gateway int) (n int) {
	s.each(gateway, func(*mux.Session) { n++ })
	return n
}

func (s *Service) each(gateway int, do func(*mux.Session)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for session, on := range s.sessions {
		if on.gateway == gateway {
			do(session)
		}
	}
}

// Sessions is how many sessions are up.
func (s *Service) Sessions() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.sessions)
}

// Issued returns when access tokens were given out.
func (s *Service) Issued() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.issued)
}

// ExpireTokens makes every token that was given out so far an expired one.
func (s *Service) ExpireTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for text, g := range s.tokens {
		g.expires = time.Time{}
		s.tokens[text] = g
	}
}

// RotateKnock gives devices a new knock from now on. Gateways accept the one
// before it as well, and no older ones.
func (s *Service) RotateKnock() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.knocks = []knock.Key{newKnock(), s.knocks[0]}
}

func newKnock() (key knock.Key) {
	_, _ = rand.Read(key[:]) // never fails (crypto/rand)
	return key
}

// knockAnswer is what devices are told about the knock. It is called with mu
// held.
func (s *Service) knockAnswer() httvps.Knock {
	return httvps.Knock{Cookie: knock.DefaultCookie, Key: s.knocks[0]}
}

func (s *Service) routes() *http.ServeMux {
	m := http.NewServeMux()
	m.HandleFunc("POST /api/v1/auth/challenge", s.challenge)
	m.HandleFunc("POST /api/v1/devices/enroll", s.enroll)
	m.HandleFunc("POST /api/v1/auth/token", s.token)
	m.HandleFunc("GET /api/v1/gateways", s.gateways)
	m.HandleFunc("GET /api/v1/me", s.me)
	m.HandleFunc("/tunnel/{gateway}", s.tunnel)
	return m
}

// Problem answers with a problem document, for handlers of [Options.Wrap].
func Problem(w http.ResponseWriter, status int, code string, retryAfter time.Duration) {
	w.Header().Set("Content-Type", "application/problem+json")
	if retryAfter > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(int(retryAfter.Seconds())))
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]any{"status": status, "code": code})
}

func reply(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(v)
}

func (s *Service) challenge(w http.ResponseWriter, _ *http.Request) {
	nonce := make([]byte, 40)
	_, _ = rand.Read(nonce) // never fails (crypto/rand)
	text := base64.RawURLEncoding.EncodeToString(nonce)
	s.mu.Lock()
	s.nonces[text] = true
	s.mu.Unlock()
	reply(w, http.StatusOK, map[string]any{"nonce": text, "expires_in": 120})
}

// proven checks a signature over purpose, parts and an unused nonce.
func (s *Service) proven(key ed25519.PublicKey, purpose, nonce, signature string, parts ...[]byte) bool {
	if !s.nonces[nonce] {
		return false
	}
	delete(s.nonces, nonce)
	raw, err1 := base64.RawURLEncoding.DecodeString(nonce)
	sig, err2 := base64.RawURLEncoding.DecodeString(signature)
	message := []byte("HTTVPS1 " + purpose + "\x00")
	message = append(append(message, bytes.Join(parts, nil)...), raw...)
	return err1 == nil && err2 == nil && len(key) == ed25519.PublicKeySize && ed25519.Verify(key, message, sig)
}

func (s *Service) enroll(w http.ResponseWriter, r *http.Request) {
	var in struct {
		Code, Nonce, Signature, Name, Platform string
		PublicKey                              string `json:"public_key"`
	}
	if json.NewDecoder(r.Body).Decode(&in) != nil || in.Name == "" || in.Platform == "" {
		Problem(w, http.StatusUnprocessableEntity, "invalid_request", 0)
		return
	}
	key, err := base64.RawURLEncoding.DecodeString(in.PublicKey)
	if err != nil {
		Problem(w, http.StatusUnprocessableEntity, "invalid_request", 0)
		return
	}
	code := sha256.Sum256([]byte(in.Code))
	s.mu.Lock()
	defer s.mu.Unlock()
	used, known := s.codes[hash(in.Code)]
	if !known || !s.proven(key, "enrol", in.Nonce, in.Signature, code[:], key) || used != nil && !used.Equal(ed25519.PublicKey(key)) {
		Problem(w, http.StatusForbidden, "invalid_invitation", 0)
		return
	}
	s.codes[hash(in.Code)] = key
	id := deviceID(key)
	s.devices[id] = key
	reply(w, http.StatusCreated, map[string]any{
		"device_id": id, "name": in.Name, "user_name": "ann",
		"service_id": "0190163d-8694-739b-aea5-966c26f8ad92", "service_name": "test service",
		"api": []string{s.API}, "knock": s.knockAnswer(),
	})
}

func (s *Service) token(w http.ResponseWriter, r *http.Request) {
	var in struct {
		DeviceID         string `json:"device_id"`
		Nonce, Signature string
	}
	if json.NewDecoder(r.Body).Decode(&in) != nil {
		Problem(w, http.StatusUnprocessableEntity, "invalid_request", 0)
		return
	}
	device, _ := hex.DecodeString(strings.ReplaceAll(in.DeviceID, "-", ""))
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.proven(s.devices[in.DeviceID], "token", in.Nonce, in.Signature, device) {
		Problem(w, http.StatusUnauthorized, "invalid_token", 0)
		return
	}
	text := rand.Text()
	s.tokens[text] = grant{device: in.DeviceID, expires: time.Now().Add(s.opts.TokenLife)}
	s.issued = append(s.issued, time.Now())
	reply(w, http.StatusOK, map[string]any{
		"access_token": text, "token_type": "Bearer",
		"expires_in": int(s.opts.TokenLife.Seconds()),
		"gateways":   s.list(),
		"knock":      s.knockAnswer(),
	})
}

func (s *Service) gateways(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.bears(r) {
		Problem(w, http.StatusUnauthorized, "invalid_token", 0)
		return
	}
	reply(w, http.StatusOK, map[string]any{"gateways": s.list()})
}

// bears reports whether a request has a good token. It is called with mu held.
func (s *Service) bears(r *http.Request) bool {
	g, ok := s.tokens[strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")]
	return ok && time.Now().Before(g.expires)
}

func (s *Service) me(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	known := s.bears(r)
	s.mu.Unlock()
	if !known {
		Problem(w, http.StatusUnauthorized, "invalid_token", 0)
		return
	}
	plan := s.opts.Plan
	if plan == nil {
		plan = &httvps.Plan{Name: "test plan", Status: "active", MaxDevices: 5, MaxSessions: 5}
	}
	orNull := func(t time.Time) any {
		if t.IsZero() {
			return nil
		}
		return t
	}
	limit := func(n int64) any {
		if n == 0 {
			return nil
		}
		return n
	}
	subscription := map[string]any{
		"plan_name": plan.Name, "status": plan.Status, "starts_at": plan.StartsAt, "ends_at": orNull(plan.EndsAt), "awaits_use": plan.AwaitsUse,
		"max_devices": plan.MaxDevices, "max_sessions": plan.MaxSessions, "regions": plan.Regions,
		"speed_up_bps": limit(plan.SpeedUp), "speed_down_bps": limit(plan.SpeedDown), "quota": nil,
	}
	if q := plan.Quota; q != nil {
		subscription["quota"] = map[string]any{
			"bytes": q.Bytes, "used": q.Used, "left": q.Left, "resets_at": orNull(q.ResetsAt), "warning": 0,
			"throttled": q.Throttled, "throttle_bps": limit(q.Throttle),
		}
	}
	reply(w, http.StatusOK, map[string]any{
		"device": map[string]any{"name": "device"}, "user_name": "ann", "allowed": true, "subscription": subscription, "support": s.opts.Support,
	})
}

func hash(code string) string {
	sum := sha256.Sum256([]byte(code))
	return hex.EncodeToString(sum[:])
}

// deviceID derives a UUID from a key, so that a repeated enrolment gives the
// same device.
func deviceID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return fmt.Sprintf("%x-%x-%x-%x-%x", sum[:4], sum[4:6], sum[6:8], sum[8:10], sum[10:16])
}

// certificate makes a certificate authority and a leaf for the addresses of a
// service. Both began long ago: the clock of a synctest bubble stands at 2000.
func certificate() (tls.Certificate, tlspin.Pin) {
	from, to := time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC)
	caKey, ca := issue(&x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "httvpstest"},
		NotBefore: from, NotAfter: to,
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, nil)
	leafKey, leaf := issue(&x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: from, NotAfter: to,
		DNSNames: []string{"service.test", "*.service.test", "localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}, ca, caKey)
	return tls.Certificate{Certificate: [][]byte{leaf.Raw, ca.Raw}, PrivateKey: leafKey}, tlspin.Of(ca)
}

func issue(template, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*ecdsa.PrivateKey, *x509.Certificate) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic("httvpstest: " + err.Error())
	}
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		panic("httvpstest: " + err.Error())
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		panic("httvpstest: " + err.Error())
	}
	return key, cert
}
