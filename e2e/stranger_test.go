package e2e

import (
	"net/url"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// visit looks at a gateway as a stranger does and returns what he sees.
func visit(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "curl", append([]string{"-sSik", "--http1.1", "--max-time", "20"}, args...)...).CombinedOutput()
	if err != nil {
		t.Fatalf("curl %s: %v: %s", strings.Join(args, " "), err, out)
	}
	return regexp.MustCompile(`(?m)^Date: .*$`).ReplaceAllString(string(out), "Date: then")
}

// The tunnel's path with everything that makes a tunnel but the knock is a page
// like any other, before a device is connected and while it is.
func TestStrangersMeetASite(t *testing.T) {
	s := startService(t)
	far := startOrigin(t)
	u, err := url.Parse(s.Gateway)
	if err != nil {
		t.Fatal(err)
	}
	home, nothing := "https://"+u.Host+"/", "https://"+u.Host+"/nothing"
	look := func() {
		t.Helper()
		if got := visit(t, home); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.Contains(got, "It works!") {
			t.Errorf("the site is\n%s", got)
		}
		missing := visit(t, nothing)
		if !strings.HasPrefix(missing, "HTTP/1.1 404 Not Found\r\n") {
			t.Errorf("a page that is not there is\n%s", missing)
		}
		for _, cookie := range []string{"X-None: x", "Cookie: sid=1", "Cookie: sid=AQHBz5kAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"} {
			got := visit(t, "-H", "Connection: Upgrade", "-H", "Upgrade: websocket", "-H", "Sec-WebSocket-Version: 13",
				"-H", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "-H", "Sec-WebSocket-Protocol: httvps.v1", "-H", cookie, "https://"+u.Host+u.Path)
			if got != missing {
				t.Errorf("an upgrade with %q is\n%s\nwant\n%s", cookie, got, missing)
			}
		}
	}
	look()
	d := enroll(t, s.Invite)
	d.connect()
	look()
	if _, err := d.curl(far.URL() + "/1000"); err != nil {
		t.Error(err)
	}
}

func TestTheSiteIsTheOperatorsChoice(t *testing.T) {
	far := startOrigin(t)
	s := &service{t: t, dir: t.TempDir() + "/server", env: []string{"HTTVPS_GATEWAY_MASQUERADE_URL=" + far.URL()}}
	s.start()
	t.Cleanup(s.proc.Kill)
	u, err := url.Parse(s.Gateway)
	if err != nil {
		t.Fatal(err)
	}
	before := far.Requests()
	if got := visit(t, "https://"+u.Host+"/10"); !strings.HasPrefix(got, "HTTP/1.1 200 OK\r\n") || !strings.Contains(got, "Content-Length: 10") || far.Requests() != before+1 {
		t.Errorf("the other server's page is\n%s", got)
	}
	enroll(t, s.Invite).connect()
}
