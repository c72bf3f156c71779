package muxtest

import (
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"

	"github.com/httvps/httvps/sdk/go/wire"
)

// Peer is the other end of a session, played by a test frame by frame. Its
// methods fail the test. Use it inside synctest: a frame that never comes is
// then a deadlock that the test reports at once.
type Peer struct {
	tb    testing.TB
	end   *End
	rest  []wire.Frame
	pongs bool // PINGs are answered and not shown
	pads  bool // PADs are not shown
}

// NewPeer plays the other end of end's carrier.
func NewPeer(tb testing.TB, end *End) *Peer {
	tb.Helper()
	return &Peer{tb: tb, end: end}
}

// AnswerPings has the peer answer PINGs as soon as it meets them, from now on; its
// other methods do not show them.
func (p *Peer) AnswerPings() { p.pongs = true }

// IgnorePadding has the peer's other methods not show PADs, from now on.
func (p *Peer) IgnorePadding() { p.pads = true }

// Send sends the frames as one message.
func (p *Peer) Send(frames ...[]byte) {
	p.tb.Helper()
	var m []byte
	for _, f := range frames {
		m = append(m, f...)
	}
	if err := p.end.WriteMessage(m); err != nil {
		p.tb.Fatalf("peer: send: %v", err)
	}
}

// TrySend is Send for a peer that may find the carrier closed.
func (p *Peer) TrySend(frame []byte) error { return p.end.WriteMessage(frame) }

// Next waits for the next frame.
func (p *Peer) Next() wire.Frame {
	p.tb.Helper()
	f, err := p.next()
	if err != nil {
		p.tb.Fatalf("peer: wanted a frame, got %v", err)
	}
	return f
}

func (p *Peer) next() (wire.Frame, error) {
	for len(p.rest) == 0 {
		m, err := p.end.ReadMessage(nil)
		if err != nil {
			return wire.Frame{}, err
		}
		p.take(m)
	}
	f := p.rest[0]
	p.rest = p.rest[1:]
	return f, nil
}

// take keeps the frames of a message.
func (p *Peer) take(m []byte) {
	p.tb.Helper()
	if len(m) > wire.MaxMessage {
		p.tb.Fatalf("peer: message of %d bytes", len(m))
	}
	for f, err := range wire.Frames(m) {
		if err != nil {
			p.tb.Fatalf("peer: got a malformed message: %v", err)
		}
		if !p.answered(f) {
			p.rest = append(p.rest, f)
		}
	}
}

// answered answers a PING, if it is to, and says whether that was all there is to do
// about a frame.
func (p *Peer) answered(f wire.Frame) bool {
	if p.pads && f.Type == wire.TypePad {
		return true
	}
	if !p.pongs || f.Type != wire.TypePing {
		return false
	}
	_ = p.TrySend(wire.AppendFrame(nil, wire.TypePong, 0, f.Payload))
	return true
}

// Want waits for the next frame, which has to be of this type and stream (0
// for a frame of the session), and returns its payload.
func (p *Peer) Want(kind wire.FrameType, stream uint64) []byte {
	p.tb.Helper()
	f := p.Next()
	if f.Type != kind || f.Stream != stream {
		p.tb.Fatalf("peer: got %s for stream %d, want %s for %d", f.Type, f.Stream, kind, stream)
	}
	return f.Payload
}

// WantOpen waits for OPEN with this id.
func (p *Peer) WantOpen(stream uint64) wire.Open {
	p.tb.Helper()
	o, err := wire.ParseOpen(p.Want(wire.TypeOpen, stream))
	if err != nil {
		p.tb.Fatalf("peer: OPEN: %v", err)
	}
	return o
}

// WantOpened waits for OPENED.
func (p *Peer) WantOpened(stream uint64) wire.Opened {
	p.tb.Helper()
	o, err := wire.ParseOpened(p.Want(wire.TypeOpened, stream))
	if err != nil {
		p.tb.Fatalf("peer: OPENED: %v", err)
	}
	return o
}

// WantReset waits for RESET with this code.
func (p *Peer) WantReset(stream uint64, want wire.Code) {
	p.tb.Helper()
	got, err := wire.ParseReset(p.Want(wire.TypeReset, stream))
	if err != nil || got != want {
		p.tb.Fatalf("peer: RESET(%v) %v, want %v", got, err, want)
	}
}

// WantStop waits for STOP with this code.
func (p *Peer) WantStop(stream uint64, want wire.Code) {
	p.tb.Helper()
	got, err := wire.ParseStop(p.Want(wire.TypeStop, stream))
	if err != nil || got != want {
		p.tb.Fatalf("peer: STOP(%v) %v, want %v", got, err, want)
	}
}

// WantClose waits for CLOSE with this code, over whatever comes before it, and
// for the end of the carrier behind it.
func (p *Peer) WantClose(want wire.Code) {
	p.tb.Helper()
	for {
		f := p.Next()
		if f.Type != wire.TypeClose {
			continue
		}
		c, err := wire.ParseClose(f.Payload)
		if err != nil || c.Code != want {
			p.tb.Fatalf("peer: CLOSE(%v, %q) %v, want %v", c.Code, c.Reason, err, want)
		}
		break
	}
	p.WantHangUp()
}

// WantHangUp checks that nothing comes before the end of the carrier.
func (p *Peer) WantHangUp() {
	p.tb.Helper()
	if f, err := p.next(); err == nil {
		p.tb.Fatalf("peer: got %s, want the carrier's end", f.Type)
	} else if !errors.Is(err, io.EOF) && !errors.Is(err, net.ErrClosed) {
		p.tb.Fatalf("peer: wanted the carrier's end, got %v", err)
	}
}

// WantQuiet checks that nothing comes as long as the clock stands.
func (p *Peer) WantQuiet() {
	p.tb.Helper()
	synctest.Wait()
	if len(p.rest) > 0 {
		p.tb.Fatalf("peer: got %s, want nothing", p.rest[0].Type)
	}
	for p.end.arrived() {
		m, _ := p.end.ReadMessage(nil)
		for f, err := range wire.Frames(m) {
			if err != nil || !p.answered(f) {
				p.tb.Fatalf("peer: got %s for stream %d (%v), want nothing", f.Type, f.Stream, err)
			}
		}
		synctest.Wait()
	}
}

// Arrived says whether Next has a frame to return at once.
func (p *Peer) Arrived() bool { return len(p.rest) > 0 || p.end.arrived() }

// Drain throws away what has come, up to a CLOSE.
func (p *Peer) Drain() {
	p.tb.Helper()
	for {
		for len(p.rest) > 0 {
			if p.rest[0].Type == wire.TypeClose {
				return
			}
			p.rest = p.rest[1:]
		}
		synctest.Wait() // a writer may have waited for room
		if !p.end.arrived() {
			return
		}
		m, _ := p.end.ReadMessage(nil)
		p.take(m)
	}
}

// Close hangs up.
func (p *Peer) Close() { _ = p.end.Close() }
