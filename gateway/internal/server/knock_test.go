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
	front := newFront(&url.URL{Host: host, Path: "/tunnel"},
		newKnocks(config.Knock{Cookie: knock.DefaultCookie}, func() nodes.Knock { return told }), http.NotFoundHandler(), site)
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
