package httvps

import (
	"io"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
)

// docs/03, part 8.3: a good carrier is replaced after 20 to 60 minutes or 0.5 to 2 GB,
// whichever way the bytes went, counted from the carrier before.
func TestAConnectionIsReplacedAfterHalfAGigabyteToTwo(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, b := muxtest.Pipe()
		client := mux.New(a, mux.Config{Role: mux.Client, Limits: wire.DefaultLimits()})
		gateway := mux.New(b, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits()})
		for _, s := range []*mux.Session{client, gateway} {
			ended := make(chan error, 1)
			go func() { ended <- s.Run(t.Context()) }()
			defer func() { s.Close(wire.CodeNoError, ""); <-ended }()
		}
		go func() {
			for {
				in, err := gateway.Accept(t.Context())
				if err != nil {
					return
				}
				_ = in.Stream.Confirm()
				go func() { _, _ = io.Copy(in.Stream, in.Stream) }()
			}
		}()
		st, err := client.Open(t.Context(), wire.Addr{Name: "example.com", Port: 80})
		if err != nil {
			t.Fatal(err)
		}
		move := func(n int) {
			t.Helper()
			if _, err := st.Write(make([]byte, n)); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(st, make([]byte, n)); err != nil {
				t.Fatal(err)
			}
		}
		move(100_000)
		stats := client.Stats()
		moved := stats.Sent + stats.Received
		var least, most uint64 = 1 << 62, 0
		for range 1000 {
			r := newRotation(client)
			if wait := time.Until(r.at); wait < 20*time.Minute || wait > 60*time.Minute {
				t.Fatalf("after %v", wait)
			}
			least, most = min(least, r.bytes-moved), max(most, r.bytes-moved)
		}
		if least < 500<<20 || least > 600<<20 || most > 2000<<20 || most < 1900<<20 {
			t.Errorf("after %d to %d MiB", least>>20, most>>20)
		}

		// The bytes of both directions count.
		r := newRotation(client)
		r.bytes = moved + 20_000
		move(9_000)
		if r.due() {
			t.Error("due after 18,000 bytes of 20,000")
		}
		move(1_000)
		if !r.due() {
			t.Error("not due after 20,000 bytes")
		}
		r = newRotation(client)
		<-time.After(time.Until(r.at) - time.Second)
		if r.due() {
			t.Error("due a second early")
		}
		<-time.After(time.Second)
		if !r.due() {
			t.Error("not due in time")
		}
	})
}
