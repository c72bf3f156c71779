package httvps_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// lastingSession runs a device whose session can be resumed, with a connection to an
// echo.
func lastingSession(t *testing.T, opts httvpstest.Options) (*httvpstest.Service, *device, httvps.Event, net.Conn) {
	t.Helper()
	opts.Memory, opts.Dial, opts.Resume = true, echo, time.Minute
	s := start(t, opts)
	d := run(t, s, enrolled(t, s))
	up := d.next(httvps.Connected)
	conn, err := d.DialContext(t.Context(), "tcp", "a:1")
	if err != nil {
		t.Fatal(err)
	}
	echoed(t, conn, "before")
	return s, d, up, conn
}

func echoed(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.WriteString(conn, text); err != nil {
		t.Errorf("write %q: %v", text, err)
	}
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Errorf("%q has come back as %q, %v", text, got, err)
	}
}

func TestASessionGoesOnOverAnotherConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, up, conn := lastingSession(t, httvpstest.Options{})
		for range 3 {
			from := time.Now()
			s.Break()
			e := d.next(httvps.Resumed)
			if e.Session != up.Session || e.Gateway != up.Gateway || e.Err == nil {
				t.Errorf("resumed: %+v", e)
			}
			if took := time.Since(from); took > 0 {
				t.Errorf("it took %v", took)
			}
			echoed(t, conn, "after")
		}
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

// Where connections break while they are made, the next attempt does not wait, and one
// after that hardly; one in which nothing is heard is given up after 4 seconds, however
// many broke before it.
func TestAnAttemptToGoOnThatBreaksIsRepeatedSoon(t *testing.T) {
	const breaks, silent = 4, 1 // so many break, and so many are silent after those
	synctest.Test(t, func(t *testing.T) {
		var (
			began    atomic.Pointer[time.Time] // the attempts to go on count from then
			mu       sync.Mutex                // guards attempts
			attempts []time.Duration
		)
		s, d, up, conn := lastingSession(t, httvpstest.Options{Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				since := began.Load()
				if since == nil || r.URL.Path != "/tunnel/0" {
					next.ServeHTTP(w, r)
					return
				}
				mu.Lock()
				attempts = append(attempts, time.Since(*since))
				n := len(attempts)
				mu.Unlock()
				switch {
				case n <= breaks:
					panic(http.ErrAbortHandler)
				case n <= breaks+silent:
					<-r.Context().Done()
				default:
					next.ServeHTTP(w, r)
				}
			})
		}})
		from := time.Now()
		began.Store(&from)
		s.Break()
		if e := d.next(httvps.Resumed); e.Session != up.Session {
			t.Errorf("resumed: %+v", e)
		}
		mu.Lock()
		defer mu.Unlock()
		if len(attempts) != breaks+silent+1 {
			t.Fatalf("attempts after %v", attempts)
		}
		if attempts[1] != 0 {
			t.Errorf("the second attempt came after %v", attempts[1])
		}
		for i, most := range []time.Duration{100, 200, 400} {
			if wait := attempts[i+2] - attempts[i+1]; wait > most*time.Millisecond {
				t.Errorf("it waited %v after %d attempts, %d ms at most are right", wait, i+2, most)
			}
		}
		if took := attempts[breaks+silent] - attempts[breaks]; took < 4*time.Second || took > 4800*time.Millisecond {
			t.Errorf("after %v another took the place of the one that was silent", took)
		}
		echoed(t, conn, "after")
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

// Padding that the gateway asks for stands in nobody's way, whatever the policy.
func TestAPaddedSessionGoesOnOverAnotherConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		policy := wire.PaddingPolicy{Messages: wire.MaxPadMessages, Sizes: []int{64, 16_000}, Spread: wire.MaxPadSpread, Share: wire.MaxPadShare}
		s, d, up, conn := lastingSession(t, httvpstest.Options{Padding: &policy})
		for range 3 {
			s.Break()
			if e := d.next(httvps.Resumed); e.Session != up.Session {
				t.Errorf("resumed: %+v", e)
			}
			echoed(t, conn, strings.Repeat("after ", 5000))
		}
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

func TestANewNetworkGetsANewConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, up, conn := lastingSession(t, httvpstest.Options{})
		d.NetworkChanged()
		if e := d.next(httvps.Resumed); e.Session != up.Session || e.Err != nil {
			t.Errorf("resumed: %+v", e)
		}
		echoed(t, conn, "after")
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

// docs/03, part 8.3: a good carrier is replaced after 20 to 60 minutes.
func TestAConnectionIsReplacedFromTimeToTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, _, conn := lastingSession(t, httvpstest.Options{})
		for range 3 {
			from := time.Now()
			if e := d.next(httvps.Resumed); e.Err != nil {
				t.Errorf("resumed: %+v", e)
			}
			if took := time.Since(from); took < 20*time.Minute || took > 60*time.Minute+30*time.Second {
				t.Errorf("after %v", took)
			}
			echoed(t, conn, "after")
		}
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

// Where the gateway no longer has the session, its connections say so, and the device
// has another session over the same carrier.
func TestASessionThatTheGatewayForgotIsReplacedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, up, conn := lastingSession(t, httvpstest.Options{})
		s.Break()
		s.ForgetSessions()
		from := time.Now()
		lost := d.next(httvps.Disconnected)
		if closed, ok := errors.AsType[*mux.CloseError](lost.Err); !ok || closed.Code != wire.CodeSessionUnknown {
			t.Errorf("disconnected: %+v", lost)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, mux.ErrEnded) {
			t.Errorf("Read = %v", err)
		}
		if e := d.next(httvps.Connected); e.Session == up.Session {
			t.Error("the same session again")
		}
		if took := time.Since(from); took > 0 {
			t.Errorf("it took %v", took)
		}
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

// A session is not waited for whose gateway is gone, when there is another one.
func TestASessionWhoseGatewayIsGoneIsGivenUpForAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var gone atomic.Bool
		s, d, up, conn := lastingSession(t, httvpstest.Options{Gateways: 2, Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if gone.Load() && r.URL.Path == "/tunnel/0" {
					http.NotFound(w, r)
					return
				}
				next.ServeHTTP(w, r)
			})
		}})
		if up.Gateway != s.Gateway(0) {
			t.Fatalf("connected to %s", up.Gateway)
		}
		gone.Store(true)
		from := time.Now()
		s.Break()
		if e := d.next(httvps.Connected); e.Gateway != s.Gateway(1) {
			t.Errorf("connected to %s", e.Gateway)
		}
		if took := time.Since(from); took > 10*time.Second {
			t.Errorf("it took %v", took)
		}
		if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, mux.ErrEnded) {
			t.Errorf("Read = %v", err)
		}
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

// A RESUMED whose proof is wrong is not believed: the session goes on when a right
// one comes.
func TestAWrongProofOfTheGatewayIsNotBelieved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var wrong atomic.Int32
		wrong.Store(2)
		s, d, up, conn := lastingSession(t, httvpstest.Options{BendResumed: func(r *wire.Resumed) {
			if wrong.Add(-1) >= 0 {
				r.Proof[7] ^= 1
			}
		}})
		s.Break()
		if e := d.next(httvps.Resumed); e.Session != up.Session || wrong.Load() >= 0 {
			t.Errorf("resumed: %+v, %d wrong ones are left", e, wrong.Load())
		}
		echoed(t, conn, "after")
		d.stop()
		_ = d.wait()
		s.Close()
	})
}
