package mux_test

import (
	"bytes"
	"fmt"
	"io"
	"testing"
	"testing/synctest"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// The tests in this file are the rules of docs/03-httvps-protocol.md, one each,
// with the code that breaking them has.

// frame builds a frame byte by byte, so that a test can get it wrong.
func frame(kind wire.FrameType, stream uint64, payload ...byte) []byte {
	return wire.AppendFrame(nil, kind, stream, payload)
}

func join(frames ...[]byte) []byte { return bytes.Join(frames, nil) }

func TestBrokenRulesEndTheSession(t *testing.T) {
	opened := wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 1 << 20})
	for name, tc := range map[string]struct {
		role mux.Role
		send []byte // to a client that has sent OPEN 1, or to a gateway
		want wire.Code
	}{
		"a varint that is not the shortest":           {mux.Gateway, []byte{0xe4, 0x40, 0x01, 0x01, 0x05}, wire.CodeProtocol},
		"a frame over the end of its message":         {mux.Gateway, []byte{0x01, 0x08, 1, 2, 3}, wire.CodeProtocol},
		"an empty message":                            {mux.Gateway, nil, wire.CodeProtocol},
		"a frame over 16,383 bytes":                   {mux.Gateway, join([]byte{0x00, 0x80, 0x00, 0x40, 0x00}, make([]byte, 16384)), wire.CodeFrameSize},
		"an unknown critical type":                    {mux.Gateway, frame(0x3e, 0), wire.CodeUnsupported},
		"a reserved type before its capability":       {mux.Gateway, frame(0x60, 0), wire.CodeUnsupported},
		"HELLO after the handshake":                   {mux.Gateway, frame(wire.TypeHello, 0), wire.CodeProtocol},
		"READY after the handshake":                   {mux.Client, frame(wire.TypeReady, 0), wire.CodeProtocol},
		"CHALLENGE after the handshake":               {mux.Client, frame(wire.TypeChallenge, 0), wire.CodeProtocol},
		"REJECT after the handshake":                  {mux.Client, frame(wire.TypeReject, 0), wire.CodeProtocol},
		"OPEN from the gateway":                       {mux.Client, appendOpen(3, ""), wire.CodeProtocol},
		"OPENED from the client":                      {mux.Gateway, join(appendOpen(1, ""), opened), wire.CodeProtocol},
		"an even id":                                  {mux.Gateway, []byte{0xe2, 0x02, 0x01, 0x00}, wire.CodeProtocol},
		"id 0":                                        {mux.Gateway, []byte{0xe2, 0x00, 0x01, 0x00}, wire.CodeProtocol},
		"OPEN with an old id":                         {mux.Gateway, join(appendOpen(3, ""), appendOpen(1, "")), wire.CodeProtocol},
		"OPEN with an id twice":                       {mux.Gateway, join(appendOpen(1, ""), appendOpen(1, "")), wire.CodeProtocol},
		"DATA above every OPEN":                       {mux.Gateway, join(appendOpen(1, ""), wire.AppendData(nil, 3, []byte("x"))), wire.CodeProtocol},
		"RESET above every OPEN":                      {mux.Client, wire.AppendReset(nil, 3, wire.CodeRefused), wire.CodeProtocol},
		"second OPENED":                               {mux.Client, join(opened, opened), wire.CodeProtocol},
		"DATA before OPENED from the gateway":         {mux.Client, wire.AppendData(nil, 1, []byte("x")), wire.CodeProtocol},
		"FIN before OPENED from the gateway":          {mux.Client, wire.AppendFin(nil, 1, nil), wire.CodeProtocol},
		"CREDIT before OPENED from the gateway":       {mux.Client, wire.AppendCredit(nil, 1, 1<<20), wire.CodeProtocol},
		"OPENED below early_window":                   {mux.Client, wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 5}), wire.CodeProtocol},
		"OPENED with flags":                           {mux.Client, frame(wire.TypeOpened, 1, 0x80, 0x10, 0, 0, 1), wire.CodeProtocol},
		"DATA without bytes":                          {mux.Gateway, join(appendOpen(1, ""), frame(wire.TypeData, 1)), wire.CodeProtocol},
		"DATA without bytes on an ended stream":       {mux.Gateway, join(appendOpen(1, ""), wire.AppendReset(nil, 1, 0), frame(wire.TypeData, 1)), wire.CodeProtocol},
		"DATA after FIN":                              {mux.Gateway, join(appendOpen(1, ""), wire.AppendFin(nil, 1, nil), wire.AppendData(nil, 1, []byte("x"))), wire.CodeProtocol},
		"FIN after FIN":                               {mux.Gateway, join(appendOpen(1, ""), wire.AppendFin(nil, 1, nil), wire.AppendFin(nil, 1, nil)), wire.CodeProtocol},
		"OPEN with flags":                             {mux.Gateway, frame(wire.TypeOpen, 1, 1, 1, 0, 1, 192, 0, 2, 1, 0, 80, 0), wire.CodeProtocol},
		"OPEN with an unknown even TLV":               {mux.Gateway, frame(wire.TypeOpen, 1, 1, 0, 0, 1, 192, 0, 2, 1, 0, 80, 2, 2, 0), wire.CodeUnsupported},
		"OPEN with a malformed address":               {mux.Gateway, frame(wire.TypeOpen, 1, 1, 0, 0, 7, 192, 0, 2, 1, 0, 80, 0), wire.CodeProtocol},
		"early data over early_window":                {mux.Gateway, join(appendOpen(1, string(make([]byte, 16000))), wire.AppendData(nil, 1, make([]byte, 16000)), wire.AppendData(nil, 1, make([]byte, 769))), wire.CodeFlowControl},
		"PING of the wrong size":                      {mux.Gateway, frame(wire.TypePing, 0, 1, 2, 3), wire.CodeProtocol},
		"CREDIT with bytes left over":                 {mux.Gateway, join(appendOpen(1, ""), frame(wire.TypeCredit, 1, 1, 1)), wire.CodeProtocol},
		"CLOSE with a reason that is not UTF-8":       {mux.Gateway, frame(wire.TypeClose, 0, 1, 0xff), wire.CodeProtocol},
		"CLOSE with a reason over 128 bytes":          {mux.Gateway, frame(wire.TypeClose, 0, append([]byte{1}, bytes.Repeat([]byte("a"), 129)...)...), wire.CodeProtocol},
		"RESET without a code":                        {mux.Gateway, join(appendOpen(1, ""), frame(wire.TypeReset, 1)), wire.CodeProtocol},
		"malformed STOP on a stream that has ended":   {mux.Gateway, join(appendOpen(1, ""), wire.AppendReset(nil, 1, 0), frame(wire.TypeStop, 1)), wire.CodeProtocol},
		"a good frame before the bad does not matter": {mux.Gateway, join(wire.AppendPing(nil, [8]byte{}), frame(0x3f, 0)), wire.CodeUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, peer := scripted(t, tc.role, wire.DefaultLimits())
				if tc.role == mux.Client {
					go func() { _, _ = s.Open(t.Context(), target) }() // the session's end ends it
					peer.WantOpen(1)
				}
				peer.Send(tc.send)
				peer.WantClose(tc.want)
			})
		})
	}
}

// conversation is a session with its stream 1 open, whichever end it is, and the
// peer that has heard of it.
type conversation struct {
	*testing.T

	s      *mux.Session
	st     *mux.Stream
	peer   *muxtest.Peer
	window uint64 // what the peer may send on stream 1
}

// converse runs f against both ends of the protocol.
func converse(t *testing.T, f func(c conversation)) {
	t.Helper()
	for name, role := range map[string]mux.Role{"client": mux.Client, "gateway": mux.Gateway} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(beginConversation(t, role)) })
		})
	}
}

func beginConversation(t *testing.T, role mux.Role) conversation {
	t.Helper()
	s, peer := scripted(t, role, wire.DefaultLimits())
	c := conversation{T: t, s: s, peer: peer}
	if role == mux.Gateway {
		peer.Send(appendOpen(1, ""))
		c.st = mustAccept(t, s)
		if err := c.st.Confirm(); err != nil {
			t.Fatal(err)
		}
		c.window = peer.WantOpened(1).RecvWindow
		return c
	}
	opened := make(chan *mux.Stream, 1)
	go func() {
		st, err := s.Open(t.Context(), target)
		if err != nil {
			t.Error(err)
		}
		opened <- st
	}()
	c.window = peer.WantOpen(1).RecvWindow
	peer.Send(wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 1 << 16}))
	c.st = <-opened
	return c
}

func mustAccept(t *testing.T, s *mux.Session) *mux.Stream {
	t.Helper()
	st, err := accept(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	return st
}

// wantAlive checks that the session answers and has nothing else to say.
func (c conversation) wantAlive() {
	c.peer.Send(wire.AppendPing(nil, [8]byte{1, 2, 3}))
	c.peer.Want(wire.TypePong, 0)
	c.peer.WantQuiet()
}

// paths are the ways that a DATA or FIN takes through the reader: alone in its
// message, or with others.
var paths = map[string]func(f []byte) []byte{
	"alone":  func(f []byte) []byte { return f },
	"behind": func(f []byte) []byte { return join(frame(wire.TypePad, 0), f) },
	"before": func(f []byte) []byte { return join(f, frame(wire.TypePad, 0)) },
}

// However long DATA and FIN are, and however they come, they are judged alike.
func TestDataIsJudgedAlikeAloneAndAmongOthers(t *testing.T) {
	type kind struct {
		name  string
		build func(dst []byte, stream uint64, p []byte) []byte
	}
	for name, tc := range map[string]struct {
		before func(c conversation)
		stream uint64
		want   wire.Code // no_error: the frame is ignored
	}{
		"after FIN": {
			before: func(c conversation) { c.peer.Send(wire.AppendFin(nil, 1, nil)) },
			stream: 1, want: wire.CodeProtocol,
		},
		"one byte beyond the credit": {
			before: func(c conversation) {
				for left := c.window - 1; left > 0; {
					n := min(left, 16000)
					c.peer.Send(wire.AppendData(nil, 1, make([]byte, n)))
					left -= n
				}
			},
			stream: 1, want: wire.CodeFlowControl,
		},
		"for a stream that was never opened": {stream: 3, want: wire.CodeProtocol},
		"for an even id":                     {stream: 2, want: wire.CodeProtocol},
		"for a flow": {
			before: func(c conversation) {
				t := c.T
				if c.s.Role() == mux.Client {
					if _, err := c.s.OpenFlow(t.Context(), wire.KindUDP, target); err != nil {
						t.Fatal(err)
					}
					c.peer.WantOpen(3)
					return
				}
				c.peer.Send(wire.AppendOpen(nil, 3, wire.Open{Kind: wire.KindUDP, Target: target}))
			},
			stream: 3, want: wire.CodeProtocol,
		},
		"after RESET was sent": {
			before: func(c conversation) {
				c.st.Reset(wire.CodeCancelled)
				c.peer.WantReset(1, wire.CodeCancelled)
			},
			stream: 1,
		},
		"after STOP was sent": {
			before: func(c conversation) {
				_ = c.st.CloseRead()
				c.peer.WantStop(1, wire.CodeCancelled)
			},
			stream: 1,
		},
	} {
		for _, k := range []kind{{"DATA", wire.AppendData}, {"FIN", wire.AppendFin}} {
			for path, wrap := range paths {
				for _, size := range []int{2, 300, 16000} {
					t.Run(fmt.Sprintf("%s %s, %d bytes, %s", k.name, name, size, path), func(t *testing.T) {
						converse(t, func(c conversation) {
							if tc.before != nil {
								tc.before(c)
							}
							c.peer.Send(wrap(k.build(nil, tc.stream, make([]byte, size))))
							if tc.want != wire.CodeNoError {
								c.peer.WantClose(tc.want)
								return
							}
							c.wantAlive()
						})
					})
				}
			}
		}
	}
}

func TestDataBeforeOpenedIsJudgedAlikeAloneAndAmongOthers(t *testing.T) {
	for path, wrap := range paths {
		for name, build := range map[string]func([]byte, uint64, []byte) []byte{"DATA": wire.AppendData, "FIN": wire.AppendFin} {
			t.Run(name+" "+path, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					client, peer := scripted(t, mux.Client, wire.DefaultLimits())
					go func() { _, _ = client.Open(t.Context(), target) }()
					peer.WantOpen(1)
					peer.Send(wrap(build(nil, 1, make([]byte, 300))))
					peer.WantClose(wire.CodeProtocol)
				})
			})
		}
	}
}

// Bytes arrive whole and in order whatever messages they came in.
func TestBytesComeInOrderOnEveryPath(t *testing.T) {
	converse(t, func(c conversation) {
		t := c.T
		var want []byte
		sizes := []int{1, 300, 16383, 255, 256, 257, 5, 4000, 2, 16000, 3}
		for i, size := range sizes {
			p := bytes.Repeat([]byte{byte('a' + i)}, size)
			want = append(want, p...)
			wrap := []func([]byte) []byte{paths["alone"], paths["behind"], paths["before"]}[i%3]
			build := wire.AppendData
			if i == len(sizes)-1 {
				build = wire.AppendFin
			}
			c.peer.Send(wrap(build(nil, 1, p)))
		}
		got, err := io.ReadAll(c.st)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("read %d bytes of %d, %v, or others", len(got), len(want), err)
		}
	})
}

func TestUnknownFramesThatAreNotCriticalAreSkipped(t *testing.T) {
	for _, kind := range []wire.FrameType{0x1f, 0x5f, 0x9f, 0xdf, 0x04, 0x41, 0x81, 0xc1} {
		for _, role := range []mux.Role{mux.Client, mux.Gateway} {
			synctest.Test(t, func(t *testing.T) {
				_, peer := scripted(t, role, wire.DefaultLimits())
				stream := uint64(0)
				if kind.StreamScoped() {
					stream = 99
				}
				peer.Send(frame(kind, stream, 1, 2, 3), frame(wire.TypePad, 0, 4), wire.AppendPing(nil, [8]byte{7}))
				if got := peer.Want(wire.TypePong, 0); got[0] != 7 {
					t.Errorf("after type %#02x: PONG %x", byte(kind), got)
				}
			})
		}
	}
}

func TestAtMostOnePongIsQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, peer := scripted(t, mux.Gateway, wire.DefaultLimits())
		var flood []byte
		for i := range 1000 {
			flood = wire.AppendPing(flood, [8]byte{byte(i), byte(i >> 8)})
		}
		peer.Send(flood)
		got := peer.Want(wire.TypePong, 0)
		for got[0] != 999&0xff || got[1] != 999>>8 {
			got = peer.Want(wire.TypePong, 0)
		}
		peer.WantQuiet()
	})
}
