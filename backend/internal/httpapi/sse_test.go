package httpapi

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/backend/internal/events"
	"github.com/httvps/httvps/internal/inproc"
)

// Of HTTP/2 a server ends a stream whose deadline passes even when nothing is written.
func TestAStreamOfEventsOutlivesTheQuietBetweenThem(t *testing.T) {
	for _, version := range []string{"HTTP/1.1", "HTTP/2.0"} {
		t.Run(version, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var protocols http.Protocols
				protocols.SetHTTP1(version == "HTTP/1.1")
				protocols.SetUnencryptedHTTP2(version == "HTTP/2.0")
				listener := inproc.New()
				server := &http.Server{
					Protocols: &protocols, ReadTimeout: 30 * time.Second, WriteTimeout: 30 * time.Second, ReadHeaderTimeout: time.Second,
					Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						out := newSSE(w)
						for i := range int64(3) {
							if err := out.send(events.Message{Version: i}); err != nil {
								t.Errorf("message %d: %v", i, err)
							}
							select {
							case <-time.After(4 * events.KeepAlive):
							case <-r.Context().Done():
								t.Errorf("the stream ended after message %d", i)
								return
							}
						}
					}),
				}
				var running sync.WaitGroup
				defer running.Wait()
				running.Go(func() { _ = server.Serve(listener) })
				defer server.Close()
				transport := &http.Transport{
					Protocols:   &protocols,
					DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return listener.Dial(ctx) },
				}
				defer transport.CloseIdleConnections()
				r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://backend/", nil)
				if err != nil {
					t.Fatal(err)
				}
				answer, err := (&http.Client{Transport: transport}).Do(r)
				if err != nil {
					t.Fatal(err)
				}
				defer answer.Body.Close()
				text, err := io.ReadAll(answer.Body)
				if err != nil || answer.Proto != version || !strings.HasSuffix(string(text), "id: 0\n\nid: 1\n\nid: 2\n\n") {
					t.Errorf("over %s came %q, %v", answer.Proto, text, err)
				}
			})
		})
	}
}
