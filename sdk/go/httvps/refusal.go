package httvps

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"time"
)

// RefusedError says that the service answered and did not do what it was asked.
// From [Client.Run] it is final; inside an [UnreachableError] it is the last
// answer of somebody who may decide otherwise later.
type RefusedError struct {
	// Code is the reason, one that Explain knows, like "device_revoked".
	Code string

	// RetryAfter is how long the service asked to wait; 0: it did not say.
	RetryAfter time.Duration

	// By is the host that answered.
	By string

	// Devices are, with device_limit, those of the user, of which
	// EnrollOptions.Replace may name one; the ones that were not seen for longest
	// come first.
	Devices []Device

	// Support is whom the person can turn to where only somebody of the service helps,
	// to be shown: a text or a URL of the operator's, in one line; empty: the service
	// did not say. What a gateway refuses has none: [Client.Account] knows it then.
	Support string
}

// Device is one of a user's devices.
type Device struct {
	ID       string    `json:"id"`           // a UUID
	Name     string    `json:"name"`         // as it was enrolled
	Platform string    `json:"platform"`     // likewise
	LastSeen time.Time `json:"last_seen_at"` // zero: never
}

// Error names the code, which is for programs; people want [Explain].
func (e *RefusedError) Error() string { return "refused by the service: " + e.Code }

// UnreachableError says that nobody could be asked who decides: no network, no
// such host, somebody else at that address (a [StrangerError]), a service that
// does not decide now (a [RefusedError], such as rate_limited). It holds one error
// for each address that was tried.
type UnreachableError struct {
	// Errs are what was wrong with each address, the host in front.
	Errs []error
}

// Error tells all of Errs.
func (e *UnreachableError) Error() string {
	if len(e.Errs) == 0 {
		return "the service could not be reached"
	}
	texts := make([]string, len(e.Errs))
	for i, err := range e.Errs {
		texts[i] = err.Error()
	}
	text := strings.Join(texts, "; ")
	if e.answered() {
		return text
	}
	return "the service could not be reached: " + text
}

// answered reports whether anybody did, at whichever address.
func (e *UnreachableError) answered() bool {
	for _, err := range e.Errs {
		_, refused := errors.AsType[*RefusedError](err)
		_, stranger := errors.AsType[*StrangerError](err)
		if refused || stranger {
			return true
		}
	}
	return false
}

// Unwrap returns what was wrong with each address.
func (e *UnreachableError) Unwrap() []error { return e.Errs }

// OpenError says that the session works and that this one connection could not
// be made through it.
type OpenError struct {
	Code   string // like "conn_refused"; Explain knows it
	Target string // the address that was asked for
	Err    error  // what the tunnel said; may be nil
}

// Error names target and code: a log of it says where the user went.
func (e *OpenError) Error() string { return "open " + e.Target + ": " + e.Code }

// Unwrap returns the tunnel's own error.
func (e *OpenError) Unwrap() error { return e.Err }

// Timeout reports whether the target did not answer in time; with Temporary it
// makes the error a net.Error.
func (e *OpenError) Timeout() bool { return e.Code == "conn_timeout" }

// Temporary is part of net.Error and means the same as Timeout here.
func (e *OpenError) Temporary() bool { return e.Timeout() }

// verdict is what a client does about a refusal.
type verdict int

const (
	again      verdict = iota // try the next address, then wait and try again
	freshToken                // prove the key anew and ask once more; then it is final
	final                     // stop: only the operator or the user can change this
)

// reason is one row of the table of refusals.
type reason struct {
	verdict verdict
	explain string
}

// reasons is the one place that says which refusals are final. The codes are
// the same whether the control plane says them in a problem document or a
// gateway in REJECT or CLOSE. A code without a row is tried again: a newer
// service may have a reason to refuse that passes.
var reasons = map[string]reason{
	"invalid_token": {
		freshToken,
		"The service does not recognise this device. Check that it still exists, or enrol it again with a new invitation.",
	},
	"token_expired": {
		freshToken,
		"The service takes a token it has just issued for expired. Tell the operator: the clocks of gateway and backend disagree.",
	},
	"invalid_proof": {
		freshToken,
		"The service does not accept this device's signature. If it comes again, enrol with a new invitation.",
	},
	"device_revoked": {
		final,
		"The operator has revoked this device. Ask for a new invitation and enrol it into an empty home.",
	},
	"device_mismatch": {
		final,
		"The service knows this device under another key. Enrol again with a new invitation.",
	},
	"device_not_found": {
		final,
		"The service no longer has this device. Ask for a new invitation and enrol again.",
	},
	"user_disabled": {
		final,
		"The account that this device belongs to is disabled. Ask the operator to enable it.",
	},
	"no_active_subscription": {
		final,
		"The account has no active subscription. Ask the operator for one.",
	},
	"subscription_expired": {
		final,
		"The subscription has ended. Renew it, then connect again.",
	},
	"quota_exceeded": {
		final,
		"The traffic that the plan includes is used up. Wait for the next period or ask for a larger plan.",
	},
	"device_limit": {
		final,
		"The plan has no place for another device. Enrol in place of one of the others, or ask the operator to raise the limit.",
	},
	"invalid_invitation": {
		final,
		"This invitation is unknown, used or out of date: an invitation works once. Ask the operator for a new one.",
	},
	"invalid_request": {
		final,
		"The service does not understand this program. One of the two is out of date, or a value that was given (the device's name?) is not allowed.",
	},
	"conflict": {
		final,
		"This device's key is already registered with the service. Enrol into an empty home.",
	},
	"internal": {
		again,
		"The service has a fault of its own. Try again later or tell the operator.",
	},
	// A session of this very device may hold the place until its gateway
	// notices that the connection is gone.
	"session_limit": {
		again,
		"As many sessions as the plan allows are running. Disconnect another device, or wait a minute if this one was just cut off.",
	},
	"session_unknown": {
		again,
		"The gateway no longer has the session; connecting again makes a new one.",
	},
	"retry_later": {
		again,
		"The service cannot decide at the moment. It is worth trying again in a while.",
	},
	"region_unavailable": {
		again,
		"No gateway of the regions this device may use is running. Try again later or tell the operator.",
	},
	"no_outline_nodes_available": {
		again,
		"The service has no way out to the internet at the moment. Try again later or tell the operator.",
	},
	"rate_limited": {
		again,
		"The service was asked too often from this address. Wait a minute and try again.",
	},
	"shutdown": {
		again,
		"The gateway is shutting down; another one, or the same one in a moment, will take over.",
	},
}

// openReasons explains why a single connection could not be made.
var openReasons = map[string]string{
	"refused":       "The gateway does not take this address: check the name and the port.",
	"policy_denied": "The operator's rules do not allow this destination.",
	"dns_fail":      "The name could not be resolved at the far end. Check its spelling.",
	"conn_refused":  "The destination is there, but nothing listens on that port.",
	"conn_timeout":  "The destination did not answer in time.",
	"net_unreach":   "The gateway has no route to that network.",
	"host_unreach":  "The destination cannot be reached from the gateway.",
	"target_reset":  "The destination broke the connection off.",
	"egress_lost":   "The service's way out to the internet was lost. Try again.",
	"cancelled":     "The connection was given up before it was made.",
	"idle":          "Nothing was sent for too long.",
	"limit":         "More connections are open than the plan allows. Close some.",
	"enhance_calm":  "Connections were opened too fast. Try again in a moment.",
	"unsupported":   "The gateway does not offer this kind of connection.",
}

// Explain returns one plain sentence or two about a code of a [RefusedError] or
// [OpenError], with the way out where there is one.
func Explain(code string) string {
	if r, ok := reasons[code]; ok {
		return r.explain
	}
	if text, ok := openReasons[code]; ok {
		return text
	}
	return "The service gave a reason that this version does not know. A newer version may explain it."
}

// Codes returns all codes that [Explain] knows, for those who explain them in
// another language.
func Codes() []string {
	known := slices.Collect(maps.Keys(reasons))
	known = slices.AppendSeq(known, maps.Keys(openReasons))
	slices.Sort(known)
	return slices.Compact(known)
}

// judge says what to do about a refusal with this code.
func judge(code string) verdict { return reasons[code].verdict }
