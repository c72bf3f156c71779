// Package padding decides how much is added to messages so that their sizes tell less of
// what is in them: docs/03, part 8.6. It adds nothing itself.
package padding

import (
	cryptorand "crypto/rand"
	"encoding/binary"
	"math/rand/v2"
	"slices"

	"github.com/httvps/httvps/sdk/go/wire"
)

// handshakeSpan is how many lengths a padded frame of the handshake can have beyond the
// least. Its header may grow by a byte, and the padding's, so that both ends of the span
// are left out.
const handshakeSpan = wire.MaxPadHandshake - wire.MinPadHandshake - 2

// Handshake returns how many bytes of padding a frame of the handshake gets, which has
// this length without.
func Handshake(length int) int {
	var seed [8]byte
	_, _ = cryptorand.Read(seed[:]) // never fails (crypto/rand)
	more := int(binary.BigEndian.Uint64(seed[:]) % (handshakeSpan + 1))
	const header = 3 // of the padding, when it is not short
	return max(max(wire.MinPadHandshake-length, 0)+1+more-header, 1)
}

// Frames are how many frames of a stream are still to be padded. The zero value is for
// a new stream.
type Frames uint8

// unknown and spent are the values that are no number of frames: it was not drawn yet,
// and all of them are gone.
const (
	unknown Frames = 0
	spent   Frames = 255
)

// Shape makes the choices of one end of one session. It is for one goroutine.
type Shape struct {
	policy wire.PaddingPolicy
	rng    *rand.Rand
	used   uint64 // bytes of padding
}

// New returns the shape of a policy, which has passed its Check, with a generator of
// random numbers of its own.
func New(policy wire.PaddingPolicy) *Shape {
	var seed [32]byte
	_, _ = cryptorand.Read(seed[:]) // never fails (crypto/rand)
	return newShape(policy, seed)
}

func newShape(policy wire.PaddingPolicy, seed [32]byte) *Shape {
	return &Shape{policy: policy, rng: rand.New(rand.NewChaCha8(seed))} //nolint:gosec // a cryptographic generator with a random seed
}

// Messages draws how many messages of a carrier are padded whatever is in them, and how
// many frames of a stream: that tiny messages begin behind the same number everywhere would
// be a pattern, too.
func (s *Shape) Messages() int {
	least := (s.policy.Messages + 1) / 2
	return least + s.rng.IntN(s.policy.Messages-least+1)
}

// Longest is the length in bytes from which on no message is padded.
func (s *Shape) Longest() int { return s.policy.Sizes[len(s.policy.Sizes)-1] }

// Next counts another frame of a stream and says whether it is among those whose
// messages are padded.
func (s *Shape) Next(left *Frames) bool {
	if *left == unknown {
		*left = Frames(s.Messages())
	}
	if *left == spent {
		return false
	}
	if *left--; *left == 0 {
		*left = spent
	}
	return true
}

// Add returns how many bytes longer a message of this length is to be, of which there is
// room for so many, in a session that has moved so many bytes of payload: 0, or 2 at
// least.
func (s *Shape) Add(length, room int, moved uint64) int {
	i, _ := slices.BinarySearch(s.policy.Sizes, length)
	if i == len(s.policy.Sizes) {
		return 0
	}
	n := min(s.policy.Sizes[i]-length+s.rng.IntN(s.policy.Spread+1), room)
	switch n {
	case 1, 66: // no PAD is that long
		n++
	}
	if n < 2 || n > room || s.used+uint64(n) > wire.FreePadding+moved/100*uint64(s.policy.Share) {
		return 0
	}
	s.used += uint64(n)
	return n
}
