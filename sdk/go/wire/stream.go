package wire

import "strconv"

// A Kind says what a stream carries.
type Kind byte

// The kinds of streams.
const (
	KindTCP    Kind = 1 // one TCP connection
	KindUDP    Kind = 2 // UDP with one peer
	KindUDPAny Kind = 3 // UDP with any peer
)

// Known reports whether version 1 gives k a meaning.
func (k Kind) Known() bool { return KindTCP <= k && k <= KindUDPAny }

// String returns "tcp", "udp", "udp_any", or "kind_9" for an unknown kind.
func (k Kind) String() string {
	switch k {
	case KindTCP:
		return "tcp"
	case KindUDP:
		return "udp"
	case KindUDPAny:
		return "udp_any"
	default:
		return "kind_" + strconv.Itoa(int(k))
	}
}

// An Open asks for a stream.
type Open struct {
	Kind       Kind
	RecvWindow uint64 // bytes that the gateway may send
	Target     Addr
	Early      []byte // the stream's first bytes; shares memory with the payload
}

// ParseOpen reads the payload of an OPEN.
//
// An unknown kind and an address that is not acceptable end only the stream: the
// Open is then returned whole beside an error that has StreamOnly set. Whether
// the session serves the kind is for the caller to say.
func ParseOpen(payload []byte) (Open, error) {
	o, err := parseOpen(payload)
	if err != nil {
		return o, within("OPEN", err)
	}
	return o, nil
}

func parseOpen(b []byte) (o Open, err error) {
	if len(b) < 2 {
		return Open{}, malformed("kind or flags missing")
	}
	o.Kind = Kind(b[0])
	if b[1] != 0 {
		return Open{}, malformed("flags not 0")
	}
	b = b[2:]
	window, n, err := ConsumeVarint(b)
	if err != nil {
		return Open{}, within("recv_window", err)
	}
	o.RecvWindow, b = window, b[n:]
	target, n, refusal := ConsumeAddr(b)
	if refusal != nil && !streamOnly(refusal) {
		return Open{}, refusal
	}
	o.Target, b = target, b[n:]
	length, n, err := ConsumeVarint(b)
	if err != nil {
		return Open{}, within("ext_len", err)
	}
	b = b[n:]
	switch {
	case length > MaxOpenTLVs:
		return Open{}, tooLong("ext_len over its limit")
	case length > uint64(len(b)):
		return Open{}, malformed("ext block cut off")
	}
	if err := checkTLVs(b[:length], MaxOpenTLVs); err != nil {
		return Open{}, within("ext", err)
	}
	o.Early = b[length:]
	if !o.Kind.Known() {
		return o, &Error{Code: CodeUnsupported, What: "unknown kind", StreamOnly: true}
	}
	return o, refusal
}

// AppendOpen appends an OPEN. Its target has to pass [Addr.Check], and Early has
// to leave the payload within [MaxFramePayload], which it does up to
// MaxFramePayload-268 bytes.
func AppendOpen(dst []byte, stream uint64, o Open) []byte {
	length := 2 + SizeVarint(o.RecvWindow) + sizeAddr(o.Target) + 1 + len(o.Early)
	dst = AppendFrameHeader(dst, TypeOpen, stream, length)
	dst = append(dst, byte(o.Kind), 0)
	dst = AppendVarint(dst, o.RecvWindow)
	dst = AppendAddr(dst, o.Target)
	dst = append(dst, 0) // no ext TLVs
	return append(dst, o.Early...)
}

// An Opened says that the target has accepted the connection.
type Opened struct {
	RecvWindow uint64 // bytes that the client may have sent, from the first
}

// ParseOpened reads the payload of an OPENED. Whether the window is large enough
// is for the caller to say, who knows early_window.
func ParseOpened(payload []byte) (Opened, error) {
	window, n, err := ConsumeVarint(payload)
	if err != nil {
		return Opened{}, within("OPENED: recv_window", err)
	}
	b := payload[n:]
	switch {
	case len(b) == 0:
		return Opened{}, malformed("OPENED: flags missing")
	case b[0] != 0:
		return Opened{}, malformed("OPENED: flags not 0")
	}
	if err := checkTLVs(b[1:], MaxTLVBlock); err != nil {
		return Opened{}, within("OPENED", err)
	}
	return Opened{RecvWindow: window}, nil
}

// AppendOpened appends an OPENED.
func AppendOpened(dst []byte, stream uint64, o Opened) []byte {
	dst = AppendFrameHeader(dst, TypeOpened, stream, SizeVarint(o.RecvWindow)+1)
	dst = AppendVarint(dst, o.RecvWindow)
	return append(dst, 0)
}

// AppendData appends a DATA with 1 to [MaxFramePayload] bytes; see
// [DataPayload].
func AppendData(dst []byte, stream uint64, data []byte) []byte {
	return AppendFrame(dst, TypeData, stream, data)
}

// AppendFin appends a FIN with the last bytes of a direction, if any, up to
// [MaxFramePayload].
func AppendFin(dst []byte, stream uint64, last []byte) []byte {
	return AppendFrame(dst, TypeFin, stream, last)
}

// ParseCredit reads the payload of a CREDIT: the offset up to which the peer may
// send, from the first byte of the direction.
func ParseCredit(payload []byte) (offset uint64, err error) {
	offset, err = parseVarint(payload)
	if err != nil {
		return 0, within("CREDIT: offset", err)
	}
	return offset, nil
}

// AppendCredit appends a CREDIT.
func AppendCredit(dst []byte, stream, offset uint64) []byte {
	return appendNumberFrame(dst, TypeCredit, stream, offset)
}

// ParseReset reads the payload of a RESET. The code may be one without a
// meaning; see [Code.Meaning].
func ParseReset(payload []byte) (Code, error) {
	code, err := parseVarint(payload)
	if err != nil {
		return 0, within("RESET: code", err)
	}
	return Code(code), nil
}

// AppendReset appends a RESET.
func AppendReset(dst []byte, stream uint64, code Code) []byte {
	return appendNumberFrame(dst, TypeReset, stream, uint64(code))
}

// ParseStop reads the payload of a STOP. The code may be one without a meaning;
// see [Code.Meaning].
func ParseStop(payload []byte) (Code, error) {
	code, err := parseVarint(payload)
	if err != nil {
		return 0, within("STOP: code", err)
	}
	return Code(code), nil
}

// AppendStop appends a STOP.
func AppendStop(dst []byte, stream uint64, code Code) []byte {
	return appendNumberFrame(dst, TypeStop, stream, uint64(code))
}

func appendNumberFrame(dst []byte, t FrameType, stream, v uint64) []byte {
	return AppendVarint(AppendFrameHeader(dst, t, stream, SizeVarint(v)), v)
}
