// Package reason names why a device may not have a session: the one list that
// the API, the gateways and the devices share.
package reason

import (
	"slices"

	"github.com/httvps/httvps/sdk/go/wire"
)

// A Code is a reason as the API writes it. The same reason has a number on the
// wire, and there its name is this text.
type Code string

// The reasons, in the order of their numbers on the wire.
const (
	InvalidToken            Code = "invalid_token"
	TokenExpired            Code = "token_expired"
	DeviceRevoked           Code = "device_revoked"
	DeviceMismatch          Code = "device_mismatch"
	RetryLater              Code = "retry_later"
	SessionUnknown          Code = "session_unknown"
	DeviceNotFound          Code = "device_not_found"
	UserDisabled            Code = "user_disabled"
	NoActiveSubscription    Code = "no_active_subscription"
	SubscriptionExpired     Code = "subscription_expired"
	QuotaExceeded           Code = "quota_exceeded"
	SessionLimit            Code = "session_limit"
	DeviceLimit             Code = "device_limit"
	RegionUnavailable       Code = "region_unavailable"
	NoOutlineNodesAvailable Code = "no_outline_nodes_available"
)

// all is in the order of the numbers on the wire, which have no gap.
var all = [...]Code{
	InvalidToken, TokenExpired, DeviceRevoked, DeviceMismatch, RetryLater, SessionUnknown, DeviceNotFound, UserDisabled,
	NoActiveSubscription, SubscriptionExpired, QuotaExceeded, SessionLimit, DeviceLimit, RegionUnavailable,
	NoOutlineNodesAvailable,
}

// All returns every reason, in the order of their numbers on the wire.
func All() []Code { return slices.Clone(all[:]) }

// Wire returns c's number on the wire. A text that is no reason of this version
// is an internal error there.
func (c Code) Wire() wire.Code {
	i := slices.Index(all[:], c)
	if i < 0 {
		return wire.CodeInternal
	}
	return wire.CodeInvalidToken + wire.Code(i)
}
