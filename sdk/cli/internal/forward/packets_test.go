package forward

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// packet is a datagram and the program that sent or gets it.
type packet struct {
	addr netip.AddrPort
	data string
}

// memory is a socket in memory. The test sends with in and looks at out.
type memory struct {
	in     chan packet
	closed chan struct{}
	once   sync.Once

	mu  sync.Mutex // guards out
	out []packet
}

func (m *memory) ReadFromUDPAddrPort(p []byte) (int, netip.AddrPort, error) {
	select {
	case d := <-m.in:
		return copy(p, d.data), d.addr, nil
	case <-m.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (m *memory) WriteToUDPAddrPort(p []byte, to netip.AddrPort) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.out = append(m.out, packet{to, string(p)})
	return len(p), nil
}

func (m *memory) Close() error {
	m.once.Do(func() { close(m.closed) })
	return nil
}

// answers takes what programs were sent.
func (m *memory) answers() []packet {
	synctest.Wait()
	m.mu.Lock()
	defer m.mu.Unlock()
	out := m.out
	m.out = nil
	return out
}

// send has the socket read datagrams from a program.
func (m *memory) send(from int, datagrams ...string) {
	for _, d := range datagrams {
		m.in <- packet{program(from), d}
	}
	synctest.Wait()
}

// elapse lets the clock go on, and what is due then happen.
func elapse(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

// program is the address of one of many.
func program(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(10_000+n))
}

// flow is the far end of one source, in memory.
type flow struct {
	net.Conn // none of its other methods is called

	down   chan string
	closed chan struct{}
	once   sync.Once

	mu      sync.Mutex // guards the following fields
	up      []string
	by      time.Time
	refused error
}

func (f *flow) Write(p []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up = append(f.up, string(p))
	return len(p), nil
}

func (f *flow) SetReadDeadline(t time.Time) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.by = t
	return nil
}

func (f *flow) Read(p []byte) (int, error) {
	f.mu.Lock()
	left := time.Until(f.by)
	f.mu.Unlock()
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case d := <-f.down:
		return copy(p, d), nil
	case <-timer.C:
		return 0, os.ErrDeadlineExceeded
	case <-f.closed:
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.refused != nil {
			return 0, f.refused
		}
		return 0, net.ErrClosed
	}
}

func (f *flow) Close() error {
	f.once.Do(func() { close(f.closed) })
	return nil
}

// refuse ends the flow from its far end.
func (f *flow) refuse() {
	f.mu.Lock()
	f.refused = errors.New("refused")
	f.mu.Unlock()
	_ = f.Close()
}

func (f *flow) sent() string {
	synctest.Wait()
	f.mu.Lock()
	defer f.mu.Unlock()
	return fmt.Sprint(f.up)
}

func (f *flow) ended() bool {
	synctest.Wait()
	select {
	case <-f.closed:
		return true
	default:
		return false
	}
}

// bench is packets with everything around it played by the test.
type bench struct {
	*testing.T
	*memory

	packets *packets
	places  chan struct{} // one for each flow; nil: without bound

	mu    sync.Mutex // guards flows
	flows []*flow
}

func (b *bench) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if network != "udp" {
		return nil, net.UnknownNetworkError(network)
	}
	f := &flow{down: make(chan string), closed: make(chan struct{})}
	if b.places != nil {
		select {
		case b.places <- struct{}{}:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flows = append(b.flows, f)
	return f, nil
}

// flow is the n-th that was opened.
func (b *bench) flow(n int) *flow {
	b.Helper()
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	if n >= len(b.flows) {
		b.Fatalf("%d flows were opened, want %d", len(b.flows), n+1)
	}
	return b.flows[n]
}

func (b *bench) opened() int {
	synctest.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.flows)
}

func (b *bench) sources() int {
	synctest.Wait()
	b.packets.mu.Lock()
	defer b.packets.mu.Unlock()
	return len(b.packets.sources)
}

// played runs test beside packets for target, in virtual time.
func played(t *testing.T, target string, test func(b *bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		b := &bench{T: t, memory: &memory{in: make(chan packet), closed: make(chan struct{})}}
		b.packets = newPackets(b.memory, b.dial, target)
		ctx, cancel := context.WithCancel(t.Context())
		var done sync.WaitGroup
		done.Go(func() {
			if err := b.packets.serve(ctx); err != nil {
				t.Errorf("serve: %v", err)
			}
		})
		test(b)
		cancel()
		done.Wait() // and synctest finds whatever was left
		for i := range b.opened() {
			if !b.flow(i).ended() {
				t.Errorf("flow %d was left open", i)
			}
		}
	})
}

func TestEverySourceHasAFlowOfItsOwnAndGetsItsAnswers(t *testing.T) {
	played(t, "host:7", func(b *bench) {
		b.send(1, "a", "b")
		b.send(2, "c")
		b.send(1, "", "d")
		if got := b.flow(0).sent(); got != "[a b  d]" {
			b.Errorf("the first sent %s", got)
		}
		if got := b.flow(1).sent(); got != "[c]" {
			b.Errorf("the second sent %s", got)
		}
		b.flow(1).down <- "for 2"
		b.flow(0).down <- "for 1"
		got := map[packet]bool{}
		for _, p := range b.answers() {
			got[p] = true
		}
		if len(got) != 2 || !got[packet{program(1), "for 1"}] || !got[packet{program(2), "for 2"}] {
			b.Errorf("answers: %v", got)
		}
		if n := b.opened(); n != 2 {
			b.Errorf("%d flows", n)
		}
	})
}

func TestLongestDatagramPassesAndALongerOneIsDropped(t *testing.T) {
	played(t, "host:7", func(b *bench) {
		whole := string(bytes.Repeat([]byte("x"), maxDatagram))
		b.send(1, whole+"y", whole, whole+"yz")
		if got := b.flow(0).sent(); got != "["+whole+"]" {
			b.Errorf("sent %d bytes", len(got)-2)
		}
		b.flow(0).down <- whole
		if got := b.answers(); len(got) != 1 || got[0].data != whole {
			b.Errorf("%d answers", len(got))
		}
	})
}

func TestIdleSourceIsForgotten(t *testing.T) {
	for target, idle := range map[string]time.Duration{"host:7": time.Minute, "host:53": 10 * time.Second, "host:5353": time.Minute} {
		played(t, target, func(b *bench) {
			b.send(1, "a")
			elapse(idle - time.Second)
			b.send(1, "b") // moves
			elapse(idle - time.Second)
			b.flow(0).down <- "c" // moves
			elapse(idle - time.Millisecond)
			if b.flow(0).ended() || b.sources() != 1 {
				b.Errorf("%s: forgotten too early", target)
			}
			elapse(time.Millisecond)
			if !b.flow(0).ended() || b.sources() != 0 {
				b.Errorf("%s: %d sources after the time", target, b.sources())
			}
			b.send(1, "again") // at once
			if got := b.flow(1).sent(); got != "[again]" {
				b.Errorf("%s: sent %s", target, got)
			}
		})
	}
}

func TestSourcesAreBoundedAndTheIdlestGivesWay(t *testing.T) {
	played(t, "host:7", func(b *bench) {
		for i := range maxSources {
			b.send(i, "x")
			elapse(time.Millisecond)
		}
		b.send(0, "the first is not the idlest")
		b.flow(1).down <- "and the second neither"
		b.answers()
		b.send(maxSources, "one more")
		if n := b.sources(); n != maxSources {
			b.Errorf("%d sources", n)
		}
		if b.flow(0).ended() || b.flow(1).ended() || !b.flow(2).ended() || b.flow(3).ended() {
			b.Error("it was not the idlest that gave way")
		}
	})
}

// A source may be back before its old flow has ended.
func TestSourceThatGaveWayAndCameBackIsNotForgottenWithItsOldFlow(t *testing.T) {
	played(t, "host:7", func(b *bench) {
		for i := range maxSources {
			b.send(i, "x")
			elapse(time.Millisecond)
		}
		old := b.flow(0)
		old.mu.Lock() // it does not end yet
		for _, d := range []packet{{program(maxSources), "y"}, {program(0), "back"}, {program(5), "y"}} {
			b.in <- d
		}
		old.mu.Unlock()
		opened := b.opened()
		b.send(0, "and again")
		if n := b.opened(); n != opened {
			b.Error("it opened another flow")
		}
	})
}

func TestWhatWaitsForAFlowIsBoundedAndDropsTheOldest(t *testing.T) {
	played(t, "host:7", func(b *bench) {
		b.places = make(chan struct{})
		var want []string
		for i := range maxEarly + 5 {
			d := fmt.Sprint(i)
			b.send(1, d)
			if i >= 5 {
				want = append(want, d)
			}
		}
		b.send(2, "another is served meanwhile")
		<-b.places
		<-b.places
		b.opened()
		first, second := b.flow(0).sent(), b.flow(1).sent()
		if len(first) < len(second) {
			first, second = second, first
		}
		if first != fmt.Sprint(want) || second != "[another is served meanwhile]" {
			b.Errorf("sent %s and %s", first, second)
		}
	})
}

// A session has few flows, and whoever asks a name server takes another port for
// every question.
func TestWhoWaitsForAFlowGetsThatOfTheIdlest(t *testing.T) {
	played(t, "host:7", func(b *bench) {
		b.places = make(chan struct{}, 2)
		b.send(1, "a")
		elapse(restful)
		b.send(2, "busy")
		b.send(3, "waits")
		go func() { // a flow that ends leaves its place
			<-b.flows[0].closed
			<-b.places
		}()
		elapse(crowded - time.Millisecond)
		if b.opened() != 2 || b.flow(0).ended() {
			b.Error("a flow gave way at once")
		}
		elapse(time.Millisecond)
		if !b.flow(0).ended() || b.flow(1).ended() {
			b.Error("the idlest did not give way, or another did")
		}
		if got := b.flow(2).sent(); got != "[waits]" {
			b.Errorf("sent %s", got)
		}
		b.send(4, "nobody rests")
		go func() {
			<-b.flows[1].closed
			<-b.places
		}()
		elapse(restful - crowded - 2*time.Millisecond)
		if b.opened() != 3 || b.flow(1).ended() || b.flow(2).ended() {
			b.Error("a flow gave way that did not rest")
		}
		elapse(crowded + 2*time.Millisecond)
		if !b.flow(1).ended() {
			b.Error("no flow gave way later")
		}
		if got := b.flow(3).sent(); got != "[nobody rests]" {
			b.Errorf("sent %s", got)
		}
	})
}

// Each datagram to a target that is refused would open one more flow.
func TestSourceWhoseFlowWasRefusedIsIgnoredForASecond(t *testing.T) {
	played(t, "host:7", func(b *bench) {
		b.send(1, "a")
		b.flow(0).refuse()
		synctest.Wait()
		b.send(1, "b", "c")
		if s := b.packets.sources[program(1)]; len(s.early) > 0 {
			b.Errorf("%d datagrams are kept for nobody", len(s.early))
		}
		elapse(afterRefusal - time.Millisecond)
		b.send(1, "d")
		if n := b.opened(); n != 1 {
			b.Errorf("%d flows", n)
		}
		elapse(time.Millisecond)
		b.send(1, "e")
		if got := b.flow(1).sent(); got != "[e]" {
			b.Errorf("sent %s", got)
		}
	})
}

func TestSourceWhoseFlowWasLostOpensAnotherAtOnce(t *testing.T) {
	played(t, "host:7", func(b *bench) {
		b.send(1, "a")
		b.flow(0).down <- "it worked"
		b.flow(0).refuse()
		synctest.Wait()
		b.send(1, "b")
		if got := b.flow(1).sent(); got != "[b]" {
			b.Errorf("sent %s", got)
		}
	})
}

func TestWaitForAFlowHasAnEnd(t *testing.T) {
	played(t, "host:7", func(b *bench) {
		b.places = make(chan struct{})
		b.send(1, "a")
		elapse(flowTimeout + afterRefusal)
		if n := b.sources(); n != 0 {
			b.Errorf("%d sources", n)
		}
	})
}
