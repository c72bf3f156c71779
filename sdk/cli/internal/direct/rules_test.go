package direct

import (
	"encoding/json"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os/exec"
	"strings"
	"testing"
)

func mustParse(t *testing.T, texts ...string) *Rules {
	t.Helper()
	r, err := Parse(texts)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// judged is what the rules of rulesOfJudged say about hosts.
var (
	rulesOfJudged = []string{"Example.COM.", "*.wild.test", ".dot.test", "private", "192.0.2.0/24", "198.51.100.7", "[2001:db8::1]", "2001:db8:7::/48", "xn--e1afmkfd.test", "local"}
	judged        = map[string]bool{
		"example.com": true, "EXAMPLE.com.": true, "www.example.com": true, "a.b.example.com": true,
		"badexample.com": false, "example.com.evil.test": false, "com": false, "": false, ".": false,
		"wild.test": true, "a.wild.test": true, "dot.test": true, "a.dot.test": true, "test": false,
		"xn--e1afmkfd.test": true, "printer.local": true, "local": true,
		"10.1.2.3": true, "172.16.0.1": true, "172.32.0.1": false, "192.168.255.255": true, "169.254.169.254": true,
		"127.0.0.1": false, "0.0.0.0": false, "192.0.2.255": true, "192.0.3.0": false, "198.51.100.7": true, "198.51.100.8": false,
		"localhost": false, "10.1.2.3.evil.test": false, "010.1.2.3": false, "10.1": false, "0xa.1.2.3": false,
	}
	judgedIPv6 = map[string]bool{
		"2001:db8::1": true, "2001:db8::2": false, "2001:db8:7:1::9": true, "::1": false, "fe80::1": true, "fe80::1%eth0": true,
		"fd00::1": true, "::ffff:10.1.2.3": true, "::ffff:127.0.0.1": false,
	}
)

func TestARuleNamesWhatItSaysAndNothingElse(t *testing.T) {
	r := mustParse(t, rulesOfJudged...)
	for _, hosts := range []map[string]bool{judged, judgedIPv6} {
		for host, want := range hosts {
			if got := r.Host(host); got != want {
				t.Errorf("%q direct: %v, want %v", host, got, want)
			}
		}
	}
	for _, none := range []*Rules{nil, {}, mustParse(t)} {
		if !none.Empty() || none.Host("example.com") || none.Host("10.0.0.1") || none.Addr(netip.MustParseAddr("10.0.0.1")) {
			t.Error("without a rule something is direct")
		}
	}
	if everything := mustParse(t, "0.0.0.0/0", "::/0"); !everything.Host("192.0.2.1") || !everything.Host("::1") || everything.Host("a.test") {
		t.Error("the prefix of all addresses is not all addresses")
	}
}

func TestWhatIsNoRuleIsAnErrorThatQuotesIt(t *testing.T) {
	for text, want := range map[string]string{
		"":                              "want a domain",
		".":                             "want a domain",
		"*":                             "want a domain",
		"10.0.0.1/8":                    "did you mean 10.0.0.0/8?",
		"10.0.0.0/33":                   "want a prefix",
		"::ffff:10.0.0.0/104":           "want a prefix",
		"fe80::1%eth0":                  "zone",
		"http://a.test":                 "want a prefix",
		"a.test:80":                     "want a domain",
		"a..test":                       "empty",
		"пример.test":                   "xn--",
		"10.1":                          "neither",
		"a b":                           "want a domain",
		"a\"b":                          "want a domain",
		strings.Repeat("a", 64) + ".b":  "too long",
		strings.Repeat("a.", 127) + "a": "want a domain",
	} {
		if r, err := Parse([]string{"a.test", text}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, %v; want %q", text, r, err, want)
		}
	}
	if _, err := Parse(make([]string, maxRules+1)); err == nil {
		t.Error("any number of rules is taken")
	}
}

// FuzzRules: whatever is taken for a rule can be said in a PAC file, names itself
// where it is a host, and nothing panics.
func FuzzRules(f *testing.F) {
	for _, seed := range append([]string{"http://x", "a.test\x00", "::/0", "[::1]"}, rulesOfJudged...) {
		f.Add(seed, "www.example.com")
	}
	f.Fuzz(func(t *testing.T, text, host string) {
		r, err := Parse([]string{text})
		if err != nil {
			return
		}
		r.Host(host)
		for domain := range r.domains {
			if !r.Host(domain) || !r.Host("www."+domain) || strings.ContainsAny(domain, "\"\\\n<") {
				t.Fatalf("%q became the domain %q", text, domain)
			}
		}
		for p := range r.prefixes {
			if !r.Addr(p.Addr()) {
				t.Fatalf("%q does not name %s", text, p.Addr())
			}
		}
		if pac := string(r.PAC("127.0.0.1:1")); strings.Count(pac, "\n") != 15 {
			t.Fatalf("%q is in the PAC file as\n%s", text, pac)
		}
	})
}

func TestThePACFileSaysWhatTheRulesSay(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed (Debian: nodejs)")
	}
	hosts, _ := json.Marshal(judged)
	script := string(mustParse(t, rulesOfJudged...).PAC("127.0.0.1:8118")) + `
function isInNet(host, network, mask) {
  function number(s) { return s.split(".").reduce(function (n, b) { return n * 256 + Number(b); }, 0); }
  return ((number(host) & number(mask)) >>> 0) === number(network);
}
var hosts = ` + string(hosts) + `;
for (var host in hosts) {
  var want = hosts[host] ? "DIRECT" : "PROXY 127.0.0.1:8118";
  var got = FindProxyForURL("http://" + host + "/", host);
  if (got !== want) console.log(host + ": " + got + ", want " + want);
}
for (var odd of ["[2001:db8::1]", "2001:db8::1", "hasownproperty", "__proto__", "constructor.length"]) {
  if (FindProxyForURL("", odd) !== "PROXY 127.0.0.1:8118") console.log(odd);
}`
	// What node calls an octal number is not asked, as browsers pass plain addresses.
	out, err := exec.CommandContext(t.Context(), node, "-e", script).CombinedOutput()
	if err != nil || strings.TrimSpace(strings.ReplaceAll(string(out), "010.1.2.3: DIRECT, want PROXY 127.0.0.1:8118", "")) != "" {
		t.Errorf("%v\n%s", err, out)
	}
	if empty := string((*Rules)(nil).PAC("[::1]:1")); !strings.Contains(empty, "domains = [];") || !strings.Contains(empty, "networks = [];") {
		t.Errorf("without rules:\n%s", empty)
	}
}

func TestThePACFileIsForThisMachinesBrowsersOnly(t *testing.T) {
	page := mustParse(t, "intranet.test").Page(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 8118})
	for name, tc := range map[string]struct {
		method, path, host, site string
		status                   int
		address                  string
	}{
		"a browser's settings":    {host: "127.0.0.1:8118", status: 200, address: "127.0.0.1:8118"},
		"by name":                 {host: "localhost:8118", status: 200, address: "127.0.0.1:8118"},
		"over another address":    {host: "192.168.1.2:8118", status: 200, address: "192.168.1.2:8118"},
		"over IPv6":               {host: "[::1]:8118", status: 200, address: "[::1]:8118"},
		"typed in":                {host: "127.0.0.1:8118", site: "none", status: 200, address: "127.0.0.1:8118"},
		"a head":                  {method: "HEAD", host: "127.0.0.1:8118", status: 200},
		"a page's script":         {host: "127.0.0.1:8118", site: "cross-site", status: 403},
		"a page of this machine":  {host: "127.0.0.1:8118", site: "same-site", status: 403},
		"under a name of its own": {host: "rebound.test:8118", status: 403},
		"another port":            {host: "127.0.0.1:80", status: 403},
		"no port":                 {host: "127.0.0.1", status: 403},
		"another page":            {path: "/", host: "127.0.0.1:8118", status: 404},
		"another method":          {method: "POST", host: "127.0.0.1:8118", status: 404},
	} {
		t.Run(name, func(t *testing.T) {
			if tc.method == "" {
				tc.method = http.MethodGet
			}
			if tc.path == "" {
				tc.path = PACPath
			}
			req := httptest.NewRequest(tc.method, tc.path, http.NoBody)
			req.Host = tc.host
			if tc.site != "" {
				req.Header.Set("Sec-Fetch-Site", tc.site)
			}
			w := httptest.NewRecorder()
			page.ServeHTTP(w, req)
			if w.Code != tc.status || tc.address != "" && !strings.Contains(w.Body.String(), `"PROXY `+tc.address+`"`) {
				t.Errorf("%d, %s", w.Code, w.Body)
			}
			if w.Code != 200 && strings.Contains(w.Body.String(), "intranet") {
				t.Error("the rules are told")
			}
		})
	}
}
