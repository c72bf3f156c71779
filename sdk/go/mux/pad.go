package mux

import (
	"github.com/httvps/httvps/sdk/go/padding"
	"github.com/httvps/httvps/sdk/go/wire"
)

// pads makes messages longer, docs/03, part 8.6. Only who writes uses it.
type pads struct {
	shape *padding.Shape // nil: nothing is padded
	first int            // messages of the carrier that are still to be padded, if any
}

func newPads(policy *wire.PaddingPolicy) pads {
	if policy == nil {
		return pads{}
	}
	p := pads{shape: padding.New(*policy)}
	p.again()
	return p
}

// again has the first messages of another carrier padded. Nobody may be writing.
func (p *pads) again() {
	if p.shape != nil {
		p.first = p.shape.Messages()
	}
}

// early counts a frame of a stream and says whether it is among the first, whose messages
// are padded.
func (b *batch) early(left *padding.Frames) bool {
	return b.s.pads.shape != nil && b.s.pads.shape.Next(left)
}

// composed takes the message over with frames of a stream behind it, if there are any.
func (b *batch) composed(buf []byte, left *padding.Frames) {
	if len(buf) > len(b.buf) && b.early(left) {
		b.pad = true
	}
	b.buf = buf
}

// fits reports whether so many bytes of a stream leave the message short enough to be
// padded, so that they are copied into it: what is sent from where it is has no room behind.
func (b *batch) fits(id uint64, n int) bool {
	n += 1 + wire.SizeVarint(id) + wire.SizeVarint(uint64(n))
	return len(b.buf)-Headroom+n <= b.s.pads.shape.Longest() && n <= b.room()
}

// lengthen adds a PAD to the message where it is to have one.
func (b *batch) lengthen() {
	s := b.s
	wanted := b.pad || s.pads.first > 0
	b.pad = false
	if s.pads.shape == nil || !wanted || b.last {
		return
	}
	if n := s.pads.shape.Add(len(b.buf)-Headroom, cap(b.buf)-len(b.buf), s.sent.Load()+s.in.bytes.Load()); n > 0 {
		b.buf = wire.AppendPad(b.buf, n)
	}
}
