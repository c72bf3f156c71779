package server

import (
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/httvps/httvps/gateway/internal/config"
	"github.com/httvps/httvps/gateway/internal/metrics"
	"github.com/httvps/httvps/gateway/internal/protocol"
	"github.com/httvps/httvps/gateway/internal/quota"
	"github.com/httvps/httvps/gateway/internal/sessions"
	"github.com/httvps/httvps/gateway/internal/shadowsocks"
	"github.com/httvps/httvps/internal/configfile"
	"github.com/httvps/httvps/internal/sslink"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/mux/muxtest"
	"github.com/httvps/httvps/sdk/go/wire"
	"github.com/httvps/httvps/test/sstest"
)

// udpEcho answers every datagram until the test ends, and tells of each.
func udpEcho(t *testing.T, on string) (addr netip.AddrPort, got <-chan string) {
	t.Helper()
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(on), 0)))
	if err != nil {
		t.Fatal(err)
	}
	heard := make(chan string, 1000)
	var serving sync.WaitGroup
	serving.Go(func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			heard <- string(buf[:n])
			_, _ = conn.WriteToUDPAddrPort(buf[:n], from)
		}
	})
	t.Cleanup(func() {
		conn.Close()
		serving.Wait()
	})
	return conn.LocalAddr().(*net.UDPAddr).AddrPort(), heard
}

// device returns the device's end of a session that this gateway's half serves.
func device(t *testing.T, up config.Upstream) *mux.Session {
	t.Helper()
	return deviceIn(t, up, func(int) {})
}

// deviceIn is device with an account of the memory that streams hold outside of it.
func deviceIn(t *testing.T, up config.Upstream, held func(n int)) *mux.Session {
	t.Helper()
	zero := func() float64 { return 0 }
	counters, err := metrics.New(prometheus.NewRegistry(), "v1", up.Mode, metrics.Gauges{
		Sessions: zero, Streams: zero, Flows: zero, Up: zero, Down: zero, Unauthenticated: zero, Joined: zero,
		Memory: zero, MemoryLimit: zero, StandsIn: zero, Untold: zero, Breaker: func() string { return metrics.BreakerClosed },
	})
	if err != nil {
		t.Fatal(err)
	}
	leave, err := newExits(up, nil, nil, slog.New(slog.DiscardHandler), func() *metrics.Metrics { return counters }, held)
	if err != nil {
		t.Fatal(err)
	}
	registry := sessions.New(1, sessions.Leaving{}, nil)
	live, err := registry.Add(sessions.ID{}, sessions.Device{}, sessions.Term{})
	if err != nil {
		t.Fatal(err)
	}
	live.Quota, err = quota.NewBook().Begin("", nil, time.Now(), live.Moved, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	streams := newStreams(config.Limits{MaxStreams: 256, Dials: 256, IdleTimeout: configfile.Duration(time.Minute)}, leave, registry, counters)
	ours, theirs := muxtest.Pipe()
	gateway := mux.New(ours, mux.Config{Role: mux.Gateway, Limits: wire.DefaultLimits()})
	client := mux.New(theirs, mux.Config{Role: mux.Client, Limits: wire.DefaultLimits()})
	var running sync.WaitGroup
	running.Go(func() { _ = gateway.Run(t.Context()) })
	running.Go(func() { _ = client.Run(t.Context()) })
	running.Go(func() {
		_ = streams.Serve(t.Context(), gateway, live.ID, protocol.Bounds{Meter: live, Speeds: live.Speeds, Quota: live.Quota})
	})
	t.Cleanup(func() {
		client.Close(wire.CodeNoError, "")
		running.Wait()
		if n := streams.Flows(); n != 0 {
			t.Errorf("%d flows are left", n)
		}
	})
	return client
}

func TestDatagramsOfADeviceReachTheirTargets(t *testing.T) {
	echo, _ := udpEcho(t, "127.0.0.1")
	target := wire.Addr{IP: echo.Addr(), Port: echo.Port()}
	key := accessKey(sstest.StartServer(t, shadowsocks.DefaultCipher, "secret", sstest.Options{}).Addr)
	for name, up := range map[string]config.Upstream{
		"direct": {Mode: config.Direct, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}},
		"echo":   {Mode: config.Echo},
		"outline": {
			Mode: config.Outline, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
			Outline: config.OutlineServers{Source: config.Keys, Keys: []config.OutlineKey{key}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			client := device(t, up)
			for kind, addr := range map[wire.Kind]wire.Addr{wire.KindUDP: target, wire.KindUDPAny: {}} {
				flow, err := client.OpenFlow(t.Context(), kind, addr)
				if err != nil {
					t.Fatal(err)
				}
				var peer wire.Addr
				if kind == wire.KindUDPAny {
					peer = target
				}
				if err := flow.Send(peer, []byte("ping")); err != nil {
					t.Fatal(err)
				}
				flow.SetReadDeadline(time.Now().Add(10 * time.Second))
				buf := make([]byte, 100)
				n, from, err := flow.Receive(buf)
				if err != nil || string(buf[:n]) != "ping" || from != peer {
					t.Errorf("%s: received %q from %v, %v", kind, buf[:n], from, err)
				}
				flow.Reset(wire.CodeNoError)
			}
		})
	}
}

// accessKey is the key of a server on loopback.
func accessKey(server netip.AddrPort) config.OutlineKey {
	return config.OutlineKey{Link: sslink.Link{
		Host: server.Addr().String(), Port: server.Port(), Cipher: shadowsocks.DefaultCipher, Password: "secret", Tag: "one",
	}}
}

// TestAStreamThroughALostServerEndsWithTheWordForIt: the device learns that it was not
// the target.
func TestAStreamThroughALostServerEndsWithTheWordForIt(t *testing.T) {
	server := sstest.StartServer(t, shadowsocks.DefaultCipher, "secret", sstest.Options{})
	target, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	addr := target.Addr().(*net.TCPAddr).AddrPort()
	client := device(t, config.Upstream{
		Mode: config.Outline, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Outline: config.OutlineServers{Source: config.Keys, Keys: []config.OutlineKey{accessKey(server.Addr)}},
	})
	stream, err := client.Open(t.Context(), wire.Addr{IP: addr.Addr(), Port: addr.Port()})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := target.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = conn.Write([]byte("answer"))
	_ = stream.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.ReadFull(stream, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	server.Close()
	_, err = stream.Read(make([]byte, 1))
	var ended *mux.StreamError
	if !errors.As(err, &ended) || ended.Code != wire.CodeEgressLost {
		t.Errorf("Read = %v, want the code egress_lost", err)
	}
}

// TestStalledStreamsHoldLittleAndItIsCounted: a device reads none of its streams, whose
// targets send all they can. What waits for it outside of the session is at most a chunk
// for each stream, and nothing when they are gone.
func TestStalledStreamsHoldLittleAndItIsCounted(t *testing.T) {
	const streams, most = 64, 18 << 10
	memory := mux.NewMemory(1 << 30)
	server := sstest.StartServer(t, shadowsocks.DefaultCipher, "secret", sstest.Options{})
	target := sstest.ServeTCP(t, func(conn *net.TCPConn) {
		for {
			if _, err := conn.Write(make([]byte, 64<<10)); err != nil {
				return
			}
		}
	})
	client := deviceIn(t, config.Upstream{
		Mode: config.Outline, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")},
		Outline: config.OutlineServers{Source: config.Keys, Keys: []config.OutlineKey{accessKey(server.Addr)}},
	}, memory.Hold)
	var open []*mux.Stream
	for range streams {
		stream, err := client.Open(t.Context(), target)
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, stream)
		if _, err := io.ReadFull(stream, make([]byte, 1)); err != nil { // it flows
			t.Fatal(err)
		}
	}
	for before, quiet := uint64(0), 0; quiet < 5; <-time.After(50 * time.Millisecond) { // they are as full as they get
		if now := memory.Used(); now == before {
			quiet++
		} else {
			before, quiet = now, 0
		}
	}
	used := memory.Used()
	t.Logf("%d stalled streams hold %d KiB", streams, used>>10)
	if used == 0 || used > streams*most {
		t.Errorf("%d bytes, want some and at most %d", used, streams*most)
	}
	for _, stream := range open {
		stream.Reset(wire.CodeCancelled)
	}
	for began := time.Now(); memory.Used() > 0; <-time.After(10 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("%d bytes are counted without a stream", memory.Used())
		}
	}
}

// Whatever a device writes for the gateway's own host and network, no datagram
// gets there.
func TestDatagramsOfADeviceReachNothingPrivate(t *testing.T) {
	canary, heard := udpEcho(t, "127.0.0.1")
	allowed, _ := udpEcho(t, "127.0.0.2")
	client := device(t, config.Upstream{Mode: config.Direct, Allow: []netip.Prefix{netip.MustParsePrefix("127.0.0.2/32")}})
	anyPeer, err := client.OpenFlow(t.Context(), wire.KindUDPAny, wire.Addr{})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"127.0.0.1", "0.0.0.0", "10.0.0.1", "192.168.0.1", "169.254.169.254", "224.0.0.1", "255.255.255.255", "127.255.255.255",
		"64:ff9b::7f00:1", "64:ff9b:1::7f00:1", "2002:7f00:1::", "::ffff:127.0.0.1", "::127.0.0.1", "::1", "fe80::1", "fd00::1", "ff02::1",
	} {
		to := wire.Addr{IP: netip.MustParseAddr(text), Port: canary.Port()}
		_ = anyPeer.Send(to, []byte(text))
		flow, err := client.OpenFlow(t.Context(), wire.KindUDP, to)
		if err != nil {
			t.Fatal(err)
		}
		_ = flow.Send(wire.Addr{}, []byte(text))
		var refused *mux.StreamError
		if err := flow.WaitOpened(t.Context()); !errors.As(err, &refused) ||
			refused.Code != wire.CodePolicyDenied && refused.Code != wire.CodeRefused { // an address that no stream may have
			t.Errorf("a flow to %s: %v, want it denied", text, err)
		}
	}
	// The datagrams of one flow are judged in order: with an answer to the last, all
	// of them have been.
	last := wire.Addr{IP: allowed.Addr(), Port: allowed.Port()}
	if err := anyPeer.Send(last, []byte("last")); err != nil {
		t.Fatal(err)
	}
	anyPeer.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 100)
	if n, from, err := anyPeer.Receive(buf); err != nil || string(buf[:n]) != "last" || from != last {
		t.Errorf("received %q from %v, %v; want the answer to the last", buf[:n], from, err)
	}
	own, err := net.Dial("udp", canary.String())
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if _, err := own.Write([]byte("own")); err != nil {
		t.Fatal(err)
	}
	if got := <-heard; got != "own" { // datagrams are received in the order in which they came
		t.Errorf("%q has reached the canary", got)
	}
}
