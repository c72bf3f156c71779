package gateway_test

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/internal/configfile"
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

// request returns an upgrade that is right in every point; the changes replace
// parts of it.
func request(host string, changes ...string) string {
	text := "GET /tunnel HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + goodKey + "\r\nSec-WebSocket-Protocol: " + wire.SubProtocol + "\r\n\r\n"
	return strings.NewReplacer(changes...).Replace(text)
}

func TestEverythingButTheTunnelIsTheSamePage(t *testing.T) {
	t.Parallel()
	s, _ := newControlled(t, nil)
	host := s.cfg.Listener.Addr().String()
	page := ask(t, s.dialTLS(t, "http/1.1"), "GET /nothing HTTP/1.1\r\nHost: "+host+"\r\n\r\n")
	if page.Status != "HTTP/1.1 404 Not Found" || strings.Contains(strings.ToLower(fmt.Sprint(page)), "httvps") {
		t.Fatalf("the page is %+v", page)
	}
	for name, text := range map[string]string{
		"the root":                        "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"the tunnel's path, no upgrade":   "GET /tunnel HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"POST":                            "POST / HTTP/1.1\r\nHost: " + host + "\r\nContent-Length: 5\r\n\r\nhello",
		"an unknown method":               "BREW /pot HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"OPTIONS *":                       "OPTIONS * HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"CONNECT":                         "CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n",
		"as a proxy":                      "GET http://example.com/ HTTP/1.1\r\nHost: example.com\r\n\r\n",
		"another host":                    request("other.example"),
		"no host":                         request("", "Host: \r\n", "Host:\r\n"),
		"another port":                    request("127.0.0.1:1"),
		"another path":                    request(host, "/tunnel", "/tunnel/"),
		"the path in capitals":            request(host, "/tunnel", "/TUNNEL"),
		"a query":                         request(host, "/tunnel", "/tunnel?x=1"),
		"a path above":                    request(host, "/tunnel", "/x/../tunnel"),
		"no sub-protocol":                 request(host, "Sec-WebSocket-Protocol: "+wire.SubProtocol+"\r\n", ""),
		"another sub-protocol":            request(host, wire.SubProtocol, "mqtt"),
		"a later version":                 request(host, wire.SubProtocol, "httvps.v9"),
		"no upgrade":                      request(host, "Upgrade: websocket\r\n", ""),
		"another upgrade":                 request(host, "Upgrade: websocket", "Upgrade: h2c"),
		"no connection header":            request(host, "Connection: Upgrade\r\n", ""),
		"WebSocket of another version":    request(host, "Version: 13", "Version: 8"),
		"no key":                          request(host, "Sec-WebSocket-Key: "+goodKey+"\r\n", ""),
		"a short key":                     request(host, goodKey, "c2hvcnQ="),
		"a key that is none":              request(host, goodKey, "!!!!"),
		"POST to the tunnel":              request(host, "GET ", "POST "),
		"metrics":                         "GET /metrics HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"readiness":                       "GET /readyz HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"a gateway's API":                 "GET /api/v1/health HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"the OpenAPI document":            "GET /openapi.json HTTP/1.1\r\nHost: " + host + "\r\n\r\n",
		"an encoded path to the tunnel 2": request(host, "/tunnel", "/tunnel%2f"),
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(page, ask(t, s.dialTLS(t, "http/1.1"), text)); diff != "" {
				t.Errorf("differs from any other page (-page +got):\n%s", diff)
			}
		})
	}
	if got := ask(t, s.dialTLS(t, "http/1.1"), request(host)); got.Status != "HTTP/1.1 101 Switching Protocols" {
		t.Errorf("the request that is right in every point gets %+v", got)
	}
	if got := ask(t, s.dialTLS(t, "http/1.1"), request(strings.ToUpper(host))); got.Status != "HTTP/1.1 101 Switching Protocols" {
		t.Errorf("the host in capitals gets %+v", got)
	}
}

// The page is the end: nobody keeps a place among the strangers by asking again.
func TestAStrangersConnectionEndsWithThePage(t *testing.T) {
	t.Parallel()
	s, _ := newControlled(t, nil)
	address := s.cfg.Listener.Addr().String()
	conn := s.dialTLS(t, "http/1.1")
	ask(t, conn, "GET / HTTP/1.1\r\nHost: "+address+"\r\n\r\n")
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("behind the page there are %d bytes, %v, want the end", n, err)
	}

	transport := &http.Transport{TLSClientConfig: s.trust.Clone(), ForceAttemptHTTP2: true}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+address+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.ProtoMajor != 2 {
		t.Errorf("%s: %v", resp.Proto, err)
	}
	began := time.Now()
	for !strings.Contains(s.metrics(t), "httvps_gateway_unauthenticated_connections 0\n") {
		if time.Since(began) > 15*time.Second { // well before idle connections end
			t.Fatal("the HTTP/2 connection still counts")
		}
		<-time.After(10 * time.Millisecond)
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
	if resp.ProtoMajor != 2 || resp.StatusCode != http.StatusNotFound {
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
	if got := s.metrics(t); !strings.Contains(got, "httvps_gateway_unauthenticated_connections 0\n") {
		t.Error("the connection still counts")
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
	if got := s.metrics(t); !strings.Contains(got, `httvps_gateway_connections_refused_total{limit="prefix"} 1`) {
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
