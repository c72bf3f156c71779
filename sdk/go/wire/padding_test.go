package wire

import (
	"bytes"
	"strings"
	"testing"
)

func TestThePolicyOfADefaultGatewayIsAllowed(t *testing.T) {
	if err := DefaultPadding().Check(); err != nil {
		t.Error(err)
	}
}

func TestPoliciesAreJudgedBeforeTheyAreTold(t *testing.T) {
	for name, change := range map[string]func(*PaddingPolicy){
		"no messages":         func(p *PaddingPolicy) { p.Messages = 0 },
		"too many messages":   func(p *PaddingPolicy) { p.Messages = MaxPadMessages + 1 },
		"no sizes":            func(p *PaddingPolicy) { p.Sizes = nil },
		"too many sizes":      func(p *PaddingPolicy) { p.Sizes = make([]int, MaxPadSizes+1) },
		"a size that is low":  func(p *PaddingPolicy) { p.Sizes = []int{MinPadSize - 1} },
		"a size that is high": func(p *PaddingPolicy) { p.Sizes = []int{MaxPadSize + 1} },
		"sizes that descend":  func(p *PaddingPolicy) { p.Sizes = []int{512, 256} },
		"a size twice":        func(p *PaddingPolicy) { p.Sizes = []int{256, 256} },
		"a negative size":     func(p *PaddingPolicy) { p.Sizes = []int{-256} },
		"a negative spread":   func(p *PaddingPolicy) { p.Spread = -1 },
		"too wide a spread":   func(p *PaddingPolicy) { p.Spread = MaxPadSpread + 1 },
		"no share":            func(p *PaddingPolicy) { p.Share = 0 },
		"more than all":       func(p *PaddingPolicy) { p.Share = MaxPadShare + 1 },
	} {
		p := DefaultPadding()
		change(&p)
		if err := p.Check(); err == nil {
			t.Errorf("%s: no error", name)
		}
		if _, err := parsePaddingPolicy(p.block()); err == nil && p.Spread >= 0 { // there are no negative numbers on the wire
			t.Errorf("%s: read without an error", name)
		}
	}
}

// There is no frame of 1 byte and none of 66, so these become one more.
func TestAPadIsAsLongAsItIsAskedFor(t *testing.T) {
	for n := -1; n <= MaxFramePayload+10; n++ {
		want := n
		switch {
		case n < 2:
			want = 2
		case n == 66:
			want = 67
		case n > MaxFramePayload:
			want = MaxFramePayload
		}
		b := AppendPad([]byte{0xaa}, n)
		f, rest, err := ConsumeFrame(b[1:])
		if err != nil || len(rest) > 0 || f.Type != TypePad || len(b)-1 != want || b[0] != 0xaa {
			t.Fatalf("%d: a %v of %d bytes with %d behind it, %v", n, f.Type, len(b)-1, len(rest), err)
		}
		if bytes.ContainsFunc(f.Payload, func(r rune) bool { return r != 0 }) {
			t.Fatalf("%d: not zeros", n)
		}
	}
}

// However much padding is asked for, no frame gets too long by it.
func TestPaddingOfTheHandshakeIsBounded(t *testing.T) {
	longest := Hello{AccessToken: strings.Repeat("a", MaxToken), Agent: strings.Repeat("a", MaxAgent), Padding: 1 << 30}
	for _, b := range [][]byte{
		AppendChallenge(nil, Challenge{Padding: 1 << 30}), AppendHello(nil, longest), AppendReady(nil, Ready{Padding: 1 << 30}),
		AppendReject(nil, Reject{Padding: 1 << 30}), AppendResume(nil, Resumption{Padding: 1 << 30}), AppendResumed(nil, Resumed{Padding: 1 << 30}),
	} {
		if f, rest, err := ConsumeFrame(b); err != nil || len(rest) > 0 || len(f.Payload) > MaxHello || len(f.Payload) < MaxPadHandshake {
			t.Errorf("%v of %d bytes: %v", f.Type, len(f.Payload), err)
		}
	}
	for _, h := range []Hello{{}, {Padding: -1}} {
		if n := len(AppendHello(nil, h)); n != len(AppendHello(nil, Hello{})) {
			t.Errorf("a HELLO without padding has %d bytes", n)
		}
	}
}
