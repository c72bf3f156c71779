package upstream

import (
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/internal/egress"
)

// everywhere is what a plan leaves to the gateway's own policy.
var everywhere = []netip.Prefix{netip.PrefixFrom(netip.IPv4Unspecified(), 0), netip.PrefixFrom(netip.IPv6Unspecified(), 0)}

// Narrowing is what the plan of one session denies besides the policy of its gateway.
// The zero value denies nothing. It may change while the session lives.
type Narrowing struct {
	policy atomic.Pointer[Policy] // nil: nothing is denied

	mu    sync.Mutex // guards the following field
	asked time.Time
}

// Set has these rules hold for what is opened from now on, by the answer to a question
// that was asked at a time, unless a later one is known. Rules that cannot be used deny
// everything.
func (n *Narrowing) Set(asked time.Time, rules egress.Rules) {
	var policy *Policy
	if !rules.Empty() {
		var err error
		policy, err = NewPolicy(Rules{
			Allow: everywhere, Deny: rules.DeniedPrefixes, Ports: rules.DeniedPorts, OnlyPorts: rules.AllowedPorts,
			DenyNames: rules.DeniedNames, AllowNames: rules.AllowedNames,
		})
		if err != nil {
			policy = &Policy{deny: everywhere}
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if !asked.Before(n.asked) {
		n.asked = asked
		n.policy.Store(policy)
	}
}

// Within returns the policy for one session, which denies besides what n does at the
// moment; nil denies nothing.
func (p *Policy) Within(n *Narrowing) *Policy {
	if n == nil {
		return p
	}
	within := *p
	within.narrowing = n
	return &within
}

// narrower is what the session's plan denies; nil: nothing.
func (p *Policy) narrower() *Policy {
	if p.narrowing == nil {
		return nil
	}
	return p.narrowing.policy.Load()
}
