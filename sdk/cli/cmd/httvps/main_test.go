package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/wire"
)

func TestMain(m *testing.M) {
	if os.Getenv("HTTVPS_TEST_RUN_MAIN") != "" {
		main()
	}
	_ = os.Setenv("LC_ALL", "C") // whoever runs the tests
	goleak.VerifyTestMain(m)
}

// output collects what a command prints and can be waited on.
type output struct {
	mu      sync.Mutex // guards text and changed
	text    bytes.Buffer
	changed chan struct{}
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	close(o.changed)
	o.changed = make(chan struct{})
	return o.text.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.String()
}

// waitFor returns as soon as the output holds want.
func (o *output) waitFor(t *testing.T, want string) {
	t.Helper()
	timeout := time.After(20 * time.Second)
	for {
		o.mu.Lock()
		text, changed := o.text.String(), o.changed
		o.mu.Unlock()
		if strings.Contains(text, want) {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("no %q in:\n%s", want, text)
		}
	}
}

// call runs a command to its end.
func call(t *testing.T, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	return callWith(t, "", args...)
}

func callWith(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, errs := newOutput(), newOutput()
	code = run(ctx, args, strings.NewReader(stdin), out, errs)
	return code, out.String(), errs.String()
}

// begin runs a command in the background until end is called.
func begin(t *testing.T, args ...string) (stdout, stderr *output, end func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	stdout, stderr = newOutput(), newOutput()
	done := make(chan int, 1)
	go func() { done <- run(ctx, args, strings.NewReader(""), stdout, stderr) }()
	end = sync.OnceValue(func() int { cancel(); return <-done })
	t.Cleanup(func() { end() })
	return stdout, stderr, end
}

func start(t *testing.T, opts httvpstest.Options) *httvpstest.Service {
	t.Helper()
	s := httvpstest.New(opts)
	t.Cleanup(s.Close)
	return s
}

// enrolled returns the home of a device that s knows.
func enrolled(t *testing.T, s *httvpstest.Service) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "home")
	if code, _, stderr := call(t, "enroll", s.Invitation(), "--home", dir); code != 0 {
		t.Fatalf("enroll: exit %d: %s", code, stderr)
	}
	return dir
}

// ready is the line that scripts read.
type ready struct {
	Ready    bool        `json:"ready"`
	Session  string      `json:"session"`
	Gateway  string      `json:"gateway"`
	SOCKS    string      `json:"socks"`
	HTTP     string      `json:"http"`
	Forwards []forwarded `json:"forwards"`
}

func parseReady(t *testing.T, line string) ready {
	t.Helper()
	d := json.NewDecoder(strings.NewReader(line))
	d.DisallowUnknownFields()
	var r ready
	if err := d.Decode(&r); err != nil || !r.Ready {
		t.Fatalf("ready line %q: %v", line, err)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("more than one line: %q", line)
	}
	return r
}

func through(address string) *http.Client {
	return &http.Client{Transport: &http.Transport{
		Proxy:             http.ProxyURL(&url.URL{Scheme: "socks5h", Host: address}),
		DisableKeepAlives: true,
	}}
}

func get(t *testing.T, client *http.Client, target string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, target, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = resp.Body.Close() }()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func TestFromAnInvitationToAPageThroughTheTunnel(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "hello from "+r.Host)
	}))
	defer origin.Close()
	s := start(t, httvpstest.Options{Dial: func(ctx context.Context, target wire.Addr) (net.Conn, error) {
		if target.Name != "origin.test" {
			return nil, io.EOF
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", origin.Listener.Addr().String())
	}})
	dir := enrolled(t, s)
	stdout, stderr, end := begin(t, "connect", "--home", dir, "--socks", ":0")
	stdout.waitFor(t, "\n")
	r := parseReady(t, stdout.String())
	if host, port, err := net.SplitHostPort(r.SOCKS); err != nil || host != "127.0.0.1" || port == "0" || len(r.Session) != 32 || r.Gateway != s.Gateway(0) || r.HTTP != "" {
		t.Errorf("ready: %+v", r)
	}
	if body, err := get(t, through(r.SOCKS), "http://origin.test/"); err != nil || body != "hello from origin.test" {
		t.Errorf("%q, %v", body, err)
	}
	if _, err := get(t, through(r.SOCKS), "http://elsewhere.test/"); err == nil {
		t.Error("a target that refuses was reached")
	}

	s.Disconnect(wire.CodeShutdown)
	stderr.waitFor(t, "lost the connection")
	stderr.waitFor(t, "retrying now") // the first wait is below a second
	if !regexp.MustCompile(`lost the connection to \S+: session closed by the other end: shutdown\nretrying now\n`).MatchString(stderr.String()) {
		t.Errorf("a lost session is told as:\n%s", stderr)
	}
	if body, err := get(t, through(r.SOCKS), "http://origin.test/"); err != nil || body != "hello from origin.test" {
		t.Errorf("after a lost session: %q, %v", body, err)
	}
	if code := end(); code != 0 {
		t.Errorf("exit %d after the user ended it", code)
	}
	if told := stderr.String(); !strings.HasSuffix(told, "\ndisconnected\n") || strings.Count(told, "lost the connection") != 1 {
		t.Errorf("an end that the user wished is told as:\n%s", told)
	}
	parseReady(t, stdout.String()) // still one line
	for _, secret := range []string{"k3jd84hf", "/tunnel/"} {
		if strings.Contains(stderr.String(), secret) {
			t.Errorf("%q was told:\n%s", secret, stderr)
		}
	}
	if strings.Contains(stderr.String(), "origin.test") {
		t.Errorf("where the user went was told:\n%s", stderr)
	}
}

func TestBothProxiesLeadThroughTheTunnelForWhoKnowsThePassword(t *testing.T) {
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "hello from "+r.Host)
	}))
	defer origin.Close()
	s := start(t, httvpstest.Options{Dial: func(ctx context.Context, _ wire.Addr) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", origin.Listener.Addr().String())
	}})
	login := filepath.Join(t.TempDir(), "login")
	if err := os.WriteFile(login, []byte("anna:secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	stdout, stderr, _ := begin(t, "connect", "--home", enrolled(t, s), "--socks", ":0", "--http", ":0", "--proxy-login", login)
	stdout.waitFor(t, "\n")
	r := parseReady(t, stdout.String())
	for scheme, address := range map[string]string{"socks5h": r.SOCKS, "http": r.HTTP} {
		for user, ok := range map[*url.Userinfo]bool{url.UserPassword("anna", "secret"): true, url.UserPassword("anna", "wrong"): false, nil: false} {
			client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(&url.URL{Scheme: scheme, User: user, Host: address}), DisableKeepAlives: true}}
			body, err := get(t, client, "http://origin.test/")
			if got := err == nil && body == "hello from origin.test"; got != ok {
				t.Errorf("%s as %v: %q, %v", scheme, user, body, err)
			}
		}
	}
	if strings.Contains(stdout.String()+stderr.String(), "secret") {
		t.Errorf("the password was told:\n%s%s", stdout, stderr)
	}
}

func TestUsageErrorsExitWith2(t *testing.T) {
	s := start(t, httvpstest.Options{})
	home := enrolled(t, s)
	link := s.Invitation()
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"an unknown command":       {[]string{"conect"}, "conect"},
		"an unknown flag":          {[]string{"connect", "--sock", "x"}, "--sock"},
		"too many arguments":       {[]string{"connect", "x"}, "--help"},
		"no link":                  {[]string{"enroll"}, "enroll wants the invitation link, a picture of its QR code, or - to read either from standard input; see httvps enroll --help"},
		"two links":                {[]string{"enroll", link, link}, "--help"},
		"something else":           {[]string{"enroll", "hello", "--home", t.TempDir()}, "invitation link: "},
		"a link cut short":         {[]string{"enroll", link[:len(link)-60], "--home", t.TempDir()}, "invitation link: "},
		"a gateway's link":         {[]string{"enroll", strings.Replace(link, "/join#", "/gateway-join#", 1), "--home", t.TempDir()}, "for a device"},
		"another link than before": {[]string{"enroll", link, "--home", home}, "already enrolled"},
		"a home without a device":  {[]string{"connect", "--home", t.TempDir()}, "not enrolled"},
		"a duration of nothing":    {[]string{"connect", "--home", home, "--connect-timeout", "0s"}, "--connect-timeout"},
		"a public address":         {[]string{"connect", "--home", home, "--socks", "0.0.0.0:0"}, "--socks-public"},
		"a public HTTP proxy":      {[]string{"connect", "--home", home, "--socks", ":0", "--http", "0.0.0.0:0"}, "--http-public"},
		"no file of a password":    {[]string{"connect", "--home", home, "--socks", ":0", "--proxy-login", home + "/none"}, "--proxy-login"},
		"a broken rule":            {[]string{"connect", "--home", home, "--socks", ":0", "--direct", "private,10.0.0.1/8"}, `--direct "10.0.0.1/8": `},
		"no file of rules":         {[]string{"connect", "--home", home, "--socks", ":0", "--direct-file", home + "/none"}, "--direct-file"},
		"a broken forward":         {[]string{"connect", "--home", home, "-L", "tcp:1:host:80", "-L", "udp:1:host"}, "-L udp:1:host: want tcp|udp:[LADDR:]PORT:HOST:PORT"},
		"a public forward":         {[]string{"connect", "--home", home, "-L", "tcp:0.0.0.0:1:host:80"}, "--forward-public"},
		"many forwards":            {append([]string{"connect", "--home", home}, slices.Repeat([]string{"-L", "tcp:0:host:80"}, 65)...), "at most 64"},
	} {
		t.Run(name, func(t *testing.T) {
			code, stdout, stderr := call(t, tc.args...)
			if code != 2 || stdout != "" || !strings.Contains(stderr, tc.want) {
				t.Errorf("exit %d, stdout %q, stderr %q; want 2 and %q", code, stdout, stderr, tc.want)
			}
			if _, secret, _ := strings.Cut(link, "#code="); strings.Contains(stderr, secret[:20]) {
				t.Errorf("the code was told: %s", stderr)
			}
		})
	}
}

func TestEnrollingTakesTheLinkFromStandardInputToo(t *testing.T) {
	s := start(t, httvpstest.Options{})
	dir := t.TempDir()
	link := s.Invitation()
	for _, want := range []string{"enrolled: device \"box\"", "already enrolled with this link"} {
		code, stdout, stderr := callWith(t, link+"\n", "enroll", "-", "--home", dir, "--name", "box")
		if code != 0 || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("exit %d, stdout %q, stderr %q; want %q", code, stdout, stderr, want)
		}
	}
	// The link is used up now, whatever the home.
	code, _, stderr := call(t, "enroll", link, "--home", t.TempDir())
	if code != 3 || !strings.Contains(stderr, "invalid_invitation") || !strings.Contains(stderr, httvps.Explain("invalid_invitation")) {
		t.Errorf("a used link: exit %d, %s", code, stderr)
	}
}

func TestARefusalExitsWith3AndSaysWhatHelps(t *testing.T) {
	var refuse atomic.Value
	refuse.Store("")
	s := start(t, httvpstest.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if code := refuse.Load().(string); code != "" && r.URL.Path == "/api/v1/auth/token" {
				httvpstest.Problem(w, http.StatusForbidden, code, 0)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	home := enrolled(t, s)
	for _, reason := range []string{"device_revoked", "user_disabled", "no_active_subscription", "subscription_expired", "invalid_token"} {
		refuse.Store(reason)
		code, stdout, stderr := call(t, "connect", "--home", home, "--socks", ":0")
		if code != 3 || stdout != "" || !strings.Contains(stderr, reason+"\n") || !strings.Contains(stderr, httvps.Explain(reason)) {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", reason, code, stdout, stderr)
		}
	}
	t.Run("in a session that is up", func(t *testing.T) {
		refuse.Store("")
		stdout, stderr, end := begin(t, "connect", "--home", home, "--socks", ":0")
		stdout.waitFor(t, "\n")
		s.Disconnect(wire.CodeDeviceRevoked)
		stderr.waitFor(t, httvps.Explain("device_revoked")+"\nWith a new link: httvps logout, then httvps enroll LINK")
		if code := end(); code != 3 {
			t.Errorf("exit %d", code)
		}
	})
	t.Run("that may pass, when it did not in time", func(t *testing.T) {
		refuse.Store("retry_later")
		code, _, stderr := call(t, "connect", "--home", home, "--socks", ":0", "--connect-timeout", "100ms")
		if code != 3 || !strings.Contains(stderr, "not connected within 100ms") || !strings.Contains(stderr, "retry_later") {
			t.Errorf("exit %d, %s", code, stderr)
		}
	})
}

func TestAServiceThatIsAwayExitsWith4(t *testing.T) {
	s := httvpstest.New(httvpstest.Options{})
	home := enrolled(t, s)
	unused := s.Invitation()
	s.Close()
	code, stdout, stderr := call(t, "connect", "--home", home, "--socks", ":0", "--connect-timeout", "300ms")
	if code != 4 || stdout != "" || !strings.Contains(stderr, "could not be reached") || !strings.Contains(stderr, "refused") {
		t.Errorf("connect: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	code, _, stderr = call(t, "enroll", unused, "--home", t.TempDir())
	if code != 4 || !strings.Contains(stderr, "could not be reached") || strings.Contains(stderr, "doctor") {
		t.Errorf("enroll: exit %d, %s", code, stderr)
	}
	if strings.Contains(stderr, "k3jd84hf") {
		t.Errorf("the path of the API was told: %s", stderr)
	}
}

func TestAServiceThatAsksToWaitWasReachedAndSaysSo(t *testing.T) {
	s := start(t, httvpstest.Options{Wrap: func(http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			httvpstest.Problem(w, http.StatusTooManyRequests, "rate_limited", time.Minute)
		})
	}})
	code, _, stderr := call(t, "enroll", s.Invitation(), "--home", t.TempDir())
	if want := "refused by the service: rate_limited\n" + httvps.Explain("rate_limited") + "\n"; code != 3 ||
		!strings.HasSuffix(stderr, want) || strings.Contains(stderr, "reached") || !strings.Contains(want, "Wait a minute") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestSomebodyElseAtTheServicesAddressExitsWith4AndIsToldAsSuch(t *testing.T) {
	var gone atomic.Bool
	s := start(t, httvpstest.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if gone.Load() {
				http.NotFound(w, r)
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	home := enrolled(t, s)
	gone.Store(true)
	link, withPin := s.Invitation(), ",pin="+s.Pin
	for name, tc := range map[string]struct {
		args []string
		want string
	}{
		"another page": {[]string{"enroll", link, "--home", t.TempDir()}, "not this service: HTTP 404"},
		"no pin":       {[]string{"enroll", strings.Replace(link, withPin, "", 1), "--home", t.TempDir()}, "cannot be trusted"},
		"another pin":  {[]string{"enroll", strings.Replace(link, withPin, ",pin="+strings.Repeat("A", 43), 1), "--home", t.TempDir()}, "cannot be trusted"},
		"later":        {[]string{"connect", "--home", home, "--socks", ":0", "--connect-timeout", "300ms"}, "not this service: HTTP 404"},
	} {
		code, _, stderr := call(t, tc.args...)
		if code != 4 || !strings.Contains(stderr, "something answers there") || !strings.Contains(stderr, tc.want) ||
			!strings.HasSuffix(stderr, "Ask the operator for a new link.\n") || strings.Contains(stderr, "could not be reached") {
			t.Errorf("%s: exit %d, %s", name, code, stderr)
		}
	}
}

func TestASilentServiceExitsWith4(t *testing.T) {
	var silent atomic.Bool
	s := start(t, httvpstest.Options{Wrap: func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if silent.Load() {
				_, _ = io.Copy(io.Discard, r.Body)
				<-r.Context().Done()
				return
			}
			next.ServeHTTP(w, r)
		})
	}})
	home := enrolled(t, s)
	silent.Store(true)
	code, _, stderr := call(t, "connect", "--home", home, "--socks", ":0", "--connect-timeout", "300ms")
	if code != 4 || !strings.Contains(stderr, "no answer") {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestConnectWaitsForAnotherToEnd(t *testing.T) {
	s := start(t, httvpstest.Options{})
	dir := enrolled(t, s)
	stdout, _, end := begin(t, "connect", "--home", dir, "--socks", ":0")
	stdout.waitFor(t, "\n")
	second, stderr, _ := begin(t, "connect", "--home", dir, "--socks", ":0")
	stderr.waitFor(t, "another httvps")
	end()
	second.waitFor(t, `"ready":true`)
}

// Nobody waits for another connect to end only to be told of a slip in the flags.
func TestMistakesAreToldBeforeAnotherConnectIsWaitedFor(t *testing.T) {
	s := start(t, httvpstest.Options{})
	dir := enrolled(t, s)
	stdout, _, _ := begin(t, "connect", "--home", dir, "--socks", ":0")
	stdout.waitFor(t, "\n")
	for name, flags := range map[string][]string{
		"no host":           {"--socks", "1080"},
		"no port":           {"--http", "127.0.0.1:http"},
		"for all the world": {"--socks", "0.0.0.0:1080"},
		"no rule":           {"--direct", "a/b"},
		"no such file":      {"--proxy-login", filepath.Join(dir, "none")},
	} {
		code, _, stderr := call(t, append([]string{"connect", "--home", dir}, flags...)...)
		if code != 2 || strings.Contains(stderr, "waiting") || !strings.Contains(stderr, flags[0]) {
			t.Errorf("%s: exit %d, %s", name, code, stderr)
		}
	}
}

func TestWhatIsInTheWayExitsWith1AndIsNamed(t *testing.T) {
	s := start(t, httvpstest.Options{})
	home := enrolled(t, s)
	t.Run("a port in use", func(t *testing.T) {
		ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = ln.Close() }()
		code, _, stderr := call(t, "connect", "--home", home, "--socks", ln.Addr().String())
		if code != 1 || !strings.Contains(stderr, ln.Addr().String()) || !strings.Contains(stderr, "in use") || !strings.Contains(stderr, "choose another port") {
			t.Errorf("exit %d, %s", code, stderr)
		}
	})
	t.Run("another connect", func(t *testing.T) {
		stdout, _, _ := begin(t, "connect", "--home", home, "--socks", ":0")
		stdout.waitFor(t, "\n")
		_, stderr, end := begin(t, "connect", "--home", home, "--socks", ":0")
		stderr.waitFor(t, "another httvps")
		if code := end(); code != 0 || !strings.Contains(stderr.String(), home) {
			t.Errorf("exit %d, %s", code, stderr)
		}
	})
	t.Run("a damaged profile", func(t *testing.T) {
		damaged := t.TempDir()
		file := filepath.Join(damaged, "device.json")
		if err := os.WriteFile(file, []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, args := range [][]string{{"connect"}, {"enroll", s.Invitation()}} {
			code, _, stderr := call(t, append(args, "--home", damaged)...)
			if code != 1 || !strings.Contains(stderr, file) {
				t.Errorf("%s: exit %d, %s", args[0], code, stderr)
			}
		}
	})
}

// deaf is a standard output that nobody reads any more.
type deaf struct{}

func (deaf) Write([]byte) (int, error) { return 0, syscall.EPIPE }

func TestAReadyLineThatNobodyReadsIsAFailure(t *testing.T) {
	s := start(t, httvpstest.Options{})
	home := enrolled(t, s)
	stderr := newOutput()
	if code := run(t.Context(), []string{"connect", "--home", home, "--socks", ":0"}, nil, deaf{}, stderr); code != 1 {
		t.Errorf("exit %d, %s", code, stderr)
	}
}

func TestSignalsEndItInOrder(t *testing.T) {
	s := start(t, httvpstest.Options{})
	home := enrolled(t, s)
	for _, signal := range []os.Signal{os.Interrupt, syscall.SIGTERM} {
		t.Run(signal.String(), func(t *testing.T) {
			cmd := exec.CommandContext(t.Context(), os.Args[0], "connect", "--home", home, "--socks", ":0")
			cmd.Env = append(os.Environ(), "HTTVPS_TEST_RUN_MAIN=1")
			var stderr strings.Builder
			cmd.Stderr = &stderr
			stdout, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			line, err := bufio.NewReader(stdout).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			parseReady(t, line)
			_ = cmd.Process.Signal(signal)
			if err := cmd.Wait(); err != nil {
				t.Errorf("it ended with %v, want 0", err)
			}
			if told := stderr.String(); !strings.HasSuffix(told, "\ndisconnected\n") || strings.Contains(told, "signal") || strings.Contains(told, "lost") {
				t.Errorf("it told:\n%s", told)
			}
		})
	}
}

func TestVersionAndHelpExitWith0(t *testing.T) {
	for want, args := range map[string][]string{
		"httvps enroll":     {"--help"},
		"--connect-timeout": {"connect", "--help"},
		"Exit codes: 0":     nil,
	} {
		code, stdout, _ := call(t, args...)
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("%v: exit %d, %q", args, code, stdout)
		}
	}
	for _, arg := range []string{"version", "--version"} {
		if code, stdout, _ := call(t, arg); code != 0 || stdout != "httvps dev\n" {
			t.Errorf("%s: exit %d, %q", arg, code, stdout)
		}
	}
}
