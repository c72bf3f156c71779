package httvps

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/knock"
)

// Knock is how a service's devices make themselves known to its gateways before
// anything else, so that whoever is no device meets only a website. It is the
// same for all devices, names none and lets none in.
type Knock struct {
	Cookie string    `json:"cookie"` // the cookie's name
	Key    knock.Key `json:"key"`    // base64url
}

// validate reports whether a service can mean this.
func (k *Knock) validate() error {
	if k == nil {
		return nil
	}
	if k.Key == (knock.Key{}) {
		return errors.New("knock: no key")
	}
	if err := knock.ValidCookieName(k.Cookie); err != nil {
		return fmt.Errorf("knock: %w", err)
	}
	return nil
}

// clone returns a copy that shares nothing.
func (k *Knock) clone() *Knock {
	if k == nil {
		return nil
	}
	copied := *k
	return &copied
}

// cookie returns the Cookie header of a request to host at a moment of the
// gateway's clock; it is empty where the service has no knock.
func (k *Knock) cookie(host string, now time.Time) string {
	if k == nil {
		return ""
	}
	return k.Cookie + "=" + knock.Mint(k.Key, host, now)
}

// maxSkew is how far a gateway's clock may be from the one that a knock was made
// by without being the reason for its refusal.
const maxSkew = 10 * time.Minute

// gatewayClock is the gateways' time, as far as it is known: a device's own clock
// may be wrong, and that must not lock anybody out. It is safe for concurrent use.
type gatewayClock struct {
	ahead atomic.Int64 // nanoseconds from the device's calendar to the gateways'
}

func (c *gatewayClock) now() time.Time {
	return time.Now().Add(time.Duration(c.ahead.Load()))
}

// corrected reports whether err, of a request whose knock was made at made, says that
// the gateway's clock shows another time, and if so remembers it.
func (c *gatewayClock) corrected(err error, made time.Time) bool {
	var date time.Time
	if refused, ok := errors.AsType[*carrier.UpgradeError](err); ok {
		date = refused.Date
	} else if refused, ok := errors.AsType[*unreasonedError](err); ok {
		date = refused.date
	}
	if date.IsZero() || date.Sub(made).Abs() <= maxSkew {
		return false
	}
	c.ahead.Store(int64(time.Until(date)))
	return true
}
