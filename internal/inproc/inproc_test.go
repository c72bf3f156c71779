package inproc_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/internal/inproc"
)

func TestHTTPWorksOverIt(t *testing.T) {
	l := inproc.New()
	server := &http.Server{
		ReadHeaderTimeout: time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, r.Host+" for "+r.RemoteAddr)
		}),
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) })
	defer wg.Wait()
	defer func() { _ = server.Close() }()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialTLSContext:    func(ctx context.Context, _, _ string) (net.Conn, error) { return l.Dial(ctx) },
	}}
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://no.such.host.invalid/", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	got, err := io.ReadAll(resp.Body)
	if err != nil || string(got) != "no.such.host.invalid for 127.0.0.1:0" {
		t.Errorf("answer %q, %v", got, err)
	}
}

func TestDialEndsWithItsContextAndTheListener(t *testing.T) {
	l := inproc.New()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.Dial(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Dial that nobody accepts = %v", err)
	}
	_ = l.Close()
	_ = l.Close()
	if _, err := l.Dial(t.Context()); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Dial after Close = %v", err)
	}
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept after Close = %v", err)
	}
}
