package wire

import (
	"bytes"
	"strconv"
)

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

// Flow reports whether a stream of kind k is a UDP flow, which carries DGRAM and
// has no flow control.
func (k Kind) Flow() bool { return k == KindUDP || k == KindUDPAny }

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
	RecvWindow uint64 // bytes that the gateway may send; 0 for a flow
	Target     Addr   // the zero Addr for KindUDPAny
	Early      []byte // the stream's first bytes, none for a flow; shares memory with the payload
}

// anyPeer is what stands for an address in the OPEN of KindUDPAny.
var anyPeer = [...]byte{addrIPv4, 0, 0, 0, 0, 0, 0}

// ParseOpen reads the payload of an OPEN.
//
// An unknown kind and an address that is not acceptable, for KindUDPAny any address
// at all, end only the stream: the Open is then returned whole beside an error that
// has StreamOnly set. Whether the session serves the kind is for the caller to say.
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
	if o.Kind.Flow() && window != 0 {
		return Open{}, malformed("recv_window of a flow is not 0")
	}
	o.RecvWindow, b = window, b[n:]
	target, n, err := consumeAddr(b)
	if err != nil {
		return Open{}, err
	}
	refusal := target.Check()
	if o.Kind == KindUDPAny {
		target, refusal = judgeAnyPeer(target, b[:n])
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
	if o.Kind.Flow() && len(o.Early) > 0 {
		return Open{}, malformed("early data of a flow")
	}
	if !o.Kind.Known() {
		return o, &Error{Code: CodeUnsupported, What: "unknown kind", StreamOnly: true}
	}
	return o, refusal
}

// judgeAnyPeer returns the target of an OPEN of KindUDPAny, which was read from b.
func judgeAnyPeer(target Addr, b []byte) (Addr, error) {
	if bytes.Equal(b, anyPeer[:]) {
		return Addr{}, nil
	}
	return target, &Error{Code: CodeRefused, What: "address of a flow with any peer is not 0.0.0.0:0", StreamOnly: true}
}

// AppendOpen appends an OPEN. Its target has to pass [Addr.Check] or, for KindUDPAny,
// to be the zero Addr. The window of a flow has to be 0, and a flow has no early data:
// the peer ends the session over either. Early has to leave the payload within
// [MaxFramePayload], which it does up to MaxFramePayload-268 bytes.
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

// ParseOpened reads the payload of an OPENED. Whether the window is what it may be
// is for the caller to say, who knows early_window and the kind of the stream.
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

// A Dgram is one datagram of a flow.
type Dgram struct {
	Peer Addr   // of KindUDPAny: where it goes, or came from; otherwise the zero Addr
	Data []byte // at most MaxDatagram bytes, also none; shares memory with the payload
}

// errDgramPeer is one value for all: nothing bounds how many datagrams a peer sends
// to such an address, and nobody reads why they were dropped.
var errDgramPeer error = &Error{Code: CodeRefused, What: "DGRAM: address not acceptable", StreamOnly: true}

// ParseDgram reads the payload of a DGRAM on a flow of that kind. On any other
// stream a DGRAM is an error that the caller has to find.
//
// An address that is not acceptable drops only the datagram, which is then returned
// whole beside an error that has StreamOnly set. A datagram over [MaxDatagram] is
// well-formed; the caller drops it.
func ParseDgram(kind Kind, payload []byte) (Dgram, error) {
	if kind != KindUDPAny {
		return Dgram{Data: payload}, nil
	}
	peer, n, err := consumeAddr(payload)
	if err != nil {
		return Dgram{}, within("DGRAM", err)
	}
	d := Dgram{Peer: peer, Data: payload[n:]}
	if peer.fault() != "" {
		return d, errDgramPeer
	}
	return d, nil
}

// AppendDgram appends a DGRAM of a flow of that kind. Its peer counts for KindUDPAny
// only and has to pass [Addr.Check] there: the other end drops the datagram of any
// other. It also drops one that is over [MaxDatagram], and ends the session over one
// that does not fit a frame.
func AppendDgram(dst []byte, stream uint64, kind Kind, d Dgram) []byte {
	if kind != KindUDPAny {
		return AppendFrame(dst, TypeDgram, stream, d.Data)
	}
	dst = AppendFrameHeader(dst, TypeDgram, stream, sizeAddr(d.Peer)+len(d.Data))
	return append(AppendAddr(dst, d.Peer), d.Data...)
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
