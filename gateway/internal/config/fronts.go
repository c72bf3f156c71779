package config

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/httvps/httvps/internal/acme"
	"github.com/httvps/httvps/sdk/go/wire"
)

// CanonicalHost is a Host header, or a URL's host, in lower case and without the port
// that https has anyway.
func CanonicalHost(host string) string {
	return strings.TrimSuffix(strings.ToLower(host), ":443")
}

// validateFronts does not repeat a front: its path is for devices alone.
func (c Config) validateFronts(p *problems) {
	if n := len(c.Fronts); n > wire.MaxURLs {
		p.add("fronts are %d, want at most %d", n, wire.MaxURLs)
	}
	var seen []*url.URL
	same := func(u *url.URL) func(*url.URL) bool {
		return func(other *url.URL) bool {
			return other != nil && CanonicalHost(other.Host) == CanonicalHost(u.Host) && other.Path == u.Path
		}
	}
	own, _ := ParseURL(c.URL) // nil: that is told elsewhere
	for i, text := range c.Fronts {
		u, err := ParseURL(text)
		switch {
		case err != nil:
			p.add("fronts[%d]: %w", i, err)
		case len(text) > wire.MaxURL:
			p.add("fronts[%d] has %d bytes, want at most %d", i, len(text), wire.MaxURL)
		case strings.ContainsFunc(text, func(r rune) bool { return r <= ' ' || r > '~' }):
			p.add("fronts[%d] is not all visible ASCII, want its host as xn--…, and in its path %%20 and its kind", i)
		case same(u)(own):
			p.add("fronts[%d] is the same as url", i)
		case slices.ContainsFunc(seen, same(u)):
			p.add("fronts[%d] is the same as fronts[%d]", i, slices.IndexFunc(seen, same(u)))
		}
		seen = append(seen, u)
	}
}

// URLs are those at which devices reach the tunnel, URL first. What is none is left out.
func (c Config) URLs() []*url.URL {
	var urls []*url.URL
	for _, text := range append([]string{c.URL}, c.Fronts...) {
		if u, err := ParseURL(text); err == nil {
			urls = append(urls, u)
		}
	}
	return urls
}

// Reaches says where an authority finds the hosts of [Config.URLs]. There is one at least.
func (c Config) Reaches() []acme.Reach {
	var reaches []acme.Reach // of one host each
	for _, u := range c.URLs() {
		host := strings.ToLower(u.Hostname())
		if addr, err := netip.ParseAddr(host); err == nil { // which may be written in many ways
			host = addr.String()
		}
		at := slices.IndexFunc(reaches, func(r acme.Reach) bool { return r.Host == host })
		if at < 0 {
			at = len(reaches)
			reaches = append(reaches, acme.Reach{Host: host, Port80: c.HTTPListen != ""})
		}
		if u.Port() == "" || u.Port() == "443" {
			reaches[at].Port443 = true
		}
	}
	if reaches == nil {
		return []acme.Reach{{Port80: c.HTTPListen != ""}}
	}
	return reaches
}

// Reach is the first of Reaches: that of URL.
func (c Config) Reach() acme.Reach { return c.Reaches()[0] }

// Hosts are those of URL and Fronts, which devices want to see in certificates; that of
// URL first.
func (c Config) Hosts() []string {
	var hosts []string
	for _, reach := range c.Reaches() {
		if reach.Host != "" {
			hosts = append(hosts, reach.Host)
		}
	}
	return hosts
}
