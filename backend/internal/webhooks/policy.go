package webhooks

import (
	"errors"
	"net/netip"
	"net/url"
	"slices"

	"github.com/httvps/httvps/internal/publicaddr"
)

// Policy says where messages may be sent. By default that is public addresses, by
// HTTPS: operators name receivers, and are not to reach by them what only the service's
// own machine and its neighbours can.
type Policy struct {
	// Allow are networks that messages may be sent to although they are not public.
	Allow []netip.Prefix
	// PlainHTTP lets messages be sent without TLS.
	PlainHTTP bool
}

// ErrAddress says that nothing may be sent to an address.
var ErrAddress = errors.New("nothing may be sent to this address: it is not public, and webhooks.allow has no network with it")

var errScheme = errors.New("want https: webhooks.plain_http is not set")

// CheckURL says what keeps messages from being sent to a URL, as far as the URL tells.
// It repeats nothing of it.
func (p Policy) CheckURL(u *url.URL) error {
	if u.Scheme != "https" && !p.PlainHTTP {
		return errScheme
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
		return p.Check(addr)
	}
	return nil
}

// Check returns ErrAddress unless messages may be sent to an address. It takes an
// address, not a name: a name could resolve to something else by the time we connect.
func (p Policy) Check(addr netip.Addr) error {
	addr = addr.Unmap()
	if publicaddr.Global(addr) || slices.ContainsFunc(p.Allow, func(n netip.Prefix) bool { return n.Contains(addr) }) {
		return nil
	}
	return ErrAddress
}
