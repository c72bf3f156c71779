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

	// Gateways are URLs of others that the client may try, at most [MaxGateways] of at
	// most [MaxGatewayURL] bytes of visible ASCII.
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
		if g.Gateways, r.err = parseGateways(r.value); r.err != nil {
			return GoAway{}, within("GOAWAY: gateways", r.err)
		}
	}
	if r.err != nil {
		return GoAway{}, within("GOAWAY", r.err)
	}
	return g, nil
}

// parseGateways reads URLs, as far as their form goes.
func parseGateways(list []byte) ([]string, error) {
	var urls []string
	for len(list) > 0 {
		length, n, err := ConsumeVarint(list)
		if err != nil {
			return nil, err
		}
		list = list[n:]
		switch {
		case len(urls) == MaxGateways:
			return nil, malformed("more than 8")
		case length > uint64(len(list)):
			return nil, malformed("URL cut off")
		case !isGatewayURL(string(list[:min(length, MaxGatewayURL+1)])):
			return nil, malformed("a URL is not 1 to 500 bytes of visible ASCII")
		}
		urls = append(urls, string(list[:length]))
		list = list[length:]
	}
	return urls, nil
}

func isGatewayURL(url string) bool {
	for i := range len(url) {
		if url[i] <= ' ' || url[i] > '~' {
			return false
		}
	}
	return url != "" && len(url) <= MaxGatewayURL
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
	var list []byte
	told := 0
	for _, url := range g.Gateways {
		if told == MaxGateways || !isGatewayURL(url) {
			continue
		}
		told++
		list = append(AppendVarint(list, uint64(len(url))), url...)
	}
	if told > 0 {
		payload = appendTLV(payload, keyGateways, list)
	}
	return AppendFrame(dst, TypeGoAway, 0, payload)
}
