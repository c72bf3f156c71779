package httvps

import (
	"strconv"
	"time"
)

// EventKind says what has changed.
type EventKind int

// What [Config.OnEvent] is told.
const (
	// Connecting: Gateway is being tried.
	Connecting EventKind = iota + 1

	// Connected: Session is up at Gateway.
	Connected

	// Degraded: Session has lost its connection, for the reason Err, and waits for
	// another one; what runs through it stands still meanwhile. Resumed or Disconnected
	// follows.
	Degraded

	// Resumed: Session goes on over another connection. Err says why it lost the one
	// before; nil: it did not, or the network had changed.
	Resumed

	// LimitsChanged: the gateway allows Session other Limits from now on.
	LimitsChanged

	// Noticed: Session will end, or become slow, as Notice says.
	Noticed

	// Moved: Session is up at Gateway and takes the place of one at the gateway From,
	// which goes away; Err is a *RefusedError that says why. Connections that are open
	// go on by way of From, for as long as that lets them, and new ones by Gateway.
	Moved

	// Disconnected: Session has ended, Err says why. Nothing is told of the end of one
	// that another has taken the place of.
	Disconnected

	// Waiting: the attempt failed for the reason Err; the next one begins
	// after Wait.
	Waiting

	// Refused: the service has refused for good, Err is a *RefusedError. Run
	// is about to return it.
	Refused
)

// String returns the name in lower case.
func (k EventKind) String() string {
	switch k {
	case Connecting:
		return "connecting"
	case Connected:
		return "connected"
	case Degraded:
		return "degraded"
	case Resumed:
		return "resumed"
	case Moved:
		return "moved"
	case LimitsChanged:
		return "limits changed"
	case Noticed:
		return "noticed"
	case Disconnected:
		return "disconnected"
	case Waiting:
		return "waiting"
	case Refused:
		return "refused"
	default:
		return "EventKind(" + strconv.Itoa(int(k)) + ")"
	}
}

// Event is one change in the life of a [Client].
type Event struct {
	Kind    EventKind     // what has changed
	Gateway string        // URL; empty when no gateway is meant
	Region  string        // of the gateway; may be empty
	Session string        // 32 hexadecimal digits; with every kind that speaks of it
	From    string        // URL of the gateway before; with Moved
	Wait    time.Duration // with Waiting
	Limits  Limits        // with Connected, Moved and LimitsChanged
	Notice  Notice        // with Noticed
	Err     error         // with Degraded, Resumed, Moved, Disconnected, Waiting and Refused
}
