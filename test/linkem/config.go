package linkem

import (
	"errors"
	"fmt"
	"math"
	"time"
)

const (
	defaultMTU = 1500
	minMTU     = 1280 // IPv6 asks for it
	maxMTU     = 65535

	// minQueue is what a queue holds that nobody gave a size: room for a burst
	// of 20 full packets, however short the link.
	minQueue = 20 * defaultMTU

	// maxRate is far above what the emulator moves; it keeps times in 63 bits.
	maxRate  = 1e12
	maxDelay = time.Minute
)

// Config describes a link. The zero value is a link that adds nothing.
type Config struct {
	// Rate is in bits per second, IP headers counted; 0 is no limit.
	Rate int64
	// Delay is one way: a round trip takes twice as long. At most a minute.
	Delay time.Duration
	// QueueBytes is how much waits for a link that is busy; what comes then is
	// dropped. 0 is one bandwidth-delay product: Rate over a round trip, and at
	// least 30,000 bytes. Without a Rate there is no queue.
	QueueBytes int
	// Loss is the share of packets, from 0 to 1, lost after they took their time
	// on the link, as on a radio link.
	Loss float64
	// Seed decides which packets are lost: the same Seed loses the same places
	// in the order of packets.
	Seed uint64

	// Down is the way from server to client where it differs from the way up,
	// which the fields above describe.
	Down *Path

	// MTU is in bytes, from 1280 to 65535; 0 is 1500.
	MTU int
	// CongestionControl is what TCP uses in both namespaces, such as "cubic";
	// empty leaves the system's default.
	CongestionControl string
}

// Path is one way of a link; the fields mean what they mean in Config.
type Path struct {
	Rate       int64
	Delay      time.Duration
	QueueBytes int
	Loss       float64
}

// Validate tells every mistake at once.
func (c Config) Validate() error {
	problems := []error{c.up().validate("")}
	if c.Down != nil {
		problems = append(problems, c.Down.validate("down: "))
	}
	if c.MTU != 0 && (c.MTU < minMTU || c.MTU > maxMTU) {
		problems = append(problems, fmt.Errorf("mtu is %d, want %d to %d", c.MTU, minMTU, maxMTU))
	}
	return errors.Join(problems...)
}

func (p Path) validate(where string) error {
	var problems []error
	if p.Rate < 0 || p.Rate > maxRate {
		problems = append(problems, fmt.Errorf("%srate is %d bit/s, want 0 to %d", where, p.Rate, int64(maxRate)))
	}
	if p.Delay < 0 || p.Delay > maxDelay {
		problems = append(problems, fmt.Errorf("%sdelay is %v, want 0 to %v", where, p.Delay, maxDelay))
	}
	if p.QueueBytes < 0 {
		problems = append(problems, fmt.Errorf("%squeue is %d bytes, want at least 0", where, p.QueueBytes))
	}
	if math.IsNaN(p.Loss) || p.Loss < 0 || p.Loss > 1 {
		problems = append(problems, fmt.Errorf("%sloss is %v, want 0 to 1", where, p.Loss))
	}
	return errors.Join(problems...)
}

func (c Config) up() Path {
	return Path{Rate: c.Rate, Delay: c.Delay, QueueBytes: c.QueueBytes, Loss: c.Loss}
}

// paths returns both ways with every default in its place.
func (c Config) paths() (up, down Path) {
	up, down = c.up(), c.up()
	if c.Down != nil {
		down = *c.Down
	}
	roundTrip := up.Delay + down.Delay
	return up.withQueue(roundTrip), down.withQueue(roundTrip)
}

func (p Path) withQueue(roundTrip time.Duration) Path {
	if p.QueueBytes == 0 {
		p.QueueBytes = max(minQueue, int(float64(p.Rate)/8*roundTrip.Seconds()))
	}
	return p
}

func (c Config) mtu() int {
	if c.MTU == 0 {
		return defaultMTU
	}
	return c.MTU
}

// Direction is one of the two ways of a link.
type Direction int

// The two directions, as the client sees them.
const (
	Up   Direction = iota // from client to server
	Down                  // from server to client
)

// String returns "up" or "down".
func (d Direction) String() string {
	switch d {
	case Up:
		return "up"
	case Down:
		return "down"
	default:
		return fmt.Sprintf("direction %d", int(d))
	}
}

// Stats counts what one direction of a link did since Open. Every packet that
// entered is in exactly one of Passed, the three Dropped and InFlight.
type Stats struct {
	Passed      int64 // packets delivered
	PassedBytes int64 // their sizes, IP headers counted

	DroppedQueue int64 // packets that found the queue full
	DroppedLoss  int64 // packets lost at random
	DroppedCut   int64 // packets that met a cut or a blackhole

	InFlight int64 // packets in the queue or under way now

	// MaxQueueBytes is the most that waited at once, with the packet that was
	// being sent.
	MaxQueueBytes int64

	// Late counts packets delivered more than a millisecond after their time,
	// MaxLate is the worst. They say how far to trust a measurement: a busy
	// machine runs the emulator late.
	Late    int64
	MaxLate time.Duration
}
