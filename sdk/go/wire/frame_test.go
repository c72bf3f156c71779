package wire

import (
	"bytes"
	"errors"
	"math"
	"net/netip"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

func TestEveryPrefixOfAFrameIsAnError(t *testing.T) {
	for _, v := range loadFrames(t) {
		if v.Error != "" {
			continue
		}
		for n := range v.Hex {
			if f, _, err := ConsumeFrame(v.Hex[:n]); err == nil {
				t.Errorf("%s: the first %d bytes are a %s", v.Name, n, f.Type)
			} else if fault, ok := errors.AsType[*Error](err); !ok || fault.Code != CodeProtocol {
				t.Errorf("%s: the first %d bytes: %v, want protocol", v.Name, n, err)
			}
		}
	}
}

// A payload whose end is missing, in a frame that is whole, is an error
// (protocol) or the shorter frame that its bytes spell: DATA with fewer bytes,
// CLOSE with a shorter reason, a TLV block with fewer entries.
func TestEveryPrefixOfAPayloadIsAnErrorOrAShorterFrame(t *testing.T) {
	const most = 600 // what varies in the vectors comes before
	for _, v := range loadFrames(t) {
		if v.Error != "" || v.Dropped {
			continue
		}
		whole, _, err := ConsumeFrame(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		for n := range min(len(whole.Payload), most) {
			cut := AppendFrame(nil, whole.Type, whole.Stream, whole.Payload[:n])
			f, _, err := ConsumeFrame(cut)
			var j frameJSON
			if err == nil {
				j, err = decode(f, v.Kind)
			}
			if err != nil {
				if fault, ok := errors.AsType[*Error](err); !ok || fault.Code != CodeProtocol || fault.StreamOnly {
					t.Errorf("%s: %d bytes of payload: %v, want protocol", v.Name, n, err)
				}
				continue
			}
			if again := encode(t, j, v.Kind); !v.DecodeOnly && !bytes.Equal(again, cut) {
				t.Errorf("%s: %d bytes of payload are read as %x", v.Name, n, again)
			}
		}
	}
}

func TestNumbersSurviveTheRoundTrip(t *testing.T) {
	check := func(v uint64) {
		t.Helper()
		b := AppendVarint([]byte("x"), v)
		if len(b)-1 != SizeVarint(v) {
			t.Errorf("%d takes %d bytes, SizeVarint says %d", v, len(b)-1, SizeVarint(v))
		}
		got, n, err := ConsumeVarint(append(b[1:], 0xff))
		if got != v || n != len(b)-1 || err != nil {
			t.Errorf("%d came back as %d, %d bytes, %v", v, got, n, err)
		}
	}
	for shift := range 53 {
		for _, near := range []uint64{0, 1, 2} {
			if v := uint64(1)<<shift - 1 + near; v <= MaxVarint {
				check(v)
			}
		}
	}
	check(MaxVarint)
}

func TestNumberOverTheLimitIsWrittenAsTheLimit(t *testing.T) {
	for _, v := range []uint64{MaxVarint + 1, 1 << 62, math.MaxUint64} {
		b := AppendVarint(nil, v)
		if got, n, err := ConsumeVarint(b); got != MaxVarint || n != 8 || err != nil {
			t.Errorf("%d is read as %d, %d bytes, %v", v, got, n, err)
		}
	}
}

func TestHeaderFitsMaxHeader(t *testing.T) {
	if n := len(AppendFrameHeader(nil, TypeData, MaxVarint, MaxFramePayload)); n != MaxHeader {
		t.Errorf("the longest header has %d bytes, MaxHeader is %d", n, MaxHeader)
	}
}

func TestPayloadCannotGrowIntoTheNextFrame(t *testing.T) {
	msg := AppendData(AppendData(nil, 1, []byte("ab")), 1, []byte("cd"))
	f, rest, err := ConsumeFrame(msg)
	if err != nil {
		t.Fatal(err)
	}
	_ = append(f.Payload, "overwritten"...)
	if next, _, err := ConsumeFrame(rest); err != nil || string(next.Payload) != "cd" {
		t.Errorf("the next frame is %+v, %v", next, err)
	}
}

func TestFramesStopsWhenTold(t *testing.T) {
	msg := bytes.Repeat([]byte{0, 0}, 3)
	seen := 0
	for _, err := range Frames(msg) {
		if err != nil {
			t.Fatal(err)
		}
		seen++
		if seen == 2 {
			break
		}
	}
	if seen != 2 {
		t.Errorf("saw %d frames", seen)
	}
}

func TestCloseReasonIsCutToWhatIsAllowed(t *testing.T) {
	for name, tc := range map[string]struct{ reason, want string }{
		"short":                           {"bye", "bye"},
		"exactly the limit":               {strings.Repeat("x", 128), strings.Repeat("x", 128)},
		"one over the limit":              {strings.Repeat("x", 129), strings.Repeat("x", 128)},
		"a rune across the limit":         {strings.Repeat("x", 127) + "ü", strings.Repeat("x", 127)},
		"a longer rune across the limit":  {strings.Repeat("x", 125) + "\U0001f600x", strings.Repeat("x", 125)},
		"not UTF-8":                       {"a\xff\xfeb", "a\uFFFDb"},
		"not UTF-8 and longer once it is": {strings.Repeat("\xffx", 64), strings.Repeat("\uFFFDx", 32)},
	} {
		t.Run(name, func(t *testing.T) {
			f, _, err := ConsumeFrame(AppendClose(nil, Close{CodeShutdown, tc.reason}))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := ParseClose(f.Payload); err != nil || got != (Close{CodeShutdown, tc.want}) {
				t.Errorf("came out as %q, %v, want %q", got.Reason, err, tc.want)
			}
		})
	}
}

func TestRetryAfterKeepsItsMeaning(t *testing.T) {
	const longest = math.MaxInt64 / time.Millisecond * time.Millisecond
	for name, tc := range map[string]struct{ send, want time.Duration }{
		"never":                       {0, 0},
		"negative is never":           {-time.Second, 0},
		"a nanosecond is not never":   {1, time.Millisecond},
		"a millisecond":               {time.Millisecond, time.Millisecond},
		"between milliseconds":        {time.Millisecond + 1, 2 * time.Millisecond},
		"the longest on milliseconds": {longest, longest},
		"the longest":                 {math.MaxInt64, longest},
	} {
		t.Run(name, func(t *testing.T) {
			f, _, err := ConsumeFrame(AppendReject(nil, Reject{Code: CodeRetryLater, RetryAfter: tc.send}))
			if err != nil {
				t.Fatal(err)
			}
			if got, err := ParseReject(f.Payload); err != nil || got != (Reject{Code: CodeRetryLater, RetryAfter: tc.want}) {
				t.Errorf("came out as %+v, %v, want %v", got, err, tc.want)
			}
		})
	}
	if got, err := ParseReject(AppendVarint([]byte{20}, MaxVarint)); err != nil || got.RetryAfter != longest {
		t.Errorf("2^53-1 ms came out as %v, %v, want %v", got.RetryAfter, err, longest)
	}
}

func TestTimesBeforeUnixTimeAreWrittenAsZero(t *testing.T) {
	f, _, err := ConsumeFrame(AppendChallenge(nil, Challenge{Time: time.Unix(-1, 0)}))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseChallenge(f.Payload); err != nil || !got.Time.Equal(time.Unix(0, 0)) {
		t.Errorf("came out as %v, %v", got.Time, err)
	}
}

func TestNoDeadlineIsTheZeroTime(t *testing.T) {
	for _, deadline := range []time.Time{{}, time.UnixMilli(1).UTC(), time.UnixMilli(MaxVarint).UTC()} {
		f, _, err := ConsumeFrame(AppendReady(nil, Ready{Limits: DefaultLimits(), Deadline: deadline}))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := ParseReady(f.Payload); err != nil || got.Deadline != deadline || got.Limits != DefaultLimits() {
			t.Errorf("%v came out as %+v, %v", deadline, got, err)
		}
	}
}

func TestSilenceKeepsItsMeaning(t *testing.T) {
	const longest = math.MaxInt64 / time.Millisecond * time.Millisecond
	for name, tc := range map[string]struct{ tell, want time.Duration }{
		"the least":               {MinSilence, MinSilence},
		"between milliseconds":    {MinSilence + time.Millisecond - 1, MinSilence},
		"the longest there is":    {math.MaxInt64, longest},
		"below the least":         {MinSilence - 1, 0},
		"none":                    {0, 0},
		"negative counts as none": {math.MinInt64, 0},
	} {
		t.Run(name, func(t *testing.T) {
			limits := DefaultLimits()
			limits.Silence = tc.tell
			f, _, err := ConsumeFrame(AppendReady(nil, Ready{Limits: limits}))
			if err != nil {
				t.Fatal(err)
			}
			got, err := ParseReady(f.Payload)
			if fault, ok := errors.AsType[*Error](err); tc.want == 0 && (!ok || fault.Code != CodeProtocol) {
				t.Errorf("error = %v, want protocol", err)
			}
			if tc.want != 0 && (err != nil || got.Limits.Silence != tc.want) {
				t.Errorf("came out as %v, %v, want %v", got.Limits.Silence, err, tc.want)
			}
		})
	}
	var limits []byte
	for key := uint64(keyMaxStreams); key <= keySilence; key += 2 {
		limits = appendTLVNumber(limits, key, MaxVarint)
	}
	if got, err := parseLimits(limits); err != nil || got.Silence != longest {
		t.Errorf("2^53-1 ms came out as %v, %v, want %v", got.Silence, err, longest)
	}
}

func TestCapabilitiesAreASet(t *testing.T) {
	s := Capabilities(0).With(Resume).With(Padding).With(Terms).With(Drain).With(ChannelBinding).With(63).With(64).With(MaxVarint)
	for c, want := range map[Capability]bool{0: false, Resume: true, Padding: true, Terms: true, Drain: true, ChannelBinding: true, 63: true, 64: false, MaxVarint: false} {
		if s.Has(c) != want {
			t.Errorf("Has(%d) = %t, want %t", c, s.Has(c), want)
		}
	}
	if !KnownCapabilities.In(s) || s.In(KnownCapabilities) || !Capabilities(0).In(0) {
		t.Error("In does not mean subset")
	}
	all := ^Capabilities(0)
	f, _, err := ConsumeFrame(AppendChallenge(nil, Challenge{Capabilities: all}))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseChallenge(f.Payload); err != nil || got.Capabilities != all {
		t.Errorf("all capabilities came out as %x, %v", got.Capabilities, err)
	}
}

func TestHelloMayNotWantWhatNobodyCanOffer(t *testing.T) {
	h := Hello{AccessToken: "a"}
	block := appendTLV(nil, keyCapabilities, []byte{5, 0x40, 0x64})
	_, err := ParseHello(append(block, h.block(true)...))
	if fault, ok := errors.AsType[*Error](err); !ok || fault.Code != CodeProtocol {
		t.Errorf("error = %v, want protocol", err)
	}
}

func TestHelloKeepsNothingOfItsInput(t *testing.T) {
	h := Hello{AccessToken: "token", Agent: "agent/1"}
	payload := h.block(true)
	got, err := ParseHello(payload)
	if err != nil {
		t.Fatal(err)
	}
	want := got.SigningInput([32]byte{}, "h", nil)
	clear(payload)
	if got.AccessToken != "token" || got.Agent != "agent/1" || !bytes.Equal(got.SigningInput([32]byte{}, "h", nil), want) {
		t.Errorf("changed with its input: %+v", got)
	}
}

func TestKindsHaveNames(t *testing.T) {
	for k, want := range map[Kind]string{KindTCP: "tcp", KindUDP: "udp", KindUDPAny: "udp_any", 0: "kind_0", 9: "kind_9"} {
		if k.String() != want || k.Known() != !strings.HasPrefix(want, "kind_") {
			t.Errorf("%d: %q, Known = %t, want %q", k, k, k.Known(), want)
		}
		if k.Flow() != strings.HasPrefix(want, "udp") {
			t.Errorf("%s: Flow = %t", k, k.Flow())
		}
	}
}

func TestErrorTextsFitCloseAndNameTheFrame(t *testing.T) {
	for _, v := range loadFrames(t) {
		f, _, err := ConsumeFrame(v.Hex)
		if err == nil {
			_, err = decode(f, v.Kind)
		}
		fault, ok := errors.AsType[*Error](err)
		if !ok {
			continue
		}
		if len(fault.What) > MaxReason || !utf8.ValidString(fault.What) {
			t.Errorf("%s: %q does not fit a CLOSE", v.Name, fault.What)
		}
		if len(v.Hex) > 0 && !strings.Contains(fault.What, FrameType(v.Hex[0]).String()) {
			t.Errorf("%s: %q does not name the frame", v.Name, fault.What)
		}
	}
}

func TestErrorSaysWhatAndWhere(t *testing.T) {
	for want, payload := range map[string][]byte{
		"OPEN: recv_window: varint not in its shortest form": {1, 0, 0x40, 5},
		"OPEN: address: unknown type":                        {1, 0, 0, 9},
		"OPEN: flags not 0":                                  {1, 1},
		"OPEN: address: port 0":                              {1, 0, 0, 1, 192, 0, 2, 1, 0, 0, 0},
	} {
		if _, err := ParseOpen(payload); err == nil || err.Error() != want {
			t.Errorf("error = %v, want %s", err, want)
		}
	}
}

// TestHotPathsDoNotAllocate covers what happens for every DATA, DGRAM, CREDIT and
// PING. A datagram to a name is not among them: its name has to live somewhere.
func TestHotPathsDoNotAllocate(t *testing.T) {
	buf := make([]byte, 0, MaxMessage)
	data := make([]byte, DataPayload)
	msg := AppendData(AppendData(nil, 1, data), 3, data[:100])
	msg = AppendPing(AppendCredit(msg, 1, 1<<20), [8]byte{1})
	credit := AppendVarint(nil, 1<<20)
	opened := []byte{5, 0}
	v4 := Dgram{Peer: Addr{IP: netip.MustParseAddr("192.0.2.53"), Port: 53}, Data: data[:1200]}
	v6 := Dgram{Peer: Addr{IP: netip.MustParseAddr("2001:db8::35"), Port: 53}, Data: data[:1200]}
	to4 := append(AppendAddr(nil, v4.Peer), v4.Data...)
	to6 := append(AppendAddr(nil, v6.Peer), v6.Data...)
	toPort0 := AppendAddr(nil, Addr{IP: v4.Peer.IP})

	for name, f := range map[string]func(){
		"append": func() {
			b := AppendData(buf[:0], 1, data)
			b = AppendFin(b, 1, nil)
			b = AppendCredit(b, 1, 1<<20)
			b = AppendPong(AppendPing(b, [8]byte{}), [8]byte{})
			b = AppendReset(AppendStop(b, 1, CodeCancelled), 1, CodeIdle)
			_ = AppendOpened(b, 1, Opened{RecvWindow: 1 << 20})
		},
		"append OPEN": func() {
			_ = AppendOpen(buf[:0], 1, Open{Kind: KindTCP, RecvWindow: 1 << 18, Target: Addr{Name: "example.com", Port: 80}})
		},
		"append DGRAM": func() {
			b := AppendDgram(buf[:0], 1, KindUDP, v4)
			b = AppendDgram(b, 1, KindUDPAny, v4)
			_ = AppendDgram(b, 1, KindUDPAny, v6)
		},
		"append PAD": func() {
			_ = AppendPad(AppendPad(buf[:0], 40), 1400)
		},
		"ParseDgram": func() {
			_, _ = ParseDgram(KindUDP, data)
			_, _ = ParseDgram(KindUDPAny, to4)
			_, _ = ParseDgram(KindUDPAny, to6)
		},
		"ParseDgram of what is dropped": func() {
			_, _ = ParseDgram(KindUDPAny, toPort0)
		},
		"ConsumeFrame": func() {
			for rest := msg; len(rest) > 0; {
				_, rest, _ = ConsumeFrame(rest)
			}
		},
		"Frames": func() {
			n := 0
			for f, err := range Frames(msg) {
				if err != nil || !f.Type.Known() {
					panic("not the message that was written")
				}
				n += len(f.Payload)
			}
		},
		"payloads": func() {
			_, _ = ParseCredit(credit)
			_, _ = ParsePing(msg[:8])
			_, _ = ParseOpened(opened)
			_, _ = ParseReset(credit)
		},
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
