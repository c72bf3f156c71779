package gateway_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/httvps/httvps/gateway"
	"github.com/httvps/httvps/sdk/go/httvps"
	"github.com/httvps/httvps/test/linkem"
)

// far is a gateway at one end of an emulated link and a device's client at the other,
// whose carriers break as a plan says.
type far struct {
	t       *testing.T
	link    *linkem.Link
	service *service
	client  *httvps.Client
	plan    func() (after int64, strike func(*faulty)) // of each new carrier; nil: none breaks
	told    func(httvps.Event)                         // of each event of the client, before it goes on
	events  chan httvps.Event
	stop    func() // the client

	mu       sync.Mutex // guards the following fields
	accepted map[string]net.Conn
	address  int // of the client, drawn last
}

// newFar starts both and waits for the session.
func newFar(t *testing.T, config linkem.Config, change func(*gateway.Config)) *far {
	t.Helper()
	f := &far{t: t, link: linkem.New(t, config), events: make(chan httvps.Event, 10_000), accepted: make(map[string]net.Conn)}
	listener, err := f.link.Server.Listen(t.Context(), "tcp", net.JoinHostPort(f.link.Server.Addr().String(), "0"))
	if err != nil {
		t.Fatal(err)
	}
	f.service = newServiceOn(t, &farListener{Listener: listener, far: f}, change)
	store := f.service.enrolled(t)
	f.client, err = httvps.NewClient(httvps.Config{Store: store, NetDial: f.dial, OnEvent: func(e httvps.Event) {
		if f.told != nil {
			f.told(e)
		}
		f.events <- e
	}})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// run starts the client and waits for its session.
func (f *far) run() {
	f.t.Helper()
	ctx, cancel := context.WithCancel(f.t.Context())
	ended := make(chan error, 1)
	go func() { ended <- f.client.Run(ctx) }()
	f.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			f.t.Errorf("Run = %v", err)
		}
	})
	f.t.Cleanup(f.stop)
	for e := range f.events {
		if e.Kind == httvps.Connected {
			return
		}
	}
}

// dial opens connections of the client: over the link to the gateway, straight to the
// control plane.
func (f *far) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if !strings.HasPrefix(address, f.link.Server.Addr().String()) {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	conn, err := f.link.Client.Dial(ctx, network, address)
	if err != nil || f.plan == nil {
		return conn, err
	}
	after, strike := f.plan()
	if strike == nil {
		return conn, nil
	}
	broken := &faulty{TCPConn: conn.(*net.TCPConn), strike: strike}
	broken.left.Store(after)
	return plain{broken}, nil
}

// plain is a connection that is not recognised as one of the system's, so that all
// bytes pass through it.
type plain struct{ net.Conn }

// faulty is a connection that is struck after so many bytes, whichever way they went.
type faulty struct {
	*net.TCPConn
	left   atomic.Int64
	strike func(*faulty)
	struck atomic.Bool
}

func (c *faulty) Read(p []byte) (int, error) {
	if left := c.left.Load(); left > 0 && int64(len(p)) > left {
		p = p[:left]
	}
	n, err := c.TCPConn.Read(p)
	c.passed(n)
	return n, err
}

func (c *faulty) Write(p []byte) (int, error) {
	first := p
	if left := c.left.Load(); left > 0 && int64(len(p)) > left {
		first = p[:left]
	}
	n, err := c.TCPConn.Write(first)
	c.passed(n)
	if err != nil || n == len(p) {
		return n, err
	}
	m, err := c.TCPConn.Write(p[n:])
	return n + m, err
}

func (c *faulty) passed(n int) {
	if c.left.Add(-int64(n)) <= 0 && !c.struck.Swap(true) {
		c.strike(c)
	}
}

// farListener keeps what it accepts, for faults that begin at the gateway's end.
type farListener struct {
	net.Listener
	far *far
}

func (l *farListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		l.far.mu.Lock()
		l.far.accepted[conn.RemoteAddr().String()] = conn
		l.far.mu.Unlock()
	}
	return conn, err
}

// peerOf is the gateway's end of a connection. It waits for it: a fault within the first
// bytes comes before the gateway has accepted the connection, and would hit nobody.
func (f *far) peerOf(c *faulty) *net.TCPConn {
	for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); <-time.After(time.Millisecond) {
		f.mu.Lock()
		conn, ok := f.accepted[c.LocalAddr().String()].(*net.TCPConn)
		f.mu.Unlock()
		if ok {
			return conn
		}
	}
	return nil
}

// The ways in which a carrier breaks.
func (f *far) resetHere(c *faulty) {
	_ = c.SetLinger(0)
	_ = c.Close()
}

func (f *far) resetThere(c *faulty) {
	if peer := f.peerOf(c); peer != nil {
		_ = peer.SetLinger(0)
		_ = peer.Close()
	}
}

func (f *far) endThere(c *faulty) {
	if peer := f.peerOf(c); peer != nil {
		_ = peer.CloseWrite()
	}
}

// reroute gives the client another address: what it has open falls silent.
func (f *far) reroute(*faulty) {
	f.mu.Lock()
	f.address = f.address%200 + 1
	next := netip.AddrFrom4([4]byte{203, 0, 113, byte(f.address)})
	f.mu.Unlock()
	if err := f.link.ChangeAddress(next); err != nil {
		f.t.Error(err)
	}
}

// blackhole swallows everything for a while.
func (f *far) blackhole(restored func()) {
	f.link.Cut()
	time.AfterFunc(4*time.Second, func() {
		f.link.Restore()
		restored()
	})
}

// spare has the carrier struck again, by the same, where it lives on.
func (c *faulty) spare(after int64) {
	c.left.Store(after)
	c.struck.Store(false)
}

// words is a stream of bytes that no two places have the same of: each eight of them
// tell their stream and their place.
type words struct {
	seed, at uint64 // at: the next byte
}

func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// fill writes the next bytes.
func (w *words) fill(p []byte) {
	for i := range p {
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], mix(w.seed+w.at/8))
		if w.at%8 == 0 && len(p)-i >= 8 {
			for ; len(p)-i >= 8; i += 8 {
				binary.LittleEndian.PutUint64(p[i:], mix(w.seed+w.at/8))
				w.at += 8
			}
			w.fill(p[i:])
			return
		}
		p[i] = word[w.at%8]
		w.at++
	}
}

// check says where p is not what comes next.
func (w *words) check(p []byte) error {
	want := make([]byte, len(p))
	at := w.at
	w.fill(want)
	for i := range p {
		if p[i] != want[i] {
			return fmt.Errorf("byte %d of %d is %02x, want %02x", i, at, p[i], want[i])
		}
	}
	return nil
}

// talk is one connection, both ways of which are busy until it is told to end.
type talk struct {
	seed     uint64
	up, down struct{ sent, received uint64 } // bytes, known when it is over
	ended    chan error                      // what its target says
}

// speaker is a target of talks.
type speaker struct {
	net.Listener
	heard func()
	mu    sync.Mutex // guards talks
	talks map[uint64]*talk
}

// newSpeaker starts one that calls heard for each piece that comes.
func newSpeaker(t *testing.T, heard func()) *speaker {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &speaker{Listener: l, heard: heard, talks: make(map[uint64]*talk)}
	var serving sync.WaitGroup
	serving.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { s.serve(conn.(*net.TCPConn)) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		serving.Wait()
	})
	return s
}

// serve says what a talk's seed tells, until the other end has said all.
func (s *speaker) serve(conn *net.TCPConn) {
	defer conn.Close()
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return
	}
	s.mu.Lock()
	k := s.talks[binary.LittleEndian.Uint64(head[:])]
	s.mu.Unlock()
	over := make(chan struct{})
	sent := make(chan uint64, 1)
	go func() { sent <- say(conn, ^k.seed, over) }()
	received, err := hear(conn, k.seed, s.heard)
	close(over)
	k.up.received, k.down.sent = received, <-sent
	if err == nil {
		err = conn.CloseWrite()
	}
	k.ended <- err
}

// say writes words until over, and returns how many bytes were taken.
func say(w io.Writer, seed uint64, over <-chan struct{}) uint64 {
	from, rng := words{seed: seed}, rand.New(rand.NewPCG(seed, 1))
	buf := make([]byte, 40_000)
	for {
		select {
		case <-over:
			return from.at
		default:
		}
		p := buf[:1+rng.IntN(len(buf))]
		if rng.IntN(3) > 0 {
			p = buf[:1+rng.IntN(1000)]
		}
		before := from.at
		from.fill(p)
		if n, err := w.Write(p); err != nil {
			return before + uint64(n)
		}
	}
}

// hear reads words to their end, and calls heard for each piece.
func hear(r io.Reader, seed uint64, heard func()) (uint64, error) {
	want := words{seed: seed}
	buf := make([]byte, 32<<10)
	for {
		n, err := r.Read(buf)
		if fault := want.check(buf[:n]); fault != nil {
			return want.at, fault
		}
		if n > 0 {
			heard()
		}
		if errors.Is(err, io.EOF) {
			return want.at, nil
		}
		if err != nil {
			return want.at, err
		}
	}
}

// converse runs a talk through the tunnel until over.
func (f *far) converse(s *speaker, k *talk, over <-chan struct{}, heard func()) error {
	s.mu.Lock()
	s.talks[k.seed] = k
	s.mu.Unlock()
	ctx, cancel := context.WithTimeout(f.t.Context(), time.Minute)
	defer cancel()
	dialled, err := f.client.DialContext(ctx, "tcp", s.Addr().String())
	if err != nil {
		return err
	}
	conn := dialled.(httvps.Conn)
	defer conn.Abort()
	var head [8]byte
	binary.LittleEndian.PutUint64(head[:], k.seed)
	if _, err := conn.Write(head[:]); err != nil {
		return err
	}
	sent := make(chan uint64, 1)
	go func() {
		n := say(conn, k.seed, over)
		_ = conn.CloseWrite()
		sent <- n
	}()
	k.down.received, err = hear(conn, ^k.seed, heard)
	if err != nil {
		conn.Abort()
	}
	k.up.sent = <-sent
	if err != nil {
		return err
	}
	if err := <-k.ended; err != nil {
		return fmt.Errorf("its target: %w", err)
	}
	if k.up.sent != k.up.received || k.down.sent != k.down.received {
		return fmt.Errorf("%d bytes arrived of %d that were sent, and %d of %d that were answered",
			k.up.received, k.up.sent, k.down.received, k.down.sent)
	}
	return nil
}

// The ways of bytes.
const (
	upward = iota
	downward
)

// pauses notes how long it takes after a fault until bytes arrive again, both ways.
type pauses struct {
	mu    sync.Mutex // guards the following fields
	kind  string     // of the latest fault
	at    time.Time  // when it struck; zero: its pause is over
	next  bool       // there is a carrier that is none of those it can have struck
	back  bool       // what arrives has not been on the way since before it
	heard [2]bool    // by way, since then
	done  map[string][]time.Duration
}

func newPauses() *pauses {
	return &pauses{done: make(map[string][]time.Duration)}
}

// dialled says that there is another carrier.
func (p *pauses) dialled() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.next = true
}

// fault begins a pause. One that strikes an attempt to go on counts from then.
func (p *pauses) fault(kind string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kind, p.at, p.next, p.back, p.heard = kind, time.Now(), false, false, [2]bool{}
}

// resumed says that the session goes on over the latest carrier.
func (p *pauses) resumed() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.back = p.back || p.next
}

// restored says that the carrier that was struck can go on.
func (p *pauses) restored() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.back = true
}

// arrives is told that bytes have come one way.
func (p *pauses) arrives(way int) func() {
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if !p.back || p.at.IsZero() {
			return
		}
		p.heard[way] = true
		if p.heard == [2]bool{true, true} {
			p.done[p.kind] = append(p.done[p.kind], time.Since(p.at))
			p.at = time.Time{}
		}
	}
}

// worst is the longest but one in a hundred.
func (p *pauses) worst(kind string) (median, p99 time.Duration, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	list := slices.Sorted(slices.Values(p.done[kind]))
	if len(list) == 0 {
		return 0, 0, 0
	}
	return list[len(list)/2], list[len(list)*99/100], len(list)
}
