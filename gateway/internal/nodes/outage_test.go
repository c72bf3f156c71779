package nodes

import (
	"context"
	"crypto/ed25519"
	"encoding/hex"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/httvps/httvps/internal/reason"
	"github.com/httvps/httvps/internal/ticket"
	"github.com/httvps/httvps/sdk/go/knock"
)

func TestABreakerOpensAfterFiveFailuresAndTriesAgainWithOneQuestion(t *testing.T) {
	now := time.Now()
	var heard []bool
	b := breaker{now: func() time.Time { return now }, changed: func(away bool) { heard = append(heard, away) }}
	fail := func(n int) {
		t.Helper()
		for range n {
			if !b.ask() {
				t.Fatal("no question may be asked")
			}
			b.asked(false)
		}
	}
	fail(4)
	b.ask()
	b.asked(true)
	fail(4)
	if b.state() != BreakerClosed {
		t.Fatal("open after four failures")
	}
	fail(1)
	if b.state() != BreakerOpen || b.ask() {
		t.Fatal("not open after five")
	}
	now = now.Add(breakerPause - 1)
	b.beaten(true) // as all along: that says nothing about questions
	if b.ask() {
		t.Fatal("asked within the pause")
	}
	now = now.Add(1)
	if b.state() != BreakerHalfOpen || !b.ask() || b.ask() {
		t.Fatal("after the pause one question may be asked, and one only")
	}
	b.dropped()
	fail(1)
	if b.ask() {
		t.Fatal("asked right after the try failed")
	}
	now = now.Add(breakerPause)
	b.ask()
	b.asked(true)
	if b.state() != BreakerClosed {
		t.Fatal("not closed by the answer")
	}

	// Heartbeats find it out where nobody asks anything, both ways.
	for range breakerFailures {
		b.beaten(false)
	}
	if b.ask() {
		t.Fatal("not open after five heartbeats")
	}
	b.beaten(true)
	if !b.ask() {
		t.Fatal("not closed by a heartbeat, of which some had failed")
	}
	if want := []bool{true, false, true, false}; !slices.Equal(heard, want) {
		t.Errorf("told %v, want %v", heard, want)
	}
}

// A refusal is an answer: a gateway that is none any more must not go on by itself.
func TestOnlyAControlPlaneThatDoesNotAnswerIsAway(t *testing.T) {
	for status, want := range map[int]bool{200: true, 400: true, 401: true, 403: true, 404: true, 408: false, 429: false, 500: false, 503: false} {
		err := error(&StatusError{Status: status})
		if status == 200 {
			err = nil
		}
		if got := answers(err); got != want {
			t.Errorf("%d is an answer: %v", status, got)
		}
	}
	if answers(errors.New("no route to host")) {
		t.Error("nothing is an answer")
	}
}

// outage is a control plane that can be away. It allows every device unless decide
// says something else.
type outage struct {
	*local
	away     atomic.Bool
	decide   func(body map[string]any) any
	admitted func(body map[string]any) any // nil: there is no such call
	snapshot string

	mu     sync.Mutex // guards the following fields
	asked  int
	atOnce int
	most   int
	ended  []string
	told   []map[string]any
}

func newOutage(t *testing.T, change func(*Config)) *outage {
	t.Helper()
	o := &outage{decide: func(map[string]any) any { return allowed }, snapshot: `{"close":[]}`}
	o.local = newLocalFor(t, o.serve, func(cfg *Config) {
		cfg.Grace = 4 * time.Hour
		change(cfg)
	})
	return o
}

var allowed = map[string]any{
	"allowed": true, "user_id": "u", "plan_id": "p", "subscription_id": "s", "limits": map[string]any{"max_sessions": 2, "max_streams": 9, "max_udp": 1, "speed_up_bps": 8000},
}

func (o *outage) serve(w http.ResponseWriter, r *http.Request) {
	if o.away.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	var body map[string]any
	_ = json.NewDecoder(r.Body).Decode(&body)
	var answer any
	switch r.URL.Path {
	case "/api/v1/auth/validate-device":
		o.mu.Lock()
		o.asked++
		o.atOnce++
		o.most = max(o.most, o.atOnce)
		o.mu.Unlock()
		answer = o.decide(body)
		o.mu.Lock()
		o.atOnce--
		o.mu.Unlock()
	case "/api/v1/gateway/sessions/admitted":
		if o.admitted == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		o.mu.Lock()
		for _, s := range body["sessions"].([]any) {
			o.told = append(o.told, s.(map[string]any))
		}
		o.mu.Unlock()
		answer = o.admitted(body)
	case "/api/v1/gateway/sessions/end":
		o.mu.Lock()
		for _, s := range body["sessions"].([]any) {
			o.ended = append(o.ended, s.(map[string]any)["session_id"].(string))
		}
		o.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
		return
	case "/api/v1/gateway/snapshot":
		say(w, o.snapshot)
		return
	case "/api/v1/gateway/heartbeat":
		answer = map[string]any{"interval_ms": 5000}
	case "/api/v1/gateway/config":
		answer = map[string]any{
			"service_id": serviceID, "issuer": issuer, "jwks": ticket.NewJWKS(publicOfService),
			"knock": Knock{Cookie: "sid", Keys: []knock.Key{{1}}},
		}
	case "/api/v1/gateway/events":
		w.Header().Set("Content-Type", typeSSE)
		say(w, "id: 5\n\n")
		<-r.Context().Done()
		return
	default:
		w.WriteHeader(http.StatusNotFound)
		return
	}
	_ = json.NewEncoder(w).Encode(answer)
}

var publicOfService = ed25519.NewKeyFromSeed(make([]byte, 32)).Public().(ed25519.PublicKey)

// leave has the control plane go away, and the gateway notice.
func (o *outage) leave(t *testing.T) {
	t.Helper()
	o.away.Store(true)
	for range breakerFailures {
		o.n.breaker.beaten(false)
	}
	if !o.n.StandsIn() {
		t.Fatal("the gateway does not stand in")
	}
}

func ask(device, session byte) Question {
	return Question{Session: [16]byte{session}, Device: [16]byte{device}, Thumbprint: "t", Generation: 1}
}

// during runs the node for as long as f.
func (o *outage) during(t *testing.T, f func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { o.n.Run(ctx) })
	defer running.Wait()
	defer cancel()
	<-o.n.Ready()
	synctest.Wait()
	f()
}

func TestOneQuestionAboutADeviceIsAskedAtATime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := newOutage(t, func(*Config) {})
		o.decide = func(map[string]any) any {
			<-time.After(100 * time.Millisecond)
			return allowed
		}
		var asking sync.WaitGroup
		for i := range 10 {
			asking.Go(func() {
				if d, err := o.n.Validate(t.Context(), ask(1, byte(i))); err != nil || !d.Allowed {
					t.Errorf("Validate = %+v, %v", d, err)
				}
			})
		}
		asking.Wait()
		if o.asked != 10 || o.most != 1 {
			t.Errorf("%d questions, %d at once; want each session's own, one at a time", o.asked, o.most)
		}

		// A refusal, and that nobody answers, is shared by who waited.
		for name, answer := range map[string]func(map[string]any) any{
			"refused": func(map[string]any) any {
				<-time.After(100 * time.Millisecond)
				return map[string]any{"allowed": false, "reason": "device_revoked"}
			},
			"no answer": func(map[string]any) any {
				<-time.After(time.Second)
				return "nonsense"
			},
		} {
			o.asked, o.decide = 0, answer
			for i := range 10 {
				asking.Go(func() {
					if d, err := o.n.Validate(t.Context(), ask(byte(2+len(name)), byte(i))); err == nil && d.Reason != reason.DeviceRevoked {
						t.Errorf("Validate = %+v, %v", d, err)
					}
				})
			}
			asking.Wait()
			if o.asked != 1 {
				t.Errorf("%s: asked %d times, want once for all", name, o.asked)
			}
		}
	})
}

func TestWhoGetsInWhileTheControlPlaneIsAway(t *testing.T) {
	for name, tc := range map[string]struct {
		grace    time.Duration
		question func(*Question)
		before   func(ctx context.Context, o *outage) // while it is there, after the device had a session
		wait     time.Duration                        // of the outage
		here     int                                  // sessions of the user
		want     string
	}{
		"a device that is known":                 {want: StoodIn},
		"with less than another grace":           {grace: time.Hour, wait: 59 * time.Minute, want: StoodIn},
		"after the grace":                        {wait: 4*time.Hour + time.Second, want: GraceOver},
		"after another grace":                    {grace: time.Hour, wait: time.Hour + time.Second, want: GraceOver},
		"without any grace":                      {grace: -1, want: ""},
		"a device that was never here":           {question: func(q *Question) { q.Device[0]++ }, want: StrangerHere},
		"with another key":                       {question: func(q *Question) { q.Thumbprint = "other" }, want: StrangerHere},
		"of another generation":                  {question: func(q *Question) { q.Generation++ }, want: StrangerHere},
		"with a token that is over":              {question: func(q *Question) { q.Expired = time.Hour }, want: StoodIn},
		"with one that has been over for longer": {question: func(q *Question) { q.Expired = 4*time.Hour + 1 }, want: TokenTooOld},
		"before the subscription is over":        {wait: 89 * time.Minute, want: StoodIn},
		"after the subscription is over":         {wait: 91 * time.Minute, want: RightOver},
		"one session less than the user may":     {here: 1, want: StoodIn},
		"as many sessions as the user may":       {here: 2, want: TooMany},
		"not seen for a day":                     {before: func(context.Context, *outage) { <-time.After(knownFor + time.Minute) }, want: StrangerHere},
		"revoked": {before: func(ctx context.Context, o *outage) {
			_ = o.n.act(ctx, "", `{"kind":"device.revoked","device_id":"`+uuid.UUID(ask(1, 1).Device).String()+`"}`)
		}, want: StrangerHere},
		"another one revoked": {before: func(ctx context.Context, o *outage) {
			_ = o.n.act(ctx, "", `{"kind":"device.revoked","device_id":"`+uuid.UUID(ask(9, 1).Device).String()+`"}`)
		}, want: StoodIn},
		"its user disabled": {before: func(ctx context.Context, o *outage) { _ = o.n.act(ctx, "", `{"kind":"user.disabled","user_id":"u"}`) }, want: StrangerHere},
		"its user deleted":  {before: func(ctx context.Context, o *outage) { _ = o.n.act(ctx, "", `{"kind":"user.removed","user_id":"u"}`) }, want: StrangerHere},
		"its subscription ended": {before: func(ctx context.Context, o *outage) {
			_ = o.n.act(ctx, "", `{"kind":"subscription.ended","user_id":"u"}`)
		}, want: StrangerHere},
		"another user's subscription ended": {before: func(ctx context.Context, o *outage) {
			_ = o.n.act(ctx, "", `{"kind":"subscription.ended","user_id":"v"}`)
		}, want: StoodIn},
		"the gateway removed":      {before: func(ctx context.Context, o *outage) { _ = o.n.act(ctx, "", `{"kind":"gateway.removed"}`) }, want: StrangerHere},
		"after events were missed": {before: func(ctx context.Context, o *outage) { _ = o.n.catchUp(ctx) }, want: StrangerHere},
		"refused since": {before: func(ctx context.Context, o *outage) {
			o.decide = func(map[string]any) any { return map[string]any{"reason": "device_revoked"} }
			_, _ = o.n.Validate(ctx, ask(1, 2))
		}, want: StrangerHere},
		"refused since for something that passes": {before: func(ctx context.Context, o *outage) {
			o.decide = func(map[string]any) any { return map[string]any{"reason": "session_limit"} }
			_, _ = o.n.Validate(ctx, ask(1, 2))
		}, want: StoodIn},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var results []string
				o := newOutage(t, func(cfg *Config) {
					cfg.Dir = t.TempDir()
					cfg.StoodIn = func(result string) { results = append(results, result) }
					cfg.Sessions = func(user string) int {
						if user != "u" {
							t.Errorf("asked for the sessions of %q", user)
						}
						return tc.here
					}
					switch {
					case tc.grace < 0:
						cfg.Grace = 0
					case tc.grace > 0:
						cfg.Grace = tc.grace
					}
				})
				terms := maps.Clone(allowed)
				if strings.Contains(name, "subscription is over") {
					terms["expires_at"] = time.Now().Add(90 * time.Minute)
				}
				o.decide = func(map[string]any) any { return terms }
				if d, err := o.n.Validate(t.Context(), ask(1, 1)); err != nil || !d.Allowed {
					t.Fatalf("Validate = %+v, %v", d, err)
				}
				if tc.before != nil {
					tc.before(t.Context(), o)
				}
				o.n.memory.answered()
				q := ask(1, 3)
				if tc.question != nil {
					tc.question(&q)
				}
				if d, err := o.n.StandIn(t.Context(), q); !errors.Is(err, ErrUndecided) || d.Allowed || len(results) > 0 {
					t.Errorf("while the control plane is there: %+v, %v", d, err)
				}
				if tc.grace < 0 {
					o.away.Store(true)
					for range breakerFailures {
						o.n.breaker.beaten(false)
					}
				} else {
					o.leave(t)
				}
				<-time.After(tc.wait)
				d, err := o.n.StandIn(t.Context(), q)
				got := ""
				if len(results) > 0 {
					got = results[0]
				}
				if got != tc.want || (err == nil) != (tc.want == StoodIn) {
					t.Fatalf("StandIn = %+v, %v: %q, want %q", d, err, got, tc.want)
				}
				if err == nil && (!d.Allowed || d.User != "u" || d.MaxStreams != 9 || d.SpeedUp != 8000) {
					t.Errorf("terms %+v, want those that were decided last", d)
				}
				if told := o.n.Told(q.Session); told != (tc.want != StoodIn) {
					t.Errorf("the control plane knows of the session: %v", told)
				}
			})
		})
	}
}

// The process is killed, and starts while the control plane is away.
func TestWhoIsKnownSurvivesARestart(t *testing.T) {
	dir := t.TempDir()
	_, key := newKey(t)
	again := func(t *testing.T, log *strings.Builder) *outage {
		t.Helper()
		return newOutage(t, func(cfg *Config) { cfg.Dir, cfg.Key, cfg.Log = dir, key, logTo(log) })
	}
	var log strings.Builder
	synctest.Test(t, func(t *testing.T) {
		o := again(t, &log)
		o.during(t, func() {
			if _, err := o.n.Validate(t.Context(), ask(1, 1)); err != nil {
				t.Fatal(err)
			}
			if _, err := o.n.Validate(t.Context(), ask(2, 2)); err != nil {
				t.Fatal(err)
			}
			<-time.After(saveInterval)
			synctest.Wait()
			// What takes rights away is on disk at once.
			_ = o.n.act(t.Context(), "", `{"kind":"device.revoked","device_id":"`+uuid.UUID(ask(2, 1).Device).String()+`"}`)
			synctest.Wait()
			onDisk := newMemory(time.Now, o.n.memory.file)
			if err := onDisk.load(); err != nil {
				t.Fatal(err)
			}
			if _, known := onDisk.find(ask(2, 1)); known {
				t.Error("the file still knows a device that was revoked")
			}
			if _, known := onDisk.find(ask(1, 1)); !known {
				t.Error("the file does not know the other one")
			}
			o.leave(t)
			if d, err := o.n.Validate(t.Context(), ask(1, 3)); err != nil || !d.Allowed {
				t.Errorf("Validate = %+v, %v", d, err)
			}
			for _, file := range []string{memoryFile, admittedFile} {
				info, err := os.Stat(filepath.Join(dir, file))
				if err != nil {
					t.Fatal(err)
				}
				if info.Mode() != 0o600 {
					t.Errorf("%s has mode %v", file, info.Mode())
				}
				text, err := os.ReadFile(filepath.Join(dir, file))
				if err != nil {
					t.Fatal(err)
				}
				first := uuid.UUID(ask(1, 1).Device).String()
				for _, secret := range []string{first, `"u"`, "jwks", "sid", hex.EncodeToString([]byte{3}) + "0000"} {
					if strings.Contains(string(text), secret) {
						t.Errorf("%s shows %s to who has it alone", file, secret)
					}
				}
			}
			kill(t, dir) // what would be written at an orderly end is not
		})
	})
	restore(t, dir)
	synctest.Test(t, func(t *testing.T) {
		<-time.After(10 * time.Minute) // the clock begins anew
		o := again(t, &log)
		o.away.Store(true)
		if len(o.n.Knock().Keys) != 1 {
			t.Error("the keys of knocks are lost")
		}
		if _, err := o.n.Verify(t.Context(), "nonsense"); errors.Is(err, ErrNoKeys) {
			t.Error("the keys of tokens are lost")
		}
		if o.n.memory.lastEvent() != "5" {
			t.Errorf("events are followed from %q", o.n.memory.lastEvent())
		}
		o.during(t, func() { // the gateway is ready though nobody answers
			if d, err := o.n.Validate(t.Context(), ask(1, 4)); err != nil || !d.Allowed {
				t.Errorf("a device that is known: %+v, %v", d, err)
			}
			if d, err := o.n.Validate(t.Context(), ask(2, 5)); err == nil {
				t.Errorf("one that was revoked: %+v", d)
			}
			if o.n.Untold() != 2 {
				t.Errorf("%d sessions to be told of, want the one of the last process, too", o.n.Untold())
			}
			o.admitted = func(body map[string]any) any {
				list := body["sessions"].([]any)
				answers := make([]any, len(list))
				for i := range answers {
					answers[i] = allowed
				}
				return map[string]any{"sessions": answers}
			}
			o.away.Store(false)
			<-time.After(time.Minute)
			synctest.Wait()
		})
		if len(o.told) != 2 || o.told[0]["reason"] != endedRestart || o.told[0]["ended_at"] == nil || o.told[1]["ended_at"] != nil || o.told[0]["boot_id"] == o.told[1]["boot_id"] {
			t.Errorf("told %v, want the one of the last process as ended, and the one that goes on", o.told)
		}
		if o.n.Untold() != 0 || exists(t, dir, admittedFile) {
			t.Errorf("%d sessions are still to be told of", o.n.Untold())
		}
	})

	// Another gateway's file, and one that was touched, are as good as none.
	for name, damage := range map[string]func(text []byte) []byte{
		"a byte changed": func(text []byte) []byte { text[len(text)/2] ^= 1; return text },
		"cut off":        func(text []byte) []byte { return text[:len(text)-1] },
		"empty":          func([]byte) []byte { return nil },
		"something else": func([]byte) []byte { return []byte(`{"devices":[]}`) },
	} {
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(filepath.Join(dir, memoryFile))
			if err != nil {
				t.Fatal(err)
			}
			other := t.TempDir()
			if err := os.WriteFile(filepath.Join(other, memoryFile), damage(slices.Clone(text)), 0o600); err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) {
				var log strings.Builder
				o := newOutage(t, func(cfg *Config) { cfg.Dir, cfg.Key, cfg.Log = other, key, logTo(&log) })
				if o.n.Joined() || len(o.n.Knock().Keys) != 0 || !strings.Contains(log.String(), "damaged") {
					t.Errorf("it is taken up: %s", log.String())
				}
			})
		})
	}
	t.Run("another gateway's", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			var log strings.Builder
			o := newOutage(t, func(cfg *Config) { cfg.Dir, cfg.Log = dir, logTo(&log) })
			if len(o.n.Knock().Keys) != 0 || !strings.Contains(log.String(), "another gateway") {
				t.Errorf("it is taken up: %s", log.String())
			}
		})
	})
	t.Run("without grace nothing is kept", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			newOutage(t, func(cfg *Config) { cfg.Dir, cfg.Key, cfg.Grace = dir, key, 0 })
			if exists(t, dir, memoryFile) {
				t.Error("the file is still there")
			}
		})
	})
}

func exists(t *testing.T, dir, name string) bool {
	t.Helper()
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// kill keeps the files as they are, and restore brings them back.
func kill(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{memoryFile, admittedFile} {
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name+".kept"), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func restore(t *testing.T, dir string) {
	t.Helper()
	for _, name := range []string{memoryFile, admittedFile} {
		if err := os.Rename(filepath.Join(dir, name+".kept"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestTheControlPlaneIsToldOfItsAbsenceAndJudges(t *testing.T) {
	for _, old := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			var recognized []string
			o := newOutage(t, func(cfg *Config) {
				cfg.Dir = t.TempDir()
				cfg.Recognized = func(user string) { recognized = append(recognized, user) }
			})
			o.during(t, func() {
				for device := range byte(4) {
					if _, err := o.n.Validate(t.Context(), ask(device, device)); err != nil {
						t.Fatal(err)
					}
				}
				o.leave(t)
				for device := range byte(4) {
					if _, err := o.n.Validate(t.Context(), ask(device, 10+device)); err != nil {
						t.Fatal(err)
					}
				}
				o.n.Ended([16]byte{12}, "carrier_lost")
				if _, err := o.n.Renew(t.Context(), ask(1, 11)); !errors.Is(err, ErrUndecided) {
					t.Errorf("a session is renewed that the control plane does not know: %v", err)
				}
				// Usage is told of sessions that somebody knows only.
				if got, err := o.n.ReportUsage(t.Context(), []Usage{{Session: [16]byte{11}, Sequence: 1}}); err != nil || len(got.Settled) != 0 {
					t.Errorf("ReportUsage = %+v, %v", got, err)
				}
				<-time.After(time.Hour)
				verdict := func(session any) any {
					switch session.(string)[:2] {
					case "0d":
						return map[string]any{"allowed": false, "reason": "device_revoked"}
					default:
						return map[string]any{"allowed": true, "user_id": "of " + session.(string)[:2]}
					}
				}
				o.decide = func(body map[string]any) any { return verdict(body["session_id"]) }
				if !old {
					o.admitted = func(body map[string]any) any {
						var answers []any
						for _, s := range body["sessions"].([]any) {
							answers = append(answers, verdict(s.(map[string]any)["session_id"]))
						}
						// It ends while the answer is on its way.
						o.n.Ended([16]byte{10}, "client_gone")
						return map[string]any{"sessions": answers}
					}
				}
				o.away.Store(false)
				<-time.After(time.Minute)
				synctest.Wait()
				if o.n.StandsIn() || o.n.Untold() != 0 {
					t.Errorf("after a minute: stands in %v, %d sessions untold", o.n.StandsIn(), o.n.Untold())
				}
			})
			if !old {
				if len(o.told) != 4 || o.told[2]["reason"] != "carrier_lost" || o.told[2]["ended_at"] == nil || o.told[3]["subscription_id"] != "s" {
					t.Errorf("told %v", o.told)
				}
				if want := []string{"0a000000000000000000000000000000"}; !slices.Equal(o.ended, want) {
					t.Errorf("told of the ends of %v, want %v", o.ended, want)
				}
			}
			slices.Sort(recognized)
			if want := []string{"of 0a", "of 0b"}; !slices.Equal(recognized, want) {
				t.Errorf("recognized %v, want %v", recognized, want)
			}
			if diff := cmp.Diff([]Closing{{Session: [16]byte{13}, Reason: reason.DeviceRevoked}}, o.closed); diff != "" {
				t.Errorf("closed (-want +got):\n%s", diff)
			}
		})
	}
}

func TestNoMoreSessionsAreLetInThanCanBeToldOf(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var results []string
		o := newOutage(t, func(cfg *Config) {
			cfg.Dir, cfg.MaxEnded = t.TempDir(), 2
			cfg.StoodIn = func(result string) { results = append(results, result) }
		})
		if _, err := o.n.Validate(t.Context(), ask(1, 1)); err != nil {
			t.Fatal(err)
		}
		o.leave(t)
		for session := range byte(3) {
			_, _ = o.n.StandIn(t.Context(), ask(1, 10+session))
		}
		if want := []string{StoodIn, StoodIn, UntoldFull}; !slices.Equal(results, want) {
			t.Errorf("results %v, want %v", results, want)
		}
	})
}

// A network that lets no stream through costs what lies between two polls.
func TestWhereStreamsDoNotGetThroughEventsArePolled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var c *local
		var polls []string
		pages := []string{
			`{"events":[],"version":40,"more":false,"snapshot_needed":true}`,
			`{"events":[{"version":41,"kind":"device.revoked","at":"2030-01-02T03:04:05Z","device_id":"02000000-0000-0000-0000-000000000000","reason":"device_revoked"}],"version":41,"more":true}`,
			`{"events":[{"version":43,"kind":"session.close","session_id":"01000000000000000000000000000000","reason":"session_unknown"}],"version":43,"more":false}`,
		}
		c = newLocal(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/api/v1/gateway/snapshot":
				say(w, `{"version":40,"close":[{"session_id":"0b000000000000000000000000000000","reason":"user_disabled"}],"more":false}`)
			case strings.HasPrefix(r.Header.Get("Accept"), typeSSE):
				w.Header().Set("Content-Type", typeSSE)
				<-r.Context().Done() // a proxy that holds everything back
			default:
				polls = append(polls, r.URL.Query().Get("after"))
				page := `{"events":[],"version":43}`
				if len(polls) <= len(pages) {
					page = pages[len(polls)-1]
				}
				say(w, page)
			}
		})
		ctx, cancel := context.WithCancel(t.Context())
		var following sync.WaitGroup
		following.Go(func() { c.n.followEvents(ctx) })
		<-time.After(2*eventSilence + time.Minute)
		cancel()
		following.Wait()
		if want := []string{"-1", "40", "41"}; len(polls) < 3 || !slices.Equal(polls[:3], want) {
			t.Errorf("polled after %v, want %v", polls, want)
		}
		if diff := cmp.Diff([]Closing{{Session: [16]byte{11}, Reason: reason.UserDisabled}}, c.closed); diff != "" {
			t.Errorf("closed (-want +got):\n%s", diff)
		}
		var kinds []string
		for _, e := range c.events {
			kinds = append(kinds, e.Kind)
		}
		if want := []string{EventsMissed, DeviceRevoked, SessionClose}; !slices.Equal(kinds, want) {
			t.Errorf("events %v, want %v", kinds, want)
		}
		if device, ok := c.events[1].Device(); !ok || device != [16]byte{2} || c.events[1].At.Year() != 2030 || c.events[1].Reason != reason.DeviceRevoked {
			t.Errorf("event %+v", c.events[1])
		}
		if session, ok := c.events[2].Session(); !ok || session != [16]byte{1} {
			t.Errorf("event %+v", c.events[2])
		}
	})
}
