package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rsc.io/qr"

	"github.com/httvps/httvps/sdk/cli/internal/words"
	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// decode reads what a command printed as JSON.
func decode(t *testing.T, text string, into any) {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		t.Fatalf("%q: %v", text, err)
	}
}

func TestStatusTellsOfTheTunnelThatRuns(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, 5000)) }))
	defer origin.Close()
	s := start(t, httvpstest.Options{})
	dir := enrolled(t, s)

	code, stdout, stderr := call(t, "status", "--home", dir, "-o", "json")
	var got status
	decode(t, stdout, &got)
	if code != 1 || got.State != "stopped" || !strings.Contains(stderr, "no httvps connect is running") || !strings.Contains(stderr, "httvps connect\n") {
		t.Errorf("without connect: exit %d, %s%s", code, stdout, stderr)
	}

	ready, _, end := begin(t, "connect", "--home", dir, "--socks", ":0", "--http", ":0", "-L", "tcp:0:a.test:80")
	ready.waitFor(t, "\n")
	r := parseReady(t, ready.String())
	if _, err := get(t, through(r.SOCKS), origin.URL); err != nil {
		t.Fatal(err)
	}
	code, stdout, stderr = call(t, "status", "--home", dir, "-o", "json")
	got = status{}
	decode(t, stdout, &got)
	if code != 0 || stderr != "" || got.State != "connected" || got.Gateway != host(s.Gateway(0)) || got.Region != "local" || got.Session != r.Session ||
		got.Since == nil || time.Since(*got.Since).Abs() > time.Minute || got.LatencyMS == nil || *got.LatencyMS <= 0 || got.Received < 5000 || got.Sent == 0 ||
		got.SOCKS != r.SOCKS || got.HTTP != r.HTTP || len(got.Forwards) != 1 || got.Version != "dev" || got.Error != "" {
		t.Errorf("exit %d, %s%s", code, stdout, stderr)
	}
	code, stdout, _ = call(t, "status", "--home", dir)
	for _, want := range []string{"connected\n", "gateway ", host(s.Gateway(0)), "local", " ms\n", "KiB (now ", r.SOCKS, "→ a.test:80"} {
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("exit %d, no %q in:\n%s", code, want, stdout)
		}
	}
	if strings.Contains(stdout, "/tunnel/") {
		t.Errorf("a gateway's path is told:\n%s", stdout)
	}
	if info, err := os.Stat(filepath.Join(dir, "control.sock")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the socket: %v, %v", info, err)
	}

	s.Close()
	for deadline := time.Now().Add(20 * time.Second); ; {
		_, stdout, _ = call(t, "status", "--home", dir, "-o", "json")
		got = status{}
		decode(t, stdout, &got)
		if got.State == "disconnected" && got.Error != "" || time.Now().After(deadline) {
			break
		}
	}
	if got.State != "disconnected" || got.Received < 5000 || got.Gateway != "" {
		t.Errorf("without a service: %+v", got)
	}
	end()
	if _, err := os.Stat(filepath.Join(dir, "control.sock")); err == nil {
		t.Error("the socket is still there")
	}
}

func TestGatewaysAreListedWithTheirLatency(t *testing.T) {
	s := start(t, httvpstest.Options{Gateways: 2})
	dir := enrolled(t, s)
	ready, _, _ := begin(t, "connect", "--home", dir, "--socks", ":0")
	ready.waitFor(t, "\n")
	code, stdout, stderr := call(t, "gateways", "--home", dir, "-o", "json")
	var got struct{ Items []listed }
	decode(t, stdout, &got)
	if code != 0 || stderr != "" || len(got.Items) != 2 {
		t.Fatalf("exit %d, %s%s", code, stdout, stderr)
	}
	for _, g := range got.Items {
		// All gateways of the test's service are at one address.
		if g.Gateway != host(s.Gateway(0)) || g.Region != "local" || g.LatencyMS == nil || !g.InUse {
			t.Errorf("%+v", g)
		}
	}
	if code, stdout, _ = call(t, "gateways", "--home", dir); code != 0 || strings.Count(stdout, "* local") != 2 {
		t.Errorf("exit %d, %s", code, stdout)
	}
	if code, _, stderr = call(t, "gateways", "--home", t.TempDir()); code != 2 || !strings.Contains(stderr, "enroll LINK") {
		t.Errorf("not enrolled: exit %d, %s", code, stderr)
	}
}

func TestTheDoctorFindsWhatIsWrongAndSaysWhatToDo(t *testing.T) {
	var refuse atomic.Value
	refuse.Store("")
	s := start(t, httvpstest.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			switch code := refuse.Load().(string); {
			case code == "clock" && strings.HasPrefix(r.URL.Path, "/api/"):
				w.Header().Set("Date", time.Now().Add(25*time.Hour).UTC().Format(http.TimeFormat))
			case code == "website" && strings.HasPrefix(r.URL.Path, "/tunnel/"):
				http.NotFound(w, r)
				return
			case code != "" && r.URL.Path == "/api/v1/auth/token" && code != "clock" && code != "website":
				httvpstest.Problem(w, http.StatusForbidden, code, 0)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	dir := enrolled(t, s)
	for fault, tc := range map[string]struct {
		code  int
		wants []string
	}{
		"":                     {0, []string{"fine    key and profile", "proves to be the service", "opens a session", "Everything is as it should be."}},
		"clock":                {0, []string{"note    the clock", "clock is off by -2", "Set the clock", "Everything"}},
		"website":              {4, []string{"WRONG   gateway", "website, not the tunnel", "HTTP status 404"}},
		"subscription_expired": {3, []string{"WRONG   the service lets", "subscription_expired", "Renew it"}},
		"device_revoked":       {3, []string{"WRONG   the service lets", "device_revoked", "new invitation"}},
	} {
		refuse.Store(fault)
		code, stdout, stderr := call(t, "doctor", "--home", dir)
		for _, want := range tc.wants {
			if code != tc.code || !strings.Contains(stdout, want) || (stderr != "") != (tc.code != 0) {
				t.Errorf("%q: exit %d, no %q in:\n%s%s", fault, code, want, stdout, stderr)
			}
		}
		if strings.Contains(stdout+stderr, "k3jd84hf") || strings.Contains(stdout+stderr, "/tunnel/") {
			t.Errorf("a secret path is told:\n%s%s", stdout, stderr)
		}
	}
	refuse.Store("subscription_expired")
	_, stdout, _ := call(t, "doctor", "--home", dir, "-o", "json")
	var got struct {
		OK, Connects bool
		Items        []finding
	}
	decode(t, stdout, &got)
	if last := got.Items[len(got.Items)-1]; got.OK || last.Reason != "subscription_expired" || last.OK || len(last.Advice) != 1 || got.Items[0].Step != "profile" || !got.Items[0].OK {
		t.Errorf("%s", stdout)
	}
	refuse.Store("")
	ready, _, _ := begin(t, "connect", "--home", dir, "--socks", ":0")
	ready.waitFor(t, "\n")
	if code, stdout, _ := call(t, "doctor", "--home", dir); code != 0 || strings.Contains(stdout, "session (") || !strings.Contains(stdout, "httvps connect is running") {
		t.Errorf("beside connect: exit %d, %s", code, stdout)
	}
	if code, stdout, stderr := call(t, "doctor", "--home", t.TempDir()); code != 2 || !strings.Contains(stdout, "enroll LINK") {
		t.Errorf("not enrolled: exit %d, %s%s", code, stdout, stderr)
	}
	s.Close()
	if code, stdout, stderr := call(t, "doctor", "--home", dir); code != 4 || !strings.Contains(stdout, "Try another network") ||
		strings.Count(stderr, "\n") != 1 || strings.Contains(stderr, "httvps doctor") {
		t.Errorf("a service that is gone: exit %d, %s%s", code, stdout, stderr)
	}
}

func TestLogoutLeavesNothingOfTheDevice(t *testing.T) {
	s := start(t, httvpstest.Options{})
	dir := enrolled(t, s)
	ready, _, end := begin(t, "connect", "--home", dir, "--socks", ":0")
	ready.waitFor(t, "\n")
	if code, _, stderr := call(t, "logout", "--home", dir); code != 1 || !strings.Contains(stderr, "another httvps") || !strings.Contains(stderr, "httvps status") {
		t.Errorf("beside connect: exit %d, %s", code, stderr)
	}
	end()
	if code, _, stderr := call(t, "logout", "--home", dir); code != 0 || !strings.Contains(stderr, "logged out") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 1 || entries[0].Name() != "lock" {
		t.Errorf("the home has %v, %v", entries, err)
	}
	if code, _, stderr := call(t, "logout", "--home", dir); code != 0 || !strings.Contains(stderr, "nothing to remove") || strings.Contains(stderr, "logged out") {
		t.Errorf("again: exit %d, %s", code, stderr)
	}
	if code, _, _ := call(t, "enroll", s.Invitation(), "--home", dir); code != 0 {
		t.Errorf("a new device in this home: exit %d", code)
	}
}

func TestSpeedtestUsesTheTunnelThatRunsOrOneOfItsOwn(t *testing.T) {
	var got atomic.Int64
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			n, _ := io.Copy(io.Discard, r.Body)
			got.Add(n)
			return
		}
		if r.URL.Path == "/none" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(make([]byte, 1<<20))
	}))
	defer origin.Close()
	var sessions atomic.Int64
	s := start(t, httvpstest.Options{Admit: func(int, wire.Hello) wire.Reject { sessions.Add(1); return wire.Reject{} }})
	dir := enrolled(t, s)
	test := func() {
		t.Helper()
		// Long enough for bytes to come on a machine that has other things to do.
		code, stdout, stderr := call(t, "speedtest", origin.URL, "--home", dir, "--time", "1s", "--upload", origin.URL, "--compare", "-o", "json")
		if code != 0 {
			t.Fatalf("exit %d, %s", code, stderr)
		}
		var result speed
		decode(t, stdout, &result)
		if stderr != "" || result.Download <= 0 || result.Upload == nil || *result.Upload <= 0 || result.Direct == nil || result.LatencyMS == nil || got.Load() == 0 {
			t.Errorf("%s%s", stdout, stderr)
		}
	}
	test()
	if sessions.Load() != 1 {
		t.Errorf("%d sessions", sessions.Load())
	}
	ready, _, end := begin(t, "connect", "--home", dir, "--socks", ":0")
	ready.waitFor(t, "\n")
	test()
	if sessions.Load() != 2 {
		t.Errorf("%d sessions", sessions.Load())
	}
	if code, stdout, _ := call(t, "speedtest", origin.URL, "--home", dir, "--time", "1s"); code != 0 || !strings.Contains(stdout, "Mbit/s") {
		t.Errorf("exit %d, %s", code, stdout)
	}
	if code, _, stderr := call(t, "speedtest", origin.URL+"/none", "--home", dir); code != 1 || !strings.Contains(stderr, "404") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	refuses := func() {
		t.Helper()
		if code, _, stderr := call(t, "speedtest", "http://127.0.0.1:1/", "--home", dir); code != 1 || !strings.Contains(stderr, httvps.Explain("conn_refused")) {
			t.Errorf("a target that refuses: exit %d, %s", code, stderr)
		}
	}
	refuses()
	end()
	refuses()
	for _, args := range [][]string{{"ftp://a"}, {origin.URL, "--time", "0s"}, {origin.URL, "-o", "xml"}, {}} {
		if code, _, stderr := call(t, append([]string{"speedtest", "--home", dir}, args...)...); code != 2 {
			t.Errorf("%v: exit %d, %s", args, code, stderr)
		}
	}
}

func TestTheManualPageHasEveryCommandAndFlag(t *testing.T) {
	code, page, _ := call(t, "man")
	if code != 0 {
		t.Fatalf("exit %d", code)
	}
	for _, want := range []string{".TH HTTVPS 1", "httvps enroll LINK|FILE|\\-", `.B \-\-http`, `.B \-L, \-\-forward`, `\-\-connect\-timeout`, "httvps speedtest URL", "httvps completion", ".SH FILES"} {
		if !strings.Contains(page, want) {
			t.Errorf("no %q", want)
		}
	}
	for line := range strings.Lines(page) {
		if strings.HasPrefix(line, "'") || strings.HasPrefix(line, ".") && !strings.HasPrefix(line, ".T") && !strings.HasPrefix(line, ".S") &&
			!strings.HasPrefix(line, ".B ") && !strings.HasPrefix(line, ".PP") && !strings.HasPrefix(line, ".nf") && !strings.HasPrefix(line, ".fi") {
			t.Errorf("taken for a request: %q", line)
		}
	}
}

func TestCompletionIsThereForEveryShell(t *testing.T) {
	for shell, want := range map[string]string{"bash": "complete ", "zsh": "#compdef httvps", "fish": "complete -c httvps", "powershell": "Register-ArgumentCompleter"} {
		if code, stdout, stderr := call(t, "completion", shell); code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("%s: exit %d, %s", shell, code, stderr)
		}
	}
}

func TestRefusalsAreExplainedInRussianWhereThatIsSpoken(t *testing.T) {
	t.Setenv("LC_ALL", "ru_RU.UTF-8")
	s := start(t, httvpstest.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/api/v1/auth/token" {
				httvpstest.Problem(w, http.StatusForbidden, "subscription_expired", 0)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	dir := filepath.Join(t.TempDir(), "home")
	if code, _, stderr := call(t, "enroll", s.Invitation(), "--home", dir, "--name", "box"); code != 0 || !strings.Contains(stderr, `устройство "box" пользователя "ann"`) {
		t.Errorf("enroll: exit %d, %s", code, stderr)
	}
	if code, _, stderr := call(t, "connect", "--home", dir, "--socks", ":0"); code != 3 || !strings.Contains(stderr, "subscription_expired") || !strings.Contains(stderr, "Подписка закончилась. Продлите её") {
		t.Errorf("connect: exit %d, %s", code, stderr)
	}
	if code, stdout, _ := call(t, "doctor", "--home", dir); code != 3 || !strings.Contains(stdout, "ОШИБКА") || !strings.Contains(stdout, "Подписка закончилась") || !strings.Contains(stdout, "часы (") {
		t.Errorf("doctor: exit %d, %s", code, stdout)
	}
	if code, _, stderr := call(t, "connect", "--home", t.TempDir()); code != 2 || !strings.Contains(stderr, "Попросите у оператора") {
		t.Errorf("not enrolled: exit %d, %s", code, stderr)
	}
}

func TestStatusTellsWhatIsLeftOfThePlan(t *testing.T) {
	s := start(t, httvpstest.Options{Plan: &httvps.Plan{
		Name: "home", Status: "active", EndsAt: time.Now().Add(36 * time.Hour),
		Quota: &httvps.Quota{Bytes: 10 << 30, Used: 4 << 30, Left: 6 << 30, ResetsAt: time.Now().Add(12 * time.Hour)},
	}})
	dir := enrolled(t, s)
	look := func(wantCode int, state string) {
		t.Helper()
		code, stdout, _ := call(t, "status", "--home", dir, "-o", "json")
		var got status
		decode(t, stdout, &got)
		if p := got.Plan; code != wantCode || got.State != state || p == nil || p.Name != "home" || !p.Allowed || p.DaysLeft == nil || *p.DaysLeft != 2 ||
			p.Left == nil || *p.Left != 6<<30 || *p.Quota != 10<<30 || *p.Used != 4<<30 || p.ResetsAt == nil || got.PlanError != "" {
			t.Errorf("exit %d, %s", code, stdout)
		}
		code, stdout, _ = call(t, "status", "--home", dir)
		for _, want := range []string{"home, 2 days left (until ", "6.0 GiB of 10.0 GiB left, anew on "} {
			if code != wantCode || !strings.Contains(stdout, want) {
				t.Errorf("exit %d, no %q in:\n%s", code, want, stdout)
			}
		}
	}
	look(1, "stopped")
	ready, _, end := begin(t, "connect", "--home", dir, "--socks", ":0")
	ready.waitFor(t, "\n")
	look(0, "connected")
	end()
	t.Setenv("LC_ALL", "ru_RU.UTF-8")
	if _, stdout, _ := call(t, "status", "--home", dir); !strings.Contains(stdout, "тариф") || !strings.Contains(stdout, "home, осталось 2 дня (до ") || !strings.Contains(stdout, "осталось 6.0 GiB из 10.0 GiB") {
		t.Errorf("in Russian:\n%s", stdout)
	}
	s.Close()
	code, stdout, stderr := call(t, "status", "--home", dir, "-o", "json")
	var got status
	decode(t, stdout, &got)
	if code != 1 || got.Plan != nil || got.PlanError == "" || !strings.Contains(stderr, "no httvps connect is running") {
		t.Errorf("without a service: exit %d, %s%s", code, stdout, stderr)
	}
}

func TestAPlanIsToldAsItIs(t *testing.T) {
	now := time.Now()
	for name, tc := range map[string]struct {
		account httvps.Account
		wants   []string
	}{
		"none":          {httvps.Account{Reason: "no_active_subscription"}, []string{"plan none", "refused no_active_subscription. The account has no active"}},
		"without end":   {httvps.Account{Allowed: true, Plan: &httvps.Plan{Name: "x\x1b[1m"}}, []string{"plan x?[1m, without an end"}},
		"a day is left": {httvps.Account{Allowed: true, Plan: &httvps.Plan{Name: "x", EndsAt: now.Add(time.Minute)}}, []string{"plan x, 1 day left (until "}},
		"over":          {httvps.Account{Reason: "subscription_expired", Plan: &httvps.Plan{Name: "x", EndsAt: now.Add(-time.Hour)}}, []string{"plan x, ended on ", "refused subscription_expired"}},
		"used up":       {httvps.Account{Reason: "quota_exceeded", Plan: &httvps.Plan{Name: "x", Quota: &httvps.Quota{Bytes: 1 << 20, Used: 1 << 20}}}, []string{"traffic 0 B of 1.0 MiB left", "refused quota_exceeded"}},
		"whom to ask":   {httvps.Account{Allowed: true, Support: "ask\x1b ann"}, []string{"support ask? ann"}},
		"slowed down":   {httvps.Account{Allowed: true, Plan: &httvps.Plan{Name: "x", Quota: &httvps.Quota{Bytes: 1 << 20, Throttled: true}}}, []string{"traffic 0 B of 1.0 MiB left, slowed down"}},
	} {
		var lines []string
		newPlan(tc.account, now).write(func(name, value string) { lines = append(lines, name+" "+value) }, words.English)
		text := strings.Join(lines, "\n")
		for _, want := range tc.wants {
			if !strings.Contains(text, want) {
				t.Errorf("%s: no %q in\n%s", name, want, text)
			}
		}
	}
}

// The service is asked when somebody wants to know, and no more often than that makes
// sense.
func TestThePlanIsAskedForWhenItIsWanted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		p := newPlans()
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		silent := true
		go func() {
			done <- p.run(ctx, func(ctx context.Context) (httvps.Account, error) {
				asked++
				if silent {
					<-ctx.Done()
					return httvps.Account{}, context.Cause(ctx)
				}
				return httvps.Account{Plan: &httvps.Plan{Name: "x"}}, nil
			})
		}()
		start := time.Now()
		if known, problem := p.get(ctx); known != nil || problem != "no answer yet" || time.Since(start) != planWait {
			t.Errorf("%v, %q after %v", known, problem, time.Since(start))
		}
		<-time.After(planTimeout)
		if known, problem := p.get(ctx); known != nil || problem != "no answer in time" {
			t.Errorf("%v, %q", known, problem)
		}
		silent = false
		<-time.After(planAge)
		for range 100 {
			_, _ = p.get(ctx)
			synctest.Wait()
		}
		if known, problem := p.get(ctx); known == nil || known.Name != "x" || problem != "" || asked != 2 {
			t.Errorf("%v, %q after %d questions", known, problem, asked)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

func TestTheDoctorSaysThatADeviceConnectsThoughNotByEveryGateway(t *testing.T) {
	var bad atomic.Value
	bad.Store("/tunnel/1")
	s := start(t, httvpstest.Options{Gateways: 2, Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasPrefix(r.URL.Path, bad.Load().(string)) {
				http.NotFound(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	dir := enrolled(t, s)
	var got struct {
		OK, Connects bool
		Items        []finding
	}
	look := func(wantCode int, connects bool, want string) {
		t.Helper()
		code, stdout, stderr := call(t, "doctor", "--home", dir)
		if code != wantCode || !strings.Contains(stdout, "WRONG   gateway") || !strings.Contains(stdout, want) || strings.Contains(stdout, "Everything") || (stderr == "") != connects {
			t.Errorf("exit %d, %s%s", code, stdout, stderr)
		}
		_, stdout, _ = call(t, "doctor", "--home", dir, "-o", "json")
		decode(t, stdout, &got)
		if got.OK || got.Connects != connects {
			t.Errorf("%s", stdout)
		}
	}
	look(0, true, "This device can connect, though not all is as it should be.")
	ready, _, end := begin(t, "connect", "--home", dir, "--socks", ":0")
	ready.waitFor(t, "\n")
	look(0, true, "This device can connect, though not all is as it should be.")
	end()
	bad.Store("/tunnel/")
	look(4, false, "website, not the tunnel")
}

func TestASlowTunnelHasASpeed(t *testing.T) {
	for rate, want := range map[float64]string{0: "0 bit/s", 999: "999 bit/s", 12_340: "12.3 kbit/s", 1e6: "1.0 Mbit/s", 123_456_789: "123.5 Mbit/s"} {
		if got := megabits(rate); got != want {
			t.Errorf("%v: %s, want %s", rate, got, want)
		}
	}
}

// photo writes the QR code of a text as a PNG file.
func photo(t *testing.T, text string) string {
	t.Helper()
	code, err := qr.Encode(text, qr.M)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "invitation.png")
	if err := os.WriteFile(file, code.PNG(), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

func TestEnrollingTakesAPictureOfTheCodeToo(t *testing.T) {
	s := start(t, httvpstest.Options{})
	picture := photo(t, s.Invitation())
	if code, _, stderr := call(t, "enroll", picture, "--home", t.TempDir(), "--name", "box"); code != 0 || !strings.Contains(stderr, `enrolled: device "box"`) {
		t.Errorf("a file: exit %d, %s", code, stderr)
	}
	bytes, err := os.ReadFile(photo(t, s.Invitation()))
	if err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := callWith(t, string(bytes), "enroll", "-", "--home", t.TempDir()); code != 0 {
		t.Errorf("standard input: exit %d, %s", code, stderr)
	}
	text := filepath.Join(t.TempDir(), "link.txt")
	if err := os.WriteFile(text, []byte(s.Invitation()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, stderr := call(t, "enroll", text, "--home", t.TempDir()); code != 0 {
		t.Errorf("a file with the link: exit %d, %s", code, stderr)
	}
	broken := filepath.Join(t.TempDir(), "broken.png")
	if err := os.WriteFile(broken, bytes[:len(bytes)/2], 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct{ file, want string }{
		"no such picture":   {filepath.Join(t.TempDir(), "none.png"), "no such file"},
		"a damaged picture": {broken, "damaged"},
		"another code":      {photo(t, "WIFI:S:guests;P:secret;;"), "invitation link: "},
		"a directory":       {t.TempDir(), "directory"},
	} {
		code, _, stderr := call(t, "enroll", tc.file, "--home", t.TempDir())
		if code == 0 || !strings.Contains(stderr, tc.want) || strings.Contains(stderr, "secret") {
			t.Errorf("%s: exit %d, %s", name, code, stderr)
		}
	}
}
