package forward_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/httvps/httvps/sdk/cli/internal/forward"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// serve runs a forward on loopback until the test ends.
func serve(t *testing.T, network string, dial forward.Dial) (address string) {
	t.Helper()
	spec := forward.Spec{Network: network, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Target: "far.test:7"}
	f, err := forward.Listen(t.Context(), spec)
	if err != nil {
		t.Fatal(err)
	}
	if f.Network() != network || f.Target() != spec.Target {
		t.Errorf("it forwards %s to %s", f.Network(), f.Target())
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		if err := f.Serve(ctx, dial); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return f.Addr().String()
}

func connect(t *testing.T, network, address string) net.Conn {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), network, address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // a hung test says where
	return conn
}

func TestTCPGoesBothWaysAndEachDirectionEndsByItself(t *testing.T) {
	ln, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = ln.Close() }()
	var far sync.WaitGroup
	defer far.Wait()
	far.Go(func() {
		conn, err := ln.Accept()
		if err != nil {
			t.Errorf("Accept: %v", err)
			return
		}
		defer func() { _ = conn.Close() }()
		question, err := io.ReadAll(conn) // to its end
		_, _ = conn.Write(append(question, " answered"...))
		if err != nil {
			t.Errorf("read: %v", err)
		}
	})
	address := serve(t, "tcp", func(ctx context.Context, network, address string) (net.Conn, error) {
		if network != "tcp" || address != "far.test:7" {
			t.Errorf("Dial(%s, %s)", network, address)
		}
		return (&net.Dialer{}).DialContext(ctx, "tcp", ln.Addr().String())
	})
	conn := connect(t, "tcp", address)
	if _, err := io.WriteString(conn, "question"); err != nil {
		t.Fatal(err)
	}
	_ = conn.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "question answered" {
		t.Errorf("read %q, %v", got, err)
	}
}

// An end without bytes would be taken for the target's answer.
func TestTCPToATargetThatCannotBeHadIsReset(t *testing.T) {
	connected := make(chan struct{})
	address := serve(t, "tcp", func(context.Context, string, string) (net.Conn, error) {
		<-connected
		return nil, errors.New("refused")
	})
	conn := connect(t, "tcp", address)
	close(connected)
	if n, err := conn.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("Read = %d, %v", n, err)
	}
}

func TestUDPReachesTheTargetAndComesBack(t *testing.T) {
	far, err := (&net.ListenConfig{}).ListenPacket(t.Context(), "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var echo sync.WaitGroup
	echo.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := far.ReadFrom(buf)
			if err != nil {
				return
			}
			_, _ = far.WriteTo(buf[:n], from)
		}
	})
	defer echo.Wait()
	defer func() { _ = far.Close() }()
	address := serve(t, "udp", func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, far.LocalAddr().String())
	})
	for _, size := range []int{0, 1, 1200, 16_000} {
		conn := connect(t, "udp", address)
		if _, err := conn.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		if n, err := conn.Read(make([]byte, 1<<16)); err != nil || n != size {
			t.Errorf("%d bytes of %d came back, %v", n, size, err)
		}
	}
}

func TestTheEndOfTheContextEndsWhatWaits(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		f, err := forward.Listen(t.Context(), forward.Spec{Network: network, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Target: "far.test:7"})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		if conn := connect(t, network, f.Addr().String()); network == "udp" {
			_, _ = conn.Write([]byte("x"))
		}
		err = f.Serve(ctx, func(ctx context.Context, _, _ string) (net.Conn, error) {
			cancel()
			<-ctx.Done()
			return nil, ctx.Err()
		})
		if err != nil {
			t.Errorf("%s: Serve = %v", network, err)
		}
	}
}

func TestAPortInUseIsAnError(t *testing.T) {
	for _, network := range []string{"tcp", "udp"} {
		spec := forward.Spec{Network: network, Listen: netip.MustParseAddrPort("127.0.0.1:0"), Target: "far.test:7"}
		f, err := forward.Listen(t.Context(), spec)
		if err != nil {
			t.Fatal(err)
		}
		spec.Listen = netip.MustParseAddrPort(f.Addr().String())
		if again, err := forward.Listen(t.Context(), spec); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("%s: %v, %v", network, again, err)
		}
		if err := f.Close(); err != nil {
			t.Errorf("%s: Close = %v", network, err)
		}
	}
}

func TestHostileClientsLeaveItHealthy(t *testing.T) {
	count := 500
	if os.Getenv("HTTVPS_SOAK") == "1" {
		count = 10_000
	}
	far, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	t.Cleanup(func() { _ = far.Close(); serving.Wait() }) // behind the forwards
	serving.Go(func() {
		for {
			conn, err := far.Accept()
			if err != nil {
				return
			}
			serving.Go(func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	for network, target := range map[string]string{"tcp": far.Addr().String(), "udp": "127.0.0.1:9"} {
		address := serve(t, network, func(ctx context.Context, network, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, network, target)
		})
		if network == "udp" {
			for range count { // each from a socket of its own
				conn := connect(t, network, address)
				_, _ = conn.Write([]byte("x"))
				_ = conn.Close()
			}
			continue
		}
		var held []*net.TCPConn
		for i := range count {
			conn := connect(t, network, address).(*net.TCPConn)
			switch i % 4 {
			case 0: // says nothing
				held = append(held, conn)
			case 1: // has said all, and reads nothing of the answer
				_, _ = conn.Write(make([]byte, 1<<10))
				_ = conn.CloseWrite()
				held = append(held, conn)
			case 2:
				_ = conn.SetLinger(0)
				_ = conn.Close()
			default:
				_, _ = conn.Write([]byte("x"))
				_ = conn.Close()
			}
			if len(held) > 1000 {
				_ = held[0].Close()
				held = held[1:]
			}
		}
		conn := connect(t, network, address)
		if _, err := io.WriteString(conn, "still there"); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len("still there"))
		if _, err := io.ReadFull(conn, got); err != nil || string(got) != "still there" {
			t.Errorf("%q, %v", got, err)
		}
		for _, c := range held {
			_ = c.Close()
		}
	}
}
