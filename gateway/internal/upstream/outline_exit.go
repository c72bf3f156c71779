package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/httvps/httvps/gateway/internal/shadowsocks"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// connectTimeout bounds the connection to a server. In it the system repeats
	// its first packet once; a server that takes longer is replaced.
	connectTimeout = 2 * time.Second
	// hostLife is how long the address of a server's name is good.
	hostLife = time.Minute

	// Whether a server still listens is asked so often, on average and at once.
	checkEvery = 200 * time.Millisecond
	checkBurst = 20
	// checkWait is for how long the connection has to stay, beside the time that it
	// took: a process that is killed may lose its connections before its listener.
	checkWait = 50 * time.Millisecond

	// What finds a server that vanished without a word: keep-alive where nothing
	// is sent, userTimeout where something is.
	exitKeepAlive = 10 * time.Second
	userTimeout   = 20 * time.Second
)

// exit is one server that sessions leave through.
type exit struct {
	server   Server
	key      *shadowsocks.Key
	outline  *Outline
	users    int          // guarded by the outline's mutex, as is the next field
	unlisted bool         // it was not among the servers to watch, which its sessions know
	changed  atomic.Int64 // which of the outline's changes was the last about it

	names names

	mu       sync.Mutex // guards the following fields
	conns    map[lostable]struct{}
	addrs    []netip.AddrPort // of the server's name
	addrsAt  time.Time
	lost     bool
	failing  int // probes in a row
	result   Probe
	probing  bool
	probedAt time.Time

	checking  chan struct{} // held by who asks whether the server listens; guards what follows
	checked   time.Time     // when the last question began
	listening bool          // its answer
	checks    float64       // of checkBurst that were spent
}

// lostable is what ends with its server.
type lostable interface {
	// lose ends it unless bytes have come since.
	lose(since time.Time)
}

func newExit(s Server, key *shadowsocks.Key, o *Outline) *exit {
	e := &exit{server: s, key: key, outline: o, conns: make(map[lostable]struct{}), checking: make(chan struct{}, 1)}
	e.names.init()
	return e
}

func (e *exit) isLost() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.lost
}

// lostWhy returns whether the server is lost, and why its last probe failed.
func (e *exit) lostWhy() (why string, lost bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.result.TCP.Why, e.lost
}

func (e *exit) keep(c lostable) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.conns[c] = struct{}{}
}

func (e *exit) drop(c lostable) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.conns, c)
}

// lostError is the failure of the server, not of a target. It is never an
// io.EOF: whoever reads would take that for a good end.
func lostError(err error) *Error {
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return &Error{Failure: EgressLost, Err: fmt.Errorf("%w: %w", errLost, err)}
}

// dial connects to target through the server.
func (e *exit) dial(ctx context.Context, target wire.Addr) (*exitConn, error) {
	tcp, err := e.connect(ctx)
	if err != nil {
		if errors.Is(ctx.Err(), context.Canceled) {
			return nil, &Error{Failure: Cancelled, Err: err}
		}
		e.suspected()
		return nil, lostError(fmt.Errorf("%w: %w", errConnect, err))
	}
	conn, err := e.key.Client(tcp, target)
	if err != nil {
		_ = tcp.Close()
		return nil, &Error{Failure: Internal, Err: err}
	}
	c := &exitConn{Conn: conn, exit: e, began: time.Now(), closed: make(chan struct{})}
	e.keep(c)
	return c, nil
}

// connect connects to the server. Its address is the operator's, and not judged.
func (e *exit) connect(ctx context.Context) (*net.TCPConn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	addrs, err := e.addresses(ctx)
	if err != nil {
		return nil, err
	}
	conn, err := race(ctx, addrs, func(ctx context.Context, addr netip.AddrPort) (*net.TCPConn, error) {
		dialer := net.Dialer{KeepAliveConfig: net.KeepAliveConfig{Enable: true, Idle: exitKeepAlive, Interval: exitKeepAlive / 2, Count: 3}}
		conn, err := dialer.DialContext(ctx, "tcp", addr.String())
		if err != nil {
			return nil, err
		}
		return conn.(*net.TCPConn), nil //nolint:errcheck // what package net returns for "tcp"
	})
	if err != nil {
		e.mu.Lock()
		e.addrsAt = time.Time{} // the name may have moved
		e.mu.Unlock()
		return nil, err
	}
	boundUnacknowledged(conn)
	return conn, nil
}

// stays returns nil when a connection on which nothing was said is still there
// after d, and closes it.
func stays(ctx context.Context, conn *net.TCPConn, d time.Duration) error {
	defer func() { _ = conn.Close() }()
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	_ = conn.SetReadDeadline(time.Now().Add(d))
	if _, err := conn.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		return errors.Join(errors.New("it does not stay"), err)
	}
	return nil
}

// addresses returns those of the server.
func (e *exit) addresses(ctx context.Context) ([]netip.AddrPort, error) {
	if ip, err := netip.ParseAddr(e.server.Host); err == nil {
		return []netip.AddrPort{netip.AddrPortFrom(ip.Unmap(), e.server.Port)}, nil
	}
	e.mu.Lock()
	addrs, at := e.addrs, e.addrsAt
	e.mu.Unlock()
	if !at.IsZero() && time.Since(at) < hostLife {
		return addrs, nil
	}
	found, err := net.DefaultResolver.LookupNetIP(ctx, "ip", e.server.Host)
	if err != nil {
		return nil, fmt.Errorf("the server's name: %w", err)
	}
	addrs = nil
	for _, ip := range found {
		addrs = append(addrs, netip.AddrPortFrom(ip.Unmap(), e.server.Port))
	}
	if len(addrs) == 0 {
		return nil, errors.New("the server's name has no address")
	}
	addrs = alternate(addrs)
	addrs = addrs[:min(len(addrs), maxAddresses)]
	e.mu.Lock()
	e.addrs, e.addrsAt = addrs, time.Now()
	e.mu.Unlock()
	return addrs, nil
}

// dialPacket opens a socket for datagrams through the server: of one peer, or with
// the zero AddrPort of any.
func (e *exit) dialPacket(ctx context.Context, peer netip.AddrPort, policy *Policy) (*exitPackets, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	addrs, err := e.addresses(ctx)
	if err != nil {
		return nil, lostError(fmt.Errorf("%w: %w", errConnect, err))
	}
	var first error
	for _, addr := range addrs {
		conn, err := new(net.Dialer).DialContext(ctx, "udp", addr.String())
		if err == nil {
			p := newExitPackets(conn.(*net.UDPConn), e, peer, policy) //nolint:errcheck // what package net returns for "udp"
			e.keep(p)
			return p, nil
		}
		if first == nil {
			first = err
		}
	}
	return nil, lostError(fmt.Errorf("%w: %w", errConnect, first))
}

// listens reports whether the server takes connections and keeps them, by making
// one later than now. Who asks at the same time shares an answer. Where too many ask, it is
// taken for granted.
func (e *exit) listens(ctx context.Context) bool {
	asked := time.Now()
	select {
	case e.checking <- struct{}{}:
		defer func() { <-e.checking }()
	case <-ctx.Done():
		return true
	}
	if e.checked.After(asked) {
		return e.listening
	}
	now := time.Now()
	e.checks = max(0, e.checks-float64(now.Sub(e.checked))/float64(checkEvery))
	if e.checks+1 > checkBurst {
		return !e.isLost()
	}
	e.checks++
	e.checked = now
	conn, err := e.connect(ctx)
	if err == nil {
		err = stays(ctx, conn, time.Since(now)+checkWait)
	}
	if ctx.Err() != nil { // nobody wants to know any more
		e.checked = time.Time{}
		return true
	}
	e.listening = err == nil
	return e.listening
}
