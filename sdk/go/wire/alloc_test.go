package wire

import (
	"math"
	"runtime"
	"strings"
	"testing"
)

// longestName is the longest name that an address can have.
var longestName = strings.Repeat(strings.Repeat("a", MaxLabel)+".", 3) + strings.Repeat("a", 61)

// TestAllocationIsBoundedByTheInput holds for valid and invalid input alike: a peer
// must not be able to turn few bytes into much memory. The fuzz targets ask the same
// of every input they try.
func TestAllocationIsBoundedByTheInput(t *testing.T) {
	hello := Hello{AccessToken: strings.Repeat("a", MaxToken), Agent: strings.Repeat("a", MaxAgent)}
	block := hello.block(true)
	block = append(block, 11)
	block = AppendVarint(block, uint64(MaxHello-len(block)-2))
	block = append(block, make([]byte, MaxHello-len(block))...)

	check := func(name string, in []byte, parse func()) {
		t.Helper()
		checkAllocation(t, name, len(in), parse)
	}
	for name, payload := range map[string][]byte{
		"the longest HELLO":    block,
		"the longest address":  AppendAddr(nil, Addr{Name: longestName, Port: 1}),
		"the longest datagram": append(AppendAddr(nil, Addr{Name: longestName, Port: 1}), make([]byte, MaxDatagram)...),
		"a list of numbers":    ascending(),
		"ones":                 []byte(strings.Repeat("\xff", MaxFramePayload)),
		"zeros":                make([]byte, MaxFramePayload),
	} {
		for ft := range 256 {
			for _, kind := range []Kind{KindUDP, KindUDPAny} {
				check(name+" as "+FrameType(ft).String(), payload, func() { parseOnly(Frame{FrameType(ft), 1, payload}, kind) })
			}
		}
	}
	for _, v := range loadFrames(t) {
		check(v.Name, v.Hex, func() {
			if f, _, err := ConsumeFrame(v.Hex); err == nil {
				parseOnly(f, v.Kind)
			}
		})
	}
	for _, v := range load[messageVector](t, "messages.json") {
		check(v.Name, v.Hex, func() { readOnly(v.Hex) })
	}
	for name, unit := range map[string]string{"empty frames": "\x00\x00", "empty frames of streams": "\x9f\x01\x00"} {
		msg := []byte(strings.Repeat(unit, MaxMessage/len(unit)))
		check(name, msg, func() { readOnly(msg) })
	}
	for _, v := range load[addressVector](t, "addresses.json") {
		check(v.Name, v.Hex, func() { _, _ = ParseAddr(v.Hex) })
	}
	for _, v := range load[varintVector](t, "varints.json") {
		check(v.Name, v.Hex, func() { _, _ = parseVarint(v.Hex) })
	}
	for _, v := range load[tlvVector](t, "tlvs.json") {
		check(v.Name, v.Hex, func() { walk(v.Hex, keys(v.Known...)) })
	}
	for _, v := range load[hostVector](t, "hosts.json") {
		check(v.Name, []byte(v.Host), func() { _, _ = AddrFromHostPort(v.Host, v.Port) })
	}
	long := strings.Repeat("\xff", 1<<20)
	check("a host of a megabyte", nil, func() { _, _ = AddrFromHostPort(long, 1) })
}

// ascending returns a CHALLENGE with as many capabilities as fit.
func ascending() []byte {
	var list []byte
	for v := uint64(0); len(list) < MaxTLVBlock-8; v++ {
		list = AppendVarint(list, v)
	}
	return appendTLV(make([]byte, 32), keyCapabilities, list)
}

// checkAllocation fails t when parse allocates more than twice its input and 4 KiB.
func checkAllocation(t *testing.T, name string, input int, parse func()) {
	t.Helper()
	limit := uint64(2*input + 4096)
	if got := allocated(limit, parse); got > limit {
		t.Errorf("%s: %d bytes allocated for %d bytes of input", name, got, input)
	}
}

// allocated returns how many bytes f allocates. The runtime itself allocates now and
// then, so what is over limit is measured again, and the least counts.
func allocated(limit uint64, f func()) uint64 {
	least := uint64(math.MaxUint64)
	var before, after runtime.MemStats
	for range 5 {
		runtime.ReadMemStats(&before)
		f()
		runtime.ReadMemStats(&after)
		if least = min(least, after.TotalAlloc-before.TotalAlloc); least <= limit {
			break
		}
	}
	return least
}

// readOnly reads the frames of msg and drops them.
func readOnly(msg []byte) {
	for f, err := range Frames(msg) {
		_, _ = f, err
	}
}

// walk reads a TLV block and drops it.
func walk(block []byte, known keySet) {
	r := readTLVs(block, MaxTLVBlock, known)
	for r.next() {
		_ = r.value
	}
}

// parseOnly parses the payload of f and drops the result.
func parseOnly(f Frame, kind Kind) {
	switch f.Type {
	case TypePing, TypePong:
		_, _ = ParsePing(f.Payload)
	case TypeCredit:
		_, _ = ParseCredit(f.Payload)
	case TypeReset:
		_, _ = ParseReset(f.Payload)
	case TypeStop:
		_, _ = ParseStop(f.Payload)
	case TypeClose:
		_, _ = ParseClose(f.Payload)
	case TypeOpen:
		_, _ = ParseOpen(f.Payload)
	case TypeOpened:
		_, _ = ParseOpened(f.Payload)
	case TypeDgram:
		_, _ = ParseDgram(kind, f.Payload)
	case TypeChallenge:
		_, _ = ParseChallenge(f.Payload)
	case TypeHello:
		_, _ = ParseHello(f.Payload)
	case TypeReady:
		_, _ = ParseReady(f.Payload)
	case TypeReject:
		_, _ = ParseReject(f.Payload)
	case TypeGoAway:
		_, _ = ParseGoAway(f.Payload)
	case TypeReauth:
		_, _ = ParseReauth(f.Payload)
	case TypeAuth:
		_, _ = ParseAuth(f.Payload)
	case TypeLimits:
		_, _ = ParseLimits(f.Payload)
	case TypeNotice:
		_, _ = ParseNotice(f.Payload)
	default: // no structure
	}
}
