package carrier_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// serve runs handle on every carrier that reaches a TLS server, and returns
// its URL and a configuration that trusts it.
func serve(tb testing.TB, handle func(*carrier.Conn)) (url string, trust *tls.Config) {
	tb.Helper()
	var mu sync.Mutex
	var handlers []chan struct{}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/tunnel" || !carrier.IsUpgrade(r) {
			http.NotFound(w, r)
			return
		}
		conn, err := carrier.Upgrade(w, r)
		if err != nil {
			tb.Errorf("Upgrade: %v", err)
			return
		}
		done := make(chan struct{})
		defer close(done)
		mu.Lock()
		handlers = append(handlers, done)
		mu.Unlock()
		defer func() { _ = conn.Close() }()
		handle(conn)
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.TLS = &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2", "http/1.1"}}
	srv.Listener = carrier.Listener(srv.Listener)
	srv.StartTLS()
	tb.Cleanup(func() {
		srv.Close()
		mu.Lock()
		defer mu.Unlock()
		for _, done := range handlers {
			<-done
		}
	})
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	return "wss://" + srv.Listener.Addr().String() + "/tunnel", &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}
}

func dial(t *testing.T, url string, trust *tls.Config) *carrier.Conn {
	t.Helper()
	conn, err := carrier.Dial(t.Context(), url, carrier.DialOptions{TLS: trust})
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	return conn
}

func echo(conn *carrier.Conn) {
	var buf []byte
	for {
		var err error
		if buf, err = conn.ReadMessage(buf); err != nil {
			return
		}
		if conn.WriteMessage(buf) != nil {
			return
		}
	}
}

func TestMessagesOfEverySizeComeBack(t *testing.T) {
	url, trust := serve(t, echo)
	conn := dial(t, url, trust)
	var buf []byte
	for _, size := range []int{1, 2, 125, 126, 127, 4096, 65535, wire.MaxMessage} {
		want := bytes.Repeat([]byte{byte(size), 7, 9}, size/3+1)[:size]
		reserved := append(make([]byte, mux.Headroom), want...)
		err := errors.Join(conn.WriteReserved(reserved), conn.Flush())
		if err != nil {
			t.Fatal(err)
		}
		if buf, err = conn.ReadMessage(buf); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf, want) {
			t.Errorf("message of %d bytes came back changed", size)
		}
	}
}

func TestBothEndsComputeTheSameBinding(t *testing.T) {
	seen := make(chan []byte, 2)
	url, trust := serve(t, func(c *carrier.Conn) {
		b, err := c.ExportKeyingMaterial()
		if err != nil {
			t.Error(err)
		}
		seen <- b
		echo(c)
	})
	var ours [2][]byte
	for i := range ours {
		conn := dial(t, url, trust)
		var err error
		if ours[i], err = conn.ExportKeyingMaterial(); err != nil {
			t.Fatal(err)
		}
		if theirs := <-seen; len(theirs) != wire.BindingSize || !bytes.Equal(theirs, ours[i]) {
			t.Errorf("binding %x at one end, %x at the other", ours[i], theirs)
		}
	}
	if bytes.Equal(ours[0], ours[1]) {
		t.Error("two connections have the same binding")
	}
}

func TestDialRefuses(t *testing.T) {
	url, trust := serve(t, echo)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()

	t.Run("what is not a tunnel", func(t *testing.T) {
		_, err := carrier.Dial(ctx, strings.Replace(url, "/tunnel", "/elsewhere", 1), carrier.DialOptions{TLS: trust})
		var refused *carrier.UpgradeError
		if !errors.As(err, &refused) || refused.Status != http.StatusNotFound {
			t.Errorf("Dial = %v", err)
		}
	})
	t.Run("a certificate that it does not trust", func(t *testing.T) {
		_, err := carrier.Dial(ctx, url, carrier.DialOptions{})
		if _, ok := errors.AsType[*tls.CertificateVerificationError](err); !ok {
			t.Errorf("Dial = %v", err)
		}
	})
	for name, bad := range map[string]string{
		"http": "https://127.0.0.1/", "no host": "wss:///x", "a query": "wss://127.0.0.1/?x=1", "credentials": "wss://a:b@127.0.0.1/",
	} {
		t.Run("a URL with "+name, func(t *testing.T) {
			if _, err := carrier.Dial(ctx, bad, carrier.DialOptions{}); err == nil || strings.Contains(err.Error(), "a:b") {
				t.Errorf("Dial = %v", err)
			}
		})
	}
}

func TestAnswerWithoutEndIsGivenUp(t *testing.T) {
	ended := make(chan struct{})
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		defer close(ended)
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close() }()
		_, err = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nX: ")
		for sent := 0; err == nil; sent += 4096 {
			if sent > 64<<20 {
				t.Error("64 MiB of header were read")
				return
			}
			_, err = conn.Write(make([]byte, 4096))
		}
	}))
	srv.StartTLS()
	defer srv.Close()
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	_, err := carrier.Dial(ctx, "wss://"+srv.Listener.Addr().String()+"/", carrier.DialOptions{TLS: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS13}})
	if _, ok := errors.AsType[*carrier.UpgradeError](err); !ok {
		t.Errorf("Dial = %v", err)
	}
	<-ended
}

func TestDialEndsWithItsContext(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }() // accepts nothing: the kernel does, and no byte follows
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := carrier.Dial(ctx, "wss://"+l.Addr().String()+"/", carrier.DialOptions{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Dial = %v", err)
	}
}

func TestIsUpgradeAsksForEveryPoint(t *testing.T) {
	good := func() *http.Request {
		r := httptest.NewRequest(http.MethodGet, "https://gw.example/tunnel", nil)
		r.Header.Set("Upgrade", "websocket")
		r.Header.Set("Connection", "keep-alive, Upgrade")
		r.Header.Set("Sec-Websocket-Version", "13")
		r.Header.Set("Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
		r.Header.Set("Sec-Websocket-Protocol", "other, "+wire.SubProtocol)
		return r
	}
	if !carrier.IsUpgrade(good()) {
		t.Fatal("a good request is no upgrade")
	}
	for name, spoil := range map[string]func(*http.Request){
		"another method":      func(r *http.Request) { r.Method = http.MethodPost },
		"HTTP/2":              func(r *http.Request) { r.ProtoMajor, r.ProtoMinor = 2, 0 },
		"HTTP/1.0":            func(r *http.Request) { r.ProtoMinor = 0 },
		"no TLS":              func(r *http.Request) { r.TLS = nil },
		"no Upgrade":          func(r *http.Request) { r.Header.Del("Upgrade") },
		"another Upgrade":     func(r *http.Request) { r.Header.Set("Upgrade", "h2c") },
		"no Connection":       func(r *http.Request) { r.Header.Del("Connection") },
		"another version":     func(r *http.Request) { r.Header.Set("Sec-Websocket-Version", "8") },
		"no key":              func(r *http.Request) { r.Header.Del("Sec-Websocket-Key") },
		"a key of 15 bytes":   func(r *http.Request) { r.Header.Set("Sec-Websocket-Key", "dGhlIHNhbXBsZSBub25j") },
		"no sub-protocol":     func(r *http.Request) { r.Header.Del("Sec-Websocket-Protocol") },
		"other sub-protocols": func(r *http.Request) { r.Header.Set("Sec-Websocket-Protocol", "httvps.v2, httvps") },
	} {
		t.Run(name, func(t *testing.T) {
			r := good()
			spoil(r)
			if carrier.IsUpgrade(r) {
				t.Error("taken for an upgrade")
			}
		})
	}
}

func TestOddOffersStillGetAProper101(t *testing.T) {
	url, trust := serve(t, echo)
	conn, err := tls.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(url, "wss://"), "/tunnel"), trust)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "GET /tunnel HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: ;;\"=,httvps.v1\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
	answer := make([]byte, 4096)
	n, _ := conn.Read(answer)
	got := string(answer[:n])
	if !strings.HasPrefix(got, "HTTP/1.1 101 ") || !strings.Contains(got, wire.SubProtocol) || strings.Contains(got, "xtensions") {
		t.Errorf("answer:\n%s", got)
	}
}

// masked builds a client's WebSocket frame with the first two bytes as given.
func masked(first byte, payload string) []byte {
	out := []byte{first, 0x80}
	switch n := len(payload); {
	case n < 126:
		out[1] |= byte(n)
	case n < 1<<16:
		out[1] |= 126
		out = binary.BigEndian.AppendUint16(out, uint16(n))
	default:
		out[1] |= 127
		out = binary.BigEndian.AppendUint64(out, uint64(n))
	}
	mask := [4]byte{1, 2, 3, 4}
	out = append(out, mask[:]...)
	body := []byte(payload)
	ws.Cipher(body, mask, 0)
	return append(out, body...)
}

func TestWhatTheGatewayReads(t *testing.T) {
	long := strings.Repeat("a", wire.MaxMessage)
	type result struct {
		msg string
		err error
	}
	for name, tc := range map[string]struct {
		send [][]byte
		want string
		code wire.Code // of the error, when there is one
		eof  bool
	}{
		"fragments with a ping between":     {send: [][]byte{masked(0x02, "one "), masked(0x89, "hi"), masked(0x00, "two "), masked(0x80, "three")}, want: "one two three"},
		"the longest message":               {send: [][]byte{masked(0x82, long)}, want: long},
		"a message that is too long":        {send: [][]byte{masked(0x82, long+"a")}, code: wire.CodeFrameSize},
		"fragments that are too long":       {send: [][]byte{masked(0x02, long), masked(0x80, "a")}, code: wire.CodeFrameSize},
		"text":                              {send: [][]byte{masked(0x81, "hello")}, code: wire.CodeProtocol},
		"a continuation of nothing":         {send: [][]byte{masked(0x80, "x")}, code: wire.CodeProtocol},
		"a new message among fragments":     {send: [][]byte{masked(0x02, "x"), masked(0x82, "y")}, code: wire.CodeProtocol},
		"a compressed message":              {send: [][]byte{masked(0xc2, "x")}, code: wire.CodeProtocol},
		"a frame without a mask":            {send: [][]byte{{0x82, 0x01, 'x'}}, code: wire.CodeProtocol},
		"a reserved kind":                   {send: [][]byte{masked(0x83, "x")}, code: wire.CodeProtocol},
		"a ping in fragments":               {send: [][]byte{masked(0x09, "x")}, code: wire.CodeProtocol},
		"a ping of 126 bytes":               {send: [][]byte{masked(0x89, long[:126])}, code: wire.CodeProtocol},
		"close":                             {send: [][]byte{masked(0x88, "\x03\xe8")}, eof: true},
		"a length with the top bit set":     {send: [][]byte{{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}}, code: wire.CodeProtocol},
		"a length of 2^62, never allocated": {send: [][]byte{{0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0}}, code: wire.CodeFrameSize},
	} {
		t.Run(name, func(t *testing.T) {
			results := make(chan result, 1)
			url, trust := serve(t, func(c *carrier.Conn) {
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				msg, err := c.ReadMessage(nil)
				results <- result{string(msg), err}
			})
			raw := rawClient(t, url, trust)
			for _, b := range tc.send {
				_, _ = raw.Write(b) // the other end may hang up in the middle of it
			}
			got := <-results
			var broken *wire.Error
			switch {
			case tc.eof:
				if !errors.Is(got.err, io.EOF) {
					t.Errorf("error = %v, want EOF", got.err)
				}
			case tc.code != 0:
				if !errors.As(got.err, &broken) || broken.Code != tc.code {
					t.Errorf("error = %v, want %v", got.err, tc.code)
				}
			case got.err != nil || got.msg != tc.want:
				t.Errorf("read %d bytes, %v, want %d", len(got.msg), got.err, len(tc.want))
			}
		})
	}
}

// rawClient upgrades by hand and returns the connection.
func rawClient(t *testing.T, url string, trust *tls.Config) *tls.Conn {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(url, "wss://"), "/tunnel"), trust)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_, _ = io.WriteString(conn, "GET /tunnel HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: httvps.v1\r\n\r\n")
	head := make([]byte, 0, 512)
	for !bytes.HasSuffix(head, []byte("\r\n\r\n")) {
		var b [1]byte
		if _, err := conn.Read(b[:]); err != nil {
			t.Fatal(err)
		}
		head = append(head, b[0])
	}
	return conn
}

func TestPingIsAnswered(t *testing.T) {
	url, trust := serve(t, echo)
	raw := rawClient(t, url, trust)
	_, _ = raw.Write(masked(0x89, "are you there"))
	answer := make([]byte, 2+len("are you there"))
	if _, err := io.ReadFull(raw, answer); err != nil {
		t.Fatal(err)
	}
	if answer[0] != 0x8a || string(answer[2:]) != "are you there" {
		t.Errorf("answer %q", answer)
	}
}

// A ping is a few bytes, and its answer a record and a system call.
func TestWebSocketFramesThatCarryNothingAreBounded(t *testing.T) {
	for name, frames := range map[string][2][]byte{
		"pings":           {nil, masked(0x89, "")},
		"pongs":           {nil, masked(0x8a, "")},
		"empty fragments": {masked(0x02, "x"), masked(0x00, "")},
	} {
		t.Run(name, func(t *testing.T) {
			ended := make(chan error, 1)
			url, trust := serve(t, func(c *carrier.Conn) {
				_, err := c.ReadMessage(nil)
				ended <- err
			})
			raw := rawClient(t, url, trust)
			var reading sync.WaitGroup
			reading.Go(func() { _, _ = io.Copy(io.Discard, raw) })
			defer reading.Wait()
			defer raw.Close()
			_, _ = raw.Write(frames[0])
			many := bytes.Repeat(frames[1], 1000)
			for range 5 {
				_, _ = raw.Write(many)
			}
			select {
			case err := <-ended:
				t.Fatalf("5,000 of them ended it: %v", err)
			case <-time.After(50 * time.Millisecond):
			}
			for range 200 { // more than what is gained meanwhile
				if _, err := raw.Write(many); err != nil {
					break
				}
			}
			_ = raw.CloseWrite()
			err := <-ended
			if broken, ok := errors.AsType[*wire.Error](err); !ok || broken.Code != wire.CodeEnhanceCalm {
				t.Errorf("205,000 of them ended it with %v, want %v", err, wire.CodeEnhanceCalm)
			}
		})
	}
}

func TestSessionOverARealConnection(t *testing.T) {
	url, trust := serve(t, func(c *carrier.Conn) {
		s := mux.New(c, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits()})
		var wg sync.WaitGroup
		defer wg.Wait()
		wg.Go(func() {
			for {
				in, err := s.Accept(t.Context())
				if err != nil {
					return
				}
				st := in.Stream
				wg.Go(func() {
					_ = st.Confirm()
					_, _ = io.Copy(st, st)
					_ = st.CloseWrite()
				})
			}
		})
		_ = s.Run(t.Context())
	})
	s := mux.New(dial(t, url, trust), mux.Config{Role: mux.Client, Limits: wire.DefaultLimits()})
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = s.Run(ctx) })
	defer wg.Wait()
	defer cancel()
	st, err := s.Open(ctx, wire.Addr{Name: "example.com", Port: 80})
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte("httvps"), 1<<19)
	wg.Go(func() {
		_, _ = st.ReadFrom(bytes.NewReader(want))
		_ = st.CloseWrite()
	})
	got, err := io.ReadAll(st)
	if err != nil || !bytes.Equal(got, want) {
		t.Errorf("%d of %d bytes back, %v", len(got), len(want), err)
	}
}

// Nothing that was not agreed on is read: RFC 6455, 5.2 and 7.1.7.
func TestAReservedBitIsAnsweredWith1002(t *testing.T) {
	for name, first := range map[string]byte{"as compressed": 0xc2, "the second": 0xa2, "the third": 0x92} {
		t.Run(name, func(t *testing.T) {
			url, trust := serve(t, func(c *carrier.Conn) {
				_ = c.SetDeadline(time.Now().Add(10 * time.Second))
				_, _ = c.ReadMessage(nil)
			})
			raw := rawClient(t, url, trust)
			_, _ = raw.Write(masked(first, "x"))
			_ = raw.SetReadDeadline(time.Now().Add(10 * time.Second))
			answer := make([]byte, 4)
			if _, err := io.ReadFull(raw, answer); err != nil || !bytes.Equal(answer, []byte{0x88, 2, 1002 >> 8, 1002 & 0xff}) {
				t.Errorf("answered with %x, %v, want a close frame with 1002", answer, err)
			}
		})
	}
}
