package httvps_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
)

func TestAnotherNetworkEndsTheWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var away atomic.Bool
		s := start(t, httvpstest.Options{Memory: true, Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if away.Load() {
					http.Error(w, "away", http.StatusBadGateway)
					return
				}
				next.ServeHTTP(w, r)
			})
		}})
		store := enrolled(t, s)
		away.Store(true)
		d := run(t, s, store, func(c *httvps.Config) { c.MinBackoff, c.MaxBackoff = 24*time.Hour, 24*time.Hour })
		for d.next(httvps.Waiting).Wait < time.Hour { // with one chance in 24
		}
		away.Store(false)
		synctest.Wait()
		from := time.Now()
		d.NetworkChanged()
		d.next(httvps.Connected)
		if took := time.Since(from); took > time.Minute {
			t.Errorf("connected after %v", took)
		}
		d.NetworkChanged() // the session is fine
		<-time.After(time.Hour)
		if st := d.Status(); !st.Connected || time.Since(st.Since) < time.Hour {
			t.Errorf("a session that was fine: %+v", st)
		}
		d.stop()
		_ = d.wait()
		s.Close()
	})
}
