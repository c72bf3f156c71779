package httvps_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/sdk/go/httvps/httvpstest"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

func echo(context.Context, wire.Addr) (net.Conn, error) {
	near, far := net.Pipe()
	go func() {
		_, _ = io.Copy(far, far)
		_ = far.Close()
	}()
	return near, nil
}

func TestBytesGoThroughATunnelBothWays(t *testing.T) {
	asked := make(chan wire.Addr, 1)
	s := start(t, httvpstest.Options{Dial: func(ctx context.Context, target wire.Addr) (net.Conn, error) {
		asked <- target
		ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = ln.Close() }()
		go func() {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			defer func() { _ = c.Close() }()
			question, _ := io.ReadAll(c) // until the client has ended its direction
			_, _ = c.Write(append([]byte("you said "), question...))
		}()
		return (&net.Dialer{}).DialContext(ctx, "tcp", ln.Addr().String())
	}})
	d := run(t, s, enrolled(t, s))
	connected := d.next(httvps.Connected)
	if connected.Gateway != s.Gateway(0) || len(connected.Session) != 32 {
		t.Errorf("connected: %+v", connected)
	}

	conn, err := d.DialContext(t.Context(), "tcp", "Origin.Test:80")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	half, ok := conn.(httvps.Conn)
	if !ok {
		t.Fatalf("%T is no httvps.Conn", conn)
	}
	if _, ok := conn.(io.ReaderFrom); !ok {
		t.Error("io.Copy would copy twice: no ReadFrom")
	}
	if _, ok := conn.(io.WriterTo); !ok {
		t.Error("io.Copy would copy twice: no WriteTo")
	}
	_, _ = io.WriteString(conn, "hello")
	_ = half.CloseWrite()
	if got, err := io.ReadAll(conn); err != nil || string(got) != "you said hello" {
		t.Errorf("read %q, %v", got, err)
	}
	if got := <-asked; got != (wire.Addr{Name: "origin.test", Port: 80}) {
		t.Errorf("the gateway was asked for %v; names are not to be resolved here", got)
	}
	d.stop()
	if err := d.wait(); !errors.Is(err, context.Canceled) {
		t.Errorf("Run returned %v, want context.Canceled", err)
	}
}

func TestADialThatMeetsTheEndOfASessionGoesToTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls atomic.Int32
		s := start(t, httvpstest.Options{Memory: true, Dial: func(ctx context.Context, target wire.Addr) (net.Conn, error) {
			if calls.Add(1) == 1 {
				<-ctx.Done()
				return nil, ctx.Err()
			}
			return echo(ctx, target)
		}})
		d := run(t, s, enrolled(t, s))
		d.next(httvps.Connected)
		time.AfterFunc(time.Second, func() { s.Disconnect(wire.CodeShutdown) })
		conn, err := d.DialContext(t.Context(), "tcp", "a:1")
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
	})
}

func TestDialsWaitForASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, httvpstest.Options{Memory: true, Dial: echo})
		client, err := httvps.NewClient(httvps.Config{Store: enrolled(t, s), NetDial: s.NetDial})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		if _, err := client.DialContext(ctx, "tcp", "a:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("before Run: %v, want a deadline", err)
		}
		cancel()

		ctx, cancel = context.WithCancel(t.Context())
		done := make(chan error, 1)
		time.AfterFunc(time.Hour, func() { go func() { done <- client.Run(ctx) }() })
		conn, err := client.DialContext(t.Context(), "tcp", "a:1")
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()

		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
		if _, err := client.DialContext(t.Context(), "tcp", "a:1"); !errors.Is(err, net.ErrClosed) || !errors.Is(err, context.Canceled) {
			t.Errorf("after Run: %v, want net.ErrClosed and what Run returned", err)
		}
		if err := client.Run(t.Context()); !errors.Is(err, httvps.ErrRan) {
			t.Errorf("a second Run: %v", err)
		}
	})
}

func TestAConnectionThatCannotBeMadeSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		codes := make(chan wire.Code, 1)
		s := start(t, httvpstest.Options{Memory: true, Dial: func(context.Context, wire.Addr) (net.Conn, error) {
			return nil, &mux.StreamError{Code: <-codes}
		}})
		d := run(t, s, enrolled(t, s))
		for code := wire.CodeRefused; code <= wire.CodeIdle; code++ {
			codes <- code
			_, err := d.DialContext(t.Context(), "tcp", "a.test:1")
			failed, ok := errors.AsType[*httvps.OpenError](err)
			if !ok || failed.Code != code.String() || failed.Target != "a.test:1" {
				t.Errorf("%v: %v", code, err)
			}
			if netErr, ok := errors.AsType[net.Error](err); !ok || netErr.Timeout() != (code == wire.CodeConnTimeout) {
				t.Errorf("%v is not the net.Error it should be", code)
			}
			if text := httvps.Explain(code.String()); strings.Contains(text, "does not know") {
				t.Errorf("%v has no explanation", code)
			}
		}
		for _, address := range []string{"", "a.test", "a.test:0", "a.test:99999", "0x7f.1:80", "..:80", "münchen.test:80"} {
			_, err := d.DialContext(t.Context(), "tcp", address)
			if failed, ok := errors.AsType[*httvps.OpenError](err); !ok || failed.Code != "refused" {
				t.Errorf("%q: %v, want an OpenError", address, err)
			}
		}
		for _, network := range []string{"", "tcp4", "udp6", "unix"} {
			if _, err := d.DialContext(t.Context(), network, "a.test:1"); !errors.Is(err, net.UnknownNetworkError(network)) {
				t.Errorf("network %q: %v", network, err)
			}
		}
	})
}
