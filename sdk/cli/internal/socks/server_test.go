package socks_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/httvps/httvps/sdk/cli/internal/credential"
	"github.com/httvps/httvps/sdk/cli/internal/relay"
	"github.com/httvps/httvps/sdk/cli/internal/socks"
	"github.com/httvps/httvps/sdk/go/httvps"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type dialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// serve runs a server on loopback until the test ends.
func serve(t *testing.T, dial dialFunc) (address string) {
	t.Helper()
	return serveWith(t, &socks.Server{Dial: dial}, ":0")
}

// serveWith runs server at an address of this machine until the test ends.
func serveWith(t *testing.T, server *socks.Server, at string) (address string) {
	t.Helper()
	ln, err := relay.Listen(t.Context(), at, false)
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

// client is the other end of the protocol, byte by byte.
type client struct {
	*net.TCPConn
	t *testing.T
}

func connect(t *testing.T, address string) *client {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // a hung test says where
	return &client{conn.(*net.TCPConn), t}
}

func (c *client) send(parts ...any) {
	c.t.Helper()
	if _, err := c.Write(join(parts...)); err != nil {
		c.t.Fatal(err)
	}
}

func (c *client) want(want ...any) {
	c.t.Helper()
	expected := join(want...)
	got := make([]byte, len(expected))
	if n, err := io.ReadFull(c, got); err != nil || !bytes.Equal(got, expected) {
		c.t.Fatalf("read % x, %v, want % x", got[:n], err, expected)
	}
}

func (c *client) wantEOF() {
	c.t.Helper()
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		c.t.Fatalf("read %q, %v, want the end", rest, err)
	}
}

// open goes through the handshake to a name at port 80.
func (c *client) open(name string) {
	c.t.Helper()
	c.send(5, 1, 0)
	c.want(5, 0)
	c.send(5, 1, 0, 3, len(name), name, 0, 80)
}

func (c *client) wantReply(code int) {
	c.t.Helper()
	c.want(5, code, 0, 1, 0, 0, 0, 0, 0, 0)
}

func join(parts ...any) (out []byte) {
	for _, p := range parts {
		switch p := p.(type) {
		case int:
			out = append(out, byte(p))
		case string:
			out = append(out, p...)
		}
	}
	return out
}

// pair returns the two ends of a TCP connection.
func pair(t *testing.T) (ours, theirs *net.TCPConn) {
	t.Helper()
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	a, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	b, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close() })
	_ = b.SetDeadline(time.Now().Add(20 * time.Second))
	return a.(*net.TCPConn), b.(*net.TCPConn)
}

func to(conn net.Conn) dialFunc {
	return func(context.Context, string, string) (net.Conn, error) { return conn, nil }
}

func TestAddressesReachTheDialFunctionAsTheClientWroteThem(t *testing.T) {
	for name, tc := range map[string]struct {
		request []byte
		want    string
	}{
		"IPv4": {join(5, 1, 0, 1, 192, 0, 2, 7, 0, 80), "192.0.2.7:80"},
		"IPv6": {join(5, 1, 0, 4, 0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 0xbb), "[2001:db8::1]:443"},
		"name": {join(5, 1, 0, 3, 11, "Example.COM", 0x1f, 0x90), "Example.COM:8080"},
	} {
		t.Run(name, func(t *testing.T) {
			asked := make(chan string, 1)
			c := connect(t, serve(t, func(_ context.Context, network, address string) (net.Conn, error) {
				asked <- network + " " + address
				return nil, &httvps.OpenError{Code: "conn_refused"}
			}))
			c.send(5, 2, 1, 0)
			c.want(5, 0)
			c.send(string(tc.request))
			c.wantReply(5)
			c.wantEOF()
			if got := <-asked; got != "tcp "+tc.want {
				t.Errorf("dialled %q, want %q", got, tc.want)
			}
		})
	}
}

func TestWhatIsNotServedGetsTheReplyThatSaysSo(t *testing.T) {
	never := func(context.Context, string, string) (net.Conn, error) {
		t.Error("dialled")
		return nil, io.EOF
	}
	for name, tc := range map[string]struct {
		greeting, request []byte
		reply             int
	}{
		"BIND":                     {join(5, 1, 0), join(5, 2, 0, 1, 1, 2, 3, 4, 0, 80), 7},
		"UDP ASSOCIATE":            {join(5, 1, 0), join(5, 3, 0, 1, 0, 0, 0, 0, 0, 0), 7},
		"an unknown command":       {join(5, 1, 0), join(5, 9, 0, 3, 1, "a", 0, 80), 7},
		"an unknown address type":  {join(5, 1, 0), join(5, 1, 0, 2), 8},
		"an empty name":            {join(5, 1, 0), join(5, 1, 0, 3, 0, 0, 80), 8},
		"authentication only":      {greeting: join(5, 2, 1, 2), reply: -2},
		"no method":                {greeting: join(5, 0), reply: -2},
		"SOCKS4":                   {greeting: join(4, 1), reply: -1},
		"HTTP":                     {greeting: join("GE"), reply: -1},
		"another version later on": {greeting: join(5, 1, 0), request: join(4, 1, 0, 1), reply: -1},
	} {
		t.Run(name, func(t *testing.T) {
			c := connect(t, serve(t, never))
			c.send(string(tc.greeting))
			switch {
			case tc.reply == -2:
				c.want(5, 0xff)
			case tc.request != nil:
				c.want(5, 0)
				c.send(string(tc.request))
			}
			if tc.reply >= 0 {
				c.wantReply(tc.reply)
			}
			c.wantEOF()
		})
	}
}

func TestWhoHasToShowAPasswordIsServedOnlyWithTheRightOne(t *testing.T) {
	login := func(user, password string) []byte {
		return join(1, len(user), user, len(password), password)
	}
	for name, tc := range map[string]struct {
		greeting, login []byte
		served          bool
	}{
		"the right one":         {join(5, 2, 0, 2), login("anna", "secret"), true},
		"a wrong password":      {join(5, 1, 2), login("anna", "Secret"), false},
		"a wrong name":          {join(5, 1, 2), login("anne", "secret"), false},
		"nothing":               {join(5, 1, 2), login("", ""), false},
		"no offer of a login":   {join(5, 1, 0), nil, false},
		"another login version": {join(5, 1, 2), join(5), false},
	} {
		t.Run(name, func(t *testing.T) {
			dialled := false
			c := connect(t, serveWith(t, &socks.Server{Login: credential.New("anna", "secret"), Dial: func(context.Context, string, string) (net.Conn, error) {
				dialled = true
				return nil, &httvps.OpenError{Code: "conn_refused"}
			}}, ":0"))
			c.send(string(tc.greeting))
			switch {
			case tc.login == nil:
				c.want(5, 0xff)
			case len(tc.login) == 1:
				c.want(5, 2)
				c.send(string(tc.login))
			default:
				c.want(5, 2)
				c.send(string(tc.login))
				if !tc.served {
					c.want(1, 1)
				}
			}
			if tc.served {
				c.want(1, 0)
				c.send(5, 1, 0, 3, 1, "a", 0, 80)
				c.wantReply(5)
			}
			c.wantEOF()
			if dialled != tc.served {
				t.Errorf("dialled: %v", dialled)
			}
		})
	}
}

func TestCodesOfTheTunnelBecomeReplies(t *testing.T) {
	for code, want := range map[string]int{
		"policy_denied": 2, "refused": 2,
		"net_unreach": 3, "egress_lost": 3, "no_outline_nodes_available": 3,
		"host_unreach": 4, "dns_fail": 4,
		"conn_refused": 5, "target_reset": 5,
		"conn_timeout": 6,
		"unsupported":  7,
		"internal":     1, "limit": 1, "some_new_code": 1,
	} {
		t.Run(code, func(t *testing.T) {
			c := connect(t, serve(t, func(context.Context, string, string) (net.Conn, error) {
				return nil, fmt.Errorf("wrapped: %w", &httvps.OpenError{Code: code})
			}))
			c.open("a")
			c.wantReply(want)
			c.wantEOF()
		})
	}
	t.Run("an error without a code", func(t *testing.T) {
		c := connect(t, serve(t, func(context.Context, string, string) (net.Conn, error) { return nil, io.EOF }))
		c.open("a")
		c.wantReply(1)
	})
	t.Run("no time left", func(t *testing.T) {
		c := connect(t, serve(t, func(context.Context, string, string) (net.Conn, error) {
			return nil, fmt.Errorf("wait for a session: %w", context.DeadlineExceeded)
		}))
		c.open("a")
		c.wantReply(6)
	})
}

func TestSuccessIsToldOnlyAfterTheTargetAccepted(t *testing.T) {
	dialling, accepted := make(chan struct{}), make(chan struct{})
	ours, _ := pair(t)
	c := connect(t, serve(t, func(context.Context, string, string) (net.Conn, error) {
		close(dialling)
		<-accepted
		return ours, nil
	}))
	c.open("a")
	<-dialling
	_ = c.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n > 0 || err == nil {
		t.Error("the client was answered before the target accepted")
	}
	_ = c.SetReadDeadline(time.Now().Add(20 * time.Second))
	close(accepted)
	c.wantReply(0)
}

func TestBytesBehindTheRequestReachTheTarget(t *testing.T) {
	ours, target := pair(t)
	c := connect(t, serve(t, to(ours)))
	c.send(5, 1, 0, 5, 1, 0, 3, 1, "a", 0, 80, "early")
	c.want(5, 0)
	c.wantReply(0)
	got := make([]byte, 5)
	if _, err := io.ReadFull(target, got); err != nil || string(got) != "early" {
		t.Errorf("the target read %q, %v", got, err)
	}
}

func TestEachDirectionEndsByItself(t *testing.T) {
	t.Run("the client's first", func(t *testing.T) {
		ours, target := pair(t)
		c := connect(t, serve(t, to(ours)))
		c.open("a")
		c.wantReply(0)
		c.send("question")
		_ = c.CloseWrite()
		if got, err := io.ReadAll(target); err != nil || string(got) != "question" {
			t.Fatalf("the target read %q, %v", got, err)
		}
		_, _ = io.WriteString(target, "answer")
		_ = target.Close()
		c.want("answer")
		c.wantEOF()
	})
	t.Run("the target's first", func(t *testing.T) {
		ours, target := pair(t)
		c := connect(t, serve(t, to(ours)))
		c.open("a")
		c.wantReply(0)
		_, _ = io.WriteString(target, "banner")
		_ = target.CloseWrite()
		c.want("banner")
		c.wantEOF()
		c.send("still here")
		_ = c.Close()
		if got, err := io.ReadAll(target); err != nil || string(got) != "still here" {
			t.Fatalf("the target read %q, %v", got, err)
		}
	})
}

func TestABreakIsNotPassedOnAsAProperEnd(t *testing.T) {
	t.Run("of the target", func(t *testing.T) {
		ours, target := pair(t)
		c := connect(t, serve(t, to(ours)))
		c.open("a")
		c.wantReply(0)
		_ = target.SetLinger(0)
		_ = target.Close()
		if _, err := io.ReadAll(c); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the client read %v, want a reset", err)
		}
	})
	t.Run("of the client, which shows first when it is answered", func(t *testing.T) {
		ours, target := pair(t)
		c := connect(t, serve(t, to(ours)))
		c.open("a")
		c.wantReply(0)
		_ = c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		for {
			if _, err := c.Write(make([]byte, 64<<10)); err != nil {
				break // everything between it and the target is full
			}
		}
		_ = c.SetLinger(0)
		_ = c.Close()
		if _, err := target.Write([]byte("answer")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadAll(target); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the target read %v, want a reset", err)
		}
	})
	t.Run("of the client", func(t *testing.T) {
		ours, target := pair(t)
		c := connect(t, serve(t, to(ours)))
		c.open("a")
		c.wantReply(0)
		_ = c.SetLinger(0)
		_ = c.Close()
		if _, err := io.ReadAll(target); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the target read %v, want a reset", err)
		}
	})
}

func TestServeReturnsWithEveryConnectionClosed(t *testing.T) {
	ln, err := relay.Listen(t.Context(), "127.0.0.1:0", false)
	if err != nil {
		t.Fatal(err)
	}
	ours, target := pair(t)
	ctx, cancel := context.WithCancel(t.Context())
	var handling sync.WaitGroup
	handling.Go(func() { _ = (&socks.Server{Dial: to(ours)}).Serve(ctx, ln) })
	c := connect(t, ln.Addr().String())
	c.open("a")
	c.wantReply(0)
	idle := connect(t, ln.Addr().String())
	idle.send(5)

	cancel()
	handling.Wait()

	if _, err := target.Read(make([]byte, 1)); err == nil {
		t.Error("the target's connection is still open")
	}
	if _, err := idle.Read(make([]byte, 1)); err == nil {
		t.Error("the connection of a client that had said nothing is still open")
	}
	if _, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", ln.Addr().String()); err == nil {
		t.Error("the listener is still open")
	}
}

func TestCurlFetchesThroughTheServer(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("no curl here")
	}
	body := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			_, _ = io.Copy(w, r.Body)
			return
		}
		_, _ = io.WriteString(w, body)
	}))
	defer origin.Close()
	address := serve(t, func(ctx context.Context, network, address string) (net.Conn, error) {
		if address != "origin.test:80" {
			return nil, &httvps.OpenError{Code: "dns_fail", Target: address}
		}
		return (&net.Dialer{}).DialContext(ctx, network, origin.Listener.Addr().String())
	})
	run := func(stdin string, args ...string) (string, error) {
		cmd := exec.CommandContext(t.Context(), curl,
			append([]string{"-sS", "--max-time", "20", "--noproxy", "", "-x", "socks5h://" + address}, args...)...)
		cmd.Stdin = strings.NewReader(stdin)
		out, err := cmd.Output()
		return string(out), err
	}
	if out, err := run("", "http://origin.test/"); err != nil || out != body {
		t.Errorf("curl got %d bytes, %v", len(out), err)
	}
	if out, err := run(body, "--data-binary", "@-", "http://origin.test/"); err != nil || out != body {
		t.Errorf("curl got %d of its bytes back, %v", len(out), err)
	}
	if _, err := run("", "http://elsewhere.test/"); err == nil {
		t.Error("curl reached a name that nobody serves")
	}
}

// memory is a listener whose connections are made by hand.
type memory struct {
	conns    chan net.Conn
	closed   chan struct{}
	once     sync.Once
	attempts atomic.Int64
	broken   bool
}

func newMemory() *memory {
	return &memory{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (m *memory) Accept() (net.Conn, error) {
	m.attempts.Add(1)
	if m.broken {
		select {
		case <-m.closed:
			return nil, net.ErrClosed
		default:
			return nil, syscall.EMFILE
		}
	}
	select {
	case c := <-m.conns:
		return c, nil
	case <-m.closed:
		return nil, net.ErrClosed
	}
}

func (m *memory) Close() error   { m.once.Do(func() { close(m.closed) }); return nil }
func (m *memory) Addr() net.Addr { return &net.TCPAddr{} }

func TestASilentClientIsDroppedAfterTenSeconds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newMemory()
		var serving sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		serving.Go(func() { _ = (&socks.Server{}).Serve(ctx, ln) })
		ours, theirs := net.Pipe()
		ln.conns <- theirs
		start := time.Now()
		_, _ = ours.Write([]byte{5})
		if _, err := ours.Read(make([]byte, 1)); err == nil {
			t.Error("the client was answered")
		}
		if took := time.Since(start); took != 10*time.Second {
			t.Errorf("dropped after %v, want 10s", took)
		}
		cancel()
		serving.Wait()
	})
}

func TestAClientIsAnsweredWhenNoSessionComesForAMinute(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newMemory()
		var serving sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		serving.Go(func() {
			_ = (&socks.Server{Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			}}).Serve(ctx, ln)
		})
		ours, theirs := net.Pipe()
		ln.conns <- theirs
		start := time.Now()
		_, _ = ours.Write([]byte{5, 1, 0})
		_, _ = io.ReadFull(ours, make([]byte, 2))
		_, _ = ours.Write([]byte{5, 1, 0, 1, 192, 0, 2, 1, 0, 80})
		reply := make([]byte, 10)
		if _, err := io.ReadFull(ours, reply); err != nil || reply[1] != 6 {
			t.Errorf("answered % x, %v", reply, err)
		}
		if took := time.Since(start); took != time.Minute {
			t.Errorf("answered after %v, want 1m", took)
		}
		cancel()
		serving.Wait()
	})
}

func TestServeWaitsForItsHandlers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newMemory()
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		ours, theirs := net.Pipe()
		go func() {
			ln.conns <- theirs
			_, _ = ours.Write([]byte{5, 1, 0})
			_, _ = io.ReadFull(ours, make([]byte, 2))
			_, _ = ours.Write([]byte{5, 1, 0, 1, 192, 0, 2, 1, 0, 80})
		}()
		start := time.Now()
		_ = (&socks.Server{Dial: func(context.Context, string, string) (net.Conn, error) {
			<-time.After(time.Hour) // whatever its context says
			return nil, io.EOF
		}}).Serve(ctx, ln)
		if took := time.Since(start); took != time.Hour {
			t.Errorf("Serve returned after %v, its handler after 1h", took)
		}
	})
}

func TestClientsBeyondTheBoundWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newMemory()
		var serving sync.WaitGroup
		ctx, cancel := context.WithCancel(t.Context())
		serving.Go(func() { _ = (&socks.Server{}).Serve(ctx, ln) })
		var first net.Conn
		for i := range 4096 {
			ours, theirs := net.Pipe()
			defer func() { _ = ours.Close() }()
			ln.conns <- theirs
			if i == 0 {
				first = ours
			}
		}
		_, theirs := net.Pipe()
		synctest.Wait()
		select {
		case ln.conns <- theirs:
			t.Error("client 4,097 was accepted")
		default:
		}
		_ = first.Close()
		synctest.Wait()
		select {
		case ln.conns <- theirs:
		default:
			t.Error("no client was accepted in the place of one that left")
		}
		cancel()
		serving.Wait()
	})
}

func TestAFailingListenerIsAskedEverMoreSlowly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ln := newMemory()
		ln.broken = true
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if err := (&socks.Server{}).Serve(ctx, ln); err != nil {
			t.Errorf("Serve: %v", err)
		}
		// 5, 10, 20, …, 640 ms are 1.3 s in 8 steps, then one each second.
		if n := ln.attempts.Load(); n < 10 || n > 18 {
			t.Errorf("accept was tried %d times in 10 s", n)
		}
	})
}

func TestHostileClientsLeaveItHealthy(t *testing.T) {
	count := 500
	if os.Getenv("HTTVPS_SOAK") == "1" {
		count = 10_000
	}
	address := serve(t, func(context.Context, string, string) (net.Conn, error) {
		return nil, &httvps.OpenError{Code: "conn_refused"}
	})
	parts := [][]byte{nil, {5}, {5, 255, 1}, {4, 1, 0}, {5, 1, 0}, {5, 1, 0, 5, 1, 0, 3, 200, 'a'}, []byte("GET / HTTP/1.1\r\n\r\n")}
	var hostile []net.Conn
	defer func() {
		for _, c := range hostile {
			_ = c.Close()
		}
	}()
	for i := range count {
		c, err := net.DialTimeout("tcp", address, 20*time.Second)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		_, _ = c.Write(parts[i%len(parts)])
		hostile = append(hostile, c)
		if len(hostile) > 3000 { // as many as may be waiting beside others
			_ = hostile[0].Close()
			hostile = hostile[1:]
		}
	}
	c := connect(t, address)
	c.open("a")
	c.wantReply(5)
}
