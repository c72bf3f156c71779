package carrier_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"

	"github.com/httvps/httvps/sdk/go/carrier"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// tapped is a connection that notes what is written to it, and can get stuck. It
// is no socket of the system's.
type tapped struct {
	net.Conn
	mu     sync.Mutex
	writes []int
	stuck  chan struct{} // closed by Close: writes wait for it; nil: they do not
	begun  chan struct{} // closed by the first that waits
	once   sync.Once
}

func (c *tapped) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.writes = append(c.writes, len(p))
	stuck := c.stuck
	c.mu.Unlock()
	if stuck != nil {
		c.once.Do(func() { close(c.begun) })
		<-stuck
		return 0, net.ErrClosed
	}
	return c.Conn.Write(p)
}

func (c *tapped) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stuck != nil {
		select {
		case <-c.stuck:
		default:
			close(c.stuck)
		}
	}
	return c.Conn.Close()
}

// stick has the writes that come wait for the end.
func (c *tapped) stick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stuck, c.begun = make(chan struct{}), make(chan struct{})
}

// forget forgets the writes so far.
func (c *tapped) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.writes = nil
}

func (c *tapped) seen() []int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]int(nil), c.writes...)
}

// dialTapped dials with a tap below TLS.
func dialTapped(t *testing.T, url string, trust *tls.Config) (*carrier.Conn, *tapped) {
	t.Helper()
	var tap *tapped
	conn, err := carrier.Dial(t.Context(), url, carrier.DialOptions{TLS: trust, NetDial: func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		tap = &tapped{Conn: c}
		return tap, err
	}})
	if err != nil {
		t.Fatalf("Dial: %v", err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	tap.forget()
	return conn, tap
}

// reserved is a message with the space before it that a carrier wants.
func reserved(p []byte) []byte { return append(make([]byte, mux.Headroom), p...) }

func TestWhatIsHeldArrivesInOnePiece(t *testing.T) {
	url, trust := serve(t, echo)
	conn, tap := dialTapped(t, url, trust)
	var want []byte
	for i := range byte(4) {
		p := bytes.Repeat([]byte{i}, 16_000)
		want = append(want, p...)
		if err := conn.WriteReserved(reserved(p)); err != nil {
			t.Fatal(err)
		}
	}
	if writes := tap.seen(); len(writes) != 0 {
		t.Errorf("written before Flush: %v", writes)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if writes := tap.seen(); len(writes) != 1 {
		t.Errorf("written by Flush: %v", writes)
	}
	var got []byte
	for range 4 {
		p, err := conn.ReadMessage(nil)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, p...)
	}
	if !bytes.Equal(got, want) {
		t.Error("the messages came back changed")
	}
	if err := conn.Flush(); err != nil || len(tap.seen()) != 1 {
		t.Errorf("Flush of nothing: %v, %v", err, tap.seen())
	}
}

// No more is held than a batch: the rest leaves before Flush.
func TestMuchIsNotHeld(t *testing.T) {
	url, trust := serve(t, func(c *carrier.Conn) {
		var buf []byte
		for err := error(nil); err == nil; {
			buf, err = c.ReadMessage(buf)
		}
	})
	conn, tap := dialTapped(t, url, trust)
	for range 20 {
		if err := conn.WriteReserved(reserved(make([]byte, 60_000))); err != nil {
			t.Fatal(err)
		}
	}
	for _, n := range tap.seen() {
		if n > 80<<10 {
			t.Errorf("%d bytes in one write", n)
		}
	}
	if len(tap.seen()) < 10 {
		t.Errorf("written before Flush: %v", tap.seen())
	}
}

// soon runs f, which has to return within a second or so.
func soon(t *testing.T, f func()) {
	t.Helper()
	begin := time.Now()
	f()
	if took := time.Since(begin); took > 3*time.Second {
		t.Errorf("it took %v", took)
	}
}

func TestCloseWhileABatchIsHeldSendsIt(t *testing.T) {
	got := make(chan string, 1)
	url, trust := serve(t, func(c *carrier.Conn) {
		msg, _ := c.ReadMessage(nil)
		got <- string(msg)
	})
	conn, _ := dialTapped(t, url, trust)
	if err := conn.WriteReserved(reserved([]byte("held"))); err != nil {
		t.Fatal(err)
	}
	soon(t, func() { _ = conn.Close() })
	if msg := <-got; msg != "held" {
		t.Errorf("the other end read %q", msg)
	}
}

func TestCloseEndsAWriteThatIsStuck(t *testing.T) {
	url, trust := serve(t, echo)
	conn, tap := dialTapped(t, url, trust)
	tap.stick()
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := conn.WriteMessage([]byte("stuck")); err == nil {
			t.Error("written")
		}
	})
	<-tap.begun
	soon(t, func() { _ = conn.Close() })
	wg.Wait()
}

// A connection that takes nothing is left behind, though nothing is being written.
func TestCloseDoesNotWaitForAPeerThatReadsNothing(t *testing.T) {
	leave := make(chan struct{})
	url, trust := serve(t, func(*carrier.Conn) { <-leave })
	defer close(leave)
	conn := dial(t, url, trust)
	_ = conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	for conn.WriteMessage(make([]byte, 60_000)) == nil {
	}
	soon(t, func() { _ = conn.Close() })
}

// A write that was cut off is the last: what followed would be taken for the rest.
func TestNothingIsWrittenBehindACut(t *testing.T) {
	url, trust := serve(t, echo)
	conn, tap := dialTapped(t, url, trust)
	_ = conn.SetWriteDeadline(time.Now().Add(-time.Second))
	if err := conn.WriteMessage([]byte("late")); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("WriteMessage = %v", err)
	}
	_ = conn.SetWriteDeadline(time.Time{})
	n := len(tap.seen())
	if err := conn.WriteMessage([]byte("next")); err == nil {
		t.Error("written behind a message that was cut off")
	}
	_ = conn.Close()
	if writes := tap.seen(); len(writes) != n {
		t.Errorf("writes behind the cut: %v", writes[n:])
	}
}

// serveBare is serve without carrier.Listener below TLS.
func serveBare(t *testing.T, handle func(*carrier.Conn)) (string, *tls.Config) {
	t.Helper()
	var handlers sync.WaitGroup
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := carrier.Upgrade(w, r)
		if err != nil {
			t.Errorf("Upgrade: %v", err)
			return
		}
		handlers.Add(1)
		defer handlers.Done()
		defer func() { _ = conn.Close() }()
		handle(conn)
	}))
	srv.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	srv.StartTLS()
	t.Cleanup(func() { srv.Close(); handlers.Wait() })
	return "wss://" + srv.Listener.Addr().String() + "/tunnel", trusting(srv)
}

// BeforeWait is called when there is nothing to read, and not among messages that
// came together.
func TestBeforeWaitIsCalledBeforeAWaitOnly(t *testing.T) {
	const messages = 10
	var release sync.Mutex
	release.Lock()
	url, trust := serve(t, func(c *carrier.Conn) {
		release.Lock() // the reader waits by now
		for i := range messages {
			_ = c.WriteReserved(reserved(make([]byte, 100+i)))
		}
		_ = c.Flush()
		_, _ = c.ReadMessage(nil)
	})
	conn := dial(t, url, trust)
	waits := 0
	conn.BeforeWait(func() {
		if waits++; waits == 1 {
			release.Unlock()
		}
	})
	for i := range messages {
		size, err := conn.Next()
		if err != nil || size != 100+i {
			t.Fatalf("Next = %d, %v", size, err)
		}
		if err := conn.ReadFull(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			waits = 1 // TLS may have brought other things first
		}
	}
	if waits != 1 {
		t.Errorf("%d waits for what came in one piece", waits)
	}
}

// Where the carrier cannot tell when it waits, a session works all the same.
func TestSessionsWorkWhereverTheConnectionComesFrom(t *testing.T) {
	for name, tc := range map[string]struct {
		serve func(*testing.T, func(*carrier.Conn)) (string, *tls.Config)
		dial  func(*testing.T, string, *tls.Config) *carrier.Conn
	}{
		"no listener of carrier's": {serveBare, dial},
		"no socket at the client's": {
			func(t *testing.T, f func(*carrier.Conn)) (string, *tls.Config) { return serve(t, f) }, //nolint:thelper // an adapter
			func(t *testing.T, url string, trust *tls.Config) *carrier.Conn { //nolint:thelper // an adapter
				conn, _ := dialTapped(t, url, trust)
				return conn
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			url, trust := tc.serve(t, func(c *carrier.Conn) { echoStreams(t.Context(), c) })
			s := mux.New(tc.dial(t, url, trust), mux.Config{Role: mux.Client, Limits: wire.DefaultLimits()})
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			var wg sync.WaitGroup
			wg.Go(func() { _ = s.Run(ctx) })
			defer wg.Wait()
			defer cancel()
			st, err := s.Open(ctx, wire.Addr{Name: "example.com", Port: 80})
			if err != nil {
				t.Fatal(err)
			}
			for _, size := range []int{1, 300, 5000, 100_000} { // each alone: nothing comes behind it
				if _, err := st.Write(make([]byte, size)); err != nil {
					t.Fatal(err)
				}
				if n, err := io.ReadFull(st, make([]byte, size)); err != nil {
					t.Fatalf("%d bytes of %d: %v", n, size, err)
				}
			}
		})
	}
}

// echoStreams is a gateway whose every target is an echo.
func echoStreams(ctx context.Context, c *carrier.Conn) {
	s := mux.New(c, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits()})
	var wg sync.WaitGroup
	defer wg.Wait()
	wg.Go(func() {
		for {
			in, err := s.Accept(ctx)
			if err != nil {
				return
			}
			wg.Go(func() {
				_ = in.Stream.Confirm()
				_, _ = io.Copy(in.Stream, in.Stream)
				_ = in.Stream.Close()
			})
		}
	})
	_ = s.Run(ctx)
}

// What a client masks is unmasked whatever the pieces are in which it is read.
func TestAMaskedMessageIsReadInAnyPieces(t *testing.T) {
	sizes := make(chan int, 1)
	got := make(chan []byte, 1)
	url, trust := serve(t, func(c *carrier.Conn) {
		rng := rand.New(rand.NewPCG(1, 2))
		for {
			size, err := c.Next()
			if err != nil {
				return
			}
			p := make([]byte, size)
			for rest := p; len(rest) > 0; {
				n := 1 + rng.IntN(len(rest))
				if err := c.ReadFull(rest[:n]); err != nil {
					t.Errorf("ReadFull: %v", err)
					return
				}
				rest = rest[n:]
			}
			sizes <- size
			got <- p
		}
	})
	conn := dial(t, url, trust)
	for size := 1; size < 200; size++ {
		want := make([]byte, size)
		for i := range want {
			want[i] = byte(i * size)
		}
		if err := conn.WriteMessage(want); err != nil {
			t.Fatal(err)
		}
		if n := <-sizes; n != size {
			t.Errorf("Next = %d, want %d", n, size)
		}
		if !bytes.Equal(<-got, want) {
			t.Errorf("a message of %d bytes changed", size)
		}
	}
}

// The masking that both ends do in place is that of RFC 6455, 5.3.
func TestMaskingIsThatOfTheRFC(t *testing.T) {
	mask := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	for offset := range 8 {
		for length := range 201 {
			got, want := make([]byte, length), make([]byte, length)
			for i := range got {
				got[i] = byte(7*i + length)
				want[i] = got[i] ^ mask[(i+offset)%4]
			}
			ws.Cipher(got, mask, offset)
			if !bytes.Equal(got, want) {
				t.Fatalf("%d bytes from offset %d on are masked otherwise", length, offset)
			}
		}
	}
}

// Next tells the size of a message in fragments, which is read like any other.
func TestSizeOfAMessageInFragments(t *testing.T) {
	type result struct {
		size int
		msg  string
		err  error
	}
	results := make(chan result, 2)
	url, trust := serve(t, func(c *carrier.Conn) {
		for range 2 {
			size, err := c.Next()
			p := make([]byte, size)
			if err == nil {
				for i := range p { // byte by byte
					err = errors.Join(err, c.ReadFull(p[i:i+1]))
				}
			}
			results <- result{size, string(p), err}
		}
	})
	raw := rawClient(t, url, trust)
	for _, f := range [][]byte{masked(0x02, "one "), masked(0x00, ""), masked(0x89, "hi"), masked(0x80, "two"), masked(0x82, "whole")} {
		if _, err := raw.Write(f); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"one two", "whole"} {
		if r := <-results; r.size != len(want) || r.msg != want || r.err != nil {
			t.Errorf("a message of %d bytes, %q, %v, want %q", r.size, r.msg, r.err, want)
		}
	}
}

// More than the message has is not read from the next.
func TestReadFullStaysInItsMessage(t *testing.T) {
	url, trust := serve(t, echo)
	conn := dial(t, url, trust)
	_ = errors.Join(conn.WriteMessage([]byte("one")), conn.WriteMessage([]byte("two")))
	if size, err := conn.Next(); size != 3 || err != nil {
		t.Fatalf("Next = %d, %v", size, err)
	}
	if err := conn.ReadFull(make([]byte, 4)); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("ReadFull = %v", err)
	}
}
