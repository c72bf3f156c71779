package httvps_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/wire"
)

func TestADiagnosisFindsWhatIsWrong(t *testing.T) {
	for name, tc := range map[string]struct {
		opts     httvpstest.Options
		breaking func(next http.Handler) http.Handler // after enrolment
		stopped  bool
		steps    string // a - before those that failed
		code     string // of the refusal
	}{
		"nothing":             {steps: "profile tcp tls clock token tcp tls knock session"},
		"a service gone":      {stopped: true, steps: "profile -tcp -token"},
		"a revoked device":    {breaking: problemAt("/api/v1/auth/token", "device_revoked"), steps: "profile tcp tls clock -token", code: "device_revoked"},
		"an expired plan":     {breaking: problemAt("/api/v1/auth/token", "subscription_expired"), steps: "profile tcp tls clock -token", code: "subscription_expired"},
		"no gateway":          {opts: httvpstest.Options{Gateways: -1}, steps: "profile tcp tls clock -token", code: "region_unavailable"},
		"a knock in vain":     {breaking: notFoundAt("/tunnel/0"), steps: "profile tcp tls clock token tcp tls -knock"},
		"too many sessions":   {opts: httvpstest.Options{Admit: func(int, wire.Hello) wire.Reject { return wire.Reject{Code: wire.CodeSessionLimit} }}, steps: "profile tcp tls clock token tcp tls knock -session", code: "session_limit"},
		"a clock behind":      {breaking: dated(26 * time.Hour), steps: "profile tcp tls -clock token tcp tls knock session"},
		"a clock ahead":       {breaking: dated(-time.Hour), steps: "profile tcp tls -clock token tcp tls knock session"},
		"a clock that is off": {breaking: dated(5 * time.Minute), steps: "profile tcp tls clock token tcp tls knock session"},
	} {
		t.Run(name, func(t *testing.T) {
			var broken atomic.Bool
			if tc.breaking != nil {
				tc.opts.Wrap = func(next http.Handler) http.Handler {
					wrong := tc.breaking(next)
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if broken.Load() {
							wrong.ServeHTTP(w, r)
							return
						}
						next.ServeHTTP(w, r)
					})
				}
			}
			s := httvpstest.New(tc.opts)
			defer s.Close()
			store := httvps.NewMemoryStore()
			invitation, err := httvps.ParseInvitation(s.Invitation())
			if err != nil {
				t.Fatal(err)
			}
			if _, err := httvps.Enroll(t.Context(), invitation, httvps.EnrollOptions{Store: store}); err != nil {
				t.Fatal(err)
			}
			broken.Store(true)
			if tc.stopped {
				s.Close()
			}
			var steps []string
			code := ""
			httvps.Diagnose(t.Context(), httvps.DiagnoseOptions{Store: store}, func(f httvps.Finding) {
				mark := ""
				if f.Err != nil {
					mark = "-"
					if refused, ok := errors.AsType[*httvps.RefusedError](f.Err); ok {
						code = refused.Code
					}
				}
				steps = append(steps, mark+string(f.Step))
				if strings.Contains(fmt.Sprint(f), "k3jd84hf") {
					t.Errorf("the path of the API is told: %v", f)
				}
			})
			if got := strings.Join(steps, " "); got != tc.steps || code != tc.code {
				t.Errorf("%s (%s), want %s (%s)", got, code, tc.steps, tc.code)
			}
		})
	}
}

func problemAt(path, code string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path {
				httvpstest.Problem(w, http.StatusForbidden, code, 0)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func notFoundAt(path string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == path {
				http.NotFound(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

// dated has the device API tell a time that is ahead.
func dated(ahead time.Duration) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/api/") {
				w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
			}
			next.ServeHTTP(w, r)
		})
	}
}

func TestTheListOfGatewaysSaysHowFarTheyAre(t *testing.T) {
	s := httvpstest.New(httvpstest.Options{Gateways: 3})
	defer s.Close()
	store := httvps.NewMemoryStore()
	if _, err := httvps.Gateways(t.Context(), httvps.Config{Store: store}); !errors.Is(err, httvps.ErrNotEnrolled) {
		t.Errorf("before enrolment: %v", err)
	}
	invitation, err := httvps.ParseInvitation(s.Invitation())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := httvps.Enroll(t.Context(), invitation, httvps.EnrollOptions{Store: store}); err != nil {
		t.Fatal(err)
	}
	list, err := httvps.Gateways(t.Context(), httvps.Config{Store: store})
	if err != nil || len(list) != 3 {
		t.Fatalf("%v, %v", list, err)
	}
	for i, g := range list {
		if g.URL != s.Gateway(i) || g.Region != "local" || g.RoundTrip <= 0 || g.RoundTrip > 10*time.Second {
			t.Errorf("%+v", g)
		}
	}
}

func TestStatusSaysHowTheClientIsDoing(t *testing.T) {
	s := start(t, httvpstest.Options{Dial: func(context.Context, wire.Addr) (net.Conn, error) {
		ours, theirs := net.Pipe()
		go func() { defer func() { _ = theirs.Close() }(); _, _ = io.Copy(theirs, theirs) }()
		return ours, nil
	}})
	store := httvps.NewMemoryStore()
	invitation, err := httvps.ParseInvitation(s.Invitation())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := httvps.Enroll(t.Context(), invitation, httvps.EnrollOptions{Store: store}); err != nil {
		t.Fatal(err)
	}
	connected, lost := make(chan struct{}, 4), make(chan struct{}, 4)
	client, err := httvps.NewClient(httvps.Config{Store: store, OnEvent: func(e httvps.Event) {
		switch e.Kind {
		case httvps.Connected:
			connected <- struct{}{}
		case httvps.Disconnected:
			lost <- struct{}{}
		default:
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	if st := client.Status(); st.Connected || !st.Since.IsZero() || st.Err != nil {
		t.Errorf("before Run: %+v", st)
	}
	if _, err := client.Ping(t.Context()); !errors.Is(err, httvps.ErrNoSession) {
		t.Errorf("Ping before Run: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { _ = client.Run(ctx) })
	defer running.Wait()
	defer cancel()
	<-connected
	if rtt, err := client.Ping(t.Context()); err != nil || rtt <= 0 {
		t.Errorf("Ping = %v, %v", rtt, err)
	}
	st := client.Status()
	if !st.Connected || st.Gateway.URL != s.Gateway(0) || st.Gateway.Region != "local" || len(st.Session) != 32 || st.Since.IsZero() || st.RoundTrip <= 0 || st.Streams != 0 {
		t.Errorf("connected: %+v", st)
	}
	conn, err := client.DialContext(t.Context(), "tcp", "echo.test:7")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Write(make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conn, make([]byte, 1000)); err != nil {
		t.Fatal(err)
	}
	if st = client.Status(); st.Streams != 1 || st.Sent < 1000 || st.Received < 1000 {
		t.Errorf("with a connection: %+v", st)
	}
	_ = conn.Close()
	s.Disconnect(wire.CodeShutdown)
	<-lost
	<-connected
	if again := client.Status(); again.Sent < st.Sent || again.Received < st.Received || again.Session == st.Session {
		t.Errorf("after a lost session %+v, before %+v", again, st)
	}
	s.Close()
	<-lost
	if st := client.Status(); st.Connected || st.Err == nil || st.Sent < 1000 {
		t.Errorf("without a service: %+v", st)
	}
}
