package wire

import (
	"fmt"
	"net/netip"
	"strconv"
	"testing"
	"time"
)

// frameJSON is a frame in the vectors. Each type has some of the fields.
type frameJSON struct {
	Type         string            `json:"type"`
	Stream       uint64            `json:"stream"`
	Payload      hexBytes          `json:"payload"`
	Token        hexBytes          `json:"token"`
	Offset       uint64            `json:"offset"`
	Code         uint64            `json:"code"`
	Reason       string            `json:"reason"`
	Kind         byte              `json:"kind"`
	RecvWindow   uint64            `json:"recv_window"`
	Address      addressJSON       `json:"address"`
	Early        hexBytes          `json:"early"`
	Nonce        hexBytes          `json:"nonce"`
	Capabilities []uint64          `json:"capabilities"`
	Time         *uint64           `json:"time"`
	DeviceID     hexBytes          `json:"device_id"`
	Agent        string            `json:"agent"`
	AccessToken  string            `json:"access_token"`
	ClientNonce  hexBytes          `json:"client_nonce"`
	Signature    hexBytes          `json:"signature"`
	DeviceKey    hexBytes          `json:"device_key"`
	SessionID    hexBytes          `json:"session_id"`
	Limits       map[string]uint64 `json:"limits"`
	Deadline     uint64            `json:"deadline"`
	RetryAfter   uint64            `json:"retry_after_ms"`
	RSN          uint64            `json:"rsn"`
	Attempt      uint64            `json:"attempt"`
	Received     uint64            `json:"rx_rsn"`
	Proof        hexBytes          `json:"proof"`
	ResumeSecret hexBytes          `json:"resume_secret"`
	ResumeWindow uint64            `json:"resume_window"`
	Last         uint64            `json:"last_stream_id"`
	Drain        uint64            `json:"drain_ms"`
	ReconnectMin uint64            `json:"reconnect_min_ms"`
	ReconnectMax uint64            `json:"reconnect_max_ms"`
	Gateways     []string          `json:"gateways"`
	Fronts       []string          `json:"fronts"`
	AuthDeadline uint64            `json:"auth_deadline"`
	At           uint64            `json:"at"`
	Left         uint64            `json:"left"`
	Quota        uint64            `json:"quota"`

	// Padding is how many bytes of it an encoder is asked for; a decoder does not tell.
	Padding       int          `json:"padding"`
	PaddingPolicy *paddingJSON `json:"padding_policy"`
}

type paddingJSON struct {
	Messages int   `json:"messages"`
	Sizes    []int `json:"sizes"`
	Spread   int   `json:"spread"`
	Share    int   `json:"share"`
}

// addr returns a as an address. 0.0.0.0:0, which stands for any peer in an OPEN and
// is refused elsewhere, is how the zero Addr is written.
func (a addressJSON) addr() Addr {
	if a == (addressJSON{"0.0.0.0", 0}) {
		return Addr{}
	}
	if ip, err := netip.ParseAddr(a.Host); err == nil {
		return Addr{IP: ip, Port: a.Port}
	}
	return Addr{Name: a.Host, Port: a.Port}
}

func jsonAddr(a Addr) addressJSON {
	if a == (Addr{}) {
		return addressJSON{"0.0.0.0", 0}
	}
	if a.Name != "" {
		return addressJSON{a.Name, a.Port}
	}
	return addressJSON{a.IP.String(), a.Port}
}

// normal returns j with what is absent and what is empty made the same.
func (j frameJSON) normal() frameJSON {
	for _, b := range []*hexBytes{&j.Payload, &j.Early} {
		if len(*b) == 0 {
			*b = nil
		}
	}
	if len(j.Capabilities) == 0 {
		j.Capabilities = nil
	}
	if len(j.Gateways) == 0 {
		j.Gateways = nil
	}
	if len(j.Fronts) == 0 {
		j.Fronts = nil
	}
	j.Padding = 0
	return j
}

// decode reads the payload of f by its type, that of a DGRAM as one on a flow of
// that kind.
func decode(f Frame, kind Kind) (j frameJSON, err error) {
	j = frameJSON{Type: f.Type.String(), Stream: f.Stream}
	switch f.Type {
	case TypePad, TypeData, TypeFin:
		j.Payload = f.Payload
	case TypePing, TypePong:
		token, e := ParsePing(f.Payload)
		j.Token, err = token[:], e
	case TypeCredit:
		j.Offset, err = ParseCredit(f.Payload)
	case TypeReset:
		code, e := ParseReset(f.Payload)
		j.Code, err = uint64(code), e
	case TypeStop:
		code, e := ParseStop(f.Payload)
		j.Code, err = uint64(code), e
	case TypeClose:
		c, e := ParseClose(f.Payload)
		j.Code, j.Reason, err = uint64(c.Code), c.Reason, e
	case TypeOpen:
		o, e := ParseOpen(f.Payload)
		err = e
		j.Kind, j.RecvWindow, j.Address, j.Early = byte(o.Kind), o.RecvWindow, jsonAddr(o.Target), o.Early
	case TypeOpened:
		o, e := ParseOpened(f.Payload)
		j.RecvWindow, err = o.RecvWindow, e
	case TypeDgram:
		d, e := ParseDgram(kind, f.Payload)
		err = e
		j.Payload = d.Data
		if kind == KindUDPAny && (err == nil || streamOnly(err)) {
			j.Address = jsonAddr(d.Peer)
		}
	case TypeChallenge:
		c, e := ParseChallenge(f.Payload)
		err = e
		j.Nonce, j.Capabilities, j.Time = c.Nonce[:], jsonCapabilities(c.Capabilities), jsonTime(c.Time)
	case TypeHello:
		h, e := ParseHello(f.Payload)
		err = e
		j.Capabilities, j.DeviceID, j.Agent = jsonCapabilities(h.Capabilities), h.DeviceID[:], h.Agent
		j.AccessToken, j.ClientNonce, j.Signature = h.AccessToken, h.ClientNonce[:], h.Signature[:]
		j.Time, j.DeviceKey = jsonTime(h.Time), h.DeviceKey[:]
	case TypeReady:
		r, e := ParseReady(f.Payload)
		err = e
		j.Capabilities, j.SessionID, j.Time = jsonCapabilities(r.Capabilities), r.SessionID[:], jsonTime(r.Time)
		j.Limits, j.Deadline, j.AuthDeadline = jsonLimits(r.Limits), millis(r.Deadline), millis(r.AuthDeadline)
		j.Fronts = r.Fronts
		if r.Capabilities.Has(Resume) {
			j.ResumeSecret, j.ResumeWindow = r.ResumeSecret[:], uint64(r.ResumeWindow/time.Millisecond)
		}
		if r.Capabilities.Has(Padding) {
			policy := paddingJSON(r.PaddingPolicy)
			j.PaddingPolicy = &policy
		}
	case TypeAck:
		j.RSN, err = ParseAck(f.Payload)
	case TypeResume:
		r, e := ParseResume(f.Payload)
		err = e
		j.SessionID, j.Attempt, j.Received, j.Proof = r.SessionID[:], r.Attempt, r.Received, r.Proof[:]
	case TypeResumed:
		r, e := ParseResumed(f.Payload)
		err = e
		j.Received, j.Proof = r.Received, r.Proof[:]
	case TypeGoAway:
		g, e := ParseGoAway(f.Payload)
		err = e
		j.Last, j.Code, j.Gateways = g.Last, uint64(g.Code), g.Gateways
		j.Drain, j.ReconnectMin, j.ReconnectMax = uint64(g.Drain.Milliseconds()), uint64(g.ReconnectMin.Milliseconds()), uint64(g.ReconnectMax.Milliseconds())
	case TypeReauth:
		r, e := ParseReauth(f.Payload)
		err = e
		j.AccessToken, j.Signature = r.AccessToken, r.Signature[:]
	case TypeAuth:
		a, e := ParseAuth(f.Payload)
		err = e
		j.Code, j.Deadline = uint64(a.Code), millis(a.Deadline)
	case TypeLimits:
		terms, e := ParseLimits(f.Payload)
		err = e
		j.Limits, j.Deadline = jsonLimits(terms.Limits), millis(terms.Deadline)
	case TypeNotice:
		n, e := ParseNotice(f.Payload)
		err = e
		j.Code, j.At, j.Left, j.Quota = uint64(n.Code), millis(n.At), n.Left, n.Quota
	case TypeReject:
		r, e := ParseReject(f.Payload)
		err = e
		j.Code, j.RetryAfter = uint64(r.Code), uint64(r.RetryAfter/time.Millisecond)
	default:
		j.Type, j.Payload = fmt.Sprintf("0x%02x", byte(f.Type)), f.Payload
	}
	return j, err
}

// encode writes the frame that j describes, a DGRAM as one on a flow of that kind.
func encode(tb testing.TB, j frameJSON, kind Kind) []byte {
	tb.Helper()
	switch j.Type {
	case "PAD":
		return AppendFrame(nil, TypePad, 0, j.Payload)
	case "PING":
		return AppendPing(nil, [8]byte(j.Token))
	case "PONG":
		return AppendPong(nil, [8]byte(j.Token))
	case "DATA":
		return AppendData(nil, j.Stream, j.Payload)
	case "FIN":
		return AppendFin(nil, j.Stream, j.Payload)
	case "CREDIT":
		return AppendCredit(nil, j.Stream, j.Offset)
	case "RESET":
		return AppendReset(nil, j.Stream, Code(j.Code))
	case "STOP":
		return AppendStop(nil, j.Stream, Code(j.Code))
	case "CLOSE":
		return AppendClose(nil, Close{Code(j.Code), j.Reason})
	case "OPEN":
		return AppendOpen(nil, j.Stream, Open{Kind(j.Kind), j.RecvWindow, j.Address.addr(), j.Early})
	case "DGRAM":
		return AppendDgram(nil, j.Stream, kind, Dgram{j.Address.addr(), j.Payload})
	case "OPENED":
		return AppendOpened(nil, j.Stream, Opened{j.RecvWindow})
	case "CHALLENGE":
		return AppendChallenge(nil, Challenge{[32]byte(j.Nonce), wireCapabilities(j), wireTime(j.Time), j.Padding})
	case "HELLO":
		return AppendHello(nil, Hello{
			Capabilities: wireCapabilities(j), DeviceID: [16]byte(j.DeviceID), Agent: j.Agent, AccessToken: j.AccessToken,
			ClientNonce: [32]byte(j.ClientNonce), Signature: [64]byte(j.Signature), Time: wireTime(j.Time),
			DeviceKey: [32]byte(j.DeviceKey), Padding: j.Padding,
		})
	case "ACK":
		return AppendAck(nil, j.RSN)
	case "RESUME":
		return AppendResume(nil, Resumption{[16]byte(j.SessionID), j.Attempt, j.Received, ResumeProof(j.Proof), j.Padding})
	case "RESUMED":
		return AppendResumed(nil, Resumed{j.Received, ResumeProof(j.Proof), j.Padding})
	case "GOAWAY":
		return AppendGoAway(nil, GoAway{
			Last: j.Last, Code: Code(j.Code), Drain: time.Duration(j.Drain) * time.Millisecond, Gateways: j.Gateways,
			ReconnectMin: time.Duration(j.ReconnectMin) * time.Millisecond, ReconnectMax: time.Duration(j.ReconnectMax) * time.Millisecond,
		})
	case "READY":
		ready := Ready{
			Capabilities: wireCapabilities(j), SessionID: [16]byte(j.SessionID), Time: wireTime(j.Time),
			Limits:       wireLimits(j),
			Deadline:     time.UnixMilli(int64(j.Deadline)),
			AuthDeadline: time.UnixMilli(int64(j.AuthDeadline)),
			ResumeWindow: time.Duration(j.ResumeWindow) * time.Millisecond,
			Fronts:       j.Fronts,
			Padding:      j.Padding,
		}
		if j.PaddingPolicy != nil {
			ready.PaddingPolicy = PaddingPolicy(*j.PaddingPolicy)
		}
		copy(ready.ResumeSecret[:], j.ResumeSecret)
		return AppendReady(nil, ready)
	case "REAUTH":
		return AppendReauth(nil, Reauth{AccessToken: j.AccessToken, Signature: [64]byte(j.Signature)})
	case "AUTH":
		return AppendAuth(nil, Auth{Code(j.Code), time.UnixMilli(int64(j.Deadline))})
	case "LIMITS":
		return AppendLimits(nil, SessionTerms{wireLimits(j), time.UnixMilli(int64(j.Deadline))})
	case "NOTICE":
		return AppendNotice(nil, Notice{Code(j.Code), time.UnixMilli(int64(j.At)), j.Left, j.Quota})
	case "REJECT":
		return AppendReject(nil, Reject{Code(j.Code), time.Duration(j.RetryAfter) * time.Millisecond, j.Padding})
	default:
		number, err := strconv.ParseUint(j.Type, 0, 8)
		if err != nil {
			tb.Fatalf("frame of type %q: %v", j.Type, err)
		}
		return AppendFrame(nil, FrameType(number), j.Stream, j.Payload)
	}
}

func jsonCapabilities(s Capabilities) (list []uint64) {
	for c := range Capability(64) {
		if s.Has(c) {
			list = append(list, uint64(c))
		}
	}
	return list
}

func wireCapabilities(j frameJSON) (s Capabilities) {
	for _, c := range j.Capabilities {
		s = s.With(Capability(c))
	}
	return s
}

func jsonLimits(l Limits) map[string]uint64 {
	limits := map[string]uint64{
		"max_streams": l.MaxStreams, "max_udp": l.MaxUDP, "early_window": l.EarlyWindow,
		"open_burst": l.OpenBurst, "open_rate": l.OpenRate, "silence": uint64(l.Silence / time.Millisecond),
	}
	for name, speed := range map[string]uint64{"speed_up": l.SpeedUp, "speed_down": l.SpeedDown} {
		if speed > 0 {
			limits[name] = speed
		}
	}
	return limits
}

func wireLimits(j frameJSON) Limits {
	return Limits{
		MaxStreams: j.Limits["max_streams"], MaxUDP: j.Limits["max_udp"], EarlyWindow: j.Limits["early_window"],
		OpenBurst: j.Limits["open_burst"], OpenRate: j.Limits["open_rate"],
		Silence: time.Duration(j.Limits["silence"]) * time.Millisecond,
		SpeedUp: j.Limits["speed_up"], SpeedDown: j.Limits["speed_down"],
	}
}

func jsonTime(t time.Time) *uint64 {
	if t.IsZero() {
		return nil
	}
	return new(millis(t))
}

func wireTime(ms *uint64) time.Time {
	if ms == nil {
		return time.Time{}
	}
	return time.UnixMilli(int64(*ms))
}

// fieldsOf returns h as a client would fill it in, without the bytes that a
// parsed one keeps.
func fieldsOf(h Hello) Hello {
	h.signed = nil
	return h
}
