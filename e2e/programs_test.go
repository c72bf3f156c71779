package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/cgi"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// need skips a test of a program that is not installed.
func need(t *testing.T, program, debian string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Skipf("%s is not installed (Debian: %s)", program, debian)
	}
	return path
}

// program runs a program to its end, which has a bound, in an environment of its own.
func program(t *testing.T, env []string, name string, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + cmd.Dir}, env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

// proxied is a device with both proxies.
func proxied(t *testing.T) *device {
	t.Helper()
	d := enroll(t, startService(t).Invite)
	d.args = []string{"--http", "127.0.0.1:0"}
	d.connect()
	return d
}

// TestCurlThroughBothProxies has curl speak HTTP/1.1 and HTTP/2 to a server with TLS,
// and HTTP/1.1 to one without.
func TestCurlThroughBothProxies(t *testing.T) {
	far := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = fmt.Fprintf(w, "%s %s", r.Proto, strings.Repeat("x", 100_000))
	}))
	far.EnableHTTP2 = true
	far.StartTLS()
	defer far.Close()
	plain := startOrigin(t)
	d := proxied(t)
	for _, proxy := range []string{"socks5h://" + d.Socks, "http://" + d.HTTP} {
		for flag, want := range map[string]string{"--http1.1": "HTTP/1.1 ", "--http2": "HTTP/2.0 "} {
			out, err := program(t, nil, "curl", "-sSk", "--fail", "--noproxy", "", flag, "-x", proxy, far.URL)
			if err != nil || !strings.HasPrefix(out, want) || len(out) != len(want)+100_000 {
				t.Errorf("%s by way of %s: %d bytes, %.20q, %v", flag, proxy, len(out), out, err)
			}
		}
		out, err := program(t, nil, "curl", "-sS", "--fail", "--noproxy", "", "-x", proxy, plain.URL()+"/300000")
		if err != nil || len(out) != 300_000 {
			t.Errorf("without TLS by way of %s: %d bytes, %v", proxy, len(out), err)
		}
	}
	// What the far end refuses is told as HTTP has it.
	closed := freePort(t)
	if out, _ := program(t, nil, "curl", "-sS", "--noproxy", "", "-o", os.DevNull, "-w", "%{http_code}", "-x", "http://"+d.HTTP, "http://"+closed); out != "502" {
		t.Errorf("a closed port is answered with %s", out)
	}
}

// TestGitThroughBothProxies clones a repository over HTTP and pushes to it.
func TestGitThroughBothProxies(t *testing.T) {
	git := need(t, "git", "git")
	root := t.TempDir()
	identity := []string{"GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@a.test", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@a.test", "GIT_CONFIG_NOSYSTEM=1"}
	must := func(env []string, args ...string) {
		t.Helper()
		if out, err := program(t, append(env, identity...), git, args...); err != nil {
			t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	must(nil, "init", "-q", "--bare", root+"/repo.git")
	must(nil, "-C", root+"/repo.git", "config", "http.receivepack", "true")
	backend := &cgi.Handler{Path: git, Args: []string{"http-backend"}, Env: []string{"GIT_PROJECT_ROOT=" + root, "GIT_HTTP_EXPORT_ALL=1"}}
	far := httptest.NewServer(backend)
	defer far.Close()
	d := proxied(t)
	for i, proxy := range []string{"socks5h://" + d.Socks, "http://" + d.HTTP} {
		env := []string{"http_proxy=" + proxy, "no_proxy="}
		work := filepath.Join(root, fmt.Sprint("work", i))
		must(env, "clone", "-q", far.URL+"/repo.git", work)
		writeFile(t, filepath.Join(work, fmt.Sprint("file", i)), strings.Repeat("some text\n", 50_000))
		must(nil, "-C", work, "add", ".")
		must(nil, "-C", work, "commit", "-q", "-m", "more")
		must(env, "-C", work, "push", "-q", "origin", "HEAD:main")
		must(nil, "-C", root+"/repo.git", "symbolic-ref", "HEAD", "refs/heads/main")
	}
	out, err := program(t, nil, git, "-C", root+"/repo.git", "ls-tree", "--name-only", "main")
	if err != nil || out != "file0\nfile1\n" {
		t.Errorf("the repository has %q, %v", out, err)
	}
}

// TestABrowserLoadsAPageThroughTheProxy has Chromium load a page with 100 resources
// through the SOCKS5 port.
func TestABrowserLoadsAPageThroughTheProxy(t *testing.T) {
	chromium := need(t, "chromium", "chromium")
	const resources = 100
	var mu sync.Mutex
	asked := map[string]int{}
	far := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if name, ok := strings.CutPrefix(r.URL.Path, "/resource/"); ok {
			mu.Lock()
			asked[name]++
			mu.Unlock()
			w.Header().Set("Content-Type", "text/javascript")
			_, _ = fmt.Fprintf(w, "loaded += 1; // %s", strings.Repeat("x", 20_000))
			return
		}
		w.Header().Set("Content-Type", "text/html")
		_, _ = fmt.Fprint(w, "<!doctype html><title>page</title><script>let loaded = 0</script>")
		for i := range resources {
			_, _ = fmt.Fprintf(w, "<script src=/resource/%d></script>", i)
		}
		_, _ = fmt.Fprint(w, "<p id=result></p><script>document.getElementById('result').textContent = 'loaded ' + loaded + ' from ' + location.host</script>")
	}))
	defer far.Close()
	d := proxied(t)
	out, err := program(t, nil, chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
		"--user-data-dir="+t.TempDir(), "--proxy-server=socks5://"+d.Socks, "--proxy-bypass-list=<-loopback>", "--virtual-time-budget=30000", "--dump-dom", far.URL+"/")
	if want := fmt.Sprintf("loaded %d from %s", resources, strings.TrimPrefix(far.URL, "http://")); err != nil || !strings.Contains(out, want) {
		t.Errorf("the browser shows, %v:\n%s", err, out[max(0, len(out)-2000):])
	}
	mu.Lock()
	defer mu.Unlock()
	if len(asked) != resources {
		t.Errorf("%d resources were asked for", len(asked))
	}
	r := run(t, "", nil, "httvps", "status", "--home", d.home, "-o", "json")
	var status struct{ Received int }
	if err := json.Unmarshal([]byte(r.stdout), &status); err != nil || status.Received < resources*20_000 {
		t.Errorf("the tunnel has carried %s", r.stdout)
	}
}

// TestALoginIsAskedForByBothProxies has curl show one.
func TestALoginIsAskedForByBothProxies(t *testing.T) {
	far := startOrigin(t)
	d := enroll(t, startService(t).Invite)
	login := writeFile(t, filepath.Join(t.TempDir(), "login"), "anna:pass word\n")
	d.args = []string{"--http", "127.0.0.1:0", "--proxy-login", login}
	d.connect()
	for _, proxy := range []string{"socks5h://" + d.Socks, "http://" + d.HTTP} {
		for user, ok := range map[string]bool{"anna:pass word": true, "anna:other": false} {
			out, err := program(t, nil, "curl", "-sS", "--fail", "--noproxy", "", "-x", proxy, "--proxy-user", user, far.URL()+"/1000")
			if (err == nil && len(out) == 1000) != ok {
				t.Errorf("%s by way of %s: %q, %v", user, proxy, out, err)
			}
		}
	}
}

// TestDirectRulesSendWhatTheySayAndNothingElse takes the service away: what still
// works goes without it.
func TestDirectRulesSendWhatTheySayAndNothingElse(t *testing.T) {
	far := startOrigin(t)
	s := startService(t)
	d := enroll(t, s.Invite)
	rules := writeFile(t, filepath.Join(t.TempDir(), "rules"), "# of the office\n127.0.0.1 # this machine\n")
	d.args = []string{"--http", "127.0.0.1:0", "--direct", "intranet.test", "--direct-file", rules}
	d.connect()
	elsewhere := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write(make([]byte, 1000))
	}))
	_ = elsewhere.Listener.Close() // another one takes its place
	var err error
	if elsewhere.Listener, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.2:0"); err != nil {
		t.Skipf("this system has no 127.0.0.2: %v", err)
	}
	elsewhere.Start()
	defer elsewhere.Close()
	get := func(proxy, url string) bool {
		out, err := program(t, nil, "curl", "-sS", "--fail", "--max-time", "2", "--noproxy", "", "-x", proxy, url+"/1000")
		return err == nil && len(out) == 1000
	}
	for _, proxy := range []string{"socks5h://" + d.Socks, "http://" + d.HTTP} {
		if !get(proxy, far.URL()) || !get(proxy, elsewhere.URL) {
			t.Errorf("%s does not work", proxy)
		}
	}
	s.proc.Kill()
	for _, proxy := range []string{"socks5h://" + d.Socks, "http://" + d.HTTP} {
		if !get(proxy, far.URL()) {
			t.Errorf("%s: what is direct needs the service", proxy)
		}
		if proxy == "http://"+d.HTTP && get(proxy, elsewhere.URL) {
			t.Errorf("%s: what no rule names went without the service", proxy)
		}
	}
	out, err := program(t, nil, "curl", "-sS", "--fail", "http://"+d.HTTP+"/proxy.pac")
	if err != nil || !strings.Contains(out, `"PROXY `+d.HTTP+`"`) || !strings.Contains(out, "intranet.test") {
		t.Errorf("the PAC file is %q, %v", out, err)
	}
}
