package masquerade

import (
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newSite(t *testing.T, cfg Config) *Site {
	t.Helper()
	site, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := site.Close(); err != nil {
			t.Error(err)
		}
	})
	return site
}

func get(site http.Handler, path string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "https://gw.example/", nil)
	r.URL.Path = path
	w := httptest.NewRecorder()
	site.ServeHTTP(w, r)
	return w
}

func TestWithoutAnythingThereIsAPage(t *testing.T) {
	site := newSite(t, Config{})
	resp := get(site, "/")
	if text := resp.Body.String(); resp.Code != http.StatusOK || !strings.Contains(text, "It works!") ||
		!strings.HasPrefix(resp.Header().Get("Content-Type"), "text/html") || strings.Contains(strings.ToLower(text), "httvps") {
		t.Errorf("%d %v: %s", resp.Code, resp.Header(), text)
	}
	if resp := get(site, "/other"); resp.Code != http.StatusNotFound {
		t.Errorf("another path gets %d", resp.Code)
	}
}

func TestADirectoryShowsItsFilesAndNothingElse(t *testing.T) {
	outside, dir := t.TempDir(), t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(filepath.Join(outside, "secret"), "secret")
	write(filepath.Join(outside, "index.html"), "secret")
	write(filepath.Join(dir, "index.html"), "home")
	write(filepath.Join(dir, "a.css"), "css")
	write(filepath.Join(dir, "sub/index.html"), "below")
	write(filepath.Join(dir, "bare/file.txt"), "file")
	write(filepath.Join(dir, "odd/index.html/x"), "an index that is a directory")
	for name, target := range map[string]string{
		"out": filepath.Join(outside, "secret"), "up": "../" + filepath.Base(outside) + "/secret", "outdir": outside, "inside": "a.css", "dangling": "nowhere",
	} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o600); err != nil { // to open it would take for ever
		t.Fatal(err)
	}
	site := newSite(t, Config{Dir: dir})
	for path, want := range map[string]string{
		"/": "home", "/a.css": "css", "/sub/": "below", "/bare/file.txt": "file", "/inside": "css",
		"/sub": "301", "/index.html": "301",
		"/bare/": "404", "/bare": "404", "/odd/": "404", "/nothing": "404", "/out": "404", "/up": "404", "/outdir/": "404", "/outdir/secret": "404",
		"/dangling": "404", "/pipe": "404", "/../" + filepath.Base(outside) + "/secret": "404", "/a.css/": "301", "/x\x00y": "404",
	} {
		resp := get(site, path)
		got := resp.Body.String()
		if resp.Code != http.StatusOK {
			got = fmt.Sprint(resp.Code)
		}
		if got != want || strings.Contains(got, "secret") {
			t.Errorf("%q gets %q, want %q", path, got, want)
		}
	}
}

func TestADirectoryThatIsNotThereIsAnError(t *testing.T) {
	_, err := New(Config{Dir: filepath.Join(t.TempDir(), "x")})
	if !errors.Is(err, os.ErrNotExist) || !strings.HasPrefix(err.Error(), "masquerade.dir") {
		t.Errorf("New = %v", err)
	}
}

// passed is a request as another server sees it.
type passed struct {
	Method, Target, Host, Body string
	Header                     http.Header
}

func other(t *testing.T, answer http.HandlerFunc) (*url.URL, <-chan passed) {
	t.Helper()
	seen := make(chan passed, 16)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		text, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		seen <- passed{r.Method, r.URL.RequestURI(), r.Host, string(text), r.Header}
		answer(w, r)
	}))
	t.Cleanup(server.Close)
	u, err := url.Parse(server.URL + "/base")
	if err != nil {
		t.Fatal(err)
	}
	return u, seen
}

func TestRequestsArePassedOnWithoutWhatIsOurs(t *testing.T) {
	u, seen := other(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Server", "other/1")
		w.Header().Set("Alt-Svc", `h3=":443"`)
		w.Header().Set("Connection", "close")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, "hello")
	})
	site := newSite(t, Config{URL: u, Hide: func(name string) bool { return name == "sid" }})
	r := httptest.NewRequest(http.MethodPost, "https://gw.example/p?q=1", strings.NewReader("body"))
	r.RemoteAddr = "203.0.113.9:1234"
	for name, value := range map[string]string{
		"Cookie": "a=b; sid=knock; c=d", "X-Forwarded-For": "192.0.2.1", "X-Forwarded-Host": "x", "Forwarded": "for=192.0.2.1",
		"Connection": "X-Hop, keep-alive", "X-Hop": "1", "Proxy-Authorization": "x", "Accept": "text/html", "User-Agent": "",
	} {
		r.Header.Set(name, value)
	}
	r.Header.Add("Cookie", "sid=x")
	r.Header.Add("Cookie", " sid=x;e=f ;  g=h")
	w := httptest.NewRecorder()
	site.ServeHTTP(w, r)
	want := passed{
		Method: "POST", Target: "/base/p?q=1", Host: u.Host, Body: "body",
		Header: http.Header{"Accept": {"text/html"}, "Cookie": {"a=b; c=d", "e=f ;  g=h"}, "Content-Length": {"4"}},
	}
	if diff := cmp.Diff(want, <-seen); diff != "" {
		t.Errorf("the other server sees (-want +got):\n%s", diff)
	}
	w.Header().Del("Date")
	if diff := cmp.Diff(http.Header{"Server": {"other/1"}, "Content-Length": {"5"}, "Content-Type": {"text/plain; charset=utf-8"}}, w.Header()); diff != "" || w.Code != http.StatusTeapot {
		t.Errorf("the visitor gets %d:\n%s", w.Code, diff)
	}
}

func TestARequestForAnotherHostGoesToTheSame(t *testing.T) {
	u, seen := other(t, func(http.ResponseWriter, *http.Request) {})
	site := newSite(t, Config{URL: u})
	r := httptest.NewRequest(http.MethodGet, "http://metadata.internal/latest", nil)
	site.ServeHTTP(httptest.NewRecorder(), r)
	if got := <-seen; got.Host != u.Host || got.Target != "/base/latest" {
		t.Errorf("passed on: %+v", got)
	}
}

func TestWithoutTheOtherServerThereIsABadGateway(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	site := newSite(t, Config{URL: &url.URL{Scheme: "http", Host: l.Addr().String()}})
	resp := get(site, "/")
	if resp.Code != http.StatusBadGateway || resp.Body.Len() > 0 {
		t.Errorf("%d: %q", resp.Code, resp.Body)
	}
}

func TestCloseWaitsForVisitorsAndLetsInNoMore(t *testing.T) {
	begun, end := make(chan struct{}), make(chan struct{})
	u, _ := other(t, func(_ http.ResponseWriter, r *http.Request) {
		close(begun)
		select {
		case <-end:
		case <-r.Context().Done():
		}
	})
	site, err := New(Config{URL: u})
	if err != nil {
		t.Fatal(err)
	}
	answered := make(chan int, 1)
	go func() { answered <- get(site, "/").Code }()
	<-begun
	closed := make(chan error, 1)
	go func() { closed <- site.Close() }()
	select {
	case err := <-closed:
		t.Errorf("Close has not waited: %v", err)
		closed <- err
	case <-time.After(50 * time.Millisecond):
	}
	close(end)
	if status := <-answered; status != http.StatusOK {
		t.Errorf("the visitor gets %d", status)
	}
	if err := <-closed; err != nil {
		t.Error(err)
	}
	defer func() {
		if recover() != http.ErrAbortHandler { //nolint:errorlint // it is compared so by net/http
			t.Error("a request after Close is served")
		}
	}()
	get(site, "/")
}

// Like other servers this one ends connections now and then, with an answer.
func TestAnOldConnectionIsAskedToEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		site := newSite(t, Config{})
		conn := ConnContext(t.Context(), nil)
		ask := func() string {
			w := httptest.NewRecorder()
			site.ServeHTTP(w, httptest.NewRequestWithContext(conn, http.MethodGet, "https://gw.example/", nil))
			return w.Header().Get("Connection")
		}
		<-time.After(keepAlive - 1)
		if got := ask(); got != "" {
			t.Errorf("an answer in the first minute says %q", got)
		}
		<-time.After(1)
		if got := ask(); got != "close" {
			t.Errorf("an answer after a minute says %q", got)
		}
	})
}

func TestTheServerIsLikeAnySite(t *testing.T) {
	server := Server(http.NotFoundHandler())
	if diff := cmp.Diff([]string{"h2", "http/1.1"}, server.TLSConfig.NextProtos); diff != "" || server.TLSConfig.MinVersion != tls.VersionTLS13 {
		t.Error(diff)
	}
	if server.ReadHeaderTimeout == 0 || server.ReadTimeout == 0 || server.WriteTimeout == 0 || server.IdleTimeout == 0 || server.MaxHeaderBytes == 0 {
		t.Errorf("something has no bound: %+v", server)
	}
}

func TestBrowsersAreToldToStayWithHTTPS(t *testing.T) {
	said := ""
	u, _ := other(t, func(w http.ResponseWriter, _ *http.Request) {
		if said != "" {
			w.Header().Set("Strict-Transport-Security", said)
		}
	})
	own, passed := newSite(t, Config{HSTS: time.Hour}), newSite(t, Config{URL: u, HSTS: time.Hour})
	silent := newSite(t, Config{})
	gone := newSite(t, Config{URL: &url.URL{Scheme: "http", Host: "127.0.0.1:1"}, HSTS: time.Hour})
	for _, tc := range []struct {
		name string
		site *Site
		path string
		says string // the other server
		want []string
	}{
		{"its own page", own, "/", "", []string{"max-age=3600"}},
		{"what is not there", own, "/x", "", []string{"max-age=3600"}},
		{"another server that says nothing", passed, "/", "", []string{"max-age=3600"}},
		{"one that has its own word", passed, "/", "max-age=1; preload", []string{"max-age=1; preload"}},
		{"one that is not there", gone, "/", "", []string{"max-age=3600"}},
		{"nothing to say", silent, "/", "", nil},
	} {
		said = tc.says
		if diff := cmp.Diff(tc.want, get(tc.site, tc.path).Header()["Strict-Transport-Security"]); diff != "" {
			t.Errorf("%s: %s", tc.name, diff)
		}
	}
}
