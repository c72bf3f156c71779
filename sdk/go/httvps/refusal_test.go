package httvps_test

import (
	"errors"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/wire"
)

func TestAPauseThatWasAskedForIsKept(t *testing.T) {
	for name, tc := range map[string]struct {
		opts func(busy *atomic.Bool) httvpstest.Options
		code string
	}{
		"by a gateway": {func(busy *atomic.Bool) httvpstest.Options {
			return httvpstest.Options{Admit: func(int, wire.Hello) wire.Reject {
				if busy.Swap(false) {
					return wire.Reject{Code: wire.CodeRetryLater, RetryAfter: 45 * time.Second}
				}
				return wire.Reject{}
			}}
		}, "retry_later"},
		"by the control plane": {func(busy *atomic.Bool) httvpstest.Options {
			return httvpstest.Options{Wrap: func(next http.Handler) http.Handler {
				return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/api/v1/auth/token" && busy.Swap(false) {
						httvpstest.Problem(w, http.StatusTooManyRequests, "too_many_requests", 45*time.Second)
						return
					}
					next.ServeHTTP(w, r)
				})
			}}
		}, "too_many_requests"},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var busy atomic.Bool
				busy.Store(true)
				opts := tc.opts(&busy)
				opts.Memory = true
				s := start(t, opts)
				d := run(t, s, enrolled(t, s))
				e := d.next(httvps.Waiting)
				if e.Wait < 45*time.Second || e.Wait > 68*time.Second {
					t.Errorf("waits %v, want 45 s and up to a half more", e.Wait)
				}
				if refused, ok := errors.AsType[*httvps.RefusedError](e.Err); !ok || refused.Code != tc.code {
					t.Errorf("waits for %v", e.Err)
				}
				d.next(httvps.Connected)
			})
		})
	}
}

func TestATokenThatEndedASessionIsNotUsedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true})
		d := run(t, s, enrolled(t, s))
		d.next(httvps.Connected)
		s.Disconnect(wire.CodeTokenExpired)
		d.next(httvps.Connected)
		if got := len(s.Issued()); got != 2 {
			t.Errorf("%d tokens, want 2", got)
		}
	})
}

func TestADeviceThatTheGatewayDoesNotBelieveGetsOneFreshToken(t *testing.T) {
	t.Run("and is believed then", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, httvpstest.Options{Memory: true})
			d := run(t, s, enrolled(t, s))
			d.next(httvps.Connected)
			s.ExpireTokens()
			s.Disconnect(wire.CodeShutdown)
			d.next(httvps.Connected)
			if got := len(s.Issued()); got != 2 {
				t.Errorf("%d tokens, want 2", got)
			}
		})
	})
	for _, code := range []wire.Code{wire.CodeInvalidToken, wire.CodeTokenExpired} {
		t.Run("and is told "+code.String()+" again", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, httvpstest.Options{Memory: true, Gateways: 3, Admit: func(int, wire.Hello) wire.Reject {
					return wire.Reject{Code: code}
				}})
				d := run(t, s, enrolled(t, s))
				refused, ok := errors.AsType[*httvps.RefusedError](d.wait())
				if !ok || refused.Code != code.String() {
					t.Errorf("Run returned %v", d.wait())
				}
				if got := len(s.Issued()); got != 2 {
					t.Errorf("%d tokens, want 2", got)
				}
			})
		})
	}
	t.Run("but another gateway may believe it", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s := start(t, httvpstest.Options{Memory: true, Gateways: 2, Admit: func(gateway int, _ wire.Hello) wire.Reject {
				if gateway == 0 {
					return wire.Reject{Code: wire.CodeInvalidToken}
				}
				return wire.Reject{}
			}})
			d := run(t, s, enrolled(t, s))
			if e := d.next(httvps.Connected); e.Gateway != s.Gateway(1) {
				t.Errorf("connected to %s", e.Gateway)
			}
		})
	})
}

var finalCodes = []wire.Code{
	wire.CodeDeviceRevoked, wire.CodeDeviceMismatch, wire.CodeDeviceNotFound, wire.CodeUserDisabled,
	wire.CodeNoActiveSubscription, wire.CodeSubscriptionExpired, wire.CodeQuotaExceeded, wire.CodeDeviceLimit,
}

func TestEveryCodeIsFinalOrNotWhoeverSaysIt(t *testing.T) {
	final := make(map[wire.Code]bool)
	for _, code := range finalCodes {
		final[code] = true
	}
	check := func(t *testing.T, d *device, code wire.Code) {
		t.Helper()
		if !final[code] {
			e := d.next(httvps.Waiting)
			if e.Err == nil {
				t.Error("waiting without a reason")
			}
			return
		}
		if e := d.next(httvps.Refused); !errors.Is(e.Err, d.wait()) {
			t.Errorf("event %v, Run %v", e.Err, d.wait())
		}
		if refused, ok := errors.AsType[*httvps.RefusedError](d.wait()); !ok || refused.Code != code.String() {
			t.Errorf("Run returned %v, want %v", d.wait(), code)
		}
	}
	for code := wire.CodeDeviceRevoked; code <= wire.CodeNoOutlineNodesAvailable; code++ {
		t.Run(code.String()+" by the control plane", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, httvpstest.Options{Memory: true, Wrap: func(next http.Handler) http.Handler {
					return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if r.URL.Path == "/api/v1/auth/token" {
							httvpstest.Problem(w, http.StatusForbidden, code.String(), 0)
							return
						}
						next.ServeHTTP(w, r)
					})
				}})
				check(t, run(t, s, enrolled(t, s)), code)
			})
		})
		t.Run(code.String()+" by a gateway", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, httvpstest.Options{Memory: true, Admit: func(int, wire.Hello) wire.Reject {
					return wire.Reject{Code: code}
				}})
				check(t, run(t, s, enrolled(t, s)), code)
			})
		})
		t.Run(code.String()+" in a session", func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, httvpstest.Options{Memory: true})
				d := run(t, s, enrolled(t, s))
				d.next(httvps.Connected)
				s.Disconnect(code)
				check(t, d, code)
			})
		})
	}
}

func TestARefusalAtRenewalEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var revoked atomic.Bool
		s := start(t, httvpstest.Options{Memory: true, Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if revoked.Load() && r.URL.Path == "/api/v1/auth/token" {
					httvpstest.Problem(w, http.StatusForbidden, "device_revoked", 0)
					return
				}
				next.ServeHTTP(w, r)
			})
		}})
		d := run(t, s, enrolled(t, s))
		d.next(httvps.Connected)
		revoked.Store(true)
		if refused, ok := errors.AsType[*httvps.RefusedError](d.wait()); !ok || refused.Code != "device_revoked" {
			t.Errorf("Run returned %v", d.wait())
		}
		synctest.Wait()
		if s.Sessions() != 0 {
			t.Error("the session is still up")
		}
	})
}

func TestADeviceThatTheServiceDoesNotKnowIsRefused(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true})
		profile, err := enrolled(t, s).Profile(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		stranger := httvps.NewMemoryStore() // the same profile with another key
		_ = stranger.SaveProfile(t.Context(), profile)
		d := run(t, s, stranger)
		if refused, ok := errors.AsType[*httvps.RefusedError](d.wait()); !ok || refused.Code != "invalid_token" {
			t.Errorf("Run returned %v", d.wait())
		}
	})
}
