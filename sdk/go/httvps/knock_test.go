package httvps_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/knock"
	"github.com/httvps/httvps/sdk/go/wire"
)

// dials counts the requests for tunnels.
func dials(n *atomic.Int32) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, "/tunnel/") {
				n.Add(1)
			}
			next.ServeHTTP(w, r)
		})
	}
}

func TestAWrongClockKeepsNobodyOut(t *testing.T) {
	for name, tc := range map[string]struct {
		ahead time.Duration
		first int32 // dials until the first session
	}{
		"a day behind":         {ahead: 24 * time.Hour, first: 2},
		"a day ahead":          {ahead: -24 * time.Hour, first: 2},
		"ten years behind":     {ahead: 10 * 365 * 24 * time.Hour, first: 2},
		"sixteen minutes":      {ahead: 16 * time.Minute, first: 2},
		"as far as is allowed": {ahead: 14 * time.Minute, first: 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int32
				s := start(t, httvpstest.Options{Memory: true, GatewaysAhead: tc.ahead, Wrap: dials(&n)})
				d := run(t, s, enrolled(t, s))
				d.next(httvps.Connected)
				if got := n.Load(); got != tc.first {
					t.Errorf("the first session took %d dials, want %d", got, tc.first)
				}
				// The client remembers: the next session takes one.
				s.Disconnect(wire.CodeShutdown)
				d.next(httvps.Disconnected)
				d.next(httvps.Connected)
				if got := n.Load() - tc.first; got != 1 {
					t.Errorf("the second session took %d dials, want 1", got)
				}
			})
		})
	}
}

func TestARefusedKnockIsTriedAgainOnlyForAnotherClock(t *testing.T) {
	for name, tc := range map[string]struct {
		date  func() string
		dials int32
	}{
		"no Date":                    {date: func() string { return "" }, dials: 1},
		"the time as it is":          {date: func() string { return time.Now().UTC().Format(http.TimeFormat) }, dials: 1},
		"nine minutes":               {date: func() string { return time.Now().Add(-9 * time.Minute).UTC().Format(http.TimeFormat) }, dials: 1},
		"a day, and refused for all": {date: func() string { return time.Now().AddDate(0, 0, 1).UTC().Format(http.TimeFormat) }, dials: 2},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var n atomic.Int32
				s := start(t, httvpstest.Options{Memory: true, Wrap: func(next http.Handler) http.Handler {
					return dials(&n)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
						if !strings.HasPrefix(r.URL.Path, "/tunnel/") {
							next.ServeHTTP(w, r)
							return
						}
						w.Header().Set("Date", tc.date())
						http.NotFound(w, r)
					}))
				}})
				d := run(t, s, enrolled(t, s))
				waiting := d.next(httvps.Waiting)
				if got := n.Load(); got != tc.dials {
					t.Errorf("%d dials in one attempt, want %d", got, tc.dials)
				}
				if _, ok := errors.AsType[*httvps.StrangerError](waiting.Err); !ok {
					t.Errorf("the client waits for %v", waiting.Err)
				}
				d.stop()
			})
		})
	}
}

func TestTheKnockOfTheTokenComesBeforeTheProfiles(t *testing.T) {
	s := start(t, httvpstest.Options{})
	store := enrolled(t, s)
	s.RotateKnock()
	s.RotateKnock() // what came with enrolment is in force no more
	run(t, s, store).next(httvps.Connected)
}

// without removes the knock from what the service answers at path.
func without(path string) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.HasSuffix(r.URL.Path, path) {
				next.ServeHTTP(w, r)
				return
			}
			next.ServeHTTP(&dropped{ResponseWriter: w}, r)
		})
	}
}

// dropped is an answer in JSON that loses its knock.
type dropped struct{ http.ResponseWriter }

func (d *dropped) Write(p []byte) (int, error) {
	var fields map[string]any
	if err := json.Unmarshal(p, &fields); err != nil {
		return 0, err
	}
	delete(fields, "knock")
	text, err := json.Marshal(fields)
	if err != nil {
		return 0, err
	}
	if _, err := d.ResponseWriter.Write(text); err != nil {
		return 0, err
	}
	return len(p), nil
}

func TestTheKnockOfTheProfileServesWhereTokensBringNone(t *testing.T) {
	s := start(t, httvpstest.Options{Wrap: without("/auth/token")})
	run(t, s, enrolled(t, s)).next(httvps.Connected)
}

func TestTheKnockOfTheTokenServesAProfileWithoutOne(t *testing.T) {
	s := start(t, httvpstest.Options{Wrap: without("/devices/enroll")})
	store := enrolled(t, s)
	if profile, err := store.Profile(t.Context()); err != nil || profile.Knock != nil {
		t.Fatalf("the profile has the knock %v, %v", profile.Knock, err)
	}
	run(t, s, store).next(httvps.Connected)
}

func TestWithoutAKnockThereIsASite(t *testing.T) {
	s := start(t, httvpstest.Options{Wrap: func(next http.Handler) http.Handler {
		return without("/auth/token")(without("/devices/enroll")(next))
	}})
	d := run(t, s, enrolled(t, s))
	if e := d.next(httvps.Waiting); !strings.Contains(e.Err.Error(), "404") {
		t.Errorf("the client waits for %v", e.Err)
	}
}

func TestTheProfileKeepsTheKnockOfEnrolment(t *testing.T) {
	s := start(t, httvpstest.Options{})
	profile, err := enrolled(t, s).Profile(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if profile.Knock == nil || profile.Knock.Cookie != knock.DefaultCookie || profile.Knock.Key == (knock.Key{}) {
		t.Fatalf("the profile has the knock %v", profile.Knock)
	}
	text, err := json.Marshal(profile)
	if err != nil {
		t.Fatal(err)
	}
	var again httvps.Profile
	if err := json.Unmarshal(text, &again); err != nil || *again.Knock != *profile.Knock {
		t.Errorf("read back it has %v, %v", again.Knock, err)
	}
	for name, spoil := range map[string]func(*httvps.Knock){
		"no key":                 func(k *httvps.Knock) { k.Key = knock.Key{} },
		"no cookie":              func(k *httvps.Knock) { k.Cookie = "" },
		"a cookie with a header": func(k *httvps.Knock) { k.Cookie = "a\r\nb" },
	} {
		bad := again
		spoiled := *again.Knock
		spoil(&spoiled)
		bad.Knock = &spoiled
		if bad.Validate() == nil {
			t.Errorf("a profile with %s is valid", name)
		}
	}
}
