package httvps_test

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// start runs a service for as long as the test. Inside a bubble it has to be in

// memory.

func start(t *testing.T, opts httvpstest.Options) *httvpstest.Service {
	t.Helper()
	s := httvpstest.New(opts)
	t.Cleanup(s.Close)
	return s
}

// enrolled returns the store of a device that s knows.

func enrolled(t *testing.T, s *httvpstest.Service) *httvps.MemoryStore {
	t.Helper()
	store := httvps.NewMemoryStore()
	inv, err := httvps.ParseInvitation(s.Invitation())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := httvps.Enroll(t.Context(), inv, httvps.EnrollOptions{Store: store, NetDial: s.NetDial}); err != nil {
		t.Fatal(err)
	}
	return store
}

// device is a client that runs until the test ends, or until it gives up.

type device struct {
	*httvps.Client
	t      *testing.T
	events chan httvps.Event
	done   chan error
	stop   context.CancelFunc
}

func run(t *testing.T, s *httvpstest.Service, store httvps.Store, change ...func(*httvps.Config)) *device {
	t.Helper()
	d := &device{t: t, events: make(chan httvps.Event, 10_000), done: make(chan error, 1)}
	cfg := httvps.Config{Store: store, NetDial: s.NetDial, OnEvent: func(e httvps.Event) { d.events <- e }}
	for _, f := range change {
		f(&cfg)
	}
	var err error
	if d.Client, err = httvps.NewClient(cfg); err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, d.stop = context.WithCancel(t.Context())
	go func() { d.done <- d.Run(ctx) }()
	t.Cleanup(func() { d.stop(); _ = d.wait() })
	return d
}

// wait returns what Run returned.

func (d *device) wait() error {
	err := <-d.done
	d.done <- err
	return err
}

// next returns the next event of kind and skips others.

func (d *device) next(kind httvps.EventKind) httvps.Event {
	d.t.Helper()
	for {
		select {
		case e := <-d.events:
			if e.Kind == kind {
				return e
			}
		case err := <-d.done:
			d.done <- err
			// What happened before it ended comes first.
			for len(d.events) > 0 {
				if e := <-d.events; e.Kind == kind {
					return e
				}
			}
			d.t.Fatalf("Run returned %v before %v", err, kind)
		}
	}
}

// echo connects streams to a peer that sends back what it gets and ends when

// the other end does.

func TestALostSessionIsReplaced(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true, Dial: echo})
		d := run(t, s, enrolled(t, s))
		first := d.next(httvps.Connected)
		old, err := d.DialContext(t.Context(), "tcp", "a:1")
		if err != nil {
			t.Fatal(err)
		}

		s.Disconnect(wire.CodeShutdown)

		lost := d.next(httvps.Disconnected)
		if closed, ok := errors.AsType[*mux.CloseError](lost.Err); !ok || closed.Code != wire.CodeShutdown || lost.Session != first.Session {
			t.Errorf("disconnected: %+v", lost)
		}
		if e := d.next(httvps.Waiting); e.Wait > 200*time.Millisecond {
			t.Errorf("waits %v before the first attempt", e.Wait)
		}
		if second := d.next(httvps.Connected); second.Session == first.Session {
			t.Error("the same session again")
		}
		if _, err := old.Read(make([]byte, 1)); err == nil {
			t.Error("a connection of the lost session still works")
		}
		conn, err := d.DialContext(t.Context(), "tcp", "a:1")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, "x")
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Errorf("through the new session: %v", err)
		}
		_ = conn.Close()
	})
}

func TestBackoffDoublesUpToItsBoundAndStartsAnewAfterAGoodSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		s := start(t, httvpstest.Options{Memory: true, Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if down.Load() {
					panic(http.ErrAbortHandler)
				}
				next.ServeHTTP(w, r)
			})
		}})
		d := run(t, s, enrolled(t, s))
		d.next(httvps.Connected)

		down.Store(true)
		s.Disconnect(wire.CodeShutdown)
		var slowest time.Duration
		bound := 200 * time.Millisecond
		for i := range 60 {
			e := d.next(httvps.Waiting)
			if e.Wait > bound {
				t.Errorf("wait %d is %v, want at most %v", i, e.Wait, bound)
			}
			bound = min(2*bound, 30*time.Second)
			slowest = max(slowest, e.Wait)
			if _, ok := errors.AsType[*httvps.UnreachableError](e.Err); i > 0 && !ok {
				t.Errorf("wait %d is for %v", i, e.Err)
			}
		}
		if slowest < 15*time.Second {
			t.Errorf("60 attempts never waited over %v: no back-off", slowest)
		}
		down.Store(false)
		d.next(httvps.Connected)
		time.AfterFunc(31*time.Second, func() { s.Disconnect(wire.CodeShutdown) })
		if e := d.next(httvps.Waiting); e.Wait > 200*time.Millisecond {
			t.Errorf("waits %v after a session of 31 s", e.Wait)
		}
	})
}

func TestShortSessionsDoNotResetTheBackoff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true})
		d := run(t, s, enrolled(t, s))
		var total time.Duration
		for range 20 {
			d.next(httvps.Connected)
			s.Disconnect(wire.CodeInternal)
			total += d.next(httvps.Waiting).Wait
		}
		if total < 20*time.Second {
			t.Errorf("20 sessions that ended at once were replaced within %v", total)
		}
	})
}

func TestTokensAreRenewedInTheMiddleOfTheirLife(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true})
		d := run(t, s, enrolled(t, s))
		d.next(httvps.Connected)
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		<-ctx.Done()
		issued := s.Issued()
		if len(issued) < 40 || len(issued) > 61 {
			t.Fatalf("%d tokens in a day, want about 48", len(issued))
		}
		gaps := make(map[time.Duration]bool)
		for i := 1; i < len(issued); i++ {
			gap := issued[i].Sub(issued[i-1])
			if gap < 24*time.Minute || gap > 36*time.Minute+time.Second {
				t.Errorf("a token of 60 minutes was replaced after %v", gap)
			}
			gaps[gap] = true
		}
		if len(gaps) < 10 {
			t.Errorf("only %d different intervals: no jitter", len(gaps))
		}
	})
}

func TestARenewalThatFailsIsRepeatedAndLosesNoSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		s := start(t, httvpstest.Options{Memory: true, Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if down.Load() && strings.HasPrefix(r.URL.Path, "/api/") {
					w.WriteHeader(http.StatusBadGateway)
					return
				}
				next.ServeHTTP(w, r)
			})
		}})
		d := run(t, s, enrolled(t, s))
		d.next(httvps.Connected)
		down.Store(true)
		<-time.After(55 * time.Minute)
		down.Store(false)
		<-time.After(time.Minute)
		if got := len(s.Issued()); got != 2 {
			t.Errorf("%d tokens, want 2", got)
		}
		if len(d.events) != 0 || s.Sessions() != 1 {
			t.Errorf("the session was touched: %+v", <-d.events)
		}
	})
}

func TestAValidTokenIsEnoughWhenTheControlPlaneIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		s := start(t, httvpstest.Options{Memory: true, Gateways: 2, Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if down.Load() && !strings.HasPrefix(r.URL.Path, "/tunnel/1") {
					panic(http.ErrAbortHandler)
				}
				next.ServeHTTP(w, r)
			})
		}})
		d := run(t, s, enrolled(t, s))
		d.next(httvps.Connected)
		down.Store(true)
		s.Disconnect(wire.CodeShutdown)
		if e := d.next(httvps.Connected); e.Gateway != s.Gateway(1) {
			t.Errorf("connected to %s, want the second gateway", e.Gateway)
		}
		if got := len(s.Issued()); got != 1 {
			t.Errorf("%d tokens were issued, want the first only", got)
		}
	})
}

// Nobody gives tokens for hours. Of the gateways one knows the device and lets it in.
func TestATokenThatIsOverIsTriedWhileTheControlPlaneIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var down atomic.Bool
		s := start(t, httvpstest.Options{
			Memory: true, Gateways: 3, Lenient: func(gateway int) bool { return gateway == 1 },
			Wrap: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if down.Load() && strings.HasPrefix(r.URL.Path, "/api/") {
						w.WriteHeader(http.StatusBadGateway)
						return
					}
					next.ServeHTTP(w, r)
				})
			},
		})
		d := run(t, s, enrolled(t, s))
		d.next(httvps.Connected)
		down.Store(true)
		<-time.After(3 * time.Hour)
		s.Disconnect(wire.CodeShutdown)
		if e := d.next(httvps.Connected); e.Gateway != s.Gateway(1) {
			t.Errorf("connected to %s, want the gateway that knows the device", e.Gateway)
		}
		if got := len(s.Issued()); got != 1 {
			t.Errorf("%d tokens were issued", got)
		}
		// With the control plane back everything is as before.
		down.Store(false)
		s.Disconnect(wire.CodeShutdown)
		if e := d.next(httvps.Connected); e.Gateway != s.Gateway(0) {
			t.Errorf("connected to %s, want the first gateway, with a new token", e.Gateway)
		}
	})
}

func TestGatewaysAreTriedInTheOrderGiven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true, Gateways: 3, Admit: func(gateway int, _ wire.Hello) wire.Reject {
			if gateway < 2 {
				return wire.Reject{Code: wire.CodeRetryLater, RetryAfter: time.Second}
			}
			return wire.Reject{}
		}})
		d := run(t, s, enrolled(t, s))
		var tried []string
		for range 3 {
			tried = append(tried, d.next(httvps.Connecting).Gateway)
		}
		if diff := cmp.Diff([]string{s.Gateway(0), s.Gateway(1), s.Gateway(2)}, tried); diff != "" {
			t.Error(diff)
		}
		if e := d.next(httvps.Connected); e.Gateway != s.Gateway(2) {
			t.Errorf("connected to %s", e.Gateway)
		}
	})
}

func TestNoGatewayIsAReasonToWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true, Gateways: -1})
		d := run(t, s, enrolled(t, s))
		e := d.next(httvps.Waiting)
		if refused, ok := errors.AsType[*httvps.RefusedError](e.Err); !ok || refused.Code != "region_unavailable" {
			t.Errorf("waits for %v", e.Err)
		}
	})
}

func TestSomebodyElseAtAGatewaysAddressIsToldAsSuch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var status atomic.Int32
		s := start(t, httvpstest.Options{Memory: true, Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if code := int(status.Load()); code != 0 && r.URL.Path == "/tunnel/0" {
					w.WriteHeader(code)
					return
				}
				next.ServeHTTP(w, r)
			})
		}})
		store := enrolled(t, s)
		for code, want := range map[int32]bool{http.StatusNotFound: true, http.StatusServiceUnavailable: false} {
			status.Store(code)
			e := run(t, s, store).next(httvps.Waiting)
			if _, is := errors.AsType[*httvps.StrangerError](e.Err); is != want || !strings.Contains(e.Err.Error(), fmt.Sprint(code)) {
				t.Errorf("HTTP %d: %v, a StrangerError: %v", code, e.Err, is)
			}
		}
		e := run(t, s, store, func(cfg *httvps.Config) { cfg.Store = otherPin(t, store) }).next(httvps.Waiting)
		if stranger, ok := errors.AsType[*httvps.StrangerError](e.Err); !ok || !stranger.Untrusted {
			t.Errorf("with another pin: %v", e.Err)
		}
	})
}

// otherPin returns the device of store, told another authority.
func otherPin(t *testing.T, store *httvps.MemoryStore) *httvps.MemoryStore {
	t.Helper()
	profile, err := store.Profile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	profile.Pin = pin
	other := httvps.NewMemoryStore()
	if err := other.SaveProfile(t.Context(), profile); err != nil {
		t.Fatal(err)
	}
	return other
}

func TestAGatewayThatComesUpIsFoundWithoutANewToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true, Gateways: 2, Admit: func(gateway int, _ wire.Hello) wire.Reject {
			if gateway == 0 {
				return wire.Reject{Code: wire.CodeRetryLater}
			}
			return wire.Reject{}
		}})
		s.SetLive(0)
		d := run(t, s, enrolled(t, s))
		d.next(httvps.Waiting)
		s.SetLive(1)
		if e := d.next(httvps.Connected); e.Gateway != s.Gateway(1) {
			t.Errorf("connected to %s", e.Gateway)
		}
		if got := len(s.Issued()); got != 1 {
			t.Errorf("%d tokens, want 1", got)
		}
	})
}

// finalCodes are the refusals after which a client stops; wire.Code and the

// API's strings are the same names.

func TestChannelBindingIsUsedWheneverItIsOffered(t *testing.T) {
	for _, offered := range []bool{true, false} {
		t.Run(fmt.Sprint(offered), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hellos := make(chan wire.Hello, 1)
				s := start(t, httvpstest.Options{Memory: true, NoBinding: !offered, Admit: func(_ int, h wire.Hello) wire.Reject {
					hellos <- h
					return wire.Reject{}
				}})
				d := run(t, s, enrolled(t, s), func(c *httvps.Config) { c.Agent = "test/1" })
				d.next(httvps.Connected)
				h := <-hellos
				if h.Capabilities.Has(wire.ChannelBinding) != offered || h.Agent != "test/1" {
					t.Errorf("HELLO has capabilities %b and agent %q", h.Capabilities, h.Agent)
				}
			})
		})
	}
}

// cable is a connection that can be cut without either end noticing.

type cable struct {
	net.Conn
	cut *atomic.Bool
}

func (c *cable) Read(p []byte) (int, error) {
	for {
		n, err := c.Conn.Read(p)
		if err != nil || !c.cut.Load() {
			return n, err
		}
	}
}

func (c *cable) Write(p []byte) (int, error) {
	if c.cut.Load() {
		return len(p), nil
	}
	return c.Conn.Write(p)
}

func TestAGatewayThatFellSilentIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true})
		cut := new(atomic.Bool)
		var mu sync.Mutex
		d := run(t, s, enrolled(t, s), func(c *httvps.Config) {
			c.NetDial = func(ctx context.Context, network, address string) (net.Conn, error) {
				conn, err := s.NetDial(ctx, network, address)
				mu.Lock()
				defer mu.Unlock()
				return &cable{conn, cut}, err
			}
		})
		d.next(httvps.Connected)
		<-time.After(10 * time.Minute)
		if len(d.events) > 0 {
			t.Fatalf("a quiet session was touched: %+v", <-d.events)
		}
		start := time.Now()
		mu.Lock()
		cut.Store(true)
		cut = new(atomic.Bool)
		mu.Unlock()
		e := d.next(httvps.Disconnected)
		if took := time.Since(start); took > 50*time.Second {
			t.Errorf("noticed after %v", took)
		}
		if e.Err == nil || !strings.Contains(e.Err.Error(), "no longer answers") {
			t.Errorf("disconnected for %v", e.Err)
		}
		d.next(httvps.Connected)
	})
}

func TestAClientWithoutAProfileSaysSo(t *testing.T) {
	client, err := httvps.NewClient(httvps.Config{Store: httvps.NewMemoryStore()})
	if err != nil {
		t.Fatal(err)
	}
	if err := client.Run(t.Context()); !errors.Is(err, httvps.ErrNotEnrolled) {
		t.Errorf("Run returned %v", err)
	}
}

func TestEveryMistakeOfAConfigIsTold(t *testing.T) {
	_, err := httvps.NewClient(httvps.Config{Agent: "mööp", Memory: 7, MinBackoff: 2, MaxBackoff: 1})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, want := range []string{"store", "agent", "memory", "back-off"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not mention %s", err, want)
		}
	}
}

// brokenKey is a key store that answers no more.

type brokenKey struct{ *httvps.MemoryStore }

func (s brokenKey) Key(ctx context.Context) (crypto.Signer, error) {
	key, err := s.MemoryStore.Key(ctx)
	return brokenSigner{key}, err
}

type brokenSigner struct{ crypto.Signer }

func (brokenSigner) Sign(io.Reader, []byte, crypto.SignerOpts) ([]byte, error) {
	return nil, errors.New("the key store is locked")
}

func TestAKeyStoreThatIsLockedIsWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true})
		d := run(t, s, brokenKey{enrolled(t, s)})
		e := d.next(httvps.Waiting)
		if e.Err == nil || !strings.Contains(e.Err.Error(), "locked") {
			t.Errorf("waits for %v", e.Err)
		}
		if _, ok := errors.AsType[*httvps.UnreachableError](e.Err); ok {
			t.Error("the service is blamed for the key")
		}
	})
}
