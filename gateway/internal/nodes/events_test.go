package nodes

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/internal/inproc"
)

// local is a control plane in memory, for virtual time.
type local struct {
	n *Node

	mu     sync.Mutex // guards the following fields
	events []Event
	closed []Closing
}

func newLocal(t *testing.T, handle http.HandlerFunc) *local {
	t.Helper()
	return newLocalFor(t, handle, func(*Config) {})
}

// newLocalFor is newLocal for a node that change has adjusted.
func newLocalFor(t *testing.T, handle http.HandlerFunc, change func(*Config)) *local {
	t.Helper()
	l := inproc.New()
	server := &http.Server{Handler: handle, ReadHeaderTimeout: time.Minute}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(l) })
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &local{}
	cfg := Config{
		State: State{GatewayID: gatewayID, API: "https://control.example", ServiceID: serviceID, Issuer: issuer}, Key: key, Local: l.Dial,
		Observe: func(string, error) {}, Log: slog.New(slog.DiscardHandler),
		Close: func(closing Closing) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.closed = append(c.closed, closing)
		},
		Event: func(e Event) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.events = append(c.events, e)
		},
		Load: func() Load { return Load{} }, Live: func() [][16]byte { return nil }, Sessions: func(string) int { return 0 },
		StoodIn: func(string) {}, Recognized: func(string) {}, MaxEnded: 100,
	}
	change(&cfg)
	if c.n, err = New(cfg); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		c.n.control.http.CloseIdleConnections()
		_ = server.Close()
		serving.Wait()
	})
	return c
}

// say sends text of a stream.
func say(w http.ResponseWriter, text string) {
	_, _ = io.WriteString(w, text)
	_ = http.NewResponseController(w).Flush()
}

func TestEventsAreFollowedFromWhereTheyEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var (
			mu      sync.Mutex
			asks    []string
			streams int
			c       *local
		)
		ctx, cancel := context.WithCancel(t.Context())
		c = newLocal(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/api/v1/gateway/snapshot" {
				say(w, `{"version":1,"close":[]}`)
				return
			}
			mu.Lock()
			after := r.Header.Get("Last-Event-ID")
			if !strings.HasPrefix(r.Header.Get("Accept"), typeSSE) {
				after = r.URL.Query().Get("after") + ", polled"
			} else {
				streams++
			}
			asks = append(asks, fmt.Sprintf("%s after %q", r.URL.Path, after))
			n := streams
			mu.Unlock()
			if r.Header.Get("Authorization") == "" {
				t.Errorf("asked with %v", r.Header)
			}
			if strings.HasSuffix(after, "polled") {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			w.Header().Set("Content-Type", typeSSE)
			switch n {
			case 1:
				say(w, "retry: 1000\nid: 5\nevent: snapshot_needed\ndata: {\"version\":5}\n\n")
				say(w, "id: 7\nevent: outline.changed\ndata: {\"version\":7,\"kind\":\"outline.changed\",\"outline_server_id\":\"s\"}\n\nid: 9\n\n")
			case 2:
				w.WriteHeader(http.StatusServiceUnavailable)
			case 3:
				say(w, "id: 11\r\nevent: from.the.future\r\ndata: {\"kind\":\"from.the.future\"}\r\n\r\n")
				say(w, ": a word in between\nid: 12\nevent: outline.changed\ndata: {\"kind\":\n\n")
				say(w, "id: 12\nevent: outline.changed\ndata: {\"kind\":\"keys.changed\"}\n\n")
				say(w, "id: 13\nevent: outline.changed\ndata: cut off")
			default:
				say(w, "id: 12\n\n")
				<-r.Context().Done()
			}
		})
		var following sync.WaitGroup
		following.Go(func() { c.n.followEvents(ctx) })
		<-time.After(eventPause + eventPause/2)
		synctest.Wait()
		<-time.After(3 * time.Second)
		cancel()
		following.Wait()
		want := []string{"/api/v1/gateway/events after \"\"", "/api/v1/gateway/events after \"9\"", "/api/v1/gateway/events after \"9, polled\"", "/api/v1/gateway/events after \"9\"", "/api/v1/gateway/events after \"12\""}
		if diff := cmp.Diff(want, asks); diff != "" {
			t.Errorf("asked (-want +got):\n%s", diff)
		}
		wantEvents := []Event{{Kind: EventsMissed}, {Kind: OutlineChanged, Version: 7, OutlineServerID: "s"}, {Kind: "from.the.future"}, {Kind: EventsMissed}, {Kind: EventsMissed}}
		if diff := cmp.Diff(wantEvents, c.events); diff != "" {
			t.Errorf("events (-want +got):\n%s", diff)
		}
	})
}

// A network that has lost a connection without a word, and one that answers with
// something else.
func TestAStreamThatIsNoneIsLeft(t *testing.T) {
	for name, tc := range map[string]struct {
		answer func(w http.ResponseWriter, r *http.Request)
		want   string
		after  time.Duration
	}{
		"it is silent": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", typeSSE)
			say(w, "id: 1\n\n")
			<-r.Context().Done()
		}, "nothing came for 30s", eventSilence},
		"it says nothing at all": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", typeSSE)
			say(w, ": here\n\n")
			<-r.Context().Done()
		}, "nothing came for 30s", eventSilence},
		"it is a page":                 {func(w http.ResponseWriter, _ *http.Request) { say(w, "<html>") }, "no stream", 0},
		"it is a refusal":              {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusForbidden) }, "answered 403", 0},
		"it has no version":            {stream("id: -1\n\n"), "no version", 0},
		"it has a version with a word": {stream("id: 1x\n\n"), "no version", 0},
		"a line never ends":            {stream("data: " + strings.Repeat("x", maxLine) + "\n\n"), "too long", 0},
		"an event never ends":          {stream(strings.Repeat("data: "+strings.Repeat("x", 1000)+"\n", 66) + "\n"), "larger than", 0},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newLocal(t, tc.answer)
				began := time.Now()
				err := c.n.stream(t.Context(), func(message) error { return nil })
				if err == nil || !strings.Contains(err.Error(), tc.want) || time.Since(began) != tc.after {
					t.Errorf("stream = %v after %v, want %q after %v", err, time.Since(began), tc.want, tc.after)
				}
			})
		})
	}
}

func stream(text string) func(http.ResponseWriter, *http.Request) {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", typeSSE)
		say(w, text)
	}
}

// FuzzMessages reads a stream of events: what is read, written again, is read the
// same.
func FuzzMessages(f *testing.F) {
	f.Add("id: 1\nevent: outline.changed\ndata: {}\n\n")
	f.Add("id: 7\n\n: comment\nretry: 5\ndata:a\ndata: b\r\n\r\nid: x\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		in := newMessages(strings.NewReader(text))
		for {
			m, err := in.next()
			if err != nil {
				if !errors.Is(err, io.EOF) && m != (message{}) {
					t.Errorf("%+v with %v", m, err)
				}
				return
			}
			if len(m.data) > maxMessage {
				t.Errorf("%d bytes", len(m.data))
			}
			var again strings.Builder
			again.WriteString("event: " + m.kind + "\n")
			if m.id != "" {
				again.WriteString("id: " + m.id + "\n")
			}
			for line := range strings.SplitSeq(m.data, "\n") {
				again.WriteString("data: " + line + "\n")
			}
			if strings.HasSuffix(m.kind, "\r") || strings.Contains(m.data, "\r") {
				continue // the end of a line, when it is written again
			}
			if got, err := newMessages(strings.NewReader(again.String() + "\n")).next(); err != nil || got != m {
				t.Errorf("%+v is read as %+v, %v", m, got, err)
			}
		}
	})
}
