package wire

// A Capability is the number of something that both ends have to agree on.
type Capability uint64

const (
	// Resume lets a session go on over another carrier when its own is lost.
	Resume Capability = 1
	// Padding makes messages longer than what is in them, as READY says.
	Padding Capability = 2
	// Terms lets the two ends change what a session that lives rests on, with REAUTH,
	// AUTH, LIMITS and NOTICE.
	Terms Capability = 3
	// Drain lets a gateway that is about to go say so, and where it stops.
	Drain Capability = 4
	// ChannelBinding ties the HELLO to the TLS connection that carries it.
	ChannelBinding Capability = 5
)

// Capabilities is a set of capabilities below 64. The zero value is the empty
// set.
type Capabilities uint64

// KnownCapabilities is the set of those that version 1 gives a meaning.
const KnownCapabilities Capabilities = 1<<Resume | 1<<Padding | 1<<Terms | 1<<Drain | 1<<ChannelBinding

// Has reports whether c is in s.
func (s Capabilities) Has(c Capability) bool { return c < 64 && s&(1<<c) != 0 }

// With returns s and c, which has to be below 64: others have no meaning and
// are left out.
func (s Capabilities) With(c Capability) Capabilities {
	if c < 64 {
		s |= 1 << c
	}
	return s
}

// In reports whether all of s is in other.
func (s Capabilities) In(other Capabilities) bool { return s&^other == 0 }

// parseCapabilities reads a list of numbers. dropped tells that it had some
// that a set cannot hold.
func parseCapabilities(list []byte) (set Capabilities, dropped bool, err error) {
	last, first := uint64(0), true
	for len(list) > 0 {
		v, n, err := ConsumeVarint(list)
		switch {
		case err != nil:
			return 0, false, err
		case !first && v <= last:
			return 0, false, malformed("numbers not ascending")
		}
		set = set.With(Capability(v))
		dropped = dropped || v >= 64
		list, last, first = list[n:], v, false
	}
	return set, dropped, nil
}

// appendCapabilities appends the TLV of s unless s is empty.
func appendCapabilities(dst []byte, s Capabilities) []byte {
	if s == 0 {
		return dst
	}
	list := make([]byte, 0, 64)
	for c := range Capability(64) {
		if s.Has(c) {
			list = AppendVarint(list, uint64(c))
		}
	}
	return appendTLV(dst, keyCapabilities, list)
}
