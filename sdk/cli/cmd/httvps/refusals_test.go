package main

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/sdk/cli/internal/words"
	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// TestEveryFailureIsToldInOneSentenceWithTheWayOut goes through what ends or prevents a
// connection: the exit code, one line that names it, and what to do, in both languages.
func TestEveryFailureIsToldInOneSentenceWithTheWayOut(t *testing.T) {
	const (
		unreachable = "Check this device's network. If other sites work, the service may be down or blocked here; httvps doctor says more."
		stranger    = "The address or the pin in the link may be wrong, or this device does not know the service's certificate authority. Ask the operator for a new link."
	)
	var fault atomic.Value // what is wrong at the moment
	fault.Store("")
	s := start(t, httvpstest.Options{
		Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				what := fault.Load().(string)
				switch {
				case strings.HasPrefix(what, "token ") && r.URL.Path == "/api/v1/auth/token":
					httvpstest.Problem(w, http.StatusForbidden, strings.TrimPrefix(what, "token "), 0)
				case what == "silent gateways" && strings.HasPrefix(r.URL.Path, "/tunnel/"), what == "silent service" && strings.HasPrefix(r.URL.Path, "/api/"):
					_, _ = io.Copy(io.Discard, r.Body)
					<-r.Context().Done()
				case what == "website" && strings.HasPrefix(r.URL.Path, "/tunnel/"):
					http.NotFound(w, r)
				default:
					next.ServeHTTP(w, r)
				}
			})
		},
		Admit: func(int, wire.Hello) wire.Reject {
			switch fault.Load().(string) {
			case "at the gateway device_revoked":
				return wire.Reject{Code: wire.CodeDeviceRevoked}
			case "at the gateway quota_exceeded":
				return wire.Reject{Code: wire.CodeQuotaExceeded}
			case "at the gateway subscription_expired":
				return wire.Reject{Code: wire.CodeSubscriptionExpired}
			}
			return wire.Reject{}
		},
	})
	sound := enrolled(t, s)
	closed := httvpstest.New(httvpstest.Options{})
	gone := enrolled(t, closed)
	closed.Close()
	forged := filepath.Join(t.TempDir(), "forged")
	copyHome(t, sound, forged, func(p *httvps.Profile) { p.Pin = strings.Repeat("A", 43) })

	for name, tc := range map[string]struct {
		fault, home string
		code        int
		says, helps string // English
	}{
		"revoked":                        {"token device_revoked", sound, 3, "device_revoked", httvps.Explain("device_revoked")},
		"revoked, says the gateway":      {"at the gateway device_revoked", sound, 3, "device_revoked", httvps.Explain("device_revoked")},
		"plan expired":                   {"token subscription_expired", sound, 3, "subscription_expired", httvps.Explain("subscription_expired")},
		"plan expired, says the gateway": {"at the gateway subscription_expired", sound, 3, "subscription_expired", httvps.Explain("subscription_expired")},
		"quota used up":                  {"token quota_exceeded", sound, 3, "quota_exceeded", httvps.Explain("quota_exceeded")},
		"quota used up, by the gateway":  {"at the gateway quota_exceeded", sound, 3, "quota_exceeded", httvps.Explain("quota_exceeded")},
		"service that is gone":           {"", gone, 4, "could not be reached", unreachable},
		"service that is blocked":        {"silent service", sound, 4, "could not be reached", unreachable},
		"gateways that are blocked":      {"silent gateways", sound, 4, "could not be reached", unreachable},
		"somebody else at the gateway":   {"website", sound, 4, "something answers there that is not this service", stranger},
		"forged certificate":             {"", forged, 4, "cannot be trusted to be the service", stranger},
	} {
		for language, speak := range map[string]words.Language{"C": words.English, "ru_RU.UTF-8": words.Russian} {
			t.Setenv("LC_ALL", language)
			fault.Store(tc.fault)
			code, stdout, stderr := call(t, "connect", "--home", tc.home, "--socks", ":0", "--connect-timeout", "1s")
			helps := tc.helps
			for _, reason := range httvps.Codes() {
				if helps == httvps.Explain(reason) {
					helps = speak.Explain(reason)
				}
			}
			lines := strings.Split(strings.TrimSpace(stderr), "\n")
			told := 0
			for _, line := range lines {
				if strings.HasPrefix(line, "httvps: ") {
					told++
				}
			}
			if code != tc.code || stdout != "" || told != 1 || !strings.Contains(stderr, tc.says) || !strings.Contains(stderr, speak.Say(helps)+"\n") {
				t.Errorf("%s, %s: exit %d, want %d; want %q and %q in:\n%s", name, language, code, tc.code, tc.says, speak.Say(helps), stderr)
			}
		}
	}
}

// copyHome makes another home of the same device, with a profile that differs.
func copyHome(t *testing.T, from, to string, change func(*httvps.Profile)) {
	t.Helper()
	if err := os.Mkdir(to, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"device.key", "device.json"} {
		text, err := os.ReadFile(filepath.Join(from, name))
		if err == nil && name == "device.json" {
			var p httvps.Profile
			if err = json.Unmarshal(text, &p); err == nil {
				change(&p)
				text, err = json.Marshal(p)
			}
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(to, name), text, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestAClockThatIsADayWrongConnectsAndIsToldOf(t *testing.T) {
	for name, ahead := range map[string]time.Duration{"behind": 24 * time.Hour, "ahead": -24 * time.Hour} {
		s := start(t, httvpstest.Options{GatewaysAhead: ahead, Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Date", time.Now().Add(ahead).UTC().Format(http.TimeFormat))
				next.ServeHTTP(w, r)
			})
		}})
		dir := enrolled(t, s)
		ready, _, end := begin(t, "connect", "--home", dir, "--socks", ":0")
		ready.waitFor(t, `"ready":true`)
		if code, stdout, _ := call(t, "doctor", "--home", dir); code != 0 || !strings.Contains(stdout, "clock is off by ") || !strings.Contains(stdout, "Set the clock") {
			t.Errorf("%s: exit %d, %s", name, code, stdout)
		}
		end()
	}
}

func TestARefusalSaysWhomToAskWhoeverRefuses(t *testing.T) {
	const support = "Write to help@example.com"
	var fault atomic.Value
	fault.Store("")
	refuse := func(w http.ResponseWriter, said string) {
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusForbidden)
		_ = json.NewEncoder(w).Encode(map[string]string{"code": "user_disabled", "support": said})
	}
	s := start(t, httvpstest.Options{
		Support: support,
		Wrap: func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				switch what := fault.Load(); {
				case what == "token" && r.URL.Path == "/api/v1/auth/token", what == "enroll" && r.URL.Path == "/api/v1/devices/enroll":
					refuse(w, support)
				case what == "odd" && r.URL.Path == "/api/v1/auth/token":
					refuse(w, "two\nlines")
				default:
					next.ServeHTTP(w, r)
				}
			})
		},
		Admit: func(int, wire.Hello) wire.Reject {
			if fault.Load() == "gateway" {
				return wire.Reject{Code: wire.CodeQuotaExceeded}
			}
			return wire.Reject{}
		},
	})
	link, dir := s.Invitation(), enrolled(t, s)
	for name, tc := range map[string]struct {
		fault string
		args  []string
		told  bool
	}{
		"the service, of a connection":   {"token", []string{"connect", "--home", dir, "--socks", ":0"}, true},
		"a gateway":                      {"gateway", []string{"connect", "--home", dir, "--socks", ":0"}, true},
		"the service, of an enrolment":   {"enroll", []string{"enroll", link, "--home", t.TempDir()}, true},
		"the service, asked by a doctor": {"token", []string{"doctor", "--home", dir}, true},
		"a text that is not one line":    {"odd", []string{"connect", "--home", dir, "--socks", ":0"}, false},
	} {
		fault.Store(tc.fault)
		code, stdout, stderr := call(t, tc.args...)
		if said := strings.Count(stdout+stderr, "Whom to ask: "+support); code != 3 || (said == 1) != tc.told || strings.Contains(stdout+stderr, "two") {
			t.Errorf("%s: exit %d, said %d times:\n%s%s", name, code, said, stdout, stderr)
		}
	}
	fault.Store("")
	if _, stdout, _ := call(t, "status", "--home", dir, "-o", "json"); !strings.Contains(stdout, `"support":"`+support+`"`) {
		t.Errorf("status says %s", stdout)
	}
}

func TestTheDeviceLimitOffersToReplaceADevice(t *testing.T) {
	const old = "0190163d-8694-739b-aea5-966c26f8ad91"
	var replaced atomic.Value
	replaced.Store("")
	s := start(t, httvpstest.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/api/v1/devices/enroll" {
				next.ServeHTTP(w, r)
				return
			}
			var in map[string]string
			text, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(bytes.NewReader(text))
			_ = json.Unmarshal(text, &in)
			if in["replace"] == "" {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusForbidden)
				_, _ = w.Write([]byte(`{"status":403,"code":"device_limit","devices":[{"id":"` + old + `","name":"old phone","platform":"android","last_seen_at":"2026-01-02T03:04:05Z"}]}`))
				return
			}
			replaced.Store(in["replace"])
			next.ServeHTTP(w, r)
		})
	}})
	link, dir := s.Invitation(), t.TempDir()
	code, _, stderr := call(t, "enroll", link, "--home", dir)
	for _, want := range []string{"device_limit", httvps.Explain("device_limit"), `--replace "` + old + `"  "old phone"  2026-01-02T03:04:05Z`} {
		if code != 3 || !strings.Contains(stderr, want) {
			t.Errorf("exit %d, no %q in:\n%s", code, want, stderr)
		}
	}
	if code, _, stderr = call(t, "enroll", link, "--home", dir, "--replace", old); code != 0 || replaced.Load() != old {
		t.Errorf("exit %d, replaced %v: %s", code, replaced.Load(), stderr)
	}
}
