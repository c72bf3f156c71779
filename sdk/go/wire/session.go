package wire

import (
	"strings"
	"unicode/utf8"
)

// ParsePing reads the payload of a PING or PONG.
func ParsePing(payload []byte) ([8]byte, error) {
	if len(payload) != 8 {
		return [8]byte{}, malformed("PING or PONG: payload is not 8 bytes")
	}
	return [8]byte(payload), nil
}

// AppendPing appends a PING with 8 bytes of the caller's choice.
func AppendPing(dst []byte, token [8]byte) []byte {
	return append(AppendFrameHeader(dst, TypePing, 0, len(token)), token[:]...)
}

// AppendPong appends the answer to the PING with the same 8 bytes.
func AppendPong(dst []byte, token [8]byte) []byte {
	return append(AppendFrameHeader(dst, TypePong, 0, len(token)), token[:]...)
}

// A Close ends the session.
type Close struct {
	Code   Code   // may be one without a meaning; see [Code.Meaning]
	Reason string // for people who debug, at most MaxReason bytes of UTF-8
}

// ParseClose reads the payload of a CLOSE.
func ParseClose(payload []byte) (Close, error) {
	code, n, err := ConsumeVarint(payload)
	if err != nil {
		return Close{}, within("CLOSE: code", err)
	}
	reason := payload[n:]
	switch {
	case len(reason) > MaxReason:
		return Close{}, malformed("CLOSE: reason over 128 bytes")
	case !utf8.Valid(reason):
		return Close{}, malformed("CLOSE: reason is not UTF-8")
	}
	return Close{Code: Code(code), Reason: string(reason)}, nil
}

// AppendClose appends a CLOSE. Of a reason that is too long it keeps the
// beginning, and bytes that are not UTF-8 become U+FFFD. The reason must not
// contain anything of the user's traffic.
func AppendClose(dst []byte, c Close) []byte {
	reason := strings.ToValidUTF8(c.Reason, "\uFFFD")
	for len(reason) > MaxReason {
		cut := MaxReason
		for !utf8.RuneStart(reason[cut]) {
			cut--
		}
		reason = reason[:cut]
	}
	dst = AppendFrameHeader(dst, TypeClose, 0, SizeVarint(uint64(c.Code))+len(reason))
	dst = AppendVarint(dst, uint64(c.Code))
	return append(dst, reason...)
}
