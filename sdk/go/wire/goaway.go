package wire

import "time"

// AllOpens is [GoAway.Last] of a gateway that still takes every OPEN.
const AllOpens = MaxVarint

// A GoAway says that the gateway is about to go.
type GoAway struct {
	// Last is the id up to which OPENs were taken: those above it were not looked at
	// and will not be. It is odd, or 0; [AllOpens] means that all are taken yet.
	Last uint64
	Code Code // why; may be one without a meaning, see [Code.Meaning]

	// Drain is how long open streams may go on. ReconnectMin and ReconnectMax bound the
	// time after which the client should turn to another gateway. All three are whole
	// milliseconds on the wire.
	Drain, ReconnectMin, ReconnectMax time.Duration

	// Gateways are URLs of others that the client may try, at most [MaxURLs] of at
	// most [MaxURL] bytes of visible ASCII.
	Gateways []string
}

const keyGateways = 1

// ParseGoAway reads the payload of a GOAWAY. Times that a Duration cannot hold become
// the longest that it can.
func ParseGoAway(payload []byte) (GoAway, error) {
	var (
		g      GoAway
		fields [5]uint64
	)
	for i, name := range [...]string{"last_stream_id", "code", "drain_ms", "reconnect_min_ms", "reconnect_max_ms"} {
		v, n, err := ConsumeVarint(payload)
		if err != nil {
			return GoAway{}, within("GOAWAY: "+name, err)
		}
		fields[i], payload = v, payload[n:]
	}
	g.Last, g.Code = fields[0], Code(fields[1])
	g.Drain, g.ReconnectMin, g.ReconnectMax = duration(fields[2]), duration(fields[3]), duration(fields[4])
	switch {
	case g.Last != 0 && g.Last%2 == 0:
		return GoAway{}, malformed("GOAWAY: last_stream_id is even")
	case fields[3] > fields[4]:
		return GoAway{}, malformed("GOAWAY: reconnect_min_ms over reconnect_max_ms")
	}
	r := readTLVs(payload, MaxTLVBlock, 1<<keyGateways)
	for r.next() {
		if g.Gateways, r.err = parseURLs(r.value); r.err != nil {
			return GoAway{}, within("GOAWAY: gateways", r.err)
		}
	}
	if r.err != nil {
		return GoAway{}, within("GOAWAY", r.err)
	}
	return g, nil
}

// AppendGoAway appends a GOAWAY. Of the gateways it leaves out those that a peer would
// not take. A Last that is even or a ReconnectMin over ReconnectMax make the peer end
// the session.
func AppendGoAway(dst []byte, g GoAway) []byte {
	payload := make([]byte, 0, 64)
	payload = AppendVarint(payload, g.Last)
	payload = AppendVarint(payload, uint64(g.Code))
	for _, d := range [...]time.Duration{g.Drain, g.ReconnectMin, g.ReconnectMax} {
		payload = AppendVarint(payload, uint64(max(d.Milliseconds(), 0)))
	}
	payload = appendURLs(payload, keyGateways, g.Gateways)
	return AppendFrame(dst, TypeGoAway, 0, payload)
}
