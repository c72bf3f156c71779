package protocol

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/httvps/httvps/sdk/go/lazy"
	"github.com/httvps/httvps/sdk/go/wire"
)

// packet is a datagram that a memory socket has sent, or is to read.
type packet struct {
	peer netip.AddrPort
	data []byte
}

// socket is one in memory. It refuses what goes to a private address.
type socket struct {
	in     chan packet
	closed chan struct{}
	once   sync.Once

	mu    sync.Mutex // guards the following fields
	sent  []packet
	fail  error      // of every WriteTo
	lost  error      // of ReadFrom, once it is closed
	noWay netip.Addr // there is none to this one
}

func newSocket() *socket { return &socket{in: make(chan packet, 1000), closed: make(chan struct{})} }

func (s *socket) WriteTo(p []byte, peer netip.AddrPort) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.fail != nil:
		return s.fail
	case peer.Addr() == s.noWay:
		return failure("net_unreachable")
	case peer.Addr().IsPrivate():
		return failure("denied")
	}
	s.sent = append(s.sent, packet{peer, bytes.Clone(p)})
	return nil
}

func (s *socket) ReadFrom(space lazy.Space) (int, netip.AddrPort, error) {
	select {
	case p := <-s.in:
		return copy(space.Take(), p.data), p.peer, nil
	default:
	}
	space.Return(true)
	select {
	case p := <-s.in:
		return copy(space.Take(), p.data), p.peer, nil
	case <-s.closed:
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.lost != nil {
			return 0, netip.AddrPort{}, s.lost
		}
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (s *socket) Close() error {
	s.once.Do(func() { close(s.closed) })
	return nil
}

func (s *socket) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// taken returns what was sent since the last call.
func (s *socket) taken() []packet {
	s.mu.Lock()
	defer s.mu.Unlock()
	sent := s.sent
	s.sent = nil
	return sent
}

// network makes the sockets of a test's flows.
type network struct {
	sockets chan *socket
	dial    func(context.Context, wire.Addr) (netip.AddrPort, error)
	resolve func(context.Context, wire.Addr) ([]netip.AddrPort, error)
}

func (n *network) DialPacket(ctx context.Context, target wire.Addr) (PacketConn, netip.AddrPort, error) {
	peer := netip.AddrPortFrom(target.IP, target.Port)
	if n.dial != nil {
		var err error
		if peer, err = n.dial(ctx, target); err != nil {
			return nil, netip.AddrPort{}, err
		}
	}
	s := newSocket()
	n.sockets <- s
	return s, peer, nil
}

func (n *network) ListenPacket(context.Context) (PacketConn, error) {
	s := newSocket()
	n.sockets <- s
	return s, nil
}

func (n *network) Resolve(ctx context.Context, target wire.Addr) ([]netip.AddrPort, error) {
	return n.resolve(ctx, target)
}

// flowRig is a rig for flows.
type flowRig struct {
	*rig
	*network
	opens chan string

	mu      sync.Mutex
	dropped map[string]int // guarded by mu
}

func newFlowRig(t *testing.T, change func(*Streams)) *flowRig {
	t.Helper()
	r := &flowRig{network: &network{sockets: make(chan *socket, 100)}, opens: make(chan string, 100), dropped: make(map[string]int)}
	r.rig = newRig(t, nil, func(s *Streams) {
		s.NewUpstream = func([16]byte) Upstream { return Upstream{Packets: r.network, Close: func() {}} }
		s.ObserveFlow = func(result string) { r.opens <- result }
		s.Dropped = func(reason string, n int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			r.dropped[reason] += n
		}
		if change != nil {
			change(s)
		}
	})
	return r
}

// openFlow opens a flow and returns its socket.
func (r *flowRig) openFlow(id uint64, kind wire.Kind, target wire.Addr) *socket {
	r.Send(wire.AppendOpen(nil, id, wire.Open{Kind: kind, Target: target}))
	r.WantOpened(id)
	return <-r.sockets
}

// wantDropped compares what was dropped since the last call.
func (r *flowRig) wantDropped(t *testing.T, want map[string]int) {
	t.Helper()
	synctest.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	if !maps.Equal(r.dropped, want) {
		t.Errorf("dropped %v, want %v", r.dropped, want)
	}
	clear(r.dropped)
}

// dgram is the frame of a datagram on flow 1 of any peer.
func dgram(to wire.Addr, data string) []byte {
	return wire.AppendDgram(nil, 1, wire.KindUDPAny, wire.Dgram{Peer: to, Data: []byte(data)})
}

// wantDgram waits for a datagram on flow 1.
func (r *flowRig) wantDgram(t *testing.T, kind wire.Kind, peer wire.Addr, data string) {
	t.Helper()
	got, err := wire.ParseDgram(kind, r.Want(wire.TypeDgram, 1))
	if err != nil || got.Peer != peer || string(got.Data) != data {
		t.Errorf("the device got %q from %v, %v; want %q from %v", got.Data, got.Peer, err, data, peer)
	}
}

func ip(text string, port uint16) wire.Addr {
	return wire.Addr{IP: netip.MustParseAddr(text), Port: port}
}

func addrPort(a wire.Addr) netip.AddrPort { return netip.AddrPortFrom(a.IP, a.Port) }

// texts are what the packets were, as "data to peer".
func texts(packets []packet) (list []string) {
	for _, p := range packets {
		list = append(list, fmt.Sprintf("%s to %s", p.data, p.peer))
	}
	return list
}

var (
	peerA = ip("93.184.216.34", 4000)
	peerB = ip("2606:2800:220:1::1", 4001)
)

func TestTheWordOfAFailedSocketReachesTheDevice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		s := r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		s.mu.Lock()
		s.lost = failure("egress_lost")
		s.mu.Unlock()
		s.Close()
		r.WantReset(1, wire.CodeEgressLost)
		r.hangUp()
	})
}

// Who made the way out for a session hears which it was, and when it is over.
func TestAWayOutIsClosedWithItsSession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ended := make(chan [16]byte, 1)
		r := newFlowRig(t, func(s *Streams) {
			s.NewUpstream = func(id [16]byte) Upstream {
				return Upstream{Packets: &network{sockets: make(chan *socket, 1)}, Close: func() { ended <- id }}
			}
		})
		synctest.Wait()
		if len(ended) != 0 {
			t.Error("it is closed already")
		}
		r.hangUp()
		if got := <-ended; got != sessionID {
			t.Errorf("closed for %x, want %x", got, sessionID)
		}
	})
}

func TestAFlowOfOnePeerPassesDatagrams(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		s := r.openFlow(1, wire.KindUDP, peerA)
		r.Send(wire.AppendDgram(nil, 1, wire.KindUDP, wire.Dgram{Data: []byte("ping")}))
		synctest.Wait()
		if got := texts(s.taken()); !slices.Equal(got, []string{"ping to 93.184.216.34:4000"}) {
			t.Errorf("sent %v", got)
		}
		s.in <- packet{addrPort(peerA), []byte("answer")}
		r.wantDgram(t, wire.KindUDP, wire.Addr{}, "answer")
		if r.meter.up.Load() != 4 || r.meter.down.Load() != 6 || r.meter.streams.Load() != 1 || r.streams.Flows() != 1 {
			t.Errorf("counted %d up, %d down, %d streams, %d flows", r.meter.up.Load(), r.meter.down.Load(), r.meter.streams.Load(), r.streams.Flows())
		}
		r.Send(wire.AppendReset(nil, 1, wire.CodeNoError))
		synctest.Wait()
		if !s.isClosed() || r.meter.streams.Load() != 0 || r.streams.Flows() != 0 {
			t.Error("something is left of a flow that its device has ended")
		}
		if got := <-r.opens; got != "opened" {
			t.Errorf("observed %q", got)
		}
		r.hangUp()
	})
}

func TestAFlowOfAnyPeerPassesDatagramsWithTheirAddresses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		s := r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		r.Send(dgram(peerA, "a"), dgram(peerB, "b"), dgram(peerA, ""))
		synctest.Wait()
		if diff := cmp.Diff([]string{"a to 93.184.216.34:4000", "b to [2606:2800:220:1::1]:4001", " to 93.184.216.34:4000"}, texts(s.taken())); diff != "" {
			t.Error(diff)
		}
		s.in <- packet{addrPort(peerB), []byte("from b")}
		r.wantDgram(t, wire.KindUDPAny, peerB, "from b")
		r.hangUp()
	})
}

func TestOnlyAddressesThatAFlowHasSentToAreHeard(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		s := r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		r.Send(dgram(peerA, "a"), dgram(ip("10.0.0.1", 4000), "to nobody"))
		synctest.Wait()
		s.in <- packet{addrPort(peerB), []byte("another host")}
		s.in <- packet{addrPort(ip("93.184.216.34", 4001)), []byte("another port")}
		s.in <- packet{addrPort(ip("10.0.0.1", 4000)), []byte("denied when it was sent to")}
		r.WantQuiet()
		r.wantDropped(t, map[string]int{dropDenied: 1, dropStranger: 3})
		s.in <- packet{addrPort(peerA), []byte("its peer")}
		r.wantDgram(t, wire.KindUDPAny, peerA, "its peer")
		r.hangUp()
	})
}

func TestAFlowThatCannotBeHadIsRefusedBeforeOpened(t *testing.T) {
	for reason, code := range failures {
		t.Run(reason, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newFlowRig(t, nil)
				r.dial = func(context.Context, wire.Addr) (netip.AddrPort, error) { return netip.AddrPort{}, failure(reason) }
				r.Send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindUDP, Target: peerA}),
					wire.AppendDgram(nil, 1, wire.KindUDP, wire.Dgram{Data: []byte("early")}))
				r.WantReset(1, code)
				if got := <-r.opens; got != code.String() {
					t.Errorf("observed %q, want %q", got, code)
				}
				r.hangUp()
			})
		})
	}
}

func TestEarlyDatagramsAreSentOnceThereIsAnAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		release := make(chan struct{})
		r.dial = func(context.Context, wire.Addr) (netip.AddrPort, error) {
			<-release
			return addrPort(peerA), nil
		}
		r.Send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindUDP, Target: wire.Addr{Name: "target.example", Port: 4000}}))
		for i := range 40 {
			r.Send(wire.AppendDgram(nil, 1, wire.KindUDP, wire.Dgram{Data: []byte{byte(i)}}))
		}
		r.WantQuiet()
		close(release)
		r.WantOpened(1)
		s := <-r.sockets
		synctest.Wait()
		sent := s.taken()
		if len(sent) != maxUnanswered || sent[0].data[0] != 8 {
			t.Errorf("%d datagrams were sent, the first is %v: want the latest 32 kept, and 30 of them sent", len(sent), sent[0].data)
		}
		r.wantDropped(t, map[string]int{dropUnanswered: 2})
		r.Send(wire.AppendReset(nil, 1, wire.CodeNoError))
		r.wantDropped(t, map[string]int{dropQueue: 8})
		r.hangUp()
	})
}

func TestToAnAddressThatDoesNotAnswerLittleIsSent(t *testing.T) {
	for name, tc := range map[string]struct {
		size, want int
	}{
		"in datagrams": {100, 30},
		"in bytes":     {4000, 3},
		"at once":      {15_001, 0},
		"just so":      {15_000, 1},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newFlowRig(t, nil)
				s := r.openFlow(1, wire.KindUDPAny, wire.Addr{})
				data := strings.Repeat("x", tc.size)
				for range 40 {
					r.Send(dgram(peerA, data))
				}
				synctest.Wait()
				if got := len(s.taken()); got != tc.want {
					t.Errorf("%d datagrams of %d bytes were sent, want %d", got, tc.size, tc.want)
				}
				r.wantDropped(t, map[string]int{dropUnanswered: 40 - tc.want})
				if tc.want == 0 { // nothing was sent, so nothing is let in
					s.in <- packet{addrPort(peerA), []byte("yes")}
					r.wantDropped(t, map[string]int{dropStranger: 1})
					r.hangUp()
					return
				}
				r.Send(dgram(peerB, "another")) // has a measure of its own
				synctest.Wait()
				if got := len(s.taken()); got != 1 {
					t.Errorf("%d datagrams went to another address", got)
				}
				s.in <- packet{addrPort(peerA), []byte("yes")}
				r.wantDgram(t, wire.KindUDPAny, peerA, "yes")
				for range 40 {
					r.Send(dgram(peerA, data))
				}
				synctest.Wait()
				if got := len(s.taken()); got != 40 {
					t.Errorf("%d datagrams were sent to an address that has answered", got)
				}
				r.hangUp()
			})
		})
	}
}

func TestTheLatestPeersAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		s := r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		for i := range uint16(maxPeers) {
			r.Send(dgram(ip("93.184.216.34", 1000+i), "x"))
			synctest.Wait()
		}
		// Who is sent to again, or answers, is the latest.
		r.Send(dgram(ip("93.184.216.34", 1000), "again"))
		synctest.Wait()
		s.in <- packet{addrPort(ip("93.184.216.34", 1001)), []byte("answer")}
		r.wantDgram(t, wire.KindUDPAny, ip("93.184.216.34", 1001), "answer")
		r.Send(dgram(peerB, "one more"))
		synctest.Wait()
		s.in <- packet{addrPort(ip("93.184.216.34", 1002)), []byte("forgotten")}
		r.wantDropped(t, map[string]int{dropStranger: 1})
		for _, peer := range []wire.Addr{ip("93.184.216.34", 1000), ip("93.184.216.34", 1001), ip("93.184.216.34", 1003), peerB} {
			s.in <- packet{addrPort(peer), []byte("known")}
			r.wantDgram(t, wire.KindUDPAny, peer, "known")
		}
		r.hangUp()
	})
}

func TestTheIdleEndOfAFlow(t *testing.T) {
	dns := ip("93.184.216.34", 53)
	for name, tc := range map[string]struct {
		kind   wire.Kind
		target wire.Addr
		to     []wire.Addr
		want   time.Duration
	}{
		"one peer":                  {wire.KindUDP, peerA, nil, flowIdle},
		"a name server":             {wire.KindUDP, dns, nil, flowIdleDNS},
		"any peer, none yet":        {wire.KindUDPAny, wire.Addr{}, nil, flowIdle},
		"any peer, name servers":    {wire.KindUDPAny, wire.Addr{}, []wire.Addr{dns, ip("8.8.8.8", 53)}, flowIdleDNS},
		"any peer, not only names":  {wire.KindUDPAny, wire.Addr{}, []wire.Addr{dns, peerA}, flowIdle},
		"any peer, only denied":     {wire.KindUDPAny, wire.Addr{}, []wire.Addr{ip("10.0.0.1", 53)}, flowIdle},
		"any peer, another, denied": {wire.KindUDPAny, wire.Addr{}, []wire.Addr{dns, ip("10.0.0.1", 80)}, flowIdleDNS},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newFlowRig(t, nil)
				s := r.openFlow(1, tc.kind, tc.target)
				for _, to := range tc.to {
					r.Send(dgram(to, "x"))
				}
				synctest.Wait()
				began := time.Now()
				r.WantReset(1, wire.CodeIdle)
				synctest.Wait()
				if took := time.Since(began); took != tc.want || !s.isClosed() || r.meter.streams.Load() != 0 {
					t.Errorf("ended after %v, closed %v; want %v", took, s.isClosed(), tc.want)
				}
				r.hangUp()
			})
		})
	}
}

func TestADatagramInEitherDirectionKeepsAFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		s := r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		began := time.Now()
		r.Send(dgram(peerA, "x"))
		after := func(d time.Duration) { <-time.After(d) }
		after(flowIdle - time.Second)
		r.Send(dgram(peerA, "x"))
		after(flowIdle - time.Second)
		s.in <- packet{addrPort(peerA), []byte("y")}
		r.wantDgram(t, wire.KindUDPAny, peerA, "y")
		after(flowIdle - time.Second)
		s.in <- packet{addrPort(peerB), []byte("a stranger moves nothing")}
		r.Send(dgram(ip("10.0.0.1", 1), "nor what is denied"))
		r.WantReset(1, wire.CodeIdle)
		if took := time.Since(began); took != 3*flowIdle-2*time.Second {
			t.Errorf("ended after %v", took)
		}
		r.hangUp()
	})
}

func TestALongDatagramOfATargetIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		s := r.openFlow(1, wire.KindUDP, peerA)
		r.Send(wire.AppendDgram(nil, 1, wire.KindUDP, wire.Dgram{Data: []byte("x")}))
		synctest.Wait()
		s.in <- packet{addrPort(peerA), make([]byte, wire.MaxDatagram+1)}
		r.wantDropped(t, map[string]int{dropSize: 1})
		s.in <- packet{addrPort(peerA), make([]byte, wire.MaxDatagram)}
		r.wantDgram(t, wire.KindUDP, wire.Addr{}, string(make([]byte, wire.MaxDatagram)))
		r.hangUp()
	})
}

func TestWhatOneSessionSendsIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		first := r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		second := r.openFlow(3, wire.KindUDP, peerA)
		for _, s := range []*socket{first, second} {
			r.Send(dgram(peerA, "x"), wire.AppendDgram(nil, 3, wire.KindUDP, wire.Dgram{Data: []byte("x")}))
			synctest.Wait()
			s.in <- packet{addrPort(peerA), []byte("answered")} // so that this is not what bounds it
			r.Next()
		}
		send := func(n int) {
			for range n {
				r.Send(dgram(peerA, "x"), wire.AppendDgram(nil, 3, wire.KindUDP, wire.Dgram{Data: []byte("x")}))
				synctest.Wait()
			}
		}
		send(4000/2 + 8) // the numbers are those of docs/04
		if got := len(first.taken()) + len(second.taken()); got != 4000 {
			t.Errorf("%d datagrams were sent at once, want 4000", got)
		}
		r.wantDropped(t, map[string]int{dropRate: 20})
		<-time.After(time.Second)
		send(2000/2 + 5)
		if got := len(first.taken()) + len(second.taken()); got != 2000 {
			t.Errorf("%d datagrams were sent a second later, want 2000", got)
		}
		r.wantDropped(t, map[string]int{dropRate: 10})
		r.hangUp()
	})
}

func TestASocketThatDoesNotTakeADatagramGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		s := r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		s.mu.Lock()
		s.fail = failure("net_unreachable")
		s.mu.Unlock()
		r.Send(dgram(peerA, "lost"))
		r.wantDropped(t, map[string]int{dropSocket: 1})
		s.mu.Lock()
		s.fail = nil
		s.mu.Unlock()
		r.Send(dgram(peerA, "sent"))
		synctest.Wait()
		if got := len(s.taken()); got != 1 {
			t.Errorf("%d datagrams were sent", got)
		}
		r.hangUp()
	})
}

func TestASocketThatFailsEndsItsFlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		s := r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		_ = s.Close()
		r.WantReset(1, wire.CodeInternal)
		synctest.Wait()
		if r.meter.streams.Load() != 0 {
			t.Error("the flow is still served")
		}
		r.hangUp()
	})
}

func TestTheEndOfTheSessionEndsItsFlows(t *testing.T) {
	for name, end := range map[string]func(r *flowRig){
		"the carrier's end":   func(r *flowRig) { r.Close() },
		"nobody serves it":    func(r *flowRig) { r.stop() },
		"an error of its own": func(r *flowRig) { r.session.Close(wire.CodeShutdown, "") },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				r := newFlowRig(t, nil)
				r.resolve = func(ctx context.Context, _ wire.Addr) ([]netip.AddrPort, error) {
					<-ctx.Done()
					return nil, ctx.Err()
				}
				var sockets []*socket
				for i := range uint64(10) {
					id := 2*i + 1
					sockets = append(sockets, r.openFlow(id, wire.KindUDPAny, wire.Addr{}))
					r.Send(wire.AppendDgram(nil, id, wire.KindUDPAny, wire.Dgram{Peer: wire.Addr{Name: "slow.example", Port: 1}}))
				}
				synctest.Wait()
				began := time.Now()
				end(r)
				<-r.served // when nothing of its flows is left
				if took := time.Since(began); took != 0 || r.streams.Flows() != 0 || r.meter.streams.Load() != 0 {
					t.Errorf("%d flows are left after %v", r.streams.Flows(), took)
				}
				for _, s := range sockets {
					if !s.isClosed() {
						t.Error("a socket is open behind the session's end")
					}
				}
				r.hangUp()
			})
		})
	}
}

func TestAFlowResetWhileItIsLookedUpLeavesNoSocket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, nil)
		release := make(chan struct{})
		r.dial = func(context.Context, wire.Addr) (netip.AddrPort, error) {
			<-release
			return addrPort(peerA), nil
		}
		r.Send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindUDP, Target: wire.Addr{Name: "slow.example", Port: 1}}))
		synctest.Wait()
		r.Send(wire.AppendReset(nil, 1, wire.CodeNoError))
		synctest.Wait()
		if len(r.streams.Slots) != 1 {
			t.Error("the look-up has given back its place before its end")
		}
		close(release)
		if got := <-r.opens; got != wire.CodeCancelled.String() {
			t.Errorf("observed %q", got)
		}
		synctest.Wait()
		if s := <-r.sockets; !s.isClosed() || len(r.streams.Slots) != 0 {
			t.Error("a socket or a place is left")
		}
		r.hangUp()
	})
}

// A session whose dials all hang still asks name servers by their addresses.
func TestAFlowWithoutALookupWaitsForNoPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, func(s *Streams) { s.SessionDials = 1 })
		release := make(chan struct{})
		r.dial = func(_ context.Context, target wire.Addr) (netip.AddrPort, error) {
			if target.Name != "" {
				<-release
			}
			return addrPort(peerA), nil
		}
		slow := wire.Addr{Name: "slow.example", Port: 1}
		r.Send(wire.AppendOpen(nil, 1, wire.Open{Kind: wire.KindUDP, Target: slow}))
		synctest.Wait()
		r.openFlow(3, wire.KindUDP, peerA)
		r.openFlow(5, wire.KindUDPAny, wire.Addr{})
		r.Send(wire.AppendOpen(nil, 7, wire.Open{Kind: wire.KindUDP, Target: slow}))
		r.WantQuiet()
		if len(r.streams.Slots) != 1 {
			t.Errorf("%d places are taken, want 1", len(r.streams.Slots))
		}
		release <- struct{}{}
		r.WantOpened(1)
		release <- struct{}{}
		r.WantOpened(7)
		r.hangUp()
	})
}

func TestFlowsCountTowardsASessionsTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newFlowRig(t, func(s *Streams) { s.SessionTargets = 1 })
		r.openFlow(1, wire.KindUDPAny, wire.Addr{})
		r.Send(wire.AppendOpen(nil, 3, wire.Open{Kind: wire.KindUDP, Target: peerA}))
		r.WantReset(3, wire.CodeLimit)
		r.hangUp()
	})
}

func TestARateIsGainedOverTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBucket()
		count := func() (n int) {
			for b.take() {
				n++
			}
			return n
		}
		if n := count(); n != datagramBurst {
			t.Errorf("%d at once", n)
		}
		<-time.After(500 * time.Millisecond)
		if n := count(); n != datagramRate/2 {
			t.Errorf("%d after half a second", n)
		}
		<-time.After(time.Hour)
		if n := count(); n != datagramBurst {
			t.Errorf("%d after an hour", n)
		}
	})
}

var errLookup = errors.New("no such name")

// The tests above take the numbers from the code: here they are as docs/03, part 6.1,
// has them.
func TestTheNumbersOfFlowsAreThoseOfTheDocument(t *testing.T) {
	if flowIdle != time.Minute || flowIdleDNS != 10*time.Second || portDNS != 53 {
		t.Errorf("a flow ends after %v, %v where every port is %d", flowIdle, flowIdleDNS, portDNS)
	}
	if maxUnanswered != 30 || maxUnansweredBytes != 15_000 {
		t.Errorf("%d datagrams and %d bytes go to who does not answer", maxUnanswered, maxUnansweredBytes)
	}
	if datagramRate != 2000 || datagramBurst != 4000 {
		t.Errorf("a session sends %d datagrams a second, %d at once", datagramRate, datagramBurst)
	}
}
