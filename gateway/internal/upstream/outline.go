package upstream

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/httvps/httvps/gateway/internal/shadowsocks"
	"github.com/httvps/httvps/sdk/go/wire"
)

const (
	// switchPause is how long a session keeps a server that it was switched to:
	// where several fail at once, it is no help to go round among them.
	switchPause = 30 * time.Second
	// assignTimeout bounds the question for a server.
	assignTimeout = 5 * time.Second
	// askPause is how long an answer stands that brought no other server.
	askPause = 3 * time.Second
	// idleExits that no session uses are kept, with what was seen of them.
	idleExits = 64
)

var (
	// ErrNoServer is what an [Assigner] returns that has no server for a session.
	ErrNoServer = errors.New("there is no Outline server for this session")

	errLost    = errors.New("the Outline server is lost")
	errConnect = errors.New("it cannot be connected to")
)

// Server is a Shadowsocks server and how to use it. Servers can be compared with
// ==.
type Server struct {
	ID string // in reports and metrics; no secret
	// Generation tells the keys of a server apart that has had several.
	Generation int64
	Host       string // a name or an IP address
	Port       uint16
	Cipher     string
	Password   string
	Prefix     string // of salts; bytes
	// Managed says that the server is known to refuse private addresses itself. It
	// gets names and resolves them where it stands.
	Managed bool
}

// String returns the ID: the rest is secret or says where the server is.
func (s Server) String() string { return s.ID }

// GoString returns what String does.
func (s Server) GoString() string { return fmt.Sprintf("upstream.Server(%q)", s.ID) }

// An Assigner says which server a session leaves through. It is safe for
// concurrent use.
type Assigner interface {
	// Assign returns a session's server, which stays the same until it fails. failed
	// is the ID of one that has failed, or empty. Where there is no other, that one
	// may be the answer again. The error is [ErrNoServer] when there is none.
	Assign(ctx context.Context, session [16]byte, failed string) (Server, error)
	// Release says that a session with a server is over. It does not wait.
	Release(session [16]byte)
	// Probed is told what a probe of a server saw. It does not wait.
	Probed(Probe)
}

// OutlineConfig is how an [Outline] works.
type OutlineConfig struct {
	Policy   *Policy
	Assigner Assigner
	// Servers are probed also while no session uses them.
	Servers []Server
	// Resolvers are name servers, asked through the servers.
	Resolvers []netip.AddrPort
	// Probe is a web server, asked through each server; the zero Addr: none is probed.
	Probe wire.Addr
	// ProbeInterval is the pause between two probes of a server.
	ProbeInterval time.Duration
	// ProbeTimeout bounds a probe; 0 means 5 s.
	ProbeTimeout time.Duration
	// MaxLookups is that of [DirectConfig].
	MaxLookups int
	// Probed, unless nil, is told what the Assigner is.
	Probed func(Probe)
	// Switched, unless nil, is told when a session has gone over to another server.
	Switched func()
}

// Outline sends streams and flows out through Shadowsocks servers. [Outline.Run]
// probes them.
type Outline struct {
	cfg     OutlineConfig
	lookups places
	suspect chan *exit

	mu    sync.Mutex // guards the following field
	exits map[Server]*exit
}

// NewOutline returns an Outline. The error says which server of the configuration
// cannot be used.
func NewOutline(cfg OutlineConfig) (*Outline, error) {
	o := &Outline{
		cfg: cfg, lookups: newPlaces(cmp.Or(cfg.MaxLookups, maxLookups)),
		suspect: make(chan *exit, idleExits), exits: make(map[Server]*exit),
	}
	if o.cfg.Switched == nil {
		o.cfg.Switched = func() {}
	}
	o.cfg.ProbeTimeout = cmp.Or(cfg.ProbeTimeout, probeTimeout)
	if o.cfg.Probed == nil {
		o.cfg.Probed = func(Probe) {}
	}
	for _, s := range cfg.Servers {
		if _, err := o.use(s); err != nil {
			return nil, fmt.Errorf("server %s: %w", s.ID, err)
		}
	}
	return o, nil
}

// use returns the exit of a server and counts a user of it.
func (o *Outline) use(s Server) (*exit, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if e, known := o.exits[s]; known {
		e.users++
		return e, nil
	}
	key, err := shadowsocks.NewKey(s.Cipher, s.Password, []byte(s.Prefix))
	if err != nil {
		return nil, err
	}
	if len(o.exits) >= idleExits {
		maps.DeleteFunc(o.exits, func(_ Server, e *exit) bool { return e.users == 0 })
	}
	e := newExit(s, key, o)
	e.users = 1
	o.exits[s] = e
	return e, nil
}

func (o *Outline) leave(e *exit) {
	o.mu.Lock()
	defer o.mu.Unlock()
	e.users--
}

// used lists the exits that have users, in the order of their IDs.
func (o *Outline) used() []*exit {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []*exit
	for _, e := range o.exits {
		if e.users > 0 {
			list = append(list, e)
		}
	}
	slices.SortFunc(list, func(a, b *exit) int {
		return cmp.Or(strings.Compare(a.server.ID, b.server.ID), cmp.Compare(a.server.Generation, b.server.Generation))
	})
	return list
}

// ForSession returns how one session leaves. It must be closed when the session
// is over.
func (o *Outline) ForSession(id [16]byte) *OutlineSession {
	return &OutlineSession{outline: o, id: id, lookups: o.lookups.forSession(), turn: make(chan struct{}, 1)}
}

// OutlineSession is a [Dialer] and a [PacketDialer] through the server of one
// session.
type OutlineSession struct {
	outline *Outline
	id      [16]byte
	lookups places
	turn    chan struct{} // held by who asks for a server

	mu     sync.Mutex // guards the following fields
	exit   *exit      // nil: there is none yet
	err    error      // why the last question brought none
	until  time.Time  // nothing is asked before
	closed bool
}

// Close gives the session's server back. Connections live on.
func (s *OutlineSession) Close() {
	s.mu.Lock()
	e := s.exit
	s.exit, s.closed = nil, true
	s.mu.Unlock()
	if e != nil {
		s.outline.leave(e)
		s.outline.cfg.Assigner.Release(s.id)
	}
}

// known returns the session's exit where nothing is to be asked: it works, or it is
// too early for another. failed is one that does not work.
func (s *OutlineSession) known(failed *exit) (e *exit, known bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	works := s.exit != nil && s.exit != failed && !s.exit.isLost()
	if early := time.Now().Before(s.until); !works && early && s.err != nil {
		return s.exit, true, s.err
	} else if works || early || s.closed {
		return s.exit, s.exit != nil, nil
	}
	return s.exit, false, nil
}

// through returns the exit that the session leaves through. It asks for a server
// when there is none, when it is lost, and when it is the one that failed. Who
// comes meanwhile waits for the answer.
func (s *OutlineSession) through(ctx context.Context, failed *exit) (*exit, error) {
	if e, known, err := s.known(failed); known {
		return e, err
	}
	select {
	case s.turn <- struct{}{}:
		defer func() { <-s.turn }()
	case <-ctx.Done():
		return nil, &Error{Failure: lostOr(ctx), Err: ctx.Err()}
	}
	before, known, err := s.known(failed)
	if known { // somebody has asked
		return before, err
	}
	ctx, cancel := context.WithTimeout(ctx, assignTimeout)
	defer cancel()
	e, err := s.ask(ctx, before)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return nil, &Error{Failure: Cancelled, Err: err} // it was not the server's fault
	case err != nil:
		s.err, s.until = &Error{Failure: EgressLost, Err: err}, time.Now().Add(askPause)
		return nil, s.err
	case s.closed:
		s.outline.leave(e)
		s.outline.cfg.Assigner.Release(s.id)
		return nil, &Error{Failure: Cancelled, Err: net.ErrClosed}
	}
	s.exit, s.err = e, nil
	switch before {
	case nil:
		return e, nil
	case e:
		s.until = time.Now().Add(askPause)
	default:
		s.until = time.Now().Add(switchPause)
		s.outline.cfg.Switched()
	}
	s.outline.leave(before)
	return e, nil
}

// ask asks for another server than before, which is nil at first.
func (s *OutlineSession) ask(ctx context.Context, before *exit) (*exit, error) {
	failed := ""
	if before != nil {
		failed = before.server.ID
	}
	server, err := s.outline.cfg.Assigner.Assign(ctx, s.id, failed)
	if err != nil {
		return nil, err
	}
	e, err := s.outline.use(server)
	if err != nil {
		return nil, fmt.Errorf("server %s: %w", server.ID, err)
	}
	return e, nil
}

// lostOr is the failure of what ended with ctx or without it.
func lostOr(ctx context.Context) Failure {
	if errors.Is(ctx.Err(), context.Canceled) {
		return Cancelled
	}
	return EgressLost
}

// try does something through the session's server, and when that turns out to be
// lost once more through the next one, if there is one.
func (s *OutlineSession) try(ctx context.Context, do func(context.Context, *exit) error) error {
	e, err := s.through(ctx, nil)
	if err != nil {
		return err
	}
	err = do(ctx, e)
	if !errors.Is(err, errLost) || ctx.Err() != nil {
		return err
	}
	next, switchErr := s.through(ctx, e)
	if switchErr != nil || next == e {
		return err
	}
	return do(ctx, next)
}

// Dial connects to target. The answer to a connection is that of the server, not
// of the target: whether the target could be had shows when bytes come.
func (s *OutlineSession) Dial(ctx context.Context, target wire.Addr) (Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	var conn Conn
	return conn, s.try(ctx, func(ctx context.Context, e *exit) error {
		to, err := s.judge(ctx, e, target)
		if err != nil {
			return err
		}
		opened, err := e.dial(ctx, to)
		if err == nil {
			conn = opened
		}
		return err
	})
}

// judge returns what the server is to connect to. A managed server gets a name,
// except where the operator denies addresses: these are judged here.
func (s *OutlineSession) judge(ctx context.Context, e *exit, target wire.Addr) (wire.Addr, error) {
	policy := s.outline.cfg.Policy
	if target.Name != "" && e.server.Managed && policy.TakesNames() {
		if err := policy.CheckPort(target.Port); err != nil {
			return wire.Addr{}, &Error{Failure: Denied, Err: err}
		}
		return target, nil
	}
	addrs, err := s.addresses(ctx, e, target, policy.Check)
	if err != nil {
		return wire.Addr{}, err
	}
	return wire.Addr{IP: addrs[0].Addr(), Port: addrs[0].Port()}, nil
}

// addresses returns what target stands for, without what check denies. IPv4 comes
// first: nobody says whether the server has IPv6.
func (s *OutlineSession) addresses(ctx context.Context, e *exit, target wire.Addr, check func(netip.AddrPort) error) ([]netip.AddrPort, error) {
	found := []netip.Addr{target.IP}
	if target.Name != "" {
		leave, err := s.lookups.enter(ctx)
		if err != nil {
			return nil, err
		}
		found, err = e.lookup(ctx, target.Name)
		leave()
		if err != nil {
			return nil, err
		}
	}
	return allowed(found, target.Port, check)
}

// DialPacket implements [PacketDialer]. Names are resolved through the server,
// also where it is a managed one: answers come from addresses.
func (s *OutlineSession) DialPacket(ctx context.Context, target wire.Addr) (PacketConn, netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	var (
		conn PacketConn
		peer netip.AddrPort
	)
	err := s.try(ctx, func(ctx context.Context, e *exit) error {
		addrs, err := s.addresses(ctx, e, target, s.outline.cfg.Policy.CheckUDP)
		if err != nil {
			return err
		}
		opened, err := e.dialPacket(ctx, addrs[0], s.outline.cfg.Policy)
		if err == nil {
			conn, peer = opened, addrs[0]
		}
		return err
	})
	return conn, peer, err
}

// ListenPacket implements [PacketDialer].
func (s *OutlineSession) ListenPacket(ctx context.Context) (PacketConn, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	var conn PacketConn
	return conn, s.try(ctx, func(ctx context.Context, e *exit) error {
		opened, err := e.dialPacket(ctx, netip.AddrPort{}, s.outline.cfg.Policy)
		if err == nil {
			conn = opened
		}
		return err
	})
}

// Resolve implements [PacketDialer].
func (s *OutlineSession) Resolve(ctx context.Context, target wire.Addr) ([]netip.AddrPort, error) {
	ctx, cancel := context.WithTimeout(ctx, DialTimeout)
	defer cancel()
	var addrs []netip.AddrPort
	err := s.try(ctx, func(ctx context.Context, e *exit) error {
		var err error
		addrs, err = s.addresses(ctx, e, target, s.outline.cfg.Policy.CheckUDP)
		return err
	})
	return addrs, err
}
