package server

import (
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/gateway/internal/nodes"
	"github.com/httvps/httvps/sdk/go/knock"
)

// knocks tells requests of devices from those of strangers, by the keys of the
// configuration and those of the control plane. Each kind has its own cookie.
type knocks struct {
	own  atomic.Pointer[nodes.Knock]
	told func() nodes.Knock // from memory
}

func newKnocks(cfg config.Knock, told func() nodes.Knock) *knocks {
	k := &knocks{told: told}
	k.set(cfg)
	return k
}

// set replaces the keys of the configuration.
func (k *knocks) set(cfg config.Knock) {
	own := &nodes.Knock{Cookie: cfg.Cookie}
	for _, key := range cfg.Keys {
		own.Keys = append(own.Keys, key.Key)
	}
	k.own.Store(own)
}

func (k *knocks) kinds() [2]nodes.Knock { return [2]nodes.Knock{*k.own.Load(), k.told()} }

// valid reports whether r carries a knock under one of the keys in force. How long
// that takes tells nothing about the keys.
func (k *knocks) valid(r *http.Request, now time.Time) bool {
	valid := false
	for _, kind := range k.kinds() {
		if knock.Verify(kind.Keys, r.Host, cookie(r.Header, kind.Cookie), now) {
			valid = true
		}
	}
	return valid
}

// hides reports whether a cookie of this name carries knocks.
func (k *knocks) hides(name string) bool {
	for _, kind := range k.kinds() {
		if len(kind.Keys) > 0 && kind.Cookie == name {
			return true
		}
	}
	return false
}

// none reports whether there is no key, and so nobody who can be let in.
func (k *knocks) none() bool {
	for _, kind := range k.kinds() {
		if len(kind.Keys) > 0 {
			return false
		}
	}
	return true
}

// cookie returns the value of the first cookie of this name, whatever its form:
// package net/http would go on to the next where that is not proper.
func cookie(header http.Header, name string) string {
	for _, line := range header["Cookie"] {
		for pair := range strings.SplitSeq(line, ";") {
			if key, value, _ := strings.Cut(strings.TrimSpace(pair), "="); key == name {
				return value
			}
		}
	}
	return ""
}
