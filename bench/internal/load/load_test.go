package load

import (
	"context"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/httvps/httvps/bench/internal/origin"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newOrigin(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	var serving sync.WaitGroup
	serving.Go(func() {
		if err := origin.New(64<<10).Serve(ctx, ln); err != nil {
			t.Errorf("Serve = %v", err)
		}
	})
	t.Cleanup(func() {
		stop()
		serving.Wait()
	})
	return ln.Addr().String()
}

const moment = 50 * time.Millisecond

func TestEveryLoadRunsAgainstTheOrigin(t *testing.T) {
	at := newOrigin(t)
	for name, tc := range map[string]struct {
		spec  Spec
		check func(Result) bool
	}{
		"download": {
			Spec{Kind: Streams, Streams: 3, Warm: moment, Duration: moment},
			func(r Result) bool { return r.Bytes > 0 && r.Speed > 0 && len(r.PerStream) == 3 },
		},
		"upload": {
			Spec{Kind: Streams, Streams: 3, Up: true, Warm: moment, Duration: moment},
			func(r Result) bool { return r.Bytes > 0 && r.Speed > 0 && len(r.PerStream) == 3 },
		},
		"echo": {
			Spec{Kind: Echoes, Streams: 1, Size: 16, Interval: time.Millisecond, Duration: moment},
			func(r Result) bool { return len(r.Echoes) > 0 && r.Echoes[0] > 0 },
		},
		"opens": {
			Spec{Kind: Opens, Streams: 4, Duration: moment, Most: 1_000_000},
			func(r Result) bool { return r.Opened > 0 && r.Rate > 0 },
		},
		"no more opens than asked for, but for those under way": {
			Spec{Kind: Opens, Streams: 4, Duration: time.Minute, Most: 5},
			func(r Result) bool { return r.Opened >= 5 && r.Opened <= 8 },
		},
	} {
		t.Run(name, func(t *testing.T) {
			tc.spec.Target = at
			r, err := Run(t.Context(), tc.spec, func() { t.Error("ready, with a duration") }, nil)
			if err != nil || !tc.check(r) {
				t.Errorf("Run = %+v, %v", r, err)
			}
		})
	}
}

func TestLoadsWithoutADurationGoOnUntilToldToEnd(t *testing.T) {
	at := newOrigin(t)
	for name, spec := range map[string]Spec{
		"streams":             {Kind: Streams, Streams: 2},
		"idle streams":        {Kind: Idle, Streams: 20},
		"unread downloads":    {Kind: Stalled, Streams: 20, Warm: moment},
		"uploads for nothing": {Kind: Stalled, Streams: 20, Warm: moment, Up: true},
	} {
		t.Run(name, func(t *testing.T) {
			spec.Target = at
			stop, isReady := make(chan struct{}), false
			r, err := Run(t.Context(), spec, func() {
				isReady = true
				close(stop)
			}, stop)
			if err != nil || !isReady {
				t.Errorf("Run = %+v, %v; ready: %t", r, err, isReady)
			}
		})
	}
}

// lossy answers SOCKS5 itself and loses a byte of whatever comes or goes.
func lossy(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	serving.Go(func() {
		conn, err := ln.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		_, _ = io.ReadFull(conn, make([]byte, 3))
		_, _ = conn.Write([]byte{5, 0})
		_, _ = io.ReadFull(conn, make([]byte, 10))
		_, _ = conn.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
		mode := make([]byte, 1)
		_, _ = io.ReadFull(conn, mode)
		n, _ := io.Copy(io.Discard, conn) // to the end of the client's direction
		count := byte(n - 1)
		if mode[0] == origin.Download {
			_, _ = conn.Write([]byte("1234")) // four came, five were sent
			count = 5
		}
		_, _ = conn.Write([]byte{0, 0, 0, 0, 0, byte((n - 1) >> 16), byte((n - 1) >> 8), count})
		_ = conn.(*net.TCPConn).CloseWrite()
	})
	t.Cleanup(func() {
		ln.Close()
		serving.Wait()
	})
	return ln.Addr().String()
}

func TestALostByteIsAnError(t *testing.T) {
	for name, up := range map[string]bool{"download": false, "upload": true} {
		t.Run(name, func(t *testing.T) {
			spec := Spec{Kind: Streams, Streams: 1, Up: up, Socks: lossy(t), Target: "127.0.0.1:9", Warm: moment, Duration: moment}
			_, err := Run(t.Context(), spec, nil, nil)
			if err == nil || !strings.Contains(err.Error(), "were sent") {
				t.Errorf("Run = %v, want one that counts", err)
			}
		})
	}
}

func TestLoadsThatMakeNoSenseAreRefused(t *testing.T) {
	for name, spec := range map[string]Spec{
		"unknown kind":      {Kind: "flood", Streams: 1},
		"no streams":        {Kind: Streams},
		"too many":          {Kind: Streams, Streams: 10_001},
		"too large an echo": {Kind: Echoes, Streams: 1, Size: maxEcho + 1},
		"a name":            {Kind: Idle, Streams: 1, Socks: "127.0.0.1:1", Target: "example.com:80"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := Run(t.Context(), spec, func() {}, nil); err == nil {
				t.Error("no error")
			}
		})
	}
}
