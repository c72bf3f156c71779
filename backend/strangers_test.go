package backend_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/backend"
	"github.com/httvps/httvps/internal/inproc"
)

// line is one HTTP/1.1 connection, which a test watches the end of.
type line struct {
	t      *testing.T
	conn   net.Conn
	reader *bufio.Reader
	host   string
}

// dial connects to the API and shakes hands.
func (s *service) dial() *line {
	s.t.Helper()
	base, err := url.Parse(s.ready.API)
	if err != nil {
		s.t.Fatal(err)
	}
	transport, _ := s.client.Transport.(*http.Transport)
	trust := transport.TLSClientConfig.Clone()
	trust.NextProtos = nil
	conn, err := tls.Dial("tcp", base.Host, trust)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return &line{t: s.t, conn: conn, reader: bufio.NewReader(conn), host: base.Host}
}

// ask sends a request and returns its status and whether the connection stays.
func (l *line) ask(method, address, credential, body string) (status int, stays bool) {
	l.t.Helper()
	req, err := http.NewRequestWithContext(l.t.Context(), method, address, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	req.Header.Set("Content-Type", "application/json")
	if credential != "" {
		req.Header.Set("Authorization", "Bearer "+credential)
	}
	if err := req.Write(l.conn); err != nil {
		l.t.Fatal(err)
	}
	resp, err := http.ReadResponse(l.reader, req)
	if err != nil {
		l.t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		l.t.Fatal(err)
	}
	if resp.Close {
		if n, err := l.reader.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			l.t.Errorf("behind the last answer there are %d bytes, %v, want the end", n, err)
		}
	}
	return resp.StatusCode, !resp.Close
}

func TestOnlyAGatewayOrAnOperatorKeepsItsConnection(t *testing.T) {
	s := start(t, dataDir(t), dev)
	gw := s.newGateway()
	d := s.enrol(s.ready.Invite)
	token := d.tryToken().want(http.StatusOK, "").field("access_token")
	api := s.ready.API + "/api/v1"
	for name, tc := range map[string]struct {
		method, address, credential, body string

		status int
		stays  bool
	}{
		"a path without the prefix": {http.MethodGet, strings.TrimSuffix(api, "/api/v1") + "x", "", "", http.StatusNotFound, false},
		"a path below the prefix":   {http.MethodGet, api + "/nothing", "", "", http.StatusNotFound, false},
		"keys that are public":      {http.MethodGet, s.ready.API + "/.well-known/jwks.json", "", "", http.StatusOK, false},
		"a wrong token":             {http.MethodGet, api + "/admin/whoami", "hvt1.x", "", http.StatusUnauthorized, false},
		"a request that is none":    {http.MethodPost, api + "/auth/token", "", "{", http.StatusBadRequest, false},
		"a device":                  {http.MethodGet, api + "/gateways", token, "", http.StatusOK, false},
		// The answer to a challenge comes on the same connection.
		"a challenge": {http.MethodPost, api + "/auth/challenge", "", "{}", http.StatusOK, true},
		"a gateway":   {http.MethodGet, api + "/gateway/config", gw.credential(), "", http.StatusOK, true},
		"an operator": {http.MethodGet, api + "/admin/whoami", s.ready.Token, "", http.StatusOK, true},
	} {
		t.Run(name, func(t *testing.T) {
			status, stays := s.dial().ask(tc.method, tc.address, tc.credential, tc.body)
			if status != tc.status || stays != tc.stays {
				t.Errorf("status %d, stays %v, want %d, %v", status, stays, tc.status, tc.stays)
			}
		})
	}
}

func TestStrangersAreBoundedAndGatewaysAndOperatorsAreNot(t *testing.T) {
	local := inproc.New()
	s := start(t, dataDir(t), func(cfg *backend.Config) {
		dev(cfg)
		cfg.Local = local
		cfg.Limits.UnauthenticatedPerPrefix = 2
	})
	gw := s.newGateway()
	s.client.CloseIdleConnections()
	whoami := s.ready.API + "/api/v1/admin/whoami"
	var known *line
	for range 3 {
		known = s.dial()
		if status, _ := known.ask(http.MethodGet, whoami, s.ready.Token, ""); status != http.StatusOK {
			t.Fatalf("an operator's request is answered %d", status)
		}
		if status, _ := s.dial().ask(http.MethodGet, s.ready.API+"/api/v1/gateway/config", gw.credential(), ""); status != http.StatusOK {
			t.Fatalf("a gateway's request is answered %d", status)
		}
	}

	silent := s.dial()
	challenged := s.dial()
	if status, _ := challenged.ask(http.MethodPost, s.ready.API+"/api/v1/auth/challenge", "", "{}"); status != http.StatusOK {
		t.Fatalf("a challenge is answered %d", status)
	}
	third, err := net.Dial("tcp", silent.host)
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	_ = third.SetDeadline(time.Now().Add(20 * time.Second))
	if n, err := third.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a third stranger reads %d bytes, %v, want to be turned away", n, err)
	}
	if status, _ := known.ask(http.MethodGet, whoami, s.ready.Token, ""); status != http.StatusOK {
		t.Errorf("an operator who is there already is answered %d", status)
	}
	inside := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return local.Dial(ctx) }}
	defer inside.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://inside/metrics", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := inside.RoundTrip(req)
	if err != nil {
		t.Fatalf("within the process: %v", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || !strings.Contains(string(text), `httvps_backend_connections_refused_total{limit="prefix"} 1`) {
		t.Errorf("the third stranger is not in the metrics: %v", err)
	}
}
