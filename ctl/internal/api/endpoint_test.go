package api

import (
	"errors"
	"strings"
	"testing"
)

func TestParseEndpoint(t *testing.T) {
	for name, tc := range map[string]struct{ raw, want string }{
		"https":                      {"https://Example.org:8443", "https://example.org:8443"},
		"slash at the end":           {"https://example.org/", "https://example.org"},
		"behind a path":              {"https://example.org/Vpn//", "https://example.org/Vpn"},
		"IPv6":                       {"https://[2001:db8::1]:1", "https://[2001:db8::1]:1"},
		"http on loopback":           {"http://127.1.2.3:80", "http://127.1.2.3:80"},
		"http on IPv6 loopback":      {"http://[::1]:80", "http://[::1]:80"},
		"http on localhost":          {"http://LOCALHOST:80", "http://localhost:80"},
		"http elsewhere":             {raw: "http://example.org"},
		"http on a lookalike":        {raw: "http://127.0.0.1.example.org"},
		"http on all addresses":      {raw: "http://0.0.0.0:80"},
		"credentials":                {raw: "https://user:pass@example.org"},
		"query":                      {raw: "https://example.org?x"},
		"empty query":                {raw: "https://example.org?"},
		"fragment":                   {raw: "https://example.org#x"},
		"no scheme":                  {raw: "example.org"},
		"no host":                    {raw: "https:///x"},
		"port only":                  {raw: "https://:8443"},
		"another scheme":             {raw: "file:///etc/passwd"},
		"not a URL":                  {raw: "https://exa mple.org"},
		"nothing":                    {raw: ""},
		"a host with a control char": {raw: "https://exam\x7fple.org"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ParseEndpoint(tc.raw)
			if got.String() != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("ParseEndpoint(%q) = %q, %v, want %q", tc.raw, got, err, tc.want)
			}
		})
	}
}

func TestPlainHTTPConnectsToLoopbackOnly(t *testing.T) {
	for address, want := range map[string]error{
		"127.0.0.1:80":          nil,
		"[::1]:80":              nil,
		"[::ffff:127.0.0.1]:80": nil,
		"192.0.2.1:80":          errOutside,
		"0.0.0.0:80":            errOutside,
		"[fe80::1%eth0]:80":     errOutside,
		"nonsense":              errOutside,
	} {
		if err := refuseOutside(t.Context(), "tcp", address, nil); !errors.Is(err, want) {
			t.Errorf("refuseOutside(%s) = %v, want %v", address, err, want)
		}
	}
}

func TestParseBootstrapLink(t *testing.T) {
	const (
		code = "MZXW6YTBOI2DIMRSGQ2DENZXGA"
		pin  = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	)
	for raw, wantPin := range map[string]bool{
		"https://h:1/p/bootstrap#code=" + code:                         false,
		" https://h:1/p/bootstrap#code=" + code + ",pin=" + pin + "\n": true,
		"https://h:1/p/bootstrap#pin=" + pin + ",new=1,code=" + code:   true,
		"https://h:1/p/bootstrap#code=" + strings.ToLower(code):        false,
	} {
		got, err := ParseBootstrapLink(raw)
		if err != nil || got.Endpoint.String() != "https://h:1/p" || got.Code != code || (got.Pin != nil) != wantPin {
			t.Errorf("ParseBootstrapLink(%q) = %+v, %v", raw, got, err)
		}
	}
	for raw, want := range map[string]string{
		"https://h:1/p":                                            "not a bootstrap URL",
		"https://h:1/p/join#code=" + code:                          "not a bootstrap URL",
		"ftp://h:1/bootstrap#code=" + code:                         "must look like",
		"https://h:1/p/bootstrap":                                  "no code",
		"https://h:1/p/bootstrap#code=" + code + "&pin=" + pin:     "its code",
		"https://h:1/p/bootstrap#code=" + code + ",pin=" + pin[1:]: "its pin",
		"https://h:1/p/bootstrap#code=" + code + ",code=" + code:   "twice",
	} {
		if _, err := ParseBootstrapLink(raw); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), code) {
			t.Errorf("ParseBootstrapLink(%q): %v, want %q", raw, err, want)
		}
	}
}

func FuzzBootstrapLink(f *testing.F) {
	f.Add("https://127.0.0.1:8443/bootstrap#code=MZXW6YTBOI2DIMRSGQ2DENZXGA,pin=AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	f.Add("https://h/x/bootstrap#more=1,code=mzxw6ytboi2dimrsgq2denzxga")
	f.Add("/bootstrap#")
	f.Fuzz(func(t *testing.T, raw string) {
		link, err := ParseBootstrapLink(raw)
		if err != nil {
			return
		}
		if link.Code == "" || link.Endpoint.IsZero() {
			t.Errorf("ParseBootstrapLink(%q) = %+v", raw, link)
		}
		if again, err := ParseEndpoint(link.Endpoint.String()); err != nil || again != link.Endpoint {
			t.Errorf("endpoint %q does not survive: %q, %v", link.Endpoint, again, err)
		}
	})
}
