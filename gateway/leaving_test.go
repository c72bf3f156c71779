package gateway_test

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/sdk/go/wire"
)

// A session that is over has a few seconds for its last bytes. A device that comes
// and goes must not have a gateway hold one session's memory for each of them.
func TestADeviceThatComesAndGoesHoldsNoMoreThanOneSessionMay(t *testing.T) {
	const budget, rounds = 1 << 20, 6
	s := newService(t, func(cfg *gateway.Config) { cfg.Limits.SessionBudget = budget })
	d := s.enrol(t)
	l, err := net.Listen("tcp", "127.0.0.1:0") // nobody accepts, let alone reads
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	target := wire.Addr{IP: netip.MustParseAddr("127.0.0.1"), Port: uint16(l.Addr().(*net.TCPAddr).Port)}

	begin := time.Now()
	for range rounds {
		d.leaveBehind(t, s, target)
	}
	if took := time.Since(begin); took > 4*time.Second {
		t.Skipf("%d sessions took %v: the first of them is over by itself", rounds, took)
	}
	// Each holds half of its budget, and the last one is not judged yet.
	for deadline := time.Now().Add(500 * time.Millisecond); ; {
		left := s.sessionsHere(t)
		if left <= 3 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d sessions of %d still have something for targets, want 3", left, rounds)
		}
		<-time.After(10 * time.Millisecond)
	}
}

// leaveBehind has a session that ends when a target that does not read has left as
// much of one stream, with its end, as the gateway takes.
func (d device) leaveBehind(t *testing.T, s *service, target wire.Addr) {
	t.Helper()
	conn, answer := d.knock(t, s.url, s.trust)
	defer conn.Close()
	ready, err := wire.ParseReady(answer.Payload)
	if err != nil {
		t.Fatal(err)
	}
	send := func(frame []byte) {
		t.Helper()
		if err := conn.WriteMessage(frame); err != nil {
			t.Fatal(err)
		}
	}
	send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindTCP, Target: target, RecvWindow: 1}))
	sent, limit := uint64(0), ready.Limits.EarlyWindow
	for {
		for sent < limit {
			n := min(limit-sent, 16_000)
			send(wire.AppendData(nil, 1, make([]byte, n)))
			sent += n
		}
		_ = conn.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
		message, err := conn.ReadMessage(nil)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		for f, err := range wire.Frames(message) {
			switch {
			case err != nil:
				t.Fatal(err)
			case f.Type == wire.TypeOpened:
				o, err := wire.ParseOpened(f.Payload)
				if err != nil {
					t.Fatal(err)
				}
				limit = o.RecvWindow
			case f.Type == wire.TypeCredit:
				if limit, err = wire.ParseCredit(f.Payload); err != nil {
					t.Fatal(err)
				}
			case f.Type == wire.TypePing:
				send(wire.AppendPong(nil, [8]byte(f.Payload)))
			case f.Type == wire.TypeReset:
				t.Fatalf("RESET %x", f.Payload)
			}
		}
	}
	send(wire.AppendFin(nil, 1, nil))
	send(wire.AppendClose(nil, wire.Close{Code: wire.CodeNoError}))
}

// sessionsHere is how many sessions the gateway has, with those that only have
// something left for targets.
func (s *service) sessionsHere(t *testing.T) int {
	t.Helper()
	for line := range strings.Lines(s.metrics(t)) {
		if value, ok := strings.CutPrefix(line, "httvps_gateway_sessions "); ok {
			n, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatal("no such metric")
	return 0
}
