package gateway_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/sdk/go/knock"
	"github.com/httvps/httvps/sdk/go/wire"
)

// dialTLS connects to the gateway as any visitor does.
func (s *service) dialTLS(t *testing.T, protocols ...string) *tls.Conn {
	t.Helper()
	trust := s.trust.Clone()
	trust.NextProtos = protocols
	conn, err := tls.Dial("tcp", s.cfg.Listener.Addr().String(), trust)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

// answer is what a visitor sees of a response.
type answer struct {
	Status string
	Header http.Header
	Body   string
}

func ask(t *testing.T, conn net.Conn, request string) answer {
	t.Helper()
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(request, " ")
	resp, err := http.ReadResponse(bufio.NewReader(conn), &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	resp.Header.Del("Date")
	return answer{Status: resp.Proto + " " + resp.Status, Header: resp.Header, Body: string(body)}
}

const goodKey = "dGhlIHNhbXBsZSBub25jZQ=="

// upgrade returns a request for the tunnel that is right in every point but perhaps
// the cookie; the changes replace parts of it.
func upgrade(host, cookie string, changes ...string) string {
	text := "GET /tunnel HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + goodKey + "\r\nSec-WebSocket-Protocol: " + wire.SubProtocol + "\r\n" +
		"Cookie: " + cookie + "\r\n\r\n"
	return strings.NewReplacer(changes...).Replace(text)
}

// request is an upgrade with a good knock for host.
func request(host string, changes ...string) string {
	return upgrade(host, goodCookie(host), changes...)
}

const (
	switching = "HTTP/1.1 101 Switching Protocols"
	notFound  = "HTTP/1.1 404 Not Found"
)

func TestTheTunnelIsForWhoKnocks(t *testing.T) {
	t.Parallel()
	s, _ := newControlled(t, nil)
	host := s.cfg.Listener.Addr().String()
	for name, tc := range map[string]struct{ request, want string }{
		"a knock":                 {request(host), switching},
		"the host in capitals":    {request(strings.ToUpper(host)), switching},
		"among other cookies":     {upgrade(host, "a=b; "+goodCookie(host)+"; c=d"), switching},
		"before a second":         {upgrade(host, goodCookie(host)+"; sid=x"), switching},
		"in a second line":        {upgrade(host, "a=b\r\nCookie: "+goodCookie(host)), switching},
		"14 minutes old":          {upgrade(host, "sid="+knock.Mint(hidden, host, time.Now().Add(-14*time.Minute))), switching},
		"of 14 minutes ahead":     {upgrade(host, "sid="+knock.Mint(hidden, host, time.Now().Add(14*time.Minute))), switching},
		"no cookie":               {request(host, "Cookie: ", "X-Cookie: "), notFound},
		"a cookie":                {upgrade(host, "sid=1"), notFound},
		"behind a second":         {upgrade(host, "sid=x; "+goodCookie(host)), notFound},
		"of another key":          {upgrade(host, "sid="+knock.Mint(knock.Key{9}, host, time.Now())), notFound},
		"17 minutes old":          {upgrade(host, "sid="+knock.Mint(hidden, host, time.Now().Add(-17*time.Minute))), notFound},
		"for another host":        {upgrade(host, goodCookie("other.example")), notFound},
		"a knock of another host": {request("other.example"), notFound},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ask(t, s.dialTLS(t, "http/1.1"), tc.request); got.Status != tc.want {
				t.Errorf("the answer is %+v, want %s", got, tc.want)
			}
		})
	}
	for _, point := range spoiled {
		t.Run(point.name, func(t *testing.T) {
			if got := ask(t, s.dialTLS(t, "http/1.1"), request(host, point.old, point.new)); got.Status == switching {
				t.Errorf("a knock and otherwise %s: %+v", point.name, got)
			}
		})
	}
}

// A gateway's keys and cookie may come from its own configuration, too. Each cookie
// is good for its own keys.
func TestKnocksOfTheConfigurationAreGoodToo(t *testing.T) {
	t.Parallel()
	own := knock.Key{7}
	s, _ := newControlled(t, func(cfg *gateway.Config) {
		cfg.Knock.Cookie, cfg.Knock.Keys = "visit", append(cfg.Knock.Keys, knockKey(t, own))
	})
	host := s.cfg.Listener.Addr().String()
	for cookie, want := range map[string]string{
		"visit=" + knock.Mint(own, host, time.Now()):    switching,
		"sid=" + knock.Mint(hidden, host, time.Now()):   switching,
		"sid=" + knock.Mint(own, host, time.Now()):      notFound,
		"visit=" + knock.Mint(hidden, host, time.Now()): notFound,
	} {
		if got := ask(t, s.dialTLS(t, "http/1.1"), upgrade(host, cookie)); got.Status != want {
			t.Errorf("%s: %s, want %s", cookie[:6], got.Status, want)
		}
	}
}

// Without a key nobody is let in, and readiness says why.
func TestWithoutAKeyEverybodyMeetsTheSite(t *testing.T) {
	t.Parallel()
	for name, says := range map[string]any{"nothing": nil, "no keys": told()} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, _ := newControlledBy(t, func(c *control) { c.knock = says }, nil)
			host := s.cfg.Listener.Addr().String()
			for _, cookie := range []string{goodCookie(host), "sid=" + knock.Mint(knock.Key{}, host, time.Now()), "sid=", "="} {
				if got := ask(t, s.dialTLS(t, "http/1.1"), upgrade(host, cookie)); got.Status != notFound {
					t.Errorf("%q: %s", cookie, got.Status)
				}
			}
			if got := s.get(t, "/readyz", http.StatusServiceUnavailable); !strings.Contains(got, "knock") {
				t.Errorf("readiness says %q", got)
			}
		})
	}
}

func TestAVisitorsConnectionStaysOpen(t *testing.T) {
	t.Parallel()
	s, _ := newControlled(t, nil)
	conn := s.dialTLS(t, "http/1.1")
	for range 3 {
		got := ask(t, conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		text := strings.ToLower(fmt.Sprint(got))
		if got.Status != "HTTP/1.1 200 OK" || strings.Contains(text, "httvps") || strings.Contains(text, "tunnel") || got.Header.Get("Server") != "" {
			t.Errorf("the page is %+v", got)
		}
	}
}

// WebSockets of visitors are the other server's affair, and end with the gateway.
func TestAVisitorsWebSocketGoesThrough(t *testing.T) {
	t.Parallel()
	other := otherSite(t)
	s, _ := newControlled(t, func(cfg *gateway.Config) { cfg.Masquerade.URL = other.String() })
	conn := s.dialTLS(t, "http/1.1")
	if _, err := io.WriteString(conn, upgrade("a", "x=y")); err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(conn)
	if err != nil || !strings.Contains(string(text), "101 Switching") || !strings.Contains(string(text), "it is not what you think") {
		t.Errorf("the visitor reads %q, %v", text, err)
	}
}

func TestVisitorsGetHTTP2(t *testing.T) {
	t.Parallel()
	s, _ := newControlled(t, nil)
	transport := &http.Transport{TLSClientConfig: s.trust.Clone(), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+s.cfg.Listener.Addr().String()+"/tunnel", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	if resp.ProtoMajor != 2 || resp.StatusCode != http.StatusNotFound || resp.Header.Get("Date") == "" {
		t.Errorf("%s %s", resp.Proto, resp.Status)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	s, _ := newControlled(t, nil)
	old := s.trust.Clone()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if conn, err := tls.Dial("tcp", s.cfg.Listener.Addr().String(), old); err == nil {
		conn.Close()
		t.Error("TLS 1.2 was accepted")
	}
}

func TestASlowHandshakeIsClosed(t *testing.T) {
	t.Parallel()
	s, _ := newControlled(t, func(cfg *gateway.Config) { cfg.Limits.HandshakeTimeout = configfile.Duration(time.Second) })
	conn := s.dialTLS(t, "http/1.1")
	if _, err := io.WriteString(conn, request(s.cfg.Listener.Addr().String())); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := io.ReadAll(conn); err != nil { // 101, CHALLENGE, and the end
		t.Errorf("the connection ends with %v", err)
	}
	if took := time.Since(began); took < 900*time.Millisecond || took > 10*time.Second {
		t.Errorf("closed after %v, want about 1s", took)
	}
	for !strings.Contains(s.metrics(t), "httvps_gateway_unauthenticated_connections 0\n") { // when its socket is closed
		if time.Since(began) > 15*time.Second {
			t.Fatal("the connection still counts")
		}
		<-time.After(10 * time.Millisecond)
	}
}

// Strangers are bounded per network, devices that have proven themselves not.
func TestStrangersAreBoundedAndDevicesAreNot(t *testing.T) {
	t.Parallel()
	s, c := newControlled(t, func(cfg *gateway.Config) { cfg.Limits.UnauthenticatedPerPrefix = 2 })
	for range 5 {
		c.device(t).connect(t, s.url, s.trust)
	}
	address := s.cfg.Listener.Addr().String()
	for range 5 { // who knocks is no stranger to the limit of his network
		if got := ask(t, s.dialTLS(t, "http/1.1"), request(address)); got.Status != switching {
			t.Fatalf("a knock gets %+v", got)
		}
	}
	var strangers []net.Conn
	for range 2 {
		conn := s.dialTLS(t, "http/1.1")
		strangers = append(strangers, conn)
	}
	raw, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(20 * time.Second))
	if n, err := raw.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("a third stranger reads %d bytes, %v, want to be turned away", n, err)
	}
	if got := s.metrics(t); !strings.Contains(got, `httvps_gateway_connections_refused_total{limit="prefix"} 1`+"\n") {
		t.Error("the third stranger is not in the metrics")
	}
	for _, conn := range strangers {
		conn.Close()
	}
	// The places are free again.
	for {
		trust := s.trust.Clone()
		if conn, err := tls.Dial("tcp", address, trust); err == nil {
			conn.Close()
			break
		}
		<-time.After(10 * time.Millisecond)
	}
}

// knockKey is a key as a configuration has it.
func knockKey(t *testing.T, key knock.Key) (read gateway.KnockKey) {
	t.Helper()
	text, err := key.MarshalText()
	if err != nil {
		t.Fatal(err)
	}
	if err := read.UnmarshalText(text); err != nil {
		t.Fatal(err)
	}
	return read
}
