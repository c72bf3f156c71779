package httpproxy_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/httvps/httvps/sdk/cli/internal/credential"
	"github.com/httvps/httvps/sdk/cli/internal/httpproxy"
	"github.com/httvps/httvps/sdk/cli/internal/relay"
	"github.com/httvps/httvps/sdk/go/httvps"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// serve runs a proxy on loopback until the test ends.
func serve(t *testing.T, server *httpproxy.Server) (address string) {
	t.Helper()
	ln, err := relay.Listen(t.Context(), ":0", false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := server.Serve(ctx, ln); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return ln.Addr().String()
}

// client writes requests byte by byte.
type client struct {
	*net.TCPConn
	t *testing.T
	r *bufio.Reader
}

func connect(t *testing.T, address string) *client {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // a hung test says where
	return &client{conn.(*net.TCPConn), t, bufio.NewReader(conn)}
}

func (c *client) send(text string) {
	c.t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		c.t.Fatal(err)
	}
}

// reply is an answer that was read to its end.
type reply struct {
	status int
	header http.Header
	body   string
	err    error // of the body
}

// read reads the answer to a request.
func (c *client) read(method string) reply {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, &http.Request{Method: method})
	if err != nil {
		c.t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got := reply{status: resp.StatusCode, header: resp.Header}
	if method != http.MethodConnect || got.status != http.StatusOK {
		var body []byte
		body, got.err = io.ReadAll(resp.Body)
		got.body = string(body)
	}
	return got
}

// ask sends a request and returns the answer.
func (c *client) ask(method, text string) reply {
	c.t.Helper()
	c.send(text)
	return c.read(method)
}

// to dials one address, whatever is asked for, and remembers what was.
func to(address string, asked *[]string) dialFunc {
	var mu sync.Mutex
	return func(ctx context.Context, network, wanted string) (net.Conn, error) {
		mu.Lock()
		*asked = append(*asked, network+" "+wanted)
		mu.Unlock()
		return (&net.Dialer{}).DialContext(ctx, "tcp", address)
	}
}

// target accepts one connection after the other.
func target(t *testing.T) (address string, conns <-chan *net.TCPConn) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepted := make(chan *net.TCPConn, 8)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
			accepted <- conn.(*net.TCPConn)
		}
	})
	t.Cleanup(func() {
		_ = ln.Close()
		wg.Wait()
		close(accepted)
		for c := range accepted {
			_ = c.Close()
		}
	})
	return ln.Addr().String(), accepted
}

func TestARequestReachesTheTargetAsItWasMeant(t *testing.T) {
	type seen struct {
		line, host string
		header     http.Header
		body       string
	}
	requests := make(chan seen, 1)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		requests <- seen{r.Method + " " + r.RequestURI, r.Host, r.Header, string(body)}
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		w.Header().Set("Proxy-Authenticate", "Basic")
		w.Header().Set("X-End", "1")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "short and stout")
	}))
	defer origin.Close()
	var asked []string
	c := connect(t, serve(t, &httpproxy.Server{Dial: to(origin.Listener.Addr().String(), &asked)}))
	got := c.ask("POST", "POST http://User:pw@Origin.TEST/a%2Fb|c;d/../e?x=1;y&z HTTP/1.1\r\nHost: other.test\r\n"+
		"Connection: keep-alive, X-Mine\r\nX-Mine: secret\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\nProxy-Authorization: Basic c2VjcmV0\r\n"+
		"TE: gzip\r\nX-Forwarded-For: 192.0.2.9\r\nAccept: a\r\nAccept: b\r\nContent-Length: 5\r\n\r\nhello")
	if got.status != http.StatusTeapot || got.body != "short and stout" || got.header.Get("X-End") != "1" {
		t.Errorf("answered %+v", got)
	}
	for _, name := range []string{"X-Hop", "Proxy-Authenticate", "Via"} {
		if got.header.Get(name) != "" {
			t.Errorf("the answer's %s reached the client", name)
		}
	}
	saw := <-requests
	if saw.line != "POST /a%2Fb|c;d/../e?x=1;y&z" || saw.host != "Origin.TEST" || saw.body != "hello" {
		t.Errorf("the target saw %+v", saw)
	}
	if !slices.Equal(asked, []string{"tcp Origin.TEST:80"}) && !slices.Equal(asked, []string{"tcp origin.test:80"}) {
		t.Errorf("dialled %q", asked)
	}
	want := http.Header{"X-Forwarded-For": {"192.0.2.9"}, "Accept": {"a", "b"}, "Content-Length": {"5"}}
	for name, values := range saw.header {
		if !slices.Equal(want[name], values) {
			t.Errorf("the target saw %s: %q", name, values)
		}
		delete(want, name)
	}
	if len(want) > 0 {
		t.Errorf("the target did not see %v", want)
	}
	if got := c.ask("GET", "GET http://origin.test HTTP/1.1\r\n\r\n"); got.status != http.StatusBadRequest {
		t.Errorf("a request without Host is answered %+v", got)
	}
}

func TestConnectionsToATargetAreUsedAgain(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.RequestURI) }))
	defer origin.Close()
	var asked []string
	c := connect(t, serve(t, &httpproxy.Server{Dial: to(origin.Listener.Addr().String(), &asked)}))
	for _, path := range []string{"/", "/one", "/two?", "//three"} {
		if got := c.ask("GET", "GET http://o.test:8080"+path+" HTTP/1.1\r\nHost: o.test\r\n\r\n"); got.status != http.StatusOK || got.body != path {
			t.Errorf("%s: %+v", path, got)
		}
	}
	if !slices.Equal(asked, []string{"tcp o.test:8080"}) {
		t.Errorf("dialled %q", asked)
	}
}

func TestConnectCarriesBytesBothWaysAndTheirEnds(t *testing.T) {
	address, conns := target(t)
	var asked []string
	proxy := serve(t, &httpproxy.Server{Dial: to(address, &asked)})
	t.Run("what came behind the request included", func(t *testing.T) {
		c := connect(t, proxy)
		if got := c.ask("CONNECT", "CONNECT [2001:db8::1]:443 HTTP/1.1\r\nHost: x\r\n\r\nearly"); got.status != http.StatusOK || len(got.header) > 0 {
			t.Fatalf("answered %+v", got)
		}
		far := <-conns
		c.send(" and late")
		_ = c.CloseWrite()
		if got, err := io.ReadAll(far); err != nil || string(got) != "early and late" {
			t.Fatalf("the target read %q, %v", got, err)
		}
		_, _ = io.WriteString(far, "answer")
		_ = far.Close()
		if got, err := io.ReadAll(c.r); err != nil || string(got) != "answer" {
			t.Errorf("the client read %q, %v", got, err)
		}
	})
	t.Run("a break of the target", func(t *testing.T) {
		c := connect(t, proxy)
		c.ask("CONNECT", "CONNECT a.test:22 HTTP/1.0\r\n\r\n")
		far := <-conns
		_ = far.SetLinger(0)
		_ = far.Close()
		if _, err := io.ReadAll(c.r); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client read %v, want a reset", err)
		}
	})
	t.Run("a break of the client", func(t *testing.T) {
		c := connect(t, proxy)
		c.ask("CONNECT", "CONNECT a.test:22 HTTP/1.1\r\nHost: a\r\n\r\n")
		far := <-conns
		_ = c.SetLinger(0)
		_ = c.Close()
		if _, err := io.ReadAll(far); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the target read %v, want a reset", err)
		}
	})
	if !slices.Equal(asked, []string{"tcp [2001:db8::1]:443", "tcp a.test:22", "tcp a.test:22"}) {
		t.Errorf("dialled %q", asked)
	}
}

func TestWhatIsNotServedIsToldSoAndDialsNothing(t *testing.T) {
	proxy := serve(t, &httpproxy.Server{Dial: func(context.Context, string, string) (net.Conn, error) {
		t.Error("dialled")
		return nil, io.EOF
	}})
	for name, tc := range map[string]struct {
		request string
		status  int
	}{
		"a request to the proxy itself": {"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400},
		"the options of the proxy":      {"OPTIONS * HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 400},
		"https without CONNECT":         {"GET https://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400},
		"ftp":                           {"GET ftp://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400},
		"a URL without a host":          {"GET http:///x HTTP/1.1\r\nHost: a.test\r\n\r\n", 400},
		"a URL with port 0":             {"GET http://a.test:0/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 400},
		"CONNECT without a port":        {"CONNECT a.test HTTP/1.1\r\nHost: a.test\r\n\r\n", 400},
		"CONNECT without a host":        {"CONNECT :443 HTTP/1.1\r\nHost: a.test\r\n\r\n", 400},
		"CONNECT to a path":             {"CONNECT /a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", 400},
		"CONNECT to a URL":              {"CONNECT http://a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", 400},
		"CONNECT as somebody":           {"CONNECT me@a.test:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", 400},
		"CONNECT to a port too high":    {"CONNECT a.test:65536 HTTP/1.1\r\nHost: a.test\r\n\r\n", 400},
		"CONNECT to a zone":             {"CONNECT [fe80::1%25eth0]:443 HTTP/1.1\r\nHost: a.test\r\n\r\n", 400},
		"CONNECT with a body":           {"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\nhello", 400},
		"CONNECT with chunks":           {"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400},
		"two lengths":                   {"POST http://a.test/ HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello", 400},
		"no HTTP":                       {"\x05\x01\x00\r\n\r\n", 400},
		"a header without an end":       {"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\nX: " + strings.Repeat("x", 80<<10), 431},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, proxy)
			go func() { _, _ = io.WriteString(c, tc.request) }() // it may be refused before its end
			if got := c.read("GET"); got.status != tc.status {
				t.Errorf("answered %+v, want %d", got, tc.status)
			}
		})
	}
}

func TestErrorsOfTheTunnelBecomeStatuses(t *testing.T) {
	for name, tc := range map[string]struct {
		err    error
		status int
		want   string
	}{
		"a closed port":        {&httvps.OpenError{Code: "conn_refused"}, 502, httvps.Explain("conn_refused")},
		"no such name":         {&httvps.OpenError{Code: "dns_fail"}, 502, httvps.Explain("dns_fail")},
		"no answer":            {&httvps.OpenError{Code: "conn_timeout"}, 504, httvps.Explain("conn_timeout")},
		"the operator's rules": {&httvps.OpenError{Code: "policy_denied"}, 403, httvps.Explain("policy_denied")},
		"too many streams":     {&httvps.OpenError{Code: "limit"}, 503, httvps.Explain("limit")},
		"a code of tomorrow":   {&httvps.OpenError{Code: "some_new_code"}, 502, "does not know"},
		"no session":           {fmt.Errorf("no session: %w", context.DeadlineExceeded), 504, "tunnel is not up"},
		"the end of it all":    {net.ErrClosed, 503, "has ended"},
		"anything else":        {io.ErrUnexpectedEOF, 502, "could not be had"},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, serve(t, &httpproxy.Server{Dial: func(context.Context, string, string) (net.Conn, error) {
				return nil, fmt.Errorf("open a.test:443: %w", tc.err)
			}}))
			for method, request := range map[string]string{
				"CONNECT": "CONNECT a.test:443 HTTP/1.1\r\nHost: a\r\n\r\n",
				"GET":     "GET http://a.test/ HTTP/1.1\r\nHost: a\r\n\r\n",
			} {
				if got := c.ask(method, request); got.status != tc.status || !strings.Contains(got.body, tc.want) || strings.Contains(got.body, "a.test") {
					t.Errorf("%s: %+v; want %d, %q", method, got, tc.status, tc.want)
				}
			}
		})
	}
}

func TestATargetThatBreaksOffIsNotAProperEnd(t *testing.T) {
	address, conns := target(t)
	c := connect(t, serve(t, &httpproxy.Server{Dial: to(address, new([]string))}))
	c.send("GET http://a.test/ HTTP/1.1\r\nHost: a\r\n\r\n")
	far := <-conns
	_, _ = http.ReadRequest(bufio.NewReader(far))
	_, _ = io.WriteString(far, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
	_ = far.SetLinger(0)
	_ = far.Close()
	if _, err := c.r.Peek(1); err != nil {
		return // it broke before the header was passed on
	}
	if got := c.read("GET"); got.err == nil {
		t.Errorf("the client takes %q for all of it", got.body)
	}
}

func TestWhoHasToShowAPasswordIsServedOnlyWithTheRightOne(t *testing.T) {
	basic := func(text string) string {
		return "Proxy-Authorization: Basic " + base64.StdEncoding.EncodeToString([]byte(text)) + "\r\n"
	}
	proxy := serve(t, &httpproxy.Server{Login: credential.New("anna", "se:cret"), Dial: func(context.Context, string, string) (net.Conn, error) {
		return nil, &httvps.OpenError{Code: "conn_refused"}
	}})
	for name, tc := range map[string]struct {
		header string
		status int
	}{
		"the right one":       {basic("anna:se:cret"), 502},
		"in another case":     {strings.Replace(basic("anna:se:cret"), "Basic", "bAsIC", 1), 502},
		"a wrong password":    {basic("anna:secret"), 407},
		"a wrong name":        {basic("Anna:se:cret"), 407},
		"no password":         {basic("anna"), 407},
		"nothing":             {"", 407},
		"another scheme":      {"Proxy-Authorization: Bearer x\r\n", 407},
		"no base64":           {"Proxy-Authorization: Basic %%%\r\n", 407},
		"a right and a wrong": {basic("anna:se:cret") + basic("anna:x"), 407},
		"as to a target":      {strings.TrimPrefix(basic("anna:se:cret"), "Proxy-"), 407},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, proxy)
			for method, line := range map[string]string{"CONNECT": "CONNECT a.test:443", "GET": "GET http://a.test/"} {
				got := c.ask(method, line+" HTTP/1.1\r\nHost: a\r\n"+tc.header+"\r\n")
				if got.status != tc.status || strings.Contains(got.body, "cret") {
					t.Errorf("%s: %+v", method, got)
				}
				if asked := got.header.Get("Proxy-Authenticate"); (asked != "") != (tc.status == 407) {
					t.Errorf("%s: Proxy-Authenticate: %q", method, asked)
				}
			}
		})
	}
}

func TestAnUpgradeGoesThrough(t *testing.T) {
	address, conns := target(t)
	c := connect(t, serve(t, &httpproxy.Server{Dial: to(address, new([]string))}))
	c.send("GET http://a.test/ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	far := <-conns
	req, err := http.ReadRequest(bufio.NewReader(far))
	if err != nil || req.Header.Get("Upgrade") != "websocket" {
		t.Fatalf("%v, %v", req, err)
	}
	_, _ = io.WriteString(far, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello")
	var answer strings.Builder
	for !strings.HasSuffix(answer.String(), "hello") {
		b, err := c.r.ReadByte()
		if err != nil {
			t.Fatalf("%v behind %q", err, &answer)
		}
		answer.WriteByte(b)
	}
	if !strings.HasPrefix(answer.String(), "HTTP/1.1 101 ") {
		t.Errorf("answered %q", &answer)
	}
	_ = far.Close()
}

func TestTheEndOfTheServerEndsWhatIsUnderWay(t *testing.T) {
	address, conns := target(t)
	ln, err := relay.Listen(t.Context(), ":0", false)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	waiting := make(chan struct{}, 1)
	done.Go(func() {
		_ = (&httpproxy.Server{Dial: func(ctx context.Context, _, wanted string) (net.Conn, error) {
			if strings.HasPrefix(wanted, "silent") {
				waiting <- struct{}{}
				<-ctx.Done()
				return nil, context.Cause(ctx)
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		}}).Serve(ctx, ln)
	})
	open := func(text string) *client {
		c := connect(t, ln.Addr().String())
		c.send(text)
		return c
	}
	clients := []*client{
		open("CONNECT a.test:1 HTTP/1.1\r\nHost: a\r\n\r\n"),
		open("GET http://a.test/ HTTP/1.1\r\nHost: a\r\n\r\n"),
		open("POST http://a.test/ HTTP/1.1\r\nHost: a\r\nContent-Length: 99\r\n\r\n"),
		open("GET http://a.te"),
		open(""),
	}
	for range 3 {
		<-conns
	}
	clients = append(clients, open("CONNECT silent:1 HTTP/1.1\r\nHost: a\r\n\r\n"))
	<-waiting
	clients = append(clients, open("GET http://silent/ HTTP/1.1\r\nHost: a\r\n\r\n"))
	<-waiting
	cancel()
	done.Wait()
	for i, c := range clients {
		_, _ = io.Copy(io.Discard, c.r)
		if _, err := c.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
			t.Errorf("connection %d goes on: %v", i, err)
		}
	}
}

func TestHostileClientsLeaveItHealthy(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "fine") }))
	defer origin.Close()
	count := 500
	if os.Getenv("HTTVPS_SOAK") == "1" {
		count = 10_000
	}
	proxy := serve(t, &httpproxy.Server{Dial: to(origin.Listener.Addr().String(), new([]string))})
	parts := []string{"", "G", "GET http://a.test/ HTTP/1.1\r\nHost:", "CONNECT a.test:443 HTTP/1.1\r\n", "\x00\xff\x00\r\n\r\n", "POST http://a.test/ HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n"}
	var hostile []net.Conn
	defer func() {
		for _, c := range hostile {
			_ = c.Close()
		}
	}()
	for i := range count {
		c, err := net.DialTimeout("tcp", proxy, 20*time.Second)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		_, _ = io.WriteString(c, parts[i%len(parts)])
		hostile = append(hostile, c)
		if len(hostile) > 1500 { // as many as may be waiting beside others
			_ = hostile[0].Close()
			hostile = hostile[1:]
		}
	}
	web := &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		Proxy: http.ProxyURL(&url.URL{Scheme: "http", Host: proxy}), DisableKeepAlives: true,
	}}
	resp, err := web.Get("http://a.test/")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if body, err := io.ReadAll(resp.Body); err != nil || string(body) != "fine" {
		t.Errorf("%q, %v", body, err)
	}
}
