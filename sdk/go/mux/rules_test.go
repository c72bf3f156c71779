package mux_test

import (
	"bytes"
	"testing"
	"testing/synctest"

	"github.com/httvps/httvps/sdk/go/mux"
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
					go func() { _, _ = s.Open(t.Context(), wire.KindTCP, target) }() // the session's end ends it
					peer.WantOpen(1)
				}
				peer.Send(tc.send)
				peer.WantClose(tc.want)
			})
		})
	}
}

func TestOneByteBeyondTheCreditEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer := scripted(t, mux.Client, wire.DefaultLimits())
		go func() { _, _ = client.Open(t.Context(), wire.KindTCP, target) }()
		left := peer.WantOpen(1).RecvWindow
		peer.Send(wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 1 << 20}))
		for left > 0 {
			n := min(left, 16000)
			peer.Send(wire.AppendData(nil, 1, make([]byte, n)))
			left -= n
		}
		peer.WantQuiet()
		peer.Send(wire.AppendData(nil, 1, []byte("x")))
		peer.WantClose(wire.CodeFlowControl)
	})
}

func TestBrokenOpensEndOnlyTheirStream(t *testing.T) {
	limits := wire.DefaultLimits()
	limits.MaxStreams = 3
	for name, tc := range map[string]struct {
		payload []byte
		want    wire.Code
	}{
		"port 0":                         {[]byte{1, 0, 0, 1, 192, 0, 2, 1, 0, 0, 0}, wire.CodeRefused},
		"IPv4 mapped into IPv6":          {append(append([]byte{1, 0, 0, 4}, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1), 0, 80, 0), wire.CodeRefused},
		"a name that reads as a number":  {append(append([]byte{1, 0, 0, 3, 6}, "127.01"...), 0, 80, 0), wire.CodeRefused},
		"a name with an upper-case byte": {append(append([]byte{1, 0, 0, 3, 1}, "A"...), 0, 80, 0), wire.CodeRefused},
		"UDP where none is served":       {[]byte{2, 0, 0, 1, 192, 0, 2, 1, 0, 80, 0}, wire.CodeUnsupported},
		"UDP with any peer, likewise":    {[]byte{3, 0, 0, 1, 192, 0, 2, 1, 0, 80, 0}, wire.CodeUnsupported},
		"a kind that nobody knows":       {[]byte{9, 0, 0, 1, 192, 0, 2, 1, 0, 80, 0}, wire.CodeUnsupported},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, peer := scripted(t, mux.Gateway, limits)
				peer.Send(frame(wire.TypeOpen, 1, tc.payload...))
				peer.WantReset(1, tc.want)
				peer.Send(appendOpen(3, ""))
				st, err := s.Accept(t.Context())
				if err != nil || st.ID() != 3 {
					t.Errorf("the next OPEN: %v", err)
				}
			})
		})
	}
}

func TestOpenBeyondMaxStreamsIsReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams = 2
		_, peer := scripted(t, mux.Gateway, limits)
		peer.Send(appendOpen(1, ""), appendOpen(3, ""), appendOpen(5, ""))
		peer.WantReset(5, wire.CodeLimit)
		peer.Send(wire.AppendReset(nil, 1, wire.CodeCancelled), appendOpen(7, ""))
		peer.WantQuiet()
	})
}

func TestOpensBeyondTwiceTheRateAreReset(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.OpenBurst, limits.OpenRate = 4, 1
		_, peer := scripted(t, mux.Gateway, limits)
		for i := range uint64(8) {
			peer.Send(appendOpen(2*i+1, ""))
		}
		peer.WantQuiet()
		peer.Send(appendOpen(17, ""))
		peer.WantReset(17, wire.CodeEnhanceCalm)
	})
}

func TestOpensThatDoNotReadTheirRefusalsEndTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		limits := wire.DefaultLimits()
		limits.MaxStreams = 1
		s, peer := scripted(t, mux.Gateway, limits)
		for i := uint64(0); ; i++ {
			if i > 1<<20 {
				t.Fatal("a million refusals were queued")
			}
			var msg []byte
			for range 1000 {
				i++
				msg = append(msg, appendOpen(2*i+1, "")...)
			}
			if peer.TrySend(msg) != nil || s.Err() != nil {
				break
			}
		}
		peer.WantClose(wire.CodeEnhanceCalm)
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

func TestCreditIsAnOffsetThatNeverFalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer := scripted(t, mux.Client, wire.DefaultLimits())
		go func() {
			st, err := client.Open(t.Context(), wire.KindTCP, target)
			if err == nil {
				_, _ = st.Write(make([]byte, 50_000))
			}
		}()
		peer.WantOpen(1)
		peer.Send(wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 32768}))
		total := 0
		for total < 32768 {
			total += len(peer.Want(wire.TypeData, 1))
		}
		if total != 32768 {
			t.Fatalf("%d bytes came, 32768 were allowed", total)
		}
		peer.WantQuiet()
		peer.Send(wire.AppendCredit(nil, 1, 10), wire.AppendCredit(nil, 1, 32768), wire.AppendCredit(nil, 1, 32769))
		if n := len(peer.Want(wire.TypeData, 1)); n != 1 {
			t.Errorf("%d bytes on credit for one", n)
		}
		peer.Send(wire.AppendCredit(nil, 1, 32769))
		peer.WantQuiet()
	})
}

func TestCreditComesWhenAQuarterOfTheWindowIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer := scripted(t, mux.Client, wire.DefaultLimits())
		opened := make(chan *mux.Stream, 1)
		go func() {
			st, err := client.Open(t.Context(), wire.KindTCP, target)
			if err != nil {
				t.Error(err)
			}
			opened <- st
		}()
		window := peer.WantOpen(1).RecvWindow
		peer.Send(wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 1 << 20}))
		st := <-opened
		quarter := int(window / 4)
		for sent := 0; sent < quarter; {
			n := min(quarter-sent, 16000)
			peer.Send(wire.AppendData(nil, 1, make([]byte, n)))
			sent += n
			synctest.Wait()
		}
		buf := make([]byte, quarter)
		for read := 0; read < quarter-1; {
			n, err := st.Read(buf[read : quarter-1])
			if err != nil {
				t.Fatal(err)
			}
			read += n
		}
		peer.WantQuiet()
		if _, err := st.Read(buf[:1]); err != nil {
			t.Fatal(err)
		}
		offset, err := wire.ParseCredit(peer.Want(wire.TypeCredit, 1))
		if err != nil || offset != window+uint64(quarter) {
			t.Errorf("CREDIT(%d) %v, want %d", offset, err, window+uint64(quarter))
		}
	})
}
