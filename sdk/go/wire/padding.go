package wire

import "strconv"

// The keys of READY's padding policy, and of padding in any frame of the handshake.
const (
	keyPaddingPolicy = 9
	keyPadding       = 11

	keyPadMessages = 2
	keyPadSizes    = 4
	keyPadSpread   = 6
	keyPadShare    = 8
)

// PaddingPolicy is what both ends of a session add to their messages, docs/03, part 8.6.
type PaddingPolicy struct {
	Messages int // the first of a carrier, and at most as many of each stream; 1 to MaxPadMessages

	// Sizes are the lengths of messages in bytes that padding brings them to: ascending,
	// 1 to MaxPadSizes of them, each MinPadSize to MaxPadSize.
	Sizes []int

	Spread int // bytes, drawn from 0 on, that a message is longer than that; at most MaxPadSpread
	Share  int // per cent of the payload that padding may be, besides FreePadding; 1 to MaxPadShare
}

// DefaultPadding returns the policy of a gateway that is not told another. The sizes go
// beyond a packet's because what a TLS server begins with does.
func DefaultPadding() PaddingPolicy {
	return PaddingPolicy{Messages: 8, Sizes: []int{256, 512, 1024, 1400, 2048, 3072, 4608}, Spread: 255, Share: 5}
}

// Check says what is wrong with a policy.
func (p PaddingPolicy) Check() error {
	switch {
	case p.Messages < 1 || p.Messages > MaxPadMessages:
		return malformed("messages is not 1 to " + strconv.Itoa(MaxPadMessages))
	case len(p.Sizes) < 1 || len(p.Sizes) > MaxPadSizes:
		return malformed("sizes are not 1 to " + strconv.Itoa(MaxPadSizes))
	case p.Spread < 0 || p.Spread > MaxPadSpread:
		return malformed("spread is not 0 to " + strconv.Itoa(MaxPadSpread))
	case p.Share < 1 || p.Share > MaxPadShare:
		return malformed("share is not 1 to " + strconv.Itoa(MaxPadShare))
	}
	last := 0
	for _, size := range p.Sizes {
		switch {
		case size <= last:
			return malformed("sizes: not ascending")
		case size < MinPadSize || size > MaxPadSize:
			return malformed("sizes: " + strconv.Itoa(size) + " is not " + strconv.Itoa(MinPadSize) + " to " + strconv.Itoa(MaxPadSize))
		}
		last = size
	}
	return nil
}

func parsePaddingPolicy(block []byte) (p PaddingPolicy, err error) {
	const required = 1<<keyPadMessages | 1<<keyPadSizes | 1<<keyPadSpread | 1<<keyPadShare
	r := readTLVs(block, MaxTLVBlock, required)
	for r.next() {
		name := ""
		switch r.key {
		case keyPadMessages:
			name = "messages"
			p.Messages, err = parseSmall(r.value)
		case keyPadSizes:
			name = "sizes"
			p.Sizes, err = parsePadSizes(r.value)
		case keyPadSpread:
			name = "spread"
			p.Spread, err = parseSmall(r.value)
		case keyPadShare:
			name = "share"
			p.Share, err = parseSmall(r.value)
		}
		if err != nil {
			return PaddingPolicy{}, within(name, err)
		}
	}
	if r.err != nil {
		return PaddingPolicy{}, r.err
	}
	if err := r.require(required); err != nil {
		return PaddingPolicy{}, err
	}
	return p, p.Check()
}

// parseSmall reads a number of which all that is over 2^16 is out of bounds alike.
func parseSmall(value []byte) (int, error) {
	v, err := parseVarint(value)
	return int(min(v, 1<<16)), err
}

// parsePadSizes stops at the first number that is one too many.
func parsePadSizes(list []byte) (sizes []int, err error) {
	for len(list) > 0 && len(sizes) <= MaxPadSizes {
		v, n, err := ConsumeVarint(list)
		if err != nil {
			return nil, err
		}
		sizes, list = append(sizes, int(min(v, 1<<16))), list[n:]
	}
	return sizes, nil
}

func (p PaddingPolicy) block() []byte {
	list := make([]byte, 0, 4*MaxPadSizes)
	for _, size := range p.Sizes {
		list = AppendVarint(list, uint64(max(size, 0)))
	}
	b := appendTLVNumber(make([]byte, 0, 96), keyPadMessages, uint64(max(p.Messages, 0)))
	b = appendTLV(b, keyPadSizes, list)
	b = appendTLVNumber(b, keyPadSpread, uint64(max(p.Spread, 0)))
	return appendTLVNumber(b, keyPadShare, uint64(max(p.Share, 0)))
}

// zeros are what padding consists of: it is inside TLS, where nobody sees that.
var zeros [MaxFramePayload]byte

// appendPadding appends the TLV of n bytes of padding, at most MaxPadHandshake, unless n is 0.
func appendPadding(dst []byte, n int) []byte {
	if n <= 0 {
		return dst
	}
	return appendTLV(dst, keyPadding, zeros[:min(n, MaxPadHandshake)])
}

// sizePadding is how long that TLV is.
func sizePadding(n int) int {
	if n <= 0 {
		return 0
	}
	n = min(n, MaxPadHandshake)
	return 1 + SizeVarint(uint64(n)) + n
}

// AppendPad appends a PAD that is n bytes long with its header, or one more where no
// frame is that long: 2 bytes at least, and MaxFramePayload at most.
func AppendPad(dst []byte, n int) []byte {
	const short = 1 + 1 + 63 // with a length of one byte
	n = min(max(n, 2), MaxFramePayload)
	if n <= short {
		return append(AppendFrameHeader(dst, TypePad, 0, n-2), zeros[:n-2]...)
	}
	n = max(n-3, 64)
	return append(AppendFrameHeader(dst, TypePad, 0, n), zeros[:n]...)
}
