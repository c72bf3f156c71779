package wire

import "strconv"

// A Code says why something ended: in CLOSE and REJECT the session, in RESET
// and STOP the stream. A peer may send any number up to [MaxVarint].
type Code uint64

// General codes.
const (
	CodeNoError     Code = 0 // nothing went wrong
	CodeProtocol    Code = 1 // the peer broke a rule of the protocol
	CodeFlowControl Code = 2 // more bytes than the credit allows
	CodeFrameSize   Code = 3 // something is longer than its limit
	CodeUnsupported Code = 4 // critical, and not known to this end
	CodeLimit       Code = 5 // more at once than READY allows
	CodeEnhanceCalm Code = 6 // faster than READY allows
	CodeInternal    Code = 7 // this end has failed
	CodeShutdown    Code = 8 // this end is going away
)

// Codes that refuse a session or end it.
const (
	CodeInvalidToken            Code = 16 // any fault of the credentials before the device has proven its key
	CodeTokenExpired            Code = 17
	CodeDeviceRevoked           Code = 18
	CodeDeviceMismatch          Code = 19
	CodeRetryLater              Code = 20 // no decision could be had in time
	CodeSessionUnknown          Code = 21
	CodeDeviceNotFound          Code = 22
	CodeUserDisabled            Code = 23
	CodeNoActiveSubscription    Code = 24
	CodeSubscriptionExpired     Code = 25
	CodeQuotaExceeded           Code = 26
	CodeSessionLimit            Code = 27
	CodeDeviceLimit             Code = 28
	CodeRegionUnavailable       Code = 29
	CodeNoOutlineNodesAvailable Code = 30
)

// Codes that end a stream.
const (
	CodeRefused      Code = 32 // not an address that a stream may have as its target
	CodePolicyDenied Code = 33 // the service does not allow this target; never says which rule
	CodeDNSFail      Code = 34
	CodeConnRefused  Code = 35
	CodeConnTimeout  Code = 36
	CodeNetUnreach   Code = 37
	CodeHostUnreach  Code = 38
	CodeTargetReset  Code = 39
	CodeEgressLost   Code = 40 // the way to the target broke, not the target
	CodeCancelled    Code = 41 // the end that asked no longer wants it
	CodeIdle         Code = 42
)

// codeNames is the table of part 9 of the protocol document.
var codeNames = [...]string{
	CodeNoError:                 "no_error",
	CodeProtocol:                "protocol",
	CodeFlowControl:             "flow_control",
	CodeFrameSize:               "frame_size",
	CodeUnsupported:             "unsupported",
	CodeLimit:                   "limit",
	CodeEnhanceCalm:             "enhance_calm",
	CodeInternal:                "internal",
	CodeShutdown:                "shutdown",
	CodeInvalidToken:            "invalid_token",
	CodeTokenExpired:            "token_expired",
	CodeDeviceRevoked:           "device_revoked",
	CodeDeviceMismatch:          "device_mismatch",
	CodeRetryLater:              "retry_later",
	CodeSessionUnknown:          "session_unknown",
	CodeDeviceNotFound:          "device_not_found",
	CodeUserDisabled:            "user_disabled",
	CodeNoActiveSubscription:    "no_active_subscription",
	CodeSubscriptionExpired:     "subscription_expired",
	CodeQuotaExceeded:           "quota_exceeded",
	CodeSessionLimit:            "session_limit",
	CodeDeviceLimit:             "device_limit",
	CodeRegionUnavailable:       "region_unavailable",
	CodeNoOutlineNodesAvailable: "no_outline_nodes_available",
	CodeRefused:                 "refused",
	CodePolicyDenied:            "policy_denied",
	CodeDNSFail:                 "dns_fail",
	CodeConnRefused:             "conn_refused",
	CodeConnTimeout:             "conn_timeout",
	CodeNetUnreach:              "net_unreach",
	CodeHostUnreach:             "host_unreach",
	CodeTargetReset:             "target_reset",
	CodeEgressLost:              "egress_lost",
	CodeCancelled:               "cancelled",
	CodeIdle:                    "idle",
}

// Known reports whether this version gives c a meaning.
func (c Code) Known() bool {
	return c < Code(len(codeNames)) && codeNames[c] != ""
}

// Meaning returns c, or [CodeInternal] for a code without a meaning, which is
// how an endpoint must treat one.
func (c Code) Meaning() Code {
	if c.Known() {
		return c
	}
	return CodeInternal
}

// String returns the name of c in the protocol document, such as
// "token_expired", or "code_99" for a code without a meaning.
func (c Code) String() string {
	if c.Known() {
		return codeNames[c]
	}
	return "code_" + strconv.FormatUint(uint64(c), 10)
}

// ParseCode returns the code of that name in the protocol document, and
// whether there is one.
func ParseCode(name string) (Code, bool) {
	for c, n := range codeNames {
		if n == name && n != "" {
			return Code(c), true
		}
	}
	return 0, false
}
