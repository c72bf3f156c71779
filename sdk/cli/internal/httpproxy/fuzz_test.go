package httpproxy

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"
)

// FuzzRequests: whatever a client sends, a target is sent well-formed requests for
// itself only, without a header that was for the proxy.
func FuzzRequests(f *testing.F) {
	f.Add([]byte("GET http://a.test/b?c HTTP/1.1\r\nHost: d\r\nProxy-Authorization: Basic eA==\r\nConnection: x\r\nX: y\r\n\r\n"))
	f.Add([]byte("POST http://a.test/ HTTP/1.1\r\nHost: d\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nT: u\r\n\r\nGET http://b.test/ HTTP/1.0\r\n\r\n"))
	f.Add([]byte("POST http://a.test// HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\n\r\nabcCONNECT a.test:1 HTTP/1.1\r\n\r\nrest"))
	f.Add([]byte("GET http://[::1]:8/%00|\x80 HTTP/1.1\r\nHost: a\r\n\r\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		if bytes.Contains(in, []byte("CONNECT")) {
			return // what follows is the target's, whatever it is
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		var targets sync.WaitGroup
		defer targets.Wait()
		server := &Server{Dial: func(_ context.Context, _, address string) (net.Conn, error) {
			ours, theirs := net.Pipe()
			targets.Go(func() { answerAll(t, address, theirs) })
			return ours, nil
		}}
		ours, theirs := net.Pipe()
		ln := &one{conn: theirs, closed: make(chan struct{})}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(ctx, ln) })
		defer serving.Wait()
		var reading sync.WaitGroup
		reading.Go(func() { _, _ = io.Copy(io.Discard, ours) })
		_ = ours.SetWriteDeadline(time.Now().Add(5 * time.Second))
		_, _ = ours.Write(in)
		_ = ours.Close()
		reading.Wait()
		cancel()
	})
}

// answerAll is a target.
func answerAll(t *testing.T, address string, conn net.Conn) {
	t.Helper()
	defer func() { _ = conn.Close() }()
	r := bufio.NewReader(conn)
	for {
		if _, err := r.Peek(1); err != nil {
			return
		}
		req, err := http.ReadRequest(r)
		if err != nil {
			if strings.Contains(err.Error(), "malformed") || strings.Contains(err.Error(), "invalid") {
				t.Errorf("%s was sent what is no request: %v", address, err)
			}
			return
		}
		if req.URL.IsAbs() || req.Method == http.MethodConnect {
			t.Errorf("%s was sent %s %s", address, req.Method, req.RequestURI)
		}
		for _, name := range []string{"Proxy-Authorization", "Proxy-Connection", "Keep-Alive"} {
			if _, there := req.Header[name]; there {
				t.Errorf("%s was sent %s", address, name)
			}
		}
		if _, err := io.Copy(io.Discard, req.Body); err != nil {
			return
		}
		if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"); err != nil {
			return
		}
	}
}

// one is a listener with one connection.
type one struct {
	conn   net.Conn
	closed chan struct{}
	once   sync.Once
}

func (l *one) Accept() (net.Conn, error) {
	if c := l.conn; c != nil {
		l.conn = nil
		return c, nil
	}
	<-l.closed
	return nil, net.ErrClosed
}
func (l *one) Close() error   { l.once.Do(func() { close(l.closed) }); return nil }
func (l *one) Addr() net.Addr { return &net.TCPAddr{} }

// FuzzTarget: what is taken for a target is a host and a port.
func FuzzTarget(f *testing.F) {
	for _, seed := range []string{"a.test:443", "[::1]:1", "a", "a:", ":1", "a:65536", "a:00000000000000000080", "x@y:1", "[::1%1]:2"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, text string) {
		for _, usual := range []string{"", "80"} {
			if !isTarget(text, usual) {
				continue
			}
			host, _, err := net.SplitHostPort(text)
			if err != nil && usual != "" {
				host, _, err = net.SplitHostPort(text + ":" + usual)
			}
			if err != nil || host == "" || len(host) > 255 || strings.ContainsAny(host, " /@%\r\n\x00") {
				t.Fatalf("%q is taken for a target", text)
			}
		}
	})
}
