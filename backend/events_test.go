package backend_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/backend/internal/config"
	"github.com/httvps/httvps/backend/internal/store/storetest"
)

// natsServer is a NATS server that a test stops and starts.
type natsServer struct {
	*server.Server
	port int
}

// anyPort lets a NATS server choose its port.
const anyPort = server.RANDOM_PORT

func startNATS(tb testing.TB, port int) *natsServer {
	tb.Helper()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true})
	if err != nil {
		tb.Fatal(err)
	}
	s.Start()
	if !s.ReadyForConnections(30 * time.Second) {
		tb.Fatal("NATS does not start")
	}
	address, ok := s.Addr().(*net.TCPAddr)
	if !ok {
		tb.Fatal("NATS does not listen on TCP")
	}
	n := &natsServer{Server: s, port: address.Port}
	tb.Cleanup(n.kill)
	return n
}

func (n *natsServer) kill() {
	n.Shutdown()
	n.WaitForShutdown()
}

// withBus makes a control plane use a NATS server, and say that there are two.
func withBus(n *natsServer) func(*backend.Config) {
	return func(cfg *backend.Config) {
		cfg.Replicas = 2
		cfg.NATS.URL = config.NATSURL(fmt.Sprintf("nats://127.0.0.1:%d", n.port))
	}
}

// follower is a gateway that follows its events.
type follower struct {
	t      *testing.T
	cancel context.CancelFunc
	ended  chan struct{}

	mu   sync.Mutex
	seen map[string]time.Time // by kind and device
	more chan struct{}
	last string
}

// follow opens the stream of events; it comes back after the version last.
func (g gateway) follow(last string) *follower {
	t := g.s.t
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.s.ready.API+"/api/v1/gateway/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+g.credential())
	req.Header.Set("Accept", "text/event-stream")
	req.Header.Set("Last-Event-ID", last)
	resp, err := g.s.client.Do(req) //nolint:bodyclose // the goroutine below closes it
	if err != nil {
		t.Fatal(err)
	}
	if resp.StatusCode != http.StatusOK {
		t.Fatalf("the stream is answered with %s", resp.Status)
	}
	f := &follower{t: t, cancel: cancel, ended: make(chan struct{}), seen: make(map[string]time.Time), more: make(chan struct{}, 1), last: last}
	begun := make(chan struct{})
	go func() {
		defer close(f.ended)
		defer resp.Body.Close()
		once := sync.OnceFunc(func() { close(begun) })
		defer once()
		lines := bufio.NewScanner(resp.Body)
		for lines.Scan() {
			f.take(lines.Text())
			if lines.Text() == "" {
				once()
			}
		}
	}()
	t.Cleanup(f.stop)
	<-begun
	return f
}

func (f *follower) stop() {
	f.cancel()
	<-f.ended
}

func (f *follower) take(line string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if id, ok := strings.CutPrefix(line, "id: "); ok {
		f.last = id
	}
	data, ok := strings.CutPrefix(line, "data: ")
	if !ok {
		return
	}
	var e struct {
		Kind     string `json:"kind"`
		DeviceID string `json:"device_id"`
	}
	if err := json.Unmarshal([]byte(data), &e); err != nil {
		f.t.Errorf("data %q: %v", data, err)
	}
	f.seen[e.Kind+" "+e.DeviceID] = time.Now()
	select {
	case f.more <- struct{}{}:
	default:
	}
}

// await returns when an event came.
func (f *follower) await(event string) time.Time {
	f.t.Helper()
	for {
		f.mu.Lock()
		at, ok := f.seen[event]
		f.mu.Unlock()
		if ok {
			return at
		}
		select {
		case <-f.more:
		case <-time.After(30 * time.Second):
			f.t.Fatalf("%s did not come", event)
		}
	}
}

// fleet is two control planes on one database with gateways, each of which knows
// a device of its user.
type fleet struct {
	url, dir string // where their records and the keys of the first are
	one, two *service
	gateways []gateway
	bus      *natsServer
}

func newFleet(t *testing.T, gateways int) *fleet {
	t.Helper()
	bus := startNATS(t, anyPort)
	url, dir := storetest.Database(t), dataDir(t)
	f := &fleet{bus: bus, url: url, dir: dir, one: start(t, dir, onPostgres(url, dev, withBus(bus)))}
	f.two = start(t, replica(t, dir), onPostgres(url, withBus(bus)))
	f.two.ready.Token = f.one.ready.Token
	f.one.admin(http.MethodPost, "/regions", map[string]any{"code": "here"}).want(http.StatusCreated, "")
	for i := range gateways {
		made := f.one.admin(http.MethodPost, "/gateways", map[string]any{"name": fmt.Sprint("gw", i), "region": "here"}).want(http.StatusCreated, "")
		g := f.one.join(made.field("join"))
		if i%2 == 1 { // half of them at each replica
			g.s = f.two
		}
		f.gateways = append(f.gateways, g)
	}
	f.awaitBus("connected")
	return f
}

// awaitBus waits until both replicas say this of the bus.
func (f *fleet) awaitBus(state string) {
	f.one.t.Helper()
	for _, s := range []*service{f.one, f.two} {
		base := s.ready.API[:strings.LastIndex(s.ready.API, "/")]
		await(s.t, func() bool {
			health := s.call(http.MethodGet, base+"/api/v1/health", "", nil).want(http.StatusOK, "")
			return health.field("bus") == state && health.field("status") == "ok"
		})
	}
}

// known enrols a device that all gateways have had a session of.
func (f *fleet) known(userID string) device {
	f.one.t.Helper()
	d := f.one.enrol(f.one.invite(userID))
	for _, g := range f.gateways {
		if got := g.validate(newSessionID(), d); !got.Allowed {
			f.one.t.Fatalf("a session is refused: %+v", got)
		}
	}
	return d
}

func (f *fleet) revoke(at *service, d device) time.Time {
	f.one.t.Helper()
	at.admin(http.MethodPost, "/devices/"+d.id+"/revoke", struct{}{}).want(http.StatusOK, "")
	return time.Now()
}

// revocations lets n devices be revoked, at one replica and the other in turn, and
// returns how long after the answer the last of the gateways knew it, in order.
func (f *fleet) revocations(userID string, followers []*follower, n int) []time.Duration {
	f.one.t.Helper()
	devices := make([]device, n)
	for i := range devices {
		devices[i] = f.known(userID)
	}
	var took []time.Duration
	for i, d := range devices {
		returned := f.revoke([]*service{f.one, f.two}[i%2], d)
		last := returned
		for _, follower := range followers {
			if at := follower.await("device.revoked " + d.id); at.After(last) {
				last = at
			}
		}
		took = append(took, last.Sub(returned))
	}
	slices.Sort(took)
	return took
}

func TestARevocationReachesAllGatewaysAtOnceOverTwoControlPlanesOnPostgreSQL(t *testing.T) {
	f := newFleet(t, 3)
	user, _ := f.one.user("many", 1000, 1000)
	var followers []*follower
	for _, g := range f.gateways {
		followers = append(followers, g.follow("0"))
	}
	n := 40
	if os.Getenv("HTTVPS_SOAK") == "1" {
		n = 300 // a plan has at most 1,000 sessions
	}
	took := f.revocations(user, followers, n)
	t.Logf("%d revocations at 3 gateways: median %v, p99 %v, slowest %v", n, took[n/2], took[n*99/100], took[n-1])
	// Nothing here waits for a poll, which would take half a second on average; one
	// may be slow on a busy machine.
	late := took[n*9/10]
	if os.Getenv("HTTVPS_SOAK") == "1" {
		late = took[n*99/100]
	}
	if late > 500*time.Millisecond {
		t.Errorf("the slowest took longer than %v, want at most 500 ms", late)
	}
}

func TestWithoutTheBusThePollCoversAndNothingIsLostOnPostgreSQL(t *testing.T) {
	f := newFleet(t, 2)
	user, _ := f.one.user("many", 1000, 1000)
	devices := make([]device, 4)
	for i := range devices {
		devices[i] = f.known(user)
	}
	here, there := f.gateways[0].follow("0"), f.gateways[1].follow("0")
	f.bus.kill()
	f.awaitBus("away") // and ready all the same
	for i, d := range devices[:2] {
		f.revoke([]*service{f.one, f.two}[i], d)
	}
	for _, d := range devices[:2] {
		here.await("device.revoked " + d.id)
		there.await("device.revoked " + d.id)
	}
	there.stop()
	f.revoke(f.one, devices[2])
	startNATS(t, f.bus.port)
	f.awaitBus("connected")
	f.revoke(f.one, devices[3])
	again := f.gateways[1].follow(there.last)
	for _, d := range devices[2:] {
		here.await("device.revoked " + d.id)
		again.await("device.revoked " + d.id)
	}
	if _, twice := again.seen["device.revoked "+devices[0].id]; twice {
		t.Error("a resumed stream brings again what its gateway has had")
	}
}

func TestAGatewayThatIsRemovedIsToldAndSentAway(t *testing.T) {
	s := start(t, dataDir(t), dev)
	g := s.newGateway()
	f := g.follow("0")
	s.admin(http.MethodDelete, "/gateways/"+g.id, nil).want(http.StatusNoContent, "")
	f.await("gateway.removed ")
	<-f.ended
	s.get("/api/v1/gateway/events", g.credential()).want(http.StatusUnauthorized, "invalid_token")
}

func TestStoppingTheServiceEndsStreamsAtOnce(t *testing.T) {
	s := start(t, dataDir(t), dev)
	f := s.newGateway().follow("0")
	begin := time.Now()
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	<-f.ended
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("stopping took %v, as if it waited for the stream", took)
	}
}

func TestASessionThatAnOperatorClosesIsClosedByItsGateway(t *testing.T) {
	s := start(t, dataDir(t), dev)
	g, d := s.newGateway(), s.enrol(s.ready.Invite)
	session := newSessionID()
	if got := g.validate(session, d); !got.Allowed {
		t.Fatalf("%+v", got)
	}
	f := g.follow("0")
	s.admin(http.MethodPost, "/sessions/"+session+"/close", nil).want(http.StatusOK, "")
	f.await("session.close " + d.id)
	for range 2 { // until the gateway has done it
		if beat := g.heartbeat(); len(beat.Close) != 1 || beat.Close[0].SessionID != session || beat.Close[0].Reason != "session_unknown" {
			t.Errorf("the heartbeat says %+v", beat)
		}
	}
	s.post("/api/v1/gateway/sessions/end", g.credential(), map[string]any{
		"sessions": []map[string]any{{"session_id": session, "reason": "closed"}},
	}).want(http.StatusNoContent, "")
	if beat := g.heartbeat(); len(beat.Close) != 0 {
		t.Errorf("the heartbeat still says %+v", beat)
	}
	if got := g.validate(newSessionID(), d); !got.Allowed {
		t.Errorf("another session is refused: %+v", got)
	}
}

func TestASecondControlPlaneWithoutABusIsRefusedOnPostgreSQL(t *testing.T) {
	url, dir := storetest.Database(t), dataDir(t)
	start(t, dir, onPostgres(url, dev))
	cfg := testConfig(t, replica(t, dir))
	cfg.TLS, _ = testTLS(t)
	onPostgres(url)(&cfg)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second) // it would wait for longer
	defer cancel()
	if err := backend.Run(ctx, cfg); err == nil || !strings.Contains(err.Error(), "nats.url") {
		t.Errorf("Run = %v, want an error that names nats.url", err)
	}
}

func TestAStreamOutlivesTheTimeThatARequestMayTake(t *testing.T) {
	if os.Getenv("HTTVPS_SOAK") != "1" {
		t.Skip("takes a minute; set HTTVPS_SOAK=1")
	}
	for name, http2 := range map[string]bool{"HTTP/1.1": false, "HTTP/2": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := start(t, dataDir(t), dev)
			transport, ok := s.client.Transport.(*http.Transport)
			if !ok {
				t.Fatal("another transport")
			}
			transport.ForceAttemptHTTP2 = http2
			g := s.newGateway()
			f := g.follow("0")
			defer f.stop()
			select {
			case <-f.ended:
				t.Fatal("the stream ended by itself")
			case <-time.After(40 * time.Second): // every timeout of the server is shorter
			}
			plan := s.admin(http.MethodPost, "/plans", map[string]any{"name": "p"}).want(http.StatusCreated, "").field("id")
			s.admin(http.MethodPatch, "/plans/"+plan, map[string]any{"max_streams": 7}).want(http.StatusOK, "")
			f.await("plan.changed ")
		})
	}
}
