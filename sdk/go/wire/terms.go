package wire

import (
	"crypto/sha256"
	"time"
)

// The keys of the TLVs of NOTICE. REAUTH has those of HELLO, and LIMITS those of READY.
const keyQuota = 1

// A Reauth shows the gateway a later access token of the device that has the session.
type Reauth struct {
	AccessToken string   // 1 to MaxToken bytes
	Signature   [64]byte // by the device key over SigningInput

	// signed is the TLV block of a parsed Reauth without the signature's entry.
	signed []byte
}

// ParseReauth reads the payload of a REAUTH. The result shares no memory with it.
// Nothing in it has been verified.
func ParseReauth(payload []byte) (Reauth, error) {
	r, err := parseReauth(payload)
	if err != nil {
		return Reauth{}, within("REAUTH", err)
	}
	return r, nil
}

func parseReauth(block []byte) (out Reauth, err error) {
	const required = 1<<keyAccessToken | 1<<keySignature
	r := readTLVs(block, MaxTLVBlock, required)
	signatureStart, signatureEnd := 0, 0
	for r.next() {
		name := ""
		switch r.key {
		case keyAccessToken:
			name, err = "access_token", checkToken(r.value)
			out.AccessToken = string(r.value)
		case keySignature:
			name, err = "signature", copyFixed(out.Signature[:], r.value)
			signatureStart, signatureEnd = r.start, r.end
		}
		if err != nil {
			return Reauth{}, within(name, err)
		}
	}
	if r.err != nil {
		return Reauth{}, r.err
	}
	if err := r.require(required); err != nil {
		return Reauth{}, err
	}
	out.signed = make([]byte, 0, len(block)-(signatureEnd-signatureStart))
	out.signed = append(out.signed, block[:signatureStart]...)
	out.signed = append(out.signed, block[signatureEnd:]...)
	return out, nil
}

// AppendReauth appends a REAUTH. A token over its limit makes the peer end the session.
func AppendReauth(dst []byte, r Reauth) []byte {
	payload := appendTLV(make([]byte, 0, len(r.AccessToken)+80), keyAccessToken, []byte(r.AccessToken))
	payload = appendTLV(payload, keySignature, r.Signature[:])
	return AppendFrame(dst, TypeReauth, 0, payload)
}

// SigningInput returns what the device key signs, for the session of that id.
//
// For a Reauth that was parsed the input is made of the bytes that came, also where this
// version does not know them; changing its fields has no effect.
func (r Reauth) SigningInput(session [16]byte) []byte {
	rest := r.signed
	if rest == nil {
		rest = appendTLV(nil, keyAccessToken, []byte(r.AccessToken))
	}
	sum := sha256.Sum256(rest)
	const label = "HTTVPS1 reauth\x00"
	in := make([]byte, 0, len(label)+len(session)+len(sum))
	in = append(in, label...)
	in = append(in, session[:]...)
	return append(in, sum[:]...)
}

// An Auth is the gateway's answer to a REAUTH.
type Auth struct {
	Code     Code      // CodeNoError: the deadline moved; may be one without a meaning, see [Code.Meaning]
	Deadline time.Time // until when the session is authenticated now, in milliseconds; the zero Time for ever
}

// ParseAuth reads the payload of an AUTH.
func ParseAuth(payload []byte) (Auth, error) {
	code, deadline, rest, err := parseCodeAndTime(payload, "deadline")
	if err == nil {
		err = checkTLVs(rest, MaxTLVBlock)
	}
	if err != nil {
		return Auth{}, within("AUTH", err)
	}
	return Auth{Code: code, Deadline: deadline}, nil
}

// AppendAuth appends an AUTH.
func AppendAuth(dst []byte, a Auth) []byte {
	deadline := millis(a.Deadline)
	dst = AppendFrameHeader(dst, TypeAuth, 0, SizeVarint(uint64(a.Code))+SizeVarint(deadline))
	dst = AppendVarint(dst, uint64(a.Code))
	return AppendVarint(dst, deadline)
}

// SessionTerms are the limits of a session, and when it ends by them.
type SessionTerms struct {
	Limits   Limits
	Deadline time.Time // as READY tells it; the zero Time for never
}

// ParseLimits reads the payload of a LIMITS, as [ParseReady] reads those of a READY.
func ParseLimits(payload []byte) (SessionTerms, error) {
	t, err := parseTerms(payload)
	if err != nil {
		return SessionTerms{}, within("LIMITS", err)
	}
	return t, nil
}

func parseTerms(block []byte) (t SessionTerms, err error) {
	const required = 1<<keyLimits | 1<<keyDeadline
	r := readTLVs(block, MaxTLVBlock, required)
	for r.next() {
		name := ""
		switch r.key {
		case keyLimits:
			name = "limits"
			t.Limits, err = parseLimits(r.value)
		case keyDeadline:
			name = "deadline"
			t.Deadline, err = parseDeadline(r.value)
		}
		if err != nil {
			return SessionTerms{}, within(name, err)
		}
	}
	if r.err != nil {
		return SessionTerms{}, r.err
	}
	return t, r.require(required)
}

// AppendLimits appends a LIMITS; see [AppendReady].
func AppendLimits(dst []byte, t SessionTerms) []byte {
	payload := appendTLV(make([]byte, 0, 96), keyLimits, t.Limits.block())
	payload = appendTLVNumber(payload, keyDeadline, millis(t.Deadline))
	return AppendFrame(dst, TypeLimits, 0, payload)
}

// A Notice says that a session will end, and why, or will be slowed down.
type Notice struct {
	Code Code      // that it would end with; may be one without a meaning, see [Code.Meaning]
	At   time.Time // when, in milliseconds; the zero Time where that depends on what is moved

	// Left is how many bytes are left of the quota of Quota bytes. Quota is 0 where the
	// notice is not about one.
	Left, Quota uint64
}

// ParseNotice reads the payload of a NOTICE.
func ParseNotice(payload []byte) (Notice, error) {
	n, err := parseNotice(payload)
	if err != nil {
		return Notice{}, within("NOTICE", err)
	}
	return n, nil
}

func parseNotice(payload []byte) (n Notice, err error) {
	var rest []byte
	if n.Code, n.At, rest, err = parseCodeAndTime(payload, "at"); err != nil {
		return Notice{}, err
	}
	r := readTLVs(rest, MaxTLVBlock, keys(keyQuota))
	for r.next() {
		var size int
		if n.Left, size, err = ConsumeVarint(r.value); err == nil {
			n.Quota, err = parseVarint(r.value[size:])
		}
		if err == nil && (n.Quota == 0 || n.Left > n.Quota) {
			err = malformed("more is left than there is")
		}
		if err != nil {
			return Notice{}, within("quota", err)
		}
	}
	return n, r.err
}

// AppendNotice appends a NOTICE. More that is left than the quota is written as all of it.
func AppendNotice(dst []byte, n Notice) []byte {
	payload := AppendVarint(make([]byte, 0, 32), uint64(n.Code))
	payload = AppendVarint(payload, millis(n.At))
	if n.Quota > 0 {
		quota := AppendVarint(make([]byte, 0, 16), min(n.Left, n.Quota, MaxVarint))
		payload = appendTLV(payload, keyQuota, AppendVarint(quota, n.Quota))
	}
	return AppendFrame(dst, TypeNotice, 0, payload)
}

// parseCodeAndTime reads what AUTH and NOTICE begin with. The time's name is for errors.
func parseCodeAndTime(payload []byte, name string) (code Code, at time.Time, rest []byte, err error) {
	number, n, err := ConsumeVarint(payload)
	if err != nil {
		return 0, time.Time{}, nil, within("code", err)
	}
	rest = payload[n:]
	ms, n, err := ConsumeVarint(rest)
	if err != nil {
		return 0, time.Time{}, nil, within(name, err)
	}
	if ms > 0 {
		at = time.UnixMilli(int64(ms)).UTC()
	}
	return Code(number), at, rest[n:], nil
}
