package gateway_test

import (
	"encoding/base64"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
	"github.com/httvps/httvps/test/sstest"
)

const poolPassword = "a password that nobody may read"

// pooled starts a service whose gateway leaves through the control plane's servers.
func pooled(t *testing.T) *service {
	t.Helper()
	return newService(t, func(c *gateway.Config) {
		c.Upstream.Mode = "outline"
		c.Upstream.Outline.Probe = webServer(t)
		c.Upstream.Outline.Resolvers = []netip.AddrPort{netip.MustParseAddrPort("127.0.0.1:9")}
	})
}

// webServer answers whoever asks, and returns its address.
func webServer(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() { _ = server.Close(); serving.Wait() })
	return l.Addr().String()
}

// addServer adds a Shadowsocks server to the pool and returns its id.
func (s *service) addServer(t *testing.T, server *sstest.Server, priority int) (id string) {
	t.Helper()
	secret := base64.RawURLEncoding.EncodeToString([]byte("aes-256-gcm:" + poolPassword))
	var made struct {
		ID string `json:"id"`
	}
	s.admin(t, http.MethodPost, "/outline-servers", map[string]any{
		"region": "local", "access_key": "ss://" + secret + "@" + server.Addr.String(), "priority": priority,
	}, &made)
	return made.ID
}

// through reports whether a server has been told to connect to a target.
func through(server *sstest.Server, to wire.Addr) bool {
	for _, target := range server.Targets() {
		if target == to.String() {
			return true
		}
	}
	return false
}

// want asks until something is so.
func want(t *testing.T, what string, so func() bool) {
	t.Helper()
	for began := time.Now(); !so(); <-time.After(20 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

func TestWithoutAServerAStreamIsToldSo(t *testing.T) {
	t.Parallel()
	s := pooled(t)
	d, o := s.enrol(t), newOrigin(t)
	tun := d.connect(t, s.url, s.trust)
	_, err := exchange(t, tun, o.addr, "hello")
	var refused *mux.StreamError
	if !errors.As(err, &refused) || refused.Code != wire.CodeNoOutlineNodesAvailable {
		t.Errorf("exchange = %v, want %v", err, wire.CodeNoOutlineNodesAvailable)
	}
	flow, err := tun.OpenFlow(t.Context(), wire.KindUDP, o.addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := flow.WaitOpened(t.Context()); !errors.As(err, &refused) || refused.Code != wire.CodeNoOutlineNodesAvailable {
		t.Errorf("a flow: %v, want %v", err, wire.CodeNoOutlineNodesAvailable)
	}
}

// TestASessionKeepsItsServerWhileTheControlPlaneIsAway: what it has works on, and so
// do new streams.
func TestASessionKeepsItsServerWhileTheControlPlaneIsAway(t *testing.T) {
	t.Parallel()
	s := pooled(t)
	one := sstest.StartServer(t, "aes-256-gcm", poolPassword, sstest.Options{})
	s.addServer(t, one, 0)
	d := s.enrol(t)
	tun := d.connect(t, s.url, s.trust)
	for range 2 {
		o := newOrigin(t)
		if got, err := exchange(t, tun, o.addr, "hello"); got != "hello" || err != nil || !through(one, o.addr) {
			t.Errorf("exchange = %q, %v", got, err)
		}
		s.away() // at the end of the first round
	}
	if log := s.log.String(); strings.Contains(log, poolPassword) || strings.Contains(log, one.Addr.String()) {
		t.Errorf("the log:\n%s", log)
	}
}

// TestADisabledServerCarriesItsStreamsToTheirEnd, and no new ones.
func TestADisabledServerCarriesItsStreamsToTheirEnd(t *testing.T) {
	t.Parallel()
	s := pooled(t)
	one := sstest.StartServer(t, "aes-256-gcm", poolPassword, sstest.Options{})
	two := sstest.StartServer(t, "aes-256-gcm", poolPassword, sstest.Options{})
	id := s.addServer(t, one, 0)
	s.addServer(t, two, 1)
	d, o := s.enrol(t), newOrigin(t)
	tun := d.connect(t, s.url, s.trust)
	open, err := tun.Open(t.Context(), o.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	if _, err := open.Write([]byte("to the ")); err != nil {
		t.Fatal(err)
	}
	want(t, "the stream's way", func() bool { return through(one, o.addr) })
	s.admin(t, http.MethodPatch, "/outline-servers/"+id, map[string]any{"disabled": true}, nil)
	began := time.Now()
	want(t, "another way", func() bool {
		next := newOrigin(t)
		if got, err := exchange(t, tun, next.addr, "hello"); got != "hello" || err != nil {
			t.Fatalf("exchange = %q, %v", got, err)
		}
		return through(two, next.addr)
	})
	if took := time.Since(began); took > 5*time.Second { // before any heartbeat could have told
		t.Errorf("the event was heard after %v", took)
	}
	if _, err := open.Write([]byte("end")); err != nil {
		t.Fatal(err)
	}
	if err := open.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(open); string(got) != "to the end" || err != nil {
		t.Errorf("the open stream brought %q, %v", got, err)
	}
}

// TestAFailedServerIsReported: the control plane gives the session another, and the
// session goes on.
func TestAFailedServerIsReported(t *testing.T) {
	t.Parallel()
	s := pooled(t)
	one := sstest.StartServer(t, "aes-256-gcm", poolPassword, sstest.Options{})
	two := sstest.StartServer(t, "aes-256-gcm", poolPassword, sstest.Options{})
	s.addServer(t, one, 0)
	second := s.addServer(t, two, 1)
	d, o := s.enrol(t), newOrigin(t)
	tun := d.connect(t, s.url, s.trust)
	if got, err := exchange(t, tun, o.addr, "hello"); got != "hello" || err != nil || !through(one, o.addr) {
		t.Fatalf("exchange = %q, %v", got, err)
	}
	one.Close()
	began := time.Now()
	if got, err := exchange(t, tun, o.addr, "hello"); got != "hello" || err != nil || !through(two, o.addr) {
		t.Errorf("exchange = %q, %v", got, err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("took %v, want 3 s at most", took)
	}
	var list struct {
		Items []struct {
			OutlineServerID string `json:"outline_server_id"`
		} `json:"items"`
	}
	s.admin(t, http.MethodGet, "/sessions", nil, &list)
	if len(list.Items) != 1 || list.Items[0].OutlineServerID != second {
		t.Errorf("sessions %+v, want one that leaves through %s", list.Items, second)
	}
	metrics := s.metrics(t)
	for _, line := range []string{
		`httvps_gateway_outline_switches_total 1`, `httvps_gateway_control_requests_total{call="assign_outline",result="ok"} 1`,
		`httvps_gateway_control_requests_total{call="report_outline",result="ok"} 1`,
	} {
		if !strings.Contains(metrics, line) {
			t.Errorf("the metrics lack %q", line)
		}
	}
	tun.Close(wire.CodeNoError, "")
	want(t, "the place is given back", func() bool {
		s.admin(t, http.MethodGet, "/sessions", nil, &list)
		return len(list.Items) == 0
	})
}
