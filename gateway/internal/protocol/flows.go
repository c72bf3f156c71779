package protocol

import (
	"context"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/gateway/internal/pace"
	"github.com/httvps/httvps/sdk/go/lazy"
	"github.com/httvps/httvps/sdk/go/mux"
	"github.com/httvps/httvps/sdk/go/wire"
)

// Limits of flows, docs/03, part 6.1.
const (
	flowIdle    = 60 * time.Second
	flowIdleDNS = 10 * time.Second // where every peer's port is portDNS
	portDNS     = 53

	// What the flows of one session send to targets, in datagrams.
	datagramRate  = 2000 // a second
	datagramBurst = 2 * datagramRate
)

// Why datagrams are dropped. The texts are labels of metrics.
const (
	dropDenied     = "denied"     // the egress policy forbids the address
	dropRate       = "rate"       // beyond what a session may send
	dropSpeed      = "speed"      // beyond what the device may move, in either direction
	dropQuota      = "quota"      // nothing is left of the subscription's quota, in either direction
	dropUnanswered = "unanswered" // enough was sent to an address that does not answer
	dropLookups    = "lookups"    // too many wait for the addresses of names
	dropDNS        = "dns"        // the name has no address, or nobody could say
	dropSocket     = "socket"     // the system did not take it
	dropStranger   = "stranger"   // from an address that the flow has not sent to
	dropSize       = "size"       // longer than a datagram may be
	dropQueue      = "queue"      // beyond the flow's queues, or too long in them
)

// Packets opens sockets for the flows of one session. Its errors tell their
// reason as those of [Dial] do, and its methods judge all addresses.
type Packets interface {
	// DialPacket opens a socket for one peer, and tells its address.
	DialPacket(ctx context.Context, target wire.Addr) (PacketConn, netip.AddrPort, error)
	// ListenPacket opens one for any peer.
	ListenPacket(ctx context.Context) (PacketConn, error)
	// Resolve returns the addresses of target that may be sent to, best first.
	Resolve(ctx context.Context, target wire.Addr) ([]netip.AddrPort, error)
}

// PacketConn is a socket for datagrams.
type PacketConn interface {
	// WriteTo sends p to peer, or drops it and says why.
	WriteTo(p []byte, peer netip.AddrPort) error
	// ReadFrom waits for a datagram, and reads what there is room for. It holds no
	// space while it waits; after an error it has returned it.
	ReadFrom(space lazy.Space) (n int, from netip.AddrPort, err error)
	Close() error
}

// serveFlow serves one flow until it ends. When it returns, its socket is closed
// and nothing of it runs.
func (s *Streams) serveFlow(ctx context.Context, muxed *mux.Flow, by Bounds, d dialer, rate *bucket) {
	conn, peer, err := d.connectFlow(ctx, muxed)
	if err == nil {
		if err = muxed.Confirm(); err != nil { // reset meanwhile
			_ = conn.Close()
			err = context.Canceled
		}
	}
	if err != nil {
		s.refuseFlow(muxed, CodeOf(err))
		return
	}
	s.ObserveFlow("opened")
	s.flows.Add(1)
	defer s.flows.Add(-1)
	f := &flow{
		muxed: muxed, conn: conn, peer: peer, meter: by.Meter, quota: by.Quota, rate: rate,
		speedUp: by.Speeds.Up.NewShare(), speedDown: by.Speeds.Down.NewShare(),
		dropped: s.Dropped, began: time.Now(),
	}
	f.peers.init()
	f.names = newNames(f, d)
	f.run(ctx)
}

func (s *Streams) refuseFlow(muxed *mux.Flow, code wire.Code) {
	muxed.Reset(code)
	s.ObserveFlow(code.String())
}

// Flows is how many flows are served.
func (s *Streams) Flows() int64 { return s.flows.Load() }

// connectFlow opens the flow's socket. Where that takes a look-up it takes places,
// as a stream's dial does; otherwise it waits for nobody.
func (d dialer) connectFlow(ctx context.Context, muxed *mux.Flow) (PacketConn, netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if muxed.Kind() == wire.KindUDPAny {
		conn, err := d.packets.ListenPacket(ctx)
		return conn, netip.AddrPort{}, err
	}
	if muxed.Target().Name != "" {
		leave, err := d.enter(ctx, muxed, muxed.Done())
		if err != nil {
			return nil, netip.AddrPort{}, err
		}
		defer leave()
	}
	return d.packets.DialPacket(ctx, muxed.Target())
}

// flow passes datagrams between a flow of a session and a socket of its own.
type flow struct {
	muxed              *mux.Flow
	conn               PacketConn
	peer               netip.AddrPort // of wire.KindUDP
	meter              Meter
	quota              Quota
	rate               *bucket // of the session
	speedUp, speedDown *pace.Share
	dropped            func(reason string, n int)
	peers              peers
	names              *names
	began              time.Time
	moved              atomic.Int64 // when a datagram did, since began

	mu    sync.Mutex // guards the following fields
	timer *time.Timer
	ended bool
}

// run returns when the flow has ended.
func (f *flow) run(ctx context.Context) {
	stop := context.AfterFunc(ctx, func() { f.end(wire.CodeCancelled) })
	defer stop()
	f.mu.Lock()
	f.timer = time.AfterFunc(f.idleLimit(), f.checkIdle)
	f.mu.Unlock()

	var up sync.WaitGroup
	up.Go(func() {
		ctx, cancel := context.WithCancel(ctx)
		f.up(ctx)
		cancel() // look-ups that nobody waits for any more
		_ = f.conn.Close()
		f.names.wait()
	})
	err := f.down()
	f.end(codeOfEnd(err, wire.CodeInternal)) // unless it has ended, which made the socket fail
	up.Wait()

	f.mu.Lock()
	f.ended = true
	f.timer.Stop()
	f.mu.Unlock()
	if n := f.muxed.Dropped(); n > 0 {
		f.dropped(dropQueue, int(n))
	}
}

// end ends the flow and its socket.
func (f *flow) end(code wire.Code) {
	f.muxed.Reset(code)
	_ = f.conn.Close()
}

// up passes the device's datagrams on, until the flow ends.
func (f *flow) up(ctx context.Context) {
	var room room
	for {
		n, to, err := f.muxed.ReceiveLazy(&room)
		if err != nil {
			return
		}
		p := room.Take()[:n]
		switch {
		case !f.rate.take():
			f.drop(dropRate)
		case !f.speedUp.Pass(n):
			f.drop(dropSpeed)
		case f.muxed.Kind() == wire.KindUDP:
			f.drop(f.send(f.peer, p))
		case to.Name != "":
			f.names.send(ctx, to, p)
		default:
			f.drop(f.send(netip.AddrPortFrom(to.IP, to.Port), p))
		}
		room.Return(true)
	}
}

// sendAny sends p to the first of addrs that there is a way to.
func (f *flow) sendAny(addrs []netip.AddrPort, p []byte) {
	reason := ""
	for _, addr := range addrs {
		if reason = f.send(addr, p); reason != dropSocket {
			break
		}
	}
	f.drop(reason)
}

// send sends p to an address, and returns why it was dropped, or "".
func (f *flow) send(to netip.AddrPort, p []byte) string {
	if !f.take(len(p)) {
		return dropQuota
	}
	added, ok := f.peers.admit(to, len(p)) // first: the answer may be faster than we are
	if !ok {
		f.quota.Return(len(p))
		return dropUnanswered
	}
	if err := f.conn.WriteTo(p, to); err != nil {
		f.quota.Return(len(p))
		if CodeOf(err) != wire.CodePolicyDenied {
			return dropSocket
		}
		if added { // nothing was sent to it, so nothing is let in from it
			f.peers.forget(to)
		}
		return dropDenied
	}
	f.meter.AddUp(len(p))
	f.touch()
	if added {
		f.checkIdle() // the patience may be another now
	}
	return ""
}

// take takes a datagram of n bytes from the quota, which may be the one that is
// larger than what is left.
func (f *flow) take(n int) bool {
	got := f.quota.Reserve(n)
	if got == 0 {
		return n == 0
	}
	f.quota.Overdraw(n - got)
	return true
}

func (f *flow) drop(reason string) {
	if reason != "" {
		f.dropped(reason, 1)
	}
}

// down passes on what peers send, until the socket is closed or fails, which is
// its error.
func (f *flow) down() error {
	var room room
	defer room.Return(false)
	for {
		n, from, err := f.conn.ReadFrom(&room)
		switch {
		case err != nil:
			return err
		case n > wire.MaxDatagram:
			f.drop(dropSize)
			continue
		case !f.peers.answered(from):
			f.drop(dropStranger)
			continue
		case !f.speedDown.Pass(n):
			f.drop(dropSpeed)
			continue
		case !f.take(n):
			f.drop(dropQuota)
			continue
		}
		f.meter.AddDown(n)
		f.touch()
		var peer wire.Addr
		if f.muxed.Kind() == wire.KindUDPAny {
			peer = wire.Addr{IP: from.Addr(), Port: from.Port()}
		}
		if err := f.muxed.Send(peer, room.Take()[:n]); err != nil {
			return err
		}
	}
}

func (f *flow) touch() { f.moved.Store(int64(time.Since(f.began))) }

// idleLimit is for how long nothing may move.
func (f *flow) idleLimit() time.Duration {
	if f.peer.Port() == portDNS || f.peers.onlyDNS() {
		return flowIdleDNS
	}
	return flowIdle
}

// checkIdle ends a flow on which nothing moves, and comes back when that may be
// so.
func (f *flow) checkIdle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.ended {
		return
	}
	if left := f.idleLimit() - (time.Since(f.began) - time.Duration(f.moved.Load())); left > 0 {
		f.timer.Reset(left)
		return
	}
	f.end(wire.CodeIdle)
}

// room is the memory for one datagram, and for one byte that tells of a longer
// one.
type room struct{ buf *[wire.MaxDatagram + 1]byte }

var rooms = sync.Pool{New: func() any { return new([wire.MaxDatagram + 1]byte) }}

// Take implements [lazy.Space].
func (r *room) Take() []byte {
	if r.buf == nil {
		r.buf = rooms.Get().(*[wire.MaxDatagram + 1]byte) //nolint:errcheck // the pool has no others
	}
	return r.buf[:]
}

// Return implements [lazy.Space].
func (r *room) Return(bool) {
	if r.buf != nil {
		rooms.Put(r.buf)
		r.buf = nil
	}
}

// bucket bounds how often something may happen.
type bucket struct {
	mu    sync.Mutex // guards the following fields
	spent float64    // of datagramBurst
	at    time.Time  // when spent was right
}

func newBucket() *bucket { return &bucket{at: time.Now()} }

// take reports whether it may happen now.
func (b *bucket) take() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Now()
	b.spent = max(0, b.spent-now.Sub(b.at).Seconds()*datagramRate)
	b.at = now
	if b.spent+1 > datagramBurst {
		return false
	}
	b.spent++
	return true
}
