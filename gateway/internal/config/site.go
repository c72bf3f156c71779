package config

import (
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/sdk/go/knock"
)

// maxKnockKeys bounds the keys that every stranger's request is tried with.
const maxKnockKeys = 8

// Masquerade is a website: of files, or another server's, or without both a page
// of the gateway's own.
type Masquerade struct {
	// Dir holds static files.
	Dir string `yaml:"dir" env:"DIR"`
	// URL is another server, http or https, that requests are passed on to.
	URL string `yaml:"url" env:"URL"`
	// HSTS is for how long browsers that have seen the site take it over HTTPS alone
	// (Strict-Transport-Security). 0: nothing is said about it.
	HSTS configfile.Duration `yaml:"hsts" env:"HSTS"`
}

const maxHSTS = 2 * 365 * 24 * time.Hour

func (m Masquerade) validate(p *problems) {
	if m.Dir != "" && m.URL != "" {
		p.add("masquerade.dir and masquerade.url are both set, want one site")
	}
	if m.URL != "" {
		if _, err := ParseSite(m.URL); err != nil {
			p.add("masquerade.url: %w", err)
		}
	}
	p.duration("masquerade.hsts", m.HSTS, 0, maxHSTS)
}

// ParseSite reads the URL of a website: http or https, a host, perhaps a port,
// perhaps a path that comes before those of requests.
func ParseSite(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, errors.New("is not a URL, want https://host[:port][/path]") // the parser's error repeats the text
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("has the scheme %q, want https or http", u.Scheme)
	case u.Hostname() == "":
		return nil, errors.New("has no host, want https://host[:port][/path]")
	case u.User != nil, u.RawQuery != "", u.ForceQuery, u.Fragment != "":
		return nil, errors.New("has a user, query or fragment, want only https://host[:port][/path]")
	case u.Port() != "" && !validPort(u.Port(), 1):
		return nil, errors.New("has a port that is not 1 to 65535")
	}
	return u, nil
}

// Knock is what devices are known by that have it from elsewhere than the control
// plane: the cookie of that name holds a knock under one of the keys.
type Knock struct {
	// Cookie is the cookie's name. The control plane says by itself which is its
	// own.
	Cookie string `yaml:"cookie" env:"COOKIE"`
	// Keys are secret.
	Keys []KnockKey `yaml:"keys" env:"KEYS"`
}

// KnockKey is a key in a configuration, base64url. It can be read and not be
// printed.
type KnockKey struct{ knock.Key }

// MarshalText returns a placeholder.
func (k KnockKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

func (k Knock) validate(p *problems) {
	if err := knock.ValidCookieName(k.Cookie); err != nil {
		p.add("knock.cookie: %w", err)
	}
	if len(k.Keys) > maxKnockKeys {
		p.add("knock.keys are %d, want at most %d", len(k.Keys), maxKnockKeys)
	}
	for i, key := range k.Keys {
		if key.Key == (knock.Key{}) {
			p.add("knock.keys[%d] is empty", i)
		}
	}
}
