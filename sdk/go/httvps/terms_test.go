package httvps_test

import (
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// kinds returns what has happened so far, but for what it does not matter.
func (d *device) kinds(but ...httvps.EventKind) (kinds []httvps.EventKind) {
	synctest.Wait()
events:
	for len(d.events) > 0 {
		e := <-d.events
		for _, kind := range but {
			if e.Kind == kind {
				continue events
			}
		}
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

func TestASessionOutlivesItsFirstToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, _, conn := lastingSession(t, httvpstest.Options{TokenLife: 10 * time.Minute, EndWithToken: true})
		for range 6 {
			<-time.After(10 * time.Minute)
			echoed(t, conn, "still there")
		}
		if n, issued := s.Reauths(), len(s.Issued()); n < 8 || n != issued-1 {
			t.Errorf("%d of %d tokens were shown to the gateway, all but the first are to be", n, issued)
		}
		if got := d.kinds(httvps.Resumed); len(got) > 0 {
			t.Errorf("events: %v", got)
		}
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

// What is shown while there is no connection reaches the gateway over the next one.
func TestATokenIsShownOverTheNextConnection(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var blocked atomic.Bool
		s, d, _, conn := lastingSession(t, httvpstest.Options{
			TokenLife: 10 * time.Minute, EndWithToken: true,
			Wrap: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if blocked.Load() && strings.HasPrefix(r.URL.Path, "/tunnel/") {
						http.Error(w, "blocked", http.StatusBadGateway)
						return
					}
					next.ServeHTTP(w, r)
				})
			},
		})
		for s.Reauths() < 5 {
			before := len(s.Issued())
			for len(s.Issued()) == before { // a token is renewed while the way is blocked
				blocked.Store(true)
				s.Break()
				<-time.After(10 * time.Second)
				blocked.Store(false)
				d.next(httvps.Resumed)
			}
			synctest.Wait()
		}
		echoed(t, conn, "still there")
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

func TestASessionWhoseTokensAreRefusedEndsWithTheOneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, up, _ := lastingSession(t, httvpstest.Options{
			TokenLife: 10 * time.Minute, EndWithToken: true, JudgeToken: func() wire.Code { return wire.CodeDeviceMismatch },
		})
		began := time.Now()
		if e := d.next(httvps.Disconnected); e.Session != up.Session {
			t.Errorf("ended: %+v", e)
		}
		if took := time.Since(began); took != 10*time.Minute {
			t.Errorf("it ended after %v, want 10m", took)
		}
		if n := s.Reauths(); n < 1 || n > 2 { // the second one as late as 8 to 12 minutes
			t.Errorf("%d tokens were shown, each is to be once", n)
		}
		if next := d.next(httvps.Connected); next.Session == up.Session {
			t.Error("it goes on")
		}
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

func TestATokenThatCouldNotBeJudgedIsShownAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var asked []time.Time
		s, d, _, conn := lastingSession(t, httvpstest.Options{
			TokenLife: 10 * time.Minute, EndWithToken: true,
			JudgeToken: func() wire.Code {
				if asked = append(asked, time.Now()); len(asked) < 3 {
					return wire.CodeRetryLater
				}
				return wire.CodeNoError
			},
		})
		<-time.After(15 * time.Minute)
		echoed(t, conn, "still there")
		if len(asked) < 3 || asked[1].Sub(asked[0]) != 15*time.Second || asked[2].Sub(asked[1]) != 15*time.Second {
			t.Errorf("asked at %v", asked)
		}
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

// A gateway that knows nothing of that keeps its sessions as before.
func TestAGatewayWithoutTermsIsShownNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, d, _, conn := lastingSession(t, httvpstest.Options{TokenLife: 10 * time.Minute, NoTerms: true})
		<-time.After(30 * time.Minute)
		echoed(t, conn, "still there")
		if n := s.Reauths(); n != 0 {
			t.Errorf("%d tokens were shown", n)
		}
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

func TestOtherLimitsAndNoticesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const ahead = 5 * time.Minute // the gateway's clock
		s, d, up, _ := lastingSession(t, httvpstest.Options{GatewaysAhead: ahead})
		if want := (httvps.Limits{Streams: 256, UDP: 64}); up.Limits != want {
			t.Errorf("connected with %+v", up.Limits)
		}
		until := time.Now().Add(time.Hour)
		s.SetLimits(func(terms *wire.SessionTerms) {
			terms.Limits.MaxStreams, terms.Limits.SpeedDown, terms.Deadline = 10, 5_000_000, until.Add(ahead)
		})
		e := d.next(httvps.LimitsChanged)
		want := httvps.Limits{Streams: 10, UDP: 10, SpeedDown: 5_000_000, Until: e.Limits.Until}
		if e.Limits != want || e.Session != up.Session || d.Status().Limits != want {
			t.Errorf("told %+v, the status has %+v, want %+v", e, d.Status().Limits, want)
		}
		if off := e.Limits.Until.Sub(until).Abs(); off > time.Millisecond {
			t.Errorf("the end is off by %v", off)
		}
		s.Notify(wire.Notice{Code: wire.CodeQuotaExceeded, Left: 5, Quota: 100})
		s.Notify(wire.Notice{Code: 99, At: until.Add(ahead)})
		if e := d.next(httvps.Noticed); e.Notice != (httvps.Notice{Code: "quota_exceeded", Left: 5, Quota: 100}) || e.Session != up.Session {
			t.Errorf("told %+v", e)
		}
		if e := d.next(httvps.Noticed); e.Notice.Code != "internal" || e.Notice.At.Sub(until).Abs() > time.Millisecond {
			t.Errorf("told %+v, want %v", e, until)
		}
		d.stop()
		_ = d.wait()
		s.Close()
	})
}

func TestASessionWithoutAConnectionIsNotConnected(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var blocked atomic.Bool
		s, d, up, conn := lastingSession(t, httvpstest.Options{Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if blocked.Load() {
					http.Error(w, "blocked", http.StatusBadGateway)
					return
				}
				next.ServeHTTP(w, r)
			})
		}})
		if now := d.Status(); !now.Connected || now.Degraded {
			t.Errorf("connected: %+v", now)
		}
		blocked.Store(true)
		s.Break()
		e := d.next(httvps.Degraded)
		if e.Session != up.Session || e.Gateway != up.Gateway || e.Err == nil {
			t.Errorf("degraded: %+v", e)
		}
		<-time.After(20 * time.Second)
		if now := d.Status(); now.Connected || !now.Degraded || now.Session != up.Session || now.Err == nil || now.Streams != 1 {
			t.Errorf("without a connection: %+v", now)
		}
		blocked.Store(false)
		d.next(httvps.Resumed)
		if now := d.Status(); !now.Connected || now.Degraded || now.Err != nil {
			t.Errorf("with another one: %+v", now)
		}
		echoed(t, conn, "after")

		blocked.Store(true)
		s.Break()
		d.next(httvps.Degraded)
		d.next(httvps.Disconnected)
		if now := d.Status(); now.Connected || now.Degraded || now.Session != "" {
			t.Errorf("when it was not to be had: %+v", now)
		}
		d.stop()
		_ = d.wait()
		s.Close()
	})
}
