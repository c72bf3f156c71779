package linkem_test

import (
	"context"
	"io"
	"math"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/httvps/httvps/test/linkem"
)

// patience is how long a test waits for what must come.
const patience = 30 * time.Second

func countDescriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

func namespaceOf(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	return name
}

func address(link *linkem.Link, port uint16) string {
	return netip.AddrPortFrom(link.Server.Addr(), port).String()
}

func dial(t *testing.T, link *linkem.Link, network string, port uint16) net.Conn {
	t.Helper()
	return dialTo(t, link, network, address(link, port))
}

func dialTo(t *testing.T, link *linkem.Link, network, to string) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := link.Client.Dial(ctx, network, to)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return conn
}

// send sends that many packets, of 16 bytes unless told.
func send(t *testing.T, conn net.Conn, packets int, payload ...int) {
	t.Helper()
	size := 16
	if len(payload) > 0 {
		size = payload[0]
	}
	for range packets {
		if _, err := conn.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
	}
}

func exchange(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(conn, text); err != nil {
		t.Fatal(err)
	}
	expect(t, conn, text)
}

func expect(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != text {
		t.Fatalf("read %q, %v; want %q", got, err, text)
	}
}

// toSink connects to a UDP socket that nobody reads, so that nothing comes back.
func toSink(t *testing.T, link *linkem.Link) net.Conn {
	t.Helper()
	sink, err := link.Server.ListenPacket(t.Context(), "udp", address(link, 9))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sink.Close() })
	return dial(t, link, "udp", 9)
}

// roundTrip returns the shortest of some round trips of small packets. It tries
// more often while they take longer than limit: this machine may be busy.
func roundTrip(t *testing.T, link *linkem.Link, limit time.Duration) time.Duration {
	t.Helper()
	echoServer(t, link)
	conn := dial(t, link, "udp", 7)
	const few, many = 5, 50
	shortest := time.Duration(math.MaxInt64)
	for probe := 0; probe < few || shortest > limit && probe < many; probe++ {
		sent := time.Now()
		exchange(t, conn, "probe")
		shortest = min(shortest, time.Since(sent))
	}
	return shortest
}

// eventually waits until done.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !done() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatalf("waited %v, and never: %s", patience, what)
		}
	}
}

// echo is a server of TCP and UDP on port 7.
type echo struct{ packets chan struct{} }

func echoServer(t *testing.T, link *linkem.Link) *echo {
	t.Helper()
	e := &echo{packets: make(chan struct{}, 1000)}
	listener, err := link.Server.Listen(t.Context(), "tcp", ":7")
	if err != nil {
		t.Fatal(err)
	}
	packets, err := link.Server.ListenPacket(t.Context(), "udp", ":7")
	if err != nil {
		listener.Close()
		t.Fatal(err)
	}
	var all sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background()) //nolint:usetesting // ends in Cleanup, where t.Context has ended already
	t.Cleanup(func() {
		cancel()
		listener.Close()
		packets.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			stop := context.AfterFunc(ctx, func() { conn.Close() })
			all.Go(func() {
				defer stop()
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	all.Go(func() {
		buf := make([]byte, 2048)
		for {
			n, from, err := packets.ReadFrom(buf)
			if err != nil {
				return
			}
			select {
			case e.packets <- struct{}{}:
			default: // nobody counts that many
			}
			_, _ = packets.WriteTo(buf[:n], from)
		}
	})
	return e
}

// wait returns when that many packets have come.
func (e *echo) wait(t *testing.T, packets int) {
	t.Helper()
	deadline := time.After(patience)
	for range packets {
		select {
		case <-e.packets:
		case <-deadline:
			t.Fatalf("waited %v for %d packets", patience, packets)
		}
	}
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
