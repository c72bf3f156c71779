package wire

import (
	"bytes"
	"errors"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// soundFault checks what holds for every error over input.
func soundFault(t *testing.T, err error) {
	t.Helper()
	fault, ok := errors.AsType[*Error](err)
	if !ok {
		t.Fatalf("%v is not an *Error", err)
	}
	if len(fault.What) == 0 || len(fault.What) > MaxReason {
		t.Errorf("%q does not fit a CLOSE", fault.What)
	}
	session := fault.Code == CodeProtocol || fault.Code == CodeFrameSize || fault.Code == CodeUnsupported
	stream := fault.Code == CodeRefused || fault.Code == CodeUnsupported
	if fault.StreamOnly && !stream || !fault.StreamOnly && !session {
		t.Errorf("%q with %s, StreamOnly %t", fault.What, fault.Code, fault.StreamOnly)
	}
}

// survives checks that what is read from the payload of frame is read again from
// what is written of it. kind is that of the flow, where frame is a DGRAM.
func survives(t *testing.T, frame Frame, kind Kind) {
	t.Helper()
	j, err := decode(frame, kind)
	if err != nil {
		soundFault(t, err)
		return
	}
	own := encode(t, j, kind)
	second, rest, err := ConsumeFrame(own)
	if err != nil || len(rest) != 0 {
		t.Fatalf("%s: %x cannot be read again: %v", frame.Type, own, err)
	}
	back, err := decode(second, kind)
	if err != nil {
		t.Fatalf("%s: %x cannot be read again: %v", frame.Type, own, err)
	}
	// cmp.Diff is slow on large payloads and only the message of a failure.
	if first, again := j.normal(), back.normal(); !reflect.DeepEqual(first, again) {
		t.Errorf("round trip (-first +second):\n%s", cmp.Diff(first, again))
	}
}

// FuzzFrames reads a message: what is read as frames is, written again, what
// was there, and what is read from a payload survives the round trip.
func FuzzFrames(f *testing.F) {
	for _, v := range loadFrames(f) {
		f.Add([]byte(v.Hex))
	}
	for _, v := range load[messageVector](f, "messages.json") {
		f.Add([]byte(v.Hex))
	}
	f.Fuzz(func(t *testing.T, msg []byte) {
		checkAllocation(t, "message", len(msg), func() { readOnly(msg) })
		var again []byte
		clean := true
		for frame, err := range Frames(msg) {
			if err != nil {
				soundFault(t, err)
				clean = false
				break
			}
			again = AppendFrame(again, frame.Type, frame.Stream, frame.Payload)
			survives(t, frame, KindUDP)
			if frame.Type == TypeDgram {
				survives(t, frame, KindUDPAny)
			}
		}
		if clean && !bytes.Equal(again, msg) || !bytes.HasPrefix(msg, again) {
			t.Errorf("%x was read as %x", msg, again)
		}
	})
}

// FuzzPayload reads one payload as that of a frame of some type, which FuzzFrames
// gets to only when it has guessed the lengths.
func FuzzPayload(f *testing.F) {
	for _, v := range loadFrames(f) {
		if frame, _, err := ConsumeFrame(v.Hex); err == nil {
			f.Add(byte(frame.Type), byte(v.Kind), frame.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, number, kind byte, payload []byte) {
		// Whatever has a header is a frame, and what has not is not read further.
		whole := AppendFrame(nil, FrameType(number), 7, payload)
		frame, rest, err := ConsumeFrame(whole)
		if err != nil {
			soundFault(t, err)
			return
		}
		if len(rest) != 0 || !bytes.Equal(frame.Payload, payload) {
			t.Fatalf("%x was read as %x", payload, frame.Payload)
		}
		checkAllocation(t, frame.Type.String(), len(payload), func() { parseOnly(frame, Kind(kind)) })
		survives(t, frame, Kind(kind))
	})
}

// FuzzDgram reads the payload of a DGRAM on a flow with any peer, one that is dropped
// included: there is one way to write each.
func FuzzDgram(f *testing.F) {
	for _, v := range load[frameVector](f, "frames.json") {
		if frame, _, err := ConsumeFrame(v.Hex); err == nil && frame.Type == TypeDgram {
			f.Add(frame.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > MaxFramePayload {
			return
		}
		checkAllocation(t, "DGRAM", len(payload), func() { _, _ = ParseDgram(KindUDPAny, payload) })
		if one, err := ParseDgram(KindUDP, payload); err != nil || !bytes.Equal(one.Data, payload) {
			t.Errorf("with one peer %x was read as %x, %v", payload, one.Data, err)
		}
		d, err := ParseDgram(KindUDPAny, payload)
		if err != nil {
			soundFault(t, err)
		}
		if err != nil && !streamOnly(err) {
			return
		}
		if (err == nil) != (d.Peer.Check() == nil) {
			t.Errorf("%v: %v, and Check says %v", d.Peer, err, d.Peer.Check())
		}
		frame, rest, err := ConsumeFrame(AppendDgram(nil, 7, KindUDPAny, d))
		if err != nil || len(rest) != 0 || frame.Stream != 7 || !bytes.Equal(frame.Payload, payload) {
			t.Errorf("%x was read as %x, %v", payload, frame.Payload, err)
		}
	})
}

// FuzzVarint reads a number: there is one way to write each.
func FuzzVarint(f *testing.F) {
	for _, v := range load[varintVector](f, "varints.json") {
		f.Add([]byte(v.Hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkAllocation(t, "varint", len(b), func() { _, _, _ = ConsumeVarint(b) })
		v, n, err := ConsumeVarint(b)
		if err != nil {
			soundFault(t, err)
			return
		}
		if v > MaxVarint || n != SizeVarint(v) || !bytes.Equal(AppendVarint(nil, v), b[:n]) {
			t.Errorf("%x was read as %d, %d bytes", b, v, n)
		}
	})
}

// FuzzHello reads the payload of a HELLO. What is signed depends on every byte
// of it but the signature.
func FuzzHello(f *testing.F) {
	for _, v := range load[frameVector](f, "handshake.json") {
		if frame, _, err := ConsumeFrame(v.Hex); err == nil && frame.Type == TypeHello {
			f.Add(frame.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		checkAllocation(t, "HELLO", len(payload), func() { _, _ = ParseHello(payload) })
		h, err := ParseHello(payload)
		if err != nil {
			soundFault(t, err)
			return
		}
		frame, rest, err := ConsumeFrame(AppendHello(nil, h))
		if err != nil || len(rest) != 0 {
			t.Fatalf("%+v cannot be read again: %v", h, err)
		}
		back, err := ParseHello(frame.Payload)
		if err != nil {
			t.Fatalf("%+v cannot be read again: %v", h, err)
		}
		if diff := cmp.Diff(fieldsOf(h), fieldsOf(back), cmp.AllowUnexported(Hello{})); diff != "" {
			t.Errorf("round trip (-first +second):\n%s", diff)
		}
		input := h.SigningInput([32]byte{1}, "Host", []byte("binding"))
		own := fieldsOf(h).SigningInput([32]byte{1}, "host", []byte("binding"))
		if bytes.Equal(payload, frame.Payload) != bytes.Equal(input, own) {
			t.Errorf("the payload is %x, written again %x; signed is\n%x and\n%x", payload, frame.Payload, input, own)
		}
	})
}

// FuzzGoAway reads the payload of a GOAWAY: what is read survives the round trip, and
// keeps to the bounds of the document.
func FuzzGoAway(f *testing.F) {
	for _, v := range load[frameVector](f, "goaway.json") {
		if frame, _, err := ConsumeFrame(v.Hex); err == nil && frame.Type == TypeGoAway {
			f.Add(frame.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > MaxFramePayload {
			return
		}
		checkAllocation(t, "GOAWAY", len(payload), func() { _, _ = ParseGoAway(payload) })
		g, err := ParseGoAway(payload)
		if err != nil {
			soundFault(t, err)
			return
		}
		if g.Last != 0 && g.Last%2 == 0 || g.ReconnectMin > g.ReconnectMax || len(g.Gateways) > MaxURLs {
			t.Errorf("%x was read as %+v", payload, g)
		}
		frame, rest, err := ConsumeFrame(AppendGoAway(nil, g))
		if err != nil || len(rest) != 0 {
			t.Fatalf("%+v cannot be read again: %v", g, err)
		}
		back, err := ParseGoAway(frame.Payload)
		if diff := cmp.Diff(g, back); diff != "" || err != nil {
			t.Errorf("round trip, %v (-first +second):\n%s", err, diff)
		}
	})
}

// FuzzReauth reads the payload of a REAUTH. What is signed depends on every byte of it
// but the signature.
func FuzzReauth(f *testing.F) {
	for _, v := range load[frameVector](f, "terms.json") {
		if frame, _, err := ConsumeFrame(v.Hex); err == nil && frame.Type == TypeReauth {
			f.Add(frame.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > MaxFramePayload {
			return
		}
		checkAllocation(t, "REAUTH", len(payload), func() { _, _ = ParseReauth(payload) })
		r, err := ParseReauth(payload)
		if err != nil {
			soundFault(t, err)
			return
		}
		fresh := Reauth{AccessToken: r.AccessToken, Signature: r.Signature}
		frame, rest, err := ConsumeFrame(AppendReauth(nil, fresh))
		if err != nil || len(rest) != 0 {
			t.Fatalf("%+v cannot be read again: %v", r, err)
		}
		back, err := ParseReauth(frame.Payload)
		if err != nil || back.AccessToken != r.AccessToken || back.Signature != r.Signature {
			t.Errorf("%+v came back as %+v, %v", r, back, err)
		}
		if same := bytes.Equal(r.SigningInput([16]byte{1}), fresh.SigningInput([16]byte{1})); same != bytes.Equal(payload, frame.Payload) {
			t.Errorf("the payload is %x, written again %x; that both are signed alike is %t", payload, frame.Payload, same)
		}
	})
}

// FuzzTerms reads the payloads of AUTH, LIMITS and NOTICE: what is read survives being
// written again.
func FuzzTerms(f *testing.F) {
	types := []FrameType{TypeAuth, TypeLimits, TypeNotice}
	for _, v := range load[frameVector](f, "terms.json") {
		if frame, _, err := ConsumeFrame(v.Hex); err == nil {
			for i, kind := range types {
				if frame.Type == kind {
					f.Add(byte(i), frame.Payload)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, kind byte, payload []byte) {
		if len(payload) > MaxFramePayload {
			return
		}
		frame := Frame{Type: types[int(kind)%len(types)], Payload: payload}
		checkAllocation(t, frame.Type.String(), len(payload), func() { parseOnly(frame, 0) })
		survives(t, frame, 0)
	})
}

// FuzzOpen reads the payload of an OPEN, one that ends only its stream included.
func FuzzOpen(f *testing.F) {
	for _, v := range load[frameVector](f, "open.json") {
		if frame, _, err := ConsumeFrame(v.Hex); err == nil && frame.Type == TypeOpen {
			f.Add(frame.Payload)
		}
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		if len(payload) > MaxFramePayload {
			return
		}
		checkAllocation(t, "OPEN", len(payload), func() { _, _ = ParseOpen(payload) })
		o, err := ParseOpen(payload)
		if err != nil {
			soundFault(t, err)
		}
		if err != nil && !streamOnly(err) {
			return
		}
		frame, rest, err2 := ConsumeFrame(AppendOpen(nil, 7, o))
		if err2 != nil || len(rest) != 0 || frame.Stream != 7 {
			t.Fatalf("%+v cannot be read again: %v", o, err2)
		}
		back, err2 := ParseOpen(frame.Payload)
		if diff := cmp.Diff(err, err2); diff != "" {
			t.Errorf("error of the round trip (-first +second):\n%s", diff)
		}
		switch {
		case o.Kind.Flow() && (o.RecvWindow != 0 || len(o.Early) != 0):
			t.Errorf("%+v is taken for a flow", o)
		case o.Kind == KindUDPAny && (err == nil) != (o.Target == Addr{}):
			t.Errorf("%+v with any peer: %v", o, err)
		}
		if o.Kind != back.Kind || o.RecvWindow != back.RecvWindow || o.Target != back.Target || !bytes.Equal(o.Early, back.Early) {
			t.Errorf("%+v came back as %+v", o, back)
		}
	})
}

// FuzzAddr reads an address: there is one way to write each.
func FuzzAddr(f *testing.F) {
	for _, v := range load[addressVector](f, "addresses.json") {
		f.Add([]byte(v.Hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		checkAllocation(t, "address", len(b), func() { _, _ = ParseAddr(b) })
		a, err := ParseAddr(b)
		if err != nil {
			soundFault(t, err)
		}
		if err != nil && !streamOnly(err) {
			return
		}
		again := AppendAddr(nil, a)
		if !bytes.Equal(again, b) || len(again) != sizeAddr(a) {
			t.Errorf("%x was read as %x, %d bytes", b, again, sizeAddr(a))
		}
		host := a.Name
		if host == "" {
			host = a.IP.String()
		}
		own, ownErr := AddrFromHostPort(host, a.Port)
		if err == nil && (ownErr != nil || own != a) {
			t.Errorf("%s comes from a client as %s, %v", a, own, ownErr)
		}
	})
}

// FuzzHost takes what a person or a program wrote as a host: what comes of it is
// acceptable, survives the wire, and is written the same way once more.
func FuzzHost(f *testing.F) {
	for _, v := range load[hostVector](f, "hosts.json") {
		f.Add(v.Host, v.Port)
	}
	f.Fuzz(func(t *testing.T, host string, port uint16) {
		checkAllocation(t, "host", len(host), func() { _, _ = AddrFromHostPort(host, port) })
		a, err := AddrFromHostPort(host, port)
		if err != nil {
			soundFault(t, err)
			return
		}
		if err := a.Check(); err != nil || a.Port != port {
			t.Errorf("%q comes out as %s: %v", host, a, err)
		}
		if back, err := ParseAddr(AppendAddr(nil, a)); err != nil || back != a {
			t.Errorf("%s comes off the wire as %s, %v", a, back, err)
		}
		own := a.Name
		if own == "" {
			own = a.IP.String()
		}
		if again, err := AddrFromHostPort(own, port); err != nil || again != a {
			t.Errorf("%q, which is %q, comes out as %s, %v", own, host, again, err)
		}
	})
}

// FuzzTLV reads a block: what is read is in order and, when nothing was skipped,
// all of it.
func FuzzTLV(f *testing.F) {
	for _, v := range load[tlvVector](f, "tlvs.json") {
		f.Add([]byte(v.Hex), uint64(keys(v.Known...)))
	}
	f.Fuzz(func(t *testing.T, block []byte, known uint64) {
		checkAllocation(t, "TLV block", len(block), func() { walk(block, keySet(known)) })
		r := readTLVs(block, MaxTLVBlock, keySet(known))
		var again []byte
		var seen keySet
		for r.next() {
			switch {
			case !keySet(known).has(r.key):
				t.Errorf("key %d is not among %x", r.key, known)
			case seen>>r.key != 0:
				t.Errorf("key %d after %x", r.key, seen)
			case !bytes.Equal(appendTLV(nil, r.key, r.value), block[r.start:r.end]):
				t.Errorf("entry %x is not %x", appendTLV(nil, r.key, r.value), block[r.start:r.end])
			}
			seen |= keys(r.key)
			again = appendTLV(again, r.key, r.value)
		}
		if r.err != nil {
			soundFault(t, r.err)
			return
		}
		if seen != r.seen || r.require(seen) != nil || (seen != keySet(known) && r.require(keySet(known)) == nil) {
			t.Errorf("saw %x of %x, the reader says %x", seen, known, r.seen)
		}
		if len(again) > len(block) || keySet(known) == ^keySet(0) && len(again) == len(block) && !bytes.Equal(again, block) {
			t.Errorf("%x was read as %x", block, again)
		}
	})
}

// FuzzPaddingPolicy reads READY's policy: what is read is within its bounds, and there is
// one way to write it.
func FuzzPaddingPolicy(f *testing.F) {
	for _, v := range load[frameVector](f, "padding.json") {
		if frame, _, err := ConsumeFrame(v.Hex); err == nil && frame.Type == TypeReady {
			for r := readTLVs(frame.Payload, MaxTLVBlock, keys(keyPaddingPolicy)|^keySet(0)); r.next(); {
				if r.key == keyPaddingPolicy {
					f.Add(r.value)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, block []byte) {
		checkAllocation(t, "padding policy", len(block), func() { _, _ = parsePaddingPolicy(block) })
		p, err := parsePaddingPolicy(block)
		if err != nil {
			soundFault(t, err)
			return
		}
		if err := p.Check(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
		again, err := parsePaddingPolicy(p.block())
		if err != nil || !reflect.DeepEqual(p, again) {
			t.Errorf("%+v comes off the wire as %+v, %v", p, again, err)
		}
	})
}
