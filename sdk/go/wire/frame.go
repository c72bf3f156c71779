package wire

import (
	"iter"
	"strconv"
)

// A FrameType is the first byte of a frame. Its three top bits tell an endpoint
// that does not know the type how to go on.
type FrameType byte

// The frame types of version 1.
const (
	TypePad       FrameType = 0x00 // both: any bytes, ignored
	TypePing      FrameType = 0x01 // both: 8 bytes
	TypePong      FrameType = 0x02 // both: the 8 bytes of the PING
	TypeAck       FrameType = 0x03 // both: rsn
	TypeChallenge FrameType = 0x24 // gateway: nonce (32) · TLVs
	TypeHello     FrameType = 0x25 // client: TLVs
	TypeReady     FrameType = 0x26 // gateway: TLVs
	TypeReject    FrameType = 0x27 // gateway: code · retry_after_ms · TLVs
	TypeResume    FrameType = 0x28 // client: session_id (16) · attempt · rx_rsn · proof (32) · TLVs
	TypeResumed   FrameType = 0x29 // gateway: rx_rsn · proof (32) · TLVs
	TypeClose     FrameType = 0x2a // both: code · reason
	TypeNotice    FrameType = 0x40 // gateway: code · at · TLVs
	TypeGoAway    FrameType = 0x60 // gateway: last_stream_id · code · drain_ms · reconnect_min_ms · reconnect_max_ms · TLVs
	TypeReauth    FrameType = 0x61 // client: TLVs
	TypeAuth      FrameType = 0x62 // gateway: code · deadline · TLVs
	TypeLimits    FrameType = 0x63 // gateway: TLVs
	TypeOpen      FrameType = 0xe0 // client: kind · flags · recv_window · address · ext_len · ext TLVs · early data
	TypeOpened    FrameType = 0xe1 // gateway: recv_window · flags · TLVs
	TypeData      FrameType = 0xe2 // both: 1 to 16,383 bytes
	TypeFin       FrameType = 0xe3 // both: 0 to 16,383 last bytes of this direction
	TypeCredit    FrameType = 0xe4 // both: offset
	TypeReset     FrameType = 0xe5 // both: code
	TypeStop      FrameType = 0xe6 // both: code
	TypeDgram     FrameType = 0xa0 // both: a datagram, of KindUDPAny behind its address
)

const (
	bitStream   FrameType = 0x80
	bitReliable FrameType = 0x40
	bitCritical FrameType = 0x20
)

var typeNames = [256]string{
	TypePad:       "PAD",
	TypePing:      "PING",
	TypePong:      "PONG",
	TypeAck:       "ACK",
	TypeChallenge: "CHALLENGE",
	TypeHello:     "HELLO",
	TypeReady:     "READY",
	TypeReject:    "REJECT",
	TypeResume:    "RESUME",
	TypeResumed:   "RESUMED",
	TypeClose:     "CLOSE",
	TypeNotice:    "NOTICE",
	TypeGoAway:    "GOAWAY",
	TypeReauth:    "REAUTH",
	TypeAuth:      "AUTH",
	TypeLimits:    "LIMITS",
	TypeOpen:      "OPEN",
	TypeOpened:    "OPENED",
	TypeData:      "DATA",
	TypeFin:       "FIN",
	TypeCredit:    "CREDIT",
	TypeReset:     "RESET",
	TypeStop:      "STOP",
	TypeDgram:     "DGRAM",
}

// Known reports whether version 1 gives t a meaning. A frame of a type that is
// not known is to be skipped.
func (t FrameType) Known() bool { return typeNames[t] != "" }

// StreamScoped reports whether a frame of type t belongs to a stream.
func (t FrameType) StreamScoped() bool { return t&bitStream != 0 }

// Reliable reports whether a frame of type t is part of the ordered history of
// the session.
func (t FrameType) Reliable() bool { return t&bitReliable != 0 }

// Critical reports whether an endpoint that does not know t has to end the
// session.
func (t FrameType) Critical() bool { return t&bitCritical != 0 }

// String returns the name of t in the protocol document, or "frame 0x1f" for a
// type that is not known.
func (t FrameType) String() string {
	if t.Known() {
		return typeNames[t]
	}
	return "frame 0x" + strconv.FormatUint(0x100|uint64(t), 16)[1:]
}

// A Frame is one frame of a message, its payload not looked into.
type Frame struct {
	Type    FrameType
	Stream  uint64 // odd; 0 when Type is not stream-scoped
	Payload []byte // shares memory with the message
}

// ConsumeFrame reads the frame at the front of b and returns what follows it.
//
// It answers for the frame as such: that its type may be skipped when it is not
// known, that its length is allowed and within b, that its stream id can be one,
// that a DATA has bytes. Frames of unknown types that may be skipped are
// returned like others.
func ConsumeFrame(b []byte) (f Frame, rest []byte, err error) {
	if len(b) == 0 {
		return Frame{}, nil, malformed("frame missing")
	}
	f.Type = FrameType(b[0])
	if f.Type.Critical() && !f.Type.Known() {
		return Frame{}, nil, unsupported(f.Type.String() + " is critical and unknown")
	}
	b = b[1:]
	if f.Type.StreamScoped() {
		id, n, err := ConsumeVarint(b)
		if err != nil {
			return Frame{}, nil, within(f.Type.String()+": stream id", err)
		}
		f.Stream, b = id, b[n:]
	}
	length, n, err := ConsumeVarint(b)
	if err != nil {
		return Frame{}, nil, within(f.Type.String()+": length", err)
	}
	b = b[n:]
	switch {
	case length > MaxFramePayload, f.Type == TypeHello && length > MaxHello:
		return Frame{}, nil, tooLong(f.Type.String() + ": length over its limit")
	case length > uint64(len(b)):
		return Frame{}, nil, malformed(f.Type.String() + ": payload cut off")
	case f.Type.StreamScoped() && f.Stream%2 == 0:
		return Frame{}, nil, malformed(f.Type.String() + ": stream id is even")
	case f.Type == TypeData && length == 0:
		return Frame{}, nil, malformed("DATA: no bytes")
	}
	f.Payload = b[:length:length]
	return f, b[length:], nil
}

// Frames returns the frames of a message in their order. The first error is the
// last thing it yields. A message without a frame and one over [MaxMessage] are
// errors.
func Frames(msg []byte) iter.Seq2[Frame, error] {
	return func(yield func(Frame, error) bool) {
		switch {
		case len(msg) == 0:
			yield(Frame{}, malformed("message: empty"))
			return
		case len(msg) > MaxMessage:
			yield(Frame{}, tooLong("message: over its limit"))
			return
		}
		for rest := msg; len(rest) > 0; {
			var f Frame
			var err error
			f, rest, err = ConsumeFrame(rest)
			if !yield(f, err) || err != nil {
				return
			}
		}
	}
}

// AppendFrameHeader appends what precedes the payload of a frame, at most
// [MaxHeader] bytes. stream counts only when t is stream-scoped. The caller
// appends length bytes after it, no more than [MaxFramePayload]: a peer ends
// the session over a longer frame.
func AppendFrameHeader(dst []byte, t FrameType, stream uint64, length int) []byte {
	dst = append(dst, byte(t))
	if t.StreamScoped() {
		dst = AppendVarint(dst, stream)
	}
	return AppendVarint(dst, uint64(max(length, 0)))
}

// AppendFrame appends a whole frame; see [AppendFrameHeader].
func AppendFrame(dst []byte, t FrameType, stream uint64, payload []byte) []byte {
	return append(AppendFrameHeader(dst, t, stream, len(payload)), payload...)
}
