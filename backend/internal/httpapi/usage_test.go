package httpapi_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/backend/internal/control"
	"github.com/httvps/httvps/backend/internal/store"
)

// watchedListener knows until when each of its connections may be read and written.
type watchedListener struct {
	net.Listener
	mu    sync.Mutex
	conns []*watchedConn
}

func (l *watchedListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	watched := &watchedConn{Conn: conn}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.conns = append(l.conns, watched)
	return watched, nil
}

type watchedConn struct {
	net.Conn
	mu    sync.Mutex
	read  time.Time // zero: for ever
	write time.Time
}

func (c *watchedConn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	c.read = t
	c.mu.Unlock()
	return c.Conn.SetReadDeadline(t)
}

func (c *watchedConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	c.write = t
	c.mu.Unlock()
	return c.Conn.SetWriteDeadline(t)
}

// observed calls seen before the account is recomputed.
type observed struct {
	control.Store
	seen func(ctx context.Context)
}

func (s *observed) Read(ctx context.Context, fn func(context.Context, control.Tx) error) error {
	return s.Store.Read(ctx, func(ctx context.Context, tx control.Tx) error {
		return fn(ctx, observedTx{tx, s.seen})
	})
}

type observedTx struct {
	control.Tx
	seen func(ctx context.Context)
}

func (t observedTx) UsageAccount(ctx context.Context) (control.UsageVerdict, error) {
	t.seen(ctx)
	return t.Tx.UsageAccount(ctx)
}

// A recomputation of the account may take minutes, and neither the request's own time
// nor the server's limits may end it before.
func TestARecomputationHasTimeAndSoHasItsAnswer(t *testing.T) {
	listener := &watchedListener{}
	var looked atomic.Bool
	f := openOver(t, store.Config{Path: t.TempDir() + "/x.db"}, func(records control.Store) control.Store {
		return &observed{records, func(ctx context.Context) {
			looked.Store(true)
			listener.mu.Lock()
			conn := listener.conns[0]
			listener.mu.Unlock()
			conn.mu.Lock()
			defer conn.mu.Unlock()
			least := time.Now().Add(14 * time.Minute)
			if until, bound := ctx.Deadline(); !bound || until.Before(least) {
				t.Errorf("the work has to end at %v, %v", until, bound)
			}
			if !conn.read.IsZero() && conn.read.Before(least) || conn.write.Before(least) {
				t.Errorf("the connection may be read until %v and written until %v", conn.read, conn.write)
			}
		}}
	})
	server := httptest.NewUnstartedServer(f.handler)
	listener.Listener, server.Listener = server.Listener, listener
	server.Config.ReadTimeout, server.Config.WriteTimeout = 30*time.Second, 30*time.Second
	server.Start()
	defer server.Close()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, server.URL+f.prefix+"/api/v1/admin/usage/verify", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.token)
	resp, err := server.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(text), `"ok":true`) || !looked.Load() {
		t.Errorf("answer is %d %s, %v", resp.StatusCode, text, err)
	}
}
