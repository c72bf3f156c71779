package mux_test

import (
	"testing"
	"testing/synctest"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

func TestOneByteBeyondTheCreditEndsTheSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer := scripted(t, mux.Client, wire.DefaultLimits())
		go func() { _, _ = client.Open(t.Context(), target) }()
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

func TestCreditIsAnOffsetThatNeverFalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer := scripted(t, mux.Client, wire.DefaultLimits())
		go func() {
			st, err := client.Open(t.Context(), target)
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

func TestCreditComesWhenHalfOfASmallWindowIsRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, peer := scripted(t, mux.Client, wire.DefaultLimits())
		opened := make(chan *mux.Stream, 1)
		go func() {
			st, err := client.Open(t.Context(), target)
			if err != nil {
				t.Error(err)
			}
			opened <- st
		}()
		window := peer.WantOpen(1).RecvWindow
		peer.Send(wire.AppendOpened(nil, 1, wire.Opened{RecvWindow: 1 << 20}))
		st := <-opened
		half := int(window / 2)
		for sent := 0; sent < half; {
			n := min(half-sent, 16000)
			peer.Send(wire.AppendData(nil, 1, make([]byte, n)))
			sent += n
			synctest.Wait()
		}
		buf := make([]byte, half)
		for read := 0; read < half-1; {
			n, err := st.Read(buf[read : half-1])
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
		if err != nil || offset != window+uint64(half) {
			t.Errorf("CREDIT(%d) %v, want %d", offset, err, window+uint64(half))
		}
	})
}
