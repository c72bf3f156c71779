package httvps_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// log is what was dialled, or asked for.
type log struct {
	mu    sync.Mutex // guards lines
	lines []string
}

func (l *log) add(line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
}

// take returns the lines since the last call, sorted and each once.
func (l *log) take() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.lines)
	lines := slices.Compact(l.lines)
	l.lines = nil
	return strings.Join(lines, " ")
}

// asked has l learn which hosts are asked for tokens.
func (l *log) asked(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/api/") {
			l.add(r.Host + r.URL.Path)
		}
		next.ServeHTTP(w, r)
	})
}

func TestATokenIsRenewedThroughTheTunnelWhereTheServiceIsBlocked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log log
		s := start(t, httvpstest.Options{Memory: true, Apart: true, TokenLife: time.Hour, Wrap: log.asked})
		d := run(t, s, enrolled(t, s))
		d.next(httvps.Connected)
		s.Block("service.test")
		log.take()
		<-time.After(time.Hour)
		if got, want := log.take(), "service.test/api/v1/auth/challenge service.test/api/v1/auth/token"; got != want {
			t.Errorf("asked for %s", got)
		}
		if got := len(s.Issued()); got < 2 || s.Sessions() != 1 {
			t.Errorf("%d tokens, %d sessions", got, s.Sessions())
		}
		if a, err := d.Account(t.Context()); err != nil || a.Plan == nil || a.Plan.Name != "test plan" {
			t.Errorf("%+v, %v", a, err)
		}
	})
}

func TestADeviceConnectsByItsGatewaysWhereTheServiceIsBlocked(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"the same clock": 0, "a clock that is a day wrong": 24 * time.Hour} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log log
				s := start(t, httvpstest.Options{Memory: true, Apart: true, Gateways: 2, GatewaysAhead: ahead, Wrap: log.asked})
				store := enrolled(t, s)
				first := run(t, s, store)
				first.next(httvps.Connected)
				first.stop()
				_ = first.wait()
				profile, err := store.Profile(t.Context())
				if err != nil || !slices.Equal(profile.Gateways, []string{s.Gateway(0), s.Gateway(1)}) {
					t.Fatalf("the profile has %v, %v", profile.Gateways, err)
				}
				s.Block("service.test", "gateway1.service.test")
				log.take()
				began := time.Now()
				second := run(t, s, store)
				second.next(httvps.Connected)
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("it took %v", took)
				}
				if got, want := log.take(), "gateway0.service.test/api/v1/auth/challenge gateway0.service.test/api/v1/auth/token"; got != want {
					t.Errorf("asked for %s", got)
				}
			})
		})
	}
}

func TestARefusalThatAGatewayPassesOnIsFinal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true, Apart: true, Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Host == "gateway0.service.test" && r.URL.Path == "/api/v1/auth/token" {
					httvpstest.Problem(w, http.StatusForbidden, "device_revoked", 0)
					return
				}
				next.ServeHTTP(w, r)
			})
		}})
		store := enrolled(t, s)
		first := run(t, s, store)
		first.next(httvps.Connected)
		first.stop()
		_ = first.wait()
		s.Block("service.test")
		err := run(t, s, store).wait()
		if refused, ok := errors.AsType[*httvps.RefusedError](err); !ok || refused.Code != "device_revoked" {
			t.Errorf("Run = %v", err)
		}
	})
}

// Whoever is asked to wait waits, and does not ask the same service elsewhere.
func TestAServiceThatAsksToWaitIsNotAskedByOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log log
		var busy atomic.Bool
		s := start(t, httvpstest.Options{Memory: true, Apart: true, Wrap: func(next http.Handler) http.Handler {
			return log.asked(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if busy.Load() && strings.HasPrefix(r.URL.Path, "/api/") {
					httvpstest.Problem(w, http.StatusTooManyRequests, "rate_limited", time.Minute)
					return
				}
				next.ServeHTTP(w, r)
			}))
		}})
		store := enrolled(t, s)
		first := run(t, s, store)
		first.next(httvps.Connected)
		first.stop()
		_ = first.wait()
		busy.Store(true)
		log.take()
		if e := run(t, s, store).next(httvps.Waiting); e.Wait < time.Minute {
			t.Errorf("it waits for %v: %v", e.Wait, e.Err)
		}
		if got, want := log.take(), "service.test/api/v1/auth/challenge"; got != want {
			t.Errorf("asked for %s", got)
		}
	})
}

func TestEveryWayThatWasTriedIsNamed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true, Apart: true})
		store := enrolled(t, s)
		first := run(t, s, store)
		first.next(httvps.Connected)
		first.stop()
		_ = first.wait()
		s.Block("service.test", "gateway0.service.test")
		e := run(t, s, store).next(httvps.Waiting)
		if text := e.Err.Error(); !strings.Contains(text, "service.test: ") || !strings.Contains(text, "gateway0.service.test: ") {
			t.Errorf("it waits for %v", e.Err)
		}
	})
}

// hang has the requests for some gateways' tunnels wait without an answer.
func hang(gateways ...string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if slices.Contains(gateways, strings.TrimPrefix(r.URL.Path, "/tunnel/")) {
				<-r.Context().Done()
				return
			}
			next.ServeHTTP(w, r)
		})
	}
}

func TestAGatewayThatDoesNotAnswerIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var hellos atomic.Int32
		s := start(t, httvpstest.Options{Memory: true, Apart: true, Gateways: 4, Wrap: hang("0", "1"), Admit: func(int, wire.Hello) wire.Reject {
			hellos.Add(1)
			return wire.Reject{}
		}})
		store := enrolled(t, s)
		began := time.Now()
		d := run(t, s, store)
		if e := d.next(httvps.Connected); e.Gateway != s.Gateway(2) {
			t.Errorf("connected to %s", e.Gateway)
		}
		if took := time.Since(began); took < 600*time.Millisecond || took > time.Second {
			t.Errorf("it took %v", took)
		}
		<-time.After(time.Minute)
		if got := hellos.Load(); got != 1 || s.Sessions() != 1 {
			t.Errorf("it introduced itself %d times and has %d sessions", got, s.Sessions())
		}
	})
}

func TestAGatewayThatDoesNotDecideIsNotWaitedForWhereThereIsAnother(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true, Apart: true, Gateways: 2, Admit: func(gateway int, _ wire.Hello) wire.Reject {
			if gateway == 0 {
				<-time.After(10 * time.Second)
			}
			return wire.Reject{}
		}})
		store := enrolled(t, s)
		began := time.Now()
		d := run(t, s, store)
		if e := d.next(httvps.Connected); e.Gateway != s.Gateway(1) || time.Since(began) > 7*time.Second {
			t.Errorf("connected to %s after %v", e.Gateway, time.Since(began))
		}
		<-time.After(time.Minute)
		s.SetLive(0) // alone, it has all the time that there is
		s.Disconnect(wire.CodeShutdown)
		d.next(httvps.Disconnected)
	})
}

// Gateways whose network is gone do not hold up the one that answers.
func TestGatewaysThatAreBlockedDoNotHoldUpTheOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true, Apart: true, Gateways: 8})
		store := enrolled(t, s)
		var blocked []string
		for i := range 7 {
			blocked = append(blocked, strings.TrimSuffix(strings.TrimPrefix(s.Gateway(i), "wss://"), "/tunnel/"+string(rune('0'+i))))
		}
		s.Block(blocked...)
		began := time.Now()
		if e := run(t, s, store).next(httvps.Connected); e.Gateway != s.Gateway(7) || time.Since(began) > time.Second {
			t.Errorf("connected to %s after %v", e.Gateway, time.Since(began))
		}
	})
}

func TestTheAccountIsToldAsTheServiceHasIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now().UTC()
		want := &httvps.Plan{
			Name: "home", Status: "active", StartsAt: now, EndsAt: now.Add(36 * time.Hour), MaxDevices: 3, MaxSessions: 2, Regions: []string{"nl"},
			SpeedDown: 8_000_000, Quota: &httvps.Quota{Bytes: 100, Used: 60, Left: 40, ResetsAt: now.Add(time.Hour)},
		}
		s := start(t, httvpstest.Options{Memory: true, Plan: want})
		client, err := httvps.NewClient(httvps.Config{Store: enrolled(t, s), NetDial: s.NetDial})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // without Run, with a token that is new each time
			a, err := client.Account(t.Context())
			if err != nil || !a.Allowed || a.UserName != "ann" || a.Plan == nil {
				t.Fatalf("%+v, %v", a, err)
			}
			if diff := cmp.Diff(want, a.Plan); diff != "" {
				t.Error(diff)
			}
			if days, ok := a.Plan.DaysLeft(time.Now()); days != 2 || !ok {
				t.Errorf("%d days left, %v", days, ok)
			}
			if days, ok := a.Plan.DaysLeft(now.AddDate(1, 0, 0)); days != 0 || !ok {
				t.Errorf("%d days left of what has ended, %v", days, ok)
			}
		}
		none, err := httvps.NewClient(httvps.Config{Store: httvps.NewMemoryStore()})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := none.Account(t.Context()); !errors.Is(err, httvps.ErrNotEnrolled) {
			t.Errorf("without a device: %v", err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.Block("service.test")
		if _, err := client.Account(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("without an answer: %v", err)
		}
	})
}

// The system has its own names for what nobody answers at.
func TestAnAccountOfAServiceThatIsGoneIsUnreachable(t *testing.T) {
	s := start(t, httvpstest.Options{})
	store := enrolled(t, s)
	client, err := httvps.NewClient(httvps.Config{Store: store, NetDial: func(context.Context, string, string) (net.Conn, error) {
		return nil, errors.New("no route")
	}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.Account(t.Context())
	if _, ok := errors.AsType[*httvps.UnreachableError](err); !ok || !strings.Contains(err.Error(), "no route") {
		t.Errorf("%v", err)
	}
}
