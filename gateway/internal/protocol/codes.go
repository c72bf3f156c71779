package protocol

import (
	"context"
	"errors"

	"github.com/httvps/httvps/sdk/go/wire"
)

// failures is the wire code of each reason that a dial can fail for.
var failures = map[string]wire.Code{
	"denied":           wire.CodePolicyDenied,
	"dns":              wire.CodeDNSFail,
	"refused":          wire.CodeConnRefused,
	"timeout":          wire.CodeConnTimeout,
	"net_unreachable":  wire.CodeNetUnreach,
	"host_unreachable": wire.CodeHostUnreach,
	"egress_lost":      wire.CodeEgressLost,
	"no_server":        wire.CodeNoOutlineNodesAvailable,
	"cancelled":        wire.CodeCancelled,
	"internal":         wire.CodeInternal,
}

// codeOfEnd is the wire code for err, which ended what was open: by its own reason,
// or otherwise the one given.
func codeOfEnd(err error, otherwise wire.Code) wire.Code {
	var failure interface{ Reason() string }
	if errors.As(err, &failure) {
		return CodeOf(err)
	}
	return otherwise
}

// CodeOf is the wire code for a failed dial. An error tells its reason by a
// method Reason; one without, or with a reason that is not in the table, is
// internal to the gateway.
func CodeOf(err error) wire.Code {
	var failure interface{ Reason() string }
	if errors.As(err, &failure) {
		if code, known := failures[failure.Reason()]; known {
			return code
		}
		return wire.CodeInternal
	}
	switch {
	case errors.Is(err, context.DeadlineExceeded):
		return wire.CodeConnTimeout
	case errors.Is(err, context.Canceled):
		return wire.CodeCancelled
	default:
		return wire.CodeInternal
	}
}
