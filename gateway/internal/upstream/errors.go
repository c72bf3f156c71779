package upstream

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
)

// Failure is the kind of a failed dial. The texts are stable: they are labels
// of metrics, and the gateway's half of the tunnel maps them to wire codes.
type Failure string

// The failures of a dial.
const (
	Denied          Failure = "denied"           // the egress policy forbids the target
	DNS             Failure = "dns"              // the name has no address, or nobody could say
	Refused         Failure = "refused"          // the target answered no
	Timeout         Failure = "timeout"          // the target did not answer
	NetUnreachable  Failure = "net_unreachable"  // no route
	HostUnreachable Failure = "host_unreachable" // a route, but no host at its end
	EgressLost      Failure = "egress_lost"      // the way to the target broke
	NoServer        Failure = "no_server"        // there is no Outline server for the session
	Cancelled       Failure = "cancelled"        // nobody waits for the answer any more
	Internal        Failure = "internal"         // the gateway's own fault, such as no free descriptors
)

// Failures lists every failure.
func Failures() []Failure {
	return []Failure{Denied, DNS, Refused, Timeout, NetUnreachable, HostUnreachable, EgressLost, NoServer, Cancelled, Internal}
}

// Error is a failed dial. Its text may name the target and belongs in no log
// above debug.
type Error struct {
	Failure Failure
	Err     error
}

func (e *Error) Error() string { return fmt.Sprintf("dial (%s): %v", e.Failure, e.Err) }

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// Reason is the failure as text, for callers that know no type of this package.
func (e *Error) Reason() string { return string(e.Failure) }

// classify finds the failure behind the error of a connect call.
func classify(err error) Failure {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, ErrDenied):
		return Denied
	case errors.Is(err, context.Canceled):
		return Cancelled
	case isDNS(err):
		return DNS
	case errors.Is(err, syscall.ECONNREFUSED), errors.Is(err, syscall.ECONNRESET):
		return Refused
	case errors.Is(err, syscall.ENETUNREACH), errors.Is(err, syscall.ENETDOWN), errors.Is(err, syscall.EAFNOSUPPORT),
		errors.Is(err, syscall.EADDRNOTAVAIL), errors.Is(err, os.ErrPermission):
		// Permission: a local packet filter that rejects. To the device that is a network it cannot reach.
		return NetUnreachable
	case errors.Is(err, syscall.EHOSTUNREACH), errors.Is(err, syscall.EHOSTDOWN):
		return HostUnreachable
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return Timeout
	default:
		return Internal
	}
}

func isDNS(err error) bool {
	var dns *net.DNSError
	return errors.As(err, &dns)
}
