package server

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"
	"time"

	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/gateway/internal/masquerade"
	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/sdk/go/knock"
)

func TestTheFirstCookieOfAnyFormCounts(t *testing.T) {
	for name, tc := range map[string]struct {
		lines []string
		want  string
	}{
		"none":                     {nil, ""},
		"one":                      {[]string{"sid=a"}, "a"},
		"among others":             {[]string{"x=1; sid=a; y=2"}, "a"},
		"without spaces":           {[]string{"x=1;sid=a;y=2"}, "a"},
		"in a later line":          {[]string{"x=1", "y=2; sid=a"}, "a"},
		"two":                      {[]string{"sid=a; sid=b"}, "a"},
		"two lines":                {[]string{"sid=a", "sid=b"}, "a"},
		"an empty one first":       {[]string{"sid=; sid=b"}, ""},
		"one without = first":      {[]string{"sid; sid=b"}, ""},
		"one that is none first":   {[]string{`sid="\x"; sid=b`}, `"\x"`},
		"with = inside":            {[]string{"sid=a=b"}, "a=b"},
		"another that begins so":   {[]string{"side=a; asid=b"}, ""},
		"another in capitals":      {[]string{"SID=a"}, ""},
		"a value that looks so":    {[]string{"x=sid=a"}, ""},
		"a space within the value": {[]string{"sid= a"}, " a"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := cookie(http.Header{"Cookie": tc.lines}, "sid"); got != tc.want {
				t.Errorf("cookie = %q, want %q", got, tc.want)
			}
		})
	}
}

// The knocks of who is not let in take their time, which is to be the same for all
// of a form: compare the sub-benchmarks.
func BenchmarkKnockRefusal(b *testing.B) {
	const host = "gw.example"
	key := knock.Key{1}
	site, err := masquerade.New(masquerade.Config{})
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = site.Close() }()
	told := nodes.Knock{Cookie: knock.DefaultCookie, Keys: []knock.Key{key, {2}}}
	front := newFront([]*url.URL{{Host: host, Path: "/tunnel"}},
		newKnocks(config.Knock{Cookie: knock.DefaultCookie}, func() nodes.Knock { return told }), http.NotFoundHandler(), passing{}, site)
	good := knock.Mint(key, host, time.Now())
	for _, bm := range []struct{ name, cookie string }{
		{"no cookie", ""},
		{"another cookie", "session=" + good},
		{"another form", "sid=1"},
		{"another key", "sid=" + knock.Mint(knock.Key{9}, host, time.Now())},
		{"old", "sid=" + knock.Mint(key, host, time.Now().Add(-time.Hour))},
		{"good for another path", "sid=" + good},
	} {
		b.Run(bm.name, func(b *testing.B) {
			r := httptest.NewRequestWithContext(b.Context(), http.MethodGet, "https://"+host+"/", nil)
			if bm.cookie != "" {
				r.Header.Set("Cookie", bm.cookie)
			}
			b.ReportAllocs()
			for b.Loop() {
				front.ServeHTTP(httptest.NewRecorder(), r)
			}
		})
	}
}

// passing is a relay that takes one path.
type passing struct{ http.Handler }

func (passing) Takes(r *http.Request) bool { return r.URL.Path == "/passed" }

// A device's request is right in every point; whatever is not, meets the site.
func TestOnlyARequestThatIsRightInEveryPointMeetsTheTunnel(t *testing.T) {
	const host = "gw.example"
	key := knock.Key{1}
	told := nodes.Knock{Cookie: knock.DefaultCookie, Keys: []knock.Key{key}}
	says := func(what string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Met", what) })
	}
	front := newFront([]*url.URL{{Host: host, Path: "/tunnel"}, {Host: "front.example:4443", Path: "/way"}, {Host: "FRONT.example:443", Path: "/tunnel"}},
		newKnocks(config.Knock{Cookie: knock.DefaultCookie}, func() nodes.Knock { return told }), says("tunnel"), passing{says("relay")}, says("site"))
	for name, tc := range map[string]struct {
		change func(r *http.Request)
		want   string
	}{
		"as it has to be":                  {func(*http.Request) {}, "tunnel"},
		"with the port in its host":        {func(r *http.Request) { r.Host = host + ":443"; knockOn(r, key, host+":443") }, "tunnel"},
		"without a knock":                  {func(r *http.Request) { r.Header.Del("Cookie") }, "site"},
		"with another key's knock":         {func(r *http.Request) { knockOn(r, knock.Key{2}, host) }, "site"},
		"with another host's knock":        {func(r *http.Request) { knockOn(r, key, "other.example") }, "site"},
		"to another host":                  {func(r *http.Request) { r.Host = "other.example"; knockOn(r, key, "other.example") }, "site"},
		"for the control plane":            {func(r *http.Request) { r.URL.Path = "/passed"; r.Header.Del("Upgrade") }, "relay"},
		"for that without a knock":         {func(r *http.Request) { r.URL.Path = "/passed"; r.Header.Del("Cookie") }, "site"},
		"for that with a query":            {func(r *http.Request) { r.URL.Path = "/passed"; r.URL.RawQuery = "x=1" }, "site"},
		"for that of another host":         {func(r *http.Request) { r.URL.Path = "/passed"; r.Host = "other.example"; knockOn(r, key, r.Host) }, "site"},
		"to a front":                       {to(key, "front.example:4443", "/way"), "tunnel"},
		"to a front in capitals":           {to(key, "Front.Example:4443", "/way"), "tunnel"},
		"to another front":                 {to(key, "front.example", "/tunnel"), "tunnel"},
		"to a front without a knock":       {func(r *http.Request) { r.Host, r.URL.Path = "front.example:4443", "/way"; r.Header.Del("Cookie") }, "site"},
		"with a knock for the URL":         {func(r *http.Request) { r.Host, r.URL.Path = "front.example:4443", "/way" }, "site"},
		"to a front by the URL's path":     {to(key, "front.example:4443", "/tunnel"), "site"},
		"to the URL by a front's path":     {to(key, host, "/way"), "site"},
		"to a front's other port":          {to(key, "front.example:4444", "/way"), "site"},
		"for the control plane by a front": {func(r *http.Request) { to(key, "front.example:4443", "/passed")(r); r.Header.Del("Upgrade") }, "relay"},
		"to another path":                  {func(r *http.Request) { r.URL.Path = "/" }, "site"},
		"with a query":                     {func(r *http.Request) { r.URL.RawQuery = "x=1" }, "site"},
		"by another method":                {func(r *http.Request) { r.Method = http.MethodPost }, "site"},
		"without an upgrade":               {func(r *http.Request) { r.Header.Del("Upgrade") }, "site"},
		"of another kind":                  {func(r *http.Request) { r.Header.Set("Upgrade", "h2c") }, "site"},
		"without Connection: Upgrade":      {func(r *http.Request) { r.Header.Del("Connection") }, "site"},
		"for another protocol":             {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Protocol", "chat") }, "site"},
		"for another version":              {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Version", "8") }, "site"},
		"with a key of another size":       {func(r *http.Request) { r.Header.Set("Sec-WebSocket-Key", "AAAA") }, "site"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+host+"/tunnel", nil)
			for key, value := range map[string]string{
				"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13",
				"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Protocol": "httvps.v1",
			} {
				r.Header.Set(key, value)
			}
			knockOn(r, key, host)
			tc.change(r)
			w := httptest.NewRecorder()
			front.ServeHTTP(w, r)
			if got := w.Header().Get("X-Met"); got != tc.want {
				t.Errorf("the request met the %s, want the %s", got, tc.want)
			}
		})
	}
}

// to has a request go to another place, with the knock for its host.
func to(key knock.Key, host, path string) func(*http.Request) {
	return func(r *http.Request) {
		r.Host, r.URL.Path = host, path
		knockOn(r, key, host)
	}
}

// knockOn gives r the knock of a key for a host.
func knockOn(r *http.Request, key knock.Key, host string) {
	r.Header.Set("Cookie", knock.DefaultCookie+"="+knock.Mint(key, host, time.Now()))
}
