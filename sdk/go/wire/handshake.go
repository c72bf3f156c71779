package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"math"
	"strconv"
	"time"
)

// The keys of the TLVs of CHALLENGE, HELLO and READY, and of READY's limits.
const (
	keyCapabilities = 1
	keyTime         = 3

	keyDeviceID    = 2
	keyAgent       = 3
	keyAccessToken = 4
	keyClientNonce = 6
	keySignature   = 8
	keyHelloTime   = 9
	keyDeviceKey   = 10

	keySessionID    = 2
	keyResumeSecret = 4
	keyFronts       = 5
	keyLimits       = 6
	keyDeadline     = 8
	keyResumeWindow = 10
	keyAuthDeadline = 12

	keyMaxStreams  = 2
	keyMaxUDP      = 4
	keyEarlyWindow = 6
	keyOpenBurst   = 8
	keyOpenRate    = 10
	keySilence     = 12
	keySpeedUp     = 13
	keySpeedDown   = 15
)

// A Challenge is the gateway's first frame.
type Challenge struct {
	Nonce        [32]byte     // fresh random bytes, used once
	Capabilities Capabilities // what the gateway supports
	Time         time.Time    // the gateway's clock in milliseconds; the zero Time when not told
	Padding      int          // bytes to be written that mean nothing; a parsed one does not tell
}

// ParseChallenge reads the payload of a CHALLENGE. Capabilities from 64 up are
// dropped: none of them is known.
func ParseChallenge(payload []byte) (Challenge, error) {
	var c Challenge
	if len(payload) < len(c.Nonce) {
		return Challenge{}, malformed("CHALLENGE: nonce cut off")
	}
	copy(c.Nonce[:], payload)
	r := readTLVs(payload[len(c.Nonce):], MaxTLVBlock, keys(keyCapabilities, keyTime))
	for r.next() {
		switch r.key {
		case keyCapabilities:
			c.Capabilities, _, r.err = parseCapabilities(r.value)
			r.err = within("capabilities", r.err)
		case keyTime:
			c.Time, r.err = parseTime(r.value)
			r.err = within("time", r.err)
		}
	}
	if r.err != nil {
		return Challenge{}, within("CHALLENGE", r.err)
	}
	return c, nil
}

// AppendChallenge appends a CHALLENGE.
func AppendChallenge(dst []byte, c Challenge) []byte {
	payload := appendCapabilities(c.Nonce[:len(c.Nonce):len(c.Nonce)], c.Capabilities)
	payload = appendTime(payload, keyTime, c.Time)
	payload = appendPadding(payload, c.Padding)
	return AppendFrame(dst, TypeChallenge, 0, payload)
}

// A Hello is the client's first frame: who it is, and the proof.
type Hello struct {
	Capabilities Capabilities // wanted, a subset of what CHALLENGE offered
	DeviceID     [16]byte     // a UUID
	Agent        string       // program and version, at most MaxAgent printable ASCII bytes; may be empty
	AccessToken  string       // 1 to MaxToken bytes
	ClientNonce  [32]byte     // random
	Signature    [64]byte     // by the device key over SigningInput
	Time         time.Time    // the client's clock in milliseconds, informative; the zero Time when not told
	DeviceKey    [32]byte     // the device's Ed25519 public key
	Padding      int          // bytes to be written that mean nothing, and are signed; a parsed one does not tell

	// signed is the TLV block of a parsed Hello without the signature's entry:
	// what was signed includes entries that this version does not know.
	signed []byte
}

const helloRequired = 1<<keyDeviceID | 1<<keyAccessToken | 1<<keyClientNonce | 1<<keySignature | 1<<keyDeviceKey

// ParseHello reads the payload of a HELLO. The result shares no memory with it.
// Nothing in it has been verified.
func ParseHello(payload []byte) (Hello, error) {
	h, err := parseHello(payload)
	if err != nil {
		return Hello{}, within("HELLO", err)
	}
	return h, nil
}

func parseHello(block []byte) (h Hello, err error) {
	const known = helloRequired | 1<<keyCapabilities | 1<<keyAgent | 1<<keyHelloTime
	r := readTLVs(block, MaxHello, known)
	signatureStart, signatureEnd := 0, 0
	for r.next() {
		name := ""
		switch r.key {
		case keyCapabilities:
			name = "capabilities"
			var dropped bool
			h.Capabilities, dropped, err = parseCapabilities(r.value)
			if err == nil && dropped {
				// No gateway of this version can have offered it.
				err = malformed("number that was not offered")
			}
		case keyDeviceID:
			name, err = "device_id", copyFixed(h.DeviceID[:], r.value)
		case keyAgent:
			name, err = "agent", checkAgent(r.value)
			h.Agent = string(r.value)
		case keyAccessToken:
			name, err = "access_token", checkToken(r.value)
			h.AccessToken = string(r.value)
		case keyClientNonce:
			name, err = "client_nonce", copyFixed(h.ClientNonce[:], r.value)
		case keySignature:
			name, err = "signature", copyFixed(h.Signature[:], r.value)
			signatureStart, signatureEnd = r.start, r.end
		case keyHelloTime:
			name = "time"
			h.Time, err = parseTime(r.value)
		case keyDeviceKey:
			name, err = "device_key", copyFixed(h.DeviceKey[:], r.value)
		}
		if err != nil {
			return Hello{}, within(name, err)
		}
	}
	if r.err != nil {
		return Hello{}, r.err
	}
	if err := r.require(helloRequired); err != nil {
		return Hello{}, err
	}
	h.signed = make([]byte, 0, len(block)-(signatureEnd-signatureStart))
	h.signed = append(h.signed, block[:signatureStart]...)
	h.signed = append(h.signed, block[signatureEnd:]...)
	return h, nil
}

func checkAgent(value []byte) error {
	if len(value) > MaxAgent {
		return malformed("over 64 bytes")
	}
	for _, c := range value {
		if c < ' ' || c > '~' {
			return malformed("not printable ASCII")
		}
	}
	return nil
}

func checkToken(value []byte) error {
	if len(value) == 0 || len(value) > MaxToken {
		return malformed("is " + strconv.Itoa(len(value)) + " bytes, not 1 to 4096")
	}
	return nil
}

// AppendHello appends a HELLO. A token or agent over its limit makes the peer
// end the session.
func AppendHello(dst []byte, h Hello) []byte {
	return AppendFrame(dst, TypeHello, 0, h.block(true))
}

// block returns the TLV block, with or without the signature.
func (h *Hello) block(signature bool) []byte {
	b := make([]byte, 0, 256+len(h.AccessToken)+len(h.Agent)+sizePadding(h.Padding))
	b = appendCapabilities(b, h.Capabilities)
	b = appendTLV(b, keyDeviceID, h.DeviceID[:])
	if h.Agent != "" {
		b = appendTLV(b, keyAgent, []byte(h.Agent))
	}
	b = appendTLV(b, keyAccessToken, []byte(h.AccessToken))
	b = appendTLV(b, keyClientNonce, h.ClientNonce[:])
	if signature {
		b = appendTLV(b, keySignature, h.Signature[:])
	}
	b = appendTime(b, keyHelloTime, h.Time)
	b = appendTLV(b, keyDeviceKey, h.DeviceKey[:])
	return appendPadding(b, h.Padding)
}

// SigningInput returns what the device key signs.
//
// challengeNonce is the CHALLENGE's, host the value of the upgrade's Host header
// (at most 65,535 bytes; its letters count as lower case), and binding the
// tls-exporter of the connection, [BindingSize] bytes. The binding is part of
// the input exactly when h has [ChannelBinding].
//
// For a Hello that was parsed the input is made of the bytes that came, also
// where this version does not know them; changing its fields has no effect. For
// one that is to be sent all fields but Signature have to be set.
func (h Hello) SigningInput(challengeNonce [32]byte, host string, binding []byte) []byte {
	rest := h.signed
	if rest == nil {
		rest = h.block(false)
	}
	sum := sha256.Sum256(rest)
	const label = "HTTVPS1 hello\x00"
	in := make([]byte, 0, len(label)+len(challengeNonce)+len(sum)+2+len(host)+len(binding))
	in = append(in, label...)
	in = append(in, challengeNonce[:]...)
	in = append(in, sum[:]...)
	in = binary.BigEndian.AppendUint16(in, uint16(len(host)))
	in = append(in, lowerASCII(host)...)
	if h.Capabilities.Has(ChannelBinding) {
		in = append(in, binding...)
	}
	return in
}

// A Ready begins the session.
type Ready struct {
	Capabilities Capabilities // in force, a subset of the HELLO's
	SessionID    [16]byte
	Time         time.Time // the gateway's clock in milliseconds; the zero Time when not told
	Limits       Limits
	Deadline     time.Time // when the gateway will end the session, in milliseconds; the zero Time for never

	// With [Resume] in Capabilities, and only then:
	ResumeSecret [32]byte      // what resuming proves to know
	ResumeWindow time.Duration // how long a session is kept without a carrier, in milliseconds

	// Fronts are other URLs at which this gateway is reached, at most [MaxURLs] of at most
	// [MaxURL] bytes of visible ASCII.
	Fronts []string

	// AuthDeadline is when the gateway will end the session unless a REAUTH moves that,
	// in milliseconds; the zero Time for never. With [Terms] in Capabilities, and only then.
	AuthDeadline time.Time

	// PaddingPolicy is what both ends add to their messages. With [Padding] in Capabilities,
	// and only then.
	PaddingPolicy PaddingPolicy

	Padding int // bytes to be written that mean nothing; a parsed one does not tell
}

// Limits are what the gateway allows in one session.
type Limits struct {
	MaxStreams  uint64 // streams open at once, UDP flows among them; at least 1
	MaxUDP      uint64 // UDP flows among them; 0: not served
	EarlyWindow uint64 // bytes that a client may send on a stream before OPENED
	OpenBurst   uint64 // opens that the bucket holds; at least 1
	OpenRate    uint64 // opens that the bucket gains a second; at least 1

	// Silence is after how long without a byte from the client the gateway ends
	// the session: whole milliseconds on the wire, and at least [MinSilence].
	Silence time.Duration

	// SpeedUp and SpeedDown are how fast the device may be, in bits per second of payload
	// from it and to it; 0: nothing is said, or there is no limit.
	SpeedUp, SpeedDown uint64
}

// DefaultLimits returns the limits of a gateway that is not told others.
func DefaultLimits() Limits {
	return Limits{
		MaxStreams: 256, MaxUDP: 64, EarlyWindow: 32768, OpenBurst: 256, OpenRate: 128,
		Silence: 90 * time.Second,
	}
}

// ParseReady reads the payload of a READY. A silence that a Duration cannot hold
// becomes the longest one that it can.
func ParseReady(payload []byte) (Ready, error) {
	r, err := parseReady(payload)
	if err != nil {
		return Ready{}, within("READY", err)
	}
	return r, nil
}

func parseReady(block []byte) (ready Ready, err error) {
	const (
		required = 1<<keySessionID | 1<<keyLimits | 1<<keyDeadline
		resuming = 1<<keyResumeSecret | 1<<keyResumeWindow
		terms    = 1 << keyAuthDeadline
		padding  = 1 << keyPaddingPolicy
	)
	r := readTLVs(block, MaxTLVBlock, required|resuming|terms|padding|1<<keyCapabilities|1<<keyTime|1<<keyFronts)
	for r.next() {
		name := ""
		switch r.key {
		case keyCapabilities:
			name = "capabilities"
			var dropped bool
			ready.Capabilities, dropped, err = parseCapabilities(r.value)
			if err == nil && (dropped || ready.Capabilities&^KnownCapabilities != 0) {
				err = malformed("unknown number")
			}
		case keySessionID:
			name, err = "session_id", copyFixed(ready.SessionID[:], r.value)
		case keyTime:
			name = "time"
			ready.Time, err = parseTime(r.value)
		case keyResumeSecret:
			name, err = "resume_secret", copyFixed(ready.ResumeSecret[:], r.value)
		case keyFronts:
			name = "fronts"
			ready.Fronts, err = parseURLs(r.value)
		case keyResumeWindow:
			name = "resume_window"
			var ms uint64
			ms, err = parseVarint(r.value)
			ready.ResumeWindow = duration(ms)
		case keyLimits:
			name = "limits"
			ready.Limits, err = parseLimits(r.value)
		case keyDeadline:
			name = "deadline"
			ready.Deadline, err = parseDeadline(r.value)
		case keyAuthDeadline:
			name = "auth_deadline"
			ready.AuthDeadline, err = parseDeadline(r.value)
		case keyPaddingPolicy:
			name = "padding_policy"
			ready.PaddingPolicy, err = parsePaddingPolicy(r.value)
		}
		if err != nil {
			return Ready{}, within(name, err)
		}
	}
	if r.err != nil {
		return Ready{}, r.err
	}
	want := keySet(required)
	if ready.Capabilities.Has(Resume) {
		want |= resuming
	} else if r.seen&resuming != 0 {
		return Ready{}, malformed("what resuming needs, without its capability")
	}
	if ready.Capabilities.Has(Terms) {
		want |= terms
	} else if r.seen&terms != 0 {
		return Ready{}, malformed("auth_deadline without its capability")
	}
	if ready.Capabilities.Has(Padding) {
		want |= padding
	} else if r.seen&padding != 0 {
		return Ready{}, malformed("padding_policy without its capability")
	}
	if err := r.require(want); err != nil {
		return Ready{}, err
	}
	return ready, nil
}

func parseLimits(block []byte) (Limits, error) {
	const required = 1<<keyMaxStreams | 1<<keyMaxUDP | 1<<keyEarlyWindow | 1<<keyOpenBurst | 1<<keyOpenRate | 1<<keySilence
	var l Limits
	r := readTLVs(block, MaxTLVBlock, required|1<<keySpeedUp|1<<keySpeedDown)
	for r.next() {
		v, err := parseVarint(r.value)
		least := uint64(0)
		name := ""
		switch r.key {
		case keyMaxStreams:
			name, l.MaxStreams, least = "max_streams", v, 1
		case keyMaxUDP:
			name, l.MaxUDP = "max_udp", v
		case keyEarlyWindow:
			name, l.EarlyWindow = "early_window", v
		case keyOpenBurst:
			name, l.OpenBurst, least = "open_burst", v, 1
		case keyOpenRate:
			name, l.OpenRate, least = "open_rate", v, 1
		case keySilence:
			name, l.Silence, least = "silence", duration(v), uint64(MinSilence/time.Millisecond)
		case keySpeedUp:
			name, l.SpeedUp = "speed_up", v
		case keySpeedDown:
			name, l.SpeedDown = "speed_down", v
		}
		if err == nil && v < least {
			err = malformed("is below " + strconv.FormatUint(least, 10))
		}
		if err != nil {
			return Limits{}, within(name, err)
		}
	}
	if r.err != nil {
		return Limits{}, r.err
	}
	if err := r.require(required); err != nil {
		return Limits{}, err
	}
	return l, nil
}

// AppendReady appends a READY. Limits that are below their least make the peer end
// the session; what Silence has below a millisecond is left out.
func AppendReady(dst []byte, r Ready) []byte {
	payload := make([]byte, 0, 320+sizePadding(r.Padding))
	payload = appendCapabilities(payload, r.Capabilities)
	payload = appendTLV(payload, keySessionID, r.SessionID[:])
	payload = appendTime(payload, keyTime, r.Time)
	if r.Capabilities.Has(Resume) {
		payload = appendTLV(payload, keyResumeSecret, r.ResumeSecret[:])
	}
	payload = appendURLs(payload, keyFronts, r.Fronts)
	payload = appendTLV(payload, keyLimits, r.Limits.block())
	payload = appendTLVNumber(payload, keyDeadline, millis(r.Deadline))
	if r.Capabilities.Has(Padding) {
		payload = appendTLV(payload, keyPaddingPolicy, r.PaddingPolicy.block())
	}
	if r.Capabilities.Has(Resume) {
		payload = appendTLVNumber(payload, keyResumeWindow, uint64(max(r.ResumeWindow.Milliseconds(), 0)))
	}
	payload = appendPadding(payload, r.Padding)
	if r.Capabilities.Has(Terms) {
		payload = appendTLVNumber(payload, keyAuthDeadline, millis(r.AuthDeadline))
	}
	return AppendFrame(dst, TypeReady, 0, payload)
}

// block returns the TLV block of l.
func (l Limits) block() []byte {
	b := make([]byte, 0, 64)
	b = appendTLVNumber(b, keyMaxStreams, l.MaxStreams)
	b = appendTLVNumber(b, keyMaxUDP, l.MaxUDP)
	b = appendTLVNumber(b, keyEarlyWindow, l.EarlyWindow)
	b = appendTLVNumber(b, keyOpenBurst, l.OpenBurst)
	b = appendTLVNumber(b, keyOpenRate, l.OpenRate)
	b = appendTLVNumber(b, keySilence, uint64(max(l.Silence.Milliseconds(), 0)))
	if l.SpeedUp > 0 {
		b = appendTLVNumber(b, keySpeedUp, l.SpeedUp)
	}
	if l.SpeedDown > 0 {
		b = appendTLVNumber(b, keySpeedDown, l.SpeedDown)
	}
	return b
}

// parseDeadline reads unix milliseconds, of which 0 stands for never.
func parseDeadline(value []byte) (time.Time, error) {
	t, err := parseTime(value)
	if err != nil || t.Equal(time.UnixMilli(0)) {
		return time.Time{}, err
	}
	return t, nil
}

// A Reject refuses a session.
type Reject struct {
	Code Code // may be one without a meaning; see [Code.Meaning]
	// RetryAfter is how long to wait before trying again, in milliseconds on
	// the wire. 0 means that trying again does not help until something changes.
	RetryAfter time.Duration
	Padding    int // bytes to be written that mean nothing; a parsed one does not tell
}

// ParseReject reads the payload of a REJECT. A wait that a Duration cannot hold
// becomes the longest one that it can.
func ParseReject(payload []byte) (Reject, error) {
	code, n, err := ConsumeVarint(payload)
	if err != nil {
		return Reject{}, within("REJECT: code", err)
	}
	payload = payload[n:]
	ms, n, err := ConsumeVarint(payload)
	if err != nil {
		return Reject{}, within("REJECT: retry_after_ms", err)
	}
	if err := checkTLVs(payload[n:], MaxTLVBlock); err != nil {
		return Reject{}, within("REJECT", err)
	}
	return Reject{Code: Code(code), RetryAfter: duration(ms)}, nil
}

// AppendReject appends a REJECT. A RetryAfter between milliseconds is rounded
// up, so that a short wait does not become none.
func AppendReject(dst []byte, r Reject) []byte {
	ms := uint64(0)
	if r.RetryAfter > 0 {
		ms = uint64((r.RetryAfter-1)/time.Millisecond) + 1
	}
	dst = AppendFrameHeader(dst, TypeReject, 0, SizeVarint(uint64(r.Code))+SizeVarint(ms)+sizePadding(r.Padding))
	dst = AppendVarint(dst, uint64(r.Code))
	dst = AppendVarint(dst, ms)
	return appendPadding(dst, r.Padding)
}

// duration returns ms milliseconds, or the longest Duration of whole milliseconds.
func duration(ms uint64) time.Duration {
	const longest = uint64(math.MaxInt64 / time.Millisecond)
	return time.Duration(min(ms, longest)) * time.Millisecond
}

// appendTime appends a time unless it is the zero Time.
func appendTime(dst []byte, key uint64, t time.Time) []byte {
	if t.IsZero() {
		return dst
	}
	return appendTLVNumber(dst, key, millis(t))
}
